"""The loop around the engine: reads before it decides, sends before it writes up, and leaves nothing out."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from core_bench import KEY, MID, Bench, config, model
from test_executor import Broker

from live import interpreter
from live import storage as storage_
from live.audit import AuditLog
from live.audit import read as read_audit
from live.clock import MarketClock
from live.config_schema import Notifications
from live.core import events as ev
from live.core.commands import PlaceOrder
from live.data_engine import DataEngine
from live.executor import Executor
from live.inbox import CONFLATE_ABOVE, Inbox
from live.journal import Header, JournalReader, JournalWriter
from live.latency import Latencies
from live.ledger import Ledger
from live.loop import EngineLoop
from live.notify import Notifier
from live.pipeline import SignalPipeline
from live.storage import Storage
from market.types import SECOND_NS


class Silent:
    """A score model that never says anything."""

    def step(self, ticker: str, x: Any) -> None:
        return None

    def reset(self, ticker: str) -> None: ...

    def use_only(self, names: Any) -> None: ...


class Watched(EngineLoop):
    """Notes which books were decided on, and how many newer ones were posted by then."""

    decided: list[tuple[int, int]]
    takes_s = 0.0

    def _book(self, book: ev.Book, arrived_ns: int) -> None:
        self.decided.append((book.now_ns, self.inbox.posted))
        time.sleep(self.takes_s)
        super()._book(book, arrived_ns)


class Room:
    """An engine ready to trade, in its loop, with real parts but for the broker."""

    running: asyncio.Task[None]

    def __init__(self, folder: Path) -> None:
        self.bench = Bench.ready()
        self.engine = engine = self.bench.engine
        self.storage = Storage.open(folder / "scalper.db", folder / "fallback.jsonl")
        self.audit = AuditLog(folder / "audit.log", "s1")
        self.notifier = Notifier(Notifications())
        self.broker = Broker(folder / "scalper.db")
        self.tasks: list[asyncio.Task[None]] = []
        ledger, latencies = Ledger(engine.instruments), Latencies()
        self.inbox = Inbox(5_000)
        executor = Executor(
            desk=self.broker, storage=self.storage, audit=self.audit, notifier=self.notifier, ledger=ledger,
            latencies=latencies, clock=MarketClock(self.bench.now_ns), instruments=engine.instruments,
            session_id="s1", post=lambda event: None, spawn=self._spawn, want_reconcile=lambda reason: None,
            shadow=False,
        )  # fmt: skip
        header = Header("s1", KEY, config(), dict(engine.instruments), model(), "SIMULATED")
        journal = JournalWriter(folder / "session", header)
        pipeline = SignalPipeline(engine.instruments, Silent(), KEY)
        data = DataEngine(engine.instruments, ttl_ns=SECOND_NS, ring_length=64)
        self.loop = Watched(self.inbox, engine, pipeline, journal, executor, ledger, latencies, data)
        self.loop.decided = []

    def _spawn(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(body, name=name))
        return self.tasks[-1]

    def book(self, ticker: str = "AAA") -> ev.Book:
        self.bench.now_ns += SECOND_NS // 1000
        now_ns = self.bench.now_ns
        return ev.Book(now_ns, ticker, now_ns, (MID - 1, MID - 2), (9, 9), (MID + 1, MID + 2), (9, 9))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)

    def close(self) -> None:
        self.loop.journal.close()
        self.storage.close()
        self.audit.close()
        self.notifier.close()


@pytest.fixture
def play(tmp_path: Path):
    rooms: list[Room] = []

    def run(work: Callable[[Room], Coroutine[Any, Any, None]]) -> Room:
        async def whole() -> None:
            rooms.append(room := Room(tmp_path))
            room.running = asyncio.create_task(room.loop.run())
            await work(room)
            room.running.cancel()
            await asyncio.gather(room.running, return_exceptions=True)
            await asyncio.gather(*room.tasks)

        asyncio.run(whole())
        return rooms[-1]

    yield run
    for room in rooms:
        room.close()


def test_who_falls_behind_reads_on_and_is_with_the_newest_book_again(play):
    """Sockets that give one message in every third turn: what was read meanwhile makes way for the newest."""
    sent = 600

    async def work(room: Room) -> None:
        posted: list[int] = []
        room.loop.takes_s = 0.002
        for _ in range(sent):
            for _ in range(3):
                await asyncio.sleep(0)
            book = room.book()
            posted.append(book.now_ns)
            room.inbox.post(book)
        await room.until(lambda: not len(room.inbox))
        behind = [newest - 1 - posted.index(now_ns) for now_ns, newest in room.loop.decided]
        assert max(behind) <= CONFLATE_ABOVE
        assert room.loop.decided[-1][0] == posted[-1]
        assert len(behind) + room.inbox.conflated == sent
        assert len(behind) < sent / 2

    play(work)


def test_the_request_leaves_before_anything_is_written_up(play, monkeypatch, tmp_path):
    monkeypatch.setattr(storage_, "PATIENCE_S", 60.0)
    audited: list[int] = []

    async def work(room: Room) -> None:
        place = room.broker.place

        async def noted(order: PlaceOrder, instrument: Any) -> Any:
            audited.append(sum(1 for _ in read_audit(tmp_path / "audit.log")))
            return await place(order, instrument)

        room.broker.place = noted  # type: ignore[method-assign]
        now_ns = room.bench.now_ns + 1
        room.inbox.post(ev.Scores(now_ns, "AAA", "t-1", (0, 0, 1_000_000), 50_000))
        await room.until(lambda: room.loop.ledger.counts["orders"])

    room = play(work)
    assert audited and set(audited) == {0}
    assert set(room.broker.on_disk) == {"INTENT"}
    events = [line.event for line in read_audit(tmp_path / "audit.log")]
    assert {"ORDER_PLAN", "ORDER_PLACED"} <= set(events)


def test_a_stop_in_the_middle_leaves_nothing_unwritten(play, monkeypatch, tmp_path):
    """Cancelled while the orders get their turns: records, audit lines and the journal are still written."""
    monkeypatch.setattr(storage_, "PATIENCE_S", 60.0)

    async def work(room: Room) -> None:
        send = room.loop.executor.send

        def stopping(commands: Any, arrived_ns: int) -> None:
            send(commands, arrived_ns)
            if room.loop.executor.started:
                room.running.cancel()

        room.loop.executor.send = stopping  # type: ignore[method-assign]
        room.inbox.post(ev.Scores(room.bench.now_ns + 1, "AAA", "t-1", (0, 0, 1_000_000), 50_000))
        await room.until(room.running.done)

    room = play(work)
    assert room.loop.ledger.counts["orders"] >= 1
    assert "ORDER_PLACED" in {line.event for line in read_audit(tmp_path / "audit.log")}
    room.loop.journal.flush()
    assert any(isinstance(record, PlaceOrder) for record in JournalReader(tmp_path / "session"))


# ---- the interpreter


def test_the_interpreter_is_as_it_was_after_the_loop_ends(play):
    interval_s = sys.getswitchinterval()

    async def work(room: Room) -> None:
        room.inbox.post(room.book())
        await room.until(lambda: room.loop.ledger.counts["books"])
        assert not gc.isenabled()
        assert sys.getswitchinterval() == pytest.approx(interpreter.SWITCH_S)

    play(work)
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(interval_s)


class Knot:
    def __init__(self) -> None:
        self.self = self


@pytest.mark.parametrize(("idle", "times", "collected"), [(True, 1, True), (False, 1, False),
                                                          (False, interpreter.HURRY, True)])  # fmt: skip
def test_garbage_is_collected_when_nothing_waits_and_never_put_off_for_ever(idle, times, collected):
    with interpreter.trading() as tidy:
        gc.collect()
        knot = Knot()
        gone = weakref.ref(knot)
        del knot
        kept = [[] for _ in range(interpreter.YOUNG * times + 1)]
        tidy(idle)
        assert (gone() is None) == collected
        del kept
