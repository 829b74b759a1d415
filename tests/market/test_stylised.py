"""Stylised facts: right where they are known, the gates on simulated markets, a real day beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market.errors import RecordingError
from market.importers import IMPORTERS
from market.simulator import SimSpec, simulate_market
from market.simulator_presets import TICK_CLASS
from market.stylised import GAP_NS, Measures, lead_lag, measure
from market.stylised_table import Fact, facts
from market.types import BUY, SECOND_NS, SELL, Books, InstrumentDay, Trades

INSTRUMENT = SimSpec("MADE").instrument()
SEEDS = range(1, 9)
HOURS = 2.0
VOLATILITY_U = "intraday U of 1 s volatility, edges / middle"
TAILS = "excess kurtosis, 1 s"
NOT_REPRODUCED = {"SMALL": {VOLATILITY_U}, "LARGE": {VOLATILITY_U, TAILS}}
"""Over eight days of 8 h LARGE misses these two gates by a little (docs/simulator.md); the U of SMALL passes
there, but two hours are too short to see it through the changing activity."""


def made(
    mid: Any, *, spread: int = 2, bid_qty: Any = 100, ask_qty: Any = 100, trades: Trades | None = None
) -> InstrumentDay:
    """A book each second around ``mid`` (ticks)."""
    books = Books.empty(len(mid))
    books.recv_ns[:] = books.exch_ns[:] = np.arange(len(mid)) * SECOND_NS
    books.bid_px[:, 0] = np.asarray(mid) - spread // 2
    books.ask_px[:, 0] = books.bid_px[:, 0] + spread
    books.bid_qty[:, 0], books.ask_qty[:, 0] = bid_qty, ask_qty
    return InstrumentDay(INSTRUMENT, "2026-01-15", books, trades or Trades.empty())


def orders(at_ns: Any, side: Any, qty: int = 1) -> Trades:
    trades = Trades.empty(len(at_ns))
    trades.exch_ns[:] = trades.recv_ns[:] = at_ns
    trades.side[:], trades.qty[:], trades.px[:] = side, qty, 1000
    return trades


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_random_walk(rng: np.random.Generator) -> None:
    seen = measure(made(10_000 + np.cumsum(rng.integers(-1, 2, 40_000))))
    assert seen.seconds == 40_000 and seen.spread == 2.0 and seen.spread_p95 == 2.0
    assert seen.volatility_1s == pytest.approx((2 / 3) ** 0.5, rel=0.02)
    assert abs(seen.acf_1s) < 0.02
    assert 0.85 < seen.variance_ratio < 1.15
    assert seen.kurtosis_1s == pytest.approx(-1.5, abs=0.05)
    assert np.abs(seen.acf_abs_10s).max() < 0.08
    assert seen.depth[0] == 100 and (seen.depth[1:] == 0).all()
    assert seen.returns.sum() == 39_999


def test_a_mid_that_bounces() -> None:
    seen = measure(made(1000 + np.arange(2000) % 2))
    assert seen.acf_1s == pytest.approx(-1.0, abs=0.01)
    assert seen.variance_ratio == pytest.approx(0.0, abs=1e-6)


def test_order_flow_that_explains_the_move_and_trades_that_do_not(rng: np.random.Generator) -> None:
    """A rising bid brings its size as inflow, a falling one takes it away: here R2 is 1 by construction."""
    step = rng.integers(-1, 2, 6000)
    at = np.sort(rng.integers(0, 6000 * SECOND_NS, 5000))
    seen = measure(made(5000 + np.cumsum(step), trades=orders(at, rng.choice([BUY, SELL], 5000))))
    assert seen.ofi_r2 == pytest.approx(1.0)
    assert seen.trade_r2 < 0.05


def test_trades_that_explain_the_move(rng: np.random.Generator) -> None:
    step = rng.choice([-1, 1], 6000)
    at = np.arange(6000) * SECOND_NS - SECOND_NS // 2  # between the books that they move
    seen = measure(made(5000 + np.cumsum(step), trades=orders(at, step)))
    assert seen.trade_r2 == pytest.approx(1.0)


def test_imbalance_that_tells_the_next_move() -> None:
    step = np.repeat(np.where(np.arange(500) % 3 == 0, 1, -1), 4)
    mid = 5000 + np.cumsum(np.where(np.arange(2000) % 4 == 0, step, 0))
    coming = np.where(np.roll(step, -4) > 0, 190, 10)
    seen = measure(made(mid, bid_qty=coming, ask_qty=200 - coming))
    assert seen.up_by_imbalance[0] < 0.05 and seen.up_by_imbalance[-1] > 0.95
    assert np.isnan(seen.up_by_imbalance[4])


def test_the_memory_of_signs_counts_orders_not_prints() -> None:
    """Each order alternates, but prints three times: its prints must not look like memory."""
    at = np.repeat(np.arange(900) * SECOND_NS, 3)
    side = np.repeat(np.where(np.arange(900) % 2, BUY, SELL), 3)
    seen = measure(made(1000 + np.arange(1000) // 7 % 2, trades=orders(at, side)))
    assert seen.sign_acf[0] == pytest.approx(-1.0, abs=0.01)


def test_nothing_is_measured_over_a_gap() -> None:
    day = made(np.repeat([1000, 2000], 1000))
    day.books.recv_ns[1000:] += GAP_NS + SECOND_NS
    seen = measure(day)
    assert seen.seconds == 2000
    assert seen.volatility_1s == 0.0 and np.isnan(seen.variance_ratio)
    assert all(fact.passed is None for fact in facts([seen]) if np.isnan(fact.value))


def test_unsound_books_are_left_out(rng: np.random.Generator) -> None:
    day = made(5000 + np.cumsum(rng.integers(-1, 2, 3000)))
    clean = measure(day)
    day.books.bid_px[100, 0] = day.books.ask_px[100, 0] + 500
    day.books.ask_qty[200, 0] = 0
    seen = measure(day)
    assert seen.volatility_1s == pytest.approx(clean.volatility_1s, rel=0.05)


@pytest.mark.parametrize(("rows", "text"), [(0, "no sound two-sided book"), (599, "at least 600 s")])
def test_a_day_that_says_nothing_is_refused(rows: int, text: str) -> None:
    with pytest.raises(RecordingError, match=text):
        measure(made(np.full(rows, 1000)))


def test_one_mid_behind_another(rng: np.random.Generator) -> None:
    walk = 5000 + np.cumsum(rng.integers(-1, 2, 5000))
    seen = lead_lag(made(walk[3:]), made(walk[:-3]), step_s=1.0, max_lag_s=5.0)
    assert (seen.peak_lag_s, seen.peak) == (3.0, pytest.approx(1.0))
    with pytest.raises(RecordingError, match="share 99 steps"):
        lead_lag(made(walk), made(walk[:100]), step_s=1.0)


def test_a_gate_is_for_the_mean_and_a_failing_fact_is_shown(rng: np.random.Generator) -> None:
    days = [measure(made(9000 + np.cumsum(rng.integers(-1, 2, 2000)), spread=s)) for s in (2, 6)]
    table = {fact.name: fact for fact in facts(days, tick_class="small", speed_s=9.0)}
    spread = table["mean spread, ticks"]
    assert (spread.value, spread.low, spread.high, spread.passed) == (4.0, 2.0, 6.0, True)
    assert table["excess kurtosis, 1 s"].passed is False
    assert table["speed: seconds for 8 h, one core"].passed is False
    assert table["deepest level (hump)"].passed is None
    assert {f.name: f for f in facts(days, tick_class="large")}["mean spread, ticks"].passed is False
    assert {f.name: f for f in facts(days)}["mean spread, ticks"].passed is None


@pytest.fixture(scope="module")
def measured() -> dict[str, list[Measures]]:
    """Eight seeds of two hours of each base preset."""
    return {
        preset: [
            measure(simulate_market([SimSpec("SIM", preset)], hours=HOURS, seed=seed)[0][0]) for seed in SEEDS
        ]
        for preset in ("SMALL", "LARGE")
    }


@pytest.mark.parametrize("preset", ["SMALL", "LARGE"])
def test_the_gates_over_seeds(measured: dict[str, list[Measures]], preset: str) -> None:
    """Every gate of the table, on the mean over seeds."""
    table = facts(measured[preset], tick_class=TICK_CLASS[preset])
    judged = [f for f in table if f.passed is not None and f.name not in NOT_REPRODUCED[preset]]
    assert [f"{f.name} {f.value:.3f}, gate {f.gate}" for f in judged if not f.passed] == []
    assert len(judged) >= 11
    assert {f.name: f.value for f in table}[TAILS] > 1.5


def test_what_sets_the_presets_apart(measured: dict[str, list[Measures]]) -> None:
    small, large = (np.mean([m.spread for m in measured[p]]) for p in ("SMALL", "LARGE"))
    assert small > 3 and large < 1.2
    assert np.argmax(np.mean([m.depth for m in measured["LARGE"]], axis=0)) in (2, 3), (
        "no hump behind the touch"
    )


def test_the_intraday_u_where_nothing_else_moves_the_activity() -> None:
    calm = SimSpec("SIM", overrides={"vv": 0.0})
    days = [measure(simulate_market([calm], hours=1.0, seed=seed)[0][0]) for seed in (1, 2)]
    shape: dict[str, Fact] = {fact.name: fact for fact in facts(days)}
    assert shape["intraday U of volume, edges / middle"].value > 1.8
    assert shape[VOLATILITY_U].value > 1.15


@pytest.mark.recorded
def test_a_real_day_gives_the_same_table(shared_data: Path) -> None:
    (day,) = IMPORTERS["moex-rts"].load(shared_data / "moex-rts").days
    seen = measure(day)
    assert seen.spread == pytest.approx(1.41, abs=0.02)
    assert 0.5 < seen.ofi_r2 < 0.7 and 0.3 < seen.trade_r2 < seen.ofi_r2
    assert (np.diff(seen.up_by_imbalance) > 0).all()
    assert 0.9 < seen.variance_ratio < 1.1 and seen.kurtosis_1s > 10
