"""One traded instrument on the paper exchange: its matching and what the market shows now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from market.matching import Matching
from market.paper.schedule import Phase
from market.types import Books, Instrument, Trades

PRICE_BAND_PERCENT = 20
"""Price limits: so far from the first price of the recording an order may be priced."""

NEAR_BAND_PERCENT = 5
"""The limits give way when the market itself comes this near: the exchange widens them then, too."""


@dataclass(slots=True)
class Listing:
    """``book_row`` and ``trade_row``: what was played last, -1 for nothing yet. ``margin_confirmation``: an
    order that opens an uncovered position needs ``confirm_margin_trade`` here.
    """

    instrument: Instrument
    matching: Matching
    books: Books
    trades: Trades
    book_row: int = -1
    trade_row: int = -1
    phase: Phase = Phase.TRADING
    margin_confirmation: bool = False
    band_ticks: tuple[int, int] | None = field(init=False)
    """The price limits around the first price of the recording."""

    def __post_init__(self) -> None:
        first = _first_price(self.books, self.trades)
        width = 0 if first is None else max(1, abs(first) * PRICE_BAND_PERCENT // 100)
        self.band_ticks = None if first is None else (first - width, first + width)

    @property
    def tradable(self) -> bool:
        """Whether orders are taken."""
        return self.phase is Phase.TRADING

    @property
    def names(self) -> tuple[str, str, str]:
        """What a fault or a request may call it: ticker, FIGI, uid."""
        i = self.instrument
        return i.ticker, i.figi, i.uid

    def touch_ticks(self) -> tuple[int | None, int | None]:
        """Best bid and best ask; None for a side that is empty, or before the first book."""
        row, b = self.book_row, self.books
        if row < 0:
            return None, None
        bid = int(b.bid_px[row, 0]) if b.bid_qty[row, 0] else None
        ask = int(b.ask_px[row, 0]) if b.ask_qty[row, 0] else None
        return bid, ask

    def mark_ticks(self) -> int | None:
        """The middle of the touch rounded down, else the only side, else the last trade, else None."""
        bid, ask = self.touch_ticks()
        if bid is not None and ask is not None:
            return (bid + ask) // 2
        if bid is not None or ask is not None:
            return bid if bid is not None else ask
        return int(self.trades.px[self.trade_row]) if self.trade_row >= 0 else None

    def last_ticks(self) -> int | None:
        """The last trade, or the mark while there was none."""
        return int(self.trades.px[self.trade_row]) if self.trade_row >= 0 else self.mark_ticks()

    def limits_ticks(self) -> tuple[int, int] | None:
        """(lowest price of a sell, highest price of a buy); None while the instrument has no price at all."""
        if self.band_ticks is None:
            return None
        low, high = self.band_ticks
        mark = self.mark_ticks()
        if mark is not None:
            near = max(1, abs(mark) * NEAR_BAND_PERCENT // 100)
            low, high = min(low, mark - near), max(high, mark + near)
        return low, high


def _first_price(books: Books, trades: Trades) -> int | None:
    both = np.flatnonzero((books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0))
    if len(both):
        row = both[0]
        return (int(books.bid_px[row, 0]) + int(books.ask_px[row, 0])) // 2
    return int(trades.px[0]) if len(trades) else None


def find_listing(listings: Iterable[Listing], instrument_id: str) -> tuple[int, Listing] | None:
    """By uid, then FIGI, then TICKER_CLASSCODE, as the broker looks an ``instrument_id`` up."""
    known = list(enumerate(listings))
    if not instrument_id:
        return None
    for index, listing in known:
        if listing.instrument.uid == instrument_id:
            return index, listing
    for index, listing in known:
        i = listing.instrument
        if instrument_id in (i.figi, f"{i.ticker}_{i.class_code}"):
            return index, listing
    return None
