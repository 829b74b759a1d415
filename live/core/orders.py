"""The life of an order: one closed transition table, fills booked once by the broker's trade id.

``INTENT`` is our own: we asked for the order and know nothing more. Messages about one order come by two ways
(the answer to the request and the stream of order states), so an old state may arrive after a newer one: that
is an ECHO, recognised, counted, and without effect. Everything else outside the table is ILLEGAL.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from live.core.commands import OrderType, Role
from live.core.events import FillInfo, OrderUpdate
from live.core.whole import whole

INTENT, NEW, PARTIAL, FILLED = "INTENT", "NEW", "PARTIAL", "FILLED"
CANCELLED, REJECTED, UNKNOWN = "CANCELLED", "REJECTED", "UNKNOWN"
STATES = (INTENT, NEW, PARTIAL, FILLED, CANCELLED, REJECTED, UNKNOWN)
TERMINAL = frozenset({FILLED, CANCELLED, REJECTED})

MAX_SAVED_DONE_ORDERS = 200
MAX_DONE_ORDERS = 1_000
"""Finished orders remembered, so that late echoes and late fills still find theirs."""


class Move(Enum):
    """What the table says about one message."""

    LEGAL = "legal"
    ECHO = "echo"
    ILLEGAL = "illegal"


_ANY_ANSWER = frozenset({NEW, PARTIAL, FILLED, CANCELLED, REJECTED, UNKNOWN})
LEGAL_MOVES: dict[str, frozenset[str]] = {
    INTENT: _ANY_ANSWER,
    NEW: _ANY_ANSWER,
    PARTIAL: frozenset({PARTIAL, FILLED, CANCELLED, UNKNOWN}),
    UNKNOWN: _ANY_ANSWER,
    FILLED: frozenset({FILLED}),
    CANCELLED: frozenset({CANCELLED}),
    REJECTED: frozenset({REJECTED}),
}
"""state -> states that a message may report. A finished order may be reported again, with fills that come
late.
"""

ECHO_MOVES: dict[str, frozenset[str]] = {
    INTENT: frozenset(),
    NEW: frozenset(),
    PARTIAL: frozenset({NEW}),
    UNKNOWN: frozenset(),
    FILLED: frozenset({NEW, PARTIAL, UNKNOWN}),
    CANCELLED: frozenset({NEW, PARTIAL, UNKNOWN}),
    REJECTED: frozenset({NEW, UNKNOWN}),
}
"""state -> older states that may arrive late, provided that they report no more lots than we know of."""


@dataclass(slots=True)
class Order:
    """One order of ours. ``lots_executed``: the broker's word; ``lots_filled``: the sum of booked deals."""

    client_order_id: str
    trace_id: str
    ticker: str
    side: int
    lots: int
    order_type: OrderType
    price_ticks: int | None
    role: Role
    reason: str
    placed_ns: int
    state: str = INTENT
    exchange_order_id: str = ""
    lots_executed: int = 0
    lots_filled: int = 0
    changed_ns: int = 0
    cancel_asked_ns: int = 0
    queries: int = 0
    query_due_ns: int = 0
    trade_ids: list[str] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Finished, and every executed lot is booked: nothing more is expected."""
        return self.state in TERMINAL and self.lots_filled >= self.lots_executed

    @property
    def lots_open(self) -> int:
        """Lots that may still execute or are executed but not booked."""
        if self.state in TERMINAL:
            return max(0, self.lots_executed - self.lots_filled)
        return max(0, self.lots - self.lots_filled)

    def judge(self, update: OrderUpdate) -> Move:
        """What the table says about ``update``. Does not change the order."""
        known = max(self.lots_executed, self.lots_filled)
        if update.lots_executed > self.lots or update.lots_executed < 0:
            return Move.ILLEGAL
        if update.status == FILLED and update.lots_executed not in (0, self.lots):
            return Move.ILLEGAL
        if update.status == REJECTED and (known or update.lots_executed):
            return Move.ILLEGAL
        if update.status in LEGAL_MOVES[self.state]:
            return Move.LEGAL
        if update.status in ECHO_MOVES[self.state]:
            return Move.ECHO if update.lots_executed <= known else Move.ILLEGAL
        return Move.ILLEGAL

    def take(self, update: OrderUpdate) -> None:
        """Make a LEGAL move. A repeated state never takes back lots already known."""
        executed = self.lots if update.status == FILLED else update.lots_executed
        self.state = update.status
        self.lots_executed = max(self.lots_executed, self.lots_filled, executed)
        self.exchange_order_id = update.exchange_order_id or self.exchange_order_id
        self.changed_ns = update.now_ns

    def new_fills(self, update: OrderUpdate) -> list[FillInfo]:
        """The deals of ``update`` that are not booked yet, each once; they count as booked from now on."""
        fresh = []
        for fill in update.fills:
            if fill.trade_id not in self.trade_ids:
                self.trade_ids.append(fill.trade_id)
                self.lots_filled += fill.lots
                fresh.append(fill)
        self.lots_executed = max(self.lots_executed, self.lots_filled)
        return fresh

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Orders:
    """All our orders: the working ones by ticker, and a bounded memory of the finished."""

    def __init__(self) -> None:
        self._by_id: dict[str, Order] = {}
        self._open: dict[str, dict[str, Order]] = {}
        self._done: dict[str, None] = {}
        """The finished ones, longest finished first."""

    def add(self, order: Order) -> None:
        if order.client_order_id in self._by_id:
            raise ValueError(f"client order id {order.client_order_id} is used twice")
        self._by_id[order.client_order_id] = order
        self._file(order)

    def get(self, client_order_id: str) -> Order | None:
        return self._by_id.get(client_order_id)

    def refile(self, order: Order) -> None:
        """Call after an order moved: keeps the index of working orders true and the memory bounded."""
        self._file(order)
        if order.settled:
            self._forget_oldest()

    def working(self, ticker: str) -> list[Order]:
        """Orders of ``ticker`` that are not settled, oldest first."""
        return list(self._open.get(ticker, {}).values())

    def all_working(self) -> list[Order]:
        return [order for orders in self._open.values() for order in orders.values()]

    def _file(self, order: Order) -> None:
        open_here = self._open.setdefault(order.ticker, {})
        if order.settled:
            open_here.pop(order.client_order_id, None)
            self._done.setdefault(order.client_order_id)
        else:
            open_here[order.client_order_id] = order
            self._done.pop(order.client_order_id, None)

    def _forget_oldest(self) -> None:
        while len(self._by_id) > MAX_DONE_ORDERS and self._done:
            oldest = next(iter(self._done))
            del self._done[oldest], self._by_id[oldest]

    def to_list(self) -> list[dict[str, Any]]:
        """Working orders and the ``MAX_SAVED_DONE_ORDERS`` most recent finished ones, oldest first."""
        done = [order for order in self._by_id.values() if order.settled]
        forgotten = {order.client_order_id for order in done[:-MAX_SAVED_DONE_ORDERS]}
        return [order.to_dict() for key, order in self._by_id.items() if key not in forgotten]

    @classmethod
    def from_list(cls, rows: list[dict[str, Any]]) -> Orders:
        orders = cls()
        for row in rows:
            orders.add(whole(Order, {**row, "trade_ids": list(row["trade_ids"])}))
        return orders
