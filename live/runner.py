"""The runner: one process, one event loop, one queue, one engine.

Start: bundle (pulled, verified) -> storage, audit -> checkpoint -> broker (accounts, instruments) -> what earlier
sessions left unresolved -> streams -> engine. Producers post events into the inbox; one task takes them in order of
arrival, journals each, asks the pipeline and the engine, and hands the commands to the executor. Every task is
supervised: one that fails stops the runner with a hold, an audit line, a notice and a non-zero exit.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live import checkpoint, config as configuration, model as models_, registry
from live.audit import AuditLog
from live.broker.channel import OFFICIAL_TARGETS, Access, PaperEndpoint
from live.broker.client import BrokerClient
from live.broker.link import Link, Policy
from live.clock import MarketClock
from live.config_schema import Channel, RunnerConfig
from live.core.config import TIMER_NS
from live.core.engine import Engine
from live.core.errors import BadSnapshot
from live.core.events import (
    Book,
    Connection,
    Event,
    InferenceFailed,
    KnownOrder,
    ModelSwapped,
    Reconciled,
    Scores,
    StageLatency,
    StopRequested,
    Timer,
    Trade,
    TradingStatus,
)
from live.executor import Executor, OrderDesk
from live.inbox import Inbox
from live.journal import Journal
from live.latency import Latencies
from live.ledger import Ledger
from live.model import LoadedModel
from live.notify import Notifier
from live.paper_child import PaperChild, running_endpoint, start_exchange
from live.pipeline import SignalPipeline, model_params
from live.shadow import ShadowDesk
from live.storage import Record, Storage, reader, unresolved_orders
from live.watch import OverrideFlag, RunnerLock, take_resume, write_flag
from market.errors import BrokerError, ScalperError
from market.fees import tariff
from market.types import SECOND_NS, Instrument

TIMER_S = 0.1
EVENTS_PER_TURN = 64
"""Events handled before the loop gives the sockets a turn."""
STATUS_INTERVAL_S = 1.0
PROGRESS_INTERVAL_S = 5.0
STOP_TIMEOUT_S = 10.0
FLATTEN_LEAD_S = 1.0
FLATTEN_LEAD_NS = 10 * SECOND_NS
RECONCILE_PAUSE_S = 1.0
CHECKPOINT_PAUSE_S = 0.25
"""Shortest time between two checkpoints written because orders or positions changed."""
OUTSIDE_VOLUME_S = 0.05


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides. ``shadow``: record and simulate orders, send none."""

    alias: str
    shadow: bool = False
    quiet: bool = False


class ComponentFailed(ScalperError):
    """A task of the runner died; trading was held and the process ends."""

    exit_code = 1


