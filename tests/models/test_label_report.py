"""The kinds of label side by side: figures that must agree with each other, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from features.batch import compute
from flows.cli import main
from market.errors import ConfigError
from market.recording import write_recording
from market.simulator import SimSpec, simulate_market
from market.types import InstrumentDay
from models import label_report
from models.label_kinds import KINDS, PastAnchored, Tlob
from models.label_report import Leak

HOURS = 0.3


@pytest.fixture(scope="module")
def day() -> InstrumentDay:
    return simulate_market([SimSpec("SIMA", "SMALL_STEADY")], hours=HOURS, seed=3)[0][0]


def test_kinds_that_count_rows_get_those_of_the_horizon(day: InstrumentDay) -> None:
    kinds = {kind.name: kind for kind in label_report.kinds_for(day, horizon_s=5, latency_s=0.1, fee_ppm=7)}
    assert list(kinds) == [kind.name for kind in KINDS]
    assert kinds["past_anchored"] == PastAnchored(k=20), "5 s of a book every 250 ms"
    assert kinds["tlob"] == Tlob(k=10, h=20)
    assert kinds["executable"].fee_ppm == kinds["triple_barrier"].fee_ppm == 7  # type: ignore[attr-defined]
    empty = InstrumentDay(day.instrument, day.day, day.books.rows(slice(0, 1)), day.trades)
    with pytest.raises(ConfigError, match=r"SIMA .* holds 1 books: nothing to label"):
        label_report.kinds_for(empty, horizon_s=5, latency_s=0.1, fee_ppm=0)


def test_only_the_executable_label_pays_whoever_knows_it(day: InstrumentDay) -> None:
    rows = {
        row.kind: row
        for row in label_report.compare(day, compute(day), horizon_s=10, latency_s=0.1, fee_ppm=0)
    }
    own = rows.pop("executable")
    assert own.paid == 1.0 and own.net_bps > 0 and own.mcc == pytest.approx(1.0)
    # The barriers see the same prices before the horizon ends: most of such trades are worth taking.
    assert 0.5 < own.taken < 1.0
    smoothed = [rows[name] for name in ("price_anchored", "tlob", "past_anchored")]
    assert all(row.net_bps < own.net_bps and row.paid < 0.9 for row in smoothed)
    assert all(row.flat < own.flat and row.taken < own.taken for row in smoothed)
    barrier = rows["triple_barrier"]
    assert barrier.taken == 1.0, "a barrier label's own calls end at its take-profit"
    dear = label_report.compare(day, compute(day), horizon_s=10, latency_s=0.1, fee_ppm=10_000)[0]
    assert dear.flat == 1.0 and math.isnan(dear.taken), "at one per cent a side nothing is a trade"


def test_a_label_of_the_past_may_not_head_a_page() -> None:
    assert not Leak("past_anchored", 0.57, 20, 0.46).headline and Leak("executable", 0.335, 50, None).headline


def test_the_command_tells_each_kind(
    day: InstrumentDay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recording"
    write_recording(path, [day], source="simulator", watermark="SIMULATED", tariff="simulated", provenance={})
    assert main(["labels", str(path), "--no-leak"]) == 0
    said = capsys.readouterr().out
    assert "0.5 bp a side" in said and all(f"\n  {kind.name}" in said for kind in KINDS)
    assert "random walk" not in said
    assert main(["labels", str(path), "--no-leak", "--json", "--tariff", "free"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tariff"] == "free" and told["days"][0]["fee_bps_a_side"] == 0
    assert [row["kind"] for row in told["days"][0]["kinds"]] == [kind.name for kind in KINDS]
    assert main(["labels", str(path), "--horizon-s", "0"]) == 2
    assert "a horizon above 0" in capsys.readouterr().err


def test_what_a_random_walk_knows_of_a_smoothed_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_report, "KINDS", (PastAnchored,))  # the others take half a minute
    found = label_report.leaks()
    assert [(leak.kind, leak.headline) for leak in found] == [("past_anchored", False)]
    assert found[0].r2 == pytest.approx(0.46, abs=0.03) and np.isfinite(found[0].macro_f1)
