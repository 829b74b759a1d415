"""A trading day in seconds: whatever the runner remembers, it remembers a bounded number of.

The parts of a session as ``live.assembly`` puts them together, in shadow mode (no connection), with a second
model beside: pipeline, engine, executor, database, journal, audit, ledger. The named bounds are made small,
so that one day reaches them; then no collection may be longer in the second half of the day than in the
first.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import KEY
from sizes import sizes
from small_bundle import make_bundle, make_recording

import live.audit
import live.core.orders
import live.executor
import live.ledger
import live.shadow
import live.simbroker
import live.storage
from live import config as configuration
from live.audit import AuditLog
from live.beside import ShadowRun
from live.clock import MarketClock
from live.config_schema import Notifications
from live.core import events as ev
from live.core.engine import Engine
from live.data_engine import DataEngine
from live.executor import Executor
from live.inbox import Inbox
from live.journal import Header, JournalWriter
from live.latency import Latencies
from live.ledger import Ledger
from live.loop import EngineLoop
from live.notify import Notifier
from live.pipeline import SignalPipeline, model_params
from live.shadow import ShadowDesk
from live.simbroker import SimBroker
from live.storage import Storage
from live.why import SignalReasons
from market.recording import Recording
from market.types import SECOND_NS
from models.bundle import Bundle
from models.inference import Ensemble

HOURS = 6
"""Of a trading day."""
STEP_NS = 8 * SECOND_NS
"""Between two books of the first instrument: under the ten seconds that are a gap."""
OTHER_EVERY = 8
"""The second instrument has a book in so many steps: each is a gap, its models begin again and again."""
SMALL_BOUNDS = (
    (live.core.orders, "MAX_DONE_ORDERS"), (live.shadow, "MAX_FINISHED"), (live.simbroker, "MAX_FINISHED"),
    (live.executor, "MAX_EXCHANGE_IDS"), (live.ledger, "MAX_HOLDS_LISTED"), (live.audit, "MAX_TRACES"),
    (live.storage, "MAX_ACCEPTED"),
)  # fmt: skip
SMALL = 10
SLACK = 8
"""Of what comes and goes: working orders, their deals, holds."""
SETTINGS = [
    "session.enabled=false", "risk.atr_min_bars=1", "risk.loss_cooldown_minutes=0", "data.ring_length=50",
    "risk.max_consecutive_losses=1000", "risk.max_daily_loss=100000000", "risk.daily_loss_limit_pct=100",
    "monitoring.heartbeat_enabled=false", "system.latency_violation_limit=100000",
]  # fmt: skip


class Day:
    """A session without a process around it. ``leak`` is what a mistake would look like."""

    def __init__(self, recording: Recording, bundle: Bundle, folder: Path) -> None:
        config = configuration.load(None, SETTINGS)
        tickers = tuple(i.ticker for i in recording.info.instruments)
        instruments = {i.ticker: i for i in recording.info.instruments}
        fees = dict.fromkeys(tickers, 0)
        engine_config = configuration.engine_config(config, fees)
        ensemble = Ensemble(bundle, tickers)
        params = replace(model_params(ensemble), valid_until_ns=1 << 62)
        self.recording, self.tickers = recording, tickers
        self.start_ns = recording.read(tickers[0], recording.info.days[tickers[0]][0]).books.recv_ns[0]
        self.clock = MarketClock(int(self.start_ns))
        self.storage = Storage.open(folder / "scalper.db", folder / "signals.fallback.jsonl")
        self.audit = AuditLog(folder / "audit.log", "long")
        latency = configuration.backtest_latency(config.backtest)
        self.desk = ShadowDesk(instruments, fees, latency, self.clock)
        self.tasks: set[asyncio.Task[None]] = set()
        self.wanted: list[str] = []
        ledger, latencies, inbox = Ledger(instruments), Latencies(), Inbox(1_000)
        executor = Executor(
            desk=self.desk, storage=self.storage, audit=self.audit, notifier=Notifier(Notifications()),
            ledger=ledger, latencies=latencies, clock=self.clock, instruments=instruments, session_id="long",
            post=inbox.post, spawn=self._spawn, want_reconcile=self.wanted.append, shadow=True,
        )  # fmt: skip
        self.desk.on_report = executor.report
        pipeline = SignalPipeline(tickers, ensemble, KEY, clock_ns=time.monotonic_ns)
        engine = Engine(engine_config, instruments, params, KEY)
        journal = JournalWriter(folder, Header("long", KEY, engine_config, instruments, params, "SIMULATED"))
        data = DataEngine(instruments, ttl_ns=5 * SECOND_NS, ring_length=config.data.ring_length)
        self.loop = EngineLoop(
            inbox, engine, pipeline, journal, executor, ledger, latencies, data, self.desk,
            ShadowRun(
                "beside", Engine(engine_config, instruments, params, KEY.replace("1", "2")),
                SignalPipeline(tickers, Ensemble(bundle, tickers), KEY),
                SimBroker(instruments, fees, latency), folder / "beside.jsonl", failed=pytest.fail,
            ),
        )  # fmt: skip
        self.loop.watchers.append(SignalReasons(pipeline).on_commands)
        self.leak: list[int] = []
        self.loop.watchers.append(lambda commands: self.leak.append(len(commands)))

    def _spawn(self, body: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(body, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def events(self) -> Iterator[ev.Event]:
        """Books round and round, and everything else that a day brings, each again and again."""
        now_ns, wire = int(self.start_ns), itertools.count()
        days = {t: self.recording.read(t, self.recording.info.days[t][0]) for t in self.tickers}
        yield ev.Connection(now_ns, True)
        for step in range(HOURS * 3600 * SECOND_NS // STEP_NS):
            now_ns += STEP_NS
            for at, ticker in enumerate(self.tickers):
                if at == 0 or step % OTHER_EVERY == 0:
                    yield _book(days[ticker].books, step, now_ns, ticker)
                    yield ev.Trade(now_ns, ticker, now_ns, 30_000, 1, 1)
            yield ev.Timer(now_ns)
            match step % 100:
                case 20:
                    yield ev.Connection(now_ns, False, "primary", f"error {next(wire)}")
                case 21:
                    yield ev.Connection(now_ns, True)
                case 30 | 31:
                    yield ev.TradingStatus(now_ns, self.tickers[0], step % 100 == 31, "auction")
                case 40 | 41:
                    yield ev.Override(now_ns, step % 100 == 40, f"lunch {next(wire)}")
                case 50:
                    yield ev.Quarantine(now_ns, self.tickers[1], True, f"odd {next(wire)}")
                case 51:
                    yield ev.Quarantine(now_ns, self.tickers[1], False, "")
                case 60:
                    yield ev.StageLatency(now_ns, "ml", 60_000 + step)
                    yield ev.VolatilityIndex(now_ns, 9_000)
                    yield ev.Resume(now_ns, (), f"seen {next(wire)}")
                case 70:
                    yield ev.InferenceFailed(now_ns, self.tickers[0], f"t{step}", f"error {next(wire)}")
                case 80 | 81:
                    kept = self.tickers if step % 100 == 81 else self.tickers[:1]
                    yield ev.ActiveInstruments(now_ns, kept, "rotation")

    async def live(self) -> list[Counter[str]]:
        """Plays the day; the sizes of everything, once an hour."""
        found = []
        hour_ns = int(self.start_ns) + 3600 * SECOND_NS
        working = asyncio.create_task(self.loop.run())
        try:
            for event in self.events():
                self.clock.not_before(event.now_ns)
                self.loop.inbox.post(event)
                await self._settle(working)
                if event.now_ns >= hour_ns:
                    hour_ns += 3600 * SECOND_NS
                    self.loop.inbox.post(ev.Timer(event.now_ns))
                    await self._settle(working)
                    self.loop.journal.flush()  # lines wait for a second of the wall clock
                    found.append(sizes(self))
        finally:
            working.cancel()
            self.loop.journal.close()
            self.storage.close()
            self.audit.close()
        return found

    async def _settle(self, working: asyncio.Task[None]) -> None:
        """What is on its way arrives before the market goes on."""
        while len(self.loop.inbox) or self.tasks or self.wanted:
            assert not working.done(), working.exception()
            if self.wanted:
                self.wanted.clear()
                state = await self.desk.state()
                now_ns = self.clock.now_ns()
                self.loop.inbox.post(ev.Reconciled(now_ns, state.positions, state.open_orders, 0, now_ns))
            await asyncio.sleep(0)


def _book(books: Any, step: int, now_ns: int, ticker: str) -> ev.Book:
    row = step % len(books.recv_ns)
    sides = (books.bid_px, books.bid_qty, books.ask_px, books.ask_qty)
    bid_px, bid_qty, ask_px, ask_qty = (tuple(side[row].tolist()) for side in sides)
    return ev.Book(now_ns, ticker, now_ns, bid_px, bid_qty, ask_px, ask_qty)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Day, list[Counter[str]]]:
    folder = tmp_path_factory.mktemp("long")
    recording = make_recording(folder / "recording", 0.1)
    bundle = make_bundle(folder / "bundle", recording, folder / "keys", rounds=5)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in SMALL_BOUNDS:
            patch.setattr(module, name, SMALL)
        day = Day(recording, bundle, folder)
        return day, asyncio.run(day.live())


def grown(found: list[Counter[str]]) -> dict[str, tuple[int, int]]:
    """Paths that are longer in the second half of the day: (most in the first half, most in the second)."""
    half = len(found) // 2
    paths = {path for hour in found for path in hour}
    most = {p: (max(h[p] for h in found[:half]), max(h[p] for h in found[half:])) for p in paths}
    return {path: (before, after) for path, (before, after) in most.items() if after > before + SLACK}


def test_in_a_day_of_trading_nothing_grows_but_files(day: tuple[Day, list[Counter[str]]]) -> None:
    session, found = day
    counts = session.loop.ledger.counts
    assert len(found) >= HOURS - 1
    assert counts["orders"] > 20 * SMALL and counts["fills"] > 20 * SMALL
    assert session.loop.beside is not None and session.loop.beside.fills > 20 * SMALL
    assert {path: n for path, n in grown(found).items() if not path.startswith(".leak")} == {}


def test_what_grows_is_seen(day: tuple[Day, list[Counter[str]]]) -> None:
    _, found = day
    assert ".leak" in grown(found)
    everything = {path.rpartition(".")[2] for hour in found for path in hour}
    assert {"_by_id", "_exchange_ids", "_orders", "_finished", "_traces", "rows", "fed"} <= everything
