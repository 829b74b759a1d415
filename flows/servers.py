"""``scalper up``, ``down`` and ``status``: the platform in the background, found again by its state file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.line import environment
from flows.platform import LOGS, STATE, Ports
from flows.supervisor import READY_S, answers, check_free
from market.errors import ConfigError, ScalperError

STOP_S = 60.0
"""How long the servers may take to end before `down` says that they do not."""
PLATFORM_LOG = LOGS / "platform.log"
TAIL_LINES = 5


def state_of(workdir: Path) -> dict[str, Any] | None:
    """What runs in ``workdir``; None when nothing does (a leftover of a killed platform counts as
    nothing)."""
    try:
        state: dict[str, Any] = json.loads((workdir / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    try:
        alive = abs(psutil.Process(state["pid"]).create_time() - state["created"]) < 1.0
    except psutil.NoSuchProcess:
        alive = False
    return state if alive else None


def running(workdir: Path) -> dict[str, Any]:
    """As ``state_of``; ConfigError when nothing runs or it is not ready yet."""
    state = state_of(workdir)
    if state is None:
        raise ConfigError(f"the platform of {workdir.resolve()} is not running: start it with `scalper up`")
    if not state["ready"]:
        raise ConfigError(f"the platform of {workdir.resolve()} is still starting: see {PLATFORM_LOG}")
    return state


def up(workdir: Path, ports: Ports) -> dict[str, Any]:
    """Start the platform in the background and return its state when it is ready; the running one if there is
    one. Raises ScalperError with the last lines of its log."""
    state = state_of(workdir)
    if state is not None and state["ready"]:
        return state
    check_free("Prefect", ports.prefect)
    check_free("MLflow", ports.mlflow)
    (workdir / LOGS).mkdir(parents=True, exist_ok=True)
    argv = [
        sys.executable, "-m", "flows.cli", "up", "--foreground",
        "--prefect-port", str(ports.prefect), "--mlflow-port", str(ports.mlflow),
    ]  # fmt: skip
    with (workdir / PLATFORM_LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            argv, cwd=workdir, env=environment(), stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 2 * READY_S
    while time.monotonic() < deadline:
        state = state_of(workdir)
        if state is not None and state["ready"]:
            return state
        if process.poll() is not None:
            said = (workdir / PLATFORM_LOG).read_text(encoding="utf-8").strip().splitlines()[-TAIL_LINES:]
            raise ScalperError("the platform did not start: " + (" / ".join(said) or "it said nothing"))
        time.sleep(0.2)
    process.terminate()
    raise ScalperError(f"the platform was not ready within {READY_S:.0f} s: see {LOGS}/")


def down(workdir: Path) -> bool:
    """Stop the platform and wait until it is gone; False when there was none."""
    state = state_of(workdir)
    if state is None:
        (workdir / STATE).unlink(missing_ok=True)
        return False
    try:
        supervisor = psutil.Process(state["pid"])
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(STOP_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        raise ScalperError(
            f"the platform (pid {state['pid']}) does not end within {STOP_S:.0f} s: see {PLATFORM_LOG}"
        ) from None
    return True


def status_lines(workdir: Path) -> Iterator[str]:
    """What runs, where, with how much memory, and what is due next."""
    state = state_of(workdir)
    if state is None:
        yield "the platform is not running (scalper up starts it)"
        return
    if not state["ready"]:
        yield f"the platform is starting (pid {state['pid']}); logs in {LOGS}/"
        return
    for name, url, health in (
        ("prefect", state["prefect_url"], "/api/health"),
        ("mlflow", state["mlflow_url"], "/health"),
    ):
        said = "answers" if answers(url + health) else "DOES NOT ANSWER"
        yield f"{name:<8} {url}  {said}, {memory_mb(state['services'].get(name)):.0f} MB"
    yield f"{'flows':<8} {'':<21}  {memory_mb(state['services'].get('flows')):.0f} MB"


def memory_mb(pid: int | None) -> float:
    """Proportional memory (PSS: shared pages counted once) of a process and its children, in MB; 0 for
    none."""
    if pid is None or not psutil.pid_exists(pid):
        return 0.0
    parent = psutil.Process(pid)
    total = 0
    for process in (parent, *parent.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e6
