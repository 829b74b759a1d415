"""Comparing our books with the broker's. The broker is the truth for quantities; a disagreement is a hold and
a report, never an invented trade.
"""

from __future__ import annotations

from live.core.commands import RequestReconcile
from live.core.config import ExecutionConfig
from live.core.desk import Desk
from live.core.events import OpenOrder, Reconciled
from live.core.orders import UNKNOWN
from live.core.outbox import HoldBoard, Outbox
from live.core.portfolio import Portfolio
from live.core.words import roubles


class Reconciler:
    """Judges each ``Reconciled``. ``foreign_lots``: lots that a person declared to be his own."""

    def __init__(
        self, execution: ExecutionConfig, desk: Desk, portfolio: Portfolio, board: HoldBoard, out: Outbox
    ) -> None:
        self.foreign_lots: dict[str, int] = {}
        self.cash_nano = 0
        self._cash_read_ns = 0
        """When cash was read last; 0 in a new session: what happened while nobody looked is not compared."""
        self._last: dict[str, int] = {}
        self._again_ns = 0
        self._execution = execution
        self._desk = desk
        self._portfolio = portfolio
        self._board = board
        self._out = out

    def on_reconciled(self, event: Reconciled) -> None:
        asked_ns = event.asked_ns or event.now_ns
        self._watch_cash(event.cash_nano, asked_ns)
        listed = {order.client_order_id: order for order in event.open_orders}
        self._last = dict(event.positions)
        strangers = self._strangers(event.open_orders)
        deferred = [
            t for t in self._portfolio.positions if not self._compare(t, event, listed, strangers, asked_ns)
        ]
        self._board.lift("NOT_RECONCILED", "orders and positions were read from the broker")
        self._again_ns = event.now_ns + self._execution.position_settle_ns if deferred else 0
        self._out.audit(
            "ORDER", "RECONCILED_WITH_BROKER", positions=sum(1 for lots in event.positions.values() if lots),
            open_orders=len(event.open_orders), deferred=len(deferred), cash_nano=event.cash_nano,
        )  # fmt: skip

    def _watch_cash(self, cash_nano: int, asked_ns: int) -> None:
        """Cash that moved between two readings though we did not trade: somebody else's deal, a payment, a
        charge. Told, never a reason to stop: quantities decide that.
        """
        before, self.cash_nano = self.cash_nano, cash_nano
        since_ns, self._cash_read_ns = self._cash_read_ns, asked_ns
        if not since_ns or cash_nano == before:
            return
        settle_ns = self._execution.position_settle_ns
        traded = any(at >= since_ns - settle_ns for at in self._desk.last_fill_ns.values())
        if traded or self._desk.orders.all_working():
            return
        self._out.audit(
            "ORDER", "CASH_MOVED", before_nano=before, after_nano=cash_nano, by_nano=cash_nano - before
        )
        words = f"the account's cash changed by {roubles(cash_nano - before)} without a deal of ours"
        self._out.notify("CASH_MOVED", f"CASH_MOVED: {words}")

    def on_time(self) -> None:
        """Ask for another reading once what was moving has had time to settle."""
        if self._again_ns and self._out.now_ns >= self._again_ns:
            self._again_ns = 0
            self._out.add(RequestReconcile("an instrument was moving while the broker was read"))

    def _compare(
        self,
        ticker: str,
        event: Reconciled,
        listed: dict[str, OpenOrder],
        strangers: dict[str, str],
        asked_ns: int,
    ) -> bool:
        """Compare one instrument; False when it is moving and must be looked at again."""
        broker = event.positions.get(ticker, 0) - self.foreign_lots.get(ticker, 0)
        ours = self._portfolio.lots(ticker)
        for order in self._desk.orders.working(ticker):
            # Asked about as often as allowed, not listed, and no lots are missing: it never reached the
            # exchange.
            exhausted = order.state == UNKNOWN and order.queries >= self._execution.max_queries
            complete = order.lots_executed <= order.lots_filled
            if exhausted and complete and order.client_order_id not in listed and broker == ours:
                self._desk.presume_gone(order)
        if self._moving(ticker) or (broker != ours and self._filled_since(ticker, asked_ns)):
            # Entries here wait until a later reading finds the instrument at rest and in agreement.
            if self._board.holds.get("NOT_RECONCILED") is not None:
                self._board.hold(
                    "NOT_RECONCILED", "an order was still open when the broker was read", scope=ticker
                )
            return False
        self._board.lift("NOT_RECONCILED", "orders and positions agree", scope=ticker)
        if broker == ours:
            self._board.lift("ORDER_STATE", "our position equals the broker's", scope=ticker)
        words = strangers.get(ticker, "")
        if broker != ours:
            words = f"the broker holds {broker} lots of {ticker}, our books say {ours}"
        if not words:
            self._board.lift("POSITION_MISMATCH", "our books equal the broker's", scope=ticker)
        elif self._board.hold("POSITION_MISMATCH", words, scope=ticker):
            self._out.add(RequestReconcile(words))
        return True

    def _moving(self, ticker: str) -> bool:
        """Is an order open that may fill at any moment? A protective stop at rest is not."""
        return any(o.role != "STOP" or self._desk.unclear(o) for o in self._desk.orders.working(ticker))

    def _filled_since(self, ticker: str, asked_ns: int) -> bool:
        """Could a disagreement be a deal that the broker's positions did not show yet?"""
        filled_ns = self._desk.last_fill_ns.get(ticker)
        return filled_ns is not None and filled_ns > asked_ns - self._execution.position_settle_ns

    def _strangers(self, open_orders: tuple[OpenOrder, ...]) -> dict[str, str]:
        """Working orders that we did not send may fill at any moment: the instrument is not ours alone."""
        found = {}
        for order in open_orders:
            if (
                self._desk.orders.get(order.client_order_id) is None
                and order.ticker in self._portfolio.positions
            ):
                name = order.client_order_id or order.exchange_order_id
                found[order.ticker] = f"the broker lists an order that is not ours: {name}"
        return found

    def adopt_foreign(self, ticker: str) -> None:
        """A person resumed over a mismatch: what the broker holds beyond our books is his."""
        self.foreign_lots[ticker] = self._last.get(ticker, 0) - self._portfolio.lots(ticker)
        self._out.audit("RISK", "FOREIGN_LOTS", ticker=ticker, lots=self.foreign_lots[ticker])
