"""The market data streams: requests in, subscriptions and pings out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from market.contract import invest_pb2 as pb
from market.paper.calls import Context
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.limits import EMPTY_STREAM_S, RateLimits
from market.paper.listing import find_listing
from market.paper.outbox import Outbox
from market.paper.pinger import MARKET_PING_RANGE_MS, Pinger, ping
from market.paper.refusals import Refusal
from market.paper.replayer import Replayer
from market.paper.streams import MarketHub
from market.paper.subscriptions import MarketStream, Subscriptions
from market.paper.wire import Wire

OPENING_HOLD_S = 0.1
"""Wall time between the clock's start and the first event played; then everything due follows, in order. A
client that sends its subscriptions one after the other misses nothing."""

_BIDI = "MarketDataStreamService/MarketDataStream"
_SERVER_SIDE = "MarketDataStreamService/MarketDataServerSideStream"

_log = logging.getLogger(__name__)


class MarketStreams:
    """``behaviours()`` maps "Service/Method" to a coroutine function that writes to the call's context.

    ``empty_stream_s``: wall time after which a stream without a subscription ends with 80004; only where the
    limits are enforced.
    """

    def __init__(
        self,
        exchange: Exchange,
        hub: MarketHub,
        replayer: Replayer,
        clock: MarketClock,
        limits: RateLimits,
        empty_stream_s: float = EMPTY_STREAM_S,
    ) -> None:
        self._exchange = exchange
        self._hub = hub
        self._replayer = replayer
        self._clock = clock
        self._empty_stream_s = empty_stream_s if limits.enforced else None
        self._subscriptions = Subscriptions(
            exchange.listings, partial(find_listing, exchange.listings), limits
        )

    def behaviours(self) -> dict[str, Callable[[Any, Context], Awaitable[None]]]:
        return {_BIDI: self.market_data_stream, _SERVER_SIDE: self.market_data_server_side_stream}

    async def market_data_stream(
        self, requests: AsyncIterator[pb.MarketDataRequest], context: Context
    ) -> None:
        """Lives until the client ends its side, leaves, or is cut."""

        async def read(call: _Call) -> None:
            async for request in requests:
                call.handle(request)

        await self._serve(_BIDI, context, read)

    async def market_data_server_side_stream(
        self, request: pb.MarketDataServerSideStreamRequest, context: Context
    ) -> None:
        """The request holds every subscription; the client leaves by cancelling."""

        async def read(call: _Call) -> None:
            for field, value in request.ListFields():
                call.handle(pb.MarketDataRequest(**{field.name: value}))
            await asyncio.Event().wait()  # there is nothing more to read

        await self._serve(_SERVER_SIDE, context, read)

    async def _serve(self, method: str, context: Context, read: Callable[[_Call], Awaitable[None]]) -> None:
        call = _Call(self._hub, self._clock, self._subscriptions, self._opened, self._empty_stream_s)
        outbox = call.stream.outbox
        self._hub.market.add(call.stream)
        reader = asyncio.ensure_future(read(call))
        reader.add_done_callback(lambda task: _reader_ended(task, outbox))
        wire = Wire(method, context, self._exchange.faults, self._exchange.listings)
        try:
            await wire.send_all(outbox)
        finally:
            reader.cancel()
            call.stop()
            self._hub.leave(call.stream)

    def _opened(self) -> None:
        """Somebody listens: the time may flow."""
        if not self._clock.running and not self._clock.stepped:
            self._clock.start()
            asyncio.get_running_loop().call_later(OPENING_HOLD_S, self._replayer.wake)


class _Call:
    """One open stream: what its requests do."""

    def __init__(
        self,
        hub: MarketHub,
        clock: MarketClock,
        subscriptions: Subscriptions,
        opened: Callable[[], None],
        empty_stream_s: float | None,
    ) -> None:
        self.stream = MarketStream()
        self._hub = hub
        self._clock = clock
        self._subscriptions = subscriptions
        self._opened = opened
        self._empty_stream_s = empty_stream_s
        self._empty: asyncio.TimerHandle | None = None
        self._pinger = Pinger(self._ping)
        self._pinger.every(None, MARKET_PING_RANGE_MS)
        self._watch()

    def handle(self, request: pb.MarketDataRequest) -> None:
        kind = request.WhichOneof("payload")
        if kind == "ping":
            self._ping(request.ping)
        elif kind == "ping_settings":
            self._pinger.every(request.ping_settings.ping_delay_ms, MARKET_PING_RANGE_MS)
        elif kind == "get_my_subscriptions":
            for reply in self._subscriptions.mine(self.stream):
                self._put(reply)
        elif kind is not None:
            self._put(self._subscriptions.change(self.stream, kind, getattr(request, kind)))
            self._hub.await_closes(self.stream)
            self._watch()
            if self.stream.instruments:
                self._opened()
            self._ping()

    def stop(self) -> None:
        self._pinger.stop()
        if self._empty:
            self._empty.cancel()

    def _watch(self) -> None:
        """Lets a stream live that has subscriptions; starts the time of one that has none."""
        if self._empty_stream_s is None:
            return
        if self.stream.instruments:
            if self._empty:
                self._empty.cancel()
            self._empty = None
        elif self._empty is None:
            self._empty = asyncio.get_running_loop().call_later(
                self._empty_stream_s, self.stream.outbox.refuse, Refusal("80004")
            )

    def _ping(self, request: pb.PingRequest | None = None) -> None:
        self.stream.outbox.put(lambda: pb.MarketDataResponse(ping=ping(self._clock, request)))

    def _put(self, reply: pb.MarketDataResponse) -> None:
        self.stream.outbox.put(lambda: reply)


def _reader_ended(task: asyncio.Future[None], outbox: Outbox) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        outbox.finish()
        return
    _log.error("reading a market data stream failed", exc_info=error)
    outbox.refuse(Refusal("70001"))
