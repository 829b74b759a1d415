"""Performance report: what the runner recorded, champion and challenger beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.curves import curve_svg
from flows.job import create_markdown_artifact, create_table_artifact, get_run_logger, job
from flows.jobs.artifacts import image

OUT = Path("artifacts/performance")
REMEDY = (
    "trading is not affected: this only reads. The log names the database that could not be read; while the "
    "runner is starting that passes by itself."
)


@job("performance-report", todo=REMEDY, max_late_s=12 * 3600)
def performance_report(workdir: str = ".", database: str = "", days: int = 7) -> dict[str, Any]:
    """Fills, round trips and shadow scores of the last days: one table, one page, one picture; the champion
    and the challenger compared on the market that both saw.

    Args:
        workdir: The project's folder, or a workspace.
        database: The runner's SQLite file; empty takes every scalper.db below runtime/.
        days: How far back, by the wall clock of the sessions.
    """
    from flows import performance, performance_page

    folder = Path(workdir).resolve()
    found = performance.collect(folder, [Path(database)] if database else None, days=days)
    page = performance_page.write(found, folder / OUT)
    create_table_artifact(key="performance", table=found.rows(), description=found.headline())
    create_markdown_artifact(
        key="performance-report", markdown=found.markdown() + f"\n\nPage: `{OUT / page.name}`"
    )
    image(
        "performance-equity",
        curve_svg(found.curves(), title=f"net of fees, RUB{found.mark}"),
        "equity net of fees by version",
    )
    get_run_logger().info(found.headline())
    return {"roles": len(found.versions), "page": str(OUT / page.name)}


if __name__ == "__main__":
    performance_report()
