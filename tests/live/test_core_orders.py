"""The order life cycle: one closed table, fills booked once, nothing illegal ignored, UNKNOWN until the
broker says.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from core_bench import MID, SECOND_NS, Bench, audits, config, of
from hypothesis import given, settings
from hypothesis import strategies as st

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import ExecutionConfig, RiskConfig
from live.core.errors import ImpossibleEvent
from live.core.holds import Severity
from live.core.orders import ECHO_MOVES, LEGAL_MOVES, STATES, TERMINAL, Move, Order
from live.core.plan import loss_per_lot_nano

STATUSES = ("NEW", "PARTIAL", "FILLED", "CANCELLED", "REJECTED", "UNKNOWN")


def an_order(state: str, executed: int = 0, lots: int = 10) -> Order:
    order = Order("id", "trace", "AAA", 1, lots, "limit", 100, "ENTRY", "test", 0, state=state)
    order.lots_executed = order.lots_filled = executed
    return order


def test_the_table_is_closed_and_its_verdicts_are_disjoint() -> None:
    assert set(LEGAL_MOVES) == set(ECHO_MOVES) == set(STATES)
    for state, status in product(STATES, STATUSES):
        assert not (status in LEGAL_MOVES[state] and status in ECHO_MOVES[state])
        update = ev.OrderUpdate(0, "id", "x", status)  # type: ignore[arg-type]
        assert isinstance(an_order(state).judge(update), Move)


def test_nothing_leaves_a_finished_state() -> None:
    for state in TERMINAL:
        assert LEGAL_MOVES[state] == {state}


@pytest.mark.parametrize(
    "state,status", [("FILLED", "CANCELLED"), ("CANCELLED", "FILLED"), ("REJECTED", "PARTIAL")]
)
def test_a_finished_order_cannot_become_something_else(state: str, status: str) -> None:
    executed = 10 if state == "FILLED" else 0
    update = ev.OrderUpdate(0, "id", "x", status, 10)  # type: ignore[arg-type]
    assert an_order(state, executed).judge(update) is Move.ILLEGAL


def test_an_illegal_move_is_a_hold_and_an_audit_line() -> None:
    bench = Bench.ready()
    order = bench.enter()[0]
    commands = bench.update(order, "REJECTED", reason="changed its mind")
    assert "ORDER_MOVE_ILLEGAL" in audits(commands)
    hold = bench.engine.holds.get("ORDER_STATE", "AAA")
    assert hold is not None and order.client_order_id in hold.reason
    assert of(commands, cmd.RequestReconcile)
    bench.tell(ev.Reconciled, {"AAA": bench.lots()}, after_ns=10 * SECOND_NS)
    assert bench.engine.holds.get("ORDER_STATE", "AAA") is None


def test_an_old_state_that_arrives_late_is_recognised_not_punished() -> None:
    bench = Bench.ready()
    order = bench.enter()[0]
    commands = bench.update(order, "NEW")
    assert "ORDER_ECHO" in audits(commands)
    assert not list(bench.engine.holds)


def test_fills_are_booked_once_however_often_they_are_reported() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    fills = [ev.FillInfo("deal-1", 30_001, 2, 5), ev.FillInfo("deal-2", 30_002, 1, 5)]
    bench.update(order, "PARTIAL", 2, fills[:1])
    bench.update(order, "PARTIAL", 3, fills)
    bench.update(order, "PARTIAL", 3, fills[::-1])
    assert bench.lots() == 3
    assert bench.engine.positions["AAA"].fees_nano == 10


def test_fills_that_come_after_the_order_was_cancelled_are_still_money() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    bench.update(order, "CANCELLED", 0)
    bench.update(order, "CANCELLED", 2, [ev.FillInfo("late", 30_001, 2, 0)])
    assert bench.lots() == 2


def test_more_lots_than_ordered_are_booked_and_held_against_the_broker() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    bench.update(order, "FILLED", order.lots, [ev.FillInfo("big", 30_001, order.lots + 1, 0)])
    assert bench.lots() == order.lots + 1
    assert bench.engine.holds.get("ORDER_STATE", "AAA") is not None


@given(
    st.lists(
        st.tuples(st.sampled_from(STATUSES), st.integers(0, 12), st.lists(st.integers(0, 4), max_size=4)),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_messages_books_each_deal_once_and_never_passes_in_silence(
    messages: list[tuple[str, int, list[int]]],
) -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    told: set[int] = set()
    for status, executed, deals in messages:
        known = bench.engine.orders.get(order.client_order_id)
        assert known is not None
        before, verdict = known.state, known.judge(ev.OrderUpdate(0, "", "", status, executed))  # type: ignore[arg-type]
        commands = bench.update(order, status, executed, [ev.FillInfo(f"d{i}", 30_001, 1, 0) for i in deals])
        told.update(deals)
        entry = bench.engine.orders.get(order.client_order_id)
        assert entry is not None and entry.lots_filled == len(told) <= entry.lots_executed
        if verdict is Move.LEGAL:
            assert entry.state == status
        else:
            assert entry.state == before
            assert (
                "ORDER_ECHO" in audits(commands) or bench.engine.holds.get("ORDER_STATE", "AAA") is not None
            )
    booked = sum(c.lots * c.side for c in of(bench.log, cmd.FillBooked))
    assert booked == bench.lots()
    assert sum(1 for c in of(bench.log, cmd.FillBooked) if c.client_order_id == order.client_order_id) == len(
        told
    )


def test_a_time_out_leaves_the_order_unknown_and_blocks_entries_in_that_instrument_only() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    commands = bench.update(order, "UNKNOWN", reason="DEADLINE_EXCEEDED")
    assert [c.client_order_id for c in of(commands, cmd.QueryOrder)] == [order.client_order_id]
    hold = bench.engine.holds.get("ORDER_UNKNOWN", "AAA")
    assert hold is not None and hold.severity is Severity.NO_ENTRIES
    assert not of(bench.score(), cmd.PlaceOrder)
    assert of(bench.score(ticker="BBB"), cmd.PlaceOrder)
    bench.update(order, "CANCELLED")
    assert bench.engine.holds.get("ORDER_UNKNOWN", "AAA") is None


def test_an_unanswered_order_becomes_unknown_by_itself() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    commands = bench.tell(ev.Timer, after_ns=ExecutionConfig().ack_timeout_ns)
    assert order.client_order_id in [c.client_order_id for c in of(commands, cmd.QueryOrder)]


def test_queries_of_an_unknown_order_are_bounded_then_rare() -> None:
    execution = ExecutionConfig()
    bench = Bench.ready()
    order, other = of(bench.score(), cmd.PlaceOrder)
    bench.update(other, "CANCELLED")
    bench.update(order, "UNKNOWN")
    for _ in range(120):
        bench.tell(ev.Timer, after_ns=SECOND_NS)
    queries = [c for c in of(bench.log, cmd.QueryOrder) if c.client_order_id == order.client_order_id]
    assert len(queries) == execution.max_queries
    assert "ORDER_QUERIES_EXHAUSTED" in audits(bench.log)
    assert (
        sum(1 for c in of(bench.log, cmd.Notify) if c.kind == "ORDER_UNKNOWN" and "terminal" in c.text) == 1
    )
    assert bench.engine.holds.get("ORDER_UNKNOWN", "AAA") is not None


def test_executed_lots_without_their_deals_are_asked_for_and_block_the_instrument() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    bench.update(order, "FILLED", order.lots)
    assert bench.lots() == 0
    commands = bench.tell(ev.Timer, after_ns=2 * SECOND_NS)
    assert of(commands, cmd.QueryOrder) and bench.engine.holds.get("ORDER_UNKNOWN", "AAA") is not None
    bench.update(order, "FILLED", order.lots, [ev.FillInfo("d", 30_001, order.lots, 0)])
    assert bench.lots() == order.lots
    assert bench.engine.holds.get("ORDER_UNKNOWN", "AAA") is None


def test_the_limit_rest_is_cancelled_after_order_timeout_ms() -> None:
    execution = ExecutionConfig(order_timeout_ns=1_500_000_000)
    bench = Bench.ready(config(execution=execution))
    market, limit = of(bench.score(), cmd.PlaceOrder)
    bench.fill(market)
    bench.update(limit, "NEW")
    assert not of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.CancelOrder)
    commands = bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert [(c.client_order_id, c.reason) for c in of(commands, cmd.CancelOrder)] == [
        (limit.client_order_id, "ORDER_TIMEOUT")
    ]
    assert not of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.CancelOrder)  # asked once, not every tick


def timed_out(action: str, filled: int = 0, held: bool = False) -> tuple[Bench, cmd.PlaceOrder, list[Any]]:
    """A split entry whose limit part got ``filled`` lots and was withdrawn for its time: (bench, limit, what
    the withdrawal led to). ``held``: a hold came in between."""
    execution = ExecutionConfig(order_timeout_ns=1_500_000_000, timeout_action=action)
    bench = Bench.ready(config(execution=execution))
    market, limit = of(bench.score(), cmd.PlaceOrder)
    bench.fill(market)
    fills = [ev.FillInfo("part", limit.price_ticks, filled, 0)] if filled else []
    bench.update(limit, "PARTIAL" if filled else "NEW", filled, fills)
    (asked,) = of(bench.tell(ev.Timer, after_ns=2 * SECOND_NS), cmd.CancelOrder)
    assert asked.client_order_id == limit.client_order_id
    if held:
        bench.tell(ev.Override, True, "lunch")
    return bench, limit, bench.update(limit, "CANCELLED", filled)


@given(st.integers(0, 9))
def test_the_limit_rest_timed_out_goes_to_market_where_the_configuration_says_so(filled: int) -> None:
    bench, limit, commands = timed_out("market", filled)
    planned = sum(order.lots for order in bench.orders()[:2])
    (rest,) = of(commands, cmd.PlaceOrder)
    assert (rest.order_type, rest.tif, rest.reason) == ("market", "fak", "ORDER_TIMEOUT")
    assert (rest.side, rest.trace_id, rest.reduce_only) == (limit.side, limit.trace_id, False)
    assert rest.lots == limit.lots - filled
    bench.fill(rest)
    assert bench.lots() == planned
    assert not of(bench.tell(ev.Timer, after_ns=SECOND_NS), cmd.PlaceOrder)  # once


def test_by_default_a_limit_rest_timed_out_is_left_at_that() -> None:
    _, _, commands = timed_out("cancel")
    assert not of(commands, cmd.PlaceOrder)


def test_a_rest_goes_to_market_under_the_limits_of_that_moment_only() -> None:
    bench, _, commands = timed_out("market", held=True)
    assert not of(commands, cmd.PlaceOrder)
    assert bench.engine.refusals["HOLD_MANUAL_OVERRIDE"] == 1
    # What is held and the rest together would lose more than the budget at the stop, now that the price ran.
    execution = ExecutionConfig(order_timeout_ns=1_500_000_000, timeout_action="market")
    bench = Bench.ready(config(execution=execution, risk=RiskConfig(atr_min_bars=1, max_position_lots=10**6)))
    market, limit = of(bench.score(), cmd.PlaceOrder)
    bench.fill(market)
    bench.update(limit, "NEW")
    budget, stop = bench.engine.config.risk.risk_budget_nano, bench.engine.stops["AAA"]
    bench.book(bid=MID + 5)
    bench.tell(ev.Timer, after_ns=2 * SECOND_NS)
    placed = of(bench.update(limit, "CANCELLED"), cmd.PlaceOrder)
    loss = loss_per_lot_nano(bench.engine.instruments["AAA"], MID + 7, stop, 50)
    assert sum(order.lots for order in placed) == max(0, min(limit.lots, budget // loss - market.lots))


@pytest.mark.parametrize("seconds", [4, 5, 7])
def test_a_rest_whose_withdrawal_is_confirmed_late_stays_unsent_under_a_name(seconds: int) -> None:
    """Its signal is stale: the market may be anywhere by then. 1.5 s for the order and 5 s for the answer."""
    execution = ExecutionConfig(order_timeout_ns=1_500_000_000, timeout_action="market")
    bench = Bench.ready(config(execution=execution))
    market, limit = of(bench.score(), cmd.PlaceOrder)
    bench.fill(market)
    bench.update(limit, "NEW")
    bench.tell(ev.Timer, after_ns=2 * SECOND_NS)
    bench.book(after_ns=seconds * SECOND_NS)
    commands = bench.update(limit, "CANCELLED")
    late = seconds >= 5
    assert bool([o for o in of(commands, cmd.PlaceOrder) if o.reason == "ORDER_TIMEOUT"]) is not late
    assert bench.engine.refusals.get("LATE_REST", 0) == late


def test_a_rest_whose_outcome_was_unknown_is_given_up() -> None:
    """The cancel's answer is lost, and the query says at last that it was withdrawn."""
    execution = ExecutionConfig(order_timeout_ns=1_500_000_000, timeout_action="market")
    bench = Bench.ready(config(execution=execution))
    market, limit = of(bench.score(), cmd.PlaceOrder)
    bench.fill(market)
    bench.update(limit, "NEW")
    bench.tell(ev.Timer, after_ns=2 * SECOND_NS)
    commands = bench.update(limit, "UNKNOWN")
    assert "REST_GIVEN_UP" in audits(commands) and of(commands, cmd.QueryOrder)
    assert not of(bench.update(limit, "CANCELLED"), cmd.PlaceOrder)
    assert "LATE_REST" not in bench.engine.refusals


