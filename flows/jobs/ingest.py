"""Ingest: new recordings into the canonical one, with a verdict on each day."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from flows.job import (
    create_markdown_artifact,
    create_table_artifact,
    get_run_logger,
    job,
    reproduce,
    run_command,
)
from flows.line import LineError

METRICS = Path("artifacts/metrics/ingest.json")
REMEDY = (
    "the log names the file or day and what is wrong with it. An implausible day: look at it with "
    "`scalper data plot`, leave it out, run again. Nothing was learned from it: the last good data stays."
)
RETRY_PAUSES_S = (0.0, 20.0, 60.0)
"""Reading from a share that is just being mounted or written may fail once: this is the one retried step."""


@job("ingest", todo=REMEDY, max_late_s=6 * 3600)
def ingest(workdir: str = ".", source: str = "", out: str = "") -> dict[str, Any]:
    """Bring the line's recording up to date with what `data.path` of params.yaml holds; or turn other files
    into a recording.

    Args:
        workdir: The project's folder, or a workspace.
        source: A file or folder of any kind that `scalper ingest` knows; empty takes what params.yaml names.
        out: Where the recording of `source` goes (required with it), for example runtime/recordings/october.
    """
    folder = Path(workdir).resolve()
    if source:
        argv = [
            sys.executable,
            "-m",
            "flows.cli",
            "ingest",
            source,
            "--out",
            out or f"runtime/recordings/{Path(source).stem}",
        ]
        said = _with_retries(lambda: run_command(argv, folder))
        create_markdown_artifact(key="ingest", markdown="```\n" + "\n".join(said[-20:]) + "\n```")
        return {"said": said[-1] if said else ""}
    _with_retries(lambda: reproduce(folder, who="ingest", stages=["ingest"]))
    found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    create_table_artifact(
        key="ingested-days", table=rows_of(found), description=f"data hash {found['data_hash'][:12]}"
    )
    create_markdown_artifact(
        key="ingest",
        markdown=f"# {found['watermark']} recording from {found['source']}\n\n"
        f"{len(found['books'])} instrument-days, "
        f"tariff {found['tariff']}, data hash `{found['data_hash']}`",
    )
    return {"days": len(found["books"]), "data_hash": found["data_hash"]}


def rows_of(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each instrument and day: what came in, what was dropped, what the verdict says."""
    return [
        {
            "day": name,
            "books": f"{report.get('books', 0):,}",
            "dropped": f"{report.get('books_dropped', 0):,}",
            "verdict": str(metrics["verdicts"].get(name, {}).get("level", "")),
        }
        for name, report in sorted(metrics["books"].items())
    ]


def _with_retries(work: Any) -> Any:
    for number, pause_s in enumerate(RETRY_PAUSES_S, 1):
        time.sleep(pause_s)
        try:
            return work()
        except LineError as error:
            if number == len(RETRY_PAUSES_S) or "implausible" in str(error):
                raise
            get_run_logger().warning(f"{error}; once more in {RETRY_PAUSES_S[number]:.0f} s")
    raise AssertionError("unreachable")


if __name__ == "__main__":
    ingest()
