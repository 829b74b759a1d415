"""What the paper exchange allows a client per minute, per stream and at once, and how it says so."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from paper_market import (
    BIDS,
    EXHAUSTED,
    FUTURE,
    SHARE,
    STREAM,
    SUBSCRIBE,
    Client,
    make_books,
    refused,
    run,
    subscribe_books,
    subscribe_trades,
)

from market.contract import invest_pb2 as pb
from market.contract.methods import stub
from market.paper import PaperMarket, PaperServer
from market.paper.limits import MAX_SUBSCRIPTIONS, WINDOW_S, RateLimits
from market.paper.refusals import Refusal
from market.types import InstrumentDay, Trades


def test_a_window_begins_with_its_first_request_and_ends() -> None:
    now = [1000.0]
    limits = RateLimits(enforced=True, now_s=lambda: now[0])
    assert limits.count("UsersService/GetInfo") == {
        "x-ratelimit-limit": "100, 100;w=60", "x-ratelimit-remaining": "99", "x-ratelimit-reset": "60",
    }  # fmt: skip
    for _ in range(99):
        limits.count("UsersService/GetAccounts")  # the service counts as one
    now[0] += 10
    with pytest.raises(Refusal) as caught:
        limits.count("UsersService/GetInfo")
    assert (caught.value.code, caught.value.metadata["x-ratelimit-reset"]) == ("80002", "50")
    for _ in range(300):
        limits.count("OrdersService/PostOrder")  # counted on its own
    limits.count("OrdersService/GetOrderState")
    now[0] += WINDOW_S
    assert limits.count("UsersService/GetInfo")["x-ratelimit-remaining"] == "99"


def test_a_fast_market_has_short_minutes() -> None:
    now = [1000.0]
    limits = RateLimits(enforced=True, speed=20, now_s=lambda: now[0])
    for _ in range(100):
        headers = limits.count("UsersService/GetInfo")
    assert headers["x-ratelimit-reset"] == "3"
    now[0] += 3
    assert limits.count("UsersService/GetInfo")["x-ratelimit-remaining"] == "99"


def test_nothing_is_refused_unless_asked() -> None:
    limits = RateLimits(enforced=False)
    assert [limits.count("StopOrdersService/GetStopOrders") for _ in range(60)][-1][
        "x-ratelimit-remaining"
    ] == "0"
    assert all(limits.may_subscribe() for _ in range(200))


def test_the_refusal_is_trailers_only(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        async def ask() -> Any:
            return await client.call("UsersService/GetInfo", pb.GetInfoRequest())

        await asyncio.gather(*(ask() for _ in range(100)))
        error = await refused("80002", EXHAUSTED, ask())
        trailers = dict(error.trailing_metadata())
        assert dict(error.initial_metadata()) == {}
        assert (trailers["x-ratelimit-limit"], trailers["x-ratelimit-remaining"]) == ("100, 100;w=60", "0")
        assert 0 < int(trailers["x-ratelimit-reset"]) <= 60

    run(tmp_path, scenario, enforce_limits=True)


def test_streams_at_once_and_the_tariff(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        streams = [client.stream(STREAM) for _ in range(16)]
        for stream in streams:
            await stream.write(subscribe_books(1, SHARE.uid))
            await stream.read()
        await refused("80001", EXHAUSTED, client.stream(STREAM).read())
        tariff = await client.call("UsersService/GetUserTariff", pb.GetUserTariffRequest())
        unary = {name.split("v1.")[1]: row for row in tariff.unary_limits for name in row.methods}
        assert unary["OrdersService/PostOrder"].limit_per_minute == 300
        assert unary["OrdersService/GetOrderState"].limit_per_minute == 100
        assert "OrdersService/PostOrder" not in "".join(unary["OrdersService/GetOrderState"].methods)
        opened = {
            name.split("v1.")[1]: (row.limit, row.open)
            for row in tariff.stream_limits
            for name in row.streams
        }
        assert opened[STREAM] == (16, 16)
        assert opened["OrdersStreamService/OrderStateStream"] == (10, 0)
        streams[0].cancel()
        again = None
        for _ in range(100):  # the server notices the cancel in its own time
            await asyncio.sleep(0.02)
            again = client.stream(STREAM)
            try:
                await again.write(subscribe_books(1, SHARE.uid))
                assert (await again.read()).HasField("subscribe_order_book_response")
                break
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                again = None
        assert again is not None

    run(tmp_path, scenario, enforce_limits=True)


def test_three_hundred_subscriptions(tmp_path: Path) -> None:
    day = InstrumentDay(SHARE, "2026-01-15", make_books([(0, BIDS, [(30_002, 1)])]), Trades.empty())
    many = [replace(SHARE, uid=str(uuid.UUID(int=k)), ticker=f"T{k}", figi=f"F{k}") for k in range(1, 160)]
    market = PaperMarket(tuple(replace(day, instrument=i) for i in many))

    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream(STREAM)
        ids = [i.uid for i in many]
        await stream.write(subscribe_books(1, *ids))
        books = (await stream.read()).subscribe_order_book_response.order_book_subscriptions
        assert {entry.subscription_status for entry in books} == {pb.SUBSCRIPTION_STATUS_SUCCESS}
        await stream.read()
        await stream.write(subscribe_trades(*ids))
        trades = (await stream.read()).subscribe_trades_response.trade_subscriptions
        beyond = 2 * len(many) - MAX_SUBSCRIPTIONS
        assert [entry.subscription_status for entry in trades[-beyond:]] == [
            pb.SUBSCRIPTION_STATUS_LIMIT_IS_EXCEEDED
        ] * beyond
        assert trades[-beyond - 1].subscription_status == pb.SUBSCRIPTION_STATUS_SUCCESS
        await stream.read()
        await stream.write(
            pb.MarketDataRequest(
                subscribe_info_request={
                    "subscription_action": SUBSCRIBE, "instruments": [{"instrument_id": ids[0]}]
                }
            )
        )  # fmt: skip
        (info,) = (await stream.read()).subscribe_info_response.info_subscriptions
        assert info.subscription_status == pb.SUBSCRIPTION_STATUS_SUCCESS  # does not count

    run(tmp_path, scenario, market=market)


def test_a_hundred_subscribe_requests_a_minute(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream(STREAM)
        seen = []
        for _ in range(101):
            await stream.write(subscribe_books(1, SHARE.uid, FUTURE.uid))
            reply = (await stream.read()).subscribe_order_book_response
            seen.append({entry.subscription_status for entry in reply.order_book_subscriptions})
            await stream.read()
        assert seen[:100] == [{pb.SUBSCRIPTION_STATUS_SUCCESS}] * 100
        assert seen[100] == {pb.SUBSCRIPTION_STATUS_TOO_MANY_REQUESTS}

    run(tmp_path, scenario, enforce_limits=True)


def test_a_stream_without_subscriptions_is_closed(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        idle, busy = client.stream(STREAM), client.stream(STREAM)
        await busy.write(subscribe_books(1, SHARE.uid))
        await refused("80004", EXHAUSTED, idle.read())
        assert (await busy.read()).HasField("subscribe_order_book_response")
        await busy.read()
        await busy.write(subscribe_books(1, SHARE.uid, action=pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE))
        await busy.read()
        await busy.read()
        await refused("80004", EXHAUSTED, busy.read())

    run(tmp_path, scenario, enforce_limits=True, empty_stream_s=0.4)


def test_subscribing_again_keeps_the_subscription(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream(STREAM)

        async def subscription_id(depth: int) -> str:
            await stream.write(subscribe_books(depth, SHARE.uid))
            (entry,) = (await stream.read()).subscribe_order_book_response.order_book_subscriptions
            assert (entry.subscription_status, entry.depth) == (pb.SUBSCRIPTION_STATUS_SUCCESS, depth)
            assert uuid.UUID(entry.stream_id)
            await stream.read()
            return entry.subscription_id

        first = await subscription_id(10)
        assert await subscription_id(10) == first
        assert await subscription_id(20) != first

    run(tmp_path, scenario)


def test_dealer_sources_and_bad_actions_are_refused(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream(STREAM)
        dealer = subscribe_books(10, SHARE.uid)
        dealer.subscribe_order_book_request.instruments[0].order_book_type = pb.ORDERBOOK_TYPE_DEALER
        trades = subscribe_trades(SHARE.uid)
        trades.subscribe_trades_request.trade_source = pb.TRADE_SOURCE_DEALER
        nothing = subscribe_books(10, SHARE.uid, action=pb.SUBSCRIPTION_ACTION_UNSPECIFIED)
        got = []
        for request in (dealer, trades, nothing):
            await stream.write(request)
            reply = await stream.read()
            kind = reply.WhichOneof("payload")
            answer = getattr(reply, kind)
            entries = answer.trade_subscriptions if "trades" in kind else answer.order_book_subscriptions
            assert len(answer.tracking_id) == 32
            got.append(entries[0].subscription_status)
            await stream.read()
        assert got == [
            pb.SUBSCRIPTION_STATUS_SOURCE_IS_INVALID, pb.SUBSCRIPTION_STATUS_SOURCE_IS_INVALID,
            pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_ACTION_IS_INVALID,
        ]  # fmt: skip

    run(tmp_path, scenario)


def test_open_interest_is_echoed(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        request = subscribe_trades(FUTURE.uid)
        request.subscribe_trades_request.with_open_interest = True
        stream = stub(client.channel, STREAM)(metadata=client.metadata)
        await stream.write(request)
        (entry,) = (await stream.read()).subscribe_trades_response.trade_subscriptions
        assert (entry.with_open_interest, entry.ticker) == (True, "SIMF")

    run(tmp_path, scenario)
