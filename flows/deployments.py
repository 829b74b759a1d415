"""The deployments: which flow, when (Moscow time), with which parameters, and what the UI says about it.

``scalper up`` registers all of them. A deployment runs one at a time: a second request while one runs is
cancelled with that reason. Flows that use the line of the same folder wait for each other besides
(``flows.line.exclusive``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEZONE = "Europe/Moscow"


@dataclass(frozen=True, slots=True)
class Deployment:
    """``module``: the flow is the function of the same name in ``flows.jobs.<module>``. ``cron`` None: only
    by hand."""

    name: str
    module: str
    cron: str | None
    text: str
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        return f"flows.jobs.{self.module}.{self.module}"


ALL = (
    Deployment("ingest", "ingest", "30 19 * * 1-5", tags=("data",), text=(
        "After the session: the recordings that `data.path` names become the canonical one, each day with a "
        "verdict.")),
    Deployment("retrain", "retrain", "0 6 * * 6", tags=("training",), text=(
        "Saturday morning: dvc repro, register, judge, and ask for the alias challenger. Does nothing when "
        "nothing changed.")),
    Deployment("calibrate", "calibrate", "*/30 * * * *", tags=("training",), text=(
        "Every half hour: what the runner asked for in its calibration queue, once for all requests. An "
        "empty "
        "queue is a run of a second.")),
    Deployment("drift-report", "drift_report", "45 10-18 * * 1-5", tags=("monitoring",), text=(
        "Hourly in the session: newest features against the training reference.")),
    Deployment("performance-report", "performance_report", "45 19 * * 1-5", tags=("monitoring",), text=(
        "After the session: what the runner recorded, champion and challenger on the same market.")),
    Deployment("backup", "backup", "0 3 * * *", tags=("safety",), text=(
        "Every night: registry, DVC remote, runner and configuration, encrypted, and brought back for "
        "proof.")),
    Deployment("promote", "promote", None, tags=("registry",), text=(
        "By hand: ask the gate about a version and move an alias, or read why not.")),
    Deployment("science", "science", "0 5 1 * *", tags=("research",), text=(
        "First of the month: forecasting skill on the real recordings, apart from money.")),
)  # fmt: skip


def parameters(deployment: Deployment, workdir: Path) -> dict[str, Any]:
    """What the deployment runs with unless the form says otherwise."""
    return {"workdir": str(workdir.resolve()), **deployment.parameters}
