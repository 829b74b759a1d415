"""Stage ``ingest``: a plausible market passes, its verdict in the metrics; an implausible one does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.stages import ingest
from market.errors import RecordingError
from market.recording import Recording, write_recording
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


@pytest.fixture(scope="module")
def days() -> list[InstrumentDay]:
    """Two instruments on two days."""
    specs = (SimSpec("SIMA", "SMALL"), SimSpec("SIMB", "SMALL"))
    return simulate_market(specs, hours=0.2, dt_s=0.5, day=["2026-01-15", "2026-01-16"])[0]


def put(folder: Path, *days: InstrumentDay) -> None:
    write_recording(
        folder / "data/raw", days, source="test", watermark="SIMULATED", tariff="simulated", provenance={}
    )


def test_the_verdict_of_each_day_is_among_the_metrics(day: InstrumentDay, workspace: Path) -> None:
    put(workspace, day)
    ingest.main(print)
    metrics = json.loads((workspace / "artifacts/metrics/ingest.json").read_text())
    assert metrics["verdicts"][f"SIMA/{day.day}"] == {"level": "ok", "reasons": []}


def test_a_new_day_of_a_recording_is_cleaned_alone(
    days: list[InstrumentDay], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """... and what comes out is, byte by byte, what all days at once give."""

    def ingested(*given: InstrumentDay) -> tuple[list[str], dict[str, bytes]]:
        put(workspace, *given)
        ingest.main(print)
        said = capsys.readouterr().out
        kept = [line.split(":")[0] for line in said.splitlines() if line.endswith("unchanged")]
        folder = workspace / "data/recording"
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return kept, files | {"metrics": (workspace / "artifacts/metrics/ingest.json").read_bytes()}

    first, second = days[:2], days[2:]
    names = [f"{d.instrument.ticker} {d.day}" for d in days]
    assert ingested(*first)[0] == []
    kept, grown = ingested(*days)
    assert kept == names[:2]
    (workspace / "data/.ingested.json").unlink()
    assert ingested(*days) == ([], grown)
    assert ingested(*days) == (names, grown)
    # A damaged file, another source and another description of an instrument are no reason to keep a day.
    file = workspace / "data/recording" / days[0].instrument.ticker / days[0].day / "book.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert ingested(*days) == (names[1:], grown)
    fewer = replace(days[3], books=days[3].books.rows(slice(0, 1200)))
    assert ingested(*days[:3], fewer)[0] == names[:3]
    assert ingested(*days)[1] == grown
    other = replace(days[0].instrument, tick_value_nano=2 * days[0].instrument.tick_value_nano)
    described = [replace(d, instrument=other) if d.instrument.ticker == other.ticker else d for d in days]
    assert ingested(*described)[0] == [n for n in names if not n.startswith(other.ticker)]
    # A day that is gone, or was spoilt: the rest stays as it was.
    assert set(ingested(*second)[1]) < set(grown)
    spoilt = days[0].books.rows(slice(None))
    spoilt.ask_px = (spoilt.ask_px + 5 * (spoilt.ask_qty > 0)).astype(np.int32)
    before = ingested(*second)[1]
    with pytest.raises(RecordingError, match="is implausible"):
        ingested(replace(days[0], books=spoilt), *second)
    capsys.readouterr()
    assert ingested(*second) == ([f"{d.instrument.ticker} {d.day}" for d in second], before)
    assert not list((workspace / "data").glob(".recording*"))


KILLED = """
import os, signal, sys
from flows.stages import ingest

moment, removing = sys.argv[1], []
def look(event, given):
    if event == "shutil.rmtree" and os.path.exists(given[0]):
        removing.append(os.path.basename(given[0]))
    swapped = event == "os.rename" and str(given[1]) == "data/recording"
    if event == "os.remove" and removing[-1:] in (["recording"], [".recording.old"]):
        removing.append(removing[-1])
    if moment == "swapping" and swapped or event == "os.remove" and len(removing) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(look)
ingest.main(print)
"""


@pytest.mark.parametrize("moment", ["swapping", "removing"])
def test_a_stage_that_is_killed_leaves_no_part_of_a_recording(
    days: list[InstrumentDay], workspace: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    one, two = days[:2]
    put(workspace, one)
    ingest.main(print)
    put(workspace, one, two)
    argv = [sys.executable, "-c", KILLED, moment]
    env = {**os.environ, "PYTHONPATH": str(PARAMS.parent)}
    assert subprocess.run(argv, cwd=workspace, env=env, check=False).returncode == -signal.SIGKILL
    found = workspace / "data/recording"
    assert not found.exists() or Recording.open(found).info.days == {"SIMA": (one.day, two.day)}
    capsys.readouterr()
    ingest.main(print)
    assert f"SIMA {one.day}: {len(one.books):,} books, unchanged" in capsys.readouterr().out
    assert Recording.open(found).info.days == {"SIMA": (one.day, two.day)}
    assert {path.name for path in (workspace / "data").iterdir()} == {"raw", "recording", ".ingested.json"}


def test_a_part_of_a_recording_heals(days: list[InstrumentDay], workspace: Path) -> None:
    """Of a removal that was cut short, or by hand: DVC leaves there what it finds."""
    put(workspace, days[0])
    ingest.main(print)
    whole = Recording.open(workspace / "data/recording").data_hash()
    for name in ("recording.json", f"{days[0].instrument.ticker}/{days[0].day}/book.parquet"):
        (workspace / "data/recording" / name).unlink()
    ingest.main(print)
    assert Recording.open(workspace / "data/recording").data_hash() == whole


def test_dvc_leaves_the_days_where_they_are_taken_over() -> None:
    stages = yaml.safe_load((PARAMS.parent / "dvc.yaml").read_text())["stages"]
    assert stages["ingest"]["outs"] == [{"data/recording": {"persist": True}}]


def test_a_book_side_that_is_not_the_touch_is_never_learned_from(day: InstrumentDay, workspace: Path) -> None:
    moved = day.books.rows(slice(None))
    moved.ask_px = (moved.ask_px + 5 * (moved.ask_qty > 0)).astype(np.int32)
    put(workspace, InstrumentDay(day.instrument, day.day, moved, day.trades))
    with pytest.raises(RecordingError, match=r"SIMA .* is implausible: .*leave that day out"):
        ingest.main(print)
    assert not (workspace / "artifacts/metrics/ingest.json").exists()
