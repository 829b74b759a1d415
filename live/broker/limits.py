"""Our own rate budget, kept under the broker's, so that it never has to refuse (and ban) us.

Before anything is known the documented limits are believed. The account's own ones, which follow its
trading of the last month, come at the start from GetUserTariff (``learn``). From then on every answer says in
its headers what the limit is, how much of it is left and when it is whole again, and that word wins. Budgets
are kept per group of methods that the broker counts together. Cancels may use all of a budget, everything
else leaves a reserve: getting out must never wait behind getting in.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

CALLS_PER_SECOND = 40
"""All calls together; the broker asks to stay under 50 per second and address."""
CANCEL_SHARE = 0.25
"""Part of the common budget that only cancels may use."""
SAFETY = 0.9
"""Part of a limit that we use; the rest is for clocks that disagree and for other programs of the token."""
BURST_S = 10.0
"""A budget never lets more through at once than it earns in so long."""
NEW_WINDOW_S = 2.0
"""A reset announced so much later than the last one belongs to the next window (the seconds are rounded)."""
MAX_RESET_S = 120.0

CANCELS = "cancel_order"
PER_MINUTE: dict[str, int] = {
    "instruments": 200, "users": 100, "operations": 200, "market_data": 600, "orders": 100, "get_orders": 200,
    "post_order": 300, CANCELS: 100, "stop_orders": 50,
}  # fmt: skip
GROUPS: dict[str, str] = {
    "OrdersService/PostOrder": "post_order", "OrdersService/CancelOrder": CANCELS,
    "OrdersService/GetOrders": "get_orders", "OrdersService/GetOrderState": "orders",
    "UsersService/GetAccounts": "users", "UsersService/GetInfo": "users",
    "UsersService/GetUserTariff": "users",
    "InstrumentsService/ShareBy": "instruments", "InstrumentsService/FutureBy": "instruments",
    "InstrumentsService/GetInstrumentBy": "instruments", "InstrumentsService/FindInstrument": "instruments",
    "InstrumentsService/GetFuturesMargin": "instruments",
    "InstrumentsService/TradingSchedules": "instruments", "OperationsService/GetPositions": "operations",
    "OperationsService/GetOperationsByCursor": "operations",
    "MarketDataService/GetOrderBook": "market_data", "MarketDataService/GetTradingStatus": "market_data",
    "StopOrdersService/PostStopOrder": "stop_orders", "StopOrdersService/GetStopOrders": "stop_orders",
    "StopOrdersService/CancelStopOrder": "stop_orders", "MarketDataService/GetLastPrices": "market_data",
}  # fmt: skip
_WINDOW = re.compile(r"\s*(\d+)\s*(?:,\s*(\d+)\s*;\s*w=(\d+).*)?")
"""``300, 300;w=60``: 300 requests per 60 seconds. Of several windows the first."""


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

    def resize(self, capacity: float, per_second: float, *, now: float | None = None) -> None:
        """Another limit from now on; what was earned is kept as far as it fits."""
        self._refill(now)
        self._capacity, self._rate = capacity, per_second
        self._tokens = min(self._tokens, capacity)

    def _refill(self, now: float | None) -> None:
        now = time.monotonic() if now is None else now
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now


@dataclass(frozen=True, slots=True)
class Allowance:
    """One row of the account's tariff: the limit that ``methods`` ("Service/Method") share."""

    methods: tuple[str, ...]
    per_minute: int
    per_second: int = 0
    """0: the broker names none."""


@dataclass(slots=True)
class Budget:
    """One group: our even pace, and what the broker said is left of its window."""

    bucket: TokenBucket
    limit: int
    window_s: float = 60.0
    left: int | None = None
    """Requests that the broker still grants until ``reset_at``; None = it has said nothing."""
    reset_at: float = 0.0
    in_flight: int = 0
    refused: int = 0

    def wait_s(self, now: float, *, reserve: float) -> float:
        wait = self.bucket.wait_s(now=now)
        if self.left is not None and now < self.reset_at and self.left < 1 + reserve:
            wait = max(wait, self.reset_at - now)
        return wait


