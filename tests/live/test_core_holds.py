"""A Hold is everything that stops trading: who raises each, who lifts it, and that the gate obeys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_bench import HORIZON_NS, MINUTE_NS, SECOND_NS, START_NS, Bench, audits, config, model, of, refusals

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import LatencyConfig, MonitoringConfig, RiskConfig, SessionConfig
from live.core.holds import KINDS, Hold, HoldSet, Severity

DAY_NS = 86_400 * SECOND_NS


def entries(commands: list[cmd.Command]) -> list[cmd.PlaceOrder]:
    return [c for c in of(commands, cmd.PlaceOrder) if not c.reduce_only]


def held(bench: Bench, name: str, scope: str = "*") -> Hold:
    hold = bench.engine.holds.get(name, scope)
    assert hold is not None, f"no hold {name} over {scope}; there are {list(bench.engine.holds)}"
    return hold


# ---- the set and the gate


def test_the_gate_asks_one_question() -> None:
    holds = HoldSet()
    assert holds.blocking("AAA", reduces=False) is None
    for severity in Severity:
        holds = HoldSet()
        holds.put(Hold("X", "AAA", severity, 1, "why", "when"))
        assert holds.blocking("BBB", reduces=False) is None
        assert holds.blocking("AAA", reduces=False) is not None
        assert (holds.blocking("AAA", reduces=True) is not None) == (severity is Severity.NO_ORDERS)


def test_a_hold_survives_its_own_dictionary() -> None:
    hold = Hold("SESSION", "*", Severity.FLATTEN, 5, "why", "when", 9)
    assert Hold.from_dict(hold.to_dict()) == hold


def test_every_hold_is_told_as_a_change_an_audit_line_and_a_notice() -> None:
    bench = Bench.ready()
    commands = bench.tell(ev.VolatilityIndex, 4_001)
    (change,) = of(commands, cmd.HoldChanged)
    assert change.raised and change.hold.name == "VOLATILITY" and change.hold.since_ns == bench.now_ns
    assert "VOLATILITY_EMERGENCY" in audits(commands)
    assert [n.tone_hz for n in of(commands, cmd.Notify)] == [2_500]
    assert not of(bench.tell(ev.VolatilityIndex, 5_000), cmd.HoldChanged)  # told once


# ---- session


SESSION = SessionConfig(start_s=10 * 3600, end_s=18 * 3600, pre_open_s=600, post_close_s=300)


@pytest.mark.parametrize(
    "moscow_s,weekday_shift,is_open",
    [
        (9 * 3600 + 49 * 60 + 59, 0, False),
        (9 * 3600 + 50 * 60, 0, True),
        (18 * 3600 + 299, 0, True),
        (18 * 3600 + 300, 0, False),
        (12 * 3600, 1, True),
        (12 * 3600, 2, False),
        (12 * 3600, 3, False),
        (12 * 3600, 4, True),
    ],
)
def test_the_window_is_start_minus_pre_open_to_end_plus_post_close_on_allowed_weekdays(
    moscow_s: int, weekday_shift: int, is_open: bool
) -> None:
    thursday_midnight = START_NS - 10 * 3600 * SECOND_NS
    bench = Bench.make(config(session=SESSION))
    bench.now_ns = thursday_midnight + weekday_shift * DAY_NS + moscow_s * SECOND_NS
    bench.tell(ev.Timer, after_ns=0)
    assert (bench.engine.holds.get("SESSION") is None) == is_open


def test_outside_the_window_trading_is_suspended_and_the_notice_says_when_the_next_window_opens() -> None:
    bench = Bench.ready(config(session=SESSION))
    bench.enter()
    bench.now_ns = START_NS + (8 * 3600 + 300) * SECOND_NS
    commands = bench.tell(ev.Timer, after_ns=0)
    assert "SESSION_SUSPENDED" in audits(commands)
    notice = next(n for n in of(commands, cmd.Notify) if n.kind == "SESSION_SUSPENDED")
    assert "2026-01-16 09:50" in notice.text
    exits = of(commands, cmd.PlaceOrder)
    assert [e.reason for e in exits] == ["HOLD_SESSION"] and exits[0].lots == bench.lots()
    bench.now_ns = START_NS + (24 * 3600 - 600) * SECOND_NS
    assert "SESSION_RESUMED" in audits(bench.tell(ev.Timer, after_ns=0))


def test_before_a_weekend_the_next_window_is_on_monday() -> None:
    bench = Bench.make(config(session=SESSION))
    bench.now_ns = START_NS + DAY_NS + 9 * 3600 * SECOND_NS  # Friday 19:00
    commands = bench.tell(ev.Timer, after_ns=0)
    assert any("2026-01-19 09:50" in n.text for n in of(commands, cmd.Notify))


# ---- manual override


def test_while_the_override_is_active_no_order_is_sent_and_market_data_goes_on() -> None:
    bench = Bench.ready()
    bench.enter()
    commands = bench.tell(ev.Override, True, "lunch")
    assert held(bench, "MANUAL_OVERRIDE").reason == "lunch"
    assert any("lunch" in n.text for n in of(commands, cmd.Notify))
    mark = len(bench.orders())
    bench.book(bid=29_900)  # far beyond the stop
    bench.score(-50_000)
    bench.score(ticker="BBB")
    bench.tell(ev.StopRequested, "bye", flatten=True)
    assert len(bench.orders()) == mark
    bench.tell(ev.Override, False)
    bench.book(bid=29_900)
    assert [o.reduce_only for o in bench.orders()[mark:]] == [True]


def test_cancels_pass_every_hold() -> None:
    bench = Bench.ready()
    placed = of(bench.score(), cmd.PlaceOrder)
    commands = bench.tell(ev.Override, True, "stop")
    assert {c.client_order_id for c in of(commands, cmd.CancelOrder)} == {o.client_order_id for o in placed}


# ---- losses


def lose(bench: Bench, ticks: int = 10, move: int = 50_000) -> list[cmd.Command]:
    """One losing round trip of AAA; returns the commands of its last fill."""
    bench.enter(move)
    side = 1 if move > 0 else -1
    bench.tell(ev.Timer, after_ns=HORIZON_NS)
    bench.score(0)
    return bench.fill(bench.orders()[-1], 30_000 + side - side * ticks)


def test_max_daily_loss_stops_trading_until_the_next_day() -> None:
    risk = RiskConfig(atr_min_bars=1, max_daily_loss_nano=1, max_consecutive_losses=100)
    bench = Bench.ready(config(risk=risk))
    commands = lose(bench)
    assert "DAILY_LOSS_STOP" in audits(commands)
    assert not entries(bench.score()) and refusals(bench.log)[-1] == "HOLD_DAILY_LOSS"
    bench.now_ns = START_NS + 14 * 3600 * SECOND_NS - 1  # one nanosecond before midnight in Moscow
    bench.tell(ev.Timer, after_ns=0)
    held(bench, "DAILY_LOSS")
    commands = bench.tell(ev.Timer, after_ns=1)
    assert {"DAY_ROLLED", "DAILY_LOSS_RESET"} <= set(audits(commands))
    assert bench.engine.risk.day_realised_nano == 0
    bench.warm()
    assert entries(bench.score())


def test_the_daily_percentage_stops_trading_too_and_the_smaller_limit_counts() -> None:
    risk = RiskConfig(capital_base_nano=10**12, daily_loss_limit_ppm=10_000, max_daily_loss_nano=10**11)
    assert risk.day_loss_nano == 10**10
    assert replace(risk, max_daily_loss_nano=10**9).day_loss_nano == 10**9


def test_an_open_loss_counts_against_the_day_and_flattens() -> None:
    risk = RiskConfig(atr_min_bars=1, max_daily_loss_nano=20 * 10**9)
    bench = Bench.ready(config(risk=risk))
    bench.enter()
    assert bench.lots() == 50
    commands = bench.book(bid=29_996)  # 5 ticks x 50 lots x 0.1 roubles = 25 roubles
    held(bench, "DAILY_LOSS")
    assert [o.reason for o in of(commands, cmd.PlaceOrder)] == ["HOLD_DAILY_LOSS"]


def test_max_consecutive_losses_starts_a_cool_down() -> None:
    risk = RiskConfig(atr_min_bars=1, max_consecutive_losses=2, loss_cooldown_ns=MINUTE_NS)
    bench = Bench.ready(config(risk=risk))
    lose(bench)
    assert bench.engine.holds.get("LOSS_COOLDOWN") is None
    bench.book()
    lose(bench)
    assert held(bench, "LOSS_COOLDOWN").until_ns == bench.now_ns + MINUTE_NS
    bench.book()
    assert not entries(bench.score())
    bench.book(after_ns=MINUTE_NS)
    assert bench.engine.holds.get("LOSS_COOLDOWN") is None and entries(bench.score())


def test_a_winning_trade_ends_the_run_of_losses() -> None:
    risk = RiskConfig(atr_min_bars=1, max_consecutive_losses=2)
    bench = Bench.ready(config(risk=risk))
    for ticks in (10, -10, 10):
        bench.book()
        lose(bench, ticks)
    assert bench.engine.holds.get("LOSS_COOLDOWN") is None and bench.engine.risk.consecutive_losses == 1


# ---- volatility, latency, drift, model


def test_the_volatility_index_above_the_threshold_is_an_emergency_stop_until_resumed_by_hand() -> None:
    bench = Bench.ready()
    bench.enter()
    assert not of(bench.tell(ev.VolatilityIndex, 4_000), cmd.HoldChanged)
    commands = bench.tell(ev.VolatilityIndex, 4_001)
    assert [o.reason for o in of(commands, cmd.PlaceOrder)] == ["HOLD_VOLATILITY"]
    bench.tell(ev.VolatilityIndex, 1_000)
    bench.tell(ev.Timer, after_ns=DAY_NS * 2)
    held(bench, "VOLATILITY")
    bench.tell(ev.Resume, ("VOLATILITY",), "calm again")
    assert bench.engine.holds.get("VOLATILITY") is None


def test_a_person_cannot_lift_what_is_not_his_to_lift() -> None:
    bench = Bench.ready()
    bench.tell(ev.Drift, "psi", 900_000, True)
    commands = bench.tell(ev.Resume, ("CRITICAL_DRIFT", "NONSENSE"), "please")
    assert audits(commands).count("RESUME_REFUSED") == 2
    held(bench, "CRITICAL_DRIFT")


def test_latency_violations_in_a_row_are_an_emergency_stop() -> None:
    bench = Bench.ready(config(latency=LatencyConfig({"ml": 100}, violation_limit=3)))
    for micros in (101, 101, 100, 101, 101):
        bench.tell(ev.StageLatency, "ml", micros)
    assert bench.engine.holds.get("LATENCY") is None
    assert "LATENCY_VIOLATION" in audits(bench.log)
    commands = bench.tell(ev.StageLatency, "ml", 101)
    assert "LATENCY_EMERGENCY" in audits(commands)
    bench.tell(ev.StageLatency, "ml", 1)
    held(bench, "LATENCY")
    bench.tell(ev.Resume)
    assert bench.engine.holds.get("LATENCY") is None


def test_a_stop_by_critical_drift_does_not_lift_at_midnight_only_by_notify_model_reload() -> None:
    bench = Bench.ready()
    bench.tell(ev.Drift, "psi", 100_000, False)
    assert bench.engine.holds.get("CRITICAL_DRIFT") is None
    bench.tell(ev.Drift, "psi", 900_000, True)
    bench.tell(ev.Timer, after_ns=DAY_NS)
    assert "DAY_ROLLED" in audits(bench.log)
    held(bench, "CRITICAL_DRIFT")
    commands = bench.tell(ev.ModelSwapped, "m2", model().to_dict())
    assert "CRITICAL_DRIFT_LIFTED" in audits(commands) and bench.engine.model.manifest_sha256 == "m2"


def test_an_expired_model_opens_nothing_until_a_valid_one_is_loaded() -> None:
    bench = Bench.ready(params=model(valid_until_ns=START_NS + 10 * MINUTE_NS))
    bench.enter()
    bench.tell(ev.Timer, after_ns=10 * MINUTE_NS)
    assert held(bench, "MODEL_EXPIRED").severity is Severity.NO_ENTRIES
    assert bench.orders()[-1].reduce_only  # the old position still leaves by its own rules
    bench.tell(ev.ModelSwapped, "m2", model(valid_until_ns=bench.now_ns).to_dict())
    held(bench, "MODEL_EXPIRED")
    bench.tell(ev.ModelSwapped, "m3", model().to_dict())
    assert bench.engine.holds.get("MODEL_EXPIRED") is None


# ---- data and connection


def test_no_book_for_several_heartbeat_intervals_stops_trading_and_audits_the_last_connection_error() -> None:
    monitoring = MonitoringConfig(heartbeat_interval_ns=5 * SECOND_NS, heartbeat_miss_threshold=3)
    bench = Bench.ready(config(monitoring=monitoring))
    bench.tell(ev.Connection, False, error="UNAVAILABLE: reset by peer")
    bench.tell(ev.Connection, True)
    bench.book()
    for _ in range(14):
        bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert bench.engine.holds.get("HEARTBEAT") is None
    commands = bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert "HEARTBEAT_MISSED" in audits(commands)
    assert "UNAVAILABLE: reset by peer" in held(bench, "HEARTBEAT").reason
    bench.book("BBB")
    assert bench.engine.holds.get("HEARTBEAT") is None


def test_a_closed_exchange_misses_no_heartbeats() -> None:
    bench = Bench.ready(config(monitoring=MonitoringConfig()))
    for ticker in ("AAA", "BBB"):
        bench.tell(ev.TradingStatus, ticker, False, "closed")
    for _ in range(100):
        bench.tell(ev.Timer, after_ns=SECOND_NS)
    bench.tell(ev.TradingStatus, "AAA", True)
    bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert bench.engine.holds.get("HEARTBEAT") is None


def test_nothing_is_sent_before_the_broker_was_read_at_start_and_after_each_reconnect() -> None:
    bench = Bench.make()
    bench.tell(ev.Connection, True)
    held(bench, "NOT_RECONCILED")
    bench.warm()
    assert not of(bench.score(), cmd.PlaceOrder)
    bench.tell(ev.Reconciled, {})
    assert of(bench.score(ticker="BBB"), cmd.PlaceOrder)
    bench.tell(ev.Connection, False, error="gone")
    assert held(bench, "CONNECTION").severity is Severity.NO_ORDERS
    commands = bench.tell(ev.Connection, True, channel="backup")
    held(bench, "NOT_RECONCILED")
    assert of(commands, cmd.RequestReconcile)
    held(bench, "BOOK_QUARANTINE", "AAA")


def test_a_fail_over_without_an_outage_is_a_reconnect_too() -> None:
    bench = Bench.ready()
    bench.tell(ev.Connection, True, channel="backup")
    held(bench, "NOT_RECONCILED")


BAD_BOOKS: dict[str, dict[str, Any]] = {
    "INCONSISTENT": {"consistent": False},
    "ONE_SIDED": {"ask_px": (), "ask_qty": ()},
    "CROSSED": {"bid_px": (30_002, 30_001, 30_000)},
    "UNSORTED": {"bid_px": (29_999, 29_999, 29_998)},
    "NOT_POSITIVE": {"bid_qty": (1, 0, 1)},
    "RAGGED": {"bid_qty": (1, 1)},
    "OUT_OF_RANGE": {"bid_qty": (1, 2**31, 1)},
    "BACKWARD_TIME": {"exch_ns": START_NS - 1},
    "IMPLAUSIBLE_MOVE": {"bid_px": (20_000, 19_999, 19_998), "ask_px": (20_002, 20_003, 20_004)},
}


@pytest.mark.parametrize("fault", sorted(BAD_BOOKS))
def test_a_book_that_fails_a_check_quarantines_its_instrument_until_one_passes(fault: str) -> None:
    bench = Bench.ready()
    bench.book(**BAD_BOOKS[fault])
    assert held(bench, "BOOK_QUARANTINE", "AAA").reason == fault
    assert not of(bench.score(), cmd.PlaceOrder) and of(bench.score(ticker="BBB"), cmd.PlaceOrder)
    bench.book()
    assert bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is None
    assert of(bench.score(), cmd.PlaceOrder)


@pytest.mark.parametrize("changes", [
    {"ask_px": (30_001, 30_002, 2**31)}, {"ask_qty": (2**63, 1, 1)}, {"ask_px": (2**70, 2**71, 2**72)},
])  # fmt: skip
def test_a_price_or_a_size_of_no_market_is_out_of_range(changes: dict[str, Any]) -> None:
    bench = Bench.ready()
    bench.book(**changes)
    assert held(bench, "BOOK_QUARANTINE", "AAA").reason == "OUT_OF_RANGE"


def test_after_a_reconnect_a_stale_book_does_not_end_the_quarantine() -> None:
    bench = Bench.ready()
    bench.tell(ev.Connection, False)
    bench.tell(ev.Connection, True)
    bench.book(exch_ns=bench.now_ns - 6 * SECOND_NS)
    assert bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is not None
    bench.book()
    assert bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is None


def test_a_large_move_is_believed_once_enough_books_agree_with_each_other() -> None:
    bench = Bench.ready()
    confirm = bench.engine.config.books.confirm_books
    for n in range(confirm):
        held_now = bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is not None
        assert held_now == (n > 0)
        bench.book(bid=25_000 + n)
    assert bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is None


def test_a_quarantine_by_the_driver_is_not_lifted_by_a_good_book() -> None:
    bench = Bench.ready()
    bench.tell(ev.Quarantine, "AAA", True, "rotated out")
    bench.book()
    held(bench, "BOOK_QUARANTINE", "AAA")
    bench.tell(ev.Quarantine, "AAA", False)
    bench.book()
    assert bench.engine.holds.get("BOOK_QUARANTINE", "AAA") is None


def test_an_instrument_that_the_exchange_halts_gets_no_orders_not_even_exits() -> None:
    bench = Bench.ready()
    bench.enter()
    bench.tell(ev.TradingStatus, "AAA", False, "discrete auction")
    assert not of(bench.book(bid=29_900), cmd.PlaceOrder)
    commands = bench.tell(ev.TradingStatus, "AAA", True)
    assert [o.reason for o in of(commands, cmd.PlaceOrder)] == ["STOP"]


# ---- reconciliation


def test_a_position_that_differs_from_the_brokers_is_a_hold_and_a_report_never_a_trade() -> None:
    bench = Bench.ready()
    mark = len(bench.orders())
    commands = bench.tell(ev.Reconciled, {"AAA": 7})
    hold = held(bench, "POSITION_MISMATCH", "AAA")
    assert "7" in hold.reason and hold.severity is Severity.NO_ORDERS
    assert of(commands, cmd.Notify) and bench.lots() == 0 and len(bench.orders()) == mark
    assert not of(bench.score(), cmd.PlaceOrder) and of(bench.score(ticker="BBB"), cmd.PlaceOrder)
    bench.tell(ev.Reconciled, {})
    assert bench.engine.holds.get("POSITION_MISMATCH", "AAA") is None


def test_a_person_may_declare_the_brokers_extra_lots_his_own() -> None:
    bench = Bench.ready()
    bench.tell(ev.Reconciled, {"AAA": 7})
    bench.tell(ev.Resume, ("POSITION_MISMATCH",), "those are mine")
    bench.tell(ev.Reconciled, {"AAA": 7})
    assert not list(bench.engine.holds) and bench.lots() == 0
    bench.tell(ev.Reconciled, {"AAA": 6})
    held(bench, "POSITION_MISMATCH", "AAA")


def test_a_strangers_working_order_holds_its_instrument() -> None:
    bench = Bench.ready()
    stranger = ev.OpenOrder("not-ours", "x9", "AAA", 1, 5, 0)
    bench.tell(ev.Reconciled, {}, (stranger,))
    held(bench, "POSITION_MISMATCH", "AAA")
    changes = of(bench.tell(ev.Reconciled, {}, (stranger,)), cmd.HoldChanged)
    assert not changes  # no flapping while it works


def test_positions_read_right_after_a_fill_are_not_compared_yet() -> None:
    bench = Bench.ready()
    bench.enter()
    bench.tell(ev.Reconciled, {})
    assert bench.engine.holds.get("POSITION_MISMATCH", "AAA") is None
    commands = bench.tell(ev.Timer, after_ns=6 * SECOND_NS)
    assert of(commands, cmd.RequestReconcile)
    bench.tell(ev.Reconciled, {})
    held(bench, "POSITION_MISMATCH", "AAA")


def test_an_order_that_never_reached_the_exchange_is_presumed_gone_when_everything_agrees() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    for placed in bench.orders():
        bench.update(placed, "UNKNOWN")
    bench.tell(ev.Reconciled, {})
    assert bench.engine.orders.get(order.client_order_id).state == "UNKNOWN"  # type: ignore[union-attr]
    for _ in range(70):
        bench.tell(ev.Timer, after_ns=SECOND_NS)
    bench.tell(ev.Reconciled, {})
    assert bench.engine.orders.get(order.client_order_id).state == "CANCELLED"  # type: ignore[union-attr]
    assert not list(bench.engine.holds)


# ---- stopping


@pytest.mark.parametrize("flatten", [True, False])
def test_a_requested_stop_cancels_entries_and_flattens_when_asked(flatten: bool) -> None:
    bench = Bench.ready()
    bench.enter()
    working = of(bench.score(ticker="BBB"), cmd.PlaceOrder)
    commands = bench.tell(ev.StopRequested, "SIGTERM", flatten=flatten)
    assert {c.client_order_id for c in of(commands, cmd.CancelOrder)} == {o.client_order_id for o in working}
    assert [o.reason for o in of(commands, cmd.PlaceOrder)] == (["HOLD_STOP_REQUESTED"] if flatten else [])


def test_every_name_of_the_brief_is_a_kind_of_hold() -> None:
    assert set(KINDS) >= {
        "SESSION", "MANUAL_OVERRIDE", "DAILY_LOSS", "LOSS_COOLDOWN", "VOLATILITY", "CRITICAL_DRIFT",
        "LATENCY", "HEARTBEAT", "CONNECTION", "BOOK_QUARANTINE", "MODEL_EXPIRED", "REJECT_STREAK",
        "NOT_RECONCILED", "POSITION_MISMATCH", "TRADING_STATUS", "STOP_REQUESTED",
    }  # fmt: skip
