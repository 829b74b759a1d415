"""The parts around the engine: ``assemble`` fills a session that knows its broker.

The checkpoint is restored here, because the journal begins with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from live import beside, takeover
from live import config as configuration
from live import model as models_
from live.broker.link import Policy
from live.broker.stops import LOOK_S, StopDesk
from live.capacity import Capacity
from live.config_schema import RunnerConfig
from live.connectivity import FailoverWatch
from live.core.engine import Engine
from live.data_engine import DataEngine
from live.executor import Executor
from live.gpu import GpuFailover
from live.journal import Header, JournalWriter
from live.latency import Latencies
from live.ledger import Ledger
from live.loop import EngineLoop
from live.pipeline import SignalPipeline, model_params
from live.registry import pinned
from live.reload import AliasFollower
from live.reporting import Reporter
from live.shadow import ShadowDesk
from live.watch import OverrideFlag
from live.why import SignalReasons
from market.types import SECOND_NS
from models.inference import Ensemble

if TYPE_CHECKING:
    from live.session import Session


CANARY = "canary"
"""The alias whose orders are capped at ``model.canary_max_lots``."""


def assemble(session: Session) -> None:
    """Engine, pipeline, executor, loop, and what watches and feeds them."""
    config = session.config
    ensemble, no_gpu = models_.ensemble_somewhere(config, session.model, session.tickers)
    params = model_params(ensemble)
    engine_config = configuration.engine_config(config, session.fee_ppm)
    if pinned(session.model.alias)[0] == CANARY:
        engine_config = configuration.capped(engine_config, config.model.canary_max_lots)
    engine = Engine(engine_config, session.instruments, params, session.key)
    ledger, latencies = Ledger(session.instruments), Latencies()
    shadow = _desk(session)
    _restore(session, engine, ledger, shadow)
    executor = _executor(session, ledger, latencies, shadow)
    pipeline = SignalPipeline(session.tickers, ensemble, session.key, clock_ns=time.monotonic_ns)
    if session.restored.pipeline is not None:
        afresh = pipeline.restore(session.restored.pipeline)
        session.audit_line("MODEL", "MODEL_STATE", afresh=afresh or "-")
    header = Header(
        session.id, session.key, engine_config, session.instruments, params, session.watermark,
        session.restored.body, session.restored.pipeline,
    )  # fmt: skip
    journal = JournalWriter(session.folder, header)
    session.loop = EngineLoop(
        session.inbox, engine, pipeline, journal, executor, ledger, latencies, _data_engine(session), shadow
    )
    _watchers(session, ensemble, no_gpu)
    if config.model.shadow_alias and shadow is None:
        session.loop.beside = beside.start(
            config, engine_config, session.instruments, session.fee_ppm, session.clock.now_ns(), session.key,
            session.folder, session.audit_line, session.notifier, lambda: session.capacity.guard.simplified,
        )  # fmt: skip
    _edges(session, config)


def _desk(session: Session) -> ShadowDesk | None:
    """Where orders go: to the broker, through its stop orders too, or nowhere but imagination."""
    config, clock = session.config, session.clock
    if session.options.shadow:
        latency = configuration.backtest_latency(config.backtest)
        shadow = ShadowDesk(session.instruments, session.fee_ppm, latency, clock)
        session.desk = shadow
        return shadow
    session.desk = session.client
    if config.execution.exchange_stop:
        look_s = clock.wall_seconds(LOOK_S) if clock.speed > 1 else LOOK_S
        session.stops = StopDesk(session.client, clock.now_ns, session.on_stop, look_s=look_s)
        session.desk = session.stops
    return None


def _restore(session: Session, engine: Engine, ledger: Ledger, shadow: ShadowDesk | None) -> None:
    """The checkpoint of this account, if there is one."""
    if session.restored.body is None:
        return
    now_ns = session.clock.now_ns() if session.clock.anchored else None
    takeover.restore(engine, session.checkpoint_path, session.restored.body, now_ns)
    session.clock.not_before(engine.now_ns)
    for ticker, position in engine.positions.items():
        ledger.restore_position(ticker, position.lots, position.cost_nano)
        if shadow is not None:
            shadow.adopt_position(ticker, position.lots)
    for hold in engine.holds:
        ledger.restore_hold(hold)
    for order in engine.orders.all_working():
        if session.stops is not None and order.order_type == "stop" and order.price_ticks is not None:
            session.stops.adopt(
                order.client_order_id, session.instruments[order.ticker], order.side, order.lots,
                order.price_ticks, order.placed_ns, order.exchange_order_id,
            )  # fmt: skip


def _executor(session: Session, ledger: Ledger, latencies: Latencies, shadow: ShadowDesk | None) -> Executor:
    executor = Executor(
        desk=session.desk,
        storage=session.storage,
        audit=session.audit,
        notifier=session.notifier,
        ledger=ledger,
        latencies=latencies,
        clock=session.clock,
        instruments=session.instruments,
        session_id=session.id,
        post=session.post,
        spawn=session.spawn,
        want_reconcile=lambda reason: session.reconcile_wanted.set(),
        shadow=shadow is not None,
    )
    if shadow is not None:
        shadow.on_report = executor.report
    return executor


def _watchers(session: Session, ensemble: Ensemble, no_gpu: str) -> None:
    """Resources and rotation, drift, the GPU."""
    config, now_ns, audit, notifier = (
        session.config, session.clock.now_ns, session.audit_line, session.notifier
    )  # fmt: skip
    session.capacity = Capacity(config, session.loop, ensemble.weights, session.post, now_ns, audit, notifier)
    session.watch_drift(session.model)
    gpu = GpuFailover(session.capacity.modes, session.post, now_ns, audit, notifier)
    session.loop.on_model_error = gpu.on_error
    if no_gpu:
        gpu.tell(no_gpu)


def _data_engine(session: Session) -> DataEngine:
    data = session.config.data
    ttl_ns = int(data.ttl_seconds * SECOND_NS)
    return DataEngine(session.instruments, ttl_ns=ttl_ns, ring_length=data.ring_length)


def _edges(session: Session, config: RunnerConfig) -> None:
    """Connection, pollers, reports."""
    connectivity = config.connectivity
    session.link = session.api.connect(
        {i.uid: i for i in session.instruments.values()},
        session.clock,
        session.from_link,
        session.on_report,
        depth=config.data.depth,
        backup=session.ways.backup,
        policy=Policy(connectivity.failure_threshold, connectivity.recovery_message_count),
        silence_s=connectivity.silence_seconds,
    )
    session.failover = FailoverWatch(
        connectivity.failover_latency_ms, lambda: session.link.switched_mono_ns, session.loop.data.clear,
        session.audit_line, session.notifier,
    )  # fmt: skip
    override = config.manual_override
    session.flag = OverrideFlag(Path(override.flag_path), override.auto_resume_minutes * 60)
    session.follower = AliasFollower(
        config, session.model, session.instruments, session.loop, session.clock, session.notifier,
        session.post, session.audit_line, session.watch_drift,
    )  # fmt: skip
    reasons = SignalReasons(session.loop.pipeline)
    session.loop.watchers.append(reasons.on_commands)
    session.reporter = Reporter(
        session.id,
        session.mode,
        session.watermark,
        session.loop,
        session.link,
        session.clock,
        session.storage,
        session.notifier,
        session.follower,
        reasons,
        config.session.timezone,
        more=session.more,
    )