class Runner:
    """``await run()`` once; the result is the exit code."""

    def __init__(self, config: RunnerConfig, options: Options) -> None:
        self.config, self.options = config, options
        self.runtime = Path(config.system.runtime_dir)
        self.session_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.session_key = str(uuid.uuid4())
        self.session_dir = self.runtime / "session" / self.session_id
        self.latencies = Latencies()
        self.inbox = Inbox(config.data.queue_length)
        self.notifier = Notifier(
            config.notifications.token, config.notifications.chat_id, sound=config.notifications.sound,
            prefix=f"[{config.system.mode}] ",
        )  # fmt: skip
        self.not_tradable: set[str] = set()
        self.last_book_mono_ns = 0
        self._stop_reason = ""
        self._stopping = asyncio.Event()
        self._reconcile_wanted = asyncio.Event()
        self._child: PaperChild | None = None
        self._endpoint: PaperEndpoint | None = None
        self._slow_stages: set[str] = set()
        self._next_model: LoadedModel | None = None
        self._group: asyncio.TaskGroup | None = None
        self._started = False

    # ---- the whole life ----

    async def run(self) -> int:
        """Trades until asked to stop or the recording ends. Raises ScalperError for expected failures."""
        with ExitStack() as stack:
            lock = RunnerLock(self.runtime)
            stack.callback(lock.release)
            stack.callback(self.notifier.close)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal, number)
            try:
                await self._wait_for_start()
                await self._prepare(stack)
                return await self._trade()
            finally:
                if self._child is not None:
                    await self._child.stop()

    def _on_signal(self, number: int) -> None:
        if self._stop_reason:
            self._say(f"second {signal.Signals(number).name}: leaving at once; the broker keeps what is open")
            os._exit(130)
        self.request_stop(f"{signal.Signals(number).name} received")

    def request_stop(self, reason: str) -> None:
        """Graceful stop: cancel orders, flatten if configured, save, close."""
        if not self._stop_reason:
            self._stop_reason = reason
            self._stopping.set()

    async def _wait_for_start(self) -> None:
        wanted = self.config.system.startup_time
        if wanted is None:
            return
        wait = configuration.seconds_until(wanted, self.config.session.timezone)
        self._say(f"waiting until {wanted} {self.config.session.timezone} ({wait:.0f} s)")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)

    # ---- preparation ----

    async def _prepare(self, stack: ExitStack) -> None:
        config = self.config
        self.model = await asyncio.to_thread(models_.fetch, config, self.options.alias)
        self.tickers = models_.tickers(config, self.model.bundle)
        access = await self._access()
        self._check_watermark()
        models_.check_expiry(self.model, self.clock.now_ns())
        self.storage = Storage.open(
            Path(config.storage.path), self.runtime / "signals.fallback.jsonl",
            retention_days=config.storage.retention_days,
        )  # fmt: skip
        stack.callback(self.storage.close)
        self.audit = AuditLog(self.runtime / "audit.log", self.session_id)
        stack.callback(self.audit.close)
        self.client = BrokerClient(access, {}, time_scale=self.clock.speed)
        try:
            await self._know_the_market()
            self._build()
            await self._take_over()
        except BaseException:
            await self.client.close()
            raise

    async def _access(self) -> Access:
        """Where the orders go, and the clock that belongs to it."""
        config = self.config
        if config.system.mode != "paper":
            self.clock = MarketClock.wall()
            target = config.broker.target or OFFICIAL_TARGETS[config.system.mode]
            return Access(
                target, config.broker.token, config.broker.account_id, config.broker.ca_path,
                app_name=config.broker.app_name,
            )  # fmt: skip
        endpoint = running_endpoint(Path(config.paper.endpoint))
        if endpoint is None:
            paper, manifest = config.paper, self.model.bundle.manifest
            from_ns = paper.from_ns if paper.from_ns is not None else int(manifest["live_from_ns"])
            self._child, endpoint = await start_exchange(
                paper, tickers=self.tickers, from_ns=from_ns, to_ns=paper.to_ns, log=self.runtime / "paper" / "exchange.log"
            )
        self._endpoint = endpoint
        self.clock = MarketClock(endpoint.market_start_ns, endpoint.speed)
        return endpoint.access

    def _check_watermark(self) -> None:
        if self._endpoint is not None and self._endpoint.watermark != self.model.watermark:
            self._say(
                f"note: the model was trained on {self.model.watermark} data, the recording is {self._endpoint.watermark}"
            )

    async def _know_the_market(self) -> None:
        await self.client.choose_account()
        by_ticker = {name.partition("_")[0]: name for name in self.config.data.instruments}
        self.instruments: dict[str, Instrument] = {}
        for ticker in self.tickers:
            board = self.model.bundle.instruments[ticker].class_code
            name = by_ticker.get(ticker, ticker)
            self.instruments[ticker] = await self.client.instrument(name if "_" in name else f"{ticker}_{board}")
        models_.check_instruments(self.model.bundle, self.instruments)
        rates = tariff(self._endpoint.tariff if self._endpoint else self.config.broker.tariff)
        self.fee_ppm = {ticker: rates.ppm(i) for ticker, i in self.instruments.items()}
        self.client.set_fees(self.fee_ppm)

    def _build(self) -> None:
        config = self.config
        self.engine_config = configuration.engine_config(config, self.fee_ppm)
        ensemble = models_.ensemble(self.model, self.tickers)
        self.pipeline = SignalPipeline(self.tickers, ensemble)
        self.params = model_params(self.model.bundle, self.tickers)
        self.engine = Engine(self.engine_config, self.instruments, self.params, self.session_key)
        self.ledger = Ledger(self.instruments)
        self.journal = Journal.create(
            self.session_dir,
            session_id=self.session_id, session_key=self.session_key, config=self.engine_config,
            instruments=self.instruments, model=self.params, watermark=self.model.watermark,
        )  # fmt: skip
        self.desk: OrderDesk = self.client
        self.shadow: ShadowDesk | None = None
        if self.options.shadow:
            latency_ns = int(config.backtest.latency_ms * 1_000_000)
            self.shadow = self.desk = ShadowDesk(self.instruments, self.fee_ppm, latency_ns)
        self.executor = Executor(
            desk=self.desk, storage=self.storage, audit=self.audit, notifier=self.notifier, ledger=self.ledger,
            latencies=self.latencies, clock=self.clock, instruments=self.instruments, session_id=self.session_id,
            post=self.post, spawn=self._spawn, want_reconcile=lambda reason: self._reconcile_wanted.set(),
            shadow=self.options.shadow,
        )  # fmt: skip
        if self.shadow is not None:
            self.shadow.on_report = self.executor.report
        self.flag = OverrideFlag(
            Path(config.manual_override.flag_path), config.manual_override.auto_resume_minutes * 60
        )
        backup = self._channel_access(config.connectivity.backup, required=True)
        self.link = Link(
            self.client, {i.uid: i for i in self.instruments.values()}, self.clock, self.post, self._on_report,
            depth=config.data.depth, backup=backup,
            policy=Policy(config.connectivity.failure_threshold, config.connectivity.recovery_message_count),
        )  # fmt: skip

    def _channel_access(self, channel: Channel, *, required: bool) -> Access | None:
        if not channel.target:
            return None if required else self.client.access
        return replace(self.client.access, target=channel.target)

    def _on_report(self, report: Any) -> None:
        if self.shadow is None:
            self.executor.report(report)

    # ---- taking over from earlier sessions ----

    @property
    def account_ref(self) -> str:
        """Whose orders and positions a checkpoint speaks of. Every paper exchange is another account."""
        if self._endpoint is not None:
            instance = f"{self._endpoint.pid}/{self._endpoint.access.token[-8:]}"
            return f"paper:{self.client.account_id}:{instance}{':shadow' if self.options.shadow else ''}"
        return f"{self.config.system.mode}:{self.client.account_id}{':shadow' if self.options.shadow else ''}"

    async def _take_over(self) -> None:
        self.checkpoint_path = self.runtime / "checkpoint.json"
        restored_ns = self._restore_checkpoint()
        await self._open_session_record()
        self._adopt_orders(restored_ns)

    def _restore_checkpoint(self) -> int | None:
        """Engine time of the restored checkpoint, None where there was none for this account."""
        try:
            body = checkpoint.load(self.checkpoint_path)
        except checkpoint.CheckpointError as error:
            kept = checkpoint.set_aside(self.checkpoint_path)
            self._halt_by_flag(f"the checkpoint was damaged and is kept as {kept.name}: look at positions and the day's loss")
            self._audit("SESSION", "CHECKPOINT_DAMAGED", reason=str(error), kept=kept.name)
            self._say(f"warning: {error}")
            return None
        if body is None:
            return None
        if body["account"] != self.account_ref:
            self._audit("SESSION", "CHECKPOINT_OF_ANOTHER_ACCOUNT", found=body["account"], wanted=self.account_ref)
            return None
        try:
            self.engine.restore(body["engine"])
        except BadSnapshot as error:
            raise BadSnapshot(f"{self.checkpoint_path} cannot be restored: {error}") from None
        self.pipeline.reset()
        for ticker, position in self.engine.positions.items():
            self.ledger.restore_position(ticker, position.lots, position.cost_nano)
        for hold in self.engine.holds:
            self.ledger.restore_hold(hold)
        self._audit("SESSION", "CHECKPOINT_RESTORED", session=body["session_id"], now_ns=self.engine.now_ns)
        return int(body["engine"]["now_ns"])

    def _halt_by_flag(self, reason: str) -> None:
        path = Path(self.config.manual_override.flag_path)
        if not path.exists():
            write_flag(path, reason)
        self.notifier.send(f"HALTED: {reason}")

    async def _open_session_record(self) -> None:
        await self.storage.commit(
            Record(
                "sessions",
                {
                    "session_id": self.session_id, "session_key": self.session_key, "mode": self.mode,
                    "account": self.account_ref, "alias": self.model.alias, "model_version": self.model.version,
                    "manifest_sha256": self.model.sha256, "watermark": self.watermark,
                    "started_wall_ns": time.time_ns(),
                },
            ),
            Record("meta", {"key": "session_id", "value": self.session_id}),
        )  # fmt: skip

    def _adopt_orders(self, restored_ns: int | None) -> None:
        """Orders on disk that the checkpoint may not know: the engine asks the broker about each of them."""
        for row in unresolved_orders(self.storage.path, since_ns=restored_ns):
            self.executor.remember(row["client_order_id"], row["exchange_order_id"])
            if row["account"] != self.account_ref:
                self._forget_foreign(row)
            elif row["ticker"] in self.instruments:
                role = "STOP" if row["order_type"] == "stop" else "EXIT" if row["reduce_only"] else "ENTRY"
                self.post(
                    KnownOrder(
                        self.clock.now_ns(), row["client_order_id"], row["trace_id"], row["ticker"], row["side"],
                        row["lots"], row["order_type"], row["price_ticks"], role, row["reason"], row["created_ns"],
                    )  # fmt: skip
                )
                self._audit("ORDER", "ORDER_ADOPTED", client_order_id=row["client_order_id"], status=row["status"])

    def _forget_foreign(self, row: dict[str, Any]) -> None:
        """Orders of a paper exchange that is gone can never be asked about again; another account's are left alone."""
        if row["account"].startswith("paper:") and row["status"] not in ("FILLED", "CANCELLED", "REJECTED", "SHADOW"):
            self.storage.put(
                Record(
                    "orders",
                    {"client_order_id": row["client_order_id"], "status": "NOT_SENT", "note": "its paper exchange is gone"},
                )
            )

    # ---- trading ----

    async def _trade(self) -> int:
        failure: BaseException | None = None
        gc.collect()
        gc.freeze()  # what lives for ever is never looked at again by the collector
        self._started = True
        self._audit(
            "SESSION", "SESSION_STARTED", mode=self.mode, alias=self.model.alias, version=self.model.version,
            manifest=self.model.sha256, watermark=self.watermark,
        )  # fmt: skip
        self._say(self._headline())
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks = [
                    group.create_task(body, name=name)
                    for name, body in (
                        ("engine", self._engine_loop()), ("link", self.link.run()), ("timer", self._timer_loop()),
                        ("reconcile", self._reconcile_loop()), ("override", self._override_loop()),
                        ("checkpoint", self._checkpoint_loop()), ("status", self._status_loop()),
                        ("registry", self._registry_loop()), ("exchange", self._exchange_loop()),
                    )
                ]  # fmt: skip
                await self._stopping.wait()
                await self._wind_down()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            failure = _first(errors)
            self._component_failed(failure)
        await self._close(failure)
        if failure is not None:
            if isinstance(failure, ScalperError):
                raise ComponentFailed(f"{failure} (trading stopped; see {self.runtime / 'audit.log'})") from failure
            raise failure
        return 0

    def _spawn(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            raise AssertionError("orders exist only while the runner trades")
        return self._group.create_task(body, name=name)

    def post(self, event: Event) -> None:
        """The way into the engine. A market event that finds the queue full is counted and told once."""
        if not self.inbox.post(event) and self.inbox.dropped == 1:
            self._audit("RESOURCE", "QUEUE_FULL", length=self.config.data.queue_length)
            self.notifier.send("QUEUE_FULL: market data is being dropped, the machine is too slow")

    async def _engine_loop(self) -> None:
        handled = 0
        while True:
            arrived_ns, event = await self.inbox.get()
            self._handle(event, arrived_ns)
            handled += 1
            if handled % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _handle(self, event: Event, arrived_ns: int) -> None:
        """One event through journal, pipeline and engine."""
        started_ns = time.monotonic_ns()
        if isinstance(event, Book):
            self.latencies.add_ns("queue", started_ns - arrived_ns)
            self.last_book_mono_ns = arrived_ns
            self.ledger.on_book(event)
            if self.shadow is not None:
                self.shadow.on_book(event)
            self._feed(event, arrived_ns)
            self._score(event, arrived_ns)
            return
        if isinstance(event, Trade):
            self.ledger.counts["trades"] += 1
            if self.shadow is not None:
                self.shadow.on_trade(event)
            self.pipeline.on_trade(event)
        elif isinstance(event, Connection):
            if event.up:
                self._reconcile_wanted.set()
            self.pipeline.reset()
        elif isinstance(event, TradingStatus):
            (self.not_tradable.discard if event.tradable else self.not_tradable.add)(event.ticker)
        self._feed(event, arrived_ns)
        if self.shadow is not None:
            self.shadow.on_time(event.now_ns)

    def _score(self, book: Book, arrived_ns: int) -> None:
        answer = self.pipeline.on_book(book)
        for stage, micros in self.pipeline.last_micros.items():
            self._stage(stage, micros, book.now_ns, arrived_ns)
        if isinstance(answer, Scores | InferenceFailed):
            started_ns = time.monotonic_ns()
            self._feed(answer, arrived_ns)
            self._stage("risk", (time.monotonic_ns() - started_ns) // 1000, book.now_ns, arrived_ns)
        self.latencies.add_ns("recv_to_decision", time.monotonic_ns() - arrived_ns)

    def _stage(self, stage: str, micros: int, now_ns: int, arrived_ns: int) -> None:
        """Counts a stage's time; the engine hears of every violation and of its end, not of every book."""
        self.latencies.add(stage, micros)
        limit = self.engine_config.latency.thresholds_us.get(stage)
        if limit is None:
            return
        if micros > limit:
            self._slow_stages.add(stage)
            self._feed(StageLatency(now_ns, stage, micros), arrived_ns)
        elif stage in self._slow_stages:
            self._slow_stages.discard(stage)
            self._feed(StageLatency(now_ns, stage, micros), arrived_ns)

    def _feed(self, event: Event, arrived_ns: int) -> None:
        self.journal.event(event)
        commands = self.engine.on(event)
        if commands:
            self.journal.commands(commands)
            self.executor.carry_out(commands, arrived_ns)

    # ---- the other tasks ----

    async def _timer_loop(self) -> None:
        pause_s = max(0.005, min(TIMER_S, self.clock.wall_seconds(TIMER_NS / SECOND_NS)))
        while True:
            await asyncio.sleep(pause_s)
            now_ns = self.clock.now_ns()
            self.post(Timer(now_ns))
            self._watch_the_end(now_ns)

    def _watch_the_end(self, now_ns: int) -> None:
        """A recording has an end: get out while the exchange still trades."""
        if self._endpoint is None or not self.config.paper.exit_at_end or not self.clock.anchored:
            return
        lead_ns = max(FLATTEN_LEAD_NS, int(FLATTEN_LEAD_S * self.clock.speed * SECOND_NS))
        if now_ns >= self._endpoint.market_end_ns - lead_ns or len(self.not_tradable) == len(self.tickers):
            self.request_stop("the recording ends")

    async def _reconcile_loop(self) -> None:
        while True:
            await self._reconcile_wanted.wait()
            self._reconcile_wanted.clear()
            if not self.link.up:
                continue  # the next Connection(up) asks again
            asked_ns = self.clock.now_ns()
            try:
                state = await self.desk.state()
            except BrokerError as error:
                self._audit("ORDER", "RECONCILE_FAILED", reason=str(error))
                self._reconcile_wanted.set()
            else:
                for ticker, units in state.odd_units.items():
                    self._audit("RISK", "ODD_UNITS", ticker=ticker, units=units)
                for order in state.open_orders:
                    self.executor.remember(order.client_order_id, order.exchange_order_id)
                self.post(
                    Reconciled(self.clock.now_ns(), state.positions, state.open_orders, state.cash_nano, asked_ns)
                )
            await asyncio.sleep(RECONCILE_PAUSE_S / max(1.0, self.clock.speed))

    async def _override_loop(self) -> None:
        while True:
            now_ns = self.clock.now_ns()
            if (override := self.flag.poll(now_ns)) is not None:
                self.post(override)
            if (resume := take_resume(self.runtime, now_ns)) is not None:
                self.post(resume)
            await asyncio.sleep(self.config.manual_override.poll_interval_seconds)

    async def _checkpoint_loop(self) -> None:
        interval = self.config.system.checkpoint_interval_seconds
        last = 0.0
        while True:
            await asyncio.sleep(min(CHECKPOINT_PAUSE_S, interval))
            if self.executor.orders_changed or time.monotonic() - last >= interval:
                self.executor.orders_changed = False
                await self._save_checkpoint()
                last = time.monotonic()

    async def _save_checkpoint(self) -> None:
        body = {
            "session_id": self.session_id, "account": self.account_ref, "instruments": list(self.tickers),
            "engine": self.engine.snapshot(),
        }  # fmt: skip
        try:
            await asyncio.to_thread(checkpoint.save, self.checkpoint_path, body)
        except OSError as error:
            self._audit("RESOURCE", "CHECKPOINT_NOT_WRITTEN", reason=str(error))
            self.notifier.send(f"CHECKPOINT_NOT_WRITTEN: {error}")

    async def _exchange_loop(self) -> None:
        """The embedded exchange dying is a failure of ours, not a lost connection."""
        if self._child is not None:
            code = await self._child.wait()
            raise BrokerError(f"the paper exchange ended with code {code}; see {self.runtime / 'paper' / 'exchange.log'}")

    async def _registry_loop(self) -> None:
        """Follows the alias: the next bundle is verified beside the running one and swapped in when flat."""
        interval, refused = self.config.model.poll_interval_seconds, ""
        while interval > 0:
            await asyncio.sleep(interval)
            source = self.config.model
            try:
                found = await asyncio.to_thread(registry.resolve, source.registry, source.name, self.options.alias)
                if found.manifest_sha256 in (self.model.sha256, refused):
                    continue
                refused = found.manifest_sha256
                candidate = await asyncio.to_thread(models_.fetch, self.config, self.options.alias)
                if candidate.sha256 == self.model.sha256:
                    continue
                refused = candidate.sha256
                models_.check_expiry(candidate, self.clock.now_ns())
                models_.check_instruments(candidate.bundle, self.instruments)
                ensemble = await asyncio.to_thread(models_.ensemble, candidate, self.tickers)
            except ScalperError as error:
                self._audit("MODEL", "MODEL_RELOAD_REFUSED", reason=str(error), kept=self.model.sha256)
                self.notifier.send(f"MODEL_RELOAD_REFUSED: {error}")
                continue
            await self._swap_when_flat(candidate, ensemble)

    async def _swap_when_flat(self, candidate: LoadedModel, ensemble: Any) -> None:
        self._audit("MODEL", "MODEL_READY", version=candidate.version, manifest=candidate.sha256)
        while self.engine.orders.all_working() or any(p.lots for p in self.engine.positions.values()):
            await asyncio.sleep(TIMER_S)
        params = model_params(candidate.bundle, self.tickers)
        self.pipeline.swap(ensemble)
        self.model, self.params = candidate, params
        self.post(ModelSwapped(self.clock.now_ns(), candidate.sha256, params.to_dict()))

    async def _status_loop(self) -> None:
        last_progress, last_books = time.monotonic(), 0
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self._write_status()
            now = time.monotonic()
            if now - last_progress >= PROGRESS_INTERVAL_S:
                books = self.ledger.counts["books"]
                self._say(self._progress((books - last_books) / (now - last_progress)))
                last_progress, last_books = now, books

    def _write_status(self) -> None:
        gross, fees, net = self.ledger.result()
        now_ns = self.clock.now_ns()
        if self.clock.anchored:
            self.storage.put(
                Record(
                    "equity",
                    {
                        "session_id": self.session_id, "now_ns": now_ns, "gross_nano": gross, "fees_nano": fees,
                        "net_nano": net,
                    },
                )
            )  # fmt: skip
        status = {
            "session_id": self.session_id, "pid": os.getpid(), "wall_ns": time.time_ns(), "market_ns": now_ns,
            "mode": self.mode, "model": self.model.describe(), "watermark": self.watermark,
            "connection": {
                "up": self.link.up, "channel": self.link.channel, "reconnects": self.link.reconnects,
                "last_error": self.link.last_error, "clock_skew_ns": self.link.market.clock_skew_ns,
                "book_age_s": (time.monotonic_ns() - self.last_book_mono_ns) / 1e9 if self.last_book_mono_ns else None,
            },
            "queue": {"length": len(self.inbox), "conflated": self.inbox.conflated, "dropped": self.inbox.dropped},
            "storage": {"degraded": self.storage.degraded, "lost": self.storage.lost},
            "notifier": {"dropped": self.notifier.dropped, "last_error": self.notifier.last_error},
            "counts": dict(self.ledger.counts), "positions": self.ledger.open_positions(),
            "gross_nano": gross, "fees_nano": fees, "net_nano": net,
            "holds": [hold.to_dict() for hold in self.engine.holds],
            "latency": self.latencies.summary(),
        }  # fmt: skip
        _write_json(self.runtime / "status.json", status)

    # ---- the end ----

    async def _wind_down(self) -> None:
        """Cancels what rests, flattens if wanted, waits a bounded time for the broker's last words."""
        at_end = self._stop_reason == "the recording ends"
        flatten = self.config.system.flatten_on_stop or at_end
        self._audit("SESSION", "STOP_REQUESTED", reason=self._stop_reason, flatten=int(flatten))
        self._say(f"stopping: {self._stop_reason}" + (" (flattening)" if flatten else ""))
        self.post(StopRequested(self.clock.now_ns(), self._stop_reason, flatten))
        deadline = time.monotonic() + STOP_TIMEOUT_S
        quiet_since = None
        while time.monotonic() < deadline:
            await asyncio.sleep(OUTSIDE_VOLUME_S)
            busy = len(self.inbox) or self.engine.orders.all_working()
            open_lots = flatten and any(p.lots for p in self.engine.positions.values())
            if open_lots and len(self.not_tradable) == len(self.tickers):
                open_lots = False  # nobody to sell to any more; the summary marks them
            if busy or open_lots:
                quiet_since = None
                continue
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since > 4 * OUTSIDE_VOLUME_S:
                return
        self._audit("SESSION", "STOP_INCOMPLETE", working=len(self.engine.orders.all_working()))

    def _component_failed(self, failure: BaseException) -> None:
        reason = f"{type(failure).__name__}: {failure}"
        self._audit("RISK", "COMPONENT_FAILED", reason=reason)
        self.notifier.send(f"COMPONENT_FAILED: {reason}; trading stopped", 2500)
        # The next start must not go on as if nothing had happened.
        self._halt_by_flag(f"the runner failed: {reason}")

    async def _close(self, failure: BaseException | None) -> None:
        self._group = None
        await self._save_checkpoint()
        summary = self.summary(failure)
        self._write_status()
        await self.link.close()
        await self.client.close()
        self.journal.close()
        _write_json(self.session_dir / "summary.json", summary)
        self.storage.put(
            Record(
                "sessions",
                {"session_id": self.session_id, "ended_wall_ns": time.time_ns(), "summary": json.dumps(summary)},
            )
        )
        self._audit("SESSION", "SESSION_ENDED", reason=self._stop_reason or "failure", net_nano=summary["net_nano"])
        self._say(_closing_lines(summary, self.session_dir))

    def summary(self, failure: BaseException | None = None) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        counted = self.ledger.summary(self.clock.now_ns())
        counted["refusals"] = dict(sorted(self.engine.refusals.items()))
        return {
            "session_id": self.session_id, "mode": self.mode, "model": self.model.describe(),
            "watermark": self.watermark, "stop_reason": self._stop_reason, "failure": str(failure) if failure else None,
            **counted,
            "latency": self.latencies.summary(),
            "conflated": self.inbox.conflated, "dropped": self.inbox.dropped, "queue_longest": self.inbox.longest,
            "reconnects": self.link.reconnects,
            "storage": {"degraded": self.storage.degraded, "lost": self.storage.lost},
        }  # fmt: skip

    # ---- words ----

    @property
    def mode(self) -> str:
        return "shadow" if self.options.shadow else self.config.system.mode

    @property
    def watermark(self) -> str:
        """SIMULATED as soon as the model or the market is."""
        simulated = self._endpoint is not None and self._endpoint.watermark == models_.SIMULATED
        return models_.SIMULATED if simulated else self.model.watermark

    def _headline(self) -> str:
        mark = f" [{self.watermark}]" if self.watermark == models_.SIMULATED else ""
        return (
            f"session {self.session_id}: {self.mode}, model {self.model.alias} version {self.model.version} "
            f"({self.model.sha256[:12]}){mark}, {', '.join(self.tickers)}"
        )

    def _progress(self, books_per_s: float) -> str:
        _, _, net = self.ledger.result()
        lots = ", ".join(f"{t} {n:+d}" for t, n in self.ledger.positions.items() if n) or "flat"
        holds = sorted({h.name + (f"({h.scope})" if h.scope != "*" else "") for h in self.engine.holds})
        stamp = datetime.fromtimestamp(self.clock.now_ns() / SECOND_NS, UTC).strftime("%H:%M:%S")
        counts = self.ledger.counts
        return (
            f"{stamp} UTC  {books_per_s:6.1f} books/s  signals {counts['signals']}  orders {counts['orders']}  "
            f"fills {counts['fills']}  {lots}  net {net / 1e9:+.2f} RUB  holds: {', '.join(holds) or 'none'}"
            + (f"  [{self.watermark}]" if self.watermark == models_.SIMULATED else "")
        )

    def _say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, flush=True)

    def _audit(self, tag: str, event: str, **fields: Any) -> None:
        self.audit.write(self.clock.now_ns(), tag, event, fields)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of the group: the failure that brought the others down."""
    leaf: BaseException = errors
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _closing_lines(summary: dict[str, Any], folder: Path) -> str:
    mark = "  (SIMULATED data: not evidence of an edge)" if summary["watermark"] == models_.SIMULATED else ""
    return (
        f"books {summary['books']}, signals {summary['signals']}, orders {summary['orders']}, fills {summary['fills']}; "
        f"gross {summary['gross_nano'] / 1e9:+.2f}, fees {summary['fees_nano'] / 1e9:.2f}, "
        f"net {summary['net_nano'] / 1e9:+.2f} RUB{mark}\nsummary: {folder / 'summary.json'}"
    )
