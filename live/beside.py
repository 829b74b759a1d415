"""A shadow model beside the live one: it scores the same market, and what it would have done is recorded.

It has its own pipeline, engine and simulated broker, and no way to send anything. It comes after the live
decision on every event. Whatever goes wrong in it ends the shadow and is told; trading goes on.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from live import model as models_
from live.config import backtest_latency
from live.config_schema import RunnerConfig
from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig
from live.core.engine import Engine
from live.notify import Notifier
from live.pipeline import SignalPipeline, model_params
from live.simbroker import SimBroker
from market.errors import ScalperError
from market.types import NANO, Instrument

MAX_LINES = 100_000
"""A shadow that orders more than this is recorded no further; what is left out is counted and told."""

_MARKET = (
    ev.Book, ev.Trade, ev.Timer, ev.TradingStatus, ev.Connection, ev.Quarantine, ev.VolatilityIndex,
    ev.Resume,
)  # fmt: skip
"""What a shadow hears of. Halts and losses of the live book are not its own."""
VOLATILITY = "VOLATILITY"
"""The one hold of the market that a person lifts: lifted for the live book, it is for the shadow."""


class ShadowRun:
    """``take`` every event of the live loop, after the live engine has answered. ``name``: its alias.

    ``failed`` is called once, with the reason, when the shadow ends by itself. ``paused``: true while the
    machine has no room for it.
    """

    def __init__(
        self, name: str, engine: Engine, pipeline: SignalPipeline, broker: SimBroker, path: Path,
        *, failed: Callable[[str], None], paused: Callable[[], bool] = lambda: False, version: str = "",
    ) -> None:  # fmt: skip
        self.name, self.version = name, version
        self._engine, self._pipeline, self._broker, self._path = engine, pipeline, broker, path
        self._failed, self._paused = failed, paused
        self._file: IO[str] | None = None
        self._lines = 0
        self.over = False
        self._from_ns = self._to_ns = 0
        self._resting = False
        self.scores = self.orders = self.fills = 0
        self._reconciled = False

    def take(self, event: ev.Event) -> None:
        if self.over or not isinstance(event, _MARKET):
            return
        resume = isinstance(event, ev.Resume)
        if isinstance(event, ev.Resume):
            if event.names and VOLATILITY not in event.names:
                return
            event = replace(event, names=(VOLATILITY,))
        try:
            if not resume and self._rests(event.now_ns):
                return
            self._take(event)
            if not resume:
                self._from_ns, self._to_ns = self._from_ns or event.now_ns, event.now_ns
        except Exception as error:  # noqa: BLE001 a shadow must never reach the live book; it is told and ended
            self.over = True
            self._failed(f"{type(error).__name__}: {error}")

    def _rests(self, now_ns: int) -> bool:
        """Whether the machine has no room; its rests are recorded, for what it missed is not its result."""
        resting = self._paused()
        if resting != self._resting:
            self._resting = resting
            self._record("pause" if resting else "continue", {}, now_ns)
        return resting

    def _take(self, event: ev.Event) -> None:
        now_ns = event.now_ns
        for update in self._broker.poll(now_ns):
            self._tell(replace(update, now_ns=max(update.now_ns, self._engine.now_ns)))
        if isinstance(event, ev.Book):
            self._broker.on_book(
                event.ticker, event.bid_px, event.bid_qty, event.ask_px, event.ask_qty, now_ns
            )
        elif isinstance(event, ev.Trade):
            self._broker.on_trade(event.ticker, event.price_ticks, event.lots, event.side, now_ns)
        if not self._reconciled:
            self._reconciled = True
            self._tell(self._broker.reconciled(now_ns))
        self._tell(event)
        if isinstance(event, ev.Trade):
            self._pipeline.on_trade(event)
        elif isinstance(event, ev.Connection) and not event.up:
            self._pipeline.reset()
        elif isinstance(event, ev.Book):
            answer = self._pipeline.on_book(event)
            if answer is not None:
                self.scores += 1
                self._tell(answer)

    def _tell(self, event: ev.Event) -> None:
        reconcile = False
        for command in self._engine.on(event):
            match command:
                case cmd.PlaceOrder():
                    self.orders += 1
                    self._record("order", asdict(command), event.now_ns)
                    self._broker.send(command, event.now_ns)
                case cmd.CancelOrder() | cmd.QueryOrder():
                    self._broker.send(command, event.now_ns)
                case cmd.RequestReconcile():
                    reconcile = True
                case cmd.RecordSignal():
                    self._record("signal", asdict(command), event.now_ns)
                case cmd.FillBooked():
                    self.fills += 1
                    self._record("fill", asdict(command), event.now_ns)
                case cmd.TripClosed():
                    self._record("trip", asdict(command), event.now_ns)
        if reconcile:
            self._tell(self._broker.reconciled(event.now_ns))

    def _record(self, kind: str, said: Mapping[str, Any], now_ns: int) -> None:
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 closed with the session
        row = {"kind": kind, "now_ns": now_ns, **said}
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()

    @property
    def net_nano(self) -> int:
        """Realised result after fees; what is open is not counted."""
        return sum(p.realised_nano - p.fees_nano for p in self._engine.positions.values())

    def report(self) -> dict[str, Any]:
        """For the status file and the summary."""
        return {
            "alias": self.name,
            "version": self.version,
            "manifest_sha256": self._engine.model.manifest_sha256,
            "scores": self.scores,
            "signals": self._engine.signals,
            "orders": self.orders,
            "fills": self.fills,
            "net_rub": round(self.net_nano / NANO, 2),
            "over": self.over,
            # Market time of the first and the last event that it took whole; lines that the file lacks.
            "from_ns": self._from_ns,
            "to_ns": self._to_ns,
            "lines_dropped": max(0, self._lines - MAX_LINES),
            "file": self._path.name,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def start(
    config: RunnerConfig, engine_config: EngineConfig, instruments: Mapping[str, Instrument],
    fee_ppm: Mapping[str, int], now_ns: int, key: str, folder: Path, audit: Callable[..., None],
    notifier: Notifier, paused: Callable[[], bool],
) -> ShadowRun | None:  # fmt: skip
    """The shadow of ``model.shadow_alias``. None, and told, when its bundle cannot be used: the session goes
    on without it. Blocking (it fetches).
    """
    alias, tickers = config.model.shadow_alias, tuple(instruments)

    def failed(reason: str) -> None:
        audit("MODEL", "SHADOW_ENDED", alias=alias, reason=reason)
        notifier.send(f"SHADOW_ENDED {alias}: {reason}; trading goes on")

    try:
        found = models_.fetch(config, alias)
        models_.check_expiry(found, now_ns)
        ensemble, _ = models_.ensemble_somewhere(config, found, tickers)
        params = model_params(ensemble)
    except ScalperError as error:
        failed(str(error))
        return None
    audit("MODEL", "SHADOW_STARTED", alias=alias, manifest=found.sha256, version=found.version)
    return ShadowRun(
        alias,
        Engine(engine_config, instruments, params, str(uuid.uuid4())),
        SignalPipeline(tickers, ensemble, key),
        SimBroker(instruments, fee_ppm, backtest_latency(config.backtest)),
        folder / f"shadow-{alias}.jsonl",
        failed=failed,
        paused=paused,
        version=str(found.version),
    )
