"""Science: the fixed forecasting protocol on real recordings, its report in the UI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flows.job import create_markdown_artifact, job, run_command

OUT = Path("artifacts/science")
MAX_CHARS = 60_000
REMEDY = (
    "the log's last line says what is missing: usually the recordings (set `data`, or SCALPER_DATA for the "
    "whole platform). Results of recordings that were done are kept."
)


@job("science", todo=REMEDY, max_late_s=24 * 3600)
def science(workdir: str = ".", data: str = "", only: str = "", quick: bool = True) -> dict[str, Any]:
    """Measure forecasting skill on real recordings against trivial rivals, apart from money.

    Args:
        workdir: The project's folder, or a workspace.
        data: The folder with the recordings; empty takes SCALPER_DATA or ../shared/data.
        only: One recording by name (rts, binance, amzn, ...); empty takes all, or with quick the RTS day.
        quick: Minutes instead of an hour: the RTS day only unless `only` says else, no DeepLOB.
    """
    folder = Path(workdir).resolve()
    argv = [sys.executable, "-m", "flows.cli", "science"]
    argv += ["--data", data] if data else []
    argv += ["--only", only] if only else []
    argv += ["--quick"] if quick else []
    run_command(argv, folder)
    report = (folder / OUT / "science.md").read_text(encoding="utf-8")
    create_markdown_artifact(key="science", markdown=report[:MAX_CHARS], description="forecasting skill")
    return {"report": str(OUT / "science.html")}


if __name__ == "__main__":
    science()