class RateLimits:
    """The budgets of one account. ``scale``: a paper exchange running 20 times as fast allows 20 times as
    much; then its headers, which count by the wall clock, are noted but bind nobody.
    """

    def __init__(self, scale: float = 1.0, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._scale = max(1.0, scale)
        self._clock_s = clock_s
        now = clock_s()
        self._budgets = {
            name: Budget(_paced(limit, 60.0, self._scale, now), limit) for name, limit in PER_MINUTE.items()
        }
        common = CALLS_PER_SECOND * self._scale
        self._common = TokenBucket(common, common, reserve=common * CANCEL_SHARE, now=now)

    def learn(self, tariff: Iterable[Allowance]) -> None:
        """The account's own limits. Groups of ours that share one row share one budget from now on; a group
        that several rows name gets the narrowest of them; methods that we never call do not matter.
        """
        now = self._clock_s()
        narrowest: dict[str, Allowance] = {}
        shared: dict[str, str] = {}
        for row in tariff:
            ours = sorted({GROUPS[method] for method in row.methods if method in GROUPS})
            if row.per_minute <= 0:
                continue
            for group in ours:
                if group not in narrowest or _rate(row) < _rate(narrowest[group]):
                    narrowest[group], shared[group] = row, ours[0]
        for group, row in narrowest.items():
            if narrowest[shared[group]] is row:
                self._budgets[group] = self._budgets[shared[group]]
            budget, rate = self._budgets[group], SAFETY * _rate(row) * self._scale
            burst = _burst(rate, 60.0)
            if row.per_second > 0:
                burst = min(burst, max(1.0, SAFETY * row.per_second * self._scale))
            budget.bucket.resize(burst, rate, now=now)
            budget.limit, budget.window_s = row.per_minute, 60.0

    def wait_s(self, method: str) -> float:
        """Seconds until ``method`` may be called."""
        group, now = GROUPS[method], self._clock_s()
        budget = self._budgets[group]
        privileged = group == CANCELS
        reserve = 0.0 if privileged else (1 - SAFETY) * budget.limit
        return max(budget.wait_s(now, reserve=reserve), self._common.wait_s(privileged=privileged, now=now))

    def take(self, method: str) -> None:
        """A call of ``method`` begins."""
        budget, now = self._budgets[GROUPS[method]], self._clock_s()
        budget.bucket.take(now=now)
        budget.in_flight += 1
        if budget.left is not None:
            budget.left -= 1
        self._common.take(now=now)

    def done(self, method: str, headers: Mapping[str, str]) -> None:
        """A call of ``method`` ended, whatever way; ``headers`` are those of its answer."""
        budget = self._budgets[GROUPS[method]]
        budget.in_flight = max(0, budget.in_flight - 1)
        self._believe(budget, headers)

    def exhausted(self, method: str, reset_s: float) -> None:
        """The broker refused ``method`` with 80002: nothing of its group until the window is over."""
        budget = self._budgets[GROUPS[method]]
        budget.refused += 1
        budget.bucket.drain()
        if reset_s > 0:
            budget.left, budget.reset_at = 0, self._clock_s() + min(reset_s, MAX_RESET_S)

    def report(self) -> dict[str, dict[str, float]]:
        """By group: the limit, what is left of it (-1: the broker has not said), refusals so far."""
        now = self._clock_s()
        return {
            name: {
                "limit": b.limit,
                "window_s": b.window_s,
                "left": b.left if b.left is not None and now < b.reset_at else -1,
                "refused": b.refused,
            }
            for name, b in self._budgets.items()
        }

    # ---- the broker's word ----

    def _believe(self, budget: Budget, headers: Mapping[str, str]) -> None:
        limit, window_s = _limit(headers.get("x-ratelimit-limit", ""))
        now = self._clock_s()
        changed = limit > 0 and (limit, window_s) != (budget.limit, budget.window_s)
        if changed and self._scale == 1:
            rate = SAFETY * limit / window_s
            budget.bucket.resize(_burst(rate, window_s), rate, now=now)
        if changed:
            budget.limit, budget.window_s = limit, window_s
        left, reset_s = _whole(headers.get("x-ratelimit-remaining")), _whole(headers.get("x-ratelimit-reset"))
        if left is None or reset_s is None or self._scale > 1:
            return
        # Those on their way may be counted in the answer or not: the careful reading is that they are not.
        left -= budget.in_flight
        reset_at = now + min(reset_s, MAX_RESET_S)
        same = not changed and now < budget.reset_at and reset_at < budget.reset_at + NEW_WINDOW_S
        if same and budget.left is not None:
            # Answers overtake each other: within one window what is left only shrinks.
            budget.left = min(left, budget.left)
        else:
            budget.left, budget.reset_at = left, reset_at


def _paced(limit: int, window_s: float, scale: float, now: float) -> TokenBucket:
    rate = SAFETY * limit * scale / window_s
    return TokenBucket(_burst(rate, window_s), rate, now=now)


def _rate(row: Allowance) -> float:
    """Requests per second that a row of the tariff allows in the long run."""
    return min(row.per_minute / 60.0, row.per_second or row.per_minute)


def _burst(rate: float, window_s: float) -> float:
    return max(1.0, rate * min(BURST_S, window_s / 6))


def _limit(text: str) -> tuple[int, float]:
    """(requests, seconds) of x-ratelimit-limit; (0, 60) when it says nothing."""
    found = _WINDOW.fullmatch(text)
    if found is None or int(found.group(1)) <= 0:
        return 0, 60.0
    if found.group(3) is None or int(found.group(3)) <= 0:
        return int(found.group(1)), 60.0
    return int(found.group(2)) or int(found.group(1)), float(found.group(3))


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else max(0, int(float(text)))
    except (ValueError, OverflowError):
        return None
