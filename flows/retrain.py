"""The retrain flow: ``dvc repro``, publish, judge, and leave in Prefect what a person wants to read.

The flow knows nothing of the stages: DVC owns what depends on what. ``python -m flows.retrain`` runs it
without a standing server (Prefect starts a temporary one); ``scalper platform`` deploys it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from flows import line, publishing
from flows.platform import prefect_environment

# Prefect reads its settings when it is first imported; what is already set wins.
for _name, _value in prefect_environment(Path.cwd()).items():
    os.environ.setdefault(_name, _value)
# isort: split
from prefect import flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402


@task(name="dvc repro", cache_policy=NO_CACHE, retries=0)
def reproduce(workdir: Path, force: bool) -> None:
    """Bring the line up to date. Never retried: a training that only works the second time is a finding."""
    line.repro(workdir, force=force, on_line=get_run_logger().info)


@flow(name="retrain", persist_result=False, retries=0)
def retrain(
    workdir: str = ".", force: bool = False, promote_to: str | None = None, reason: str = ""
) -> dict[str, Any]:
    """Retrain in ``workdir`` and publish; with ``promote_to`` also ask the gate to move that alias.

    A refused promotion is a result, not a failure: the run completes and says why.
    """
    folder = Path(workdir).resolve()
    reproduce(folder, force)
    published = publishing.publish(folder)
    verdict = publishing.judge(folder, promote_to or "prod")
    get_run_logger().info(published.line())
    create_table_artifact(key="gate-checks", table=verdict.rows(), description=verdict.headline())
    create_markdown_artifact(
        key="retrain-verdict", markdown=markdown(published, verdict), description="the outcome"
    )
    moved = False
    if promote_to is not None:
        promotion = publishing.promote(folder, promote_to, reason or "retrain flow")
        get_run_logger().info(promotion.text())
        moved = promotion.moved
    return {"version": published.version, "manifest_sha256": published.manifest_sha256, "moved": moved}


def markdown(published: publishing.Published, verdict: publishing.Verdict) -> str:
    """What a person reads in the Prefect UI after a run."""
    lines = [
        f"# {published.watermark}: version {published.version}",
        "",
        verdict.headline(),
        "",
        "| check | value | limit | passed | reason |",
        "|---|---|---|---|---|",
        *("| {check} | {value} | {limit} | {passed} | {reason} |".format(**row) for row in verdict.rows()),
        "",
        f"Bundle `{published.manifest_sha256}`",
        "",
        "Report: `artifacts/backtest/report.html`",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="run the retrain flow here, now"
    )
    parser.add_argument("--workdir", default=".", help="the project or a workspace")
    parser.add_argument("--force", action="store_true", help="run every stage even when nothing changed")
    parser.add_argument("--promote-to", help="ask the gate to move this alias afterwards")
    parser.add_argument("--reason", default="")
    args = parser.parse_args()
    retrain(workdir=args.workdir, force=args.force, promote_to=args.promote_to, reason=args.reason)


if __name__ == "__main__":
    main()
