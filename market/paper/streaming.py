"""The streaming methods: market data with its subscriptions, and the account's orders."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import grpc

from market.contract import invest_pb2 as pb
from market.paper import messages
from market.paper.calls import Context, tracking_id
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange, Listing
from market.paper.replayer import Replayer
from market.paper.requests import DEPTHS
from market.paper.streams import BookSubscription, Hub, MarketStream, OrderStream, Outbox, find_listing

MAX_SUBSCRIPTIONS = 300
OPENING_HOLD_S = 0.1
"""Wall time between the clock's start and the first event played; then everything due follows, in order. A
client that sends its subscriptions one after the other misses nothing."""

PING_MS = 120_000
MARKET_PING_RANGE_MS = (5_000, 180_000)
ORDER_PING_RANGE_MS = (1_000, 120_000)

_log = logging.getLogger(__name__)

Status = pb.SubscriptionStatus
Wanted = Callable[[int], Any]


class _Pinger:
    """Puts a ping into an outbox every so many wall milliseconds."""

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self._timer: asyncio.TimerHandle | None = None
        self._delay_s = 0.0

    def every(self, asked_ms: int | None, allowed_ms: tuple[int, int]) -> None:
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


class StreamServices:
    """``behaviours()`` maps "Service/Method" to a coroutine function that writes to the call's context."""

    def __init__(self, exchange: Exchange, hub: Hub, replayer: Replayer, clock: MarketClock) -> None:
        self._exchange = exchange
        self._hub = hub
        self._replayer = replayer
        self._clock = clock

    def behaviours(self) -> dict[str, Callable[[Any, Context], Awaitable[None]]]:
        return {
            "MarketDataStreamService/MarketDataStream": self.market_data_stream,
            "MarketDataStreamService/MarketDataServerSideStream": self.market_data_server_side_stream,
            "OrdersStreamService/OrderStateStream": self.order_state_stream,
            "OrdersStreamService/TradesStream": self.trades_stream,
        }

    # ------------------------------------------------------------------ market data

    async def market_data_stream(
        self, requests: AsyncIterator[pb.MarketDataRequest], context: Context
    ) -> None:
        """Lives until the client ends its side, leaves, or is cut."""

        async def read(stream: MarketStream, pinger: _Pinger) -> None:
            async for request in requests:
                self._handle(stream, pinger, request)

        await self._serve_market(context, read)

    async def market_data_server_side_stream(
        self, request: pb.MarketDataServerSideStreamRequest, context: Context
    ) -> None:
        async def read(stream: MarketStream, pinger: _Pinger) -> None:
            for field, value in request.ListFields():
                self._handle(stream, pinger, pb.MarketDataRequest(**{field.name: value}))
            await asyncio.Event().wait()  # there is nothing more to read; the client leaves by cancelling

        await self._serve_market(context, read)

    async def _serve_market(
        self, context: Context, read: Callable[[MarketStream, _Pinger], Awaitable[None]]
    ) -> None:
        stream = MarketStream()
        pinger = _Pinger(lambda: self._ping(stream))
        pinger.every(None, MARKET_PING_RANGE_MS)
        self._hub.market.add(stream)
        reader = asyncio.ensure_future(read(stream, pinger))
        reader.add_done_callback(lambda task: _reader_ended(task, stream.outbox))
        try:
            await _send_all(stream.outbox, context)
        finally:
            reader.cancel()
            pinger.stop()
            self._hub.leave(stream)

    def _ping(self, stream: MarketStream, request: pb.PingRequest | None = None) -> None:
        stream.outbox.put(lambda: pb.MarketDataResponse(ping=self._hub.ping(request)))

    def _handle(self, stream: MarketStream, pinger: _Pinger, request: pb.MarketDataRequest) -> None:
        kind = request.WhichOneof("payload")
        if kind == "ping":
            self._ping(stream, request.ping)
        elif kind == "ping_settings":
            pinger.every(request.ping_settings.ping_delay_ms, MARKET_PING_RANGE_MS)
        elif kind == "get_my_subscriptions":
            for reply in self._my_subscriptions(stream):
                _put(stream.outbox, reply)
        elif kind is not None:
            _put(stream.outbox, self._subscribe(stream, kind, getattr(request, kind)))
            if stream.instruments and not self._clock.running and not self._clock.stepped:
                self._clock.start()
                asyncio.get_running_loop().call_later(OPENING_HOLD_S, self._replayer.wake)
            self._ping(stream)

    def _subscribe(self, stream: MarketStream, kind: str, request: Any) -> pb.MarketDataResponse:
        reply = pb.MarketDataResponse()
        action = request.subscription_action
        if kind == "subscribe_candles_request":
            candles = reply.subscribe_candles_response
            candles.tracking_id = tracking_id()
            for item in request.instruments:
                candles.candles_subscriptions.add(
                    figi=item.figi, interval=item.interval, stream_id=stream.stream_id,
                    subscription_status=pb.SUBSCRIPTION_STATUS_SOURCE_IS_INVALID, subscription_action=action,
                )  # fmt: skip
        elif kind == "subscribe_order_book_request":
            reply.subscribe_order_book_response.tracking_id = tracking_id()
            for item in request.instruments:
                entry = self._change_book(stream, action, item)
                reply.subscribe_order_book_response.order_book_subscriptions.append(entry)
        elif kind == "subscribe_trades_request":
            trades = reply.subscribe_trades_response
            trades.tracking_id, trades.trade_source = tracking_id(), pb.TRADE_SOURCE_EXCHANGE
            for item in request.instruments:
                trades.trade_subscriptions.append(
                    self._change(stream, stream.trades, action, item, pb.TradeSubscription)
                )
        elif kind == "subscribe_info_request":
            reply.subscribe_info_response.tracking_id = tracking_id()
            for item in request.instruments:
                entry = self._change(stream, stream.infos, action, item, pb.InfoSubscription)
                reply.subscribe_info_response.info_subscriptions.append(entry)
        else:
            reply.subscribe_last_price_response.tracking_id = tracking_id()
            for item in request.instruments:
                entry = self._change(stream, stream.last_prices, action, item, pb.LastPriceSubscription)
                reply.subscribe_last_price_response.last_price_subscriptions.append(entry)
        return reply

    def _change(
        self, stream: MarketStream, table: dict[int, str], action: int, item: Any, entry_type: type[Any]
    ) -> Any:
        """One instrument of a (un)subscribe request of trades, info or last price."""
        found = find_listing(self._exchange.listings, item.instrument_id or item.figi)
        status = _status(stream, table, action, found)
        subscription_id = ""
        if found is not None and status == pb.SUBSCRIPTION_STATUS_SUCCESS:
            subscription_id = _apply(table, action, found[0], lambda: str(uuid.uuid4()))
        return _entry(entry_type, stream, found, status, subscription_id, action, item)

    def _change_book(self, stream: MarketStream, action: int, item: pb.OrderBookInstrument) -> Any:
        found = find_listing(self._exchange.listings, item.instrument_id or item.figi)
        status = _status(stream, stream.books, action, found)
        if status == pb.SUBSCRIPTION_STATUS_SUCCESS and item.depth not in DEPTHS:
            status = pb.SUBSCRIPTION_STATUS_DEPTH_IS_INVALID
        subscription_id = ""
        if found is not None and status == pb.SUBSCRIPTION_STATUS_SUCCESS:
            subscription_id = _apply(
                stream.books, action, found[0], lambda: BookSubscription(item.depth, str(uuid.uuid4()))
            ).subscription_id
        entry = _entry(pb.OrderBookSubscription, stream, found, status, subscription_id, action, item)
        entry.depth, entry.order_book_type = item.depth, pb.ORDERBOOK_TYPE_EXCHANGE
        return entry

    def _my_subscriptions(self, stream: MarketStream) -> Iterable[pb.MarketDataResponse]:
        """One reply per kind that has active subscriptions."""

        def entries(table: dict[int, Any], entry_type: type[Any]) -> list[Any]:
            made = []
            for index, value in table.items():
                found = (index, self._exchange.listings[index])
                identifier = value.subscription_id if isinstance(value, BookSubscription) else value
                entry = _entry(
                    entry_type, stream, found, pb.SUBSCRIPTION_STATUS_SUCCESS, identifier,
                    pb.SUBSCRIPTION_ACTION_SUBSCRIBE, None,
                )  # fmt: skip
                if isinstance(value, BookSubscription):
                    entry.depth, entry.order_book_type = value.depth, pb.ORDERBOOK_TYPE_EXCHANGE
                made.append(entry)
            return made

        for table, name, rows, entry_type in (
            (
                stream.books, "subscribe_order_book_response", "order_book_subscriptions",
                pb.OrderBookSubscription,
            ),
            (stream.trades, "subscribe_trades_response", "trade_subscriptions", pb.TradeSubscription),
            (stream.infos, "subscribe_info_response", "info_subscriptions", pb.InfoSubscription),
            (
                stream.last_prices, "subscribe_last_price_response", "last_price_subscriptions",
                pb.LastPriceSubscription,
            ),
        ):  # fmt: skip
            if table:
                reply = pb.MarketDataResponse()
                getattr(reply, name).tracking_id = tracking_id()
                getattr(getattr(reply, name), rows).extend(entries(table, entry_type))
                yield reply

    # ------------------------------------------------------------------ orders

    async def order_state_stream(self, request: pb.OrderStateStreamRequest, context: Context) -> None:
        await self._serve_orders(
            OrderStream(messages.order_event, fills_only=False),
            pb.OrderStateStreamResponse, request.accounts, request.ping_delay_millis, context,
        )  # fmt: skip

    async def trades_stream(self, request: pb.TradesStreamRequest, context: Context) -> None:
        await self._serve_orders(
            OrderStream(messages.trades_event, fills_only=True),
            pb.TradesStreamResponse, request.accounts, request.ping_delay_ms, context,
        )  # fmt: skip

    async def _serve_orders(
        self, stream: OrderStream, reply: type[Any], accounts: Iterable[str], ping_ms: int, context: Context
    ) -> None:
        """The subscription's result first; then every change of the account's orders from this moment on."""
        unknown = [name for name in accounts if name != self._exchange.account.account_id]
        answer = pb.SubscriptionResponse(
            tracking_id=tracking_id(), status=pb.RESULT_SUBSCRIPTION_STATUS_OK, stream_id=str(uuid.uuid4()),
            accounts=[self._exchange.account.account_id],
        )  # fmt: skip
        if unknown:
            answer.status = pb.RESULT_SUBSCRIPTION_STATUS_ERROR
            answer.ClearField("accounts")
            answer.error.code, answer.error.message = "50004", f"account not found: {', '.join(unknown)}"
        await context.write(reply(subscription=answer))
        if unknown:
            return
        pinger = _Pinger(lambda: stream.outbox.put(lambda: reply(ping=self._hub.ping())))
        pinger.every(ping_ms, ORDER_PING_RANGE_MS)
        self._hub.orders.add(stream)
        try:
            await _send_all(stream.outbox, context)
        finally:
            pinger.stop()
            self._hub.orders.discard(stream)


