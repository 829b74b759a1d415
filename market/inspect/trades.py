"""Where trades printed, against the last book that had arrived before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.inspect.stats import Array, Quantiles
from market.types import BUY, I64, SELL, Books, Trades
from market.validate import GAP_NS

OFFSET_LIMIT = 20
"""Offsets are told apart up to so many ticks on either side of the touch."""
FAR_TICKS = 5
FAR_SPREADS = 3
FAR_BPS = 10
"""Outside the quotes by more than the largest of the three: the trade does not belong to that book. Where a
tick is a tiny part of the price, one order sweeps dozens of ticks."""
SHIFTS_H = (-8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8)
"""Errors of whole hours that are tried when trades do not fit the book: somebody's time zone."""


@dataclass(frozen=True, slots=True)
class Location:
    """Trades of one aggressor (or of both), judged against the shown touch they took from.

    ``at`` the touch; ``through`` it (worse for the aggressor: the shown size was not enough, or the book is
    late); ``inside`` the spread; ``wrong``: at or beyond the other side's touch. ``opposite``: exactly at it
    (within ``wrong``). ``far``: outside the quotes by more than FAR_TICKS, FAR_SPREADS and FAR_BPS.
    ``offsets[i]``: trades that printed ``i - OFFSET_LIMIT`` ticks from the touch, positive = through; the
    ends hold what lies beyond.
    """

    judged: int
    at: int
    through: int
    inside: int
    wrong: int
    opposite: int
    far: int
    offsets: tuple[int, ...]

    @property
    def mode_ticks(self) -> int:
        """The most frequent offset from the touch."""
        return int(np.argmax(self.offsets)) - OFFSET_LIMIT if self.judged else 0

    def share(self, count: int) -> float:
        return count / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class TradeStats:
    """Trades of the day. Not judged: before the first book, beside a one-sided or a stale one (older than
    ``GAP_NS``), or of an unknown aggressor.

    ``lots``: size of a trade. ``shift_h``: the whole hours by which trades have to be moved to fit the book
    much better than they do, 0 when none does.
    """

    count: int
    lots_total: int
    buys: int
    sells: int
    lots: Quantiles
    turnover_nano: int
    low_ticks: int
    high_ticks: int
    judged: Location
    judged_buys: Location
    judged_sells: Location
    shift_h: int


def locate(books: Books, trades: Trades, tick_value_nano: int) -> TradeStats | None:
    """None without trades."""
    lots = Quantiles.of(trades.qty)
    if lots is None:
        return None
    found = _Found(books, trades, 0)
    whole = found.location(found.fits)
    return TradeStats(
        len(trades),
        int(trades.qty.sum(dtype=np.int64)),
        int((trades.side == BUY).sum()),
        int((trades.side == SELL).sum()),
        lots,
        int(trades.px.astype(np.int64) @ trades.qty.astype(np.int64)) * tick_value_nano,
        int(trades.px.min()),
        int(trades.px.max()),
        whole,
        found.location(found.fits & (trades.side == BUY)),
        found.location(found.fits & (trades.side == SELL)),
        _better_shift(books, trades, whole),
    )


class _Found:
    """The book before each trade, and the distances to its touches."""

    def __init__(self, books: Books, trades: Trades, shift_ns: int) -> None:
        recv_ns: I64 = trades.recv_ns + shift_ns
        # At equal receive times trades come first (market.stream), so the book is an earlier one.
        row = np.searchsorted(books.recv_ns, recv_ns, side="left") - 1
        self.fits = (row >= 0) & ((trades.side == BUY) | (trades.side == SELL))
        if not len(books):
            self.offset = self.width = self.too_far = np.zeros(len(trades), np.int64)
            return
        row = np.maximum(row, 0)
        self.fits &= (books.bid_qty[row, 0] > 0) & (books.ask_qty[row, 0] > 0)
        self.fits &= recv_ns - books.recv_ns[row] <= GAP_NS
        bid, ask = books.bid_px[row, 0].astype(np.int64), books.ask_px[row, 0].astype(np.int64)
        self.width = ask - bid
        self.too_far = np.maximum(
            np.maximum(FAR_TICKS, FAR_SPREADS * self.width), FAR_BPS * (bid + ask) / 20_000
        )
        self.offset = np.where(trades.side == BUY, trades.px - ask, bid - trades.px)

    def location(self, mask: Array) -> Location:
        offset, width = self.offset[mask], self.width[mask]
        inside = (offset < 0) & (offset > -width)
        beyond = np.maximum(offset, -offset - width)  # ticks outside the quotes, on whichever side
        held = np.bincount(
            np.clip(offset, -OFFSET_LIMIT, OFFSET_LIMIT) + OFFSET_LIMIT, minlength=2 * OFFSET_LIMIT + 1
        )
        return Location(
            len(offset),
            int((offset == 0).sum()),
            int((offset > 0).sum()),
            int(inside.sum()),
            int(((offset < 0) & ~inside).sum()),
            int(((offset < 0) & (offset == -width)).sum()),
            int((beyond > self.too_far[mask]).sum()),
            tuple(held.tolist()),
        )


def _better_shift(books: Books, trades: Trades, as_is: Location) -> int:
    """Tried only where most trades find no book or print far from it."""
    if as_is.judged - as_is.far >= len(trades) / 2 or not len(books):
        return 0
    best_h, best = 0, max(as_is.judged - as_is.far, len(trades) // 10)
    for hours in SHIFTS_H:
        found = _Found(books, trades, hours * 3_600_000_000_000)
        moved = found.location(found.fits)
        # Twice as many at the touch or through it, or it is chance.
        if moved.judged - moved.far > 2 * best and moved.at > moved.judged / 4:
            best_h, best = hours, (moved.judged - moved.far) // 2
    return best_h
