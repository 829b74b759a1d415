"""One session of the runner: its parts, put together in the order in which they need each other.

Bundle (pulled, verified) -> storage, audit -> broker (account, instruments) -> checkpoint and what earlier
sessions left unresolved -> engine, pipeline, executor -> streams. Nothing runs yet: ``live.tasks`` keeps the
parts going, ``live.runner`` is the life around them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live import checkpoint, takeover
from live import config as configuration
from live import model as models_
from live.assembly import assemble
from live.audit import AuditLog
from live.broker.api import TinkoffAPI
from live.broker.channel import Access, PaperEndpoint, broker_access
from live.broker.client import BrokerClient, OrderReport
from live.broker.link import Link
from live.broker.route import Ways
from live.broker.stops import StopDesk
from live.capacity import Capacity
from live.clock import MarketClock
from live.code_state import code_commit
from live.config_schema import RunnerConfig
from live.connectivity import FailoverWatch
from live.core.events import Connection, Event
from live.drift import DriftMonitor, reference_of, thresholds_of
from live.executor import OrderDesk
from live.inbox import Inbox
from live.loop import EngineLoop
from live.model import LoadedModel
from live.notify import Notifier
from live.paper_child import PaperChild, running_endpoint, start_exchange
from live.performance import PerformanceReports
from live.reload import AliasFollower
from live.reporting import Reporter
from live.storage import Record, Storage
from live.watch import OverrideFlag, RunnerLock, write_flag
from market.fees import tariff
from market.types import SECOND_NS, Instrument

if TYPE_CHECKING:
    from live.record_run import RunRecorder


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides. ``shadow``: imagine orders, send none. ``record``: a recording's
    folder, None for no recording.
    """

    alias: str
    shadow: bool = False
    quiet: bool = False
    record: Path | None = None


