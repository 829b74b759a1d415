"""The notifier: ``send`` queues and returns; a thread of its own talks to Telegram.

What waits is joined into one message of the same severity, so a burst costs one call. Calls keep to
Telegram's limits (one a second and twenty a minute for a chat) and to its ``retry_after``; other failures are
tried again with growing pauses until the notice is too old to matter. In quiet hours INFO waits for the
morning, WARNING comes without a sound, ALERT as always.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from live.config_schema import Notifications
from live.notify.dedupe import Dedupe
from live.notify.language import translator
from live.notify.notice import Notice, Severity, kind_of, severity_of
from live.notify.quiet import QuietHours
from live.notify.telegram import TelegramApi, TelegramError
from live.notify.waiting import SEPARATOR, Waiting
from live.sounds import Tones

MAX_WAITING = 200
MAX_MORNING = 50
"""INFO notices kept for the end of the quiet hours; the rest is counted."""
MAX_CHARS = 4_000
"""Telegram takes 4096 in one message; what is translated becomes longer, so less of it is joined."""
TIMEOUT_S = 10.0
MIN_INTERVAL_S = 1.05
MAX_PER_MINUTE = 20
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
MAX_RETRY_AFTER_S = 3_600.0
MAX_AGE_S = {Severity.INFO: 600.0, Severity.WARNING: 3_600.0, Severity.ALERT: 21_600.0}
IDLE_S = 30.0
_MARKS = {Severity.INFO: "", Severity.WARNING: "⚠ ", Severity.ALERT: "‼ "}


class Notifier:
    """``report`` is shown in the status. ``pace`` scales every pause (tests need not wait minutes)."""

    def __init__(
        self,
        settings: Notifications,
        *,
        prefix: str = "",
        timezone: str = "Europe/Moscow",
        tones: Tones | None = None,
        quiet: Callable[[], bool] | None = None,
        pace: float = 1.0,
        language: str = "en",
    ) -> None:
        self._chat_id, self._prefix, self._pace = settings.chat_id, prefix, pace
        self._translate = translator(language)
        self._max_chars = MAX_CHARS if language == "en" else MAX_CHARS * 2 // 3
        self._least = Severity[settings.min_severity.upper()]
        self._quiet = quiet or QuietHours(settings.quiet_hours, timezone).now
        self._tones = tones or (Tones() if settings.sound else None)
        self.api = TelegramApi(settings.token, settings.api_url) if settings.token else None
        self._waiting, self._dedupe = Waiting(MAX_WAITING), Dedupe(settings.dedupe_seconds * pace)
        self._morning: deque[Notice] = deque(maxlen=MAX_MORNING)
        self._kept_back = 0
        self._calls: deque[float] = deque(maxlen=MAX_PER_MINUTE)
        self._changed = threading.Condition()
        self._closing = False
        self.sent = self.failed = 0
        self.last_error = ""
        self._thread: threading.Thread | None = None
        if self.api is not None:
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()

    # ---- called by everybody; never blocks

    def send(
        self,
        text: str,
        tone_hz: int | None = None,
        *,
        kind: str = "",
        severity: Severity | None = None,
        chat_id: str = "",
    ) -> None:
        """Queue one notice. ``kind``: the name of the event (default: the first word)."""
        kind = kind or kind_of(text)
        worth = severity_of(kind, tone_hz) if severity is None else severity
        if tone_hz and self._tones is not None and self._audible(worth):
            self._tones.play(tone_hz)
        if self._thread is None or worth < self._least:
            return
        notice = Notice(text, worth, kind, chat_id or self._chat_id)
        with self._changed:
            if self._dedupe.admit(notice, notice.at_s):
                self._waiting.put(notice)
                self._changed.notify()

    def reply(self, text: str, chat_id: str) -> None:
        """An answer to a command: never joined, kept back or silenced."""
        self.send(text, kind="REPLY", severity=Severity.ALERT, chat_id=chat_id)

    def report(self) -> dict[str, Any]:
        return {
            "enabled": self._thread is not None,
            "sent": self.sent,
            "waiting": len(self._waiting),
            "dropped": self._waiting.dropped + self.failed,
            "last_error": self.last_error,
            "sound": self._tones.report() if self._tones is not None else None,
        }

    def close(self, wait_s: float = 2.0) -> None:
        """Gives what is queued a moment; a dead Telegram does not hold up the stop."""
        if self._tones is not None:
            self._tones.close()
        if self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(wait_s)

    def _audible(self, severity: Severity) -> bool:
        return severity is Severity.ALERT or (severity is Severity.WARNING and not self._quiet())

    # ---- the thread

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            batch, silent = self._next()
            if not batch:
                return
            try:
                self._post(batch, silent)
            except TelegramError as error:
                self.last_error = str(error)
                if error.permanent or self._closing:
                    self.failed += len(batch)
                    continue
                with self._changed:
                    self._waiting.put_back(batch)
                wish_s = error.retry_after_s
                self._sleep(min(wish_s, MAX_RETRY_AFTER_S) if wish_s is not None else pause_s)
                if wish_s is None:
                    pause_s = min(MAX_PAUSE_S, 2 * pause_s)
            else:
                self.sent += len(batch)
                self.last_error = ""
                pause_s = FIRST_PAUSE_S

    def _next(self) -> tuple[list[Notice], bool]:
        """The next message, when Telegram's limits allow one; empty when the notifier closes."""
        while True:
            with self._changed:
                now_s, quiet = time.monotonic(), self._quiet()
                self._keep_up(now_s, quiet)
                if self._waiting:
                    wait_s = self._allowed_in_s(now_s)
                    if wait_s <= 0 or self._closing:
                        batch = self._waiting.take(self._max_chars, len(self._prefix) + 2)
                        if not self._put_off(batch, quiet):
                            return batch, quiet and batch[0].severity < Severity.ALERT
                        continue
                elif self._closing:
                    return [], False
                else:
                    due_s = self._dedupe.next_due_s()
                    wait_s = IDLE_S if due_s is None else max(0.0, due_s - now_s)
                self._changed.wait(min(wait_s, IDLE_S))

    def _keep_up(self, now_s: float, quiet: bool) -> None:
        for notice in self._dedupe.due(now_s, everything=self._closing):
            self._waiting.put(notice)
        for severity, age_s in MAX_AGE_S.items():
            self._waiting.forget_older(now_s - age_s * self._pace, severity)
        if not quiet and self._kept_back:
            more = self._kept_back - len(self._morning)
            for notice in self._morning:
                notice.at_s = now_s
                self._waiting.put(notice)
            if more:
                self._waiting.put(Notice(f"and {more} more during the quiet hours", chat_id=self._chat_id))
            self._morning.clear()
            self._kept_back = 0

    def _put_off(self, batch: Sequence[Notice], quiet: bool) -> bool:
        """INFO waits for the end of the quiet hours."""
        if not quiet or batch[0].severity > Severity.INFO or self._closing:
            return False
        self._morning.extend(batch)
        self._kept_back += len(batch)
        return True

    def _allowed_in_s(self, now_s: float) -> float:
        last_s = self._calls[-1] if self._calls else -1e9
        wait_s = last_s + MIN_INTERVAL_S * self._pace - now_s
        if len(self._calls) == MAX_PER_MINUTE:
            wait_s = max(wait_s, self._calls[0] + 60.0 * self._pace - now_s)
        return wait_s

    def _post(self, batch: Sequence[Notice], silent: bool) -> None:
        assert self.api is not None
        self._calls.append(time.monotonic())
        lines = (
            f"{_MARKS[n.severity] if n.kind != 'REPLY' else ''}{self._prefix}{self._translate(n.text)}"
            for n in batch
        )
        text = SEPARATOR.join(lines)
        # Not the notice's markup: a ticker with an underscore must not make a message unreadable.
        fields = {"chat_id": batch[0].chat_id, "text": text[:MAX_CHARS], "disable_notification": silent}
        self.api.call("sendMessage", fields, TIMEOUT_S)

    def _sleep(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds * self._pace * random.uniform(1.0, 1.1)
        with self._changed:
            while not self._closing and (left_s := deadline_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
