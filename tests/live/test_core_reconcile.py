"""Reconciliation: cash that moves by itself is told; foreign orders and positions are left alone."""

from __future__ import annotations

from core_bench import SECOND_NS, Bench, audits, of

from live.core import commands as cmd
from live.core import events as ev
from market.types import NANO


def read(bench: Bench, cash_rub: int, after_s: int = 60, **positions: int) -> list[cmd.Command]:
    return bench.tell(ev.Reconciled, positions, (), cash_rub * NANO, after_ns=after_s * SECOND_NS)


def test_reconcile_every_n_seconds_including_cash_tells_of_cash_that_moved_without_a_deal_of_ours() -> None:
    bench = Bench.ready()
    assert "CASH_MOVED" not in audits(read(bench, 0))
    commands = read(bench, -100_000)
    (line,) = [c for c in of(commands, cmd.Audit) if c.event == "CASH_MOVED"]
    assert line.fields["by_nano"] == -100_000 * NANO
    assert [n.kind for n in of(commands, cmd.Notify)] == ["CASH_MOVED"]
    assert bench.engine.holds.worst("AAA") is None  # it is told, it stops nothing


def test_our_own_deals_move_cash_and_say_nothing() -> None:
    bench = Bench.ready()
    bench.enter()
    commands = read(bench, -500_000, after_s=1, AAA=bench.lots())
    assert "CASH_MOVED" not in audits(commands)


def test_foreign_orders_and_positions_in_other_instruments_are_left_alone() -> None:
    bench = Bench.ready()
    foreign = ev.OpenOrder("theirs", "x", "ZZZ", 1, 5, 0)
    commands = bench.tell(ev.Reconciled, {"ZZZ": 40}, (foreign,), 0, after_ns=SECOND_NS)
    assert not of(commands, cmd.CancelOrder) and not of(commands, cmd.PlaceOrder)
    assert bench.engine.holds.worst("AAA") is None


def test_a_foreign_order_in_our_instrument_is_never_cancelled_it_holds_the_instrument() -> None:
    bench = Bench.ready()
    foreign = ev.OpenOrder("theirs", "x", "AAA", 1, 5, 0)
    commands = bench.tell(ev.Reconciled, {}, (foreign,), 0, after_ns=SECOND_NS)
    assert not of(commands, cmd.CancelOrder)
    assert bench.engine.holds.get("POSITION_MISMATCH", "AAA") is not None


def test_a_stop_that_a_crash_left_behind_is_cancelled_when_flat() -> None:
    from core_bench import START_NS, config

    from live.core.config import ExecutionConfig

    bench = Bench.make(config(execution=ExecutionConfig(exchange_stop=True)))
    bench.tell(
        ev.KnownOrder,
        "left",
        "t",
        "AAA",
        -1,
        3,
        "stop",
        29_000,
        "STOP",
        "EXCHANGE_STOP",
        START_NS,
        after_ns=0,
    )
    bench.tell(ev.Reconciled, {}, after_ns=0)
    commands = bench.tell(ev.OrderUpdate, "left", "stop-1", "NEW")
    assert [c.client_order_id for c in of(commands, cmd.CancelOrder)] == ["left"]
