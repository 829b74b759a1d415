"""Calibrate: what the runner asked for in its queue, done once and acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows import calibration_queue
from flows.job import create_markdown_artifact, create_table_artifact, get_run_logger, job, reproduce
from flows.jobs.artifacts import run_id

REMEDY = (
    "the requests stay in the queue and are taken up by the next run; nothing was acknowledged. Read the "
    "run's "
    "log for the stage that failed."
)


@job("calibrate", todo=REMEDY, max_late_s=1800)
def calibrate(
    workdir: str = ".", max_requests: int = 100, promote_to_challenger: bool = True
) -> dict[str, Any]:
    """Take the runner's calibration requests, bring the line up to date once for all of them, register what
    came out as challenger, and only then acknowledge them.

    Args:
        workdir: The project's folder, or a workspace.
        max_requests: At most so many different requests in one run; the rest waits for the next.
        promote_to_challenger: Let the gate move the alias challenger to the result. Higher rungs are never
            taken from here.
    """
    folder = Path(workdir).resolve()
    requests = calibration_queue.pending(folder)[:max_requests]
    if not requests:
        get_run_logger().info("the calibration queue holds nothing new")
        return {"requests": 0}
    create_table_artifact(
        key="calibration-requests", table=[request.row() for request in requests],
        description=f"{len(requests)} different requests of the runner",
    )  # fmt: skip
    readable = [request for request in requests if request.readable]
    outcome = "unreadable: shown in the artifacts of this run"
    if readable:
        from flows import promotion, publishing

        reproduce(folder, who="calibrate")
        published = publishing.publish(folder, flow_run=run_id())
        outcome = published.line()
        if promote_to_challenger:
            done = promotion.promote(
                folder, "challenger", f"{len(readable)} calibration requests", which=published.version
            )
            outcome += "; challenger" if done.moved else "; the gate refused the alias challenger"
    calibration_queue.acknowledge(folder, requests, outcome)
    create_markdown_artifact(
        key="calibration",
        markdown=f"# {len(requests)} requests\n\n{outcome}\n\nThe same version as before means that "
        "there was no new data: ingest newer recordings first.",
    )
    return {"requests": len(requests), "outcome": outcome}


if __name__ == "__main__":
    calibrate()
