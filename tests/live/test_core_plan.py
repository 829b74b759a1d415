"""The order plan: the stop's formula, the volume's limits, the VWAP split."""

from __future__ import annotations

import ast
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from core_bench import MID, Bench, config, instrument, model, of, refusals
from hypothesis import given
from hypothesis import strategies as st

from live.core import commands as cmd
from live.core.config import ExecutionConfig, RiskConfig
from live.core.errors import ImpossibleEvent
from live.core.plan import (
    Exposure,
    Leg,
    OrderPlan,
    Touch,
    Volume,
    legs,
    loss_per_lot_nano,
    stop_distance_ticks,
    volume,
)
from market.types import NANO

TOUCH = Touch(29_999, 40, 30_001, 60)


@given(
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.integers(1, 500),
    st.integers(500, 3_000),
    st.integers(100, 10**6),
)
def test_the_stop_is_the_specified_fraction_of_the_entry_price_rounded_away(
    sum_tr2: int, bars: int, spread: int, multiplier_e3: int, entry: int
) -> None:
    atr5 = Fraction(sum_tr2, 2 * bars) / entry
    exact = (
        entry
        * (Fraction(18, 10) * atr5 + Fraction(1, 2) * Fraction(spread, entry))
        * Fraction(multiplier_e3, 1000)
    )
    distance = stop_distance_ticks(sum_tr2, bars, spread, multiplier_e3)
    assert distance == max(1, ceil(exact))


def test_rounding_goes_away_from_the_entry_so_the_stop_is_never_nearer_than_the_formula() -> None:
    assert stop_distance_ticks(0, 5, 1) == 1  # 0.5 ticks
    assert stop_distance_ticks(0, 5, 3) == 2  # 1.5 ticks
    assert stop_distance_ticks(10, 5, 2) == 3  # 1.8 * 1 + 1 = 2.8 ticks
    assert stop_distance_ticks(10, 5, 2, 2_000) == 6  # 5.6 ticks


def test_the_stop_is_always_on_the_losing_side() -> None:
    for move in (50_000, -50_000):
        bench = Bench.ready()
        bench.enter(move)
        side = 1 if move > 0 else -1
        stop = of(bench.log, cmd.PositionChanged)[-1].stop_ticks
        assert stop is not None and (stop - (MID + side)) * side < 0


LIMITS = st.builds(
    RiskConfig,
    capital_base_nano=st.integers(1, 10**16),
    max_risk_per_instrument_ppm=st.integers(1, 10**6),
    max_exposure_ppm=st.integers(1, 10**6),
    max_gross_exposure_nano=st.integers(1, 10**16),
    max_position_lots=st.integers(1, 10**4),
    liquidity_share_pct=st.integers(1, 100),
)


@given(
    LIMITS, st.integers(0, 200), st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 10**13),
    st.integers(1, 10**14), st.integers(0, 10**5),
)  # fmt: skip
def test_the_volume_never_exceeds_any_limit_and_never_leaves_a_whole_lot_unused(
    risk: RiskConfig, held: int, ticker_nano: int, other_nano: int, loss: int, value: int, touch_lots: int
) -> None:
    exposure = Exposure(held, ticker_nano, ticker_nano + other_nano)
    allowed = volume(risk, exposure, loss_per_lot=loss, value_per_lot=value, touch_lots=touch_lots)
    lots, bound_by = allowed.lots, allowed.bound_by

    def allowed(n: int) -> bool:
        return (
            n * loss <= risk.risk_budget_nano
            and held + n <= risk.max_position_lots
            and ticker_nano + n * value <= risk.exposure_nano
            and exposure.gross_nano + n * value <= risk.max_gross_exposure_nano
            and n * 100 <= touch_lots * risk.liquidity_share_pct
        )

    assert lots == 0 or allowed(lots)
    assert not allowed(lots + 1)
    assert bound_by in (
        "RISK_BUDGET",
        "POSITION_LIMIT",
        "EXPOSURE_LIMIT",
        "GROSS_EXPOSURE_LIMIT",
        "LIQUIDITY",
    )


def test_a_volume_of_nothing_is_a_refusal_that_names_the_limit() -> None:
    cases = {
        "VOLUME_RISK_BUDGET": RiskConfig(atr_min_bars=1, max_risk_per_instrument_ppm=1),
        "VOLUME_EXPOSURE_LIMIT": RiskConfig(atr_min_bars=1, max_exposure_ppm=1),
        "VOLUME_GROSS_EXPOSURE_LIMIT": RiskConfig(atr_min_bars=1, max_gross_exposure_nano=NANO),
    }
    for reason, risk in cases.items():
        bench = Bench.ready(config(risk=risk))
        commands = bench.score()
        assert refusals(commands) == [reason] and not of(commands, cmd.PlaceOrder)
    bench = Bench.ready()
    bench.book(lots=1)
    assert refusals(bench.score()) == ["VOLUME_LIQUIDITY"]


