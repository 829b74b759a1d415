"""The runner: one process, one event loop, one queue, one engine.

Start: bundle (pulled, verified) -> storage, audit -> broker (account, instruments) -> checkpoint and what
earlier sessions left unresolved -> streams -> reconciliation -> trading. Producers post events into the
inbox; the engine loop takes them in order of arrival. Every task is supervised: one that fails stops trading
with an audit line, a notice, the halt flag for the next start, and a non-zero exit.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import signal
import threading
import time
import uuid
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live import checkpoint, takeover
from live import config as configuration
from live import model as models_
from live.audit import AuditLog
from live.broker.api import TinkoffAPI
from live.broker.channel import Access, PaperEndpoint, broker_access
from live.broker.client import OrderReport
from live.broker.link import Policy
from live.clock import MarketClock
from live.config_schema import RunnerConfig
from live.core.config import TIMER_NS
from live.core.engine import Engine
from live.core.events import Connection, Event, Reconciled, StopRequested, Timer
from live.executor import Executor, OrderDesk
from live.inbox import Inbox
from live.journal import Header, JournalWriter
from live.latency import Latencies
from live.ledger import Ledger
from live.loop import EngineLoop
from live.notify import Notifier
from live.paper_child import PaperChild, running_endpoint, start_exchange
from live.pipeline import SignalPipeline, model_params
from live.record_run import RunRecorder
from live.reload import AliasFollower
from live.reporting import Reporter, closing_lines, write_json
from live.shadow import ShadowDesk
from live.storage import Record, Storage
from live.watch import OverrideFlag, RunnerLock, take_resume, write_flag
from market.errors import BrokerError, ScalperError
from market.fees import tariff
from market.types import SECOND_NS, Instrument

MAX_TIMER_S = 0.1
MIN_TIMER_S = 0.005
STATUS_INTERVAL_S = 1.0
PROGRESS_INTERVAL_S = 5.0
STOP_TIMEOUT_S = 10.0
STOP_POLL_S = 0.05
STOP_QUIET_S = 0.25
"""Nothing may happen for so long before a stopping runner believes that it is done."""
FLATTEN_LEAD_S = 1.0
FLATTEN_LEAD_NS = 10 * SECOND_NS
RECONCILE_PAUSE_S = 1.0
CHECKPOINT_PAUSE_S = 0.25
"""Shortest time between two checkpoints written because orders or positions changed."""
END_OF_RECORDING = "the recording ends"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides. ``shadow``: imagine orders, send none. ``record``: a recording's
    folder, None for no recording.
    """

    alias: str
    shadow: bool = False
    quiet: bool = False
    record: Path | None = None


class ComponentFailed(ScalperError):
    """A part of the runner died; trading was stopped and the process ends."""

    exit_code = 1


