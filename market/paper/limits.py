"""Requests per minute, as the broker counts them: for the x-ratelimit headers, enforced only when asked."""

from __future__ import annotations

import time

_SERVICE_LIMITS = {
    "UsersService": 100,
    "InstrumentsService": 200,
    "MarketDataService": 600,
    "OperationsService": 200,
    "OrdersService": 100,
}
_METHOD_LIMITS = {
    "OrdersService/GetOrders": 200,
    "OrdersService/PostOrder": 300,
    "OrdersService/CancelOrder": 100,
}
WINDOW_S = 60


class RateLimits:
    """One fixed window of wall time per service, and per method where the broker limits it on its own."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int]] = {}

    def count(self, key: str) -> tuple[bool, dict[str, str]]:
        """Counts a call of "Service/Method"; returns whether it is within the limit, and the headers to
        send.
        """
        group = key if key in _METHOD_LIMITS else key.split("/")[0]
        limit = _METHOD_LIMITS.get(group) or _SERVICE_LIMITS.get(group, 100)
        now = time.monotonic()
        window = int(now // WINDOW_S)
        started, used = self._windows.get(group, (window, 0))
        used = used + 1 if started == window else 1
        self._windows[group] = (window, used)
        headers = {
            "x-ratelimit-limit": f"{limit}, {limit};w={WINDOW_S}",
            "x-ratelimit-remaining": str(max(0, limit - used)),
            "x-ratelimit-reset": str(int(WINDOW_S - now % WINDOW_S) + 1),
        }
        return used <= limit, headers
