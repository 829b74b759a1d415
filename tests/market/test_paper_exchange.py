"""The paper exchange over real gRPC and TLS, stepped through a market of a few events."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, to_nano, to_ns
from market.contract.methods import PACKAGE, stub
from market.errors import BrokerError, ConfigError, RecordingError
from market.paper import Endpoint, PaperMarket, PaperServer
from market.recording import write_recording
from market.types import MILLISECOND_NS, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

T0 = 1_768_460_400 * SECOND_NS
ROOT = Path(__file__).resolve().parents[2]

SHARE = Instrument(
    "11111111-aaaa-4000-8000-000000000001", "SIMP", "TQBR", "FIGI0SIMP", "share", 10, 10_000_000, 100_000_000
)
FUTURE = Instrument(
    "11111111-aaaa-4000-8000-000000000002", "SIMF", "SPBFUT", "FIGI0SIMF", "future", 1, 10 * NANO, 15 * NANO
)

Level = tuple[int, int]


def make_books(rows: list[tuple[int, list[Level], list[Level]]]) -> Books:
    """Rows of (milliseconds after T0, bids, asks); the exchange stamped them 3 ms before receipt."""
    books = Books.empty(len(rows))
    for k, (ms, bids, asks) in enumerate(rows):
        books.recv_ns[k] = T0 + ms * MILLISECOND_NS
        books.exch_ns[k] = books.recv_ns[k] - 3 * MILLISECOND_NS
        for px, qty, levels in ((books.bid_px, books.bid_qty, bids), (books.ask_px, books.ask_qty, asks)):
            for j, (price, size) in enumerate(levels):
                px[k, j], qty[k, j] = price, size
    return books


def make_trades(rows: list[tuple[int, int, int, int]]) -> Trades:
    """Rows of (milliseconds after T0, price, lots, aggressor)."""
    trades = Trades.empty(len(rows))
    for k, (ms, px, qty, side) in enumerate(rows):
        trades.recv_ns[k] = T0 + ms * MILLISECOND_NS
        trades.exch_ns[k] = trades.recv_ns[k] - 3 * MILLISECOND_NS
        trades.px[k], trades.qty[k], trades.side[k] = px, qty, side
    return trades


BIDS, ASKS = [(30_000, 5), (29_999, 7)], [(30_002, 3), (30_003, 4)]
SHARE_DAY = InstrumentDay(
    SHARE,
    "2026-01-15",
    make_books(
        [(0, BIDS, ASKS), (1000, BIDS, [(30_002, 6), (30_003, 4)]), (9000, [(29_990, 1)], [(29_991, 1)])]
    ),
    make_trades([(1000, 30_002, 1, 1), (2000, 30_000, 6, -1), (3000, 30_000, 2, -1)]),
)
FUTURE_DAY = InstrumentDay(
    FUTURE,
    "2026-01-15",
    make_books([(0, [(9_999, 50)], [(10_001, 50)]), (4000, [(10_003, 50)], [(10_004, 50)])]),
    Trades.empty(),
)
MARKET = PaperMarket((SHARE_DAY, FUTURE_DAY))


class Client:
    """A plain grpc.aio client of the endpoint."""

    def __init__(self, endpoint: Endpoint, token: str | None = None) -> None:
        self.account_id = endpoint.account_id
        credentials = grpc.ssl_channel_credentials(Path(endpoint.ca_path).read_bytes())
        self.channel = grpc.aio.secure_channel(endpoint.target, credentials)
        self.metadata = (("authorization", f"Bearer {endpoint.token if token is None else token}"),)

    async def call(self, key: str, request: Any) -> Any:
        return await stub(self.channel, key)(request, metadata=self.metadata, timeout=20)

    def stream(self, key: str, *request: Any) -> Any:
        return stub(self.channel, key)(*request, metadata=self.metadata)

    async def order(self, **fields: Any) -> pb.PostOrderResponse:
        """Market buy of one lot of the share unless ``fields`` say otherwise."""
        defaults = {
            "account_id": self.account_id, "instrument_id": SHARE.uid, "quantity": 1,
            "order_id": str(uuid.uuid4()),
            "direction": pb.ORDER_DIRECTION_BUY, "order_type": pb.ORDER_TYPE_MARKET,
        }  # fmt: skip
        return await self.call("OrdersService/PostOrder", pb.PostOrderRequest(**(defaults | fields)))

    async def state(self, order_id: str, id_type: int = pb.ORDER_ID_TYPE_EXCHANGE) -> pb.OrderState:
        request = pb.GetOrderStateRequest(
            account_id=self.account_id, order_id=order_id, order_id_type=id_type
        )
        return await self.call("OrdersService/GetOrderState", request)

    async def positions(self) -> pb.PositionsResponse:
        return await self.call(
            "OperationsService/GetPositions", pb.PositionsRequest(account_id=self.account_id)
        )


Scenario = Callable[[PaperServer, Client], Awaitable[None]]


@asynccontextmanager
async def exchange(folder: Path, **options: Any) -> AsyncIterator[tuple[PaperServer, Client]]:
    settings = {"speed": 0, "entry_latency_ms": 0} | options
    server = PaperServer(settings.pop("market", MARKET), endpoint_path=folder / "endpoint.json", **settings)
    client = Client(await server.start())
    try:
        yield server, client
    finally:
        await client.channel.close()
        await server.stop()


def run(folder: Path, scenario: Scenario, **options: Any) -> None:
    async def body() -> None:
        async with exchange(folder, **options) as (server, client):
            await scenario(server, client)

    asyncio.run(asyncio.wait_for(body(), 60))


async def refused(code: str, status: grpc.StatusCode, call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.details(), caught.value.code()) == (code, status)
    return caught.value


def limit(price_nano: int, **fields: Any) -> dict[str, Any]:
    return {"order_type": pb.ORDER_TYPE_LIMIT, "price": quotation(price_nano)} | fields


INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
SUBSCRIBE = pb.SUBSCRIPTION_ACTION_SUBSCRIBE


def subscribe_books(depth: int, *ids: str, action: int = SUBSCRIBE) -> pb.MarketDataRequest:
    instruments = [pb.OrderBookInstrument(figi="", depth=depth, instrument_id=name) for name in ids]
    return pb.MarketDataRequest(
        subscribe_order_book_request=pb.SubscribeOrderBookRequest(
            subscription_action=action, instruments=instruments
        )
    )


def subscribe_trades(*ids: str) -> pb.MarketDataRequest:
    return pb.MarketDataRequest(
        subscribe_trades_request=pb.SubscribeTradesRequest(
            subscription_action=SUBSCRIBE,
            instruments=[pb.TradeInstrument(instrument_id=name) for name in ids],
        )
    )


# ---------------------------------------------------------------- access


def test_accounts_and_the_metadata_of_success(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        call = stub(client.channel, "UsersService/GetAccounts")(
            pb.GetAccountsRequest(), metadata=client.metadata
        )
        accounts = (await call).accounts
        assert [(a.id, a.access_level) for a in accounts] == [
            (client.account_id, pb.ACCOUNT_ACCESS_LEVEL_FULL_ACCESS)
        ]
        initial = dict(await call.initial_metadata())
        assert len(initial["x-tracking-id"]) == 32
        assert initial["x-ratelimit-limit"] == "100, 100;w=60"
        assert int(initial["x-ratelimit-remaining"]) == 99

    run(tmp_path, scenario)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_opens_nothing(tmp_path: Path, token: str) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stranger = Client(server.endpoint, token)
        try:
            denied = grpc.StatusCode.UNAUTHENTICATED
            error = await refused(
                "40003", denied, stranger.call("UsersService/GetAccounts", pb.GetAccountsRequest())
            )
            assert dict(error.initial_metadata()) == {}
            assert dict(error.trailing_metadata())["message"] == "authentication token is missing or invalid"
            assert len(dict(error.trailing_metadata())["x-tracking-id"]) == 32
            await refused("40003", denied, stranger.stream("MarketDataStreamService/MarketDataStream").read())
            request = pb.OrderStateStreamRequest()
            await refused(
                "40003", denied, stranger.stream("OrdersStreamService/OrderStateStream", request).read()
            )
        finally:
            await stranger.channel.close()

    run(tmp_path, scenario)


def test_a_client_that_does_not_trust_the_certificate_gets_nowhere(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        async with grpc.aio.secure_channel(server.endpoint.target, grpc.ssl_channel_credentials()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(channel, "UsersService/GetAccounts")(
                    pb.GetAccountsRequest(), metadata=client.metadata
                )
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    run(tmp_path, scenario)


def test_secrets_are_for_the_owner_and_the_certificate_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for name in ("paper-key.pem", "endpoint.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert Endpoint.read(tmp_path / "endpoint.json") == server.endpoint

    run(tmp_path, scenario)
    before = (tmp_path / "paper-cert.pem").read_bytes()
    run(tmp_path, scenario)
    assert (tmp_path / "paper-cert.pem").read_bytes() == before
    with pytest.raises(BrokerError, match="no paper exchange is running here"):
        Endpoint.read(tmp_path / "endpoint.json")


def test_methods_that_are_not_served(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        not_served = grpc.StatusCode.UNIMPLEMENTED
        await refused(
            "12001", not_served, client.call("OrdersService/ReplaceOrder", pb.ReplaceOrderRequest())
        )
        unheard_of = client.channel.unary_unary(f"/{PACKAGE}.SignalService/GetSignals")
        await refused("12001", not_served, unheard_of(b"", metadata=client.metadata))

    run(tmp_path, scenario)


def test_limits_are_enforced_only_when_asked(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for _ in range(100):
            await client.call("UsersService/GetInfo", pb.GetInfoRequest())
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await refused("80002", exhausted, client.call("UsersService/GetInfo", pb.GetInfoRequest()))
        assert int(dict(error.trailing_metadata())["x-ratelimit-reset"]) >= 1

    async def without(server: PaperServer, client: Client) -> None:
        for _ in range(110):
            await client.call("UsersService/GetInfo", pb.GetInfoRequest())

    run(tmp_path, without)
    # Two windows of a minute may meet inside the scenario; then the count starts again and it is repeated.
    try:
        run(tmp_path, scenario, enforce_limits=True)
    except pytest.fail.Exception:
        run(tmp_path, scenario, enforce_limits=True)


# ---------------------------------------------------------------- instruments and unary market data


def test_instruments(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        shares = (await client.call("InstrumentsService/Shares", pb.InstrumentsRequest())).instruments
        assert [(s.ticker, s.uid, s.lot, to_nano(s.min_price_increment)) for s in shares] == [
            ("SIMP", SHARE.uid, 10, 10_000_000)
        ]
        request = pb.InstrumentRequest(id_type=pb.INSTRUMENT_ID_TYPE_UID, id=FUTURE.uid)
        future = (await client.call("InstrumentsService/FutureBy", request)).instrument
        assert to_nano(future.min_price_increment_amount) == 15 * NANO
        by_ticker = pb.InstrumentRequest(id_type=pb.INSTRUMENT_ID_TYPE_TICKER, id="SIMP", class_code="TQBR")
        assert (
            await client.call("InstrumentsService/GetInstrumentBy", by_ticker)
        ).instrument.uid == SHARE.uid
        by_ticker.ClearField("class_code")
        await refused("30013", INVALID, client.call("InstrumentsService/GetInstrumentBy", by_ticker))
        await refused("50002", MISSING, client.call("InstrumentsService/ShareBy", request))
        found = await client.call("InstrumentsService/FindInstrument", pb.FindInstrumentRequest(query="simf"))
        assert [short.ticker for short in found.instruments] == ["SIMF"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", [SHARE.uid, "FIGI0SIMP", "SIMP_TQBR"])
def test_order_book_by_any_identifier(tmp_path: Path, name: str) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        request = pb.GetOrderBookRequest(depth=1, instrument_id=name, figi="")
        book = await client.call("MarketDataService/GetOrderBook", request)
        assert [(to_nano(b.price), b.quantity) for b in book.bids] == [(300 * NANO, 5)]
        assert [(to_nano(a.price), a.quantity) for a in book.asks] == [(300_020_000_000, 3)]
        assert to_ns(book.orderbook_ts) == T0 - 3 * MILLISECOND_NS

    run(tmp_path, scenario)


def test_unary_market_data(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0 + 2500 * MILLISECOND_NS)
        prices = await client.call("MarketDataService/GetLastPrices", pb.GetLastPricesRequest())
        assert [to_nano(p.price) for p in prices.last_prices] == [
            300 * NANO,
            100_000 * NANO,
        ]  # a trade; a middle
        for depth, code in ((7, "30032"), (0, "30031")):
            request = pb.GetOrderBookRequest(depth=depth, instrument_id=SHARE.uid)
            await refused(code, INVALID, client.call("MarketDataService/GetOrderBook", request))
        request = pb.GetOrderBookRequest(depth=1, instrument_id="NOPE")
        await refused("50002", MISSING, client.call("MarketDataService/GetOrderBook", request))
        await refused(
            "30093",
            INVALID,
            client.call("MarketDataService/GetTradingStatus", pb.GetTradingStatusRequest(figi="")),
        )
        request = pb.GetTradingStatusRequest(figi="FIGI0SIMF")
        status = await client.call("MarketDataService/GetTradingStatus", request)
        assert status.trading_status == pb.SECURITY_TRADING_STATUS_SESSION_OPEN
        span: dict[str, Any] = {"from": {"seconds": T0 // NANO - 60}, "to": {"seconds": T0 // NANO + 60}}
        trades = await client.call(
            "MarketDataService/GetLastTrades", pb.GetLastTradesRequest(instrument_id=SHARE.uid, **span)
        )
        assert [t.quantity for t in trades.trades] == [1, 6]  # the third trade is still to come
        candles = await client.call(
            "MarketDataService/GetCandles",
            pb.GetCandlesRequest(instrument_id=SHARE.uid, interval=pb.CANDLE_INTERVAL_1_MIN, **span),
        )
        (candle,) = candles.candles
        ohlc = [to_nano(p) // 10_000_000 for p in (candle.open, candle.high, candle.low, candle.close)]
        assert ohlc == [30_002, 30_002, 30_000, 30_000]
        assert (candle.volume, candle.volume_buy, candle.volume_sell, candle.is_complete) == (7, 1, 6, False)

    run(tmp_path, scenario)


# ---------------------------------------------------------------- the market data stream


def test_stream_of_books_and_trades_to_the_end_of_the_data(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(1, SHARE.uid, "NOPE"))
        reply = (await stream.read()).subscribe_order_book_response
        assert [s.subscription_status for s in reply.order_book_subscriptions] == [
            pb.SUBSCRIPTION_STATUS_SUCCESS,
            pb.SUBSCRIPTION_STATUS_INSTRUMENT_NOT_FOUND,
        ]
        assert uuid.UUID(reply.order_book_subscriptions[0].subscription_id)
        assert to_ns((await stream.read()).ping.time) == T0
        await stream.write(subscribe_trades("SIMP_TQBR"))
        assert (await stream.read()).subscribe_trades_response.trade_subscriptions[
            0
        ].instrument_uid == SHARE.uid
        assert (await stream.read()).HasField("ping")

        await server.play_until(T0 + SECOND_NS)
        first = (await stream.read()).orderbook
        assert (first.depth, len(first.bids), len(first.asks), first.is_consistent) == (1, 1, 1, True)
        assert to_ns(first.time) == T0 - 3 * MILLISECOND_NS
        trade = (await stream.read()).trade  # of the same moment as the second book, and before it
        assert (to_nano(trade.price), trade.quantity, trade.direction) == (
            300_020_000_000,
            1,
            pb.TRADE_DIRECTION_BUY,
        )
        assert (await stream.read()).orderbook.asks[0].quantity == 6

        await stream.write(pb.MarketDataRequest(ping=pb.PingRequest(time={"seconds": 5})))
        ping = (await stream.read()).ping
        assert (to_ns(ping.time), ping.ping_request_time.seconds) == (T0 + SECOND_NS, 5)

        await server.play_until(T0 + 100 * SECOND_NS)
        kinds = [(await stream.read()).WhichOneof("payload") for _ in range(4)]
        assert kinds == ["trade", "trade", "orderbook", "trading_status"]
        request = pb.GetTradingStatusRequest(instrument_id=SHARE.uid)
        status = await client.call("MarketDataService/GetTradingStatus", request)
        assert status.trading_status == pb.SECURITY_TRADING_STATUS_NOT_AVAILABLE_FOR_TRADING
        await refused("30079", INVALID, client.order())
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF

    run(tmp_path, scenario)


def test_unsubscribe_bad_depth_and_my_subscriptions(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")

        async def statuses(request: pb.MarketDataRequest) -> list[int]:
            await stream.write(request)
            reply = await stream.read()
            assert (await stream.read()).HasField("ping")
            return [
                s.subscription_status for s in reply.subscribe_order_book_response.order_book_subscriptions
            ]

        assert await statuses(subscribe_books(7, SHARE.uid)) == [pb.SUBSCRIPTION_STATUS_DEPTH_IS_INVALID]
        unsubscribe = subscribe_books(10, SHARE.uid, action=pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE)
        assert await statuses(unsubscribe) == [pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_NOT_FOUND]
        assert await statuses(subscribe_books(10, SHARE.uid)) == [pb.SUBSCRIPTION_STATUS_SUCCESS]
        await stream.write(pb.MarketDataRequest(get_my_subscriptions={}))
        mine = (await stream.read()).subscribe_order_book_response.order_book_subscriptions
        assert [(s.instrument_uid, s.depth) for s in mine] == [(SHARE.uid, 10)]
        assert await statuses(unsubscribe) == [pb.SUBSCRIPTION_STATUS_SUCCESS]
        await server.play_until(T0 + 100 * SECOND_NS)
        await stream.write(pb.MarketDataRequest(ping={}))
        assert (await stream.read()).HasField("ping")  # no book came before it

    run(tmp_path, scenario)


def test_server_side_stream_info_and_last_price(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        request = pb.MarketDataServerSideStreamRequest(
            subscribe_info_request={"subscription_action": SUBSCRIBE,
            "instruments": [{"instrument_id": FUTURE.uid}]},
            subscribe_last_price_request={
                "subscription_action": SUBSCRIBE, "instruments": [{"figi": SHARE.figi}]
            },
        )  # fmt: skip
        stream = client.stream("MarketDataStreamService/MarketDataServerSideStream", request)
        got = [await stream.read() for _ in range(4)]
        assert [m.WhichOneof("payload") for m in got] == [
            "subscribe_info_response", "ping", "subscribe_last_price_response", "ping",
        ]  # fmt: skip
        await server.play_until(T0 + 100 * SECOND_NS)
        prices = [to_nano((await stream.read()).last_price.price) for _ in range(3)]
        assert prices == [300_020_000_000, 300 * NANO, 300 * NANO]
        stopped = {(await stream.read()).trading_status.instrument_uid for _ in range(2)}
        assert stopped == {SHARE.uid, FUTURE.uid}

    run(tmp_path, scenario)


def test_throttled_books_keep_the_newest(tmp_path: Path) -> None:
    books = make_books([(ms, [(30_000, 1 + ms)], [(30_001, 1)]) for ms in (0, 10, 20, 150, 400)])
    market = PaperMarket((InstrumentDay(SHARE, "2026-01-15", books, Trades.empty()),))

    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(1, SHARE.uid))
        await stream.read()
        await stream.read()
        await server.play_until(T0 + SECOND_NS)
        sizes = [(await stream.read()).orderbook.bids[0].quantity - 1 for _ in range(4)]
        assert sizes == [0, 20, 150, 400]  # 10 gave way to 20, sent when the window ended
        assert server.stats()["books_conflated"] == 1

    run(tmp_path, scenario, market=market, conflate_ms=100)


def test_a_subscriber_far_behind_skips_books_but_never_trades(tmp_path: Path) -> None:
    n = 3000
    books = make_books([(0, BIDS, ASKS)] * n)
    books.recv_ns += np.arange(n)
    books.exch_ns[:] = np.arange(n)
    trades = make_trades([(0, 30_000, 1, -1)] * n)
    trades.recv_ns += np.arange(n)
    market = PaperMarket((InstrumentDay(SHARE, "2026-01-15", books, trades),))

    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        for request in (subscribe_books(50, SHARE.uid), subscribe_trades(SHARE.uid)):
            await stream.write(request)
            await stream.read()
            await stream.read()
        await server.play_until(T0 + SECOND_NS)
        seen: list[int] = []
        count = 0
        while (message := await stream.read()).WhichOneof("payload") != "trading_status":
            if message.HasField("trade"):
                count += 1
            else:
                seen.append(to_ns(message.orderbook.time))
        assert count == n
        assert seen == sorted(set(seen))
        assert seen[-1] == n - 1
        assert len(seen) + server.stats()["books_conflated"] == n
        assert server.stats()["books_conflated"] > 0

    run(tmp_path, scenario, market=market)


# ---------------------------------------------------------------- orders


def test_a_market_order_walks_the_book(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        reply = await client.order(quantity=10)
        assert (
            reply.execution_report_status == pb.EXECUTION_REPORT_STATUS_CANCELLED
        )  # 3 of 10 lots had no seller
        assert (reply.lots_requested, reply.lots_executed) == (10, 7)
        assert reply.executed_order_price.currency == "rub"
        value = (30_002 * 3 + 30_003 * 4) * 100_000_000
        assert to_nano(reply.executed_order_price) == value // 70  # of one unit
        assert to_nano(reply.initial_security_price) == 300_010_000_000
        assert to_nano(reply.executed_commission) == 0  # the broker computes it later
        state = await client.state(reply.order_id)
        assert [(to_nano(s.price), s.quantity) for s in state.stages] == [
            (300_020_000_000, 3),
            (300_030_000_000, 4),
        ]
        assert to_nano(state.executed_order_price) == value
        fee = -(-3 * 30_002 * 100_000_000 * 50 // 10**6) - (-4 * 30_003 * 100_000_000 * 50 // 10**6)
        assert to_nano(state.executed_commission) == fee
        positions = await client.positions()
        assert [(p.ticker, p.balance, p.blocked) for p in positions.securities] == [("SIMP", 70, 0)]
        assert to_nano(positions.money[0]) == 1_000_000 * NANO - value - fee

    run(tmp_path, scenario)


def test_a_resting_limit_waits_its_turn_and_blocks_money(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        reply = await client.order(**limit(300 * NANO, quantity=2))
        assert reply.execution_report_status == pb.EXECUTION_REPORT_STATUS_NEW
        positions = await client.positions()
        assert (
            to_nano(positions.blocked[0]) == 6_000 * NANO + 300_000_000
        )  # and the fee of half a basis point
        assert to_nano(positions.money[0]) + to_nano(positions.blocked[0]) == 1_000_000 * NANO
        request = pb.GetOrdersRequest(account_id=client.account_id)
        active = (await client.call("OrdersService/GetOrders", request)).orders
        assert [o.order_id for o in active] == [reply.order_id]

        await server.play_until(T0 + 2 * SECOND_NS)  # 6 sold at our price, 5 were before us
        state = await client.state(reply.order_id)
        assert (state.execution_report_status, state.lots_executed) == (
            pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL,
            1,
        )
        await server.play_until(T0 + 3 * SECOND_NS)
        state = await client.state(reply.order_request_id, pb.ORDER_ID_TYPE_REQUEST)
        assert state.execution_report_status == pb.EXECUTION_REPORT_STATUS_FILL
        assert not (await client.call("OrdersService/GetOrders", request)).orders
        filters = pb.GetOrdersRequest.GetOrdersRequestFilters(
            execution_status=[pb.EXECUTION_REPORT_STATUS_FILL]
        )
        request.advanced_filters.CopyFrom(filters)
        assert len((await client.call("OrdersService/GetOrders", request)).orders) == 1

    run(tmp_path, scenario)


def test_cancel(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        order = await client.order(**limit(300 * NANO))

        def cancel(order_id: str, id_type: int = pb.ORDER_ID_TYPE_EXCHANGE) -> Awaitable[Any]:
            request = pb.CancelOrderRequest(
                account_id=client.account_id, order_id=order_id, order_id_type=id_type
            )
            return client.call("OrdersService/CancelOrder", request)

        assert to_ns((await cancel(order.order_request_id, pb.ORDER_ID_TYPE_REQUEST)).time) == T0
        state = await client.state(order.order_id)
        assert state.execution_report_status == pb.EXECUTION_REPORT_STATUS_CANCELLED
        await refused("30059", INVALID, cancel(order.order_id))
        await refused("50005", MISSING, cancel("12345"))

    run(tmp_path, scenario)


def test_a_repeated_key_is_the_same_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        key = str(uuid.uuid4())
        server.lose_reply("OrdersService/PostOrder")
        await refused("70002", grpc.StatusCode.INTERNAL, client.order(order_id=key))
        again = await asyncio.gather(*(client.order(order_id=key) for _ in range(3)))
        assert len({reply.order_id for reply in again}) == 1
        assert again[0].lots_executed == 1
        assert again[0].order_request_id == key
        assert [p.balance for p in (await client.positions()).securities] == [10]

    run(tmp_path, scenario)


def test_an_order_meets_the_market_of_its_arrival_plus_latency(tmp_path: Path) -> None:
    """Sent at 0.99 s it arrives after the book of 1 s, which offers six lots instead of three."""

    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0 + 990 * MILLISECOND_NS)
        again_key = str(uuid.uuid4())
        first = asyncio.create_task(client.order(quantity=5, **limit(300_020_000_000)))
        second = asyncio.create_task(client.order(quantity=1, order_id=again_key))
        while len(server.exchange.orders) < 2:
            await asyncio.sleep(0.01)
        repeated = asyncio.create_task(client.order(quantity=1, order_id=again_key))
        await server.play_until(T0 + 1009 * MILLISECOND_NS)
        assert not first.done()
        await server.play_until(T0 + 1010 * MILLISECOND_NS)
        assert ((await first).lots_executed, (await second).lots_executed) == (5, 1)
        assert (await repeated).order_id == (await second).order_id
        state = await client.state((await first).order_id)
        assert to_ns(state.stages[0].execution_time) == T0 + 1010 * MILLISECOND_NS

    run(tmp_path, scenario, entry_latency_ms=20)


BAD_ORDERS = {
    "tick": (limit(300_005_000_000), "30078", INVALID),
    "mixed signs": (limit(0, price=pb.Quotation(units=300, nano=-10_000_000)), "30017", INVALID),
    "no price": ({"order_type": pb.ORDER_TYPE_LIMIT}, "30017", INVALID),
    "negative price": (limit(-300 * NANO), "30100", INVALID),
    "points for a share": (limit(300 * NANO, price_type=pb.PRICE_TYPE_POINT), "30085", INVALID),
    "no quantity": ({"quantity": 0}, "30015", INVALID),
    "negative quantity": ({"quantity": -1}, "30080", INVALID),
    "no direction": ({"direction": 0}, "30019", INVALID),
    "no type": ({"order_type": 0}, "30025", INVALID),
    "best price": ({"order_type": pb.ORDER_TYPE_BESTPRICE}, "30026", INVALID),
    "no key": ({"order_id": ""}, "30027", INVALID),
    "key not a uuid": ({"order_id": "hello"}, "30028", INVALID),
    "key too long": ({"order_id": "x" * 37}, "30055", INVALID),
    "no account": ({"account_id": ""}, "30021", INVALID),
    "foreign account": ({"account_id": "1"}, "50004", MISSING),
    "unknown instrument": ({"instrument_id": "NOPE"}, "50002", MISSING),
    "no instrument": ({"instrument_id": "", "figi": ""}, "30093", INVALID),
    "fill or kill of a future": (
        limit(100_000 * NANO, instrument_id=FUTURE.uid, time_in_force=pb.TIME_IN_FORCE_FILL_OR_KILL),
        "30254", INVALID,
    ),
    "twice the equity": ({"quantity": 667}, "30042", INVALID),
    "too large": ({"quantity": 100_000}, "90003", grpc.StatusCode.FAILED_PRECONDITION),
}  # fmt: skip


def test_bad_orders_are_refused_by_code_and_leave_nothing(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        for name, (fields, code, status) in BAD_ORDERS.items():
            error = await refused(code, status, client.order(**fields))
            trailers = dict(error.trailing_metadata())
            assert trailers["message"], name
            assert "x-ratelimit-remaining" in trailers, name
        assert server.exchange.orders == []

    run(tmp_path, scenario)


def test_nothing_trades_before_the_market_has_begun(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await refused("30079", INVALID, client.order())

    run(tmp_path, scenario)


def test_the_order_state_stream_tells_the_whole_story(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        request = pb.OrderStateStreamRequest(accounts=[client.account_id])
        stream = client.stream("OrdersStreamService/OrderStateStream", request)
        hello = (await stream.read()).subscription
        assert (hello.status, list(hello.accounts)) == (pb.RESULT_SUBSCRIPTION_STATUS_OK, [client.account_id])
        trades = client.stream(
            "OrdersStreamService/TradesStream", pb.TradesStreamRequest(accounts=[client.account_id])
        )
        assert (await trades.read()).HasField("subscription")

        reply = await client.order(quantity=10)
        events = [(await stream.read()).order_state for _ in range(5)]
        assert {e.order_request_id for e in events} == {reply.order_request_id}
        assert events[0].order_id != reply.order_id
        assert {e.order_id for e in events[1:]} == {reply.order_id}
        assert [
            (e.execution_report_status, e.lots_executed, e.lots_left, e.lots_cancelled) for e in events
        ] == [
            (pb.EXECUTION_REPORT_STATUS_NEW, 0, 10, 0),
            (pb.EXECUTION_REPORT_STATUS_NEW, 0, 10, 0),
            (pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL, 3, 7, 0),
            (pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL, 7, 3, 0),
            (pb.EXECUTION_REPORT_STATUS_CANCELLED, 7, 0, 3),
        ]
        assert [[t.quantity for t in e.trades] for e in events] == [[], [], [30], [30, 40], [30, 40]]  # UNITS
        assert to_nano(events[3].trades[1].price) == 300_030_000_000
        assert events[4].status_info == pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_EXCHANGE
        assert not events[3].HasField("status_info")
        fills = [(await trades.read()).order_trades for _ in range(2)]
        assert [(f.order_id, f.trades[0].quantity) for f in fills] == [
            (reply.order_id, 30),
            (reply.order_id, 40),
        ]

        resting = await client.order(**limit(300 * NANO))
        request = pb.CancelOrderRequest(account_id=client.account_id, order_id=resting.order_id)
        await client.call("OrdersService/CancelOrder", request)
        events = [(await stream.read()).order_state for _ in range(3)]
        assert events[2].status_info == pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT
        assert events[2].lots_cancelled == 1

    run(tmp_path, scenario)


def test_order_streams_of_a_foreign_account_say_so(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream(
            "OrdersStreamService/OrderStateStream", pb.OrderStateStreamRequest(accounts=["1"])
        )
        answer = (await stream.read()).subscription
        assert (answer.status, answer.error.code) == (pb.RESULT_SUBSCRIPTION_STATUS_ERROR, "50004")
        assert await stream.read() is grpc.aio.EOF

    run(tmp_path, scenario)


def test_what_rests_at_the_end_of_the_data_is_cancelled_by_the_exchange(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        order = await client.order(**limit(200 * NANO))
        request = pb.OrderStateStreamRequest(accounts=[client.account_id])
        stream = client.stream("OrdersStreamService/OrderStateStream", request)
        await stream.read()
        await server.play_until(T0 + 100 * SECOND_NS)
        event = (await stream.read()).order_state
        assert event.order_id == order.order_id
        assert event.status_info == pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_EXCHANGE

    run(tmp_path, scenario)


def test_a_future_moves_cash_only_by_what_it_won(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        bought = await client.order(instrument_id="FIGI0SIMF", quantity=2)
        assert to_nano(bought.executed_order_price) == 10_001 * 15 * NANO
        assert to_nano(bought.initial_order_price_pt) == 10_000 * 10 * NANO
        fee = -(-2 * 10_001 * 15 * NANO * 50 // 10**6)
        positions = await client.positions()
        assert [(p.ticker, p.balance) for p in positions.futures] == [("SIMF", 2)]
        assert to_nano(positions.money[0]) == 1_000_000 * NANO - fee
        await server.play_until(T0 + 4 * SECOND_NS)
        request = pb.PortfolioRequest(account_id=client.account_id)
        portfolio = await client.call("OperationsService/GetPortfolio", request)
        assert to_nano(portfolio.total_amount_portfolio) == 1_000_000 * NANO - fee + 2 * 2 * 15 * NANO

        in_money = limit(10_003 * 15 * NANO, instrument_id=FUTURE.uid, direction=pb.ORDER_DIRECTION_SELL)
        sold = await client.order(quantity=3, price_type=pb.PRICE_TYPE_CURRENCY, **in_money)
        assert sold.lots_executed == 3
        fees = fee + 3 * 10_003 * 15 * NANO * 50 // 10**6
        positions = await client.positions()
        assert [p.balance for p in positions.futures] == [-1]
        assert to_nano(positions.money[0]) == 1_000_000 * NANO - fees + 2 * 2 * 15 * NANO

    run(tmp_path, scenario)


def test_short_positions_are_negative_and_held_shares_get_blocked(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order(direction=pb.ORDER_DIRECTION_SELL, quantity=2)
        assert [p.balance for p in (await client.positions()).securities] == [-20]
        await client.order(quantity=3)
        await client.order(**limit(310 * NANO, direction=pb.ORDER_DIRECTION_SELL, quantity=5))
        assert [(p.balance, p.blocked) for p in (await client.positions()).securities] == [(0, 10)]

    run(tmp_path, scenario)


# ---------------------------------------------------------------- the server itself


def test_cut_streams_break_with_unavailable_and_new_ones_work(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(1, SHARE.uid))
        await stream.read()
        await stream.read()
        server.cut_streams()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        again = client.stream("MarketDataStreamService/MarketDataStream")
        await again.write(subscribe_books(1, SHARE.uid))
        assert (await again.read()).HasField("subscribe_order_book_response")

    run(tmp_path, scenario)


def test_a_running_clock_plays_everything_in_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(7, SHARE.uid))
        await stream.read()
        assert not server.clock.running  # nothing was subscribed yet
        await stream.write(subscribe_books(20, SHARE.uid, FUTURE.uid))
        times = []
        while (message := await stream.read()).WhichOneof("payload") != "trading_status":
            if message.HasField("orderbook"):
                times.append(to_ns(message.orderbook.time))
        assert len(times) == 5
        assert times == sorted(times)
        assert server.clock.now_ns() >= server.endpoint.market_end_ns

    run(tmp_path, scenario, speed=100, entry_latency_ms=20)


def test_a_span_begins_with_the_book_that_was_standing(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        assert server.endpoint.market_start_ns == T0 + 2 * SECOND_NS
        assert server.endpoint.market_end_ns == T0 + 4 * SECOND_NS
        request = pb.GetOrderBookRequest(depth=1, instrument_id=SHARE.uid)
        assert (await client.call("MarketDataService/GetOrderBook", request)).asks[0].quantity == 6
        assert (
            await client.order(quantity=6)
        ).lots_executed == 6  # the clock stands; orders need not wait for it

    run(tmp_path, scenario, from_ns=T0 + 1500 * MILLISECOND_NS, to_ns=T0 + 9 * SECOND_NS, entry_latency_ms=20)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nothing to play"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", from_ns=T0 + 10**15)
    with pytest.raises(ConfigError, match="loopback only"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", host="0.0.0.0")
    with pytest.raises(ConfigError, match="negative"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", speed=-1)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async def start(port: int) -> None:
        await PaperServer(MARKET, endpoint_path=tmp_path / "e.json", port=port).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*--port 0"):
            asyncio.run(start(port))


def test_the_command_serves_a_recording_until_it_is_told_to_stop(tmp_path: Path) -> None:
    write_recording(
        tmp_path / "recording", [SHARE_DAY, FUTURE_DAY], source="test", watermark="SIMULATED",
        tariff="simulated",
        provenance={},
    )  # fmt: skip
    command = [
        sys.executable, "-m", "market.paper", "--recording", str(tmp_path / "recording"), "--tickers", "SIMP",
        "--endpoint", str(tmp_path / "run" / "endpoint.json"), "--speed", "50",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            endpoint = Endpoint.read(tmp_path / "run" / "endpoint.json")
            assert endpoint.target in ready
            for word in ("SIMULATED", "SIMP", "x50", "2026-01-15"):
                assert word in ready
            assert (endpoint.pid, endpoint.speed) == (process.pid, 50.0)

            async def talk() -> None:
                client = Client(endpoint)
                stream = client.stream("MarketDataStreamService/MarketDataStream")
                await stream.write(subscribe_books(10, SHARE.uid))
                while (await stream.read()).WhichOneof("payload") != "trading_status":
                    pass
                await client.channel.close()

            asyncio.run(asyncio.wait_for(talk(), 60))
            process.send_signal(signal.SIGTERM)
            farewell, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "6 of 6 events played" in farewell
    assert not (tmp_path / "run" / "endpoint.json").exists()
    stats = json.loads((tmp_path / "run" / "paper-stats.json").read_text())
    assert (stats["books_sent"], stats["orders"]) == (3, 0)


def test_the_command_explains_a_missing_recording(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "market.paper", "--recording", str(tmp_path / "nowhere")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
