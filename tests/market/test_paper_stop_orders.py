"""Stop orders: they wait at the exchange, whoever is connected, and trigger by the market alone."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from paper_market import FUTURE, INVALID, MISSING, SHARE, T0, Client, make_books, make_trades, refused, run

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, timestamp, to_nano, to_ns
from market.latency import Latency
from market.paper import PaperMarket, PaperServer
from market.types import MILLISECOND_NS, NANO, SECOND_NS, InstrumentDay, Trades

STOP = "StopOrdersService"
TICK = SHARE.tick_nano
BUY, SELL = pb.STOP_ORDER_DIRECTION_BUY, pb.STOP_ORDER_DIRECTION_SELL
TAKE_PROFIT, STOP_LOSS, STOP_LIMIT = (
    pb.STOP_ORDER_TYPE_TAKE_PROFIT,
    pb.STOP_ORDER_TYPE_STOP_LOSS,
    pb.STOP_ORDER_TYPE_STOP_LIMIT,
)
ACTIVE, EXECUTED = pb.STOP_ORDER_STATUS_ACTIVE, pb.STOP_ORDER_STATUS_EXECUTED
CANCELED, EXPIRED = pb.STOP_ORDER_STATUS_CANCELED, pb.STOP_ORDER_STATUS_EXPIRED

# Up to 300.30, then down to 299.50, a second a step; the touch is a tick around each price.
PRICES = [30_000, 30_010, 30_020, 30_030, 30_020, 30_005, 29_990, 29_970, 29_950]


def at(step: float) -> int:
    return T0 + int(step * SECOND_NS)


def _market(prices: list[int]) -> PaperMarket:
    def books(scale: int = 1) -> Any:
        return make_books(
            [
                (k * 1000 - 100 if k else 0, [(p // scale - 1, 40)], [(p // scale + 1, 40)])
                for k, p in enumerate(prices)
            ]
        )

    trades = make_trades([(k * 1000, p, 1, 1) for k, p in enumerate(prices)])
    return PaperMarket(
        (
            InstrumentDay(SHARE, "2026-01-15", books(), trades),
            InstrumentDay(FUTURE, "2026-01-15", books(3), Trades.empty()),
        )
    )


MARKET = _market(PRICES)


def stop(client: Client, **fields: Any) -> pb.PostStopOrderRequest:
    """Stop loss of one lot held, at 299.90, unless ``fields`` say otherwise."""
    asked = {
        "account_id": client.account_id, "instrument_id": SHARE.uid, "quantity": 1, "direction": SELL,
        "stop_price": quotation(29_990 * TICK), "stop_order_type": STOP_LOSS, "order_id": str(uuid.uuid4()),
        "expiration_type": pb.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_CANCEL,
    }  # fmt: skip
    given = {key: value for key, value in (asked | fields).items() if value is not None}
    return pb.PostStopOrderRequest(**given)


async def post(client: Client, **fields: Any) -> str:
    return (await client.call(f"{STOP}/PostStopOrder", stop(client, **fields))).stop_order_id


async def listed(client: Client, status: int = pb.STOP_ORDER_STATUS_ALL) -> dict[str, pb.StopOrder]:
    request = pb.GetStopOrdersRequest(account_id=client.account_id, status=status)
    reply = await client.call(f"{STOP}/GetStopOrders", request)
    return {order.stop_order_id: order for order in reply.stop_orders}


async def balance(client: Client) -> int:
    return sum(p.balance for p in (await client.positions()).securities)


def test_a_stop_loss_works_after_its_client_died(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order()
        server.exchange.latency = Latency.of_ms(20)
        posted = await post(client)
        order = (await listed(client, pb.STOP_ORDER_STATUS_UNSPECIFIED))[posted]
        assert (order.status, order.lots_requested, order.currency) == (ACTIVE, 1, "rub")
        assert to_nano(order.stop_price) == 29_990 * TICK
        assert not order.HasField("exchange_order_id")
        await client.channel.close()  # kill -9 of the client looks just like this

        await server.play_until(at(5.9))
        assert server.exchange.account.lots("SIMP") == 1
        await server.play_until(at(7))
        heir = Client(server.endpoint)
        try:
            order = (await listed(heir))[posted]
            assert order.status == EXECUTED
            assert to_ns(order.activation_date_time) == at(6)
            state = await heir.state(order.exchange_order_id)
            assert state.execution_report_status == pb.EXECUTION_REPORT_STATUS_FILL
            assert to_nano(state.average_position_price) == 29_989 * TICK  # the bid of that moment
            assert (
                to_ns(state.stages[0].execution_time) == at(6) + 20 * MILLISECOND_NS
            )  # it travels as any order
            assert await balance(heir) == 0
            assert posted not in await listed(heir, ACTIVE)
        finally:
            await heir.channel.close()

    run(tmp_path, scenario, market=MARKET)


def test_stop_orders_outlive_connections_and_sessions(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        sold, never = await post(client), await post(client, stop_price=quotation(29_000 * TICK))
        await server.stop()
        await server.start()  # as after a restart of the broker's gateway: another port, the same exchange
        again = Client(server.endpoint)
        try:
            assert set(await listed(again, ACTIVE)) == {sold, never}
            await server.play_until(at(100))  # beyond the end of the data: the session is over
            orders = await listed(again)
            assert (orders[sold].status, orders[never].status) == (EXECUTED, ACTIVE)
        finally:
            await again.channel.close()

    run(tmp_path, scenario, market=MARKET)


@pytest.mark.parametrize(
    ("kind", "direction", "stop_ticks", "triggers_at"),
    [
        (TAKE_PROFIT, SELL, 30_020, 2),  # sells into the rise
        (STOP_LOSS, SELL, 30_005, 5),
        (TAKE_PROFIT, BUY, 29_970, 7),  # buys into the fall
        (STOP_LOSS, BUY, 30_030, 3),
    ],
)
def test_which_way_it_waits(
    tmp_path: Path, kind: int, direction: int, stop_ticks: int, triggers_at: int
) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0.5))
        posted = await post(
            client, stop_order_type=kind, direction=direction, stop_price=quotation(stop_ticks * TICK)
        )
        await server.play_until(at(triggers_at - 0.05))
        assert (await listed(client))[posted].status == ACTIVE
        await server.play_until(at(triggers_at))
        order = (await listed(client))[posted]
        assert (order.status, to_ns(order.activation_date_time)) == (EXECUTED, at(triggers_at))
        assert await balance(client) == (10 if direction == BUY else -10)

    run(tmp_path, scenario, market=MARKET)


def test_a_child_with_a_limit_rests(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        limit_child = await post(
            client, stop_order_type=STOP_LIMIT, stop_price=quotation(30_010 * TICK), direction=BUY,
            price=quotation(29_980 * TICK),
        )  # fmt: skip
        take_profit = await post(
            client, stop_order_type=TAKE_PROFIT, stop_price=quotation(30_010 * TICK),
            price=quotation(30_030 * TICK), exchange_order_type=pb.EXCHANGE_ORDER_TYPE_LIMIT,
        )  # fmt: skip
        await server.play_until(at(1.5))
        orders = await listed(client, EXECUTED)
        request = pb.GetOrdersRequest(account_id=client.account_id)
        resting = (await client.call("OrdersService/GetOrders", request)).orders
        prices = {o.order_id: to_nano(o.initial_security_price) // TICK for o in resting}
        assert prices == {
            orders[limit_child].exchange_order_id: 29_980,
            orders[take_profit].exchange_order_id: 30_030,
        }

    run(tmp_path, scenario, market=MARKET)


@pytest.mark.parametrize("relative", [False, True])
def test_a_trailing_take_profit_follows_the_price(tmp_path: Path, relative: bool) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order()
        kind = pb.TRAILING_VALUE_RELATIVE if relative else pb.TRAILING_VALUE_ABSOLUTE
        trailing = pb.PostStopOrderRequest.TrailingData(
            # 20 ticks of 30,030 are 0.0666 per cent.
            indent=quotation(66_600_000 if relative else 20 * TICK), indent_type=kind,
            spread=quotation(66_600_000 if relative else 20 * TICK), spread_type=kind,
        )  # fmt: skip
        posted = await post(
            client, stop_order_type=TAKE_PROFIT, stop_price=quotation(30_020 * TICK),
            take_profit_type=pb.TAKE_PROFIT_TYPE_TRAILING, trailing_data=trailing,
            exchange_order_type=pb.EXCHANGE_ORDER_TYPE_LIMIT,
        )  # fmt: skip
        await server.play_until(at(1))
        assert (await listed(client))[posted].trailing_data.status == pb.TRAILING_STOP_ACTIVE
        await server.play_until(at(4))
        order = (await listed(client))[posted]
        assert order.status == ACTIVE
        assert order.trailing_data.status == pb.TRAILING_STOP_ACTIVATED
        assert to_nano(order.trailing_data.extr) == 30_030 * TICK
        await server.play_until(at(5))  # 30,005 is 25 ticks below the top
        order = (await listed(client))[posted]
        turn = 30_030 - (19 if relative else 20)  # whole ticks, rounded down
        assert (order.status, to_nano(order.trailing_data.price) // TICK) == (
            EXECUTED, turn - (19 if relative else 20),
        )  # fmt: skip
        assert await balance(client) == 0

    run(tmp_path, scenario, market=MARKET)


def test_an_instrument_without_trades_is_judged_by_its_touch(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        posted = await post(
            client, instrument_id=FUTURE.figi, direction=BUY, price_type=pb.PRICE_TYPE_POINT,
            stop_price=quotation(10_011 * FUTURE.tick_nano),
        )  # fmt: skip
        in_money = await post(
            client, instrument_id=FUTURE.figi, direction=BUY, price_type=pb.PRICE_TYPE_CURRENCY,
            stop_price=quotation(10_011 * FUTURE.tick_value_nano),
        )  # fmt: skip
        await server.play_until(at(2.5))
        assert (await listed(client))[posted].status == ACTIVE
        await server.play_until(at(3))
        orders = await listed(client)
        assert orders[posted].status == orders[in_money].status == EXECUTED
        assert orders[posted].stop_price == orders[in_money].stop_price  # in money, as the broker shows it

    run(tmp_path, scenario, market=MARKET)


def test_cancelled_and_expired_ones_do_nothing(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        cancelled, expired = (
            await post(client),
            await post(
                client, expiration_type=pb.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_DATE,
                expire_date=timestamp(at(3)),
            ),
        )  # fmt: skip
        request = pb.CancelStopOrderRequest(account_id=client.account_id, stop_order_id=cancelled)
        assert to_ns((await client.call(f"{STOP}/CancelStopOrder", request)).time) == T0
        await server.play_until(at(8))
        orders = await listed(client)
        assert (orders[cancelled].status, orders[expired].status) == (CANCELED, EXPIRED)
        assert to_ns(orders[expired].expiration_time) == at(3)
        assert server.exchange.orders == []
        await refused("30060", INVALID, client.call(f"{STOP}/CancelStopOrder", request))
        request.stop_order_id = expired
        await refused("30060", INVALID, client.call(f"{STOP}/CancelStopOrder", request))
        request.stop_order_id = "unknown"
        await refused("50006", MISSING, client.call(f"{STOP}/CancelStopOrder", request))

    run(tmp_path, scenario, market=MARKET)


def test_a_child_that_is_refused_ends_the_stop_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        posted = await post(client, quantity=700)  # more than the margin rule allows
        await server.play_until(at(8))
        order = (await listed(client))[posted]
        assert order.status == CANCELED
        assert not order.HasField("exchange_order_id")
        assert server.exchange.orders == []

    run(tmp_path, scenario, market=MARKET)


def test_a_repeated_key_is_the_same_stop_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        key = str(uuid.uuid4())
        assert await post(client, order_id=key) == await post(client, order_id=key)
        assert len(await listed(client)) == 1

    run(tmp_path, scenario, market=MARKET)


_TRAILING = {"stop_order_type": TAKE_PROFIT, "take_profit_type": pb.TAKE_PROFIT_TYPE_TRAILING}
_DATA = pb.PostStopOrderRequest.TrailingData
_ONE = pb.Quotation(units=1)
BAD_STOPS = {
    "no account": ({"account_id": ""}, "30021"),
    "no key": ({"order_id": ""}, "30027"),
    "key not a uuid": ({"order_id": "hello"}, "30028"),
    "key too long": ({"order_id": "x" * 37}, "30055"),
    "no instrument": ({"instrument_id": ""}, "30093"),
    "no quantity": ({"quantity": 0}, "30015"),
    "negative quantity": ({"quantity": -1}, "30080"),
    "no direction": ({"direction": 0}, "30019"),
    "unknown direction": ({"direction": 7}, "30020"),
    "no type": ({"stop_order_type": 0}, "30037"),
    "unknown type": ({"stop_order_type": 7}, "30038"),
    "no stop price": ({"stop_price": None}, "30036"),
    "stop price off the tick": ({"stop_price": quotation(TICK // 2)}, "30078"),
    "points for a share": ({"price_type": pb.PRICE_TYPE_POINT}, "30085"),
    "unknown price type": ({"price_type": 7}, "30104"),
    "no expiration type": ({"expiration_type": 0}, "30043"),
    "unknown expiration type": ({"expiration_type": 7}, "30044"),
    "no date": ({"expiration_type": 2}, "30040"),
    "a date gone by": ({"expiration_type": 2, "expire_date": timestamp(T0)}, "30063"),
    "limit without a price": ({"stop_order_type": STOP_LIMIT}, "30017"),
    "unknown child": ({"exchange_order_type": 7}, "30105"),
    "nothing to trail by": (_TRAILING, "30210"),
    "no indent type": (_TRAILING | {"trailing_data": _DATA(indent=_ONE, spread=_ONE)}, "30211"),
    "no spread type": (
        _TRAILING | {"trailing_data": _DATA(indent=_ONE, spread=_ONE, indent_type=1)}, "30212",
    ),
    "no distance": (
        _TRAILING | {"trailing_data": _DATA(
            indent=pb.Quotation(), spread=_ONE, indent_type=1, spread_type=1
        )}, "30039",
    ),
    "more than everything": (
        _TRAILING | {"trailing_data": _DATA(
            indent=pb.Quotation(units=100), spread=_ONE, indent_type=2, spread_type=1
        )}, "30039",
    ),
    "a stop loss cannot trail": (_TRAILING | {"stop_order_type": STOP_LOSS}, "30039"),
}  # fmt: skip


def test_bad_stop_orders_are_refused_by_code_and_leave_nothing(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        for name, (fields, code) in BAD_STOPS.items():
            try:
                await refused(code, INVALID, post(client, **fields))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
        await refused("50004", MISSING, post(client, account_id="1"))
        await refused("50002", MISSING, post(client, instrument_id="NOPE"))
        await refused("30106", INVALID, listed(client, 7))
        assert await listed(client) == {}

    run(tmp_path, scenario, market=MARKET)


def test_there_is_an_end_to_stop_orders(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        for _ in range(500):
            await post(client)
        await refused("30053", INVALID, post(client))

    run(tmp_path, scenario, market=MARKET)


def test_money_of_a_sandbox_account_limits_its_stop_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        second = server.exchange.open_account("second", T0)
        server.exchange.pay_in(server.exchange.desks[second.account_id], 10_000 * NANO, T0)
        posted = await client.call(
            "SandboxService/PostSandboxStopOrder", stop(client, account_id=second.account_id)
        )
        await server.play_until(at(6))
        request = pb.GetStopOrdersRequest(account_id=second.account_id, status=EXECUTED)
        reply = await client.call("SandboxService/GetSandboxStopOrders", request)
        assert [order.stop_order_id for order in reply.stop_orders] == [posted.stop_order_id]
        assert second.lots("SIMP") == -1
        assert await listed(client) == {}

    run(tmp_path, scenario, market=MARKET)
