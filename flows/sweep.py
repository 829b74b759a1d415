"""Runs whose process is gone: told to Prefect, and what they left behind ended.

A flow's process writes ``runtime/platform/runs/<flow run id>.json`` when it begins (its pid and the time that
pid was created) and adds the process groups it starts: in the platform's folder, also when it works in a
workspace. A run that Prefect calls Running while that process is dead has crashed: `kill -9`, out of memory,
a power cut. Prefect's own heartbeats find some of these after minutes; this finds them within seconds, and
also ends the training that an orphaned ``dvc repro`` goes on with.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from flows import prefect_api
from market.errors import ScalperError

RUNS = Path("runtime/platform/runs")
TAG = "scalper"
UNKNOWN_S = 600.0
"""A run without a record on this machine is left alone so long: its process may just be starting."""
CREATED_SLACK_S = 1.0
"""A pid's creation time is read with this precision; a reused pid is younger by more."""


@dataclass(slots=True)
class RunRecord:
    """What a run's process has said about itself."""

    path: Path

    def add_group(self, pid: int) -> None:
        """A process group that this run started and that must not outlive it."""
        record = json.loads(self.path.read_text(encoding="utf-8"))
        record["groups"].append(_identity(pid))
        _write(self.path, record)


@contextmanager
def recorded(workdir: Path, flow_run_id: str, name: str) -> Iterator[RunRecord]:
    """The record of this process's run, for as long as the block lasts."""
    path = workdir / RUNS / f"{flow_run_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, {"name": name, "process": _identity(os.getpid()), "groups": []})
    try:
        yield RunRecord(path)
    finally:
        path.unlink(missing_ok=True)


def sweep(workdir: Path, api: str, now: datetime | None = None) -> list[str]:
    """Mark this folder's dead runs as Crashed at the Prefect server ``api``; returns their names.

    A server that does not answer is not this function's business: it tries again at the next call.
    """
    at = now or datetime.now(UTC)
    swept = []
    try:
        running = prefect_api.post(
            api,
            "flow_runs/filter",
            {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}, "tags": {"all_": [TAG]}}},
        )
        for run in running:
            path = workdir / RUNS / f"{run['id']}.json"
            if not _dead(path, run, at):
                continue
            _end_groups(path)
            cancelled = run["state"]["type"] == "CANCELLING"
            state = {
                "type": "CANCELLED" if cancelled else "CRASHED",
                "name": "Cancelled" if cancelled else "Crashed",
                "message": "Its process is gone (killed, out of memory, or the machine stopped). What it had "
                "started was ended. Nothing half-done is registered: run it again.",
            }
            prefect_api.post(api, f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})
            path.unlink(missing_ok=True)
            swept.append(str(run["name"]))
    except ScalperError:
        return swept
    _forget_finished(workdir)
    return swept


def _dead(path: Path, run: dict[str, Any], now: datetime) -> bool:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = datetime.fromisoformat(str(run.get("start_time") or run["state"]["timestamp"]))
        return (now - begun).total_seconds() > UNKNOWN_S
    return not _alive(record["process"])


def _forget_finished(workdir: Path) -> None:
    """Records of processes that died while no server listened, after ending what they left."""
    for path in (workdir / RUNS).glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not _alive(record["process"]):
            _end_groups(path)
            path.unlink(missing_ok=True)


def _end_groups(path: Path) -> None:
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
    except FileNotFoundError:
        return
    for identity in groups:
        # The leader may be gone while its children run: its pid is then still the group's and cannot be
        # reused.
        if _alive(identity) or not psutil.pid_exists(identity["pid"]):
            try:
                os.killpg(identity["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue


def _identity(pid: int) -> dict[str, float | int]:
    try:
        return {"pid": pid, "created": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return {"pid": pid, "created": 0.0}


def _alive(identity: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(identity["pid"]))
        return (
            abs(process.create_time() - identity["created"]) < CREATED_SLACK_S
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def _write(path: Path, record: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(record) + "\n", encoding="utf-8")
    draft.replace(path)
