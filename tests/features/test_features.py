"""One kernel: batch and live give the same bits, and both give the numbers of the formulas."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import plain, schema
from features.batch import FeatureTable, compute
from features.schema import NAMES, SEASONAL, F, schema_hash
from features.stream import FeatureStream
from market.errors import RecordingError, ScalperError
from market.importers import ingest
from market.stream import merge
from market.types import Books, InstrumentDay, Trades

ROOT = Path(__file__).resolve().parents[2]


def play(
    stream: FeatureStream, day: InstrumentDay, from_event: int = 0, to_event: int | None = None
) -> FeatureTable:
    """Feed events one by one as the runner does; rows not reached stay NaN with status 255."""
    books, trades = day.books, day.trades
    X = np.full((len(books), F), np.nan, np.float32)
    status = np.full(len(books), 255, np.uint8)
    kind, row = merge(books, trades)
    for k, r in zip(kind[from_event:to_event].tolist(), row[from_event:to_event].tolist(), strict=True):
        if k == 0:
            stream.on_trade(
                int(trades.recv_ns[r]), int(trades.px[r]), int(trades.qty[r]), int(trades.side[r])
            )
        else:
            status[r] = stream.on_book(
                int(books.recv_ns[r]), books.bid_px[r], books.bid_qty[r], books.ask_px[r], books.ask_qty[r],
                int(books.flags[r]), X[r],
            )  # fmt: skip
    return FeatureTable(books.recv_ns, X, status, np.zeros(0, np.int64), np.zeros(0, np.int32))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_schema_names_every_column_once() -> None:
    assert len(NAMES) == len(set(NAMES)) == F >= 24
    assert [NAMES[k] for k in SEASONAL] == ["day_sin", "day_cos", "since_open", "to_break"]
    assert all(f.source and f.unit and f.mask for f in schema.FEATURES)


def test_the_schema_hash_changes_with_names_windows_and_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {schema_hash()}
    monkeypatch.setattr(schema, "FORMULA_VERSION", schema.FORMULA_VERSION + 1)
    hashes.add(schema_hash())
    monkeypatch.setattr(schema, "FEATURES", schema.FEATURES[::-1])
    hashes.add(schema_hash())
    assert len(hashes) == 3


RARE = {"micro_price_dev", "vpin", "resilience_bid", "resilience_ask"}
"""Masked until enough of it was seen."""


def test_every_column_is_written_on_a_full_book(clean_day: InstrumentDay) -> None:
    table = compute(clean_day)
    assert table.usable.sum() > 800
    X = table.X[table.usable]
    masked = {name for k, name in enumerate(NAMES) if not np.isfinite(X[:, k]).all()}
    leaders = {name for name in NAMES if name.startswith("leader_")}
    assert leaders <= masked <= leaders | RARE
    assert all(np.isfinite(X[:, NAMES.index(name)]).sum() > 300 for name in RARE)


def test_numbers_are_those_of_the_formulas(clean_day: InstrumentDay) -> None:
    books = clean_day.books.rows(np.repeat(np.arange(700), np.where(np.arange(700) % 9, 1, 2)))
    books.recv_ns[1:] += np.cumsum(np.diff(books.recv_ns) == 0) * 1_000_000  # repeated books, a bit later
    day = InstrumentDay(clean_day.instrument, clean_day.day, books, clean_day.trades)
    leader_books = clean_day.books.rows(np.arange(100, 1400))
    leader_books.recv_ns -= leader_books.recv_ns[0] - books.recv_ns[0]
    leader = InstrumentDay(clean_day.instrument, clean_day.day, leader_books, Trades.empty())
    expected, got = plain.features(day, leader), compute(day, leader).X.astype(float)
    assert (compute(day).status & schema.DUPLICATE).any()
    never = [name for k, name in enumerate(NAMES) if not np.isfinite(got[:, k]).any()]
    assert never == []
    for k, name in enumerate(NAMES):
        np.testing.assert_allclose(got[:, k], expected[:, k], rtol=1e-5, atol=1e-5, err_msg=name)


def test_numbers_are_those_of_the_formulas_on_shallow_books(clean_day: InstrumentDay) -> None:
    books = clean_day.books.rows(np.arange(300))
    depths = np.random.default_rng(1).integers(1, 13, (2, len(books)))
    for k, qty in enumerate((books.bid_qty, books.ask_qty)):
        qty[np.arange(qty.shape[1]) >= depths[k][:, None]] = 0
    day = InstrumentDay(clean_day.instrument, clean_day.day, books, clean_day.trades)
    expected, got = plain.features(day), compute(day).X.astype(float)
    assert np.isnan(got).any()
    for k, name in enumerate(NAMES):
        np.testing.assert_allclose(got[:, k], expected[:, k], rtol=1e-5, atol=1e-5, err_msg=name)


def test_batch_equals_live_to_the_bit(dirty_day: InstrumentDay) -> None:
    batch, live = compute(dirty_day), play(FeatureStream(dirty_day.instrument.kind), dirty_day)
    np.testing.assert_array_equal(batch.status, live.status)
    assert same_bits(batch.X, live.X)
    seen = np.bitwise_or.reduce(batch.status)
    assert seen == sum(schema.STATUS_NAMES), "the day should show every reason"
    assert batch.usable.mean() > 0.5


def test_a_restart_in_the_middle_changes_no_bit(dirty_day: InstrumentDay) -> None:
    batch = compute(dirty_day)
    total = len(dirty_day.books) + len(dirty_day.trades)
    for cut in (1, total // 3, total - 5):
        first, second = FeatureStream(dirty_day.instrument.kind), FeatureStream()
        before = play(first, dirty_day, 0, cut)
        second.restore(first.state())
        after = play(second, dirty_day, cut)
        done = before.status != 255
        assert same_bits(np.where(done[:, None], before.X, after.X), batch.X)
        np.testing.assert_array_equal(np.where(done, before.status, after.status), batch.status)


def test_saved_state_is_a_copy(clean_day: InstrumentDay) -> None:
    stream = FeatureStream()
    play(stream, clean_day, 0, 500)
    saved = stream.state()
    kept = {k: np.copy(v) for k, v in saved.items()}
    play(stream, clean_day, 500, 1000)
    other = FeatureStream()
    other.restore(saved)
    play(other, clean_day, 500, 1000)
    assert all(np.array_equal(saved[k], kept[k]) for k in kept)


def test_a_state_of_another_schema_is_refused() -> None:
    state = FeatureStream().state()
    with pytest.raises(ScalperError, match="does not fit"):
        FeatureStream().restore({**state, "schema": "0" * 64})
    with pytest.raises(ScalperError, match="damaged"):
        FeatureStream().restore({**state, "istate": np.zeros(3, np.int64)})


def test_reset_is_a_fresh_stream(clean_day: InstrumentDay, dirty_day: InstrumentDay) -> None:
    stream = FeatureStream(clean_day.instrument.kind)
    play(stream, dirty_day)
    stream.reset()
    assert same_bits(play(stream, clean_day).X, compute(clean_day).X)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.05, 1.0))
def test_no_row_depends_on_the_future(clean_day: InstrumentDay, share: float) -> None:
    n = max(1, int(len(clean_day.books) * share))
    books = clean_day.books.rows(slice(0, n))
    trades = clean_day.trades.rows(clean_day.trades.recv_ns <= books.recv_ns[-1])
    short = compute(InstrumentDay(clean_day.instrument, clean_day.day, books, trades))
    assert same_bits(short.X, np.ascontiguousarray(compute(clean_day).X[:n]))


def test_any_memory_layout_is_accepted(clean_day: InstrumentDay) -> None:
    expected = compute(clean_day)
    b, t = clean_day.books, clean_day.trades
    odd = Books(*(_awkward(getattr(b, name)) for name in Books.__slots__))
    odd_trades = Trades(*(_awkward(getattr(t, name)) for name in Trades.__slots__))
    day = InstrumentDay(clean_day.instrument, clean_day.day, odd, odd_trades)
    assert same_bits(compute(day).X, expected.X)
    assert same_bits(play(FeatureStream(day.instrument.kind), day).X, expected.X)


def _awkward(column: np.ndarray) -> np.ndarray:
    """The same values, read-only and in Fortran order."""
    column = np.asfortranarray(column.copy())
    column.flags.writeable = False
    return column


def test_an_empty_day_has_no_rows(clean_day: InstrumentDay) -> None:
    day = InstrumentDay(clean_day.instrument, clean_day.day, Books.empty(), clean_day.trades)
    table = compute(day)
    assert len(table) == 0 and table.X.shape == (0, F)


def test_mid_and_spread_columns(dirty_day: InstrumentDay) -> None:
    table = compute(dirty_day)
    crossed = (table.status & schema.CROSSED) != 0
    one_sided = (table.status & schema.ONE_SIDED) != 0
    assert (table.spread[crossed] <= 0).all() and (table.mid2[crossed] > 0).all()
    assert (table.mid2[one_sided] == 0).all() and (table.spread[one_sided] == 0).all()
    u = table.usable
    np.testing.assert_array_equal(
        table.mid2[u], dirty_day.books.bid_px[u, 0].astype(int) + dirty_day.books.ask_px[u, 0]
    )


def test_a_table_is_stored_and_read_back(dirty_day: InstrumentDay, tmp_path: Path) -> None:
    table = compute(dirty_day)
    table.save(tmp_path / "a" / "day.npz")
    table.save(tmp_path / "b" / "day.npz")
    assert (tmp_path / "a/day.npz").read_bytes() == (tmp_path / "b/day.npz").read_bytes()
    back = FeatureTable.load(tmp_path / "a" / "day.npz")
    assert same_bits(back.X, table.X)
    for name in ("recv_ns", "status", "mid2", "spread"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    with pytest.raises(RecordingError, match="no features"):
        FeatureTable.load(tmp_path / "c.npz")


def test_a_table_of_another_schema_is_refused(
    clean_day: InstrumentDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(clean_day).save(tmp_path / "day.npz")
    monkeypatch.setattr(schema, "FORMULA_VERSION", schema.FORMULA_VERSION + 1)
    with pytest.raises(RecordingError, match="run the stage 'features' again"):
        FeatureTable.load(tmp_path / "day.npz")


@pytest.mark.recorded
def test_a_recorded_day_of_a_liquid_future(shared_data: Path, tmp_path: Path) -> None:
    recording, _ = ingest(shared_data / "moex-rts", tmp_path / "recording")
    ticker, days = next(iter(recording.info.days.items()))
    table = compute(recording.read(ticker, days[0]))
    X = table.X[table.usable]
    masked = {name for k, name in enumerate(NAMES) if not np.isfinite(X[:, k]).all()}
    usual_day = {"since_open", "to_break"}  # this one, of 2013, had another clock
    assert {name for name in masked if not name.startswith("leader_")} <= RARE | usual_day, "20 full levels"
    assert all(np.isfinite(X[:, NAMES.index(name)]).mean() > 0.97 for name in RARE)
    assert table.usable.mean() > 0.98
    assert ((table.status & schema.GAP) != 0).sum() == 1, "the clearing break"
    assert not (table.status & (schema.CROSSED | schema.ONE_SIDED)).any()


STALE = """
import sys
import numpy as np
from features import schema
if sys.argv[1] == "rotated":
    at = schema.NAMES.index("imbalance_d5")
    schema.FEATURES = schema.FEATURES[:at] + schema.FEATURES[-2:] + schema.FEATURES[at:-2]
    schema.NAMES = tuple(f.name for f in schema.FEATURES)
from features import kernel
up = np.arange(20, dtype=np.int32)
rows = [29 - up, np.ones(20, np.int32), 31 + up, np.full(20, 3, np.int32)]
out = np.empty(schema.F, np.float32)
kernel.step_book(*kernel.new_state(), 1_000_000_000, *rows, 1, out)
assert out[schema.NAMES.index("imbalance_l1")] == -0.5, out
assert abs(out[schema.NAMES.index("spread_bps")] - 2 / 30 * 1e4) < 1e-3, out
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_cached_machine_code_of_another_schema_is_not_used(tmp_path: Path) -> None:
    """In a copy of the code with its machine code, which other tests have compiled already."""
    for package in ("features", "market"):
        shutil.copytree(ROOT / package, tmp_path / package)
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(tmp_path)}
    for order in ("declared", "rotated"):
        done = subprocess.run(
            [sys.executable, "-c", STALE, order], env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / "features" / "__pycache__").glob("kernel.step_book-*.nbi")), "it was kept"
