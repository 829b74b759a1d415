"""Round trips, precision against break-even and the shape of a result, by hand and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import trade_stats
from models.evaluate import wilson

SIGNALS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


# --- precision


def test_precision_beside_break_even() -> None:
    right = np.arange(400) < 260
    got = trade_stats.precision(right, cost_bps=1.0, win_bps=5.0)
    assert (got.achieved, got.break_even) == pytest.approx((0.65, 0.6))
    assert (got.low, got.high) == wilson(260, 400) and got.verdict == "edge"
    # The same share on a fifth of the evidence proves nothing.
    thin = trade_stats.precision(right, cost_bps=1.0, win_bps=5.0, n_eff=80)
    assert (thin.low, thin.high) == wilson(52, 80) and thin.verdict == "inconclusive"
    assert trade_stats.precision(right, cost_bps=3.0, win_bps=5.0).verdict == "no edge"
    assert trade_stats.precision(right, cost_bps=9.5, win_bps=5.0).break_even > 1
    assert trade_stats.precision([], cost_bps=1.0, win_bps=5.0).verdict == "inconclusive"
    assert trade_stats.precision(right, cost_bps=1.0, win_bps=5.0, n_eff=9999).n_eff == 400


# --- round trips


def slow_trips(signal: list[int], day: list[int]) -> list[tuple[int, int, int]]:
    """One row after another, the way a trader would."""
    out, opened, side = [], -1, 0
    for t, s in enumerate(signal):
        want = {0: -1, 2: 1}.get(s, 0)
        last = t + 1 == len(signal) or day[t + 1] != day[t]
        if side and (last or want == -side):
            out.append((opened, t, side))
            opened, side = -1, 0
        if not side and want and not last:
            opened, side = t, want
    return out


def test_round_trips_by_hand() -> None:
    signal = [1, 2, 2, 1, 0, 0, 2, 1]
    assert trade_stats.round_trips(signal).tolist() == [[1, 4, 1], [4, 6, -1], [6, 7, 1]]
    # A night between rows 3 and 4 closes the long; the day opens with a short.
    day = [0, 0, 0, 0, 1, 1, 1, 1]
    assert trade_stats.round_trips(signal, day).tolist() == [[1, 3, 1], [4, 6, -1], [6, 7, 1]]
    assert trade_stats.round_trips([1, 1]).shape == (0, 3)
    assert trade_stats.round_trips([]).shape == (0, 3)


@given(SIGNALS, st.lists(st.booleans(), min_size=40, max_size=40))
@settings(deadline=None, max_examples=200)
def test_round_trips_are_what_a_trader_does_row_by_row(signal: list[int], night: list[bool]) -> None:
    day = np.cumsum(night[: len(signal)]).tolist()
    got = [tuple(row) for row in trade_stats.round_trips(signal, day).tolist()]
    assert got == slow_trips(signal, day)


def test_overlap_by_hand() -> None:
    actual = [2, 1, 0, 1, 2, 1, 0, 1]  # trips 0-2, 2-4, 4-6, 6-7
    predicted = [2, 1, 0, 1, 1, 2, 0, 1]  # trips 0-2, 2-5, 5-6, 6-7
    got = trade_stats.round_trip_overlap(predicted, actual)
    assert (got.common, got.predicted, got.actual) == (2, 4, 4)
    assert got.p_t == pytest.approx(2 / 6)
    assert math.isnan(trade_stats.round_trip_overlap([1, 1], [1, 1]).p_t)


@given(SIGNALS, SIGNALS)
@settings(deadline=None)
def test_overlap_is_a_jaccard_index(a: list[int], b: list[int]) -> None:
    n = min(len(a), len(b))
    got, back = trade_stats.round_trip_overlap(a[:n], b[:n]), trade_stats.round_trip_overlap(b[:n], a[:n])
    assert got.common == back.common <= min(got.predicted, got.actual)
    itself = trade_stats.round_trip_overlap(a, a)
    assert itself.p_t == 1.0 or itself.actual == 0


# --- shape


def test_drawdown_by_hand() -> None:
    got = trade_stats.drawdown([3, -1, -2, 1, 4, -1])
    assert (got.depth, got.top, got.bottom, got.back) == (3.0, 1, 3, 5)
    assert trade_stats.drawdown([-1, -1]).back is None
    assert trade_stats.drawdown([1, 1]).depth == 0.0


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=40))
@settings(deadline=None)
def test_drawdown_is_the_worst_run_of_neighbouring_trades(net: list[float]) -> None:
    worst = min(sum(net[i:j]) for i in range(len(net)) for j in range(i, len(net) + 1))
    assert trade_stats.drawdown(net).depth == pytest.approx(-worst, abs=1e-9)


def test_the_shape_of_a_result_by_hand() -> None:
    net = [1.0, 2.0, -4.0, 3.0, 2.0, 1.0, 1.0]
    got = trade_stats.shape(net, ["a", "a", "b", "b", "c", "c", "c"], fees_bps=[1.0] * 7)
    assert (got["trades"], got["days"], got["net_bps"]) == (7, 3, 6.0)
    assert (got["worst_day"], got["worst_day_bps"], got["max_drawdown_bps"]) == ("b", -1.0, 4.0)
    assert got["top_share"] == pytest.approx(9 / 6)
    assert got["fees_over_gross"] == pytest.approx(7 / 13)
    assert trade_stats.shape([-1.0], [0])["top_share"] is None
    assert trade_stats.shape([], []) == {"trades": 0}
