"""Drift report: recent features against the training reference of the built bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.job import NothingToDo, create_markdown_artifact, create_table_artifact, get_run_logger, job

REFERENCE = Path("artifacts/drift/reference.npz")
TODO = (
    "nothing is changed by a drift report. `no rows`: build features first, or ingest a recording that is "
    "newer than the one the reference was made of."
)


@job("drift-report", todo=TODO, max_late_s=1800)
def drift_report(workdir: str = ".", features: str = "data/features", hours: float = 1.0) -> dict[str, Any]:
    """Compare the newest features with the training reference, column by column; one table, one verdict.

    Args:
        workdir: The project's folder, or a workspace.
        features: The folder of feature tables to look at (data/features, or those of a newer recording).
        hours: How much of the end of each instrument's newest day is compared.
    """
    from flows import drift_rows

    folder = Path(workdir).resolve()
    if not (folder / REFERENCE).is_file():
        raise NothingToDo(f"{folder} has no reference yet: run the line once (`scalper repro`)")
    found = drift_rows.newest(folder, folder / features, hours=hours)
    create_table_artifact(key="drift", table=found.rows(), description=found.headline())
    create_markdown_artifact(key="drift-report", markdown=f"# {found.headline()}\n\n{found.markdown()}")
    get_run_logger().info(found.headline())
    return {"compared": len(found.columns), "drifted": found.drifted}


if __name__ == "__main__":
    drift_report()
