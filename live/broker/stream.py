"""The two streams of the broker: market data, and the states of our orders.

A stream that says nothing for ``MUTE_INTERVALS`` ping intervals is dead, whatever TCP thinks; gRPC's
keepalive only helps. Messages are read straight from the protobuf into core events (the official SDK's
objects cost 80 times as much and fall behind without an error). Reading never waits for the engine: it only
stamps and hands over. Every life of a stream has a generation number; whatever comes from an older one is
dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc.aio

from live.broker.client import BrokerClient, OrderReport, status_of
from live.broker.errors import STREAM_TOO_OLD, TOO_MANY_STREAMS, classify
from live.broker.levels import Levels, PlainBook, check_range, levels
from live.clock import MarketClock
from live.core.events import Book, Event, Quarantine, Trade, TradingStatus
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError
from market.contract.methods import stub
from market.types import BUY, SELL, Instrument

PING_MS = 5_000
MUTE_INTERVALS = 2.5
MUTE_STEP = 0.1
"""The limit moves on in steps of this part of itself: not with every one of a thousand books a second."""
SUBSCRIBE_TIMEOUT_S = 10.0
STREAM_COUNT_REFRESH_S = 120.0
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
    """A stream ended. ``pause_s``: how long the broker wants to be left alone; ``at_once``: it ended in good
    order and may be opened again without a pause; ``counts``: it speaks against the connection.
    """

    def __init__(
        self, reason: str, pause_s: float = 0.0, *, at_once: bool = False, counts: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.pause_s, self.at_once, self.counts = reason, pause_s, at_once, counts


def _down(error: grpc.aio.AioRpcError) -> StreamDown:
    failure = classify(error)
    if failure.code == TOO_MANY_STREAMS:
        # The broker counts the streams of a dead connection for up to two minutes: another attempt, or
        # another channel, would only be one more.
        return StreamDown(str(failure), max(STREAM_COUNT_REFRESH_S, failure.retry_after_s), counts=False)
    at_once = failure.goaway or failure.code == STREAM_TOO_OLD
    return StreamDown(str(failure), failure.retry_after_s, at_once=at_once, counts=not at_once)


def tradable(status: pb.TradingStatus | pb.GetTradingStatusResponse) -> bool:
    """Both kinds of order are taken; the flags are surer than the status text."""
    return bool(status.market_order_available_flag and status.limit_order_available_flag)


class _Life:
    """One life of one stream after the other: opened, read with a silence limit, always cancelled."""

    ping_ms = PING_MS

    def __init__(self) -> None:
        self.generation = 0
        self.messages = 0
        self.late_messages = 0
        self.mute = 0
        self._call: Any = None
        self._doom = ""

    def fail(self, reason: str) -> None:
        """Ends this life; the next one subscribes to everything again."""
        if self._call is not None:
            self._doom = reason
            self._call.cancel()

    def report(self) -> dict[str, int]:
        return {
            "generation": self.generation,
            "messages": self.messages,
            "late_messages": self.late_messages,
            "mute": self.mute,
        }

    def _begin(self, call: Any) -> int:
        self._call, self._doom = call, ""
        self.generation += 1
        return self.generation

    async def _read_all(self, call: Any, generation: int, take: Callable[[Any], None]) -> None:
        mute_s = self.ping_ms / 1000 * MUTE_INTERVALS
        loop = asyncio.get_running_loop()
        step_s = mute_s * MUTE_STEP
        moved_at = loop.time()
        try:
            async with asyncio.timeout(mute_s + step_s) as limit:
                while (message := await call.read()) is not grpc.aio.EOF:
                    if generation != self.generation:
                        self.late_messages += 1
                        break
                    if (now := loop.time()) - moved_at > step_s:
                        moved_at = now
                        limit.reschedule(now + mute_s + step_s)
                    self.messages += 1
                    take(message)
        except TimeoutError:
            self.mute += 1
            raise StreamDown(f"no message for {mute_s:.1f} s: the stream is mute") from None
        except grpc.aio.AioRpcError as error:
            raise (StreamDown(self._doom) if self._doom else _down(error)) from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise StreamDown(self._doom or "the connection was replaced") from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise StreamDown(str(error)) from None
        finally:
            call.cancel()
        raise StreamDown(self._doom or "the server closed the stream")


class MarketDataStream(_Life):
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
        from live.broker.book_wire import BookReader  # numba, which nothing else here needs

        self._client, self._instruments, self._clock, self._emit = client, dict(instruments), clock, emit
        self._depth, self._on_up = depth, on_up
        self._missing: set[str] = set()
        self._distrusted: set[str] = set()
        self._closed: set[str] = set()
        self._books: dict[str, tuple[float, Levels | None]] = {}
        self._reader = BookReader(instruments.values())
        self._is_up = False
        self._up_at = 0.0
        self.clock_skew_ns = 0
        """Server time of the last ping minus ours (includes the way of the message)."""

    async def run_once(self) -> None:
        """Subscribes and reads until the stream ends; always raises StreamDown."""
        open_stream = stub(self._client.channel, "MarketDataStreamService/MarketDataStream", read=self._read)
        call = open_stream(metadata=self._client.access.metadata)
        generation = self._begin(call)
        self._is_up = False
        self._books.clear()
        self._closed.clear()  # the subscription tells again
        self._missing = {"books", "trades", "info"} | (set() if self._clock.anchored else {"ping"})
        try:
            for request in self._requests(list(self._instruments)):
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):  # wait_for may lose a cancellation
                    await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, grpc.aio.UsageError) as error:
            call.cancel()
            if isinstance(error, grpc.aio.AioRpcError):
                raise _down(error) from None
            raise StreamDown(f"subscribing failed: {error!r}") from None
        except asyncio.CancelledError:
            call.cancel()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise StreamDown("the connection was replaced") from None
        await self._read_all(call, generation, self._take)

    # ---- what the watchdog needs ----

    @property
    def up(self) -> bool:
        return self._is_up

    def watched(self) -> Mapping[str, Instrument]:
        """Instruments that should be heard of: all but those that do not trade."""
        return {uid: i for uid, i in self._instruments.items() if uid not in self._closed}

    def book_of(self, uid: str) -> tuple[float, Levels | None]:
        """(loop time, levels) of the last streamed book; before the first one when the stream came up."""
        return self._books.get(uid, (self._up_at, None))

    async def resubscribe(self, uid: str) -> None:
        """Subscribes to one instrument again on the open stream. A stream that cannot be written ends by
        itself.
        """
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            for request in self._requests([uid])[1:]:
                await self._call.write(request)

    def distrust(self, uid: str, why: str) -> None:
        """The instrument's book is not believed until a sound one arrives."""
        self._distrust(self._clock.now_ns(), self._instruments[uid].ticker, why)

    # ---- requests ----

    def _requests(self, ids: Sequence[str]) -> list[pb.MarketDataRequest]:
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

    def _read(self, raw: bytes) -> PlainBook | pb.MarketDataResponse:
        return self._reader.read(raw) or pb.MarketDataResponse.FromString(raw)

    def _take(self, message: PlainBook | pb.MarketDataResponse) -> None:
        if isinstance(message, PlainBook):
            self._believe(message, self._clock.now_ns())
            return
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
            self._up_at = asyncio.get_running_loop().time()
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
            now = levels(book, instrument)
        except ConversionError as error:
            self._distrust(now_ns, instrument.ticker, str(error))
            return
        self._believe(PlainBook(instrument, convert.to_ns(book.time), now, book.is_consistent), now_ns)

    def _believe(self, book: PlainBook, now_ns: int) -> None:
        ticker = book.instrument.ticker
        self._books[book.instrument.uid] = (asyncio.get_running_loop().time(), book.levels)
        if ticker in self._distrusted:
            self._distrusted.discard(ticker)
            self._emit(Quarantine(now_ns, ticker, False, "sound books arrive again"))
        self._emit(Book(now_ns, ticker, book.exch_ns, *book.levels, book.consistent))

    def _trade(self, trade: pb.Trade) -> None:
        instrument = self._instruments.get(trade.instrument_uid)
        if instrument is None:
            return
        now_ns = self._clock.now_ns()
        try:
            price_ticks = convert.quotation_to_ticks(trade.price, instrument.tick_nano)
            check_range(price_ticks, "ticks")
            check_range(trade.quantity, "lots")
        except ConversionError as error:
            self._distrust(now_ns, instrument.ticker, str(error))
            return
        side = _SIDE.get(trade.direction, 0)
        self._emit(
            Trade(now_ns, instrument.ticker, convert.to_ns(trade.time), price_ticks, trade.quantity, side)
        )

    def _distrust(self, now_ns: int, ticker: str, why: str) -> None:
        if ticker not in self._distrusted:
            self._distrusted.add(ticker)
            self._emit(Quarantine(now_ns, ticker, True, why))

    def _status(self, status: pb.TradingStatus) -> None:
        instrument = self._instruments.get(status.instrument_uid)
        if instrument is not None:
            text = pb.SecurityTradingStatus.Name(status.trading_status).removeprefix(
                "SECURITY_TRADING_STATUS_"
            )
            can_trade = tradable(status)
            (self._closed.discard if can_trade else self._closed.add)(status.instrument_uid)
            self._emit(TradingStatus(self._clock.now_ns(), instrument.ticker, can_trade, text))


class OrderStream(_Life):
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
        await self._read_all(call, self._begin(call), self._take)

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
