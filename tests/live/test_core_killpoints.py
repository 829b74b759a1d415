"""The process is killed at every point that matters to an order, and started again from what was on disk.

On disk is what the runner keeps there: a checkpoint now and then, every intention before it is sent, the
states of orders as they came. The broker's own ledger says afterwards whether a deal was lost or doubled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from core_bench import KEY, SECOND_NS, Bench, of
from core_world import EVENING_NS, INSTRUMENTS, World, market

from live.core import commands as cmd
from live.core import events as ev
from live.core.engine import Engine
from live.storage import FINAL_STATUSES

BEGIN_NS = EVENING_NS + 50 * SECOND_NS
"""Ten seconds before the minute is full: with its bar trading begins."""
SECONDS = 60
POINTS = range(1, 40, 5)
CHECKPOINT_EVENTS = 25
SETTLE_NS = 90 * SECOND_NS
"""Long enough for every query and reconciliation that a restart asks for."""


class Killed(Exception):
    """SIGKILL: nothing after this point happened in the process."""


@dataclass
class KillableWorld(World):
    """``kill``: (kind, n): before or after the n-th order is sent, or before the n-th answer is heard."""

    kill: tuple[str, int] = ("", 0)
    disk: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: int = 0
    heard: int = 0
    starts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.checkpoint = json.dumps(self.engine.snapshot())

    def _news(self, update: ev.OrderUpdate) -> None:
        self.heard += 1
        self._die("answer", self.heard)
        super()._news(update)

    def _die(self, kind: str, n: int) -> None:
        if self.kill == (kind, n):
            self.kill = ("", 0)
            raise Killed

    def tell(self, event: ev.Event) -> list[cmd.Command]:
        self.told += 1
        commands = self.engine.on(event)
        self.log += commands
        for command in commands:
            if isinstance(command, cmd.PlaceOrder):
                self._place(command, event.now_ns)
            elif isinstance(command, cmd.OrderChanged):
                row = self.disk[command.client_order_id]
                row["status"], row["updated_ns"] = command.status, event.now_ns
            elif isinstance(command, cmd.CancelOrder | cmd.QueryOrder):
                self.broker.send(command, event.now_ns)
        if any(isinstance(command, cmd.RequestReconcile) for command in commands):
            self.reconcile()
        if self.told % CHECKPOINT_EVENTS == 0:
            self.checkpoint = json.dumps(self.engine.snapshot())
        return commands

    def _place(self, order: cmd.PlaceOrder, now_ns: int) -> None:
        assert order.client_order_id not in self.disk  # an id is an intention, once and for ever
        self.disk[order.client_order_id] = {
            "order": order, "created_ns": now_ns, "updated_ns": now_ns, "status": "INTENT",
        }  # fmt: skip
        self.sent += 1
        self._die("before", self.sent)
        self.broker.send(order, now_ns)
        self._die("after", self.sent)

    def start_again(self) -> None:
        """As ``live.assembly`` and ``live.takeover`` do it."""
        self.starts += 1
        body = json.loads(self.checkpoint)
        self.engine = Engine(self.settings, INSTRUMENTS, self.params, f"{self.starts:08x}{KEY[8:]}")
        self.engine.restore(body)
        now_ns = self.now_ns = max(self.now_ns, self.engine.now_ns)
        self._timer_ns = max(self._timer_ns, now_ns)
        for key, row in list(self.disk.items()):
            order, status = row["order"], row["status"]
            moved = row["updated_ns"] >= body["now_ns"] and status in ("FILLED", "CANCELLED")
            if status in FINAL_STATUSES and not moved:
                continue
            role = "STOP" if order.order_type == "stop" else "EXIT" if order.reduce_only else "ENTRY"
            self.tell(
                ev.KnownOrder(
                    now_ns, key, order.trace_id, order.ticker, order.side, order.lots, order.order_type,
                    order.price_ticks, role, order.reason, row["created_ns"],
                )
            )  # fmt: skip
        self.tell(ev.Connection(now_ns, True))
        self.reconcile()


def live_through(kind: str, n: int) -> KillableWorld:
    """A short market with one death in it, then quiet until everything is known."""
    world = KillableWorld(now_ns=BEGIN_NS, kill=(kind, n))
    world.tell(ev.Connection(BEGIN_NS, True))
    world.reconcile()
    for event in market(BEGIN_NS, SECONDS):
        try:
            world.see(event)
        except Killed:
            world.start_again()
    world.tell(ev.StopRequested(world.engine.now_ns, "the end", True))
    end_ns = world.engine.now_ns + SETTLE_NS
    while world.engine.now_ns < end_ns:
        world.until(world.now_ns + 30 * SECOND_NS)
        world.reconcile()
    return world


def broker_cash_nano(world: World) -> int:
    """What the broker's ledger says that trading brought, fees included."""
    cash = 0
    for account in world.broker._accounts.values():
        for deal in account.fills:
            instrument = INSTRUMENTS[account.order.ticker]
            cash -= account.order.side * instrument.notional_nano(deal.price_ticks, deal.lots) + deal.fee_nano
    return cash


@pytest.mark.parametrize("kind", ["before", "after", "answer"])
def test_killed_at_any_point_of_an_order_nothing_is_lost_doubled_or_invented(kind: str) -> None:
    died = 0
    for n in POINTS:
        world = live_through(kind, n)
        died += world.starts
        where = f"killed {kind} number {n}"
        ours = {ticker: position.lots for ticker, position in world.engine.positions.items()}
        assert ours == world.broker.positions == {"AAA": 0, "FUT": 0}, where
        positions = world.engine.positions.values()
        assert sum(p.realised_nano - p.fees_nano for p in positions) == broker_cash_nano(world), where
        assert {h.name for h in world.engine.holds} <= {"STOP_REQUESTED", "HEARTBEAT"}, where
        assert not world.engine.orders.all_working(), where
        reached = {a.order.client_order_id for a in world.broker._accounts.values()}
        never = set(world.disk) - reached
        assert len(never) == (world.starts if kind == "before" else 0), where  # sent never, and never later
    assert died == len(POINTS)


def test_an_order_placed_in_the_very_nanosecond_of_the_checkpoint_is_not_taken_for_an_old_one() -> None:
    """Events of one moment share their time: the checkpoint may lie between the book and its score."""
    bench = Bench.ready()
    bench.book(after_ns=0)
    snapshot = json.loads(json.dumps(bench.engine.snapshot()))
    p_e6 = (100_000, 200_000, 700_000)
    commands = bench.tell(ev.Scores, "AAA", "t-1", p_e6, 50_000, after_ns=0)
    order = of(commands, cmd.PlaceOrder)[0]
    engine = Engine(bench.engine.config, bench.engine.instruments, bench.engine.model, KEY.replace("1", "2"))
    engine.restore(snapshot)
    known = ev.KnownOrder(
        bench.now_ns, order.client_order_id, "t-1", "AAA", order.side, order.lots, order.order_type,
        order.price_ticks, "ENTRY", order.reason, bench.now_ns,
    )  # fmt: skip
    asked = of(engine.on(known), cmd.QueryOrder)
    assert [query.client_order_id for query in asked] == [order.client_order_id]
