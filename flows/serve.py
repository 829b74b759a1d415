"""``python -m flows.serve``: register the deployments at the Prefect server named by PREFECT_API_URL and run
what is due or asked for. Started by ``scalper up``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from flows import job  # sets Prefect's settings before Prefect is imported
from flows.deployments import ALL, TIMEZONE, parameters
from flows.sweep import TAG

# isort: split
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType
from prefect.schedules import Cron

assert job
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
AT_ONCE = 4
"""Runs of all deployments together: each is a process of its own."""


def deployments(workdir: Path) -> list[Any]:
    """Everything of ``flows.deployments`` as Prefect wants it."""
    made = []
    for one in ALL:
        flow = getattr(importlib.import_module(f"flows.jobs.{one.module}"), one.module)
        made.append(
            flow.to_deployment(
                one.name,
                parameters=parameters(one, workdir),
                schedule=Cron(one.cron, timezone=TIMEZONE) if one.cron else None,
                concurrency_limit=ONE_AT_A_TIME,
                tags=[TAG, *one.tags],
                description=one.text,
                # By module, not by file: the folder that is worked in is not the folder of the code.
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return made


def main() -> None:
    serve(*deployments(Path.cwd()), pause_on_shutdown=False, limit=AT_ONCE)


if __name__ == "__main__":
    main()
