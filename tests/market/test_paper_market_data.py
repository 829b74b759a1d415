"""Instruments, unary market data and the market data stream of the paper exchange, over real gRPC and TLS."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from paper_market import (
    ASKS,
    BIDS,
    FUTURE,
    INVALID,
    MISSING,
    SHARE,
    SUBSCRIBE,
    T0,
    Client,
    make_books,
    make_trades,
    refused,
    run,
    subscribe_books,
    subscribe_trades,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import to_nano, to_ns
from market.paper import PaperMarket, PaperServer
from market.types import MILLISECOND_NS, NANO, SECOND_NS, InstrumentDay, Trades


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
