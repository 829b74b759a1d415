"""Best prices of a stretch as labels see them: books in force at a time, windows of rows, and what voids
them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from features.batch import FeatureTable
from features.schema import CROSSED, GAP_NS, INCONSISTENT, ONE_SIDED
from market.errors import ConfigError
from market.types import SECOND_NS, InstrumentDay

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

WALK_SPREAD_TICKS: Final = 2


@dataclass(frozen=True, slots=True)
class Quotes:
    """Best prices of a stretch: ``recv_ns`` int64 [n] in order; ``bid``, ``ask`` float64 [n] in ticks;
    ``tradable`` bool [n], false where the book is crossed, one-sided or inconsistent."""

    recv_ns: I64
    bid: F64
    ask: F64
    tradable: Mask

    @classmethod
    def of(cls, day: InstrumentDay, table: FeatureTable) -> Self:
        """The best prices of a day, with the verdict of its features' status on each book."""
        if len(table) != len(day.books):
            raise ConfigError(
                f"{day.instrument.ticker} {day.day}: {len(table)} feature rows for {len(day.books)} books"
            )
        tradable = (table.status & (CROSSED | ONE_SIDED | INCONSISTENT)) == 0
        bid, ask = (px[:, 0].astype(np.float64) for px in (day.books.bid_px, day.books.ask_px))
        return cls(day.books.recv_ns, bid, ask, tradable)

    @classmethod
    def walk(cls, mids: F64, step_ns: int = SECOND_NS // 4) -> Self:
        """A constant spread around given mids, a book every ``step_ns``."""
        recv_ns = np.arange(len(mids), dtype=np.int64) * step_ns
        half = WALK_SPREAD_TICKS / 2
        return cls(recv_ns, mids - half, mids + half, np.ones(len(mids), bool))

    @property
    def mid(self) -> F64:
        """float64 [n] ticks, NaN where not tradable."""
        return np.where(self.tradable, (self.bid + self.ask) / 2, np.nan)

    def _gaps(self) -> I64:
        return np.concatenate([[0], np.cumsum(np.diff(self.recv_ns) > GAP_NS)])[: len(self.recv_ns)]

    def rows(self, back: int, ahead: int) -> tuple[I64, I64, Mask]:
        """First and last row of [t - back, t + ahead], clipped, and whether that window is whole: inside
        the day, no gap within, every book of it tradable."""
        n = len(self.recv_ns)
        at = np.arange(n)
        first, last = np.maximum(at - back, 0), np.minimum(at + ahead, n - 1)
        gaps, bad = self._gaps(), np.concatenate([[0], np.cumsum(~self.tradable)])
        whole = (at >= back) & (at + ahead < n)
        return first, last, whole & (gaps[first] == gaps[last]) & (bad[last + 1] == bad[first])

    def times(self, entry_ns: I64, exit_ns: I64) -> tuple[I64, I64, Mask]:
        """Books in force at two times after each row, and whether a label may use them (as ``make_labels``):
        the day covers the window, no gap touches it, and it starts, enters and leaves on a tradable book."""
        n, gaps = len(self.recv_ns), self._gaps()
        entry = np.searchsorted(self.recv_ns, entry_ns, side="right") - 1
        leave = np.searchsorted(self.recv_ns, exit_ns, side="right") - 1
        after = np.searchsorted(self.recv_ns, exit_ns, side="left")
        no_gap = gaps[np.minimum(after, n - 1)] == gaps
        ok = self.tradable & self.tradable[entry] & self.tradable[leave]
        return entry, leave, (after < n) & no_gap & ok


def window_mean(values: F64, first: int, last: int) -> F64:
    """Mean of ``values[t + first .. t + last]`` for every t, float64 [n]; NaN where that leaves the array."""
    n, k = len(values), last - first + 1
    start = values[0] if n else 0.0
    sums = np.concatenate([[0.0], np.cumsum(values - start)])
    out = np.full(n, np.nan)
    t = np.arange(max(0, -first), min(n, n - last))
    if len(t):
        out[t] = (sums[t + last + 1] - sums[t + first]) / k + start
    return out
