"""Market time: stands still until somebody listens, then runs ``speed`` times as fast as the wall."""

from __future__ import annotations

import time

from market.types import SECOND_NS


class MarketClock:
    """``now = start + (monotonic since the start) * speed``; never runs backwards.

    With ``speed`` 0 listeners do not start it and only ``advance_to`` moves it: a test then steps through the
    recording.
    """

    def __init__(self, start_ns: int, speed: float) -> None:
        self.start_ns = start_ns
        self.speed = speed
        self._started_at: int | None = None
        self._reached_ns = start_ns

    @property
    def running(self) -> bool:
        return self._started_at is not None

    @property
    def stepped(self) -> bool:
        return self.speed == 0

    @property
    def started_monotonic_ns(self) -> int | None:
        """When the time began to flow, by the system's monotonic clock; None before. Who reads that clock
        too, in any process, can tell how late a message is.
        """
        return self._started_at

    def start(self) -> None:
        """Lets the time flow; further calls change nothing."""
        if self._started_at is None:
            self._started_at = time.monotonic_ns()

    def advance_to(self, market_ns: int) -> None:
        """Moves a stepped clock forward; a time that has passed changes nothing."""
        self._reached_ns = max(self._reached_ns, market_ns)

    def now_ns(self) -> int:
        if self._started_at is None or self.stepped:
            return self._reached_ns
        return self.start_ns + int((time.monotonic_ns() - self._started_at) * self.speed)

    def wall_s_until(self, market_ns: int) -> float | None:
        """Wall seconds until the market time comes, 0 when it has come, None while the clock stands still."""
        left_ns = max(0, market_ns - self.now_ns())
        if left_ns and (self.stepped or not self.running):
            return None
        return left_ns / self.speed / SECOND_NS if left_ns else 0.0
