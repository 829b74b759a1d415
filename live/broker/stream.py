"""The two streams of the broker: market data, and the states of our orders.

A stream that says nothing for ``MUTE_INTERVALS`` ping intervals is dead, whatever TCP thinks; gRPC's
keepalive only helps. Messages are read straight from the protobuf into core events (the official SDK's
objects cost 80 times as much and fall behind without an error). Reading never waits for the engine: it only
stamps and hands over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc.aio

from live.broker.client import BrokerClient, OrderReport, status_of
from live.broker.errors import classify
from live.clock import MarketClock
from live.core.events import Book, Event, Quarantine, Trade, TradingStatus
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError
from market.contract.methods import stub
from market.types import BUY, SELL, Instrument

PING_MS = 5_000
MUTE_INTERVALS = 2.5
SUBSCRIBE_TIMEOUT_S = 10.0
_SIDE = {pb.TRADE_DIRECTION_BUY: BUY, pb.TRADE_DIRECTION_SELL: SELL}
_CAUSES = {
    pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT: "CANCELLED_BY_CLIENT",
    pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_EXCHANGE: "CANCELLED_BY_EXCHANGE",
    pb.OrderStateStreamResponse.CAUSE_CANCELLED_NOT_ENOUGH_POSITION: "NOT_ENOUGH_POSITION",
    pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT_BLOCK: "CLIENT_BLOCKED",
    pb.OrderStateStreamResponse.CAUSE_REJECTED_BY_BROKER: "REJECTED_BY_BROKER",
    pb.OrderStateStreamResponse.CAUSE_REJECTED_BY_EXCHANGE: "REJECTED_BY_EXCHANGE",
    pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_BROKER: "CANCELLED_BY_BROKER",
}


class StreamDown(Exception):
    """A stream ended. ``pause_s``: how long the broker wants to be left alone."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.pause_s = reason, pause_s


def tradable(status: pb.TradingStatus | pb.GetTradingStatusResponse) -> bool:
    """Both kinds of order are taken; the flags are surer than the status text."""
    return bool(status.market_order_available_flag and status.limit_order_available_flag)


class _Watched:
    """One life of one stream: opened, read with a silence limit, and always cancelled at the end."""

    ping_ms = PING_MS

    def __init__(self) -> None:
        self.messages = 0

    async def _read_all(self, call: Any, take: Callable[[Any], None]) -> None:
        mute_s = self.ping_ms / 1000 * MUTE_INTERVALS
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(mute_s) as limit:
                while (message := await call.read()) is not grpc.aio.EOF:
                    limit.reschedule(loop.time() + mute_s)
                    self.messages += 1
                    take(message)
        except TimeoutError:
            raise StreamDown(f"no message for {mute_s:.1f} s: the stream is mute") from None
        except grpc.aio.AioRpcError as error:
            failure = classify(error)
            raise StreamDown(str(failure), failure.retry_after_s) from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise StreamDown("the connection was replaced") from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise StreamDown(str(error)) from None
        finally:
            call.cancel()
        raise StreamDown("the server closed the stream")


