"""What raises and lifts holds: the clock, the schedule, the connection, people, the model, the market's
state.
"""

from __future__ import annotations

from collections.abc import Mapping

from live.core import clock
from live.core.books import Market
from live.core.commands import RequestReconcile
from live.core.config import EngineConfig, ModelParams
from live.core.events import (
    Connection,
    DayCompared,
    Drift,
    ModelSwapped,
    Override,
    Quarantine,
    StageLatency,
    StopRequested,
    TradingStatus,
    VolatilityIndex,
)
from live.core.holds import KINDS, Severity
from live.core.outbox import HoldBoard, Outbox
from live.core.risk import RiskState
from live.core.words import decimal

PAUSES = ("LOSS_COOLDOWN", "REJECT_STREAK")
"""Holds that lift by themselves at their ``until_ns``."""


class Gates:
    """Turns events into holds. Decides nothing about orders."""

    def __init__(
        self,
        config: EngineConfig,
        model: ModelParams,
        markets: Mapping[str, Market],
        risk: RiskState,
        board: HoldBoard,
        out: Outbox,
    ) -> None:
        self.model = model
        self.risk = risk
        self._config = config
        self._markets = markets
        self._board = board
        self._out = out
        self._last_book_ns = 0
        self._last_error = ""
        self._channel: str | None = None
        self._violations: dict[str, int] = {}
        self._distrusted: dict[str, str] = {}  # ticker -> why the driver quarantined it
        self._day_ends_ns = 0
        self._due_ns = 0
        self._seen_version = -1

    # ---- time

    def start(self, *, swapped_while_down: bool = False) -> None:
        """The first event: nothing is sent before the broker's view of orders and positions is known."""
        self._last_book_ns = self._out.now_ns
        self._board.hold("NOT_RECONCILED", "the broker's orders and positions are not read yet")
        if swapped_while_down:
            self._board.lift("CRITICAL_DRIFT", "another model was loaded while the runner was down")

    def on_time(self) -> None:
        """Run before every event: holds that begin or end with the clock.

        Looks only when something is due or the holds have changed since; most events cost one comparison.
        """
        now_ns = self._out.now_ns
        if now_ns < self._due_ns and self._board.version == self._seen_version:
            return
        if now_ns >= self._day_ends_ns:
            self._new_day(now_ns)
        self._session(now_ns)
        for name in PAUSES:
            hold = self._board.holds.get(name)
            if hold is not None and hold.until_ns and now_ns >= hold.until_ns:
                self._board.lift(name, "the pause is over")
        if now_ns >= self.model.valid_until_ns:
            self._board.hold(
                "MODEL_EXPIRED", f"bundle {self.model.manifest_sha256[:12]} is past its valid_until"
            )
        self._heartbeat(now_ns)
        self._seen_version = self._board.version
        self._due_ns = self._next_due_ns(now_ns)

    def _next_due_ns(self, now_ns: int) -> int:
        """The earliest time at which the clock alone can raise or lift a hold."""
        holds = self._board.holds
        due = [self._day_ends_ns, clock.next_edge_ns(now_ns, self._config.session)]
        pauses = [hold for name in PAUSES if (hold := holds.get(name)) is not None]
        due += [hold.until_ns for hold in pauses if hold.until_ns]
        if holds.get("MODEL_EXPIRED") is None:
            due.append(self.model.valid_until_ns)
        if holds.get("HEARTBEAT") is None:
            monitoring = self._config.monitoring
            patience_ns = monitoring.heartbeat_interval_ns * monitoring.heartbeat_miss_threshold
            due.append(self._last_book_ns + patience_ns)
        return min(due)

    def _new_day(self, now_ns: int) -> None:
        offset = self._config.session.utc_offset_s
        day = clock.exchange_day(now_ns, offset)
        self._day_ends_ns = clock.day_start_ns(day + 1, offset)
        realised = self.risk.day_realised_nano
        if self.risk.roll(day):
            self._out.audit("RISK", "DAY_ROLLED", realised_nano=realised)
            self._board.lift("DAILY_LOSS", "a new exchange day")

    def _session(self, now_ns: int) -> None:
        session = self._config.session
        if clock.window_open(now_ns, session):
            if self._board.lift("SESSION", "the trading window is open"):
                self._last_book_ns = now_ns
        elif self._board.holds.get("SESSION") is None:
            opens_ns = clock.next_open_ns(now_ns, session)
            opens = clock.iso_time(opens_ns, session.utc_offset_s)
            self._board.hold(
                "SESSION", "outside the trading window", lifts_when=f"the window opens at {opens}",
                until_ns=opens_ns,
                text=f"trading is suspended; the next window opens at {opens} exchange time",
            )  # fmt: skip

    # ---- books

    def _heartbeat(self, now_ns: int) -> None:
        monitoring = self._config.monitoring
        holds = self._board.holds
        closed = holds.get("SESSION") is not None or all(
            holds.get("TRADING_STATUS", t) for t in self._markets
        )
        if not monitoring.heartbeat_enabled or closed:
            self._last_book_ns = now_ns
            return
        missed = (now_ns - self._last_book_ns) // monitoring.heartbeat_interval_ns
        if missed >= monitoring.heartbeat_miss_threshold:
            error = self._last_error or "no connection error was reported"
            self._board.hold(
                "HEARTBEAT", f"no book for {missed} intervals in a row; last connection error: {error}"
            )

    def on_book_seen(self) -> None:
        """A book of any instrument arrived, good or bad."""
        self._last_book_ns = self._out.now_ns
        if self._board.holds:
            self._board.lift("HEARTBEAT", "a book arrived")

    def book_refused(self, ticker: str, fault: str) -> None:
        self._markets[ticker].refuse()
        if self._board.hold("BOOK_QUARANTINE", fault, scope=ticker):
            return
        if self._out.often(ticker, f"book {fault}"):
            self._out.audit("CONNECTIVITY", "BOOK_REFUSED", ticker=ticker, reason=fault)

    def book_believed(self, ticker: str) -> None:
        self._board.lift("BOOK_QUARANTINE", "the book passes every check", scope=ticker)

    def distrusted(self, ticker: str) -> bool:
        """The driver itself asked not to use this instrument's books."""
        return ticker in self._distrusted

    def on_quarantine(self, event: Quarantine) -> None:
        if event.active:
            self._distrusted[event.ticker] = event.reason
            self._markets[event.ticker].distrust()
            self._board.hold("BOOK_QUARANTINE", event.reason or "the driver distrusts it", scope=event.ticker)
        else:
            # The hold stays until a book passes the core's own checks too.
            self._distrusted.pop(event.ticker, None)

    # ---- the connection

    def on_connection(self, event: Connection) -> None:
        if not event.up:
            self._last_error = event.error or self._last_error
            self._board.hold("CONNECTION", event.error or f"channel {event.channel} is down")
            return
        was_down = self._board.lift("CONNECTION", f"channel {event.channel} is up")
        moved = self._channel is not None and self._channel != event.channel
        self._channel = event.channel
        if not (was_down or moved):
            return
        self._board.hold("NOT_RECONCILED", f"reconnected over {event.channel}")
        self._out.add(RequestReconcile(f"reconnected over {event.channel}"))
        for ticker, market in self._markets.items():
            market.distrust()
            self._board.hold(
                "BOOK_QUARANTINE", "reconnected: the next book must pass every check", scope=ticker
            )

    def on_trading_status(self, event: TradingStatus) -> None:
        if event.tradable:
            if self._board.lift("TRADING_STATUS", event.text or "trading is open", scope=event.ticker):
                self._last_book_ns = self._out.now_ns
        else:
            self._board.hold("TRADING_STATUS", event.text or "not available for trading", scope=event.ticker)

    def on_day_compared(self, event: DayCompared) -> None:
        """Our deals of a day are the broker's, or nothing is opened before somebody has looked."""
        name = "DAY_DIFFERS_FROM_BROKER" if event.differences else "DAY_EQUALS_BROKER"
        self._out.audit("ORDER", name, day=event.day, deals=event.deals, differences=event.differences)
        if event.differences:
            self._board.hold(
                "LEDGER_MISMATCH", f"{event.day}: {event.differences} differences: {event.reason}"
            )
        else:
            self._board.lift("LEDGER_MISMATCH", f"the deals of {event.day} are the broker's")

    # ---- people

    def on_override(self, event: Override) -> None:
        if event.active:
            self._board.hold("MANUAL_OVERRIDE", event.reason or "no reason given")
        else:
            self._board.lift("MANUAL_OVERRIDE", event.reason or "the flag file is gone")

    def on_resume(self, names: tuple[str, ...], reason: str) -> list[tuple[str, str]]:
        """Lift what a person may lift; returns (name, scope) of what was lifted."""
        lifted: list[tuple[str, str]] = []
        for name in names or tuple(n for n, kind in KINDS.items() if kind.by_hand):
            kind = KINDS.get(name)
            if kind is None or not kind.by_hand:
                self._out.audit("RISK", "RESUME_REFUSED", hold=name, reason="a person cannot lift this hold")
                continue
            scopes = self._board.lift_everywhere(name, f"resumed by hand: {reason or 'no reason given'}")
            lifted += [(name, scope) for scope in scopes]
        if any(name == "LATENCY" for name, _ in lifted):
            self._violations.clear()
        if any(name == "REJECT_STREAK" for name, _ in lifted):
            self.risk.reject_streak = 0
        return lifted

    def on_stop(self, event: StopRequested) -> None:
        severity = Severity.FLATTEN if event.flatten else Severity.REDUCE_ONLY
        self._board.hold("STOP_REQUESTED", event.reason or "the process is asked to stop", severity=severity)

    # ---- the model and the market's state

    def on_model_swapped(self, event: ModelSwapped) -> None:
        self.model = ModelParams.from_dict({**event.params, "manifest_sha256": event.manifest_sha256})
        self._due_ns = 0
        self._out.audit("MODEL", "MODEL_SWAPPED", manifest_sha256=event.manifest_sha256)
        self._out.notify("MODEL_SWAPPED", f"MODEL_SWAPPED: now trading bundle {event.manifest_sha256[:12]}")
        self._board.lift("CRITICAL_DRIFT", "the model was reloaded")
        if self._out.now_ns < self.model.valid_until_ns:
            self._board.lift("MODEL_EXPIRED", "the new bundle is valid")

    def on_drift(self, event: Drift) -> None:
        self._out.audit(
            "MODEL", "DRIFT", metric=event.metric, value_e6=event.value_e6, critical=int(event.critical)
        )
        if event.critical:
            self._board.hold("CRITICAL_DRIFT", f"{event.metric} is {decimal(event.value_e6, 6)}")

    def on_volatility_index(self, event: VolatilityIndex) -> None:
        threshold = self._config.risk.vix_threshold_e2
        if event.value_e2 > threshold:
            words = f"volatility index {decimal(event.value_e2, 2)} is above {decimal(threshold, 2)}"
            self._board.hold("VOLATILITY", words)

    def on_latency(self, event: StageLatency) -> None:
        latency = self._config.latency
        threshold = latency.thresholds_us.get(event.stage)
        if threshold is None or event.micros <= threshold:
            self._violations[event.stage] = 0
            return
        run = self._violations[event.stage] = self._violations.get(event.stage, 0) + 1
        if self._out.often(event.stage, "latency"):
            self._out.audit(
                "RISK", "LATENCY_VIOLATION", stage=event.stage, micros=event.micros, limit=threshold
            )
            self._out.notify(
                "LATENCY_VIOLATION",
                f"LATENCY_VIOLATION: {event.stage} took {event.micros} us, limit {threshold} us",
            )
        if run >= latency.violation_limit:
            self._board.hold("LATENCY", f"{event.stage} was over {threshold} us {run} times in a row")
