"""Our own rate limits, kept under the broker's, so that it never has to refuse (and ban) us."""

from __future__ import annotations

import time

CALLS_PER_SECOND = 40
"""All calls together; the broker asks to stay under 50 per second and address."""
CANCEL_SHARE = 0.25
"""Part of the common budget that only cancels may use: getting out must never wait behind getting in."""

PER_MINUTE: dict[str, int] = {
    "instruments": 200, "users": 100, "operations": 200, "market_data": 600, "orders": 100, "get_orders": 200,
    "post_order": 300, "cancel_order": 100,
}  # fmt: skip
GROUPS: dict[str, str] = {
    "OrdersService/PostOrder": "post_order", "OrdersService/CancelOrder": "cancel_order",
    "OrdersService/GetOrders": "get_orders", "OrdersService/GetOrderState": "orders",
    "UsersService/GetAccounts": "users", "UsersService/GetInfo": "users",
    "InstrumentsService/ShareBy": "instruments", "InstrumentsService/FutureBy": "instruments",
    "InstrumentsService/GetInstrumentBy": "instruments", "InstrumentsService/FindInstrument": "instruments",
    "InstrumentsService/GetFuturesMargin": "instruments", "OperationsService/GetPositions": "operations",
    "MarketDataService/GetOrderBook": "market_data", "MarketDataService/GetTradingStatus": "market_data",
}  # fmt: skip
SAFETY = 0.9
"""Part of a published limit that we use; the rest is for clocks that disagree."""


class TokenBucket:
    """``capacity`` tokens refilled at ``per_second``; ``reserve`` of them only for privileged takers."""

    def __init__(
        self, capacity: float, per_second: float, reserve: float = 0.0, *, now: float | None = None
    ) -> None:
        self._capacity, self._rate, self._reserve = capacity, per_second, reserve
        self._tokens = capacity
        self._at = time.monotonic() if now is None else now

    def wait_s(self, *, privileged: bool = False, now: float | None = None) -> float:
        """Seconds until a token may be taken; 0 = now. Takes nothing."""
        self._refill(now)
        missing = 1.0 + (0.0 if privileged else self._reserve) - self._tokens
        return max(0.0, missing / self._rate)

    def take(self, *, now: float | None = None) -> None:
        self._refill(now)
        self._tokens -= 1.0

    def drain(self) -> None:
        """The broker says that the limit is reached: believe it."""
        self._tokens = min(self._tokens, 0.0)

    def _refill(self, now: float | None) -> None:
        now = time.monotonic() if now is None else now
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now


class RateLimits:
    """The buckets of one account. ``scale``: a paper exchange running 20 times as fast allows 20 times as
    much.
    """

    def __init__(self, scale: float = 1.0) -> None:
        scale = max(1.0, scale)
        self._groups = {
            name: TokenBucket(SAFETY * limit * scale / 6, SAFETY * limit * scale / 60)
            for name, limit in PER_MINUTE.items()
        }
        common = CALLS_PER_SECOND * scale
        self._common = TokenBucket(common, common, reserve=common * CANCEL_SHARE)

    def wait_s(self, method: str) -> float:
        """Seconds until ``method`` may be called."""
        group = GROUPS[method]
        privileged = group == "cancel_order"
        return max(self._groups[group].wait_s(), self._common.wait_s(privileged=privileged))

    def take(self, method: str) -> None:
        self._groups[GROUPS[method]].take()
        self._common.take()

    def exhausted(self, method: str) -> None:
        self._groups[GROUPS[method]].drain()