class Runner:
    """``await run()`` once; the result is the exit code."""

    def __init__(self, config: RunnerConfig, options: Options) -> None:
        self.config, self.options = config, options
        self.runtime = Path(config.system.runtime_dir)
        self.session_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.session_key = str(uuid.uuid4())
        self.session_dir = self.runtime / "session" / self.session_id
        self.inbox = Inbox(config.data.queue_length)
        self._stop_reason = ""
        self._signals = 0
        self._stopping = asyncio.Event()
        self._reconcile_wanted = asyncio.Event()
        self._child: PaperChild | None = None
        self._endpoint: PaperEndpoint | None = None
        self._group: asyncio.TaskGroup | None = None
        self.recorder: RunRecorder | None = None

    # ---- the whole life ----

    async def run(self) -> int:
        """Trades until asked to stop or the recording ends. Raises ScalperError for expected failures."""
        with ExitStack() as stack:
            stack.callback(RunnerLock(self.runtime).release)
            self.notifier = Notifier(
                self.config.notifications.token,
                self.config.notifications.chat_id,
                sound=self.config.notifications.sound,
                prefix=f"[{self.mode}] ",
            )
            stack.callback(self.notifier.close)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal, number)
            try:
                await self._wait_for_start()
                if self._stop_reason:
                    return 0
                await self._prepare(stack)
                return await self._trade()
            finally:
                if self._child is not None:
                    await self._child.stop()

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            # Asked twice: leave at once. Orders and positions stay at the broker; the next start takes them
            # over.
            if self._child is not None:
                self._child.kill()
            os._exit(128 + number)
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
        models_.check_expiry(self.model, self.clock.now_ns())
        fallback = self.runtime / "signals.fallback.jsonl"
        self.storage = Storage.open(
            Path(config.storage.path), fallback, retention_days=config.storage.retention_days
        )
        stack.callback(self.storage.close)
        self.audit = AuditLog(self.runtime / "audit.log", self.session_id)
        stack.callback(self.audit.close)
        self.api = TinkoffAPI(access, transport=config.broker.transport, time_scale=self.clock.speed)
        self.client = self.api.client
        try:
            await self._know_the_market()
            self._build()
            if self.options.record is not None:
                self.recorder = self._build_recorder(self.options.record)
                stack.callback(self.recorder.close)
            await self._open_session()
        except BaseException:
            await self.api.close()
            raise

    async def _access(self) -> Access:
        """Where the orders go, and the clock that belongs to it."""
        config = self.config
        if config.system.mode != "paper":
            self.clock = MarketClock.wall()
            return broker_access(config)
        endpoint = running_endpoint(Path(config.paper.endpoint))
        if endpoint is None:
            # By default play what the model never saw.
            from_ns = config.paper.from_ns
            if from_ns is None:
                from_ns = int(self.model.bundle.manifest["live_from_ns"])
            self._child, endpoint = await start_exchange(
                config.paper,
                tickers=self.tickers,
                from_ns=from_ns,
                to_ns=config.paper.to_ns,
                log=self.runtime / "paper" / "exchange.log",
            )
        self._endpoint = endpoint
        self.clock = MarketClock(endpoint.market_start_ns, endpoint.speed)
        return endpoint.access

    async def _know_the_market(self) -> None:
        await self.client.choose_account()
        boards = dict(name.partition("_")[::2] for name in self.config.data.instruments)
        self.instruments: dict[str, Instrument] = {}
        for ticker in self.tickers:
            board = boards.get(ticker) or self.model.bundle.instruments[ticker].class_code
            self.instruments[ticker] = await self.client.instrument(f"{ticker}_{board}")
        models_.check_instruments(self.model.bundle, self.instruments)
        rates = tariff(self._endpoint.tariff if self._endpoint else self.config.broker.tariff)
        self.fee_ppm = {ticker: rates.ppm(i) for ticker, i in self.instruments.items()}
        self.client.set_fees(self.fee_ppm)

    def _build(self) -> None:
        """Engine and everything around it; the checkpoint is restored here, because the journal begins with
        it.
        """
        config = self.config
        ensemble = models_.ensemble(self.model, self.tickers)
        params = model_params(ensemble)
        engine_config = configuration.engine_config(config, self.fee_ppm)
        engine = Engine(engine_config, self.instruments, params, self.session_key)
        ledger, latencies = Ledger(self.instruments), Latencies()
        desk: OrderDesk = self.client
        shadow: ShadowDesk | None = None
        if self.options.shadow:
            latency = configuration.backtest_latency(config.backtest)
            desk = shadow = ShadowDesk(self.instruments, self.fee_ppm, latency, self.clock)
        self.desk = desk
        self.checkpoint_path = self.runtime / "checkpoint.json"
        self.restored = takeover.read_checkpoint(self.checkpoint_path, self.account_ref, self._audit)
        if self.restored.body is not None:
            takeover.restore(engine, self.checkpoint_path, self.restored.body)
            self.clock.not_before(engine.now_ns)
            for ticker, position in engine.positions.items():
                ledger.restore_position(ticker, position.lots, position.cost_nano)
                if shadow is not None:
                    shadow.adopt_position(ticker, position.lots)
            for hold in engine.holds:
                ledger.restore_hold(hold)
        executor = Executor(
            desk=desk,
            storage=self.storage,
            audit=self.audit,
            notifier=self.notifier,
            ledger=ledger,
            latencies=latencies,
            clock=self.clock,
            instruments=self.instruments,
            session_id=self.session_id,
            post=self.post,
            spawn=self._spawn,
            want_reconcile=lambda reason: self._reconcile_wanted.set(),
            shadow=shadow is not None,
        )
        if shadow is not None:
            shadow.on_report = executor.report
        header = Header(
            self.session_id,
            self.session_key,
            engine_config,
            self.instruments,
            params,
            self.watermark,
            self.restored.body,
        )
        self.loop = EngineLoop(
            self.inbox,
            engine,
            SignalPipeline(self.tickers, ensemble, self.session_key, clock_ns=time.monotonic_ns),
            JournalWriter(self.session_dir, header),
            executor,
            ledger,
            latencies,
            shadow,
        )
        self._build_edges(config)

    def _build_recorder(self, path: Path) -> RunRecorder:
        """A folder that cannot be recorded into is said before trading begins."""
        recorder = RunRecorder(
            path,
            self.instruments,
            mode=self.mode,
            watermark=self._endpoint.watermark if self._endpoint else "REAL",
            tariff=self._endpoint.tariff if self._endpoint else self.config.broker.tariff,
            facts={"session_id": self.session_id, "alias": self.model.alias, "manifest": self.model.sha256},
            now_ns=self.clock.now_ns,
            failed=self._recording_failed,
        )
        self.loop.on_commands = recorder.commands
        return recorder

    def _recording_failed(self, reason: str) -> None:
        self._audit("RESOURCE", "RECORDING_ENDED", reason=reason)
        self.notifier.send(f"RECORDING_ENDED: {reason}; trading goes on")

    def _build_edges(self, config: RunnerConfig) -> None:
        """Connection, pollers, reports."""
        connectivity = config.connectivity
        backup = (
            replace(self.client.access, target=connectivity.backup.target)
            if connectivity.backup.target
            else None
        )
        self.link = self.api.connect(
            {i.uid: i for i in self.instruments.values()},
            self.clock,
            self._from_link,
            self._on_report,
            depth=config.data.depth,
            backup=backup,
            policy=Policy(connectivity.failure_threshold, connectivity.recovery_message_count),
            silence_s=connectivity.silence_seconds,
        )
        override = config.manual_override
        self.flag = OverrideFlag(Path(override.flag_path), override.auto_resume_minutes * 60)
        self.follower = AliasFollower(
            config, self.model, self.instruments, self.loop, self.clock, self.notifier, self.post, self._audit
        )
        self.reporter = Reporter(
            self.session_id,
            self.mode,
            self.watermark,
            self.loop,
            self.link,
            self.clock,
            self.storage,
            self.notifier,
            self.follower,
        )

    async def _open_session(self) -> None:
        if self.restored.halt:
            self._halt(self.restored.halt)
        fields = {
            "session_id": self.session_id,
            "session_key": self.session_key,
            "mode": self.mode,
            "account": self.account_ref,
            "alias": self.model.alias,
            "model_version": self.model.version,
            "manifest_sha256": self.model.sha256,
            "watermark": self.watermark,
            "started_wall_ns": time.time_ns(),
        }
        await self.storage.commit(
            Record("sessions", fields), Record("meta", {"key": "session_id", "value": self.session_id})
        )
        now_ns = self.clock.now_ns()
        if (override := self.flag.poll(now_ns)) is not None:
            self.post(override)  # before anything else: a halted start sends nothing
        since_ns = None if self.restored.body is None else int(self.restored.body["now_ns"])
        takeover.adopt_orders(
            self.storage,
            self.account_ref,
            self.tickers,
            since_ns,
            now_ns,
            post=self.post,
            remember=self.loop.executor.remember,
            audit=self._audit,
        )

    # ---- trading ----

    async def _trade(self) -> int:
        failure: BaseException | None = None
        gc.collect()
        gc.freeze()  # what lives for ever is never looked at again by the collector
        self._audit(
            "SESSION",
            "SESSION_STARTED",
            mode=self.mode,
            alias=self.model.alias,
            version=self.model.version,
            manifest=self.model.sha256,
            watermark=self.watermark,
        )
        self._say(self.reporter.headline())
        if self.config.dashboard.enabled:
            self._serve_dashboard()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks = [group.create_task(body, name=name) for name, body in self._components().items()]
                await self._stopping.wait()
                await self._wind_down()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            failure = _first(errors)
            self._component_failed(failure)
        await self._close(failure)
        if failure is None:
            return 0
        if isinstance(failure, ScalperError):
            raise ComponentFailed(
                f"{failure} (trading stopped; see {self.runtime / 'audit.log'})"
            ) from failure
        raise failure

    def _serve_dashboard(self) -> None:
        """In a thread of its own: it only reads SQLite and the status file, and cannot hold up trading."""
        from live.dashboard import make_server

        board = self.config.dashboard
        flag = Path(self.config.manual_override.flag_path)
        server = make_server(self.storage.path, self.runtime, flag, board.host, board.port, board.token)
        threading.Thread(target=server.serve_forever, name="dashboard", daemon=True).start()
        self._say(f"dashboard on http://{board.host}:{server.server_address[1]}/")

    def _components(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "engine": self.loop.run(),
            "link": self.link.run(),
            "timer": self._timer_task(),
            "reconcile": self._reconcile_task(),
            "override": self._override_task(),
            "checkpoint": self._checkpoint_task(),
            "status": self._status_task(),
            "registry": self.follower.run(),
            "exchange": self._exchange_task(),
        }

    def post(self, event: Event) -> None:
        """The way into the engine. A market event that finds the queue full is counted, and told once."""
        if not self.inbox.post(event) and self.inbox.dropped == 1:
            self._audit("RESOURCE", "QUEUE_FULL", length=self.config.data.queue_length)
            self.notifier.send("QUEUE_FULL: market data is being dropped, this machine is too slow")

    def _from_link(self, event: Event) -> None:
        if self.recorder is not None:
            self.recorder.take(event)
        self.post(event)
        if isinstance(event, Connection) and event.up:
            self._reconcile_wanted.set()

    def _on_report(self, report: OrderReport) -> None:
        if self.loop.shadow is None:
            self.loop.executor.report(report)

    def _spawn(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            body.close()
            raise AssertionError("orders exist only while the runner trades")
        return self._group.create_task(body, name=name)

    async def _timer_task(self) -> None:
        pause_s = min(MAX_TIMER_S, max(MIN_TIMER_S, self.clock.wall_seconds(TIMER_NS / SECOND_NS)))
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
        if now_ns >= self._endpoint.market_end_ns - lead_ns or self.loop.closed:
            self.request_stop(END_OF_RECORDING)

    async def _reconcile_task(self) -> None:
        """Reads the account when somebody wants it: at the start, after reconnects and disagreements."""
        while True:
            await self._reconcile_wanted.wait()
            self._reconcile_wanted.clear()
            if self.link.up:
                await self._reconcile()
            await asyncio.sleep(RECONCILE_PAUSE_S / max(1.0, self.clock.speed))

    async def _reconcile(self) -> None:
        asked_ns = self.clock.now_ns()
        try:
            state = await self.desk.state()
        except BrokerError as error:
            self._audit("ORDER", "RECONCILE_FAILED", reason=str(error))
            self._reconcile_wanted.set()
            return
        for ticker, units in state.odd_units.items():
            self._audit("RISK", "ODD_UNITS", ticker=ticker, units=units)
        for order in state.open_orders:
            self.loop.executor.remember(order.client_order_id, order.exchange_order_id)
        self.post(
            Reconciled(self.clock.now_ns(), state.positions, state.open_orders, state.cash_nano, asked_ns)
        )

    async def _override_task(self) -> None:
        while True:
            now_ns = self.clock.now_ns()
            if (override := self.flag.poll(now_ns)) is not None:
                self.post(override)
            if (resume := take_resume(self.runtime, now_ns)) is not None:
                self.post(resume)
            await asyncio.sleep(self.config.manual_override.poll_interval_seconds)

    async def _checkpoint_task(self) -> None:
        interval, last = self.config.system.checkpoint_interval_seconds, 0.0
        while True:
            await asyncio.sleep(min(CHECKPOINT_PAUSE_S, interval))
            if self.loop.executor.orders_changed or time.monotonic() - last >= interval:
                self.loop.executor.orders_changed = False
                await self._save_checkpoint()
                last = time.monotonic()

    async def _save_checkpoint(self) -> None:
        body = {
            "session_id": self.session_id,
            "account": self.account_ref,
            "engine": self.loop.engine.snapshot(),
        }
        try:
            await asyncio.to_thread(checkpoint.save, self.checkpoint_path, body)
        except OSError as error:
            self._audit("RESOURCE", "CHECKPOINT_NOT_WRITTEN", reason=str(error))
            self.notifier.send(f"CHECKPOINT_NOT_WRITTEN: {error}")

    async def _status_task(self) -> None:
        last = time.monotonic()
        self.reporter.progress()
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self.reporter.record_equity()
            await asyncio.to_thread(write_json, self.runtime / "status.json", self.reporter.status())
            if time.monotonic() - last >= PROGRESS_INTERVAL_S:
                last = time.monotonic()
                self._say(self.reporter.progress())

    async def _exchange_task(self) -> None:
        """The embedded exchange dying is a failure of ours, not a lost connection."""
        if self._child is not None:
            code = await self._child.wait()
            log = self.runtime / "paper" / "exchange.log"
            raise BrokerError(f"the paper exchange ended with code {code}; see {log}")

    # ---- the end ----

    async def _wind_down(self) -> None:
        """Cancels what rests, flattens if wanted, waits a bounded time for the broker's last words."""
        flatten = self.config.system.flatten_on_stop or self._stop_reason == END_OF_RECORDING
        self._audit("SESSION", "STOPPING", reason=self._stop_reason, flatten=int(flatten))
        self._say(f"stopping: {self._stop_reason}" + (", closing positions" if flatten else ""))
        self.post(StopRequested(self.clock.now_ns(), self._stop_reason, flatten))
        deadline, quiet_since = time.monotonic() + STOP_TIMEOUT_S, 0.0
        while time.monotonic() < deadline:
            await asyncio.sleep(STOP_POLL_S)
            # Once nobody trades there is nobody to sell to: the summary marks what is left.
            done = self.loop.at_rest and (not flatten or self.loop.flat or self.loop.closed)
            quiet_since = (quiet_since or time.monotonic()) if done else 0.0
            if quiet_since and time.monotonic() - quiet_since >= STOP_QUIET_S:
                return
        working = len(self.loop.engine.orders.all_working())
        self._audit("SESSION", "STOP_INCOMPLETE", working_orders=working, flat=int(self.loop.flat))

    def _component_failed(self, failure: BaseException) -> None:
        reason = f"{type(failure).__name__}: {failure}"
        self._audit("RISK", "COMPONENT_FAILED", reason=reason)
        self.notifier.send(f"COMPONENT_FAILED: {reason}; trading stopped", 2500)
        # The next start must not go on as if nothing had happened.
        self._halt(f"the runner failed ({reason}); look at positions, then `live-runner resume`")

    def _halt(self, reason: str) -> None:
        path = Path(self.config.manual_override.flag_path)
        if not path.exists():
            write_flag(path, reason)
        self._say(f"HALTED: {reason}")
        self.notifier.send(f"HALTED: {reason}")

    async def _close(self, failure: BaseException | None) -> None:
        self._group = None
        await self._save_checkpoint()
        summary = self.reporter.summary(self._stop_reason, failure)
        self.reporter.record_equity()
        write_json(self.runtime / "status.json", self.reporter.status())
        await self.api.close()
        self.loop.journal.close()
        write_json(self.session_dir / "summary.json", summary)
        fields = {
            "session_id": self.session_id,
            "ended_wall_ns": time.time_ns(),
            "summary": json.dumps(summary),
        }
        self.storage.put(Record("sessions", fields))
        reason = self._stop_reason or "failure"
        self._audit("SESSION", "SESSION_ENDED", reason=reason, net_nano=summary["net_nano"])
        self._say(closing_lines(summary, self.session_dir))

    # ---- names ----

    @property
    def mode(self) -> str:
        return "shadow" if self.options.shadow else self.config.system.mode

    @property
    def account_ref(self) -> str:
        """Whose orders and positions a checkpoint speaks of. Every embedded exchange is another account."""
        instance = f":{self._endpoint.pid}-{self._endpoint.access.token[:8]}" if self._endpoint else ""
        shadow = ":shadow" if self.options.shadow else ""
        return f"{self.config.system.mode}:{self.client.account_id}{instance}{shadow}"

    @property
    def watermark(self) -> str:
        """SIMULATED as soon as the model or the market is."""
        return (
            models_.SIMULATED
            if self._endpoint and self._endpoint.watermark == models_.SIMULATED
            else self.model.watermark
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
