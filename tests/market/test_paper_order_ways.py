"""Other ways of an order: best price, immediate, asynchronous, replaced, faulty; and what to ask first."""

from __future__ import annotations

import uuid
from pathlib import Path

import grpc
import pytest
from paper_market import (
    FUTURE,
    INVALID,
    MISSING,
    SHARE,
    T0,
    Client,
    limit,
    refused,
    run,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, to_nano
from market.fees import fee_nano
from market.paper import PaperServer
from market.paper.faults import Fault
from market.types import MILLISECOND_NS, NANO, SECOND_NS

LATER = SECOND_NS // 2
BY_KEY = pb.ORDER_ID_TYPE_REQUEST
NEW, FILL = pb.EXECUTION_REPORT_STATUS_NEW, pb.EXECUTION_REPORT_STATUS_FILL
CANCELLED = pb.EXECUTION_REPORT_STATUS_CANCELLED
PARTIAL = pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL


def test_the_best_price_takes_what_is_near_and_leaves_nothing_in_the_book(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        reply = await client.order(order_type=pb.ORDER_TYPE_BESTPRICE, quantity=10)
        assert (reply.execution_report_status, reply.lots_executed) == (CANCELLED, 7)
        assert reply.order_type == pb.ORDER_TYPE_BESTPRICE
        # No trade yet, so 0.3 % above the middle, in ticks, rounded outwards.
        assert to_nano(reply.initial_security_price) == (30_001 + 91) * 10_000_000

    run(tmp_path, scenario)


def test_immediate_orders_never_rest(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        at_touch = limit(300_020_000_000)
        killed = await client.order(quantity=5, time_in_force=pb.TIME_IN_FORCE_FILL_AND_KILL, **at_touch)
        assert (killed.execution_report_status, killed.lots_executed) == (CANCELLED, 3)
        assert "2 of 5 lots" in killed.message
        key = str(uuid.uuid4())
        all_or_nothing = {"time_in_force": pb.TIME_IN_FORCE_FILL_OR_KILL, **limit(300_030_000_000)}
        await refused("30227", INVALID, client.order(quantity=5, order_id=key, **all_or_nothing))
        state = await client.state(key, BY_KEY)
        assert (state.execution_report_status, state.lots_executed) == (CANCELLED, 0)
        whole = await client.order(quantity=4, **all_or_nothing)
        assert (whole.execution_report_status, whole.lots_executed) == (FILL, 4)

    run(tmp_path, scenario)


def test_an_asynchronous_order_tells_its_exchange_id_only_later(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        states = client.stream(
            "OrdersStreamService/OrderStateStream", pb.OrderStateStreamRequest(accounts=[client.account_id])
        )
        assert (await states.read()).HasField("subscription")
        request = pb.PostOrderAsyncRequest(
            account_id=client.account_id, instrument_id=f"{SHARE.ticker}_{SHARE.class_code}", quantity=2,
            order_id=str(uuid.uuid4()), direction=pb.ORDER_DIRECTION_BUY, order_type=pb.ORDER_TYPE_MARKET,
        )  # fmt: skip
        reply = await client.call("OrdersService/PostOrderAsync", request)
        assert (reply.order_request_id, reply.execution_report_status) == (request.order_id, NEW)
        again = await client.call("OrdersService/PostOrderAsync", request)
        assert again.trade_intent_id == reply.trade_intent_id
        first = (await states.read()).order_state
        assert (first.order_id, first.order_request_id) == (reply.trade_intent_id, request.order_id)
        state = await client.state(request.order_id, BY_KEY)
        assert state.order_id == reply.trade_intent_id  # it is still on its way
        await refused("50005", MISSING, client.state(reply.trade_intent_id))

        await server.play_until(T0 + 20 * MILLISECOND_NS)
        state = await client.state(request.order_id, BY_KEY)
        assert (state.execution_report_status, state.lots_executed) == (FILL, 2)
        assert state.order_id not in ("", reply.trade_intent_id)
        events = [(await states.read()).order_state for _ in range(2)]
        assert [(e.order_id, e.execution_report_status) for e in events] == [
            (state.order_id, NEW),
            (state.order_id, FILL),
        ]
        bad = pb.PostOrderAsyncRequest(account_id=client.account_id, order_id="hello")
        await refused("30028", INVALID, client.call("OrdersService/PostOrderAsync", bad))

    run(tmp_path, scenario, entry_latency_ms=20)


def test_a_replaced_order_is_a_new_one_under_a_new_key(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        old = await client.order(**limit(299 * NANO, quantity=2))
        request = pb.ReplaceOrderRequest(
            account_id=client.account_id, order_id=old.order_id, idempotency_key=str(uuid.uuid4()),
            quantity=3, price=quotation(299_500_000_000),
        )  # fmt: skip
        new = await client.call("OrdersService/ReplaceOrder", request)
        assert (new.order_request_id, new.lots_requested) == (request.idempotency_key, 3)
        assert to_nano(new.initial_security_price) == 299_500_000_000
        assert new.order_id != old.order_id
        assert (await client.state(old.order_id)).execution_report_status == CANCELLED
        again = await client.call("OrdersService/ReplaceOrder", request)
        assert again.order_id == new.order_id

        async def replace(**fields: object) -> pb.PostOrderResponse:
            asked = pb.ReplaceOrderRequest(
                account_id=client.account_id, order_id=new.order_id, idempotency_key=str(uuid.uuid4()),
                quantity=1,
            )  # fmt: skip
            asked.MergeFrom(pb.ReplaceOrderRequest(**fields))  # type: ignore[arg-type]
            return await client.call("OrdersService/ReplaceOrder", asked)

        await refused("30030", INVALID, replace(idempotency_key="no uuid"))
        await refused("50005", MISSING, replace(order_id="1"))
        await refused("30078", INVALID, replace(price=quotation(299_505_000_000)))
        assert (await client.state(new.order_id)).execution_report_status == NEW
        missing = pb.ReplaceOrderRequest(account_id=client.account_id, order_id=new.order_id, quantity=1)
        await refused("30029", INVALID, client.call("OrdersService/ReplaceOrder", missing))
        # Not atomic: the new one is refused for want of money, the old one is gone.
        await refused("30042", INVALID, replace(quantity=700))
        assert (await client.state(new.order_id)).execution_report_status == CANCELLED
        await refused("30059", INVALID, replace())

    run(tmp_path, scenario)


def test_the_exchange_id_may_come_late(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        server.faults.add(Fault("internal_id_first", count=1, ms=90))
        reply = await client.order()
        assert reply.execution_report_status == FILL
        await refused("50005", MISSING, client.state(reply.order_id))
        await server.play_until(T0 + 90 * MILLISECOND_NS)
        state = await client.state(reply.order_request_id, BY_KEY)
        assert state.order_id.isdecimal()
        assert state.order_id != reply.order_id
        assert (await client.state(state.order_id)).lots_executed == 1

    run(tmp_path, scenario)


def test_a_partial_fill_leaves_a_rest_that_goes_on(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        server.faults.add(Fault("partial_fill", count=2, percent=34))
        order = await client.order(quantity=3, **limit(300_020_000_000))
        assert (order.execution_report_status, order.lots_executed) == (PARTIAL, 1)
        cancelled = await client.order(quantity=3, **limit(300_020_000_000))
        request = pb.CancelOrderRequest(account_id=client.account_id, order_id=cancelled.order_id)
        await client.call("OrdersService/CancelOrder", request)
        await server.play_until(T0 + LATER)
        state = await client.state(order.order_id)
        assert [stage.quantity for stage in state.stages] == [1, 1]  # the third lot's seller was taken above
        state = await client.state(cancelled.order_id)
        assert (state.execution_report_status, state.lots_executed) == (CANCELLED, 1)

    run(tmp_path, scenario)


def test_a_repeated_key_may_be_a_duplicate(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        key = str(uuid.uuid4())
        server.faults.add(Fault("lost_reply_70002", count=1))
        server.faults.add(Fault("duplicate_30057", count=1))
        await refused("70002", grpc.StatusCode.INTERNAL, client.order(order_id=key))
        await refused("30057", INVALID, client.order(order_id=key))
        assert (await client.order(order_id=key)).lots_executed == 1
        assert len(server.exchange.orders) == 1

    run(tmp_path, scenario)


def test_margin_trading_is_asked_for_or_switched_off(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        sell = pb.ORDER_DIRECTION_SELL
        await refused("30240", INVALID, client.order(direction=sell))
        assert (await client.order(direction=sell, confirm_margin_trade=True)).lots_executed == 1
        assert (await client.order()).lots_executed == 1  # closing is no margin trade
        server.exchange.account.margin = False
        await refused("30042", INVALID, client.order(direction=sell))
        await refused("30042", INVALID, client.order(quantity=334))
        await refused("30051", INVALID, client.order(instrument_id=FUTURE.uid))
        assert (await client.order()).lots_executed == 1

    run(tmp_path, scenario, margin_confirmation=True)


def test_max_lots_is_exactly_what_is_accepted(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)

        async def most(**fields: object) -> pb.GetMaxLotsResponse:
            request = pb.GetMaxLotsRequest(account_id=client.account_id, **fields)  # type: ignore[arg-type]
            return await client.call("OrdersService/GetMaxLots", request)

        await client.order(quantity=3)
        for instrument in (SHARE, FUTURE):
            answer = await most(instrument_id=instrument.figi)
            assert answer.currency == "rub"
            assert answer.buy_limits.buy_max_lots <= answer.buy_margin_limits.buy_max_lots
            for side, lots in (
                (pb.ORDER_DIRECTION_BUY, answer.buy_margin_limits.buy_max_market_lots),
                (pb.ORDER_DIRECTION_SELL, answer.sell_margin_limits.sell_max_lots),
            ):
                asked = {"instrument_id": instrument.uid, "direction": side}
                await refused("30042", INVALID, client.order(quantity=lots + 1, **asked))
        shares = await most(instrument_id=SHARE.uid, price=quotation(300 * NANO))
        assert shares.sell_limits.sell_max_lots == 3
        own = shares.buy_limits.buy_max_lots
        server.exchange.account.margin = False
        await refused("30042", INVALID, client.order(**limit(300 * NANO, quantity=own + 1)))
        resting = await client.order(**limit(300 * NANO, quantity=own))
        assert resting.execution_report_status == NEW
        left = await most(instrument_id=SHARE.uid, price=quotation(300 * NANO))
        assert (left.buy_limits.buy_max_lots, left.buy_margin_limits.buy_max_lots) == (0, 0)

    run(tmp_path, scenario)


def test_the_price_of_an_order_is_what_it_costs(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)

        async def price(**fields: object) -> pb.GetOrderPriceResponse:
            asked = {"instrument_id": SHARE.uid, "direction": pb.ORDER_DIRECTION_BUY, "quantity": 2} | fields
            request = pb.GetOrderPriceRequest(account_id=client.account_id, **asked)  # type: ignore[arg-type]
            return await client.call("OrdersService/GetOrderPrice", request)

        answer = await price(price=quotation(300_020_000_000))
        value = 30_002 * 2 * SHARE.tick_value_nano
        fee = fee_nano(value, 50)
        assert to_nano(answer.initial_order_amount) == value
        assert to_nano(answer.total_order_amount) == value + fee
        await client.order(quantity=2)
        cash = to_nano((await client.positions()).money[0])
        assert 1_000_000 * NANO - cash == value + fee
        future = await price(price=quotation(100_000 * NANO), instrument_id=FUTURE.uid)
        assert to_nano(future.extra_future.initial_margin) == 10_000 * 15 * NANO
        await refused("30017", INVALID, price())
        await refused("30015", INVALID, price(quantity=0, price=quotation(NANO)))

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "names",
    [
        {"instrument_id": SHARE.uid, "figi": ""},  # the SDK always sends the empty one
        {"instrument_id": SHARE.figi},
        {"instrument_id": f"{SHARE.ticker}_{SHARE.class_code}"},
        {"instrument_id": "", "figi": SHARE.figi},
    ],
)
def test_an_instrument_has_many_names(tmp_path: Path, names: dict[str, str]) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        assert (await client.order(**names)).instrument_uid == SHARE.uid

    run(tmp_path, scenario)


def test_limits_and_margins_are_published_as_they_are_applied(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        request = pb.GetOrderBookRequest(instrument_id=SHARE.uid, depth=1)
        book = await client.call("MarketDataService/GetOrderBook", request)
        low, high = to_nano(book.limit_down), to_nano(book.limit_up)
        sell = {"direction": pb.ORDER_DIRECTION_SELL}
        assert (await client.order(**limit(high))).lots_executed == 1
        await refused("30099", INVALID, client.order(**limit(high + SHARE.tick_nano)))
        assert (await client.order(**limit(low, **sell))).lots_executed == 1
        await refused("30099", INVALID, client.order(**limit(low - SHARE.tick_nano, **sell)))
        # A buy far below and a sell far above are no danger to anybody.
        far_below = await client.order(**limit(200 * NANO))
        assert far_below.execution_report_status == NEW

        by_uid = pb.InstrumentRequest(id_type=pb.INSTRUMENT_ID_TYPE_UID, id=FUTURE.uid)
        future = (await client.call("InstrumentsService/FutureBy", by_uid)).instrument
        margin = await client.call(
            "InstrumentsService/GetFuturesMargin", pb.GetFuturesMarginRequest(instrument_id=FUTURE.uid)
        )
        assert future.initial_margin_on_buy == margin.initial_margin_on_buy
        assert to_nano(margin.initial_margin_on_buy) == 10_000 * 15 * NANO // 2
        assert to_nano(future.dlong_client) == NANO // 2
        of_share = pb.GetFuturesMarginRequest(instrument_id=SHARE.uid)
        await refused("30041", INVALID, client.call("InstrumentsService/GetFuturesMargin", of_share))

    run(tmp_path, scenario)
