"""Decisions: when to enter, with what plan; when and how to leave. All orders pass the desk's gate."""

from __future__ import annotations

from collections.abc import Mapping

from live.core import signals
from live.core.books import Market
from live.core.commands import TONE_RISK_HZ, RecordSignal, Refuse
from live.core.config import EngineConfig
from live.core.desk import Desk
from live.core.events import Book, InferenceFailed, Scores
from live.core.gates import Gates
from live.core.holds import Severity
from live.core.orders import CANCELLED, Order
from live.core.outbox import HoldBoard, Outbox
from live.core.plan import OrderPlan, Touch
from live.core.planner import Planner, touch_of
from live.core.portfolio import Holding, Portfolio
from live.core.refusals import Reason, Throttle
from live.core.signals import Signal
from live.core.spread import in_bps
from live.core.words import decimal
from market.types import MILLISECOND_NS, Instrument

MAX_RETRY_DOUBLINGS = 5


class Trader:
    """One position an instrument: entered on a signal, left on horizon, reversal, stop or a FLATTEN hold."""

    def __init__(
        self, config: EngineConfig, instruments: Mapping[str, Instrument], markets: Mapping[str, Market],
        gates: Gates, desk: Desk, portfolio: Portfolio, board: HoldBoard, out: Outbox,
    ) -> None:  # fmt: skip
        self.refusals: dict[str, int] = {}
        self.signals = 0
        self._told = Throttle()
        self._planner = Planner(config, instruments, markets, gates, desk, portfolio, board, out)
        self._config = config
        self._instruments = instruments
        self._markets = markets
        self._gates = gates
        self._desk = desk
        self._portfolio = portfolio
        self._risk = portfolio.risk
        self._board = board
        self._out = out

    # ---- scores

    def on_scores(self, scores: Scores) -> None:
        """A score moves a position towards its end, or opens one when it is a signal."""
        ticker = scores.ticker
        threshold = self._gates.model.threshold_millibps.get(ticker)
        book = self._markets[ticker].book
        cost = 0 if book is None else self._cost(book)
        holding = self._portfolio.holdings.get(ticker)
        if holding is not None and self._portfolio.lots(ticker):
            holding.score_ns = scores.now_ns
            if book is not None and not holding.exit_reason:
                self._judge(scores, holding, cost, threshold)
            self.manage(ticker)
        elif threshold is None:
            self._refuse(
                scores.trace_id, ticker, Reason.NO_THRESHOLD, "the model never trades this instrument"
            )
        elif book is None:
            self._refuse(scores.trace_id, ticker, Reason.NO_BOOK, "no book is believed")
        else:
            signal = signals.find(
                scores.trace_id,
                ticker,
                scores.p_e6,
                scores.expected_move_millibps,
                cost,
                threshold,
                scores.source,
            )
            if signal is not None:
                self._enter(signal, touch_of(book))

    def _judge(self, scores: Scores, holding: Holding, cost: int, threshold: int | None) -> None:
        """Is the position to end for what the model now expects?"""
        against = -holding.direction * scores.expected_move_millibps
        strong = threshold is not None and against - cost > threshold
        aged = scores.now_ns - holding.opened_ns >= self._gates.model.horizon_ns
        if strong:
            holding.exit_reason = "REVERSAL"
        elif aged and -against < self._gates.model.exit_move_millibps:
            holding.exit_reason = "HORIZON"

    def _cost(self, book: Book) -> int:
        slippage_ticks = self._config.execution.slippage_ticks
        return signals.cost_millibps(
            book.bid_px[0], book.ask_px[0], self._planner.fee_ppm(book.ticker), slippage_ticks
        )

    def on_inference_failed(self, event: InferenceFailed) -> None:
        """The fallback: one-sided and moving enough, the last window itself is a signal, within an hourly
        quota.
        """
        ticker, fallback = event.ticker, self._config.fallback
        if self._out.often(ticker, "inference failed"):
            self._out.audit("MODEL", "INFERENCE_FAILED", ticker=ticker, error=event.error)
        if not fallback.enabled or self._portfolio.lots(ticker) or self._desk.orders.working(ticker):
            return
        if self._gates.model.threshold_millibps.get(ticker) is None:
            self._refuse(
                event.trace_id, ticker, Reason.NO_THRESHOLD, "the model never trades this instrument"
            )
            return
        books, imbalance_e6, volatility = self._markets[ticker].window(event.now_ns)
        book = self._markets[ticker].book
        if book is None or books < fallback.min_books:
            self._fallback_unavailable(ticker, f"only {books} books in the window")
            return
        if (
            abs(imbalance_e6) < fallback.imbalance_threshold_e6
            or volatility < fallback.volatility_threshold_millibps
        ):
            return
        hold = self._board.holds.blocking(ticker, reduces=False)
        if hold is not None:
            self._refuse(event.trace_id, ticker, f"HOLD_{hold.name}", hold.reason)
            return
        if self._risk.fallbacks.count(event.now_ns) >= fallback.max_signals_per_hour:
            self._fallback_unavailable(
                ticker, f"the quota of {fallback.max_signals_per_hour} an hour is used up"
            )
            return
        self._risk.fallbacks.add(event.now_ns)
        direction = 1 if imbalance_e6 > 0 else -1
        confidence = fallback.confidence_e6
        self._out.audit(
            "MODEL", "FALLBACK_SIGNAL", ticker=ticker, trace_id=event.trace_id, direction=direction,
            imbalance_e6=imbalance_e6, volatility_millibps=volatility, confidence_e6=confidence,
        )  # fmt: skip
        words = f"imbalance {decimal(imbalance_e6, 6)}, volatility {in_bps(volatility)} bps"
        self._out.notify("FALLBACK_SIGNAL", f"FALLBACK_SIGNAL {ticker}: {words}")
        rest = 1_000_000 - confidence
        p_e6 = (0, rest, confidence) if direction > 0 else (confidence, rest, 0)
        cost = self._cost(book)
        self._enter(
            Signal(event.trace_id, ticker, direction, p_e6, 0, cost, 0, confidence, "fallback"),
            touch_of(book),
        )

    def _fallback_unavailable(self, ticker: str, why: str) -> None:
        self._count("FALLBACK_UNAVAILABLE")
        if self._out.often(ticker, "FALLBACK_UNAVAILABLE"):
            self._out.audit("MODEL", "FALLBACK_UNAVAILABLE", ticker=ticker, reason=why)
            self._out.notify("FALLBACK_UNAVAILABLE", f"FALLBACK_UNAVAILABLE {ticker}: {why}")

    # ---- entering

    def _enter(self, signal: Signal, touch: Touch) -> None:
        """Make the plan of a signal and send it, or refuse it by name."""
        self.signals += 1
        plan = self._planner.entry(signal.trace_id, signal.ticker, signal.direction, touch)
        if not isinstance(plan, OrderPlan):
            reason, detail = plan
            if self._refuse(signal.trace_id, signal.ticker, reason, detail):
                self._record(signal, reason)
            return
        self._record(signal, "ENTRY")
        self._out.audit(
            "RISK", "ORDER_PLAN", ticker=plan.ticker, trace_id=plan.trace_id, direction=plan.direction,
            lots=plan.lots, entry_ticks=plan.entry_ticks, stop_ticks=plan.stop_ticks,
            bound_by=plan.volume.bound_by,
        )  # fmt: skip
        self._portfolio.holdings[plan.ticker] = Holding(plan.trace_id, plan.direction, plan.stop_ticks)
        for leg in plan.legs:
            self._desk.enter(plan, leg, f"SIGNAL {signal.source}")

    def after_timeout(self, order: Order) -> None:
        """A limit rest that nobody took in time is withdrawn: what is left of it goes to market, where the
        configuration wants that, the cancel was confirmed in time, and every limit still allows it.
        """
        if order.client_order_id not in self._desk.timed_out or not order.settled:
            return
        self._desk.timed_out.discard(order.client_order_id)
        holding = self._portfolio.holdings.get(order.ticker)
        left = order.lots - order.lots_filled
        if self._config.execution.timeout_action != "market" or order.state != CANCELLED or left <= 0:
            return
        if holding is None or holding.exit_reason or holding.direction != order.side:
            return
        execution, age_ns = self._config.execution, self._out.now_ns - order.placed_ns
        if age_ns > execution.order_timeout_ns + execution.ack_timeout_ns:
            self._refuse(
                order.trace_id, order.ticker, Reason.LATE_REST,
                f"the order was placed {age_ns // MILLISECOND_NS} ms ago: its signal is stale",
            )  # fmt: skip
            return
        plan = self._planner.rest(order, holding)
        if isinstance(plan, OrderPlan):
            self._desk.enter(plan, plan.legs[0], "ORDER_TIMEOUT")
        else:
            self._refuse(order.trace_id, order.ticker, *plan)

    # ---- leaving

    def manage(self, ticker: str) -> None:
        """Bring what we hold in line with the stop, the horizon and the holds. Called whenever something
        moved.
        """
        holding = self._portfolio.holdings.get(ticker)
        lots = self._portfolio.lots(ticker)
        if lots == 0:
            self._tidy_flat(ticker, holding)
            return
        if holding is None:
            return
        if not holding.exit_reason:
            holding.exit_reason = self._exit_reason(ticker, holding)
            if holding.exit_reason:
                self._out.audit(
                    "RISK",
                    "EXIT_DECIDED",
                    ticker=ticker,
                    trace_id=holding.trace_id,
                    reason=holding.exit_reason,
                )
            if holding.exit_reason == "STOP":
                self._out.notify(
                    "STOP", f"STOP {ticker}: the market is beyond {holding.stop_ticks} ticks", TONE_RISK_HZ
                )
        if holding.exit_reason:
            self._leave(ticker, holding)
        elif self._config.execution.exchange_stop:
            self._protect(ticker, holding, lots)

    def _exit_reason(self, ticker: str, holding: Holding) -> str:
        if self._board.holds:
            for hold in self._board.holds.over(ticker):
                if hold.severity is Severity.FLATTEN:
                    return f"HOLD_{hold.name}"
        lots = self._portfolio.lots(ticker)
        if lots * holding.direction < 0:
            return "UNPLANNED"
        book = self._markets[ticker].book
        if book is not None and holding.stop_ticks is not None:
            leaving_ticks = book.bid_px[0] if lots > 0 else book.ask_px[0]
            if (leaving_ticks - holding.stop_ticks) * holding.direction <= 0:
                return "STOP"
        now_ns, horizon_ns = self._out.now_ns, self._gates.model.horizon_ns
        age_ns = now_ns - holding.opened_ns
        if age_ns >= horizon_ns * self._config.risk.max_holding_horizons:
            return "MAX_AGE"
        if age_ns >= horizon_ns and now_ns - holding.score_ns >= horizon_ns:
            return "NO_SCORES"
        return ""

    def _leave(self, ticker: str, holding: Holding) -> None:
        """Close at market, once at a time: never while another order could close the same lots."""
        if self._cancel_entries_and_stops(ticker, holding.exit_reason):
            return
        if self._out.now_ns < holding.exit_not_before_ns:
            return
        order = self._desk.leave(ticker, holding.trace_id, holding.exit_reason)
        if order is not None:
            pause = self._config.execution.exit_retry_ns << min(holding.exit_attempts, MAX_RETRY_DOUBLINGS)
            holding.exit_attempts += 1
            holding.exit_not_before_ns = self._out.now_ns + pause

    def _cancel_entries_and_stops(self, ticker: str, reason: str) -> bool:
        """Withdraw what works against an exit; True while an exit or a stop could still close lots."""
        closing = False
        for order in self._desk.orders.working(ticker):
            if order.role == "EXIT":
                closing = True
            else:
                self._desk.cancel(order, reason)
                closing = closing or order.role == "STOP"
        return closing

    def _tidy_flat(self, ticker: str, holding: Holding | None) -> None:
        working = self._desk.orders.working(ticker)
        for order in working:
            # A stop that a crash left behind has no holding either; without a position it must not wait.
            if order.role == "STOP" or (holding is not None and holding.exit_reason):
                self._desk.cancel(order, "the position is closed")
        if not working and holding is not None:
            del self._portfolio.holdings[ticker]

    def _protect(self, ticker: str, holding: Holding, lots: int) -> None:
        """Keep exactly one stop order of the right size at the broker, once the entry is complete."""
        working = self._desk.orders.working(ticker)
        stops = [order for order in working if order.role == "STOP"]
        if len(working) > len(stops) or holding.stop_ticks is None:
            return
        for order in stops:
            if order.lots != abs(lots):
                self._desk.cancel(order, "the position has another size")
        if not stops and self._out.now_ns >= holding.exit_not_before_ns:
            self._desk.protect(ticker, holding.trace_id, holding.stop_ticks, "EXCHANGE_STOP")
            holding.exit_not_before_ns = self._out.now_ns + self._config.execution.exit_retry_ns

    def enforce_holds(self) -> None:
        """After holds changed: withdraw entries where a hold says so, leave where one says FLATTEN."""
        for order in self._desk.orders.all_working():
            worst = self._board.holds.worst(order.ticker)
            if order.role == "ENTRY" and worst is not None and worst.severity >= Severity.REDUCE_ONLY:
                self._desk.cancel(order, f"HOLD_{worst.name}")
        for ticker in list(self._portfolio.holdings):
            self.manage(ticker)

    # ---- telling

    def _count(self, reason: str) -> int:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
        return self.refusals[reason]

    def _refuse(self, trace_id: str, ticker: str, reason: str, detail: str) -> bool:
        """Count a refusal; tell it (True) at most once a minute for each instrument and reason."""
        self._count(str(reason))
        since = self._told.count(self._out.now_ns, ticker, str(reason))
        if since:
            self._out.add(Refuse(self._out.now_ns, trace_id, ticker, str(reason), detail, since))
        return bool(since)

    def _record(self, signal: Signal, outcome: str) -> None:
        self._out.add(
            RecordSignal(
                self._out.now_ns,
                signal.trace_id,
                signal.ticker,
                signal.direction,
                signal.p_e6,
                signal.expected_move_millibps,
                signal.cost_millibps,
                signal.edge_millibps,
                signal.confidence_e6,
                signal.source,
                str(outcome),
            )
        )
