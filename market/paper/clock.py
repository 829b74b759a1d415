"""Market time: stands still until somebody listens, then runs ``speed`` times as fast as the wall."""

from __future__ import annotations

import time

from market.types import SECOND_NS


class MarketClock:
    """``now = start + (monotonic since the start) * speed``. Never runs backwards."""

    def __init__(self, start_ns: int, speed: float) -> None:
        self.start_ns = start_ns
        self.speed = speed
        self._started_at: int | None = None

    @property
    def running(self) -> bool:
        return self._started_at is not None

    def start(self) -> None:
        """Lets the time flow; further calls change nothing."""
        if self._started_at is None:
            self._started_at = time.monotonic_ns()

    def now_ns(self) -> int:
        if self._started_at is None:
            return self.start_ns
        return self.start_ns + int((time.monotonic_ns() - self._started_at) * self.speed)

    def wall_s_until(self, market_ns: int) -> float:
        """Wall seconds until the market time comes; 0 when it has come."""
        return max(0, market_ns - self.now_ns()) / self.speed / SECOND_NS
