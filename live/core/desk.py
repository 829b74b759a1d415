"""Our orders at the broker: sending, following, cancelling, asking again, reconciling. Decides nothing about
trades.
"""

from __future__ import annotations

from uuid import UUID, uuid5

from live.core.commands import (
    TONE_RISK_HZ,
    CancelOrder,
    OrderChanged,
    OrderType,
    PlaceOrder,
    QueryOrder,
    RequestReconcile,
    Role,
    TimeInForce,
)
from live.core.config import ExecutionConfig, RiskConfig
from live.core.errors import ImpossibleEvent
from live.core.events import KnownOrder, OrderUpdate
from live.core.orders import CANCELLED, INTENT, REJECTED, UNKNOWN, Move, Order, Orders
from live.core.outbox import HoldBoard, Outbox
from live.core.plan import Leg, OrderPlan
from live.core.portfolio import Portfolio

LATE_QUERY_FACTOR = 16
"""After ``max_queries`` an order is still asked about, at this multiple of the longest pause: never for ever
silent.
"""


class Desk:
    """The only place that emits ``PlaceOrder``; the gate is asked here, for every order."""

    def __init__(
        self, execution: ExecutionConfig, risk_config: RiskConfig, portfolio: Portfolio, board: HoldBoard,
        out: Outbox, session_key: str,
    ) -> None:  # fmt: skip
        self.orders = Orders()
        self.placed = 0
        self.last_fill_ns: dict[str, int] = {}
        self.timed_out: set[str] = set()
        """Limit rests that were withdrawn for their time and are not UNKNOWN; of working orders only."""
        self.restored_ns = -1
        """Time of the checkpoint that we go on from: orders placed before are in it, or long done. One placed
        at that very moment is in it, or came right after."""
        self._execution = execution
        self._risk_config = risk_config
        self._portfolio = portfolio
        self._risk = portfolio.risk
        self._board = board
        self._out = out
        self._namespace = UUID(session_key)

    # ---- sending

    def enter(self, plan: OrderPlan, leg: Leg, reason: str) -> Order | None:
        """Ask for one leg of an approved plan, unless a hold forbids it (None)."""
        if leg not in plan.legs:
            raise ImpossibleEvent(f"{leg} is no part of the plan for {plan.ticker}")
        return self._send(
            plan.trace_id, plan.ticker, plan.direction, leg.lots, leg.order_type, leg.price_ticks, leg.tif,
            "ENTRY", reason,
        )  # fmt: skip

    def leave(self, ticker: str, trace_id: str, reason: str) -> Order | None:
        """Close the whole position at market, unless a hold forbids it (None)."""
        side, lots = self._against(ticker)
        return self._send(trace_id, ticker, side, lots, "market", None, "fak", "EXIT", reason)

    def protect(self, ticker: str, trace_id: str, stop_ticks: int, reason: str) -> Order | None:
        """A stop order for the whole position, unless a hold forbids it (None)."""
        side, lots = self._against(ticker)
        return self._send(trace_id, ticker, side, lots, "stop", stop_ticks, "day", "STOP", reason)

    def _against(self, ticker: str) -> tuple[int, int]:
        """(side, lots) that end the position: what reduces can never be more than there is."""
        lots = self._portfolio.lots(ticker)
        if lots == 0:
            raise ImpossibleEvent(f"there is no position in {ticker} to close")
        return (-1, lots) if lots > 0 else (1, -lots)

    def _send(
        self, trace_id: str, ticker: str, side: int, lots: int, order_type: OrderType,
        price_ticks: int | None, tif: TimeInForce, role: Role, reason: str,
    ) -> Order | None:  # fmt: skip
        """The only place that makes a ``PlaceOrder``: after the gate. ENTRY opens; EXIT and STOP reduce."""
        reduces = role != "ENTRY"
        if self._board.holds.blocking(ticker, reduces=reduces) is not None:
            return None
        client_order_id = str(uuid5(self._namespace, f"{self.placed}"))
        self.placed += 1
        now_ns = self._out.now_ns
        order = Order(
            client_order_id,
            trace_id,
            ticker,
            side,
            lots,
            order_type,
            price_ticks,
            role,
            reason,
            now_ns,
            changed_ns=now_ns,
        )
        self.orders.add(order)
        self._risk.order_placed(now_ns)
        self._out.add(
            PlaceOrder(
                trace_id, client_order_id, ticker, side, lots, order_type, price_ticks, tif, reduces, reason
            )
        )
        self._out.audit(
            "ORDER", "ORDER_PLACED", ticker=ticker, client_order_id=client_order_id, trace_id=trace_id,
            role=role, side=side, lots=lots, type=order_type,
            price_ticks=price_ticks if price_ticks is not None else "-", reason=reason,
        )  # fmt: skip
        return order

    def cancel(self, order: Order, reason: str) -> None:
        """Ask for a cancel; asked again only after ``ack_timeout_ns``. Cancels pass every hold."""
        now_ns = self._out.now_ns
        if order.settled or (
            order.cancel_asked_ns and now_ns - order.cancel_asked_ns < self._execution.ack_timeout_ns
        ):
            return
        order.cancel_asked_ns = now_ns
        self._out.add(CancelOrder(order.client_order_id, reason))
        self._out.audit("ORDER", "CANCEL_ASKED", client_order_id=order.client_order_id, reason=reason)

    # ---- following

    def on_update(self, update: OrderUpdate) -> Order | None:
        """What the broker says of an order of ours: book its deals, move its state, name nonsense."""
        for fill in update.fills:
            if fill.lots <= 0 or fill.price_ticks <= 0 or not fill.trade_id:
                raise ImpossibleEvent(
                    f"order {update.client_order_id}: a deal without lots, price or id: {fill}"
                )
        order = self.orders.get(update.client_order_id)
        if order is None:
            self._foreign(update)
            return None
        verdict = order.judge(update)
        before = order.state
        # Deals are money: they are booked whatever the state says.
        fills = order.new_fills(update)
        for fill in fills:
            self.last_fill_ns[order.ticker] = update.now_ns
            self._portfolio.book_fill(order, fill)
        if verdict is Move.LEGAL:
            order.take(update)
            self._count_rejects(order, update, before)
            if order.state == UNKNOWN:
                self._forget_rest(order)
        if verdict is Move.ILLEGAL or order.lots_filled > order.lots:
            self._illegal(order, update, before)
        elif verdict is Move.ECHO:
            self._out.audit(
                "ORDER", "ORDER_ECHO", client_order_id=order.client_order_id, state=before, said=update.status
            )
        self.orders.refile(order)
        self._schedule_query(order)
        self._settle_unknown(order.ticker)
        if order.state != before or fills:
            self._tell(order, update.reason)
        return order

    def _forget_rest(self, order: Order) -> None:
        """Its outcome may be known only when its signal is stale: what is left of it is not sent."""
        if order.client_order_id in self.timed_out:
            self.timed_out.discard(order.client_order_id)
            self._out.audit("ORDER", "REST_GIVEN_UP", client_order_id=order.client_order_id)

    def _foreign(self, update: OrderUpdate) -> None:
        self._out.audit(
            "ORDER", "FOREIGN_ORDER", client_order_id=update.client_order_id, status=update.status,
            lots_executed=update.lots_executed,
        )  # fmt: skip
        if self._out.often(update.client_order_id, "foreign order"):
            self._out.add(
                RequestReconcile(f"the broker reports an order that is not ours: {update.client_order_id}")
            )

    def _illegal(self, order: Order, update: OrderUpdate, before: str) -> None:
        words = (
            f"order {order.client_order_id} cannot go from {before} to {update.status} "
            f"({update.lots_executed} executed, {order.lots_filled} booked of {order.lots})"
        )
        self._out.audit(
            "ORDER",
            "ORDER_MOVE_ILLEGAL",
            client_order_id=order.client_order_id,
            state=before,
            said=update.status,
        )
        self._board.hold("ORDER_STATE", words, scope=order.ticker)
        self._out.add(RequestReconcile(words))

    def _count_rejects(self, order: Order, update: OrderUpdate, before: str) -> None:
        if update.status == UNKNOWN or before == update.status:
            return
        if update.status != REJECTED:
            self._risk.reject_streak = 0
            return
        self._risk.reject_streak += 1
        streak = self._risk.reject_streak
        self._out.audit(
            "ORDER", "ORDER_REJECTED", client_order_id=order.client_order_id, reason=update.reason
        )
        if streak >= self._risk_config.reject_streak_limit:
            until_ns = self._out.now_ns + self._risk_config.reject_pause_ns
            words = f"{streak} orders rejected in a row, the last one: {update.reason or 'no reason given'}"
            self._board.hold("REJECT_STREAK", words, until_ns=until_ns)
            self._risk.reject_streak = 0

    def _tell(self, order: Order, reason: str) -> None:
        self._out.add(
            OrderChanged(
                self._out.now_ns,
                order.trace_id,
                order.client_order_id,
                order.exchange_order_id,
                order.ticker,
                order.side,
                order.lots,
                order.lots_filled,
                order.role,
                order.state,
                reason,
            )
        )

    # ---- not knowing

    @staticmethod
    def unclear(order: Order) -> bool:
        """The broker owes us an answer: an unknown state, or executed lots without their deals."""
        return order.state == UNKNOWN or order.lots_executed > order.lots_filled

    def _schedule_query(self, order: Order) -> None:
        if not self.unclear(order):
            if not order.cancel_asked_ns:
                order.queries = order.query_due_ns = 0
            return
        # Deals usually follow their state within moments; an unknown outcome is worth a hold at once.
        if order.state == UNKNOWN:
            self._board.hold(
                "ORDER_UNKNOWN", f"order {order.client_order_id}: no word of its outcome", scope=order.ticker
            )
        if order.query_due_ns == 0:
            first = 0 if order.state == UNKNOWN else self._execution.query_interval_ns
            order.query_due_ns = self._out.now_ns + first
            if first == 0:
                self._query(order)

    def _query(self, order: Order) -> None:
        order.queries += 1
        doublings = min(order.queries, self._execution.max_queries) - 1
        pause = self._execution.query_interval_ns << doublings
        if order.queries >= self._execution.max_queries:
            pause *= LATE_QUERY_FACTOR
        order.query_due_ns = self._out.now_ns + pause
        self._out.add(QueryOrder(order.client_order_id, order.queries))
        if order.queries == self._execution.max_queries:
            words = (
                f"order {order.client_order_id} in {order.ticker} is unknown after {order.queries} queries"
            )
            self._out.audit("ORDER", "ORDER_QUERIES_EXHAUSTED", client_order_id=order.client_order_id)
            self._out.notify(
                "ORDER_UNKNOWN", f"ORDER_UNKNOWN: {words}; look at the broker's own terminal", TONE_RISK_HZ
            )
            self._out.add(RequestReconcile(words))

    def _settle_unknown(self, ticker: str) -> None:
        if not any(self.unclear(order) for order in self.orders.working(ticker)):
            self._board.lift("ORDER_UNKNOWN", "the broker answered", scope=ticker)

    def on_time(self) -> None:
        """Time-outs: orders nobody answered, limit rests past their time, cancels without effect, due
        queries.
        """
        now_ns = self._out.now_ns
        execution = self._execution
        for order in self.orders.all_working():
            if order.state == INTENT and now_ns - order.placed_ns >= execution.ack_timeout_ns:
                order.state, order.changed_ns = UNKNOWN, now_ns
                self._out.audit("ORDER", "ORDER_UNANSWERED", client_order_id=order.client_order_id)
                self._tell(order, "no answer in time")
                self._schedule_query(order)
            elif self.unclear(order):
                if now_ns >= order.query_due_ns:
                    if order.state != UNKNOWN:
                        self._board.hold(
                            "ORDER_UNKNOWN",
                            f"order {order.client_order_id}: deals are missing",
                            scope=order.ticker,
                        )
                    self._query(order)
            elif order.cancel_asked_ns:
                if now_ns - order.cancel_asked_ns >= execution.ack_timeout_ns:
                    self._query(order)
                    self.cancel(order, "the cancel had no effect yet")
            elif order.order_type == "limit" and now_ns - order.placed_ns >= execution.order_timeout_ns:
                self.timed_out.add(order.client_order_id)
                self.cancel(order, "ORDER_TIMEOUT")

    # ---- after a restart

    def adopt(self, event: KnownOrder) -> None:
        """Take an order from the driver's database that the checkpoint did not have yet."""
        if self.orders.get(event.client_order_id) is not None:
            return
        if event.placed_ns < self.restored_ns:
            self._out.audit("ORDER", "ORDER_OLDER_THAN_CHECKPOINT", client_order_id=event.client_order_id)
            return
        self.orders.add(
            Order(
                event.client_order_id,
                event.trace_id,
                event.ticker,
                event.side,
                event.lots,
                event.order_type,
                event.price_ticks,
                event.role,
                event.reason,
                event.placed_ns,
                state=UNKNOWN,
                changed_ns=event.now_ns,
            )
        )
        self._schedule_query(self.orders.working(event.ticker)[-1])

    def doubt_all(self) -> None:
        """After ``restore``: every working order is unknown until the broker says."""
        for order in self.orders.all_working():
            order.state = UNKNOWN
            order.queries = order.query_due_ns = order.cancel_asked_ns = 0

    def ask_about_doubtful(self) -> None:
        for order in self.orders.all_working():
            self._schedule_query(order)

    def presume_gone(self, order: Order) -> None:
        """The broker neither lists the order nor answers about it, and positions agree: it never lived."""
        order.state, order.changed_ns = CANCELLED, self._out.now_ns
        self.timed_out.discard(order.client_order_id)
        self._out.audit("ORDER", "ORDER_PRESUMED_GONE", client_order_id=order.client_order_id)
        self.orders.refile(order)
        self._settle_unknown(order.ticker)
        self._tell(order, "absent at the broker")
