"""The levels of one book in whole numbers, from a streamed book or from a unary answer alike."""

from __future__ import annotations

from typing import NamedTuple

from live.core.books import LARGEST
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.types import Instrument


class Levels(NamedTuple):
    """Prices in ticks and sizes in lots, best first."""

    bid_px: tuple[int, ...]
    bid_qty: tuple[int, ...]
    ask_px: tuple[int, ...]
    ask_qty: tuple[int, ...]


class PlainBook(NamedTuple):
    """A streamed book in whole numbers."""

    instrument: Instrument
    exch_ns: int
    levels: Levels
    consistent: bool


def levels(book: pb.OrderBook | pb.GetOrderBookResponse, instrument: Instrument) -> Levels:
    """Raises ConversionError when a price is not on the instrument's tick grid, or a number is no 32-bit
    one.
    """
    bid_px, bid_qty = convert.book_levels(book.bids, instrument.tick_nano)
    ask_px, ask_qty = convert.book_levels(book.asks, instrument.tick_nano)
    for what, values in (("ticks", bid_px + ask_px), ("lots", bid_qty + ask_qty)):
        for value in values:
            check_range(value, what)
    return Levels(bid_px, bid_qty, ask_px, ask_qty)


def check_range(value: int, what: str) -> None:
    """Raises ConversionError for a number of ticks or lots that no market has."""
    if not -LARGEST <= value <= LARGEST:
        raise convert.ConversionError(f"{value} {what} are out of range; at most {LARGEST} are possible")
