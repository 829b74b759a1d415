"""Drift report: what the runner saw lately against what its bundle was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.job import (
    NothingToDo,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
    emit_event,
    get_run_logger,
    job,
)

OUT = Path("artifacts/drift_report")
REFERENCE = Path("artifacts/drift/reference.npz")
REMEDY = (
    "nothing is changed by a drift report. `no rows`: let the runner trade for ten minutes, build features, "
    "or ingest a recording that is newer than the one the reference was made of."
)


@job("drift-report", todo=REMEDY, max_late_s=1800)
def drift_report(
    workdir: str = ".", features: str = "data/features", hours: float = 1.0, pictures: bool = True
) -> dict[str, Any]:
    """Compare what the runner saw lately (else the newest features) with training, column by column: one
    verdict by the rule that may stop the runner, one table, one page, and Evidently's distributions.

    Args:
        workdir: The project's folder, or a workspace.
        features: The folder of feature tables to look at where no runner has kept rows.
        hours: How much of the end of each instrument's newest day is looked at.
        pictures: Also write Evidently's page of each instrument: some seconds and megabytes each.
    """
    from flows import drift_page, drift_rows

    folder = Path(workdir).resolve()
    if not (folder / REFERENCE).is_file() and not any((folder / "runtime").rglob("drift_samples")):
        raise NothingToDo(f"{folder} has no reference yet: run the line once (`scalper repro`)")
    found = drift_rows.collect(folder, folder / features, hours=hours)
    page = drift_page.write(found, folder / OUT, pictures=pictures)
    create_table_artifact(key="drift", table=found.rows(), description=found.headline())
    create_markdown_artifact(
        key="drift-report",
        markdown=f"# {found.headline()}\n\n{found.markdown()}\n\nPage: `{OUT / page.name}`",
    )
    create_link_artifact(
        link=page.as_uri(), key="drift-page", description="opens without a network, on this machine"
    )
    if found.state != "ok":
        emit_event(
            event="scalper.drift.alert",
            resource={"prefect.resource.id": "scalper.drift"},
            payload={"state": found.state, "headline": found.headline()},
        )
    get_run_logger().info(found.headline())
    return {
        "state": found.state, "compared": found.compared, "drifted": found.drifted,
        "page": str(OUT / page.name),
    }  # fmt: skip


if __name__ == "__main__":
    drift_report()
