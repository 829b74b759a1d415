"""Small pollers of files: the manual override flag, requests of a person, and one runner per folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import IO

from live.core.events import Override, Resume
from market.errors import ScalperError

MAX_REASON_BYTES = 2_000
RESUME_REQUEST = "resume.request"


class AlreadyRunning(ScalperError):
    """Two runners on one folder would trade one account twice."""


class RunnerLock:
    """An advisory lock on a file; the kernel drops it with the process. Raises AlreadyRunning."""

    def __init__(self, path: Path, refusal: str) -> None:
        """``refusal``: what a second one is told; ``{owner}`` in it is the pid of the first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise AlreadyRunning(refusal.format(owner=owner)) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    @classmethod
    def of_folder(cls, runtime: Path) -> RunnerLock:
        """One runner per runtime folder."""
        words = (
            f"a runner already works in {runtime} (pid {{owner}}); stop it or set another system.runtime_dir"
        )
        return cls(runtime / "runner.lock", words)

    @classmethod
    def of_account(cls, account: str) -> RunnerLock:
        """One runner per account on this machine, whatever its folder. ``account`` is not readable from the
        file's name.
        """
        digest = hashlib.sha256(account.encode()).hexdigest()[:24]
        folder = Path(tempfile.gettempdir()) / f"scalper-{os.getuid()}"
        words = (
            "another runner on this machine already trades this account (pid {owner}); two would send every "
            "order twice: stop it, or set another broker.account_id"
        )
        return cls(folder / f"account-{digest}.lock", words)

    def release(self) -> None:
        self._file.close()


class OverrideFlag:
    """The flag file. ``poll`` answers with an event when it appeared, changed or went."""

    def __init__(self, path: Path, auto_resume_s: float) -> None:
        self.path, self._auto_resume_s = path, auto_resume_s
        self._seen: str | None = None

    def poll(self, now_ns: int) -> Override | None:
        reason = self._read()
        if reason is not None and self._auto_resume_s and self._age_s() > self._auto_resume_s:
            self.path.unlink(missing_ok=True)
            reason = None
            why = f"removed by itself after {self._auto_resume_s / 60:g} minutes"
        else:
            why = self._note() if reason is None else ""
        if reason == self._seen:
            return None
        self._seen = reason
        return Override(now_ns, False, why) if reason is None else Override(now_ns, True, reason)

    def _read(self) -> str | None:
        try:
            text = self.path.read_bytes()[:MAX_REASON_BYTES].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the flag file cannot be read: {error.strerror}"  # present: when in doubt, stop
        return text or "no reason given"

    def _note(self) -> str:
        """Who removed the flag, where ``remove_flag`` did."""
        note = _note_of(self.path)
        try:
            text = note.read_bytes()[:MAX_REASON_BYTES].decode("utf-8", "replace").strip()
            note.unlink()
        except OSError:
            return "the flag file is gone"
        return text or "the flag file is gone"

    def _age_s(self) -> float:
        try:
            return time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def write_flag(path: Path, reason: str) -> None:
    """`live-runner halt`: the flag appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _note_of(path).unlink(missing_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(reason.strip() + "\n", encoding="utf-8")
    part.replace(path)


def remove_flag(path: Path, note: str) -> bool:
    """Takes the halt away; ``note`` is what the audit says about it. False: there was none."""
    if not path.exists():
        return False
    _note_of(path).write_text(note + "\n", encoding="utf-8")
    try:
        path.unlink()
    except FileNotFoundError:
        _note_of(path).unlink(missing_ok=True)
        return False
    return True


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".lifted")


def request_resume(runtime: Path, names: tuple[str, ...], reason: str) -> None:
    """`live-runner resume`: asks a running runner to lift the holds that a person may lift."""
    runtime.mkdir(parents=True, exist_ok=True)
    part = runtime / (RESUME_REQUEST + ".part")
    part.write_text(json.dumps({"names": list(names), "reason": reason}), encoding="utf-8")
    part.replace(runtime / RESUME_REQUEST)


def take_resume(runtime: Path, now_ns: int) -> Resume | None:
    """The waiting request, removed; None where there is none. An unreadable one is removed and ignored."""
    path = runtime / RESUME_REQUEST
    try:
        text = path.read_text(encoding="utf-8")
        path.unlink()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(text)
        return Resume(now_ns, tuple(str(n) for n in fields["names"]), str(fields["reason"]))
    except (ValueError, KeyError, TypeError):
        return None
