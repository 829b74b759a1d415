"""Run a command in its own process group, pass its lines on, and leave nothing of it behind.

``dvc repro`` starts a shell that starts a training process. Killing only the first leaves the last one
running, so every way out of :func:`run` ends the whole group: TERM, a short grace, then KILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from market.errors import ScalperError

GRACE_S = 10.0
"""How long a group may take to end after TERM before it is killed."""
TAIL_LINES = 30
"""How many of its last lines a failed command shows."""


class LineError(ScalperError):
    """A command of the line ended with a non-zero status."""

    exit_code = 1


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
    grace_s: float = GRACE_S,
) -> int:
    """Run ``argv`` to its end, handing each line of its output to ``on_line``; returns its exit status."""
    with started(argv, cwd=cwd, env=env, grace_s=grace_s) as process:
        assert process.stdout is not None
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
) -> None:
    """``dvc repro`` in ``workdir``; raises LineError with the last lines when a stage fails.

    DVC remembers what is up to date, so a second call does nothing. Only one call may run in a folder at a
    time: DVC's own lock says who holds it.
    """
    if not (workdir / "dvc.yaml").is_file():
        raise ScalperError(
            f"{workdir} has no dvc.yaml: run this in the project or in a workspace (`scalper workspace`)"
        )
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def pass_on(line: str) -> None:
        tail.append(line)
        if line.strip() and not line.startswith(NOISE):
            on_line(line)

    argv = [sys.executable, "-m", "dvc", "repro", *(["--force"] if force else []), *stages]
    status = run(argv, cwd=workdir, on_line=pass_on)
    if status != 0:
        reason = next((line for line in reversed(tail) if line.startswith("ERROR")), "see the lines above")
        raise LineError(f"dvc repro failed with status {status}: {reason}")
