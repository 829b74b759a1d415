"""Retrain: bring the line up to date, publish, judge, and leave what a person wants to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.job import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
    get_run_logger,
    job,
    reproduce,
)
from flows.jobs.artifacts import report_artifacts, run_id

if TYPE_CHECKING:
    from flows import promotion, publishing

REMEDY = (
    "read the last lines of the run's log: they name the stage and the reason. Mend it, then run `scalper "
    "repro` "
    "in the folder or this deployment again; stages that were done are not run again and nothing was "
    "registered."
)


@job("retrain", todo=REMEDY, max_late_s=6 * 3600)
def retrain(
    workdir: str = ".",
    force: bool = False,
    promote_to: Literal["", "challenger", "shadow", "canary", "prod"] = "challenger",
    reason: str = "",
) -> dict[str, Any]:
    """Bring the line up to date (dvc repro), register the bundle, ask the gate, and move an alias if it
    agrees.

    A refused promotion is a result, not a failure: the run completes and its artifacts say why.

    Args:
        workdir: The project's folder, or a workspace.
        force: Run every stage, also what is up to date (hours). Off: only what is stale.
        promote_to: The alias to ask for; empty moves none. The rungs below are taken on the way.
        reason: Kept with the promotion for later readers.
    """
    from flows import promotion, publishing

    folder = Path(workdir).resolve()
    reproduce(folder, who="retrain", force=force)
    published = publishing.publish(folder, flow_run=run_id())
    get_run_logger().info(published.line())
    verdict = promotion.judge(folder, "prod", published.version)
    create_table_artifact(key="gate-checks", table=verdict.rows(), description=verdict.headline())
    moved = False
    said = ""
    if promote_to:
        done = promotion.promote(
            folder, promote_to, reason or "retrain flow", which=published.version, climb=True
        )
        get_run_logger().info(done.text())
        moved, said = done.moved, done.text()
    create_markdown_artifact(
        key="retrain-verdict", markdown=markdown(published, verdict, said), description="the outcome"
    )
    report_artifacts(folder)
    address = publishing.page_of(folder, published.version)
    if address:
        create_link_artifact(
            key="model-version", link=address, link_text=f"version {published.version} in MLflow"
        )
    return {"version": published.version, "manifest_sha256": published.manifest_sha256, "moved": moved}


def markdown(published: publishing.Published, verdict: promotion.Verdict, said: str) -> str:
    """What a person reads in the Prefect UI after a run."""
    rows = ("| {check} | {value} | {limit} | {passed} | {reason} |".format(**row) for row in verdict.rows())
    lines = [
        f"# {published.watermark}: version {published.version}",
        "",
        verdict.headline(),
        "",
        "| check | value | limit | passed | reason |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *(["```", said, "```", ""] if said else []),
        f"Bundle `{published.manifest_sha256}`. Report: `artifacts/backtest/report.html`",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    retrain()
