"""Truncate and compare: the features are clean, and whatever is planted is caught and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features import catalogue, schema
from features.batch import FeatureTable, compute
from features.declaration import FLOW_WINDOWS_S
from features.leakcheck import check_day, cut_points, first_events, stream_rows
from features.schema import NAMES
from flows.cli import main
from market.simulator import SimSpec, simulate_recording
from market.stream import merge
from market.types import InstrumentDay

PLANTED = "imbalance_l1"


def centred_average(mid: np.ndarray) -> np.ndarray:
    """Nine rows, four of them in the future."""
    return np.convolve(np.pad(mid, 4, mode="edge"), np.full(9, 1 / 9), mode="valid") - mid


def next_mid(mid: np.ndarray) -> np.ndarray:
    """The next row's change; the last row says 0, as if nothing moved."""
    return np.append(np.diff(mid), 0.0)


def whole_day_score(mid: np.ndarray) -> np.ndarray:
    return (mid - mid.mean()) / mid.std()


def whole_day_rank(mid: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(mid, kind="stable"), kind="stable") / len(mid)


def planted(leak: object) -> object:
    """The product's features with ``leak`` of mid in place of one column."""

    def table(day: InstrumentDay) -> FeatureTable:
        out = compute(day)
        if len(out):
            out.X[:, NAMES.index(PLANTED)] = leak(out.mid2 / 2)  # type: ignore[operator]
        return out

    return table


def test_the_features_know_nothing_of_the_future(dirty_day: InstrumentDay) -> None:
    found = check_day(dirty_day, cuts=30)
    assert found.differences == () and found.cuts > 20
    assert found.rows > 10 * len(dirty_day.books)


@pytest.mark.parametrize("leak", [centred_average, next_mid, whole_day_score, whole_day_rank])
def test_a_planted_leak_is_caught_and_named(clean_day: InstrumentDay, leak: object) -> None:
    found = check_day(clean_day, planted(leak), cuts=10)  # type: ignore[arg-type]
    assert [d.feature for d in found.differences] == [PLANTED]
    (first,) = found.differences
    assert first.recv_ns == clean_day.books.recv_ns[first.row]
    assert first.whole != first.short
    line = first.line()
    assert "SIMA 2026-01-15" in line and PLANTED in line and "when the day ends at 2026-01-15T" in line
    assert repr(first.whole) in line and repr(first.short) in line


def test_a_trade_seen_before_it_came_is_caught(clean_day: InstrumentDay) -> None:
    def early(day: InstrumentDay) -> FeatureTable:
        trades = day.trades.rows(np.arange(len(day.trades)))
        trades.recv_ns -= 300_000_000
        return compute(InstrumentDay(day.instrument, day.day, day.books, trades))

    found = check_day(clean_day, early, cuts=20)
    assert "last_trade_dev" in {d.feature for d in found.differences}


def test_cuts_are_anywhere_and_before_moves(clean_day: InstrumentDay) -> None:
    mid2 = compute(clean_day).mid2
    ends = cut_points(clean_day, mid2, 20, np.random.default_rng(1))
    kind, row = merge(clean_day.books, clean_day.trades)
    assert 10 < len(ends) <= 20 and ends.min() >= 1 and ends.max() < len(kind)
    last = [int(row[e - 1]) for e in ends if kind[e - 1] == 1]
    assert sum(mid2[r + 1] != mid2[r] for r in last if r + 1 < len(mid2)) >= 10
    short, kept = first_events(clean_day, int(ends[3]))
    assert len(short.books) + len(short.trades) == ends[3] and len(kept) == len(short.books)


def test_stream_rows_are_those_of_the_batch(dirty_day: InstrumentDay) -> None:
    X, status = stream_rows(dirty_day)
    table = compute(dirty_day)
    assert np.array_equal(X.view(np.uint32), table.X.view(np.uint32))
    assert np.array_equal(status, table.status)


def test_the_catalogue_as_json_is_the_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == schema.schema_hash()
    assert [f["name"] for f in said["features"]] == list(NAMES)
    assert set(said["features"][0]) == {
        "name", "source", "window_s", "unit", "mask", "mirror", "seasonal", "aligned", "feed",
    }  # fmt: skip
    aligned = [f["name"] for f in said["features"] if f["aligned"]]
    assert aligned == [f"aligned_flow_{w}s" for w in FLOW_WINDOWS_S]


def test_the_documented_catalogue_is_the_declaration() -> None:
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    assert text.endswith("\n\n" + catalogue.markdown() + "\n")
    assert f"as {schema.F} numbers" in text


OWN = """
import numpy as np
from features.declaration import FLOW_WINDOWS_S
from features.batch import compute
from features.schema import NAMES

def table(day):
    out = compute(day)
    out.X[:, NAMES.index("return_1s")] = np.append(np.diff(out.mid2), 0)
    return out
"""


def test_leak_check_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate_recording(tmp_path / "rec", [SimSpec("SIMA")], hours=0.06)
    (tmp_path / "own_features.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["leak-check", "--recording", "rec", "--cuts", "8"]
    assert main(command) == 0
    assert "rows of 8 cuts equal, byte by byte" in capsys.readouterr().out
    assert main([*command, "--table", "own_features:table"]) == 1
    said = capsys.readouterr().out
    assert "LEAK in return_1s" in said and "first: SIMA 2026-01-15, book " in said
    assert main([*command, "--table", "own_features:nothing"]) == 2
    assert main([*command, "--cuts", "0"]) == 2
    assert main([*command, "--leader", "SIMA"]) == 0
    assert main([*command, "--leader", "SIMA", "--table", "own_features:table"]) == 2
    said = capsys.readouterr().err
    assert "write MODULE:FUNCTION" in said and "--cuts 0: give a number above 0" in said
