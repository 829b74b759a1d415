"""Market time for the shell. The core never reads a clock: it sees ``now_ns`` inside events."""

from __future__ import annotations

import time
from fractions import Fraction


class MarketClock:
    """Nanoseconds UTC of the market, monotone.

    ``market = anchor + (monotonic - monotonic_at_anchor) * speed``. With the paper exchange the anchor is the
    time in the first Ping of the stream and ``speed`` the one in its endpoint file; until then the clock
    stands at ``start_ns``. With a real broker the clock is anchored to the wall clock once, so that a step of
    the wall clock (NTP) cannot make market time jump.
    """

    def __init__(self, start_ns: int, speed: float = 1.0) -> None:
        self._anchor_ns = start_ns
        self._speed = Fraction(speed).limit_denominator(1_000_000)
        self._mono_ns: int | None = None
        self._last_ns = start_ns

    @classmethod
    def wall(cls) -> MarketClock:
        clock = cls(time.time_ns())
        clock.anchor(time.time_ns())
        return clock

    @property
    def anchored(self) -> bool:
        return self._mono_ns is not None

    @property
    def speed(self) -> float:
        return float(self._speed)

    def not_before(self, market_ns: int) -> None:
        """Never answer with an earlier time (a restored session was there already)."""
        self._last_ns = max(self._last_ns, market_ns)

    def anchor(self, market_ns: int) -> None:
        """The market's time is ``market_ns`` now. Only the first call counts: later pings carry network
        delay.
        """
        if self._mono_ns is None:
            self._mono_ns = time.monotonic_ns()
            self._anchor_ns = market_ns

    def at(self, mono_ns: int) -> int:
        """Market time at a reading of ``time.monotonic_ns()``."""
        if self._mono_ns is None:
            return self._anchor_ns
        elapsed = (mono_ns - self._mono_ns) * self._speed.numerator // self._speed.denominator
        return self._anchor_ns + elapsed

    def now_ns(self) -> int:
        """Market time now, never before an earlier answer."""
        self._last_ns = max(self._last_ns, self.at(time.monotonic_ns()))
        return self._last_ns

    def wall_seconds(self, market_seconds: float) -> float:
        """How long a stretch of market time takes on the wall clock."""
        return market_seconds / float(self._speed)
