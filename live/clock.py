"""Market time for the shell. The core never reads a clock: it sees ``now_ns`` inside events."""

from __future__ import annotations

import time
from fractions import Fraction

from market.types import SECOND_NS

MAX_BEHIND_NS = 5 * SECOND_NS
"""A ping from so far ahead of us is no delay: messages arrive late, never early."""


class MarketClock:
    """Nanoseconds UTC of the market, monotone.

    ``market = anchor + (monotonic - monotonic_at_anchor) * speed``. With the paper exchange the anchor is the
    time in the first Ping of the stream and ``speed`` the one in its endpoint file; until then the clock
    stands at ``start_ns``. With a real broker the clock is anchored to the wall clock once, so that a step of
    the wall clock (NTP) cannot make market time jump. A machine that slept, or began with a wrong date, is
    left behind: then the broker's pings and the wall clock agree against it, and it catches up, forwards
    only.
    """

    def __init__(self, start_ns: int, speed: float = 1.0, *, by_the_wall: bool = False) -> None:
        self.caught_up_ns = 0
        """How far it has been moved forwards, all in all."""
        self._by_the_wall = by_the_wall
        self._anchor_ns = start_ns
        self._speed = Fraction(speed).limit_denominator(1_000_000)
        self._mono_ns: int | None = None
        self._last_ns = start_ns

    @classmethod
    def wall(cls) -> MarketClock:
        clock = cls(time.time_ns(), by_the_wall=True)
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
        """The market's time is ``market_ns`` now. The first call counts; later ones carry network delay and
        only show that the clock was left behind.
        """
        if self._mono_ns is None:
            self._mono_ns = time.monotonic_ns()
            self._anchor_ns = market_ns
        elif self._by_the_wall:
            self._catch_up(market_ns)

    def _catch_up(self, market_ns: int) -> None:
        """Not on one witness alone: a broker whose clock is wrong must not move ours."""
        behind_ns = market_ns - self.now_ns()
        if behind_ns > MAX_BEHIND_NS and abs(time.time_ns() - market_ns) <= MAX_BEHIND_NS:
            self._anchor_ns += behind_ns
            self.caught_up_ns += behind_ns

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
