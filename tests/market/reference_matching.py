"""The matching rules again, as slowly and plainly as possible, to compare the real one with.

Everything is recomputed from full copies: a book is a dict price -> size per side, what we took is a list
that is searched from the start, orders are kept in one list, queues are exact fractions of lots.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

BUY, SELL = 1, -1
MILLION = 1_000_000


@dataclass
class Order:
    name: str
    side: int
    price: int
    lots: int
    ahead: Fraction | None
    """Lots before us; None: our price lies outside the visible book."""
    seen: int | None
    """The size that the last book showed at our price."""
    prints: list[int] = field(default_factory=list)
    """At our price, since that book."""


def thinned(ahead: Fraction, left: int, shown: int, n: int) -> Fraction:
    """Lots before us when ``left`` should stand at our price and ``shown`` do: the probabilistic queue."""
    front = min(ahead, Fraction(left))
    behind = left - front
    gone = max(left - shown, 0)
    share = front**n / (front**n + behind**n) if front else Fraction(0)
    from_front = Fraction(floor(gone * share * MILLION), MILLION)
    return max(Fraction(0), min(front - from_front, Fraction(shown)))


class ReferenceMatching:
    """``fills``: pessimistic, queue or optimistic; ``queue``: risk_averse or probabilistic, power ``n``.

    Fills are (name, side, price, lots, maker).
    """

    def __init__(self, fills: str = "queue", queue: str = "risk_averse", n: int = 2) -> None:
        self.fills, self.queue, self.n = fills, queue, n
        self.book: dict[int, dict[int, int]] | None = None
        self.taken: list[tuple[int, int, int, int]] = []  # side of the book, price, size shown then, lots
        self.orders: list[Order] = []

    def submit(self, name: str, side: int, lots: int, price: int | None, tif: str) -> list[tuple]:
        offers = self._offers(side, price)
        if tif == "fok" and sum(size for _, size in offers) < lots:
            return []
        fills = []
        for level, size in offers:
            if lots == 0:
                break
            got = min(lots, size)
            self._take(-side, level, got)
            fills.append((name, side, level, got, False))
            lots -= got
        if lots and price is not None and tif == "day":
            seen = 0 if self.fills == "optimistic" else self._shown(side, price)
            self.orders.append(Order(name, side, price, lots, None if seen is None else Fraction(seen), seen))
        return fills

    def cancel(self, name: str) -> bool:
        before = len(self.orders)
        self.orders = [order for order in self.orders if order.name != name]
        return len(self.orders) < before

    def on_book(self, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> list[tuple]:
        self.book = {BUY: dict(bids), SELL: dict(asks)}
        self.taken = [t for t in self.taken if self.book[t[0]].get(t[1], 0) == t[2]]
        fills = []
        for order in self._priority():
            if self.fills != "optimistic":
                self._queue_now(order)
            for level, size in self._offers(order.side, order.price):
                got = min(order.lots, size)
                if got:
                    self._take(-order.side, level, got)
                    order.lots -= got
                    fills.append((order.name, order.side, order.price, got, True))
        self.orders = [order for order in self.orders if order.lots]
        return fills

    def on_trade(self, px: int, qty: int, aggressor: int) -> list[tuple]:
        fills = []
        for side in (BUY, SELL):
            left = qty
            for order in [o for o in self._priority() if o.side == side]:
                if side == BUY:
                    through, at = px < order.price, px == order.price
                else:
                    through, at = px > order.price, px == order.price
                got = 0
                if through:
                    order.ahead = Fraction(0)
                    got = min(order.lots, left)
                elif at and aggressor != side and order.ahead is not None:
                    order.prints.append(qty)
                    before_us = min(order.ahead, Fraction(left))
                    order.ahead -= before_us
                    if self.fills != "pessimistic":
                        got = min(order.lots, left - ceil(before_us))
                if got:
                    left -= got
                    order.lots -= got
                    fills.append((order.name, side, order.price, got, True))
        self.orders = [order for order in self.orders if order.lots]
        return fills

    def open(self) -> list[tuple[str, int, int, int, int | None]]:
        return [
            (o.name, o.side, o.price, o.lots, None if o.ahead is None else ceil(o.ahead)) for o in self.orders
        ]

    def _queue_now(self, order: Order) -> None:
        """Who stands before ``order`` now that the book shows what it shows."""
        shown = self._shown(order.side, order.price)
        if shown is not None:
            if order.ahead is None:
                order.ahead = Fraction(shown)
            elif self.queue == "probabilistic" and order.seen is not None:
                left = max(order.seen - sum(order.prints), 0)
                order.ahead = thinned(order.ahead, left, shown, self.n)
            else:
                order.ahead = min(order.ahead, Fraction(shown))
        order.seen, order.prints = shown, []

    def _offers(self, side: int, limit: int | None) -> list[tuple[int, int]]:
        if self.book is None:
            return []
        levels = sorted(self.book[-side].items(), reverse=side == SELL)
        offers = []
        for level, size in levels:
            if limit is not None and (level > limit if side == BUY else level < limit):
                continue
            left = size - sum(t[3] for t in self.taken if t[:2] == (-side, level))
            if left > 0:
                offers.append((level, left))
        return offers

    def _take(self, book_side: int, level: int, lots: int) -> None:
        assert self.book is not None
        self.taken.append((book_side, level, self.book[book_side][level], lots))

    def _shown(self, side: int, price: int) -> int | None:
        if self.book is None:
            return None
        levels = self.book[side]
        if not levels or price in levels:
            return levels.get(price, 0)
        worst = min(levels) if side == BUY else max(levels)
        beyond = price < worst if side == BUY else price > worst
        return None if beyond else 0

    def _priority(self) -> list[Order]:
        buys = sorted((o for o in self.orders if o.side == BUY), key=lambda o: -o.price)
        sells = sorted((o for o in self.orders if o.side == SELL), key=lambda o: o.price)
        return buys + sells
