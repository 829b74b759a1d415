"""Run a command in its own process group, pass its lines on, and leave nothing of it behind.

``dvc repro`` starts a shell that starts a training process. Killing only the first leaves the last one
running, so every way out of :func:`run` ends the whole group: TERM, a short grace, then KILL.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from flows import params
from market.errors import ScalperError

GRACE_S = 10.0
"""How long a group may take to end after TERM before it is killed."""
TAIL_LINES = 30
"""How many of its last lines a failed command shows."""


LOCK = Path("runtime/line.lock")
LOCK_LOOK_S = 0.5


class LineError(ScalperError):
    """A command of the line ended with a non-zero status."""

    exit_code = 1


class LineBusy(ScalperError):
    """Another run of the line works in the same folder."""


@contextmanager
def exclusive(workdir: Path, who: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the line of ``workdir``: two ``dvc repro`` in a folder spoil each other's outputs. A lock of the
    system, so a holder that dies holds nothing."""
    path = workdir / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another run"
                    raise LineBusy(
                        f"the line in {workdir} is in use by {holder}: wait for it or stop it"
                    ) from None
                time.sleep(LOCK_LOOK_S)
        file.truncate(0)
        file.write(f"{who} (pid {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC)")
        file.flush()
        yield


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with its own interpreter first on the PATH and unbuffered Python output."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTHONUNBUFFERED"] = "1"
    env.update(extra or {})
    return env


def end_group(process: subprocess.Popen[str], grace_s: float = GRACE_S) -> None:
    """TERM the process group of ``process`` (started with its own session), wait, then KILL what is left."""
    for sig, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and _group_alive(process):
            time.sleep(0.05)
        if not _group_alive(process):
            break
    process.wait()


def _group_alive(process: subprocess.Popen[str]) -> bool:
    process.poll()  # reaps the leader, so that a zombie does not count as alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def started(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[str] = subprocess.PIPE,
    grace_s: float = GRACE_S,
) -> Iterator[subprocess.Popen[str]]:
    """The command, running in its own process group; on leaving the block the group is ended, however one
    leaves."""
    process = subprocess.Popen(
        list(argv), cwd=cwd, env=environment(env), stdout=stdout, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True, bufsize=1, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        end_group(process, grace_s)
        if process.stdout is not None:
            process.stdout.close()


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = print,
    on_start: Callable[[int], None] | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Run ``argv`` to its end, handing each line of its output to ``on_line``; returns its exit status.
    ``on_start`` hears the id of the process group."""
    with started(argv, cwd=cwd, env=env, grace_s=grace_s) as process:
        assert process.stdout is not None
        if on_start is not None:
            on_start(process.pid)
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        return process.wait()


NOISE = (
    "INFO: Created TensorFlow Lite",
    "Use `dvc push`",
    "Updating lock file",
    "Generating lock file",
    "To track the changes",
    "> python -m",
)
"""Beginnings of lines by DVC and by native libraries that tell a reader nothing."""


def repro(
    workdir: Path,
    *,
    stages: Sequence[str] = (),
    force: bool = False,
    on_line: Callable[[str], None] = print,
    on_start: Callable[[int], None] | None = None,
    who: str = "scalper repro",
    wait_s: float = 0.0,
) -> None:
    """``dvc repro`` in ``workdir``; raises LineError with the last lines when a stage fails.

    DVC remembers what is up to date, so a second call does nothing. Only one call may run in a folder at a
    time: while another one does, this waits ``wait_s`` and then raises LineBusy, which names the holder.
    """
    if not (workdir / "dvc.yaml").is_file():
        raise ScalperError(
            f"{workdir} has no dvc.yaml: run this in the project or in a workspace (`scalper workspace`)"
        )
    if (workdir / params.PARAMS).is_file():
        params.load(workdir / params.PARAMS)  # DVC itself would only say that a key is missing
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def pass_on(line: str) -> None:
        tail.append(line)
        if line.strip() and not line.startswith(NOISE):
            on_line(line)

    argv = [sys.executable, "-m", "dvc", "repro", *(["--force"] if force else []), *stages]
    with exclusive(workdir, who, wait_s=wait_s):
        status = run(argv, cwd=workdir, on_line=pass_on, on_start=on_start)
    if status != 0:
        reason = next((line for line in reversed(tail) if line.startswith("ERROR")), "see the lines above")
        raise LineError(f"dvc repro failed with status {status}: {reason}")
