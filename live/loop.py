"""One event at a time: journal, pipeline, engine, executor. The only place that calls the engine while
trading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from live import interpreter
from live.beside import ShadowRun
from live.core.commands import Command
from live.core.engine import Engine
from live.core.events import (
    ActiveInstruments,
    Book,
    Connection,
    Event,
    ModelSwapped,
    PipelineMode,
    PipelineReset,
    StageLatency,
    Trade,
    TradingStatus,
)
from live.core.orders import NEW
from live.data_engine import DataEngine
from live.executor import Executor
from live.inbox import Inbox
from live.journal import JournalWriter
from live.latency import Latencies
from live.ledger import Ledger
from live.pipeline import ScoreModel, SignalPipeline
from live.shadow import ShadowDesk

TURNS_TO_WIRE = 2
"""Turns of the event loop from a started call of the broker until gRPC has the request."""
QUIET_TURNS = 4
"""Turns in which nothing arrives, after which the sockets hold nothing more: a message needs three."""


@dataclass(slots=True)
class EngineLoop:
    """Feeds ``engine`` from ``inbox`` in arrival order; ``live.replay`` repeats exactly this from the
    journal.
    """

    inbox: Inbox
    engine: Engine
    pipeline: SignalPipeline
    journal: JournalWriter
    executor: Executor
    ledger: Ledger
    latencies: Latencies
    data: DataEngine
    shadow: ShadowDesk | None = None
    beside: ShadowRun | None = None
    """A shadow model that scores beside the live one."""
    on_model_error: Callable[[ScoreModel, Exception], None] | None = None
    watchers: list[Callable[[list[Command]], None]] = field(default_factory=list)
    """Who else wants to know every decision: the recording, the reasons of the last signals."""
    not_tradable: set[str] = field(default_factory=set)
    last_book_mono_ns: int = 0
    decided_mono_ns: int = 0
    """When the engine had decided on the last book; its orders leave after that."""
    next_model: ScoreModel | None = None
    """The verified ensemble that the next ``ModelSwapped`` event puts to work."""
    signals_before: int = 0
    refusals_before: dict[str, int] = field(default_factory=dict)
    """Counters that the checkpoint brought along; they belong to earlier sessions."""
    busy_ns: int = 0
    """Time spent handling events, since the start: the load that adaptive flushing looks at."""
    _unrecorded: list[Command] = field(default_factory=list)
    """What the event in hand led to, started where it is for the broker, and told to nobody yet."""
    _slow: set[str] = field(default_factory=set)
    _timed: list[tuple[str, int]] = field(default_factory=list)
    """Stages of the last book and the microseconds that they took, not counted yet."""

    def __post_init__(self) -> None:
        self.signals_before, self.refusals_before = self.engine.signals, dict(self.engine.refusals)

    async def run(self) -> None:
        """For ever. Reading comes before deciding: what nobody has read cannot give way to what is newer."""
        with interpreter.trading() as tidy:
            while True:
                arrived_ns, event = await self.inbox.get()
                started_ns = time.monotonic_ns()
                try:
                    self.decide(event, arrived_ns)
                    if self.executor.started:
                        self.executor.started = False
                        for _ in range(TURNS_TO_WIRE):
                            await asyncio.sleep(0)
                finally:
                    self.write_up(event)
                spent_ns = time.monotonic_ns() - started_ns
                self.busy_ns += spent_ns
                await self._read_on(spent_ns)
                tidy(not len(self.inbox))

    async def _read_on(self, spent_ns: int) -> None:
        """Gives the sockets turns until nothing more arrives, and no longer than the event took: a flood of
        trades, which cannot be skipped, must not keep the engine from them.
        """
        quiet, posted, until_ns = 0, self.inbox.posted, time.monotonic_ns() + spent_ns
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            if time.monotonic_ns() > until_ns:
                return
            quiet = quiet + 1 if self.inbox.posted == posted else 0
            posted = self.inbox.posted

    def decide(self, event: Event, arrived_ns: int) -> None:
        """Takes one event and starts what is to be done about it. ``arrived_ns``: monotonic time of its
        arrival.
        """
        if isinstance(event, Book):
            self._book(event, arrived_ns)
        else:
            self._other(event, arrived_ns)

    def write_up(self, event: Event) -> None:
        """What can wait until the orders are on their way: records, counters, the shadow model, the journal's
        lines.
        """
        if self._unrecorded:
            commands, self._unrecorded = self._unrecorded, []
            self.executor.record(commands)
            for watcher in self.watchers:
                watcher(commands)
        if isinstance(event, Book):
            self.ledger.on_book(event)
            self.data.on_book(event)
            for stage, micros in self._timed:
                self.latencies.add(stage, micros)
            self._timed.clear()
        if self.beside is not None:
            self.beside.take(event)
        self.journal.write()

    def _other(self, event: Event, arrived_ns: int) -> None:
        if isinstance(event, Trade):
            self.ledger.counts["trades"] += 1
            self.data.on_trade(event)
            if self.shadow is not None:
                self.shadow.on_trade(event)
        self._feed(event, arrived_ns)
        self._steer(event, arrived_ns)
        if self.shadow is not None:
            self.shadow.on_time(event.now_ns)

    def _steer(self, event: Event, arrived_ns: int) -> None:
        """What an event other than a book means for the pipeline; after the engine, as in replay."""
        if isinstance(event, Trade):
            self.pipeline.on_trade(event)
        elif isinstance(event, TradingStatus):
            (self.not_tradable.discard if event.tradable else self.not_tradable.add)(event.ticker)
        elif isinstance(event, Connection) and not event.up:
            # Books were missed: windows and model states over the gap would be inventions.
            reset = PipelineReset(event.now_ns, "*", "the stream was interrupted")
            self._feed(reset, arrived_ns)
            self.pipeline.reset()
        elif isinstance(event, PipelineReset):
            self.pipeline.reset(event.ticker)
        elif isinstance(event, ActiveInstruments):
            self.pipeline.rotate(self.engine.rotated_out)
        elif isinstance(event, PipelineMode):
            self.pipeline.set_mode(event.members, event.min_interval_ns)
        elif isinstance(event, ModelSwapped) and self.next_model is not None:
            self.pipeline.swap(self.next_model)
            self.next_model = None

    def _book(self, book: Book, arrived_ns: int) -> None:
        clock, timed = time.monotonic_ns, self._timed
        timed.append(("queue", (clock() - arrived_ns) // 1000))
        self.last_book_mono_ns = arrived_ns
        if self.shadow is not None:
            self.shadow.on_book(book)
        self._feed(book, arrived_ns)
        answer = self.pipeline.on_book(book)
        if self.pipeline.error is not None:
            error, self.pipeline.error = self.pipeline.error, None
            if self.on_model_error is not None:
                self.on_model_error(self.pipeline.ensemble, error)
        for stage, micros in self.pipeline.micros.items():
            if micros:
                self._stage(stage, micros, book.now_ns, arrived_ns)
        self.decided_mono_ns = started_ns = clock()
        if answer is not None:
            commands = self._decide(answer)
            self.decided_mono_ns = clock()
            # First what was decided: in the journal commands follow the event that they answer.
            self._carry_out(commands, arrived_ns)
            self._stage("risk", (self.decided_mono_ns - started_ns) // 1000, book.now_ns, arrived_ns)
        timed.append(("recv_to_decision", (self.decided_mono_ns - arrived_ns) // 1000))

    def _stage(self, stage: str, micros: int, now_ns: int, arrived_ns: int) -> None:
        """Notes a stage's time. The engine hears of every violation and of its end, not of every book."""
        self._timed.append((stage, micros))
        limit = self.engine.config.latency.thresholds_us.get(stage)
        if limit is not None and (micros > limit or stage in self._slow):
            (self._slow.add if micros > limit else self._slow.discard)(stage)
            self._feed(StageLatency(now_ns, stage, micros), arrived_ns)

    def _feed(self, event: Event, arrived_ns: int) -> None:
        self._carry_out(self._decide(event), arrived_ns)

    def _decide(self, event: Event) -> list[Command]:
        self.journal.event(event)
        return self.engine.on(event)

    def _carry_out(self, commands: list[Command], arrived_ns: int) -> None:
        if commands:
            self.journal.commands(commands)
            self.executor.send(commands, arrived_ns)
            self._unrecorded += commands

    @property
    def signals(self) -> int:
        """Signals of this session."""
        return self.engine.signals - self.signals_before

    @property
    def refusals(self) -> dict[str, int]:
        """Refusals of this session by reason."""
        before = self.refusals_before
        counted = {reason: n - before.get(reason, 0) for reason, n in sorted(self.engine.refusals.items())}
        return {reason: n for reason, n in counted.items() if n}

    @property
    def at_rest(self) -> bool:
        """No news waits, nothing works at the broker but the stops that protect positions. The market goes
        on: on a busy machine some of it always waits.
        """
        working = self.engine.orders.all_working()
        return not self.inbox.news and all(order.role == "STOP" and order.state == NEW for order in working)

    @property
    def flat(self) -> bool:
        return not any(position.lots for position in self.engine.positions.values())

    @property
    def closed(self) -> bool:
        """The exchange trades none of the instruments."""
        return len(self.not_tradable) == len(self.engine.instruments)
