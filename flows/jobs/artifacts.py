"""Artifacts that more than one flow leaves."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from flows.curves import curve_svg
from flows.job import create_image_artifact, this_run

BACKTEST = Path("artifacts/backtest/backtest.json")
NANO = 1e9


def run_id() -> str:
    """The id of the running flow run, for lineage; empty outside a flow."""
    return str(this_run.id or "")


def report_artifacts(folder: Path) -> None:
    """The backtest's equity net of fees as a picture, where there is one."""
    path = folder / BACKTEST
    if not path.is_file():
        return
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    points = [(at / NANO, value / NANO) for at, value in result["equity"]]
    mark = " [SIMULATED]" if result["watermark"] == "SIMULATED" else ""
    image(
        "backtest-equity",
        curve_svg({"net of fees, RUB": points}, title=f"block score, net of fees{mark}"),
        f"equity of the backtest on block score, net of fees{mark}",
    )


def image(key: str, svg: str, description: str) -> None:
    """A picture in the UI: the artifact holds the picture itself, so that it opens without any server."""
    address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    create_image_artifact(image_url=address, key=key, description=description)
