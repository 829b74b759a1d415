"""The engine: events in, commands out. No clock, no socket, no file, no thread, no chance.

``Engine.on`` is deterministic: the same configuration and the same events give the same commands, which is
what makes the backtest equal to trading and a recorded session replayable. Drivers hand events over one at a
time, in the order of their ``now_ns``, and carry the commands out in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from live.core import events as ev
from live.core.bars import MinuteBars
from live.core.books import Market
from live.core.commands import TONE_LIQUIDITY_HZ, Command
from live.core.config import EngineConfig, ModelParams
from live.core.desk import Desk
from live.core.errors import BadSnapshot, ClockWentBack, ImpossibleEvent, UnknownTicker
from live.core.gates import Gates
from live.core.holds import KINDS, Hold, HoldSet
from live.core.orders import Orders
from live.core.outbox import HoldBoard, Outbox
from live.core.portfolio import Portfolio
from live.core.positions import Position
from live.core.reconcile import Reconciler
from live.core.risk import RiskState
from live.core.spread import Spread, SpreadWatch, in_bps
from live.core.trader import Trader
from market.types import SECOND_NS, Instrument

SNAPSHOT_FORMAT = 1
MAX_AHEAD_NS = 30 * SECOND_NS
"""A snapshot from so far ahead of the clock is no rounding: market time would stand still until then."""

_OF_ONE_TICKER = frozenset(
    {ev.Book, ev.Trade, ev.Scores, ev.InferenceFailed, ev.TradingStatus, ev.Quarantine, ev.KnownOrder}
)


class Engine:
    """Trades ``instruments`` with ``model`` under ``config``.

    ``session_key`` is a UUID, fresh for each start of a process: client order ids derive from it and from a
    counter, so two sessions can never give one id to two orders.
    """

    def __init__(
        self,
        config: EngineConfig,
        instruments: Mapping[str, Instrument],
        model: ModelParams,
        session_key: str,
    ) -> None:
        self.config = config
        self.instruments = dict(instruments)
        self.session_key = session_key
        self.events = 0
        """Events taken so far; with the checkpoint it tells where in the journal to go on."""
        self._out = Outbox()
        self._board = HoldBoard(self._out)
        self._spreads = SpreadWatch(config.monitoring.spread_alert_millibps)
        self._risk = RiskState()
        self._markets = {t: Market(config.books, config.fallback.window_ns) for t in self.instruments}
        self._portfolio = Portfolio(
            self.instruments, self._risk, self._board, self._out, day_loss_nano=config.risk.day_loss_nano,
            max_consecutive_losses=config.risk.max_consecutive_losses,
            cooldown_ns=config.risk.loss_cooldown_ns,
        )  # fmt: skip
        self._gates = Gates(config, model, self._markets, self._risk, self._board, self._out)
        self._desk = Desk(config.execution, config.risk, self._portfolio, self._board, self._out, session_key)
        self._reconciler = Reconciler(config.execution, self._desk, self._portfolio, self._board, self._out)
        self._trader = Trader(
            config,
            self.instruments,
            self._markets,
            self._gates,
            self._desk,
            self._portfolio,
            self._board,
            self._out,
        )
        self._swapped_while_down = False
        self._restored = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.Book: self._on_book,
            ev.Trade: lambda trade: None,  # features need trades; the core does not
            ev.Scores: self._trader.on_scores,
            ev.InferenceFailed: self._on_inference_failed,
            ev.Timer: self._on_timer,
            ev.OrderUpdate: self._on_order_update,
            ev.KnownOrder: self._desk.adopt,
            ev.Reconciled: self._reconciler.on_reconciled,
            ev.DayCompared: self._gates.on_day_compared,
            ev.TradingStatus: self._gates.on_trading_status,
            ev.Connection: self._gates.on_connection,
            ev.Quarantine: self._gates.on_quarantine,
            ev.Override: self._gates.on_override,
            ev.Resume: self._on_resume,
            ev.ModelSwapped: self._gates.on_model_swapped,
            ev.PipelineMode: self._on_pipeline_mode,
            ev.PipelineReset: self._on_pipeline_reset,
            ev.ActiveInstruments: self._on_active_instruments,
            ev.Drift: self._gates.on_drift,
            ev.StageLatency: self._gates.on_latency,
            ev.VolatilityIndex: self._gates.on_volatility_index,
            ev.StopRequested: self._gates.on_stop,
        }

    # ---- the one way in

    def on(self, event: ev.Event) -> list[Command]:
        """Take one event and return what is to be done about it, in order.

        Raises ``ClockWentBack``, ``UnknownTicker`` or ``ImpossibleEvent`` for input that a correct driver
        cannot produce.
        """
        kind = type(event)
        handler = self._handlers.get(kind)
        if handler is None:
            raise ImpossibleEvent(f"{kind.__name__} is not an event of the engine")
        out, now_ns = self._out, event.now_ns
        if now_ns < out.now_ns:
            raise ClockWentBack(
                f"{kind.__name__} is stamped {now_ns}, "
                f"{out.now_ns - now_ns} ns before the event handed over last; "
                f"the driver must stamp events in the order in which it hands them over"
            )
        if kind in _OF_ONE_TICKER and (ticker := event.ticker) not in self._markets:  # type: ignore[union-attr]
            raise UnknownTicker(
                f"{kind.__name__} is about {ticker!r}; this engine trades {', '.join(self._markets)}"
            )
        out.begin(now_ns)
        if self.events == 0 or self._restored:
            self._start()
        self.events += 1
        self._gates.on_time()
        handler(event)
        if self._board.changed:
            self._board.changed = False
            self._trader.enforce_holds()
            self._board.changed = False
        return out.commands

    def _start(self) -> None:
        self._gates.start(swapped_while_down=self._swapped_while_down)
        if self._restored:
            self._restored = self._swapped_while_down = False
            self._desk.ask_about_doubtful()

    # ---- events that concern several parts

    def _on_book(self, book: ev.Book) -> None:
        gates, ticker = self._gates, book.ticker
        market = self._markets[ticker]
        gates.on_book_seen()
        if gates.distrusted(ticker):
            return
        fault = market.check(book)
        if fault is not None:
            gates.book_refused(ticker, fault)
            return
        if market.quarantined:
            gates.book_believed(ticker)
        market.take(book)
        self._watch_spread(book)
        if ticker in self._portfolio.holdings:
            self._portfolio.mark(ticker, book.bid_px[0], book.ask_px[0])
            self._trader.manage(ticker)

    def _watch_spread(self, book: ev.Book) -> None:
        told = self._spreads.look(book.ticker, book.bid_px[0], book.ask_px[0], book.now_ns)
        if told is not None:
            self._tell_spread(book.ticker, *told)

    def _tell_spread(self, ticker: str, spread: int, news: Spread) -> None:
        limit = self._spreads.limit_millibps
        word, tone_hz = ("LOW", TONE_LIQUIDITY_HZ) if news is Spread.WIDE else ("RESTORED", None)
        self._out.audit("RISK", f"LIQUIDITY_{word}", ticker=ticker, spread_millibps=spread, limit=limit)
        words = f"a spread of {in_bps(spread)} bps, the limit is {in_bps(limit)}"
        again = "" if tone_hz else "normal again, "
        self._out.notify("LIQUIDITY", f"LIQUIDITY {ticker}: {again}{words}", tone_hz)

    def _on_inference_failed(self, event: ev.InferenceFailed) -> None:
        self._trader.on_inference_failed(event)
        self._trader.manage(event.ticker)

    def _on_timer(self, event: ev.Timer) -> None:
        self._desk.on_time()
        self._reconciler.on_time()
        for ticker in list(self._portfolio.holdings):
            self._trader.manage(ticker)

    def _on_order_update(self, update: ev.OrderUpdate) -> None:
        order = self._desk.on_update(update)
        if order is not None:
            self._trader.after_timeout(order)
            self._trader.manage(order.ticker)

    def _on_resume(self, event: ev.Resume) -> None:
        for name, scope in self._gates.on_resume(event.names, event.reason):
            if name == "POSITION_MISMATCH":
                self._reconciler.adopt_foreign(scope)

    def _on_pipeline_mode(self, event: ev.PipelineMode) -> None:
        members = ",".join(event.members) or "all"
        self._out.audit(
            "RESOURCE",
            "PIPELINE_MODE",
            members=members,
            min_interval_ns=event.min_interval_ns,
            reason=event.reason,
        )

    def _on_active_instruments(self, event: ev.ActiveInstruments) -> None:
        """Rotate: out go those not listed, but never one with a position or a working order."""
        listed = set(event.tickers)
        if unknown := listed - self._markets.keys():
            raise UnknownTicker(f"ActiveInstruments names {', '.join(sorted(unknown))}, not traded here")
        self._out.audit("RESOURCE", "ROTATION", kept=",".join(event.tickers), reason=event.reason)
        for ticker in self._markets:
            busy = self._portfolio.lots(ticker) != 0 or bool(self._desk.orders.working(ticker))
            if ticker in listed or busy:
                self._board.lift("ROTATED_OUT", event.reason, scope=ticker)
            else:
                self._board.hold("ROTATED_OUT", event.reason, scope=ticker, tone_hz=None)

    def _on_pipeline_reset(self, event: ev.PipelineReset) -> None:
        self._out.audit("MODEL", "PIPELINE_RESET", ticker=event.ticker, reason=event.reason)

    # ---- questions

    @property
    def now_ns(self) -> int:
        return self._out.now_ns

    @property
    def holds(self) -> HoldSet:
        return self._board.holds

    @property
    def positions(self) -> Mapping[str, Position]:
        return self._portfolio.positions

    @property
    def stops(self) -> Mapping[str, int | None]:
        """The stop of each instrument that we are, or are about to be, in; ticks."""
        return {ticker: holding.stop_ticks for ticker, holding in self._portfolio.holdings.items()}

    def quarantined(self, ticker: str) -> bool:
        """Its last book is not believed, or there was none."""
        return self._markets[ticker].quarantined

    @property
    def orders(self) -> Orders:
        return self._desk.orders

    @property
    def risk(self) -> RiskState:
        return self._risk

    @property
    def model(self) -> ModelParams:
        return self._gates.model

    @property
    def rotated_out(self) -> frozenset[str]:
        """Instruments that need no features and no scores for now."""
        return frozenset(h.scope for h in self.holds if h.name == "ROTATED_OUT")

    @property
    def signals(self) -> int:
        """Signals seen: scores whose edge exceeded the threshold, and fallback signals."""
        return self._trader.signals

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often each named reason refused a signal."""
        return self._trader.refusals

    # ---- checkpoint

    def snapshot(self) -> dict[str, Any]:
        """Everything a restart needs, JSON-able: risk, positions, orders, holds, bars."""
        return {
            "format": SNAPSHOT_FORMAT,
            "now_ns": self.now_ns,
            "events": self.events,
            "session_key": self.session_key,
            "placed": self._desk.placed,
            "manifest_sha256": self.model.manifest_sha256,
            "risk": self._risk.to_dict(),
            "portfolio": self._portfolio.to_dict(),
            "orders": self.orders.to_list(),
            "holds": [hold.to_dict() for hold in self.holds],
            "bars": {t: market.bars.to_dict() for t, market in self._markets.items()},
            "last_fill_ns": dict(self._desk.last_fill_ns),
            "foreign_lots": dict(self._reconciler.foreign_lots),
            "cash_nano": self._reconciler.cash_nano,
            "signals": self.signals,
            "refusals": dict(self.refusals),
        }

    def restore(self, snapshot: dict[str, Any], now_ns: int | None = None) -> None:
        """Go on from the snapshot of an earlier session; before the first event. Raises ``BadSnapshot``.

        With ``now_ns`` a snapshot from over ``MAX_AHEAD_NS`` later is refused. An engine that refused one is
        of no further use. The error says what is wrong; the way out is the driver's to tell.

        Working orders become UNKNOWN until the broker says, and nothing is sent before the first
        ``Reconciled``. Holds that only time, a person or a new model may lift survive; the others are found
        out afresh.
        """
        try:
            self._check_restorable(snapshot)
            if now_ns is not None and snapshot["now_ns"] - now_ns > MAX_AHEAD_NS:
                ahead_s = (snapshot["now_ns"] - now_ns) // SECOND_NS
                raise BadSnapshot(
                    f"it is from {ahead_s} s ahead of the clock: that was set back, or was wrong when it was "
                    "written"
                )
            self._take_over(snapshot)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadSnapshot(
                f"another version of the program wrote it ({type(error).__name__}: {error})"
            ) from None

    def _take_over(self, snapshot: dict[str, Any]) -> None:
        self._out.now_ns = self._desk.restored_ns = snapshot["now_ns"]
        self._risk.restore(snapshot["risk"])
        self._portfolio.restore(snapshot["portfolio"])
        self._desk.orders = Orders.from_list([o for o in snapshot["orders"] if o["ticker"] in self._markets])
        self._desk.doubt_all()
        for fields in snapshot["holds"]:
            hold = Hold.from_dict(fields)
            if KINDS[hold.name].kept and (hold.scope == "*" or hold.scope in self._markets):
                self._board.holds.put(hold)
        for ticker, fields in snapshot["bars"].items():
            if ticker in self._markets:
                self._markets[ticker].bars = MinuteBars.from_dict(fields)
        self._desk.last_fill_ns = dict(snapshot["last_fill_ns"])
        self._reconciler.foreign_lots = dict(snapshot["foreign_lots"])
        self._trader.signals = snapshot["signals"]
        self._trader.refusals = dict(snapshot["refusals"])
        self._swapped_while_down = snapshot["manifest_sha256"] != self.model.manifest_sha256
        self._restored = True

    def _check_restorable(self, snapshot: dict[str, Any]) -> None:
        if self.events:
            raise BadSnapshot("an engine is restored before its first event, not after")
        if snapshot.get("format") != SNAPSHOT_FORMAT:
            raise BadSnapshot(
                f"its format is {snapshot.get('format')!r}, this version reads {SNAPSHOT_FORMAT}"
            )
        if other := snapshot.keys() ^ self.snapshot().keys():
            raise BadSnapshot(f"another version of the program wrote it ({', '.join(sorted(other))})")
        if snapshot["session_key"] == self.session_key:
            raise BadSnapshot(
                "a new session needs a new session key: with the old one order ids would repeat"
            )
        for ticker, position in snapshot["portfolio"]["positions"].items():
            if position["lots"] and ticker not in self._markets:
                raise BadSnapshot(f"it holds {position['lots']} lots of {ticker}, not traded in this session")
