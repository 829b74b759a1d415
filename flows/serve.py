"""``python -m flows.serve``: deploy the flows to the Prefect server named by PREFECT_API_URL and run what is
asked for.

Started by ``scalper platform``. A deployment runs one at a time: a second request while one runs is cancelled
with that reason, because DVC lets only one ``repro`` work in a folder.
"""

from __future__ import annotations

from pathlib import Path

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

from flows.promote import promote
from flows.retrain import retrain

ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def main() -> None:
    here = str(Path.cwd())
    serve(
        retrain.to_deployment(  # type: ignore[arg-type]  # a coroutine only inside an event loop
            "retrain", parameters={"workdir": here}, concurrency_limit=ONE_AT_A_TIME, tags=["scalper"],
            description="dvc repro, publish, judge; with promote_to also move the alias.",
        ),
        promote.to_deployment(  # type: ignore[arg-type]
            "promote", parameters={"workdir": here}, concurrency_limit=ONE_AT_A_TIME, tags=["scalper"],
            description="Move an alias to the built bundle's version, if the gate lets it.",
        ),
        pause_on_shutdown=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
