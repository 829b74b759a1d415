"""Labels by hand, and the guard against labels that contain the past."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.batch import FeatureTable
from features.schema import CROSSED, INCONSISTENT, ONE_SIDED, WARMUP
from market.errors import RecordingError, ScalperError
from market.types import SECOND_NS, Books, Instrument, InstrumentDay, Trades
from models.labels import (
    DOWN,
    FLAT,
    LEAK_LIMIT,
    UP,
    VOID,
    Labels,
    executable_on_walk,
    make_labels,
    past_anchored,
    random_walk_macro_f1,
    refuse_if_leaky,
)

INSTRUMENT = Instrument("u", "TEST", "TQBR", "", "share", 10, 10_000_000, 100_000_000)


def day_of(seconds: list[float], bid: list[int], ask: list[int]) -> tuple[InstrumentDay, FeatureTable]:
    """A day with one snapshot per entry; only the best level matters to labels."""
    n = len(seconds)
    books = Books.empty(n)
    books.recv_ns[:] = np.round(np.array(seconds) * SECOND_NS)
    books.bid_px[:, 0], books.ask_px[:, 0] = bid, ask
    books.bid_qty[:, 0] = books.ask_qty[:, 0] = 1
    table = FeatureTable(
        books.recv_ns,
        np.zeros((n, 0), np.float32),
        np.zeros(n, np.uint8),
        np.array(bid, np.int64) + ask,
        (np.array(ask) - bid).astype(np.int32),
    )
    return InstrumentDay(INSTRUMENT, "2026-01-15", books, Trades.empty()), table


def label(day: InstrumentDay, table: FeatureTable, **changes: float) -> Labels:
    options = {"horizon_s": 2.0, "latency_s": 0.5, "fee_ppm": 100, "theta_bps": 0.0} | changes
    return make_labels(
        day,
        table,
        horizon_s=options["horizon_s"],
        latency_s=options["latency_s"],
        fee_ppm=int(options["fee_ppm"]),
        theta_bps=options["theta_bps"],
    )


def test_a_rise_by_hand() -> None:
    # t = 0: mid 10000. Entry at 0.5 s: the book of 0.4 s (9999 x 10003). Exit at 2.5 s: that very book.
    bid, ask = [9998, 9999, 9000, 10013, 9], [10002, 10003, 9010, 10017, 99]
    day, table = day_of([0, 0.4, 0.6, 2.5, 2.6], bid, ask)
    got = label(day, table)
    assert got.y[0] == UP
    assert got.long_bps[0] == pytest.approx((10013 - 10003) / 10000 * 1e4 - 2)
    assert got.short_bps[0] == pytest.approx((9999 - 10017) / 10000 * 1e4 - 2)
    assert got.move_bps[0] == pytest.approx((10015 - 10001) / 10000 * 1e4)
    assert (got.entry_ns[0], got.exit_ns[0]) == (SECOND_NS // 2, 5 * SECOND_NS // 2)


def test_a_fall_and_the_threshold_by_hand() -> None:
    day, table = day_of([0, 0.5, 2.5, 3], [1000, 1000, 990, 990], [1002, 1002, 992, 992])
    assert label(day, table).y[0] == DOWN
    net = (1000 - 992) / 1001 * 1e4 - 2
    assert label(day, table).short_bps[0] == pytest.approx(net)
    assert label(day, table, theta_bps=net - 0.01).y[0] == DOWN
    assert label(day, table, theta_bps=net + 0.01).y[0] == FLAT


def test_fees_turn_a_gain_into_a_flat_row() -> None:
    day, table = day_of([0, 0.5, 2.5, 3], [10000, 10000, 10004, 10004], [10001, 10001, 10005, 10005])
    assert label(day, table, fee_ppm=0).y[0] == UP
    assert label(day, table, fee_ppm=200).y[0] == FLAT


def test_the_end_of_the_day_is_void() -> None:
    day, table = day_of([0, 1, 2, 3, 4], [100] * 5, [101] * 5)
    got = label(day, table)
    assert got.y.tolist() == [FLAT, FLAT, VOID, VOID, VOID]
    assert np.isnan(got.long_bps[2:]).all() and np.isfinite(got.long_bps[:2]).all()


def test_a_window_that_touches_a_gap_is_void() -> None:
    times = [0, 1, 2, 3, 4, 14.5, 15, 16, 17, 18]
    day, table = day_of(times, [100] * 10, [101] * 10)
    # 10.5 s without a book after 4 s: exits at 2.5 and 3.5 s are before it, an exit at 4.5 s is inside it.
    assert (label(day, table).y != VOID).tolist() == [True, True] + [False] * 3 + [True, True] + [False] * 3
    # ... and an exit exactly at the last book before the gap still has its book.
    assert label(day, table, horizon_s=2.5).y[1] == FLAT


def test_ten_seconds_are_not_a_gap() -> None:
    day, table = day_of([0, 10, 20], [100] * 3, [101] * 3)
    assert label(day, table).y.tolist() == [FLAT, FLAT, VOID]


@pytest.mark.parametrize("bad", [CROSSED, ONE_SIDED, INCONSISTENT])
def test_no_trade_on_a_book_that_is_no_market(bad: int) -> None:
    day, table = day_of(list(range(8)), [100] * 8, [101] * 8)
    table.status[4] = bad
    got = label(day, table, latency_s=1.0)
    # Row 4 has no mid, row 3 enters on it, row 1 leaves on it; 5, 6, 7 run out of the day.
    assert got.y.tolist() == [FLAT, VOID, FLAT, VOID, VOID, VOID, VOID, VOID]
    assert np.isnan(got.move_bps[got.y == VOID]).all()


def test_warm_up_does_not_void_a_label() -> None:
    day, table = day_of([0, 1, 2, 3], [100] * 4, [101] * 4)
    table.status[:] = WARMUP
    assert label(day, table).y[0] == FLAT


def test_a_day_out_of_order_is_refused() -> None:
    day, table = day_of([0, 2, 1, 3], [100] * 4, [101] * 4)
    with pytest.raises(RecordingError, match="back in time"):
        label(day, table)


@settings(max_examples=50, deadline=None)
@given(
    moves=st.lists(st.integers(-9, 9), min_size=5, max_size=60),
    spread=st.integers(1, 5),
    fee_ppm=st.integers(0, 500),
)
def test_never_up_and_down_and_costs_add_up(moves: list[int], spread: int, fee_ppm: int) -> None:
    bid = (10_000 + np.cumsum(moves)).tolist()
    day, table = day_of(list(range(len(bid))), bid, [b + spread for b in bid])
    got = label(day, table, fee_ppm=fee_ppm)
    ok = got.y != VOID
    mid = table.mid2[ok] / 2
    round_trips = got.long_bps[ok] + got.short_bps[ok]
    np.testing.assert_allclose(round_trips, -2 * spread / mid * 1e4 - 4 * fee_ppm / 100, rtol=1e-4)
    half = (got.long_bps[ok] - got.short_bps[ok]) / 2
    np.testing.assert_allclose(half, got.move_bps[ok], atol=2e-3)
    assert not ((got.long_bps > 0) & (got.short_bps > 0)).any()


def test_labels_are_stored_and_read_back(tmp_path: Path) -> None:
    day, table = day_of([0, 1, 2, 3], [100] * 4, [101] * 4)
    got = label(day, table)
    got.save(tmp_path / "x" / "day.npz")
    back = Labels.load(tmp_path / "x" / "day.npz")
    for name in Labels.__slots__:
        np.testing.assert_array_equal(getattr(back, name), getattr(got, name))
    with pytest.raises(RecordingError, match="no labels"):
        Labels.load(tmp_path / "none.npz")


def test_the_executable_label_does_not_leak_on_a_random_walk() -> None:
    assert 0.3 < refuse_if_leaky("executable", executable_on_walk) <= LEAK_LIMIT


def test_a_price_anchored_label_does_not_leak_either() -> None:
    def price_anchored(mids: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(mids)])
        future = (sums[21:] - sums[1:-20]) / 20
        return np.concatenate([future[1:] / mids[:-21] - 1, np.full(21, np.nan)])

    assert random_walk_macro_f1(price_anchored) <= LEAK_LIMIT


def test_a_past_anchored_label_is_refused() -> None:
    assert random_walk_macro_f1(past_anchored) > 0.5
    with pytest.raises(ScalperError, match="contains the past"):
        refuse_if_leaky("smoothed", past_anchored)
