"""The steps of ``sdk_interop.py`` that trade, and those that must be refused."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from sdk_steps import Run, StepFailed, must, plain, step

# ---- orders ----


@step("order states: subscribe", "orders_stream.order_state_stream, trades_stream")
async def order_streams(run: Run) -> str:
    request = run.sdk.OrderStateStreamRequest()
    request.accounts, request.ping_delay_millis = [run.account_id], 5000
    run.listen(run.client.orders_stream.order_state_stream(request=request), run.states)
    run.listen(run.client.orders_stream.trades_stream(accounts=[run.account_id]), run.fills)
    answer = (await run.first(run.states, lambda m: m.subscription)).subscription
    must(answer.status.name.endswith("_OK"), f"status {answer.status.name}")
    must(list(answer.accounts) == [run.account_id], f"accounts {list(answer.accounts)}")
    return "confirmed"


async def _post(run: Run, key: str, lots: int, price: Any = None, side: str = "BUY") -> Any:
    sdk = run.sdk
    return await run.client.orders.post_order(
        instrument_id=run.share.uid, quantity=lots, account_id=run.account_id, order_id=key, price=price,
        direction=getattr(sdk.OrderDirection, f"ORDER_DIRECTION_{side}"),
        order_type=sdk.OrderType.ORDER_TYPE_MARKET if price is None else sdk.OrderType.ORDER_TYPE_LIMIT,
    )  # fmt: skip


@step("market order", "orders.post_order")
async def market_order(run: Run) -> str:
    run.bought_key = str(uuid.uuid4())
    run.bought = await _post(run, run.bought_key, 2)
    must(run.bought.order_request_id == run.bought_key, "the key did not come back")
    must(run.bought.order_id and run.bought.order_id != run.bought_key, "no exchange id")
    must(run.bought.lots_executed == 2, f"{run.bought.lots_executed} of 2 lots executed")
    return f"{run.bought.execution_report_status.name}, exchange id {run.bought.order_id}"


@step("same key again", "orders.post_order (repeat)")
async def repeat(run: Run) -> str:
    again = await _post(run, run.bought_key, 2)
    must(again.order_id == run.bought.order_id, "a second order was made")
    return "the state of the first order"


@step("order state", "orders.get_order_state (both kinds of id)")
async def order_state(run: Run) -> str:
    kinds = run.sdk.OrderIdType
    by_exchange = await run.client.orders.get_order_state(
        account_id=run.account_id, order_id=run.bought.order_id
    )
    by_key = await run.client.orders.get_order_state(
        account_id=run.account_id, order_id=run.bought_key, order_id_type=kinds.ORDER_ID_TYPE_REQUEST
    )
    must(by_key.order_id == by_exchange.order_id == run.bought.order_id, "two different orders")
    must(sum(stage.quantity for stage in by_key.stages) == 2, "the stages do not add up to the lots")
    return f"{len(by_key.stages)} fills, commission {plain(by_key.executed_commission)}"


@step("order states: events", "orders_stream.order_state_stream, trades_stream")
async def order_events(run: Run) -> str:
    mine = lambda m: m.order_state and m.order_state.order_request_id == run.bought_key  # noqa: E731
    done = await run.first(run.states, lambda m: mine(m) and m.order_state.lots_executed == 2)
    ids = list(dict.fromkeys(m.order_state.order_id for m in run.states if mine(m)))
    must(ids[-1] == run.bought.order_id, f"exchange id {run.bought.order_id} is not the last of {ids}")
    units = sum(trade.quantity for trade in done.order_state.trades)
    must(units == 2 * run.share.lot, f"{units} units in trades, {2 * run.share.lot} bought")
    fill = await run.first(run.fills, lambda m: m.order_trades)
    must(fill.order_trades.order_id == run.bought.order_id, "trades_stream tells of another order")
    return f"{len([m for m in run.states if mine(m)])} events, ids {len(ids)}"


@step("limit order", "orders.post_order, get_orders")
async def limit_order(run: Run) -> str:
    run.resting_key = str(uuid.uuid4())
    run.resting = await _post(run, run.resting_key, 1, run.price(-200))
    must(run.resting.lots_executed == 0, "it was executed far from the market")
    listed = (await run.client.orders.get_orders(account_id=run.account_id)).orders
    must([o.order_request_id for o in listed] == [run.resting_key], f"{len(listed)} orders are listed")
    return f"{listed[0].execution_report_status.name} at {plain(listed[0].initial_security_price)}"


@step("cancel", "orders.cancel_order")
async def cancel(run: Run) -> str:
    await run.client.orders.cancel_order(account_id=run.account_id, order_id=run.resting.order_id)
    left = (await run.client.orders.get_orders(account_id=run.account_id)).orders
    must(not left, f"{len(left)} orders are left")
    gone = await run.first(
        run.states,
        lambda m: (
            m.order_state
            and m.order_state.order_request_id == run.resting_key
            and m.order_state.execution_report_status.name.endswith("_CANCELLED")
        ),
    )
    return f"told as {gone.order_state.status_info.name if gone.order_state.status_info else 'no cause'}"


@step("replace", "orders.replace_order", needed=False)
async def replace(run: Run) -> str:
    sdk, old, new = run.sdk, str(uuid.uuid4()), str(uuid.uuid4())
    first = await _post(run, old, 1, run.price(-200))
    request = sdk.ReplaceOrderRequest()
    request.account_id, request.order_id, request.idempotency_key = run.account_id, first.order_id, new
    # Not a dataclass in 0.2.0b116: what is not set here would be sent as its field's description.
    request.quantity, request.price, request.price_type = 1, run.price(-210), None
    request.confirm_margin_trade = False
    try:
        second = await run.client.orders.replace_order(request)
        must(second.order_request_id == new and second.order_id != first.order_id, "not a new order")
    finally:
        await run.client.cancel_all_orders(run.account_id)
    return f"{first.order_id} -> {second.order_id}"


@step("asynchronous order", "orders.post_order_async", needed=False)
async def post_async(run: Run) -> str:
    sdk, key = run.sdk, str(uuid.uuid4())
    request = sdk.PostOrderAsyncRequest(
        instrument_id=run.share.uid, quantity=2, account_id=run.account_id, order_id=key, price=None,
        direction=sdk.OrderDirection.ORDER_DIRECTION_SELL, order_type=sdk.OrderType.ORDER_TYPE_MARKET,
        time_in_force=sdk.TimeInForceType(0), price_type=sdk.PriceType(0), confirm_margin_trade=False,
    )  # fmt: skip
    reply = await run.client.orders.post_order_async(request)
    must(reply.order_request_id == key, "the key did not come back")
    await run.first(
        run.states, lambda m: m.order_state and m.order_state.order_request_id == key and m.order_state.trades
    )
    return "executed, told by the stream"


@step("limits of an order", "orders.get_max_lots, get_order_price", needed=False)
async def order_limits(run: Run) -> str:
    sdk = run.sdk
    ask = sdk.GetMaxLotsRequest(account_id=run.account_id, instrument_id=run.share.uid, price=None)
    lots = await run.client.orders.get_max_lots(ask)
    price = sdk.GetOrderPriceRequest()
    price.account_id, price.instrument_id, price.quantity = run.account_id, run.share.uid, 1
    price.direction, price.price = sdk.OrderDirection.ORDER_DIRECTION_BUY, run.price(0)
    cost = await run.client.orders.get_order_price(price)
    return f"{lots.buy_limits.buy_max_lots} lots; 1 lot costs {cost.total_order_amount.units} RUB"


# ---- what the account holds ----


@step("positions", "operations.get_positions")
async def positions(run: Run) -> str:
    before = {s.instrument_uid: s.balance for s in await _securities(run)}
    await _post(run, str(uuid.uuid4()), 1)
    after = {s.instrument_uid: s.balance for s in await _securities(run)}
    bought = after.get(run.share.uid, 0) - before.get(run.share.uid, 0)
    must(bought == run.share.lot, f"{bought} units more after buying one lot of {run.share.lot}")
    return f"{after[run.share.uid]} units of {run.share.ticker}"


async def _securities(run: Run) -> list[Any]:
    return (await run.client.operations.get_positions(account_id=run.account_id)).securities


@step("portfolio", "operations.get_portfolio, get_withdraw_limits", needed=False)
async def portfolio(run: Run) -> str:
    held = await run.client.operations.get_portfolio(account_id=run.account_id)
    await run.client.operations.get_withdraw_limits(account_id=run.account_id)
    return f"{len(held.positions)} positions, {held.total_amount_portfolio.units} RUB"


@step("operations", "operations.get_operations, get_operations_by_cursor", needed=False)
async def operations(run: Run) -> str:
    now = run.market_now or datetime.now(timezone.utc)  # noqa: UP017
    listed = await run.client.operations.get_operations(
        account_id=run.account_id, from_=now - timedelta(hours=1), to=now + timedelta(hours=12)
    )
    request = run.sdk.GetOperationsByCursorRequest(
        account_id=run.account_id, instrument_id=None, from_=None, to=None, cursor=None, limit=100,
        operation_types=[], state=None, without_commissions=None, without_trades=None,
        without_overnights=None,
    )  # fmt: skip
    paged = await run.client.operations.get_operations_by_cursor(request)
    must(listed.operations and paged.items, "no operation after trading")
    return f"{len(listed.operations)} and {len(paged.items)}"


@step("positions stream", "operations_stream.positions_stream, portfolio_stream", needed=False)
async def account_streams(run: Run) -> str:
    async for message in run.client.operations_stream.positions_stream(accounts=[run.account_id]):
        if message.subscriptions:
            break
    async for message in run.client.operations_stream.portfolio_stream(accounts=[run.account_id]):
        if message.subscriptions:
            return "both confirmed"
    raise StepFailed("a stream ended without a confirmation")


@step("stop orders", "stop_orders.post_stop_order, get_stop_orders, cancel_stop_order", needed=False)
async def stop_orders(run: Run) -> str:
    sdk = run.sdk
    reply = await run.client.stop_orders.post_stop_order(
        instrument_id=run.share.uid, quantity=1, account_id=run.account_id, order_id=str(uuid.uuid4()),
        stop_price=run.price(-300), direction=sdk.StopOrderDirection.STOP_ORDER_DIRECTION_SELL,
        expiration_type=sdk.StopOrderExpirationType.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_CANCEL,
        stop_order_type=sdk.StopOrderType.STOP_ORDER_TYPE_STOP_LOSS,
    )  # fmt: skip
    listed = (await run.client.stop_orders.get_stop_orders(account_id=run.account_id)).stop_orders
    must([s.stop_order_id for s in listed] == [reply.stop_order_id], f"{len(listed)} are listed")
    await run.client.stop_orders.cancel_stop_order(
        account_id=run.account_id, stop_order_id=reply.stop_order_id
    )
    left = (await run.client.stop_orders.get_stop_orders(account_id=run.account_id)).stop_orders
    must(not left, f"{len(left)} are left after the cancel")
    return "placed, listed, cancelled"


@step("sandbox names", "sandbox.get_sandbox_accounts, _positions, post_sandbox_order", needed=False)
async def sandbox(run: Run) -> str:
    sdk, box = run.sdk, run.client.sandbox
    ids = [a.id for a in (await box.get_sandbox_accounts()).accounts]
    must(run.account_id in ids, f"accounts {ids}")
    await box.get_sandbox_positions(account_id=run.account_id)
    reply = await box.post_sandbox_order(
        instrument_id=run.share.uid, quantity=1, account_id=run.account_id, order_id=str(uuid.uuid4()),
        direction=sdk.OrderDirection.ORDER_DIRECTION_SELL, order_type=sdk.OrderType.ORDER_TYPE_MARKET,
    )  # fmt: skip
    must(reply.lots_executed == 1, f"{reply.lots_executed} lots executed")
    return f"{reply.execution_report_status.name}"


# ---- refusals ----


@step("coded errors", "50002 instrument, 30078 tick, 50005 order, 50004 account")
async def coded_errors(run: Run) -> str:
    sdk, orders = run.sdk, run.client.orders
    by = sdk.InstrumentIdType.INSTRUMENT_ID_TYPE_UID
    await run.refused(run.client.instruments.share_by(id_type=by, id=str(uuid.uuid4())), "50002")
    off = run.price(0)
    await run.refused(
        _post(run, str(uuid.uuid4()), 1, sdk.Quotation(units=off.units, nano=off.nano + 1)), "30078"
    )
    await run.refused(orders.get_orders(account_id="77"), "50004")
    return await run.refused(
        orders.get_order_state(account_id=run.account_id, order_id=str(uuid.uuid4())), "50005"
    )


@step("wrong token", "users.get_accounts")
async def wrong_token(run: Run) -> str:
    async with run.package.AsyncClient("wrong", target=run.endpoint["target"]) as stranger:
        try:
            await stranger.users.get_accounts()
        except run.errors.AioUnauthenticatedError as error:
            must(error.details == "40003", f"details {error.details!r}")
            return "UNAUTHENTICATED 40003"
    raise StepFailed("it was let in")


@step("synchronous client", "Client(...).users.get_accounts")
async def synchronous(run: Run) -> str:
    def ask() -> int:
        with run.package.Client(run.endpoint["token"], target=run.endpoint["target"]) as client:
            return len(client.users.get_accounts().accounts)

    return f"{await asyncio.to_thread(ask)} accounts"
