"""From score to order and out again: entries, exits, stops, the fallback, refusals with names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_bench import HORIZON_NS, SECOND_NS, Bench, audits, config, model, of, refusals

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import ExecutionConfig, FallbackConfig, MonitoringConfig, RiskConfig
from live.core.errors import ClockWentBack, ImpossibleEvent, UnknownTicker
from live.core.signals import cost_millibps

HOUR_NS = 3600 * SECOND_NS


# ---- signals


def test_the_cost_is_spread_plus_two_fees_plus_slippage() -> None:
    assert cost_millibps(29_999, 30_001, 0, 0) == 667  # 2 / 30000 = 0.667 bp, rounded up
    assert cost_millibps(29_999, 30_001, 50, 0) == 667 + 1_000
    assert cost_millibps(29_999, 30_001, 50, 1) == 1_334 + 1_000


def test_a_signal_needs_an_edge_above_the_threshold_net_of_costs() -> None:
    cost = 667 + 1_000
    for move, expected in ((cost + 500, 0), (cost + 501, 1), (-cost - 501, 1), (0, 0)):
        bench = Bench.ready(params=model(threshold_millibps={"AAA": 500, "BBB": 500}))
        placed = of(bench.score(move), cmd.PlaceOrder)
        assert bool(placed) == bool(expected), move
        if placed:
            assert placed[0].side == (1 if move > 0 else -1)
            (record,) = of(bench.log, cmd.RecordSignal)
            assert (record.outcome, record.edge_millibps, record.cost_millibps) == ("ENTRY", 501, cost)


def test_the_fee_of_the_configuration_overrides_the_models() -> None:
    bench = Bench.ready(config(fee_ppm={"AAA": 3_000}))
    assert not of(bench.score(60_000), cmd.PlaceOrder)
    assert of(bench.score(61_000), cmd.PlaceOrder)


def test_an_instrument_without_a_threshold_is_never_traded_and_the_refusal_is_counted_not_spammed() -> None:
    bench = Bench.ready(params=model(threshold_millibps={"AAA": None}))
    for _ in range(50):
        bench.score(10**6)
        bench.score(10**6, ticker="BBB")
    assert not bench.orders()
    assert bench.engine.refusals == {"NO_THRESHOLD": 100}
    assert refusals(bench.log) == ["NO_THRESHOLD", "NO_THRESHOLD"]
    bench.score(10**6, after_ns=60 * SECOND_NS)
    assert [c.count for c in of(bench.log, cmd.Refuse)] == [1, 1, 50]


def test_a_traced_signal_names_its_orders() -> None:
    bench = Bench.ready()
    commands = bench.score()
    (record,) = of(commands, cmd.RecordSignal)
    assert {o.trace_id for o in of(commands, cmd.PlaceOrder)} == {record.trace_id}


def test_one_position_an_instrument() -> None:
    bench = Bench.ready()
    bench.enter()
    assert not of(bench.score(10**6), cmd.PlaceOrder)


def test_no_second_entry_while_an_order_works() -> None:
    bench = Bench.ready()
    bench.score()
    assert refusals(bench.score()) == ["ORDER_WORKING"]


def test_no_entry_on_an_old_book_without_bars_or_outside_the_collar() -> None:
    bench = Bench.ready()
    assert refusals(bench.score(after_ns=6 * SECOND_NS)) == ["STALE_BOOK"]
    cold = Bench.make(config(risk=RiskConfig()))
    cold.tell(ev.Reconciled, {})
    cold.book()
    assert refusals(cold.score()) == ["ATR_WARMUP"]
    bench = Bench.ready(config(risk=RiskConfig(atr_min_bars=1, price_collar_bps=10)))
    bench.book(bid=30_060)  # 20 bps above the book before
    assert refusals(bench.score()) == ["PRICE_COLLAR"]


def test_five_one_minute_bars_are_needed_by_default() -> None:
    bench = Bench.make(config(risk=RiskConfig()))
    bench.tell(ev.Reconciled, {})
    for _ in range(5):
        bench.book(after_ns=60 * SECOND_NS)
        assert not of(bench.score(), cmd.PlaceOrder)
    bench.book(after_ns=60 * SECOND_NS)
    assert of(bench.score(), cmd.PlaceOrder)


def test_max_orders_per_minute_refuses_entries_but_never_exits() -> None:
    bench = Bench.ready(config(risk=RiskConfig(atr_min_bars=1, max_orders_per_minute=2)))
    bench.enter()
    assert refusals(bench.score(ticker="BBB")) == ["ORDER_RATE"]
    commands = bench.tell(ev.StopRequested, "", flatten=True)
    assert of(commands, cmd.PlaceOrder)


# ---- exits


def test_a_position_leaves_after_the_horizon_when_the_model_no_longer_expects_more() -> None:
    bench = Bench.ready(params=model(exit_move_millibps=300))
    bench.enter()
    for move, after_ns, leaves in (
        (0, HORIZON_NS // 2, False),
        (300, HORIZON_NS // 2, False),
        (299, SECOND_NS, True),
    ):
        bench.book(after_ns=after_ns)
        assert bool(of(bench.score(move), cmd.PlaceOrder)) == leaves, move
    last = bench.orders()[-1]
    assert (last.reason, last.reduce_only, last.lots, last.side) == ("HORIZON", True, bench.lots(), -1)


def test_a_strong_opposite_signal_ends_a_position_before_the_horizon() -> None:
    bench = Bench.ready()
    bench.enter()
    assert not of(bench.score(-1_600), cmd.PlaceOrder)  # below its cost
    assert [o.reason for o in of(bench.score(-2_000), cmd.PlaceOrder)] == ["REVERSAL"]


@pytest.mark.parametrize("direction", [1, -1])
def test_the_touch_beyond_the_stop_is_a_market_exit_with_reason_stop(direction: int) -> None:
    bench = Bench.ready()
    bench.enter(50_000 * direction)
    stop = of(bench.log, cmd.PositionChanged)[-1].stop_ticks
    near, beyond = stop + direction, stop
    bid = {1: near, -1: near - 2}[direction]  # the long leaves at the bid, the short at the ask
    assert not of(bench.book(bid=bid), cmd.PlaceOrder)
    commands = bench.book(bid={1: beyond, -1: beyond - 2}[direction])
    (order,) = of(commands, cmd.PlaceOrder)
    assert (order.reason, order.order_type, order.tif, order.reduce_only) == ("STOP", "market", "fak", True)
    assert order.side == -direction and order.lots == abs(bench.lots())
    assert any(n.kind == "STOP" and n.tone_hz == 2_500 for n in of(commands, cmd.Notify))


def test_an_exit_that_did_not_fill_is_tried_again_but_not_at_once_and_never_twice_at_a_time() -> None:
    bench = Bench.ready()
    bench.enter()
    (first,) = of(bench.book(bid=29_950), cmd.PlaceOrder)
    assert not of(bench.book(bid=29_950), cmd.PlaceOrder)
    assert not of(bench.update(first, "CANCELLED"), cmd.PlaceOrder)
    (second,) = of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.PlaceOrder)
    bench.fill(second, 29_950, lots=second.lots - 3)
    bench.update(second, "CANCELLED", second.lots - 3)
    (third,) = of(bench.tell(ev.Timer, after_ns=5 * SECOND_NS), cmd.PlaceOrder)
    assert third.lots == 3 == bench.lots()


def test_an_unknown_exit_is_not_repeated_before_the_broker_says_what_became_of_it() -> None:
    bench = Bench.ready()
    bench.enter()
    (order,) = of(bench.book(bid=29_950), cmd.PlaceOrder)
    bench.update(order, "UNKNOWN")
    for _ in range(20):
        assert not of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.PlaceOrder)
    assert of(bench.update(order, "REJECTED"), cmd.PlaceOrder)


def test_a_position_leaves_though_books_and_scores_stop_coming() -> None:
    bench = Bench.ready()
    bench.enter()
    assert not of(bench.tell(ev.Timer, after_ns=HORIZON_NS - SECOND_NS), cmd.PlaceOrder)
    assert [o.reason for o in of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.PlaceOrder)] == ["NO_SCORES"]


def test_a_position_never_outlives_max_holding_horizons() -> None:
    bench = Bench.ready(config(risk=RiskConfig(atr_min_bars=1, max_holding_horizons=2)))
    bench.enter()
    for _ in range(3):
        assert not of(bench.book(after_ns=HORIZON_NS // 2), cmd.PlaceOrder)
        assert not of(bench.score(50_000, after_ns=0), cmd.PlaceOrder)
    assert [o.reason for o in of(bench.book(after_ns=HORIZON_NS // 2), cmd.PlaceOrder)] == ["MAX_AGE"]


def test_a_position_that_nobody_planned_is_closed() -> None:
    bench = Bench.ready()
    orders = bench.enter()
    bench.tell(ev.StopRequested, "", flatten=True)
    bench.fill(bench.orders()[-1], 30_000)
    assert bench.lots() == 0
    bench.update(orders[0], "FILLED", orders[0].lots, [ev.FillInfo("ghost", 30_001, 2, 0)])
    assert bench.lots() == 2
    last = bench.orders()[-1]
    assert (last.reason, last.lots, last.side) == ("UNPLANNED", 2, -1) or last.reason.startswith("HOLD_")


# ---- the exchange's stop


def protected() -> Bench:
    return Bench.ready(config(execution=ExecutionConfig(exchange_stop=True)))


def test_after_the_fill_the_stop_is_recorded_in_the_position_and_order_counters_are_updated() -> None:
    bench = Bench.ready()
    before, at_ns = bench.engine.risk.day_orders, bench.now_ns
    orders = bench.enter()
    (plan,) = [c for c in bench.log if isinstance(c, cmd.Audit) and c.event == "ORDER_PLAN"]
    changed = of(bench.log, cmd.PositionChanged)
    assert [c.stop_ticks for c in changed] == [plan.fields["stop_ticks"]] * len(changed)
    assert bench.engine.stops["AAA"] == plan.fields["stop_ticks"]
    assert bench.engine.risk.day_orders - before == len(orders) >= 1
    assert bench.engine.risk.orders.count(at_ns + SECOND_NS) == len(orders)


def test_exchange_stop_places_exactly_one_stop_order_per_position() -> None:
    bench = protected()
    bench.enter()
    for _ in range(5):
        bench.book()
        bench.tell(ev.Timer)
    stops = [o for o in bench.orders() if o.order_type == "stop"]
    assert len(stops) == 1
    assert (stops[0].lots, stops[0].side, stops[0].reduce_only) == (bench.lots(), -1, True)


def test_our_own_exit_waits_until_the_exchange_stop_is_withdrawn() -> None:
    bench = protected()
    bench.enter()
    stop = bench.orders()[-1]
    assert stop.order_type == "stop"
    bench.update(stop, "NEW")
    commands = bench.tell(ev.VolatilityIndex, 9_000)
    assert [c.client_order_id for c in of(commands, cmd.CancelOrder)] == [stop.client_order_id]
    assert not of(commands, cmd.PlaceOrder)
    commands = bench.update(stop, "CANCELLED")
    if not of(commands, cmd.PlaceOrder):
        commands = bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert [(o.order_type, o.lots) for o in of(commands, cmd.PlaceOrder)] == [("market", bench.lots())]


def test_a_triggered_exchange_stop_closes_the_position_in_our_books() -> None:
    bench = protected()
    bench.enter()
    bench.fill(bench.orders()[-1])
    assert bench.lots() == 0 and not bench.engine.orders.all_working()
    assert of(bench.log, cmd.TripClosed)[-1].exit_reason == "EXCHANGE_STOP"


# ---- fallback


FALLBACK = FallbackConfig(
    imbalance_threshold_e6=400_000, volatility_threshold_millibps=500, max_signals_per_hour=2, min_books=10,
    confidence_e6=560_000, window_ns=3 * SECOND_NS,
)  # fmt: skip


def lopsided(bench: Bench, *, bids: int = 300, swing: int = 4, ticker: str = "AAA") -> None:
    for n in range(12):
        bench.book(ticker, bid=29_998 + (n % 2) * swing, bid_qty=(bids, bids, bids))


def failed(bench: Bench, ticker: str = "AAA") -> list[cmd.Command]:
    return bench.tell(ev.InferenceFailed, ticker, f"trace-{len(bench.log)}", "boom")


def test_failed_inference_past_both_thresholds_is_a_fallback_signal_with_its_reasons_audited() -> None:
    bench = Bench.ready(config(fallback=FALLBACK))
    lopsided(bench)
    commands = failed(bench)
    line = next(c for c in of(commands, cmd.Audit) if c.event == "FALLBACK_SIGNAL")
    assert line.fields["imbalance_e6"] == 12 * 500_000 // 13 and line.fields["volatility_millibps"] > 500
    assert any(n.kind == "FALLBACK_SIGNAL" for n in of(commands, cmd.Notify))
    (record,) = of(commands, cmd.RecordSignal)
    assert (record.source, record.confidence_e6, record.direction) == ("fallback", 560_000, 1)
    assert of(commands, cmd.PlaceOrder)[0].side == 1


@pytest.mark.parametrize("bids,swing", [(120, 4), (300, 0)])
def test_below_either_threshold_the_fallback_is_silent(bids: int, swing: int) -> None:
    bench = Bench.ready(config(fallback=replace(FALLBACK, window_ns=SECOND_NS)))
    lopsided(bench, bids=bids, swing=swing)
    assert not of(failed(bench), cmd.PlaceOrder)
    assert not any(a.startswith("FALLBACK") for a in audits(bench.log))


def test_out_of_quota_the_fallback_is_unavailable_until_the_hour_has_passed() -> None:
    bench = Bench.ready(config(fallback=FALLBACK))
    for _ in range(3):
        lopsided(bench)
        for order in of(failed(bench), cmd.PlaceOrder):
            bench.update(order, "CANCELLED")
    assert audits(bench.log).count("FALLBACK_SIGNAL") == 2
    assert "FALLBACK_UNAVAILABLE" in audits(bench.log)
    bench.now_ns += HOUR_NS
    bench.warm()
    lopsided(bench)
    assert "FALLBACK_SIGNAL" in audits(failed(bench))


def test_the_fallback_obeys_holds_and_a_switched_off_fallback_does_nothing() -> None:
    bench = Bench.ready(config(fallback=FALLBACK))
    lopsided(bench)
    bench.tell(ev.Drift, "psi", 1, True)
    assert refusals(failed(bench)) == ["HOLD_CRITICAL_DRIFT"] and not bench.orders()
    bench = Bench.ready(config(fallback=replace(FALLBACK, enabled=False)))
    lopsided(bench)
    assert not of(failed(bench), cmd.PlaceOrder)


def test_the_fallback_never_trades_what_the_model_never_trades() -> None:
    bench = Bench.ready(config(fallback=FALLBACK), model(threshold_millibps={"AAA": None}))
    lopsided(bench)
    assert refusals(failed(bench)) == ["NO_THRESHOLD"]


# ---- liquidity, impossible input


def test_a_wide_spread_is_a_liquidity_warning_at_1500_hz_and_its_end_is_told_too() -> None:
    bench = Bench.ready(
        config(monitoring=MonitoringConfig(heartbeat_enabled=False, spread_alert_millibps=5_000))
    )
    for _ in range(100):
        bench.book(spread=20)
    for _ in range(100):
        bench.book(spread=2)
    warnings = [n for n in of(bench.log, cmd.Notify) if n.kind == "LIQUIDITY"]
    assert [n.tone_hz for n in warnings] == [1_500, None]
    assert "a spread of 6.7 bps, the limit is 5.0" in warnings[0].text
    events = [a.event for a in of(bench.log, cmd.Audit) if a.event.startswith("LIQUIDITY")]
    assert events == ["LIQUIDITY_LOW", "LIQUIDITY_RESTORED"]


def test_impossible_input_has_named_exceptions() -> None:
    bench = Bench.ready()
    with pytest.raises(ClockWentBack):
        bench.engine.on(ev.Timer(bench.now_ns - 1))
    with pytest.raises(UnknownTicker):
        bench.tell(ev.Trade, "ZZZ", 0, 1, 1, 1)
    with pytest.raises(ImpossibleEvent):
        bench.engine.on("a string")  # type: ignore[arg-type]
