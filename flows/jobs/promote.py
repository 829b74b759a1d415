"""Promote: the gate's verdict as an artifact, and the alias moved or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from flows.job import create_markdown_artifact, create_table_artifact, get_run_logger, job

REMEDY = (
    "nothing moved. Read the run's log: an integrity error needs a new `dvc repro` and `scalper publish`; "
    "`another promotion won` needs a look at `scalper promotions` and then a new run."
)


@job("promote", todo=REMEDY)
def promote(
    workdir: str = ".",
    version: str = "",
    to: Literal["challenger", "shadow", "canary", "prod"] = "shadow",
    reason: str = "",
    climb: bool = False,
    override: str = "",
) -> dict[str, Any]:
    """Ask the gate about a version and move an alias to it, or say why not. A refusal completes, too.

    Args:
        workdir: The project's folder, or a workspace.
        version: A version number or an alias; empty takes the built bundle.
        to: The alias to move.
        reason: Kept with the promotion for later readers.
        climb: Take the rungs below on the way, each through the gate.
        override: A person's reason to move the alias against the gate. Recorded and shown for ever.
    """
    from flows import promotion

    done = promotion.promote(
        Path(workdir).resolve(), to, reason or "promote flow", which=version or None, climb=climb,
        override=override,
    )  # fmt: skip
    create_table_artifact(key="gate-checks", table=done.verdict.rows(), description=done.verdict.headline())
    create_markdown_artifact(key="promotion", markdown=f"```\n{done.text()}\n```", description="the outcome")
    get_run_logger().info(done.text())
    return {"alias": to, "moved": done.moved, "version": done.version}


if __name__ == "__main__":
    promote()
