"""Shadow trading: the runner as it is, its orders recorded and filled in imagination, none ever sent.

``ShadowDesk`` answers like a broker but holds no connection at all, so there is nothing it could send with.
It fills orders by ``live.simbroker`` from the runner's own market events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from live.broker.client import AccountState, OrderReport
from live.clock import MarketClock
from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.core.events import Book, OpenOrder, OrderUpdate, Trade
from live.core.orders import TERMINAL
from live.simbroker import SimBroker
from market.latency import Latency
from market.types import Instrument

MAX_FINISHED = 2_000
"""Finished orders that late answers may still be about; a session may last for weeks."""


@dataclass(slots=True)
class _Imagined:
    """An order, what was said of it last, and its deals that are counted already."""

    order: PlaceOrder
    last: OrderUpdate | None = None
    booked: set[str] = field(default_factory=set)


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
        self._orders: dict[str, _Imagined] = {}
        self._finished: deque[str] = deque()
        self._positions: dict[str, int] = {}
        self.on_report: Callable[[OrderReport], None] = lambda report: None

    # ---- what the executor asks ----

    async def place(self, order: PlaceOrder, instrument: Instrument) -> None:
        self._orders[order.client_order_id] = _Imagined(order)
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
        for key, imagined in self._orders.items():
            order, last = imagined.order, imagined.last
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
            imagined = self._orders.get(update.client_order_id)
            if imagined is None:
                continue  # finished long ago
            order = imagined.order
            self._take(imagined, update)
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

    def _take(self, imagined: _Imagined, update: OrderUpdate) -> None:
        order, ended = imagined.order, imagined.last is not None and imagined.last.status in TERMINAL
        imagined.last = update
        for fill in update.fills:
            if fill.trade_id not in imagined.booked:
                imagined.booked.add(fill.trade_id)
                before = self._positions.get(order.ticker, 0)
                self._positions[order.ticker] = before + order.side * fill.lots
        if update.status in TERMINAL and not ended:
            self._finished.append(order.client_order_id)
            if len(self._finished) > MAX_FINISHED:
                del self._orders[self._finished.popleft()]
