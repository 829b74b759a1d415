"""One-minute bars of the mid in half-ticks, and the average true range of the last five."""

from __future__ import annotations

from typing import Any

from live.core.config import MINUTE_NS

BARS = 5
MAX_BAR_AGE_MINUTES = 30
"""A closed bar older than this says nothing about the present."""

Bar = tuple[int, int, int, int]
"""minute, high, low, close; the last three in half-ticks (bid + ask)."""


class MinuteBars:
    """Closed one-minute bars of one instrument (minutes without a book leave no bar)."""

    def __init__(self) -> None:
        self._closed: list[tuple[int, int]] = []  # (minute, true range in half-ticks), at most BARS
        self._open: Bar | None = None
        self._previous_close: int | None = None

    def on_mid(self, now_ns: int, mid2_ticks: int) -> None:
        """Take one mid, ``mid2_ticks`` = bid + ask > 0."""
        minute = now_ns // MINUTE_NS
        if self._open is None:
            self._open = (minute, mid2_ticks, mid2_ticks, mid2_ticks)
        elif self._open[0] == minute:
            _, high, low, close = self._open
            if mid2_ticks != close:
                self._open = (minute, max(high, mid2_ticks), min(low, mid2_ticks), mid2_ticks)
        else:
            self._close_bar(self._open)
            self._open = (minute, mid2_ticks, mid2_ticks, mid2_ticks)

    def _close_bar(self, bar: Bar) -> None:
        minute, high, low, close = bar
        if self._previous_close is not None:  # Wilder's true range counts the jump from the bar before
            high, low = max(high, self._previous_close), min(low, self._previous_close)
        self._closed.append((minute, high - low))
        del self._closed[:-BARS]
        self._previous_close = close

    def true_ranges(self, now_ns: int) -> tuple[int, int]:
        """(sum of true ranges in half-ticks, number of bars, at most 5) of the recent bars."""
        oldest = now_ns // MINUTE_NS - MAX_BAR_AGE_MINUTES
        recent = [tr for minute, tr in self._closed if minute >= oldest]
        return sum(recent), len(recent)

    def to_dict(self) -> dict[str, Any]:
        return {
            "closed": [list(b) for b in self._closed],
            "open": list(self._open) if self._open else None,
            "previous_close": self._previous_close,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> MinuteBars:
        bars = cls()
        bars._closed = [(minute, tr) for minute, tr in fields["closed"]]
        if fields["open"] is not None:
            minute, high, low, close = fields["open"]
            bars._open = (minute, high, low, close)
        bars._previous_close = fields["previous_close"]
        return bars