class MarketStream(_Watched):
    """Books, trades and trading statuses of ``instruments`` (by uid) as core events to ``emit``."""

    def __init__(
        self,
        client: BrokerClient,
        instruments: Mapping[str, Instrument],
        clock: MarketClock,
        emit: Callable[[Event], None],
        *,
        depth: int,
        on_up: Callable[[], None],
    ) -> None:
        super().__init__()
        self._client, self._instruments, self._clock, self._emit = client, dict(instruments), clock, emit
        self._depth, self._on_up = depth, on_up
        self._missing: set[str] = set()
        self._bad_prices: set[str] = set()
        self._is_up = False
        self.clock_skew_ns = 0
        """Server time of the last ping minus ours (includes the way of the message)."""

    async def run_once(self) -> None:
        """Subscribes and reads until the stream ends; always raises StreamDown."""
        call = stub(self._client.channel, "MarketDataStreamService/MarketDataStream")(
            metadata=self._client.access.metadata
        )
        self._is_up = False
        self._missing = {"books", "trades", "info"} | (set() if self._clock.anchored else {"ping"})
        try:
            for request in self._requests():
                await asyncio.wait_for(call.write(request), SUBSCRIBE_TIMEOUT_S)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, grpc.aio.UsageError) as error:
            call.cancel()
            reason = str(classify(error)) if isinstance(error, grpc.aio.AioRpcError) else repr(error)
            raise StreamDown(f"subscribing failed: {reason}") from None
        await self._read_all(call, self._take)

    def _requests(self) -> list[pb.MarketDataRequest]:
        ids = list(self._instruments)
        subscribe = pb.SUBSCRIPTION_ACTION_SUBSCRIBE
        return [
            pb.MarketDataRequest(ping_settings=pb.PingDelaySettings(ping_delay_ms=self.ping_ms)),
            pb.MarketDataRequest(
                subscribe_info_request=pb.SubscribeInfoRequest(
                    subscription_action=subscribe,
                    instruments=[pb.InfoInstrument(instrument_id=i) for i in ids],
                )
            ),
            pb.MarketDataRequest(
                subscribe_trades_request=pb.SubscribeTradesRequest(
                    subscription_action=subscribe,
                    instruments=[pb.TradeInstrument(instrument_id=i) for i in ids],
                    trade_source=pb.TRADE_SOURCE_EXCHANGE,
                )
            ),
            pb.MarketDataRequest(
                subscribe_order_book_request=pb.SubscribeOrderBookRequest(
                    subscription_action=subscribe,
                    instruments=[
                        pb.OrderBookInstrument(
                            instrument_id=i, depth=self._depth, order_book_type=pb.ORDERBOOK_TYPE_EXCHANGE
                        )
                        for i in ids
                    ],
                )
            ),
        ]

    def _take(self, message: pb.MarketDataResponse) -> None:
        kind = message.WhichOneof("payload")
        if kind == "orderbook":
            self._book(message.orderbook)
        elif kind == "trade":
            self._trade(message.trade)
        elif kind == "ping":
            self._ping(message.ping)
        elif kind == "trading_status":
            self._status(message.trading_status)
        elif kind == "subscribe_order_book_response":
            self._confirmed("books", message.subscribe_order_book_response.order_book_subscriptions)
        elif kind == "subscribe_trades_response":
            self._confirmed("trades", message.subscribe_trades_response.trade_subscriptions)
        elif kind == "subscribe_info_response":
            self._confirmed("info", message.subscribe_info_response.info_subscriptions)

    def _confirmed(self, what: str, entries: Any) -> None:
        for entry in entries:
            if entry.subscription_status != pb.SUBSCRIPTION_STATUS_SUCCESS:
                name = pb.SubscriptionStatus.Name(entry.subscription_status)
                ticker = (
                    self._instruments[entry.instrument_uid].ticker
                    if entry.instrument_uid in self._instruments
                    else "?"
                )
                raise StreamDown(f"subscription to {what} of {ticker} refused: {name}", 5.0)
        self._arrived(what)

    def _arrived(self, what: str) -> None:
        self._missing.discard(what)
        if not self._missing and not self._is_up:
            self._is_up = True
            self._on_up()

    def _ping(self, ping: pb.Ping) -> None:
        server_ns = convert.to_ns(ping.time)
        self._clock.anchor(server_ns)
        self.clock_skew_ns = server_ns - self._clock.now_ns()
        self._arrived("ping")

    def _book(self, book: pb.OrderBook) -> None:
        instrument = self._instruments.get(book.instrument_uid)
        if instrument is None:
            return
        now_ns = self._clock.now_ns()
        try:
            bid_px, bid_qty = convert.book_levels(book.bids, instrument.tick_nano)
            ask_px, ask_qty = convert.book_levels(book.asks, instrument.tick_nano)
        except ConversionError as error:
            self._distrust(now_ns, instrument.ticker, str(error))
            return
        if instrument.ticker in self._bad_prices:
            self._bad_prices.discard(instrument.ticker)
            self._emit(Quarantine(now_ns, instrument.ticker, False, "prices are on the tick grid again"))
        self._emit(
            Book(
                now_ns,
                instrument.ticker,
                convert.to_ns(book.time),
                bid_px,
                bid_qty,
                ask_px,
                ask_qty,
                book.is_consistent,
            )
        )

    def _trade(self, trade: pb.Trade) -> None:
        instrument = self._instruments.get(trade.instrument_uid)
        if instrument is None:
            return
        now_ns = self._clock.now_ns()
        try:
            price_ticks = convert.quotation_to_ticks(trade.price, instrument.tick_nano)
        except ConversionError as error:
            self._distrust(now_ns, instrument.ticker, str(error))
            return
        side = _SIDE.get(trade.direction, 0)
        self._emit(
            Trade(now_ns, instrument.ticker, convert.to_ns(trade.time), price_ticks, trade.quantity, side)
        )

    def _distrust(self, now_ns: int, ticker: str, why: str) -> None:
        if ticker not in self._bad_prices:
            self._bad_prices.add(ticker)
            self._emit(Quarantine(now_ns, ticker, True, why))

    def _status(self, status: pb.TradingStatus) -> None:
        instrument = self._instruments.get(status.instrument_uid)
        if instrument is not None:
            text = pb.SecurityTradingStatus.Name(status.trading_status).removeprefix(
                "SECURITY_TRADING_STATUS_"
            )
            self._emit(TradingStatus(self._clock.now_ns(), instrument.ticker, tradable(status), text))


class OrderStream(_Watched):
    """States of our orders as ``OrderReport`` to ``report``."""

    def __init__(
        self, client: BrokerClient, report: Callable[[OrderReport], None], *, on_up: Callable[[], None]
    ) -> None:
        super().__init__()
        self._client, self._report, self._on_up = client, report, on_up

    async def run_once(self) -> None:
        """Subscribes and reads until the stream ends; always raises StreamDown."""
        request = pb.OrderStateStreamRequest(
            accounts=[self._client.account_id], ping_delay_millis=self.ping_ms
        )
        call = stub(self._client.channel, "OrdersStreamService/OrderStateStream")(
            request, metadata=self._client.access.metadata
        )
        await self._read_all(call, self._take)

    def _take(self, message: pb.OrderStateStreamResponse) -> None:
        kind = message.WhichOneof("payload")
        if kind == "subscription":
            if message.subscription.status != pb.RESULT_SUBSCRIPTION_STATUS_OK:
                error = message.subscription.error
                raise StreamDown(f"subscription to order states refused: {error.code} {error.message}", 5.0)
            self._on_up()
        elif kind == "order_state":
            report = self._translate(message.order_state)
            if report is not None:
                self._report(report)

    def _translate(self, state: pb.OrderStateStreamResponse.OrderState) -> OrderReport | None:
        instrument = self._client.instruments.get(state.instrument_uid)
        if instrument is None or not state.order_request_id:
            return None  # an order of another instrument or another program
        fills = tuple(
            self._client.fill(
                trade.trade_id,
                convert.quotation_to_ticks(trade.price, instrument.tick_nano),
                trade.quantity // instrument.lot,
                instrument,
            )
            for trade in state.trades
        )
        return OrderReport(
            state.order_request_id,
            status_of(state.execution_report_status, state.lots_executed, state.lots_requested),
            state.order_id,
            state.lots_executed,
            fills,
            _CAUSES.get(state.status_info, ""),
            ticker=instrument.ticker,
        )