class Session:
    """``await prepare()`` makes every part; they are attributes from then on."""

    model: LoadedModel
    tickers: tuple[str, ...]
    instruments: dict[str, Instrument]
    fee_ppm: dict[str, int]
    storage: Storage
    api: TinkoffAPI
    client: BrokerClient
    desk: OrderDesk
    restored: takeover.Checkpoint
    loop: EngineLoop
    link: Link
    capacity: Capacity
    drift: DriftMonitor
    failover: FailoverWatch
    flag: OverrideFlag
    follower: AliasFollower
    reporter: Reporter

    def __init__(self, config: RunnerConfig, options: Options, notifier: Notifier) -> None:
        self.config, self.options, self.notifier = config, options, notifier
        self.runtime = Path(config.system.runtime_dir)
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.key = str(uuid.uuid4())
        self.folder = self.runtime / "session" / self.id
        self.inbox = Inbox(config.data.queue_length)
        self.reconcile_wanted = asyncio.Event()
        self._saving = asyncio.Lock()
        self.child: PaperChild | None = None
        self.endpoint: PaperEndpoint | None = None
        self.group: asyncio.TaskGroup | None = None
        """Where orders run while the session trades; None before and after."""
        self.recorder: RunRecorder | None = None
        self.performance: PerformanceReports | None = None
        self.audit = AuditLog(self.runtime / "audit.log", self.id)
        self.clock = MarketClock.wall()
        """Of this machine until the market's is known."""
        self.ways = Ways(config.connectivity)
        self.checkpoint_path = self.runtime / "checkpoint.json"
        self.stops: StopDesk | None = None
        """Protective stops at the broker, with ``execution.exchange_stop``."""

    # ---- preparation ----

    async def prepare(self, stack: ExitStack, wait: Callable[[Session], Awaitable[bool]]) -> bool:
        """``wait`` is called when the checkpoint is read and nothing goes on from it yet; where it answers
        False the start is called off, and so does this.
        """
        config = self.config
        self.model = await asyncio.to_thread(models_.fetch, config, self.options.alias)
        self.tickers = models_.tickers(config, self.model.bundle)
        access = await self.ways.open(await self._access())
        models_.check_expiry(self.model, self.clock.now_ns())
        fallback = self.runtime / "signals.fallback.jsonl"
        self.storage = Storage.open(
            Path(config.storage.path), fallback, retention_days=config.storage.retention_days
        )
        stack.callback(self.storage.close)
        self.api = TinkoffAPI(access, transport=config.broker.transport, time_scale=self.clock.speed)
        self.client = self.api.client
        try:
            await self._know_the_market()
            if not self.options.shadow:
                stack.callback(RunnerLock.of_account(self.account_ref).release)
            self.restored = takeover.read_checkpoint(self.checkpoint_path, self.account_ref, self.audit_line)
            if not await wait(self):
                await self.disconnect()
                return False
            assemble(self)
            if self.options.record is not None:
                self.recorder = self._build_recorder(self.options.record)
                stack.callback(self.recorder.close)
            await self._open_session()
        except BaseException:
            await self.disconnect()
            raise
        return True

    def clock_behind_s(self) -> float:
        """How long the clock must go on before it may be gone on from the checkpoint; mostly 0. The machine's
        clock is read anew each time: it is just being set.
        """
        if self.restored.body is None or self.config.system.mode == "paper":
            return 0.0
        if takeover.wait_ns(self.restored.body, self.clock.now_ns()):
            self.clock = MarketClock.wall()
        return takeover.wait_ns(self.restored.body, self.clock.now_ns()) / SECOND_NS

    async def disconnect(self) -> None:
        await self.api.close()
        await self.ways.close()

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
            self.child, endpoint = await start_exchange(
                config.paper,
                tickers=self.tickers,
                from_ns=from_ns,
                to_ns=config.paper.to_ns,
                log=self.runtime / "paper" / "exchange.log",
            )
        self.endpoint = endpoint
        self.clock = MarketClock(endpoint.market_start_ns, endpoint.speed)
        return endpoint.access

    async def _know_the_market(self) -> None:
        await self.client.choose_account()
        if reason := await self.client.learn_limits():
            self.audit_line("RESOURCE", "TARIFF_UNKNOWN", reason=reason)
        boards = dict(name.partition("_")[::2] for name in self.config.data.instruments)
        self.instruments = {}
        for ticker in self.tickers:
            board = boards.get(ticker) or self.model.bundle.instruments[ticker].class_code
            self.instruments[ticker] = await self.client.instrument(f"{ticker}_{board}")
        models_.check_instruments(self.model.bundle, self.instruments)
        rates = tariff(self.endpoint.tariff if self.endpoint else self.config.broker.tariff)
        self.fee_ppm = {ticker: rates.ppm(i) for ticker, i in self.instruments.items()}
        self.client.set_fees(self.fee_ppm)

    def _build_recorder(self, path: Path) -> RunRecorder:
        """A folder that cannot be recorded into is said before trading begins."""
        from live.record_run import RunRecorder  # Arrow takes 30 MB: only who records pays for it

        recorder = RunRecorder(
            path,
            self.instruments,
            mode=self.mode,
            watermark=self.endpoint.watermark if self.endpoint else "REAL",
            tariff=self.endpoint.tariff if self.endpoint else self.config.broker.tariff,
            facts={"session_id": self.id, "alias": self.model.alias, "manifest": self.model.sha256},
            now_ns=self.clock.now_ns,
            failed=self._recording_failed,
        )
        self.loop.watchers.append(recorder.commands)
        return recorder

    def _recording_failed(self, reason: str) -> None:
        self.audit_line("RESOURCE", "RECORDING_ENDED", reason=reason)
        self.notifier.send(f"RECORDING_ENDED: {reason}; trading goes on")

    def more(self) -> dict[str, Any]:
        """What the status file says of the session's own parts."""
        return {
            "data": self.loop.data.report(self.clock.now_ns()),
            **self.capacity.report(),
            "failover": {"count": self.failover.failovers, "last_ms": self.failover.last_ms},
            "drift": self.drift.report(),
            "shadow": None if self.loop.beside is None else self.loop.beside.report(),
            "exchange_stops": None if self.stops is None else self.stops.open_stops,
        }

    async def _open_session(self) -> None:
        if self.restored.halt:
            self.halt(self.restored.halt)
        fields = {
            "session_id": self.id,
            "session_key": self.key,
            "mode": self.mode,
            "account": self.account_ref,
            "alias": self.model.alias,
            "model_version": self.model.version,
            "manifest_sha256": self.model.sha256,
            "watermark": self.watermark,
            "started_wall_ns": time.time_ns(),
            "code_commit": await asyncio.to_thread(code_commit),
            "config": json.dumps(configuration.to_dict(self.config)),
        }
        await self.storage.commit(
            Record("sessions", fields), Record("meta", {"key": "session_id", "value": self.id})
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
            adopt_stop=self._adopt_stop,
            audit=self.audit_line,
        )

    def _adopt_stop(self, row: dict[str, Any]) -> None:
        if self.stops is not None:
            self.stops.adopt(
                row["client_order_id"], self.instruments[row["ticker"]], row["side"], row["lots"],
                row["price_ticks"], row["created_ns"], row["exchange_order_id"] or "",
            )  # fmt: skip

    def announce(self) -> None:
        """The session's first line in the audit and on the terminal."""
        self.audit_line(
            "SESSION",
            "SESSION_STARTED",
            mode=self.mode,
            alias=self.model.alias,
            version=self.model.version,
            manifest=self.model.sha256,
            watermark=self.watermark,
        )
        self.say(self.reporter.headline())

    # ---- what the parts call ----

    def watch_drift(self, model: LoadedModel) -> None:
        """From now on drift is measured against what ``model`` was trained on."""
        reference = reference_of(model.bundle)
        if not reference:
            self.audit_line("MODEL", "DRIFT_NOT_WATCHED", reason="the bundle carries no reference")
        self.drift = DriftMonitor(
            reference, thresholds_of(model.bundle), self.config.monitoring, model.sha256, self.runtime,
            self.post, self.audit_line,
        )  # fmt: skip

    def post(self, event: Event) -> None:
        """The way into the engine. A market event that finds the queue full is counted, and told once."""
        if not self.inbox.post(event) and self.inbox.dropped == 1:
            self.audit_line("RESOURCE", "QUEUE_FULL", length=self.config.data.queue_length)
            self.notifier.send("QUEUE_FULL: market data is being dropped, this machine is too slow")

    def from_link(self, event: Event) -> None:
        if self.recorder is not None:
            self.recorder.take(event)
        self.post(event)
        if isinstance(event, Connection):
            self.failover.on_connection(event)
            if event.up:
                self.reconcile_wanted.set()

    def on_report(self, report: OrderReport) -> None:
        if self.loop.shadow is not None:
            return
        told: OrderReport | None = report
        if self.stops is not None:
            known = self.loop.engine.orders.get(report.client_order_id) is not None
            told = self.stops.claim(report, known)
        self.loop.executor.report(told)

    def on_stop(self, report: OrderReport) -> None:
        self.loop.executor.report(report)

    def spawn(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self.group is None:
            body.close()
            raise AssertionError("orders exist only while the runner trades")
        return self.group.create_task(body, name=name)

    async def save_checkpoint(self) -> None:
        """One at a time: the periodic one and that of a copy would write the same file."""
        async with self._saving:
            await self._save_checkpoint()

    async def _save_checkpoint(self) -> None:
        body = {
            "session_id": self.id,
            "account": self.account_ref,
            "engine": self.loop.engine.snapshot(),
            "pipeline": self.loop.pipeline.state(),
        }
        try:
            await asyncio.to_thread(checkpoint.save, self.checkpoint_path, body)
        except OSError as error:
            self.audit_line("RESOURCE", "CHECKPOINT_NOT_WRITTEN", reason=str(error))
            self.notifier.send(f"CHECKPOINT_NOT_WRITTEN: {error}")

    def halt(self, reason: str) -> None:
        path = Path(self.config.manual_override.flag_path)
        if not path.exists():
            write_flag(path, reason)
        self.say(f"HALTED: {reason}")
        self.notifier.send(f"HALTED: {reason}")

    def progress_marks(self) -> dict[str, int]:
        """What grows while work gets done, for the watchdog (``live.systemd``)."""
        storage = self.storage
        return {
            "engine": self.loop.busy_ns,
            "status": int(self.reporter.last().get("wall_ns", 0)),
            # Nothing to write is no standstill.
            "database": storage.handled if storage.waiting else time.monotonic_ns(),
        }

    # ---- names ----

    @property
    def mode(self) -> str:
        return "shadow" if self.options.shadow else self.config.system.mode

    @property
    def account_ref(self) -> str:
        """Whose orders and positions a checkpoint speaks of. Every embedded exchange is another account."""
        instance = f":{self.endpoint.pid}-{self.endpoint.access.token[:8]}" if self.endpoint else ""
        shadow = ":shadow" if self.options.shadow else ""
        return f"{self.config.system.mode}:{self.client.account_id}{instance}{shadow}"

    @property
    def watermark(self) -> str:
        """SIMULATED as soon as the model or the market is."""
        return (
            models_.SIMULATED
            if self.endpoint and self.endpoint.watermark == models_.SIMULATED
            else self.model.watermark
        )

    def say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, flush=True)

    def audit_line(self, tag: str, event: str, **fields: Any) -> None:
        self.audit.write(self.clock.now_ns(), tag, event, fields)
