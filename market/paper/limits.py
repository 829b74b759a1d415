"""How much a client may ask, as the broker counts it: for the x-ratelimit headers and GetUserTariff, enforced
only when asked.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from market.contract import invest_pb2 as pb
from market.contract.methods import METHODS, PACKAGE
from market.paper.refusals import Refusal

WINDOW_S = 60
MAX_SUBSCRIPTIONS = 300
"""Candles, books and trades of one market data stream; trading statuses and last prices do not count."""
MAX_SUBSCRIBE_REQUESTS = 100
"""Subscribe and unsubscribe requests of all streams per window."""
EMPTY_STREAM_S = 120.0
"""Wall time after which a market data stream without a subscription is closed with 80004."""

_SERVICE_LIMITS = {
    "UsersService": 100,
    "InstrumentsService": 200,
    "MarketDataService": 600,
    "OperationsService": 200,
    "OrdersService": 100,
    "StopOrdersService": 50,
    "SandboxService": 200,
}
_METHOD_LIMITS = {
    "OrdersService/GetOrders": 200,
    "OrdersService/PostOrder": 300,
    "OrdersService/PostOrderAsync": 450,
    "OrdersService/CancelOrder": 100,
}
_DEFAULT_LIMIT = 100
_STREAM_LIMITS = {"MarketDataStreamService": 16, "OrdersStreamService": 10, "OperationsStreamService": 2}
"""Open streams: market data together, those of orders and operations for each method; grades 1 to 3."""


def _stream_group(key: str) -> tuple[str, int]:
    service = key.split("/")[0]
    group = service if service == "MarketDataStreamService" else key
    return group, _STREAM_LIMITS.get(service, _DEFAULT_LIMIT)


class RateLimits:
    """Windows of a minute that begin with their first request: one per service, and one per method where the
    broker limits it on its own. ``enforced`` False counts and refuses nothing.

    The minute is the market's: with a ``speed`` above 1 the windows are so many times shorter, and so are the
    seconds of x-ratelimit-reset, which are the wall's.
    """

    def __init__(
        self, *, enforced: bool, speed: float = 1.0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.enforced = enforced
        self._window_s = WINDOW_S / max(1.0, speed)
        self._now_s = now_s
        self._windows: dict[str, tuple[float, int]] = {}
        self._open: Counter[str] = Counter()
        self._methods = dict(_METHOD_LIMITS)

    def grade(self, key: str, per_minute: int) -> None:
        """The account's own limit of "Service/Method": the broker sets some by what was traded lately."""
        self._methods[key] = per_minute

    def _group(self, key: str) -> tuple[str, int]:
        if key in self._methods:
            return key, self._methods[key]
        service = key.split("/")[0]
        return service, _SERVICE_LIMITS.get(service, _DEFAULT_LIMIT)

    def count(self, key: str) -> dict[str, str]:
        """Counts a call of "Service/Method"; returns the headers to send.

        Raises Refusal 80002, with the headers in ``metadata``, beyond the limit.
        """
        group, limit = self._group(key)
        used, left_s = self._use(group)
        headers = {
            "x-ratelimit-limit": f"{limit}, {limit};w={WINDOW_S}",
            "x-ratelimit-remaining": str(max(0, limit - used)),
            "x-ratelimit-reset": str(max(1, math.ceil(left_s))),
        }
        if self.enforced and used > limit:
            raise exhausted(key, headers)
        return headers

    def may_subscribe(self) -> bool:
        """Counts a subscribe request; False when there were too many in the window."""
        used, _ = self._use("subscribe")
        return not self.enforced or used <= MAX_SUBSCRIBE_REQUESTS

    @contextmanager
    def stream(self, key: str) -> Iterator[None]:
        """Counts a stream while it is open. Raises Refusal 80001 when too many are."""
        group, limit = _stream_group(key)
        if self.enforced and self._open[group] >= limit:
            raise Refusal("80001", f"{limit} open streams of {group}")
        self._open[group] += 1
        try:
            yield
        finally:
            self._open[group] -= 1

    def tariff(self) -> pb.GetUserTariffResponse:
        """Every limit with the methods that share it, and how many streams are open."""
        reply = pb.GetUserTariffResponse()
        unary: dict[tuple[str, int], list[str]] = {}
        streams: dict[tuple[str, int], list[str]] = {}
        for method in METHODS.values():
            name = f"{PACKAGE}.{method.service}/{method.name}"
            if method.kind == "unary":
                unary.setdefault(self._group(method.key), []).append(name)
            else:
                streams.setdefault(_stream_group(method.key), []).append(name)
        for (_, limit), names in unary.items():
            reply.unary_limits.add(limit_per_minute=limit, methods=names)
        for (group, limit), names in streams.items():
            reply.stream_limits.add(limit=limit, streams=names, open=self._open[group])
        return reply

    def _use(self, group: str) -> tuple[int, float]:
        """Counts one; returns how many the window has now, and the seconds until it ends."""
        now_s = self._now_s()
        began_s, used = self._windows.get(group, (now_s, 0))
        if now_s - began_s >= self._window_s:
            began_s, used = now_s, 0
        self._windows[group] = (began_s, used + 1)
        return used + 1, self._window_s - (now_s - began_s)


def exhausted(key: str, headers: dict[str, str]) -> Refusal:
    """80002 with nothing remaining."""
    refusal = Refusal("80002", key)
    refusal.metadata = headers | {"x-ratelimit-remaining": "0"}
    return refusal
