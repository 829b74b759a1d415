"""Orders, positions and order streams of the paper exchange, over real gRPC and TLS."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
from paper_market import (
    FUTURE,
    INVALID,
    MISSING,
    T0,
    Client,
    limit,
    refused,
    run,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import to_nano, to_ns
from market.paper import PaperServer
from market.types import MILLISECOND_NS, NANO, SECOND_NS


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
        assert to_nano(state.executed_commission) == 0
        await server.play_until(T0 + SECOND_NS)
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
    "unknown type": ({"order_type": 7}, "30026", INVALID),
    "unknown price type": ({"price_type": 7}, "30104", INVALID),
    "unknown direction": ({"direction": 7}, "30020", INVALID),
    "above the limit": (limit(361 * NANO), "30099", INVALID),
    "below the limit": (limit(239 * NANO, direction=pb.ORDER_DIRECTION_SELL), "30099", INVALID),
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