def test_an_order_that_is_not_ours_is_reported_and_asks_for_a_reconciliation() -> None:
    bench = Bench.ready()
    commands = bench.tell(ev.OrderUpdate, "someone-elses", "x", "FILLED", 3, (ev.FillInfo("z", 1, 3, 0),))
    assert "FOREIGN_ORDER" in audits(commands) and of(commands, cmd.RequestReconcile)
    assert bench.lots() == 0


def test_a_deal_without_lots_is_an_impossible_event() -> None:
    bench = Bench.ready()
    order = of(bench.score(), cmd.PlaceOrder)[0]
    with pytest.raises(ImpossibleEvent):
        bench.update(order, "PARTIAL", 1, [ev.FillInfo("d", 30_001, 0, 0)])


def test_a_streak_of_rejections_pauses_entries_and_lifts_by_time() -> None:
    bench = Bench.ready()
    limit = bench.engine.config.risk.reject_streak_limit
    for _ in range(limit):
        for order in of(bench.score(), cmd.PlaceOrder):
            bench.update(order, "REJECTED", reason="no money")
    assert bench.engine.holds.get("REJECT_STREAK") is not None
    assert not of(bench.score(), cmd.PlaceOrder)
    bench.tell(ev.Timer, after_ns=bench.engine.config.risk.reject_pause_ns)
    assert bench.engine.holds.get("REJECT_STREAK") is None


def test_client_order_ids_are_deterministic_and_never_repeat() -> None:
    one, two = Bench.ready(), Bench.ready()
    for bench in (one, two):
        for move in (50_000, -50_000):
            bench.enter(move)
            bench.tell(ev.Timer, after_ns=SECOND_NS * 200)
    assert [o.client_order_id for o in one.orders()] == [o.client_order_id for o in two.orders()]
    assert len({o.client_order_id for o in one.orders()}) == len(one.orders()) > 2
