"""From a command to the broker: the intention on the disk first, in the commands' order, never stuck."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from core_bench import START_NS, instrument

from live import storage as storage_
from live.audit import AuditLog
from live.broker.client import AccountState, OrderReport
from live.clock import MarketClock
from live.config_schema import Notifications
from live.core.commands import Audit, CancelOrder, Command, PlaceOrder, RecordSignal
from live.core.events import Event, OrderUpdate
from live.executor import Executor
from live.latency import Latencies
from live.ledger import Ledger
from live.notify import Notifier
from live.storage import Storage

SHARE = instrument("SIMP")
NEVER_HURRIED_S = 60.0
"""Patience that a machine which stalls does not outlast."""


def order(key: str, trace: str = "t1") -> PlaceOrder:
    return PlaceOrder(trace, key, "SIMP", 1, 2, "market", None, "fak", False, "SIGNAL model")


def signal(trace: str) -> RecordSignal:
    return RecordSignal(
        START_NS, trace, "SIMP", 1, (0, 0, 1_000_000), 100, 10, 90, 1_000_000, "model", "ENTRY"
    )


class Broker:
    """An ``OrderDesk`` that notes what reached it, and what was on the disk by then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[str] = []
        self.on_disk: list[str | None] = []

    async def place(self, order: PlaceOrder, instrument: Any) -> OrderReport:
        self.calls.append(f"place {order.client_order_id}")
        with storage_.reader(self.path) as connection:
            sql = "SELECT status FROM orders WHERE client_order_id=?"
            row = connection.execute(sql, (order.client_order_id,)).fetchone()
        self.on_disk.append(row and row[0])
        return OrderReport(order.client_order_id, "NEW", f"x-{order.client_order_id}")

    async def cancel(self, client_order_id: str, exchange_order_id: str) -> OrderReport | None:
        self.calls.append(f"cancel {client_order_id} {exchange_order_id}")
        return None

    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport | None:
        self.calls.append(f"query {client_order_id}")
        return None

    async def state(self) -> AccountState:
        raise AssertionError("the executor reads no account")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.storage = Storage.open(folder / "scalper.db", folder / "fallback.jsonl")
        self.broker = Broker(folder / "scalper.db")
        self.audit = AuditLog(folder / "audit.log", "s1")
        self.notifier = Notifier(Notifications())
        self.posted: list[Event] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.executor = Executor(
            desk=self.broker, storage=self.storage, audit=self.audit, notifier=self.notifier,
            ledger=Ledger({"SIMP": SHARE}), latencies=Latencies(), clock=MarketClock(START_NS),
            instruments={"SIMP": SHARE}, session_id="s1", post=self.posted.append, spawn=self._spawn,
            want_reconcile=lambda reason: None, shadow=False,
        )  # fmt: skip

    def _spawn(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(body, name=name))
        return self.tasks[-1]

    def carry_out(self, *commands: Command) -> None:
        self.executor.send(list(commands), 0)
        self.executor.record(list(commands))

    async def all_done(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*self.tasks)

    @property
    def updates(self) -> list[tuple[str, str]]:
        return [(e.client_order_id, e.status) for e in self.posted if isinstance(e, OrderUpdate)]


@pytest.fixture
def play(tmp_path: Path):
    benches: list[Bench] = []

    def run(work: Callable[[Bench], Coroutine[Any, Any, None]]) -> Bench:
        benches.append(bench := Bench(tmp_path))
        asyncio.run(work(bench))
        return bench

    yield run
    for bench in benches:
        bench.storage.close()
        bench.audit.close()
        bench.notifier.close()


def test_the_request_leaves_in_the_next_turn_with_its_intention_on_the_disk(play, monkeypatch):
    monkeypatch.setattr(storage_, "PATIENCE_S", NEVER_HURRIED_S)

    async def work(bench: Bench) -> None:
        bench.carry_out(
            signal("t1"), order("a"), Audit(START_NS, "ORDER", "ORDER_PLACED", {"trace_id": "t1"})
        )
        assert bench.executor.started
        await asyncio.sleep(0)
        assert bench.broker.calls == ["place a"]
        await bench.all_done()

    bench = play(work)
    assert bench.broker.on_disk == ["INTENT"]
    assert bench.updates == [("a", "NEW")]


def test_calls_reach_the_broker_in_the_order_of_the_commands(play, monkeypatch):
    monkeypatch.setattr(storage_, "PATIENCE_S", NEVER_HURRIED_S)

    async def work(bench: Bench) -> None:
        bench.carry_out(order("a"))
        await bench.all_done()
        bench.carry_out(CancelOrder("a", "HORIZON"), order("b"), order("c"))
        await bench.all_done()

    bench = play(work)
    assert bench.broker.calls == ["place a", "cancel a x-a", "place b", "place c"]
    assert bench.broker.on_disk == ["INTENT"] * 3


def test_an_order_is_cancelled_only_after_it_was_sent(play):
    async def work(bench: Bench) -> None:
        bench.carry_out(order("a"), CancelOrder("a", "changed its mind"))
        await bench.all_done()

    assert play(work).broker.calls == ["place a", "cancel a x-a"]


def test_a_disk_that_hangs_holds_nothing_but_the_order(play, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_, "BUSY_TIMEOUT_MS", 60_000)

    async def work(bench: Bench) -> None:
        blocker = sqlite3.connect(tmp_path / "scalper.db", isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN IMMEDIATE")  # the writer waits for it, as for a flush that does not return
        bench.carry_out(order("a"))
        assert bench.broker.calls == []  # and yet we are here
        bench.carry_out(signal("t2"))
        await asyncio.sleep(0.05)
        assert bench.broker.calls == []
        blocker.execute("ROLLBACK")
        blocker.close()
        await bench.all_done()

    bench = play(work)
    assert bench.broker.calls == ["place a"]
    assert bench.broker.on_disk == ["INTENT"]


def test_an_intention_that_nothing_takes_is_not_sent_and_is_told(play, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_, "BUSY_TIMEOUT_MS", 50)

    async def work(bench: Bench) -> None:
        (tmp_path / "fallback.jsonl").mkdir()
        blocker = sqlite3.connect(tmp_path / "scalper.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        bench.carry_out(order("a"))
        await bench.all_done()
        blocker.close()
        (tmp_path / "fallback.jsonl").rmdir()

    bench = play(work)
    assert bench.broker.calls == []
    assert bench.updates == [("a", "REJECTED")]
    assert "INTENT_NOT_WRITTEN" in (tmp_path / "audit.log").read_text()


def test_an_order_that_was_written_before_is_not_sent_again_and_the_other_one_is(play):
    async def work(bench: Bench) -> None:
        bench.carry_out(order("a"))
        await bench.all_done()
        bench.carry_out(order("a"), order("b"))
        await bench.all_done()

    bench = play(work)
    assert bench.broker.calls == ["place a", "place b"]
    assert bench.updates == [("a", "NEW"), ("a", "REJECTED"), ("b", "NEW")]


def test_a_full_queue_refuses_intentions_and_counts_records(play, monkeypatch):
    monkeypatch.setattr(storage_, "MAX_QUEUE", 0)

    async def work(bench: Bench) -> None:
        bench.carry_out(signal("t1"), order("a"))
        await bench.all_done()
        assert bench.storage.lost == 1

    bench = play(work)
    assert bench.broker.calls == []
    assert bench.updates == [("a", "REJECTED")]
