"""A ping every so often on one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp
from market.paper.clock import MarketClock

PING_MS = 120_000
MARKET_PING_RANGE_MS = (5_000, 180_000)
ORDER_PING_RANGE_MS = (1_000, 120_000)


class Pinger:
    """Calls ``put`` every so many wall milliseconds."""

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self._timer: asyncio.TimerHandle | None = None
        self._delay_s = 0.0

    def every(self, asked_ms: int | None, allowed_ms: tuple[int, int]) -> None:
        """From now on; nothing asked means the default, and what is out of range becomes its end."""
        low, high = allowed_ms
        self._delay_s = min(max(asked_ms or PING_MS, low), high) / 1000
        self.stop()
        self._arm()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._fire)

    def _fire(self) -> None:
        self._put()
        self._arm()


def ping(clock: MarketClock, request: pb.PingRequest | None = None) -> pb.Ping:
    """A ping of this moment, with market time; the answer to ``request`` repeats its time."""
    message = pb.Ping(time=timestamp(clock.now_ns()))
    if request is not None and request.HasField("time"):
        message.ping_request_time.CopyFrom(request.time)
    return message
