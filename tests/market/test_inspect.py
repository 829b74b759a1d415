"""The numbers of an inspection, on days small enough to count by hand, and what must hold on any day."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.importers import moex_rts
from market.inspect import OFFSET_LIMIT, Quantiles, inspect_day, moscow
from market.inspect.books import dwell
from market.inspect.stats import Histogram, slope
from market.inspect.timing import find_silences
from market.simulator import SimSpec, simulate_market
from market.types import BUY, MILLISECOND_NS, SECOND_NS, SELL, Books, Instrument, InstrumentDay, Trades
from market.validate import GAP_NS
from market.verdict import judge

FUTURE = Instrument("u-1", "FFFF", "SPBFUT", "F000000000FF", "future", 1, 10_000_000_000, 6_550_000_000)
DAY = "2026-01-15"
TEN = 1_768_460_400 * SECOND_NS
"""2026-01-15 10:00 Moscow."""
HOUR_NS = 3_600 * SECOND_NS


def books_at(seconds: list[float], bid: list[int], ask: list[int]) -> Books:
    """One level a side; a price of 0 leaves the side empty."""
    books = Books.empty(len(seconds))
    books.recv_ns[:] = TEN + np.array(seconds) * SECOND_NS
    books.exch_ns[:] = books.recv_ns - MILLISECOND_NS
    books.bid_px[:, 0], books.ask_px[:, 0] = bid, ask
    books.bid_qty[:, 0], books.ask_qty[:, 0] = np.sign(bid), np.sign(ask)
    return books


def trades_at(rows: list[tuple[float, int, int, int]]) -> Trades:
    """Rows of (second, price, lots, side)."""
    trades = Trades.empty(len(rows))
    trades.recv_ns[:] = [TEN + int(row[0] * SECOND_NS) for row in rows]
    trades.exch_ns[:] = trades.recv_ns
    trades.px[:], trades.qty[:], trades.side[:] = zip(*[row[1:] for row in rows], strict=True)
    return trades


def a_day(books: Books | None = None, trades: Trades | None = None) -> InstrumentDay:
    return InstrumentDay(FUTURE, DAY, books or Books.empty(), trades or Trades.empty())


def test_the_spread_counts_by_the_time_it_stood() -> None:
    found = inspect_day(a_day(books_at([0, 9, 10], [100, 100, 100], [101, 104, 101]))).spread
    assert found is not None
    assert (found.ticks.p50, found.ticks.mean, found.ticks.high) == (1, 0.9 * 1 + 0.1 * 4, 4)
    assert found.ticks_histogram.start == 1 and found.ticks_histogram.width == 1
    assert (
        found.ticks_histogram.shares == pytest.approx((0.9, 0, 0, 0.1)) and found.ticks_histogram.beyond == 0
    )
    assert found.bps.low == pytest.approx(1e4 / 100.5)


def test_states_are_shares_of_the_known_time() -> None:
    # 2 s crossed, 1 s locked, 1 s one-sided, then a minute of silence of which GAP_NS is known.
    books = books_at([0, 2, 3, 4, 64], [102, 101, 100, 100, 100], [101, 101, 0, 101, 101])
    books.flags[3] = 0
    found = inspect_day(a_day(books)).states
    assert found is not None
    known = 4 + GAP_NS / SECOND_NS
    assert found.known_ns == known * SECOND_NS
    assert [found.crossed, found.locked, found.one_sided, found.incomplete] == pytest.approx(
        [2 / known, 1 / known, 1 / known, GAP_NS / SECOND_NS / known]
    )
    assert found.crossed_longest_ns == 3 * SECOND_NS


def test_depth_counts_an_empty_level_as_nothing() -> None:
    books = books_at([0, 1, 2], [100, 100, 100], [101, 101, 101])
    books.bid_px[0, 1], books.bid_qty[0, 1] = 97, 8
    first, second = inspect_day(a_day(books)).depth
    assert (first.bid_lots, first.ask_lots, first.bid_filled) == (1, 1, 1)
    assert (second.level, second.bid_lots, second.bid_filled, second.bid_away_ticks) == (2, 4, 0.5, 3)
    assert (second.ask_lots, second.ask_filled, second.ask_away_ticks) == (0, 0, 0)


def test_each_trade_is_placed_against_the_book_before_it() -> None:
    books = books_at([0, 10, 20, 31], [100, 100, 0, 100], [103, 103, 103, 103])
    trades = trades_at(
        [
            (-1, 103, 1, BUY),  # before the first book
            (0, 103, 1, BUY),  # at the moment of the first book: trades come first, so none is known yet
            (1, 103, 2, BUY),  # at the touch
            (2, 105, 1, BUY),  # through
            (3, 102, 1, BUY),  # inside
            (4, 100, 1, BUY),  # wrong side, exactly at the other touch
            (5, 98, 1, BUY),  # wrong side
            (6, 80, 1, BUY),  # wrong side and far
            (7, 100, 3, SELL),  # at the touch
            (8, 99, 1, SELL),  # through
            (9, 103, 1, SELL),  # wrong side, the other touch
            (9, 101, 1, 0),  # nobody knows who took
            (21, 100, 1, SELL),  # one-sided book
            (31 + 11, 100, 1, SELL),  # the book is too old
        ]
    )
    found = inspect_day(a_day(books, trades)).trades
    assert found is not None
    assert (found.count, found.buys, found.sells, found.lots_total) == (14, 8, 5, 17)
    assert found.turnover_nano == int(trades.px.astype(int) @ trades.qty) * FUTURE.tick_value_nano
    at = found.judged
    assert (at.judged, at.at, at.through, at.inside, at.wrong, at.opposite, at.far) == (9, 2, 2, 1, 4, 2, 1)
    assert (found.judged_buys.judged, found.judged_sells.judged) == (6, 3)
    offsets = {n - OFFSET_LIMIT: count for n, count in enumerate(at.offsets) if count}
    assert offsets == {-OFFSET_LIMIT: 1, -5: 1, -3: 2, -1: 1, 0: 2, 1: 1, 2: 1}


def test_clearing_is_told_from_a_gap() -> None:
    hours = np.array([3.5, 4, 4.07, 5, 5.01, 8.75, 9, 9.5]) * HOUR_NS  # 13:30, 14:00, 14:04, 15:00, ... 19:30
    found = find_silences((TEN + hours).astype(np.int64), np.array([TEN + HOUR_NS * 19 // 4]), FUTURE)
    causes = {moscow(gap.from_ns).strftime("%H:%M"): gap.cause for gap in found.listed}
    assert causes == {
        "13:30": "", "14:00": "clearing break", "14:04": "", "15:00": "",
        "18:45": "evening clearing", "19:00": "",
    }  # fmt: skip
    assert (found.count, found.unexplained, found.trades) == (7, 5, 1)
    assert found.unexplained_ns == found.total_ns - int(0.32 * HOUR_NS)
    assert [gap.trades for gap in found.listed] == [0, 0, 1, 0, 0, 0, 0]


def test_a_night_is_no_gap_but_only_for_roubles() -> None:
    from dataclasses import replace

    night = np.array([TEN + 13 * HOUR_NS, TEN + 24 * HOUR_NS])
    none = np.zeros(0, np.int64)
    assert [gap.cause for gap in find_silences(night, none, FUTURE).listed] == ["night"]
    assert [gap.cause for gap in find_silences(night, none, replace(FUTURE, currency="usdt")).listed] == [""]


def test_clocks() -> None:
    seconds = np.arange(0, 3600, 2.0)
    books = books_at(seconds.tolist(), [100] * 1800, [101] * 1800)
    books.exch_ns[:] = books.recv_ns - (5 + 40 * seconds / 3600) * MILLISECOND_NS  # 40 ms an hour
    books.exch_ns[:4] += 100 * MILLISECOND_NS
    found = inspect_day(a_day(books)).book_clock
    assert found is not None and found.drift_ns_per_hour is not None
    assert found.drift_ns_per_hour == pytest.approx(40 * MILLISECOND_NS, rel=0.01)
    assert (found.known, found.negative) == (1800, 4)
    books.exch_ns[:] = books.recv_ns
    copied = inspect_day(a_day(books)).book_clock
    assert copied is not None and copied.known == 0 and copied.delay_ns is None
    books.exch_ns[:] = books.recv_ns // SECOND_NS * SECOND_NS - SECOND_NS
    whole = inspect_day(a_day(books)).book_clock
    assert whole is not None and whole.resolution_ns == SECOND_NS


def test_the_middle_that_goes_to_and_fro() -> None:
    n = 101
    found = inspect_day(a_day(books_at(list(range(n)), [100, 101] * 50 + [100], [103, 104] * 50 + [103]))).mid
    assert found is not None
    assert (found.moves, found.reverting, found.largest_ticks) == (n - 1, 1.0, 1.0)
    assert found.autocorrelation == pytest.approx(-1.0)


def test_rates_and_span() -> None:
    day = a_day(
        books_at([0, 1, 1.5, 5], [100] * 4, [101] * 4), trades_at([(0.25, 101, 1, BUY), (7, 101, 1, BUY)])
    )
    found = inspect_day(day)
    assert (found.first_ns, found.span_ns) == (TEN, 7 * SECOND_NS)
    assert found.books is not None and found.trade_rate is not None
    assert (found.books.count, found.books.busiest, found.books.median_ns) == (4, 2, SECOND_NS)
    assert len(found.books.per_s) == len(found.trade_rate.per_s) == 7
    assert sum(found.books.per_s) * found.books.bin_ns / SECOND_NS == pytest.approx(4)


@pytest.mark.parametrize("empty", ["books", "trades", "both"])
def test_what_was_not_recorded_is_none(empty: str) -> None:
    books = Books.empty() if empty != "trades" else books_at([0, 1], [100, 100], [101, 101])
    trades = Trades.empty() if empty != "books" else trades_at([(0, 100, 1, BUY), (1, 101, 1, SELL)])
    found = inspect_day(a_day(books, trades))
    if empty != "trades":
        assert found.books is found.spread is found.states is found.mid is found.book_clock is None
        assert found.depth == ()
    if empty != "books":
        assert found.trade_rate is found.trades is found.trade_clock is None
    assert (found.price is None) == (empty == "both")
    assert found.price is None or found.price.source == ("trades" if empty == "books" else "book")
    json.dumps(found.to_dict(), allow_nan=False)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9)), min_size=1, max_size=40)
    .filter(lambda rows: any(w for _, w in rows))
)  # fmt: skip
def test_weighted_quantiles_are_those_of_the_repeated_values(rows: list[tuple[int, int]]) -> None:
    values, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = Quantiles.of(values, weights)
    repeated = np.repeat(values, weights)
    assert found is not None
    assert found.mean == pytest.approx(repeated.mean())
    for name, q in (("p1", 0.01), ("p25", 0.25), ("p50", 0.5), ("p99", 0.99)):
        assert getattr(found, name) == np.quantile(repeated, q, method="inverted_cdf")
    h = Histogram.of(values, weights, start=-50.0, width=5.0, bins=10)
    assert sum(h.shares) + h.beyond == pytest.approx(1.0)


def test_the_robust_line_ignores_wild_points() -> None:
    x = np.arange(20.0)
    y = 3.0 * x + 1.0
    y[5] = 1e6
    assert slope(x, y) == (3.0, 0.0)


@st.composite
def any_day(draw: st.DrawFn) -> InstrumentDay:
    """Anything that fits the arrays: crossed, one-sided, negative, backward, far, without sides."""
    n, m = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    few = st.integers(-2, 6)
    books = books_at([0.0] * n, [100] * n, [102] * n)
    trades = Trades.empty(m)
    for table, size in ((books, n), (trades, m)):
        gaps = draw(st.lists(st.sampled_from([-1, 0, 1, 5, 60, 3600]), min_size=size, max_size=size))
        table.recv_ns[:] = TEN + np.cumsum(np.array(gaps, np.int64)) * SECOND_NS
        table.exch_ns[:] = table.recv_ns - draw(st.sampled_from([0, 1, -SECOND_NS, 10**13]))
    for name in ("bid_px", "bid_qty", "ask_px", "ask_qty"):
        for row in range(n):
            if draw(st.booleans()):
                getattr(books, name)[row, draw(st.integers(0, 2))] += draw(few)
    trades.px[:] = 101 + np.array(draw(st.lists(few, min_size=m, max_size=m)), np.int32)
    trades.qty[:] = draw(st.lists(few, min_size=m, max_size=m))
    trades.side[:] = draw(st.lists(st.integers(-2, 1), min_size=m, max_size=m))
    return a_day(books, trades)


@settings(max_examples=100, deadline=None)
@given(any_day())
def test_any_day_can_be_inspected(day: InstrumentDay) -> None:
    found = inspect_day(day)
    json.dumps(found.to_dict(), allow_nan=False)
    verdict = judge(found)
    assert verdict.level in ("ok", "suspicious", "implausible")
    assert verdict.level == (verdict.reasons[0].level if verdict.reasons else "ok")
    if found.spread is not None:
        for h in (found.spread.ticks_histogram, found.spread.bps_histogram):
            assert sum(h.shares) + h.beyond == pytest.approx(1.0)
    if found.trades is not None:
        for at in (found.trades.judged, found.trades.judged_buys, found.trades.judged_sells):
            assert at.at + at.through + at.inside + at.wrong == at.judged == sum(at.offsets)
            assert at.opposite <= at.wrong
    if found.states is not None:
        assert all(
            0 <= share <= 1 for share in (found.states.crossed, found.states.locked, found.states.one_sided)
        )
    assert all(gap.length_ns > GAP_NS for gap in found.silences.listed)
    assert (dwell(day.books.recv_ns) >= 0).all()


def test_a_simulated_day_is_in_order() -> None:
    day = simulate_market([SimSpec("SIMA")], hours=0.2, seed=7)[0][0]
    found = inspect_day(day)
    assert judge(found).reasons == ()
    assert found.trades is not None and found.trades.judged.share(found.trades.judged.at) > 0.5
    assert found.price is not None and len(found.price.time_ns) <= 1200
    assert found.report.books == len(day.books)


@pytest.mark.recorded
def test_the_rts_day_reads_as_its_description(shared_data: Path) -> None:
    day = next(iter(moex_rts.MOEX_RTS.load(shared_data / "moex-rts").days))
    found = inspect_day(day)
    assert judge(found).level == "ok"
    assert found.books is not None and found.trade_rate is not None and found.trades is not None
    assert (found.books.count, found.trade_rate.count) == (132_947, 138_805)
    assert found.books.median_ns == pytest.approx(121 * MILLISECOND_NS, abs=MILLISECOND_NS)
    at = found.trades.judged
    assert at.share(at.at + at.through) == pytest.approx(0.86, abs=0.02)
    assert at.share(at.inside) == pytest.approx(0.08, abs=0.01)
    assert at.share(at.wrong) == pytest.approx(0.06, abs=0.015)
    [gap] = found.silences.listed
    assert gap.cause == "clearing break" and gap.length_ns == pytest.approx(103 * SECOND_NS, abs=SECOND_NS)
    assert found.states is not None and found.states.crossed == 0
    one_tick = np.count_nonzero(day.books.ask_px[:, 0] - day.books.bid_px[:, 0] == 1) / len(day.books)
    assert one_tick == pytest.approx(0.57, abs=0.02)
    assert found.trade_clock is not None and found.trade_clock.resolution_ns == SECOND_NS
