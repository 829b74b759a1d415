"""Stage ``ingest``: a plausible market passes, its verdict in the metrics; an implausible one does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.stages import ingest
from market.errors import RecordingError
from market.recording import write_recording
from market.simulator import SimSpec, simulate_market
from market.types import InstrumentDay

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def day() -> InstrumentDay:
    return simulate_market([SimSpec("SIMA", "SMALL_ACTIVE")], hours=0.5)[0][0]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, day: InstrumentDay) -> None:
    write_recording(
        folder / "data/raw", [day], source="test", watermark="SIMULATED", tariff="simulated", provenance={}
    )


def test_the_verdict_of_each_day_is_among_the_metrics(day: InstrumentDay, workspace: Path) -> None:
    put(workspace, day)
    ingest.main(print)
    metrics = json.loads((workspace / "artifacts/metrics/ingest.json").read_text())
    assert metrics["verdicts"][f"SIMA/{day.day}"] == {"level": "ok", "reasons": []}


def test_a_book_side_that_is_not_the_touch_is_never_learned_from(day: InstrumentDay, workspace: Path) -> None:
    moved = day.books.rows(slice(None))
    moved.ask_px = (moved.ask_px + 5 * (moved.ask_qty > 0)).astype(np.int32)
    put(workspace, InstrumentDay(day.instrument, day.day, moved, day.trades))
    with pytest.raises(RecordingError, match=r"SIMA .* is implausible: .*leave that day out"):
        ingest.main(print)
    assert not (workspace / "artifacts/metrics/ingest.json").exists()
