"""What a person may do to a running runner from outside, whatever the way in: the page, a chat, a terminal.

Everything goes through two files that the runner polls, so it works the same whether the runner is in this
process, in another, or not running.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live import status as status_
from live.core.holds import KINDS
from live.watch import remove_flag, request_resume, write_flag
from market.errors import ScalperError

MAX_REASON_CHARS = 300


class NotDone(ScalperError):
    """What was asked for was not done; the message says why."""


@dataclass(frozen=True, slots=True)
class Control:
    """``flag``: the manual override's file. ``runtime``: where the runner keeps its files."""

    flag: Path
    runtime: Path

    def status(self) -> dict[str, Any]:
        """The runner's status with ``halt_flag``, the reason in the flag file or None. Raises NoStatus."""
        return {**status_.read(self.runtime), "halt_flag": self.halted()}

    def halted(self) -> str | None:
        try:
            text = self.flag.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the flag file cannot be read: {error.strerror}"
        return text or "no reason given"

    def halt(self, reason: str, by: str) -> str:
        """No order leaves from now on. Returns what was written. Raises NotDone."""
        words = " ".join(reason.split())
        if not words:
            raise NotDone("a reason is needed: it goes into the audit and to everyone who is notified")
        text = f"{words[:MAX_REASON_CHARS]} ({by})"
        present = self.halted()
        if present is not None:
            raise NotDone(f"already halted: {present}")
        try:
            write_flag(self.flag, text)
        except OSError as error:
            raise NotDone(f"cannot write {self.flag}: {error.strerror}; use the broker's terminal") from None
        return text

    def resume(self, reason: str, by: str, *, seen_flag: str | None, names: tuple[str, ...]) -> str:
        """Removes the halt and asks the runner to lift the holds in ``names``.

        ``seen_flag`` and ``names`` are what the person saw when deciding: a halt or a hold that came since is
        left alone. Returns what was done. Raises NotDone.
        """
        unknown = [name for name in names if name not in KINDS or not KINDS[name].by_hand]
        if unknown:
            raise NotDone(f"no person can lift {', '.join(unknown)}")
        present = self.halted()
        if present != seen_flag:
            now = f"the halt now says: {present}" if present is not None else "nobody halts any more"
            raise NotDone(f"that changed in the meantime ({now}); look again")
        if present is None and not names:
            raise NotDone("there is nothing that a person could lift")
        done = []
        words = f"{' '.join(reason.split())[:MAX_REASON_CHARS] or 'resumed'} ({by})"
        try:
            if present is not None:
                remove_flag(self.flag, words)
                done.append("the halt is removed")
            if names:
                request_resume(self.runtime, names, words)
                done.append(f"the runner is asked to lift {', '.join(names)}")
        except OSError as error:
            raise NotDone(f"cannot change the files of the runner: {error.strerror}") from None
        return "; ".join(done)


def liftable(status: dict[str, Any]) -> tuple[str, ...]:
    """The names of the holds in force that a person may lift."""
    names = {h["name"] for h in status.get("holds", ()) if h["name"] in KINDS and KINDS[h["name"]].by_hand}
    return tuple(sorted(names))
