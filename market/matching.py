"""One instrument's order matching against a recorded market, in whole numbers.

The recording does not know about us, so rules decide what our orders would have got (docs/matching.md):

* **Taking** walks the recorded book level by level. What we take stays taken until the recorded size of that
  level changes; nothing is filled beyond the visible book (the rest of a market order is cancelled).
* **Queueing**: on arrival everybody shown at our price is ahead of us. Prints at our price shorten the queue,
  and it is never longer than the size shown. Where cancellations stood is the queue model's to say
  (``market.queue``): ``risk_averse`` puts them behind us, ``probabilistic`` shares them out.
* **Being hit**: a print through our price, or an opposite touch at or through our price, fills us at our own
  price in every fill model. A print *at* our price fills a resting order never (``pessimistic``), with what
  outlasts the queue ahead (``queue``), or at once, as if we were first in line (``optimistic``). Never are
  more lots filled than were printed or shown.

The paper exchange, the backtest and the shadow mode use this one class, so they cannot disagree. Our own
orders never trade with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from market.fees import fee_nano
from market.queue import DEFAULT_POWER, MAX_POWER, PARTS, after_cancels, whole_lots
from market.types import BUY, I32, SELL, Instrument

FillModel = Literal["pessimistic", "queue", "optimistic"]
FILL_MODELS: tuple[FillModel, ...] = get_args(FillModel)
"""How resting orders fill, from the least to the most. What takes is the same in all three."""
QueueModel = Literal["risk_averse", "probabilistic"]
QUEUE_MODELS: tuple[QueueModel, ...] = get_args(QueueModel)
TimeInForce = Literal["day", "fak", "fok"]
Levels = I32 | Sequence[int]
"""One side of a book, best first: an int array or a sequence of ints. A level of size 0 is absent."""

UNKNOWN_AHEAD = -1
"""Queue ahead of an order whose price is not inside the visible book (yet)."""

_TIFS: tuple[str, ...] = get_args(TimeInForce)
_NO_LEVELS: tuple[int, ...] = ()


class Execution(NamedTuple):
    """One fill of one of our orders. ``fee_nano``: commission, nano-roubles; ``maker``: we were resting."""

    order_id: str
    trade_id: str
    side: int
    price_ticks: int
    lots: int
    fee_nano: int
    now_ns: int
    maker: bool


class OpenOrder(NamedTuple):
    """A resting order: lots still wanted and lots queued before it, a started lot counted whole
    (``UNKNOWN_AHEAD`` = not visible)."""

    order_id: str
    side: int
    price_ticks: int
    lots: int
    ahead_lots: int


@dataclass(slots=True)
class _Resting:
    order_id: str
    side: int
    price: int
    lots: int
    ahead: int
    """Parts of lots (``market.queue.PARTS``), or UNKNOWN_AHEAD."""
    shown: int
    """Recorded lots at our price in the last book, or UNKNOWN_AHEAD."""
    arrival: int
    printed: int = 0
    """Lots printed at our price since that book."""


def _as_ints(levels: Levels) -> Sequence[int]:
    return levels if isinstance(levels, (tuple, list)) else levels.tolist()  # type: ignore[union-attr]


class Matching:
    """Matches our orders of one instrument. Deterministic: the same calls give the same executions.

    ``fee_ppm``: commission per side in parts per million of the deal's value (market.fees). ``queue_power``:
    the ``n`` of the probabilistic queue (market.queue). Call order is the caller's clock: nothing here looks
    at ``now_ns`` except to stamp executions. Raises ValueError for an unknown model or power.
    """

    def __init__(
        self, instrument: Instrument, fee_ppm: int, *, fills: FillModel = "queue",
        queue: QueueModel = "risk_averse", queue_power: int = DEFAULT_POWER,
    ) -> None:  # fmt: skip
        if fills not in FILL_MODELS:
            raise ValueError(f"unknown fill model {fills!r}; known: {', '.join(FILL_MODELS)}")
        if queue not in QUEUE_MODELS:
            raise ValueError(f"unknown queue model {queue!r}; known: {', '.join(QUEUE_MODELS)}")
        if not 1 <= queue_power <= MAX_POWER:
            raise ValueError(f"queue power is {queue_power}; allowed: 1 to {MAX_POWER}")
        self.instrument = instrument
        self.fee_ppm = fee_ppm
        self.fills = fills
        self.queue = queue
        self.queue_power = queue_power
        self._orders: dict[str, _Resting] = {}
        self._arrivals = 0
        self._trades = 0
        self._seen_book = False
        self._bid_px: Levels = _NO_LEVELS
        self._bid_qty: Levels = _NO_LEVELS
        self._ask_px: Levels = _NO_LEVELS
        self._ask_qty: Levels = _NO_LEVELS
        # side of the book -> price -> (recorded size when we took, lots we took)
        self._taken: dict[int, dict[int, tuple[int, int]]] = {BUY: {}, SELL: {}}

    # ------------------------------------------------------------------ questions

    @property
    def open_orders(self) -> tuple[OpenOrder, ...]:
        """Resting orders in order of arrival."""
        return tuple(
            OpenOrder(o.order_id, o.side, o.price, o.lots, o.ahead if o.ahead < 0 else whole_lots(o.ahead))
            for o in self._orders.values()
        )

    @property
    def touch(self) -> tuple[int, int] | None:
        """Best recorded bid and ask, ticks; None while a side is empty."""
        if not len(self._bid_px) or not len(self._ask_px) or self._bid_qty[0] <= 0 or self._ask_qty[0] <= 0:
            return None
        return int(self._bid_px[0]), int(self._ask_px[0])

    def remaining(self, order_id: str) -> int:
        """Lots of the order still working; 0 once it is filled, cancelled or was never known."""
        order = self._orders.get(order_id)
        return order.lots if order else 0

    def available(self, side: int, limit_ticks: int | None = None) -> int:
        """Lots that an order of ``side`` could take now, at ``limit_ticks`` or better (None = any price)."""
        return sum(lots for _, lots, _ in self._offers(side, limit_ticks))

    # ------------------------------------------------------------------ our orders

    def submit(
        self, order_id: str, side: int, lots: int, price_ticks: int | None, tif: TimeInForce, now_ns: int
    ) -> list[Execution]:
        """A new order meets the current book; returns its immediate fills, best price first.

        ``price_ticks`` None is a market order. Only a priced ``day`` order can rest afterwards; the rest of
        any other is cancelled at once (``remaining`` says 0). ``fok`` fills completely or not at all.
        Raises ValueError for a side other than BUY/SELL, lots below one, an unknown ``tif`` or an
        ``order_id`` that is still working.
        """
        if side not in (BUY, SELL) or lots < 1 or tif not in _TIFS or order_id in self._orders:
            raise ValueError(
                f"bad order {order_id!r}: side {side}, {lots} lots, tif {tif!r}, or id still working"
            )
        if tif == "fok" and self.available(side, price_ticks) < lots:
            return []
        executions = []
        left = lots
        for price, offered, shown in self._offers(side, price_ticks):
            filled = min(left, offered)
            self._take(-side, price, shown, filled)
            executions.append(self._execution(order_id, side, price, filled, now_ns, maker=False))
            left -= filled
            if left == 0:
                break
        if left and price_ticks is not None and tif == "day":
            self._arrivals += 1
            shown = 0 if self.fills == "optimistic" else self._visible_size(side, price_ticks)
            ahead = shown if shown == UNKNOWN_AHEAD else shown * PARTS
            self._orders[order_id] = _Resting(order_id, side, price_ticks, left, ahead, shown, self._arrivals)
        return executions

    def cancel(self, order_id: str, now_ns: int) -> bool:
        """Withdraws a resting order; False if it is not working (filled, cancelled, unknown)."""
        return self._orders.pop(order_id, None) is not None

    # ------------------------------------------------------------------ the market

    def on_book(
        self, bid_px: Levels, bid_qty: Levels, ask_px: Levels, ask_qty: Levels, now_ns: int
    ) -> list[Execution]:
        """The recorded book is now this one; returns fills of resting orders.

        Keeps references to the arguments until the next call: the caller must not write into them meanwhile.
        """
        self._bid_px, self._bid_qty, self._ask_px, self._ask_qty = bid_px, bid_qty, ask_px, ask_qty
        self._seen_book = True
        if self._taken[BUY]:
            self._forget_changed(BUY, self._taken[BUY])
        if self._taken[SELL]:
            self._forget_changed(SELL, self._taken[SELL])
        executions: list[Execution] = []
        if not self._orders:
            return executions
        for order in self._by_priority():
            if order.ahead:  # 0 is the front of the queue and stays it
                self._shorten_queue(order)
            if self._touch_is_worse(order.side, order.price):
                continue
            for price, offered, shown in self._offers(order.side, order.price):
                filled = min(order.lots, offered)
                self._take(-order.side, price, shown, filled)
                executions.append(self._fill(order, filled, now_ns))
                if order.lots == 0:
                    break
        return executions

    def on_trade(self, px: int, qty: int, side: int, now_ns: int) -> list[Execution]:
        """A recorded print of ``qty`` lots at ``px``; ``side`` is its aggressor (0 unknown). Our fills.

        A print at our price counts only for orders that its aggressor could have hit; a print through our
        price counts whatever its side, since it could not have happened past our order.
        """
        if not self._orders:
            return []
        executions: list[Execution] = []
        px, qty = int(px), int(qty)
        left = {BUY: qty, SELL: qty}  # of this print, for our orders on each side
        for order in self._by_priority():
            worse = (order.price - px) * order.side
            if worse < 0 or (worse == 0 and side == order.side):
                continue
            if worse > 0:
                order.ahead = 0
                filled = min(order.lots, left[order.side])
            elif order.ahead == UNKNOWN_AHEAD:
                continue
            else:
                order.printed += qty
                queued = min(order.ahead, left[order.side] * PARTS)
                order.ahead -= queued
                if self.fills == "pessimistic":
                    continue
                filled = min(order.lots, left[order.side] - whole_lots(queued))
            if filled:
                left[order.side] -= filled
                executions.append(self._fill(order, filled, now_ns))
        return executions

    # ------------------------------------------------------------------ inside

    def _levels(self, book_side: int) -> zip[tuple[int, int]]:
        if book_side == BUY:
            return zip(_as_ints(self._bid_px), _as_ints(self._bid_qty), strict=True)
        return zip(_as_ints(self._ask_px), _as_ints(self._ask_qty), strict=True)

    def _offers(self, side: int, limit: int | None) -> list[tuple[int, int, int]]:
        """(price, lots left for us, lots recorded) of the levels an order of ``side`` may take."""
        if limit is not None and self._touch_is_worse(side, limit):
            return []
        taken = self._taken[-side]
        offers = []
        for price, shown in self._levels(-side):
            if shown <= 0:
                continue
            if limit is not None and (price - limit) * side > 0:
                break
            left = shown - taken[price][1] if price in taken else shown
            if left > 0:
                offers.append((price, left, shown))
        return offers

    def _touch_is_worse(self, side: int, limit: int) -> bool:
        """The usual case of a resting order, answered without unpacking the book."""
        px, qty = (self._ask_px, self._ask_qty) if side == BUY else (self._bid_px, self._bid_qty)
        return len(px) == 0 or (qty[0] > 0 and (int(px[0]) - limit) * side > 0)

    def _take(self, book_side: int, price: int, shown: int, lots: int) -> None:
        already = self._taken[book_side].get(price, (shown, 0))[1]
        self._taken[book_side][price] = (shown, already + lots)

    def _forget_changed(self, book_side: int, taken: dict[int, tuple[int, int]]) -> None:
        sizes = dict(self._levels(book_side))
        for price in [p for p, (shown, _) in taken.items() if sizes.get(p, 0) != shown]:
            del taken[price]

    def _visible_size(self, side: int, price: int) -> int:
        """Recorded lots of ``side`` at ``price``; UNKNOWN_AHEAD where the visible book does not reach."""
        if not self._seen_book:
            return UNKNOWN_AHEAD
        px, qty = (self._bid_px, self._bid_qty) if side == BUY else (self._ask_px, self._ask_qty)
        if len(px) and qty[0] > 0:  # the usual places of an order, without unpacking the book
            if px[0] == price:
                return int(qty[0])
            if (int(px[0]) - price) * side < 0:
                return 0
            if qty[-1] > 0 and (int(px[-1]) - price) * side > 0:
                return UNKNOWN_AHEAD
        shown_any = False
        for level, shown in self._levels(side):
            if shown <= 0:
                continue
            shown_any = True
            if level == price:
                return shown
            if (level - price) * side < 0:  # this level is worse than our price: nobody is at our price
                return 0
        return UNKNOWN_AHEAD if shown_any else 0

    def _shorten_queue(self, order: _Resting) -> None:
        """What a new book says of the lots ahead of ``order``."""
        before, order.shown = order.shown, self._visible_size(order.side, order.price)
        printed, order.printed = order.printed, 0
        if order.shown == UNKNOWN_AHEAD:
            return
        size = order.shown * PARTS
        if order.ahead == UNKNOWN_AHEAD:
            order.ahead = size
        elif self.queue == "risk_averse" or before == UNKNOWN_AHEAD:
            order.ahead = min(order.ahead, size)
        else:
            left = max(before - printed, 0)
            order.ahead = after_cancels(order.ahead, left, order.shown, self.queue_power)

    def _by_priority(self) -> list[_Resting]:
        """Buys before sells; on each side the best price first, then the earliest."""
        orders = list(self._orders.values())
        if len(orders) < 2:
            return orders
        return sorted(orders, key=lambda o: (-o.side, -o.side * o.price, o.arrival))

    def _fill(self, order: _Resting, lots: int, now_ns: int) -> Execution:
        order.lots -= lots
        if order.lots == 0:
            del self._orders[order.order_id]
        return self._execution(order.order_id, order.side, order.price, lots, now_ns, maker=True)

    def _execution(
        self, order_id: str, side: int, price: int, lots: int, now_ns: int, *, maker: bool
    ) -> Execution:
        self._trades += 1
        trade_id = f"{self.instrument.ticker}-{self._trades}"
        fee = fee_nano(self.instrument.notional_nano(price, lots), self.fee_ppm)
        return Execution(order_id, trade_id, side, price, lots, fee, now_ns, maker)
