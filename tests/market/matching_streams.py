"""Random markets and orders for the tests of the matching."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from market.matching import Execution, Matching
from market.types import BUY, DEPTH, SELL, Instrument

FEE_PPM = 50
INSTRUMENT = Instrument("uid", "TEST", "TQBR", "FIGI", "share", 10, 10_000_000, 100_000_000)
Event = tuple[Any, ...]

PRICES = st.integers(95, 105)
SIDES = st.sampled_from((BUY, SELL))
TIFS = st.sampled_from(("day", "fak", "fok"))
LOTS = st.integers(1, 8)


@st.composite
def books(draw: st.DrawFn, largest: int = 4) -> Event:
    """Uncrossed, possibly one-sided or empty; small sizes, so that levels often stay unchanged, or larger
    ones, so that queues are worth counting."""
    middle = draw(st.integers(96, 104))
    size = st.integers(1, draw(st.sampled_from((4, largest))))
    bids = draw(st.dictionaries(st.integers(90, middle), size, max_size=5))
    asks = draw(st.dictionaries(st.integers(middle + 1, 110), size, max_size=5))
    return ("book", sorted(bids.items(), reverse=True), sorted(asks.items()))


@st.composite
def queues(draw: st.DrawFn) -> Event:
    """A steady market around a few prices, in which orders wait, sizes move and prints come: what a queue is
    made of. Now and then 100 is beyond the visible book.
    """
    size, few = st.integers(1, 40), st.integers(1, 12)
    sides = st.sampled_from([(BUY, 100), (BUY, 100), (SELL, 102), (BUY, 99)])
    side, price = draw(sides)
    kind = draw(st.sampled_from(("book", "book", "book", "hidden", "trade", "trade", "order", "cancel")))
    if kind == "book":
        return ("book", [(100, draw(size)), (99, draw(size))], [(102, draw(size)), (103, 7)])
    if kind == "hidden":
        return ("book", [(101, draw(size))], [(102, draw(size)), (103, 7)])
    if kind == "trade":
        return ("trade", price, draw(few), draw(st.sampled_from((-side, -side, 0))))
    if kind == "order":
        return ("order", side, draw(st.integers(1, 3)), price, "day")
    return ("cancel", draw(st.integers(0, 12)))


PRINTS = st.tuples(st.just("trade"), PRICES, st.integers(1, 12), st.sampled_from((BUY, SELL, 0)))
ORDERS = st.tuples(st.just("order"), SIDES, LOTS, st.one_of(st.none(), PRICES), TIFS)
CANCELS = st.tuples(st.just("cancel"), st.integers(0, 12))
REPLACES = st.tuples(st.just("replace"), st.integers(0, 12), LOTS, PRICES)
EVENTS = st.one_of(books(largest=30), PRINTS, ORDERS, CANCELS, REPLACES)
STREAMS = st.one_of(st.lists(EVENTS, max_size=25), st.lists(queues(), max_size=30))


def only_market(events: list[Event]) -> list[Event]:
    """The stream without its orders and cancels."""
    return [event for event in events if event[0] in ("book", "trade")]


def padded(levels: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """As a recording holds a side: absent levels have size 0."""
    px, qty = np.zeros(DEPTH, np.int32), np.zeros(DEPTH, np.int32)
    for k, (price, size) in enumerate(levels):
        px[k], qty[k] = price, size
    return px, qty


def play(matching: Matching, k: int, event: Event) -> list[Execution]:
    """Event ``k`` to the matching. An order is called ``o<k>``; a replace withdraws and places anew."""
    match event:
        case ("book", bids, asks):
            return matching.on_book(*padded(bids), *padded(asks), k)
        case ("trade", px, qty, side):
            return matching.on_trade(px, qty, side, k)
        case ("order", side, lots, price, tif):
            return matching.submit(f"o{k}", side, lots, price, tif, k)
        case ("cancel", number):
            matching.cancel(f"o{number}", k)
            return []
        case ("replace", number, lots, price):
            side = {o.order_id: o.side for o in matching.open_orders}.get(f"o{number}")
            if side is None or not matching.cancel(f"o{number}", k):
                return []
            return matching.submit(f"o{k}", side, lots, price, "day", k)
    raise AssertionError(event)
