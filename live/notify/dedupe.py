"""The same notice again and again is told once, and then how often.

Notices are alike when they differ in digits only. The first is told at once. Those that follow within the
window are kept back; when it ends the latest of them is told with their number, so that what a person read
last is what happened last.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace

from live.notify.notice import NEVER_JOINED, Notice, Severity

MAX_SUBJECTS = 500
ALERT_WINDOW_S = 15.0
"""Alerts are kept back no longer than this."""
_DIGITS = re.compile(r"\d+")


@dataclass(slots=True)
class _Subject:
    began_s: float
    window_s: float
    count: int = 0
    latest: Notice | None = None


class Dedupe:
    """Not thread-safe: its owner locks. ``window_s`` 0 lets everything through."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._subjects: OrderedDict[tuple[str, str], _Subject] = OrderedDict()

    def admit(self, notice: Notice, now_s: float) -> bool:
        """True: tell it now. False: it was counted and comes with ``due``."""
        window_s = self._window(notice)
        if window_s <= 0 or notice.kind in NEVER_JOINED:
            return True
        key = (notice.chat_id, _DIGITS.sub("#", notice.text))
        subject = self._subjects.get(key)
        if subject is None:
            if len(self._subjects) >= MAX_SUBJECTS:
                return True  # rather twice than never
            self._subjects[key] = _Subject(now_s, window_s)
            return True
        subject.count += 1
        subject.latest = notice
        self._subjects.move_to_end(key)
        return False

    def due(self, now_s: float, *, everything: bool = False) -> list[Notice]:
        """What was kept back and whose window is over, oldest first; ``everything``: the process ends."""
        found = []
        for key, subject in list(self._subjects.items()):
            if not everything and now_s - subject.began_s < subject.window_s:
                continue
            del self._subjects[key]
            if subject.latest is not None:
                times = "time" if subject.count == 1 else "times"
                words = f"{subject.latest.text} ({subject.count} more {times} in {subject.window_s:g} s)"
                found.append(replace(subject.latest, text=words))
                if not everything:  # it goes on: the next ones are counted again
                    self._subjects[key] = _Subject(now_s, subject.window_s)
        return found

    def next_due_s(self) -> float | None:
        """When ``due`` has something to do next, monotonic seconds."""
        return min((s.began_s + s.window_s for s in self._subjects.values()), default=None)

    def _window(self, notice: Notice) -> float:
        return min(ALERT_WINDOW_S, self._window_s) if notice.severity is Severity.ALERT else self._window_s