# ---------------------------------------------------------------- inside


def _put(outbox: Outbox, reply: pb.MarketDataResponse) -> None:
    outbox.put(lambda: reply)


async def _send_all(outbox: Outbox, context: Context) -> None:
    while (message := await outbox.next()) is not None:
        await context.write(message)
    if outbox.cut_because:
        await context.abort(grpc.StatusCode.UNAVAILABLE, outbox.cut_because)


def _reader_ended(task: asyncio.Future[None], outbox: Outbox) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        outbox.finish()
        return
    _log.error("reading a market data stream failed", exc_info=error)
    outbox.cut("70001")


def _status(
    stream: MarketStream, table: MutableMapping[int, Any], action: int, found: tuple[int, Listing] | None
) -> pb.SubscriptionStatus:
    if action not in (pb.SUBSCRIPTION_ACTION_SUBSCRIBE, pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE):
        return pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_ACTION_IS_INVALID
    if found is None:
        return pb.SUBSCRIPTION_STATUS_INSTRUMENT_NOT_FOUND
    if action == pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE:
        known = found[0] in table
        return pb.SUBSCRIPTION_STATUS_SUCCESS if known else pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_NOT_FOUND
    counted = len(stream.books) + len(stream.trades) + len(stream.last_prices)
    if counted >= MAX_SUBSCRIPTIONS and table is not stream.infos:
        return pb.SUBSCRIPTION_STATUS_LIMIT_IS_EXCEEDED
    return pb.SUBSCRIPTION_STATUS_SUCCESS


def _apply(table: MutableMapping[int, Any], action: int, index: int, make: Callable[[], Any]) -> Any:
    """Adds or removes; subscribing again replaces what was there."""
    if action == pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE:
        return table.pop(index)
    table[index] = make()
    return table[index]


def _entry(
    entry_type: type[Any],
    stream: MarketStream,
    found: tuple[int, Listing] | None,
    status: int,
    subscription_id: str,
    action: int,
    item: Any,
) -> Any:
    entry = entry_type(
        subscription_status=status, stream_id=stream.stream_id, subscription_id=subscription_id,
        subscription_action=action,
    )  # fmt: skip
    if found is not None:
        i = found[1].instrument
        entry.figi, entry.instrument_uid = i.figi, i.uid
        entry.ticker, entry.class_code = i.ticker, i.class_code
    elif item is not None:
        # Echo what was asked for, so that the client can tell which one failed.
        entry.figi, entry.instrument_uid = item.figi, item.instrument_id
    return entry
