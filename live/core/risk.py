"""The risk engine's memory: the day's result, the run of losses, the order rate, the fallback's quota."""

from __future__ import annotations

from collections import deque
from typing import Any

from live.core.config import HOUR_NS, MINUTE_NS

MAX_RATE_STAMPS = 10_000
"""Bound of the sliding windows; a limit above it could not be checked, so configurations stay below."""


_COUNTERS = ("day", "day_realised_nano", "day_trips", "day_orders", "consecutive_losses", "reject_streak")


class SlidingCount:
    """How many events of the last ``window_ns`` nanoseconds."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._stamps: deque[int] = deque(maxlen=MAX_RATE_STAMPS)

    def add(self, now_ns: int) -> None:
        self._stamps.append(now_ns)

    def count(self, now_ns: int) -> int:
        while self._stamps and self._stamps[0] <= now_ns - self._window_ns:
            self._stamps.popleft()
        return len(self._stamps)

    def to_list(self) -> list[int]:
        return list(self._stamps)

    def restore(self, stamps: list[int]) -> None:
        self._stamps = deque(stamps, maxlen=MAX_RATE_STAMPS)


class RiskState:
    """Counters that limits are checked against; ``roll`` starts a new exchange day."""

    def __init__(self) -> None:
        self.day = -1
        self.day_realised_nano = 0
        """Realised today, fees included."""
        self.day_trips = 0
        self.day_orders = 0
        self.consecutive_losses = 0
        self.reject_streak = 0
        self.orders = SlidingCount(MINUTE_NS)
        self.fallbacks = SlidingCount(HOUR_NS)

    def roll(self, day: int) -> bool:
        """Reset the daily counters when ``day`` is a new one; True if they were reset."""
        if day == self.day:
            return False
        first = self.day == -1
        self.day = day
        self.day_realised_nano = self.day_trips = self.day_orders = self.consecutive_losses = 0
        return not first

    def trip_closed(self, net_nano: int) -> None:
        self.day_trips += 1
        self.consecutive_losses = self.consecutive_losses + 1 if net_nano < 0 else 0

    def order_placed(self, now_ns: int) -> None:
        self.day_orders += 1
        self.orders.add(now_ns)

    def to_dict(self) -> dict[str, Any]:
        counters = {name: getattr(self, name) for name in _COUNTERS}
        return {**counters, "orders": self.orders.to_list(), "fallbacks": self.fallbacks.to_list()}

    def restore(self, fields: dict[str, Any]) -> None:
        """Go on from ``to_dict`` of an earlier session."""
        for name in _COUNTERS:
            setattr(self, name, fields[name])
        self.orders.restore(fields["orders"])
        self.fallbacks.restore(fields["fallbacks"])
