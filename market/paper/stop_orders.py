"""Stop orders: they wait at the broker, whoever is connected, and become exchange orders in their moment.

The price that triggers is the last trade's; an instrument whose recording has no trades is judged by the
touch that the child order would hit.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from market.paper.listing import Listing
from market.paper.orders import OrderRequest, PaperOrder
from market.paper.refusals import Refusal
from market.types import NANO, SELL

MAX_ACTIVE = 500
"""Active stop orders of one account."""

SendChild = Callable[[OrderRequest, int, Callable[[PaperOrder], None]], None]


class StopKind(Enum):
    """Take profit waits for a better price than today's, the other two for a worse one."""

    TAKE_PROFIT = "take profit"
    STOP_LOSS = "stop loss"
    STOP_LIMIT = "stop limit"


class StopStatus(Enum):
    ACTIVE = "active"
    EXECUTED = "executed"
    CANCELED = "canceled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Distance:
    """So many ticks, or so many nano-percent of a price."""

    value: int
    relative: bool

    def ticks(self, price_ticks: int) -> int:
        if not self.relative:
            return self.value
        return max(1, abs(price_ticks) * self.value // (100 * NANO))


@dataclass(frozen=True, slots=True)
class Trailing:
    """Follow the price from ``stop_ticks`` on and sell (buy) when it came back by ``indent``, at most
    ``spread`` worse than that.
    """

    indent: Distance
    spread: Distance


@dataclass(slots=True)
class StopOrder:
    """A stop order from acceptance to its end. ``price_ticks``: the child's limit, None for a market child.
    ``stop_ticks`` None: a trailing order that follows at once. ``expires_ns`` None: good till cancelled.
    """

    account_id: str
    key: str
    listing: Listing
    index: int
    side: int
    lots: int
    kind: StopKind
    stop_ticks: int | None
    price_ticks: int | None
    limit_child: bool
    expires_ns: int | None
    trailing: Trailing | None = None
    confirm_margin: bool = False
    stop_order_id: str = ""
    created_ns: int = 0
    status: StopStatus = StopStatus.ACTIVE
    activated_ns: int | None = None
    following: bool = False
    extremum_ticks: int | None = None
    child: PaperOrder | None = None
    refused: str = ""

    @property
    def towards(self) -> int:
        """+1 when a rising price triggers it, -1 when a falling one does."""
        return 1 if (self.kind is StopKind.TAKE_PROFIT) == (self.side == SELL) else -1


class StopOrders:
    """All stop orders of the exchange. ``send_child`` makes an exchange order; it may raise Refusal."""

    def __init__(self, listings: Sequence[Listing], send_child: SendChild) -> None:
        self._listings = listings
        self._send_child = send_child
        self._all: dict[str, StopOrder] = {}
        self._by_key: dict[tuple[str, str], StopOrder] = {}
        self._active: dict[int, dict[str, StopOrder]] = {}

    # ------------------------------------------------------------------ clients

    def by_key(self, account_id: str, key: str) -> StopOrder | None:
        return self._by_key.get((account_id, key))

    def of_account(self, account_id: str, now_ns: int) -> list[StopOrder]:
        """Every stop order of the account as of now, oldest first."""
        mine = [order for order in self._all.values() if order.account_id == account_id]
        for order in mine:
            self._expire(order, now_ns)
        return mine

    def place(self, order: StopOrder, now_ns: int) -> StopOrder:
        """Raises Refusal 30053 when the account has too many, 30063 for an expiry that has passed."""
        if order.expires_ns is not None and order.expires_ns <= now_ns:
            raise Refusal("30063")
        active = [o for o in self.of_account(order.account_id, now_ns) if o.status is StopStatus.ACTIVE]
        if len(active) >= MAX_ACTIVE:
            raise Refusal("30053", f"{MAX_ACTIVE} stop orders are active")
        order.stop_order_id, order.created_ns = str(uuid.uuid4()), now_ns
        order.following = order.trailing is not None and order.stop_ticks is None
        self._all[order.stop_order_id] = self._by_key[order.account_id, order.key] = order
        self._active.setdefault(order.index, {})[order.stop_order_id] = order
        return order

    def cancel(self, account_id: str, stop_order_id: str, now_ns: int) -> None:
        """Raises Refusal 50006 for an unknown order and 30060 for one that is over."""
        order = self._all.get(stop_order_id)
        if order is None or order.account_id != account_id:
            raise Refusal("50006", stop_order_id)
        self._expire(order, now_ns)
        if order.status is not StopStatus.ACTIVE:
            raise Refusal("30060", f"stop order {stop_order_id} is {order.status.value}")
        self._end(order, StopStatus.CANCELED)

    def cancel_all(self, account_id: str, now_ns: int) -> None:
        for order in self.of_account(account_id, now_ns):
            if order.status is StopStatus.ACTIVE:
                self._end(order, StopStatus.CANCELED)

    # ------------------------------------------------------------------ the market

    def on_price(self, index: int, price_ticks: int, now_ns: int) -> None:
        """Listing ``index`` traded at ``price_ticks``."""
        for order in list(self._active.get(index, {}).values()):
            self._look(order, price_ticks, now_ns)

    def on_book(self, index: int, now_ns: int) -> None:
        """The touch changed: it matters to instruments that have no trades."""
        if index not in self._active or len(self._listings[index].trades):
            return
        bid, ask = self._listings[index].touch_ticks()
        for order in list(self._active[index].values()):
            price = bid if order.side == SELL else ask
            if price is not None:
                self._look(order, price, now_ns)

    # ------------------------------------------------------------------ inside

    def _look(self, order: StopOrder, price: int, now_ns: int) -> None:
        self._expire(order, now_ns)
        if order.status is not StopStatus.ACTIVE:
            return
        reached = order.stop_ticks is None or (price - order.stop_ticks) * order.towards >= 0
        if order.trailing is None:
            if reached:
                self._trigger(order, order.price_ticks, now_ns)
        elif order.following or reached:
            order.following = True
            self._follow(order, order.trailing, price, now_ns)

    def _follow(self, order: StopOrder, trailing: Trailing, price: int, now_ns: int) -> None:
        if order.extremum_ticks is None or (price - order.extremum_ticks) * order.towards > 0:
            order.extremum_ticks = price
        turn = order.extremum_ticks - order.towards * trailing.indent.ticks(order.extremum_ticks)
        if (turn - price) * order.towards >= 0:
            order.price_ticks = turn - order.towards * trailing.spread.ticks(turn)
            self._trigger(order, order.price_ticks if order.limit_child else None, now_ns)

    def _trigger(self, order: StopOrder, price: int | None, now_ns: int) -> None:
        self._end(order, StopStatus.EXECUTED)
        order.activated_ns = now_ns
        child = OrderRequest(
            order.account_id, str(uuid.uuid4()), order.listing, order.side, order.lots,
            "market" if price is None else "limit", price, "fak" if price is None else "day",
            order.confirm_margin,
        )  # fmt: skip
        try:
            self._send_child(child, now_ns, lambda arrived: setattr(order, "child", arrived))
        except Refusal as refusal:
            order.status, order.refused = StopStatus.CANCELED, str(refusal)

    def _expire(self, order: StopOrder, now_ns: int) -> None:
        if order.status is StopStatus.ACTIVE and order.expires_ns is not None and now_ns >= order.expires_ns:
            self._end(order, StopStatus.EXPIRED)

    def _end(self, order: StopOrder, status: StopStatus) -> None:
        order.status = status
        del self._active[order.index][order.stop_order_id]
        if not self._active[order.index]:
            del self._active[order.index]
