"""The matching rules again, as slowly and plainly as possible, to compare the real one with.

Everything is recomputed from full copies: a book is a dict price -> size per side, what we took is a list
that is searched from the start, orders are kept in one list.
"""

from __future__ import annotations

from dataclasses import dataclass

BUY, SELL = 1, -1


@dataclass
class Order:
    name: str
    side: int
    price: int
    lots: int
    ahead: int | None  # None: our price lies outside the visible book


class ReferenceMatching:
    def __init__(self, optimistic: bool) -> None:
        self.optimistic = optimistic
        self.book: dict[int, dict[int, int]] | None = None
        self.taken: list[tuple[int, int, int, int]] = []  # side of the book, price, size shown then, lots
        self.orders: list[Order] = []

    # fills are (name, side, price, lots, maker)

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
            ahead = 0 if self.optimistic else self._shown(side, price)
            self.orders.append(Order(name, side, price, lots, ahead))
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
            shown = self._shown(order.side, order.price)
            if not self.optimistic and shown is not None:
                order.ahead = shown if order.ahead is None else min(order.ahead, shown)
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
                    order.ahead = 0
                    got = min(order.lots, left)
                elif at and aggressor != side and order.ahead is not None:
                    before_us = min(order.ahead, left)
                    order.ahead -= before_us
                    got = min(order.lots, left - before_us)
                if got:
                    left -= got
                    order.lots -= got
                    fills.append((order.name, side, order.price, got, True))
        self.orders = [order for order in self.orders if order.lots]
        return fills

    def open(self) -> list[tuple[str, int, int, int, int | None]]:
        return [(o.name, o.side, o.price, o.lots, o.ahead) for o in self.orders]

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
