"""Thin liquidity, told once when it begins and once when it is over.

A spread over the limit has to last before it is told, and it counts as normal again only after it was under
80 % of the limit for a while: a spread that dances around the limit makes one message, not hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from live.core.books import MILLIBPS
from market.types import SECOND_NS

CLEAR_SHARE_PPM = 800_000
WIDE_FOR_NS = 1 * SECOND_NS
NORMAL_FOR_NS = 5 * SECOND_NS
MANY = 10
"""A spread of so many limits is told at once."""


class Spread(Enum):
    """What became of the spread."""

    WIDE = "wide"
    NORMAL = "normal"


@dataclass(slots=True)
class _Seen:
    wide: bool = False
    since_ns: int | None = None
    """Since when the spread has been on the other side of its border; None while it is not."""


class SpreadWatch:
    """``limit_millibps`` 0: never tells anything."""

    def __init__(self, limit_millibps: int) -> None:
        self.limit_millibps = limit_millibps
        self._clear_millibps = limit_millibps * CLEAR_SHARE_PPM // 1_000_000
        self._seen: dict[str, _Seen] = {}
        """Only of instruments whose spread is, or was just now, too wide."""

    def look(self, ticker: str, bid_ticks: int, ask_ticks: int, now_ns: int) -> tuple[int, Spread] | None:
        """(spread in thousandths of a bp, what is to be told), None when there is nothing to tell."""
        width, mid2 = 2 * (ask_ticks - bid_ticks) * MILLIBPS, bid_ticks + ask_ticks
        seen = self._seen.get(ticker)
        if seen is None:
            # Wider than the limit in whole thousandths, as below; without a limit nothing is ever wide.
            if width < (self.limit_millibps + 1) * mid2 or not self.limit_millibps:
                return None
            seen = self._seen[ticker] = _Seen()
        return self._judge(ticker, seen, width // mid2, now_ns)

    def _judge(self, ticker: str, seen: _Seen, spread: int, now_ns: int) -> tuple[int, Spread] | None:
        crossed = spread < self._clear_millibps if seen.wide else spread > self.limit_millibps
        if not crossed:
            seen.since_ns = None
            if not seen.wide:
                del self._seen[ticker]
            return None
        if seen.since_ns is None:
            seen.since_ns = now_ns
        lasted_ns = now_ns - seen.since_ns
        extreme = not seen.wide and spread > MANY * self.limit_millibps
        if lasted_ns < (NORMAL_FOR_NS if seen.wide else WIDE_FOR_NS) and not extreme:
            return None
        seen.wide, seen.since_ns = not seen.wide, None
        return spread, Spread.WIDE if seen.wide else Spread.NORMAL


def in_bps(millibps: int) -> str:
    """Thousandths of a basis point for people: 12345 is 12.3 bps."""
    tenths = (millibps + 50) // 100
    return f"{tenths // 10}.{tenths % 10}"
