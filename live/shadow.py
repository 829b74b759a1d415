"""Shadow trading: the runner as it is, its orders recorded and filled in imagination, none ever sent.

``ShadowDesk`` answers like a broker but holds no connection at all, so there is nothing it could send with.
It fills orders by ``live.simbroker`` from the runner's own market events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from live.broker.client import AccountState, OrderReport
from live.clock import MarketClock
from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.core.events import Book, OpenOrder, OrderUpdate, Trade
from live.simbroker import SimBroker
from market.latency import Latency
from market.types import Instrument


class ShadowDesk:
    """The ``OrderDesk`` of shadow mode. ``on_report`` gets the imagined answers."""

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        fee_ppm: Mapping[str, int],
        latency: Latency,
        clock: MarketClock,
    ) -> None:
        self._sim = SimBroker(instruments, fee_ppm, latency)
        self._clock = clock
        self._orders: dict[str, PlaceOrder] = {}
        self._last: dict[str, OrderUpdate] = {}
        self._positions: dict[str, int] = {}
        self._booked: set[str] = set()
        self.on_report: Callable[[OrderReport], None] = lambda report: None

    # ---- what the executor asks ----

    async def place(self, order: PlaceOrder, instrument: Instrument) -> None:
        self._orders[order.client_order_id] = order
        self._sim.send(order, self._clock.now_ns())

    async def cancel(self, client_order_id: str, exchange_order_id: str) -> None:
        self._sim.send(CancelOrder(client_order_id, ""), self._clock.now_ns())

    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport | None:
        if client_order_id not in self._orders:
            # An order of an earlier shadow session: it existed only in that process.
            return OrderReport(
                client_order_id, "CANCELLED", reason="the shadow session that imagined it is over"
            )
        self._sim.send(QueryOrder(client_order_id, 1), self._clock.now_ns())
        return None

    async def state(self) -> AccountState:
        working = []
        for key, order in self._orders.items():
            last = self._last.get(key)
            if last is not None and last.status in ("NEW", "PARTIAL"):
                working.append(
                    OpenOrder(
                        key, last.exchange_order_id, order.ticker, order.side, order.lots, last.lots_executed
                    )
                )
        return AccountState({t: n for t, n in self._positions.items() if n}, tuple(working), 0, {})

    def adopt_position(self, ticker: str, lots: int) -> None:
        """A position of the restored checkpoint."""
        self._positions[ticker] = lots

    # ---- the market ----

    def on_book(self, book: Book) -> None:
        self._sim.on_book(book.ticker, book.bid_px, book.bid_qty, book.ask_px, book.ask_qty, book.now_ns)
        self.on_time(book.now_ns)

    def on_trade(self, trade: Trade) -> None:
        self._sim.on_trade(trade.ticker, trade.price_ticks, trade.lots, trade.side, trade.now_ns)
        self.on_time(trade.now_ns)

    def on_time(self, now_ns: int) -> None:
        """Reports what is due by ``now_ns``."""
        for update in self._sim.poll(now_ns):
            order = self._orders[update.client_order_id]
            self._last[update.client_order_id] = update
            for fill in update.fills:
                key = f"{update.client_order_id}/{fill.trade_id}"
                if key not in self._booked:
                    self._booked.add(key)
                    self._positions[order.ticker] = (
                        self._positions.get(order.ticker, 0) + order.side * fill.lots
                    )
            self.on_report(
                OrderReport(
                    update.client_order_id,
                    update.status,
                    update.exchange_order_id,
                    update.lots_executed,
                    update.fills,
                    update.reason,
                    ticker=order.ticker,
                )
            )