def test_the_loss_at_the_stop_of_a_whole_entry_fits_the_risk_budget_fees_included() -> None:
    risk = RiskConfig(atr_min_bars=1, max_risk_per_instrument_ppm=20)
    bench = Bench.ready(config(risk=risk))
    plan = next(c for c in bench.score() if isinstance(c, cmd.Audit) and c.event == "ORDER_PLAN").fields
    loss = loss_per_lot_nano(instrument(), plan["entry_ticks"], plan["stop_ticks"], 50)
    assert plan["bound_by"] == "RISK_BUDGET"
    assert plan["lots"] * loss <= risk.risk_budget_nano < (plan["lots"] + 1) * loss


def test_more_than_five_lots_are_split_80_per_cent_market_the_rest_limit_with_a_small_improvement() -> None:
    market, limit = legs(1, 10, TOUCH, ExecutionConfig(limit_improvement_ticks=1))
    assert (market.order_type, market.lots, market.price_ticks, market.tif) == ("market", 8, None, "fak")
    assert (limit.order_type, limit.lots, limit.price_ticks, limit.tif) == ("limit", 2, 30_000, "day")
    assert legs(-1, 10, TOUCH, ExecutionConfig(limit_improvement_ticks=1))[1].price_ticks == 30_000


def test_up_to_five_lots_are_one_ioc_market_order() -> None:
    for lots in range(1, 6):
        (only,) = legs(1, lots, TOUCH, ExecutionConfig())
        assert (only.order_type, only.lots, only.tif) == ("market", lots, "fak")


@given(
    st.sampled_from((1, -1)), st.integers(1, 1_000), st.integers(1, 50), st.integers(0, 60),
    st.integers(0, 10**6), st.integers(0, 20),
)  # fmt: skip
def test_a_split_loses_no_lot_and_its_limit_stays_inside_the_touch(
    direction: int, lots: int, spread: int, improvement: int, share_ppm: int, threshold: int
) -> None:
    touch = Touch(1_000, 5, 1_000 + spread, 5)
    execution = ExecutionConfig(
        vwap_threshold_lots=threshold, vwap_market_share_ppm=share_ppm, limit_improvement_ticks=improvement
    )
    planned = legs(direction, lots, touch, execution)
    assert sum(leg.lots for leg in planned) == lots and all(leg.lots > 0 for leg in planned)
    for leg in planned:
        if leg.price_ticks is not None:
            assert touch.bid_ticks <= leg.price_ticks <= touch.ask_ticks


def test_the_stop_multiplier_of_the_model_widens_the_stop() -> None:
    stops = []
    for multiplier in (1_000, 2_000):
        bench = Bench.ready(params=model(stop_multiplier_e3=multiplier))
        bench.enter()
        stops.append(of(bench.log, cmd.PositionChanged)[-1].stop_ticks)
    assert stops[1] < stops[0] < MID


def test_an_order_that_risk_has_not_approved_cannot_be_constructed() -> None:
    """A volume comes from the limits or not at all, a plan's legs from its volume, an order from a plan's leg
    or from the position that it closes; and one place in the product makes orders.
    """
    with pytest.raises(ImpossibleEvent, match="not allowed by the risk engine"):
        Volume(5, "NOBODY", object())
    allowed = volume(RiskConfig(), Exposure(), loss_per_lot=NANO, value_per_lot=3_000 * NANO, touch_lots=8)
    assert allowed.lots == 4
    leg = Leg("market", allowed.lots, None, "fak")
    plan = OrderPlan("t", "AAA", 1, allowed, MID, MID - 9, (leg,))
    for legs_ in ((Leg("market", 5, None, "fak"),), (leg, Leg("limit", 1, MID, "day"))):
        with pytest.raises(ImpossibleEvent, match="4 lots allowed"):
            OrderPlan("t", "AAA", 1, allowed, MID, MID - 9, legs_)
    desk = Bench.ready().engine._desk
    with pytest.raises(ImpossibleEvent, match="no part of the plan"):
        desk.enter(plan, Leg("market", 1, None, "fak"), "test")
    with pytest.raises(ImpossibleEvent, match="no position in AAA"):
        desk.leave("AAA", "t", "test")
    with pytest.raises(ImpossibleEvent, match="no position in AAA"):
        desk.protect("AAA", "t", MID, "test")
    made = [
        path.name
        for path in sorted((Path(__file__).resolve().parents[2] / "live").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "PlaceOrder"
    ]
    assert made == ["desk.py"]
