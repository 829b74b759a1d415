"""The account's money: every figure of it agrees with every other, to the nano-rouble."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_market import FUTURE, INVALID, SHARE, T0, Client, limit, make_books, make_trades, refused, run

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, timestamp, to_nano
from market.matching import Execution
from market.paper import PaperServer, messages_account
from market.paper.account import Account
from market.paper.exchange import Exchange
from market.paper.operations import OperationKind
from market.paper.orders import OrderRequest
from market.paper.refusals import Refusal
from market.types import BUY, NANO, SECOND_NS, SELL

# ---------------------------------------------------------------- any orders on any market

STEPS = 60
START_NANO = 1_000_000 * NANO


def _random_market(seed: int) -> Exchange:
    rng = np.random.default_rng(seed)
    tables = []
    for instrument, first in ((SHARE, 30_000), (FUTURE, 10_000)):
        mids = first + rng.integers(-4, 5, STEPS).cumsum()
        books = make_books(
            [
                (k * 100, [(int(m) - 1 - j, int(rng.integers(1, 9))) for j in range(3)],
                 [(int(m) + 1 + j, int(rng.integers(1, 9))) for j in range(3)])
                for k, m in enumerate(mids)
            ]
        )  # fmt: skip
        trades = make_trades([(k * 100 + 50, int(m), int(rng.integers(1, 6)), 1) for k, m in enumerate(mids)])
        tables.append((instrument, books, trades))
    return Exchange(tables, "trader", Account("1", START_NANO))


class _Time:
    """Market time for an exchange without a server: actions run when it passes them."""

    def __init__(self, exchange: Exchange) -> None:
        self.now_ns = T0
        self._actions: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        exchange.schedule = self.schedule

    def schedule(self, due_ns: int, action: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._actions, (due_ns, self._count, action))

    def advance(self, to_ns: int) -> None:
        while self._actions and self._actions[0][0] <= to_ns:
            due_ns, _, action = heapq.heappop(self._actions)
            self.now_ns = max(self.now_ns, due_ns)
            action(self.now_ns)
        self.now_ns = to_ns


ORDERS = st.tuples(
    st.just("order"), st.integers(0, 1), st.sampled_from([BUY, SELL]), st.integers(1, 40),
    st.sampled_from(["market", "limit", "bestprice"]), st.integers(-6, 6),
    st.sampled_from(["day", "fak", "fok"]),
)  # fmt: skip
ACTIONS = st.one_of(ORDERS, st.tuples(st.just("cancel"), st.integers(0, 30)), st.just(("step",)))


def _nano(values: Any) -> int:
    return sum(to_nano(value) for value in values)


def _check(exchange: Exchange, now_ns: int) -> None:
    desk, account = exchange.desks["1"], exchange.account
    executions = [e for o in exchange.orders for e in o.executions]
    # Operations are the cash; fees are what the executions say.
    assert sum(o.payment_nano for o in account.operations) == account.cash_nano
    fees = [o for o in account.operations if o.kind is OperationKind.FEE]
    assert -sum(o.payment_nano for o in fees) == account.fees_nano == sum(e.fee_nano for e in executions)
    deals = {o.number: o for o in account.operations if o.kind in (OperationKind.BUY, OperationKind.SELL)}
    assert [o.trade_id for o in deals.values()] == [e.trade_id for e in _as_booked(exchange)]
    assert all(fee.parent in deals for fee in fees)
    # What the account is worth is what was paid in, plus what every deal has won by now, less fees.
    marks = desk.marks()
    gained = 0
    for order in exchange.orders:
        i = order.instrument
        for e in order.executions:
            gained += i.notional_nano(marks[i.ticker] - e.price_ticks, e.side * e.lots)
    assert account.equity_nano(marks) == START_NANO + gained - account.fees_nano
    # Lots are what was bought less what was sold; both averages belong to them.
    for ticker, holding in account.holdings.items():
        lots = sum(
            e.side * e.lots for o in exchange.orders if o.instrument.ticker == ticker for e in o.executions
        )
        assert holding.lots == lots == sum(part for _, part in holding.parts)
        if not lots:
            assert holding.cost_nano == holding.fifo_cost_nano() == 0
    # What is counted along is what the working orders say.
    for listing in exchange.listings:
        for side in (BUY, SELL):
            working = [o for o in desk.active.values() if o.listing is listing and o.side == side]
            assert desk.working_lots(listing, side) == sum(o.lots_left for o in working)
    buys = [o for o in desk.active.values() if o.side == BUY and o.instrument.kind == "share"]
    blocked = sum(desk.cost_nano(o.listing, o.initial_ticks, o.lots_left) for o in buys)
    assert desk.blocked_cash_nano() == blocked
    _check_messages(exchange)


def _as_booked(exchange: Exchange) -> list[Execution]:
    """Executions in the order of the account's deals."""
    booked = {e.trade_id: e for o in exchange.orders for e in o.executions}
    return [booked[o.trade_id] for o in exchange.account.operations if o.trade_id]


def _check_messages(exchange: Exchange) -> None:
    desk, account = exchange.desks["1"], exchange.account
    positions = messages_account.positions(desk, exchange)
    limits = messages_account.withdraw_limits(desk)
    portfolio = messages_account.portfolio(desk, exchange)
    margin = messages_account.margin_attributes(desk)
    assert _nano(positions.money) + _nano(positions.blocked) == account.cash_nano
    assert (list(limits.money), list(limits.blocked)) == (list(positions.money), list(positions.blocked))
    assert to_nano(portfolio.total_amount_currencies) == account.cash_nano
    variation = _nano(p.var_margin for p in portfolio.positions if p.instrument_type == "futures")
    total = to_nano(portfolio.total_amount_portfolio)
    assert total == account.cash_nano + to_nano(portfolio.total_amount_shares) + variation
    assert to_nano(margin.liquid_portfolio) == total
    assert to_nano(portfolio.daily_yield) == total - START_NANO
    assert to_nano(margin.corrected_margin) >= to_nano(margin.starting_margin)
    held = {p.instrument_uid: p.balance + p.blocked for p in (*positions.securities, *positions.futures)}
    shown = {
        p.instrument_uid: p.quantity.units for p in portfolio.positions if p.instrument_type != "currency"
    }
    assert held == shown
    operations = [messages_account.operation(o, account) for o in account.operations]
    assert _nano(o.payment for o in operations) == account.cash_nano


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.lists(ACTIONS, min_size=5, max_size=60))
def test_after_any_orders_every_figure_agrees(seed: int, actions: list[tuple[Any, ...]]) -> None:
    exchange = _random_market(seed)
    time = _Time(exchange)
    step = 0
    for index in range(2):
        exchange.on_book(index, 0, T0)
    for number, action in enumerate(actions):
        if action[0] == "step" and step + 1 < STEPS:
            step += 1
            time.advance(T0 + step * SECOND_NS)
            for index in range(2):
                exchange.on_book(index, step, time.now_ns)
                exchange.on_trade(index, step, time.now_ns)
        elif action[0] == "cancel":
            orders = exchange.orders
            if orders:
                try:
                    exchange.cancel(orders[action[1] % len(orders)], time.now_ns)
                except Refusal as refusal:
                    assert refusal.code == "30059"
        elif action[0] == "order":
            _, index, side, lots, kind, offset, tif = action
            listing = exchange.listings[index]
            mark = listing.mark_ticks()
            assert mark is not None
            price = mark + offset if kind == "limit" else None
            asked = OrderRequest(
                "1", str(number), listing, side, lots, kind, price, tif if kind == "limit" else "fak"
            )
            try:
                exchange.send(exchange.accept(asked, time.now_ns), time.now_ns)
            except Refusal as refusal:
                assert refusal.code in ("30042", "30099")
            time.advance(time.now_ns)
        _check(exchange, time.now_ns)
    exchange.close(time.now_ns)
    _check(exchange, time.now_ns)
    assert exchange.desks["1"].active == {}
    assert exchange.desks["1"].blocked_cash_nano() == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(-9, 9).filter(bool)), min_size=1, max_size=40))
def test_a_holding_loses_nothing_whatever_is_traded(deals: list[tuple[int, int]]) -> None:
    """What closing won, plus what is still held, is what all deals together won; by both averages."""
    account = Account("1", 0)
    for k, (price, lots) in enumerate(deals):
        side = BUY if lots > 0 else SELL
        account.apply(FUTURE, Execution("o", str(k), side, price, abs(lots), 0, k, maker=False))
    mark = 25
    won = sum(FUTURE.notional_nano(mark - price, lots) for price, lots in deals)
    assert account.cash_nano + account.variation_nano("SIMF", mark) == won
    holding = account.holdings["SIMF"]
    assert sum(lots for _, lots in holding.parts) == holding.lots
    if holding.lots:
        prices = {price for price, _ in deals}
        low, high = (FUTURE.notional_nano(p, abs(holding.lots)) for p in (min(prices), max(prices)))
        assert low <= abs(holding.cost_nano) <= high
        assert low <= abs(holding.fifo_cost_nano()) <= high


# ---------------------------------------------------------------- over the wire


async def _by_cursor(client: Client, **fields: Any) -> pb.GetOperationsByCursorResponse:
    request = pb.GetOperationsByCursorRequest(account_id=client.account_id, **fields)
    return await client.call("OperationsService/GetOperationsByCursor", request)


def test_a_deal_and_its_commission_are_two_operations(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order(quantity=4)  # two prices, two deals
        request = pb.OperationsRequest(account_id=client.account_id)
        operations = (await client.call("OperationsService/GetOperations", request)).operations
        assert [o.operation_type for o in operations] == [
            pb.OPERATION_TYPE_BROKER_FEE, pb.OPERATION_TYPE_BUY,
            pb.OPERATION_TYPE_BROKER_FEE, pb.OPERATION_TYPE_BUY,
            pb.OPERATION_TYPE_INPUT,
        ]  # fmt: skip
        fee, deal = operations[2], operations[3]
        assert fee.parent_operation_id == deal.id
        assert (deal.quantity, deal.trades[0].quantity) == (30, 30)  # UNITS
        assert to_nano(deal.price) == 300_020_000_000
        assert to_nano(deal.payment) == -3 * 30_002 * SHARE.tick_value_nano
        assert deal.payment.units < 0
        assert deal.payment.nano <= 0
        assert deal.currency == "rub"
        cash = to_nano((await client.positions()).money[0])
        assert sum(to_nano(o.payment) for o in operations) == cash

    run(tmp_path, scenario)


def test_operations_of_a_future_are_its_variation_margin(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order(instrument_id=FUTURE.uid, quantity=2)
        limits = await client.call(
            "OperationsService/GetWithdrawLimits", pb.WithdrawLimitsRequest(account_id=client.account_id)
        )
        assert to_nano(limits.blocked_guarantee[0]) == 10_000 * 15 * NANO  # half of two contracts
        request = pb.GetMarginAttributesRequest(account_id=client.account_id)
        margin = await client.call("UsersService/GetMarginAttributes", request)
        assert to_nano(margin.starting_margin) == 10_000 * 15 * NANO
        assert to_nano(margin.minimal_margin) == 5_000 * 15 * NANO
        liquid, minimal = to_nano(margin.liquid_portfolio), to_nano(margin.minimal_margin)
        level = (liquid - minimal) * 100 // minimal
        assert to_nano(margin.funds_sufficiency_level) == level * NANO // 100
        await server.play_until(T0 + 4 * SECOND_NS)
        await client.order(instrument_id=FUTURE.uid, quantity=2, direction=pb.ORDER_DIRECTION_SELL)
        reply = await _by_cursor(client, without_commissions=True)
        assert [o.type for o in reply.items] == [
            pb.OPERATION_TYPE_ACCRUING_VARMARGIN, pb.OPERATION_TYPE_SELL, pb.OPERATION_TYPE_BUY,
            pb.OPERATION_TYPE_INPUT,
        ]  # fmt: skip
        assert to_nano(reply.items[0].payment) == 2 * 2 * 15 * NANO  # sold two ticks higher
        assert to_nano(reply.items[1].payment) == 0
        assert to_nano(getattr(reply.items[1], "yield")) == 2 * 2 * 15 * NANO
        assert to_nano(reply.items[1].commission) < 0

    run(tmp_path, scenario)


def test_pages_are_whole_and_never_repeat(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        for _ in range(3):
            await client.order()
        whole = await _by_cursor(client)
        assert (len(whole.items), whole.has_next, whole.next_cursor) == (7, False, "")
        pages, cursor = [], ""
        while True:
            page = await _by_cursor(client, limit=3, cursor=cursor)
            pages.append(page)
            if cursor == "":
                await client.order()  # what comes meanwhile is newer than every page
            if not page.has_next:
                break
            cursor = page.next_cursor
        assert [len(page.items) for page in pages] == [3, 3, 1]
        assert [item for page in pages for item in page.items] == list(whole.items)

        buys = await _by_cursor(client, operation_types=[pb.OPERATION_TYPE_BUY], without_trades=True)
        assert len(buys.items) == 4
        assert not buys.items[0].trades_info.trades
        assert len((await _by_cursor(client, instrument_id=SHARE.figi)).items) == 8
        assert not (await _by_cursor(client, instrument_id=FUTURE.uid)).items
        assert not (await _by_cursor(client, state=pb.OPERATION_STATE_CANCELED)).items
        assert len((await _by_cursor(client, to=timestamp(T0 + 1))).items) == 9
        assert not (await _by_cursor(client, to=timestamp(T0))).items
        await refused("30069", INVALID, _by_cursor(client, limit=1001))
        await refused("30107", INVALID, _by_cursor(client, limit=-1))
        await refused("30102", INVALID, _by_cursor(client, cursor="x"))
        in_dollars = pb.PortfolioRequest(account_id=client.account_id, currency=pb.PortfolioRequest.USD)
        await refused("30047", INVALID, client.call("OperationsService/GetPortfolio", in_dollars))

    run(tmp_path, scenario)


def test_the_positions_stream_begins_with_everything_and_says_what_changes(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        await client.order(quantity=3)
        request = pb.PositionsStreamRequest(accounts=[client.account_id], with_initial_positions=True)
        stream = client.stream("OperationsStreamService/PositionsStream", request)
        answer = (await stream.read()).subscriptions
        assert [(a.account_id, a.subscription_status) for a in answer.accounts] == [
            (client.account_id, pb.POSITIONS_SUBSCRIPTION_STATUS_SUCCESS)
        ]
        assert (await stream.read()).initial_positions == await client.positions()
        await client.order(**limit(310 * NANO, direction=pb.ORDER_DIRECTION_SELL, quantity=2))
        changed = (await stream.read()).position
        assert [(p.balance, p.blocked) for p in changed.securities] == [(10, 20)]
        await client.order(quantity=1)
        seen = [(await stream.read()).position for _ in range(2)]  # blocked on its way, then bought
        assert to_nano(seen[0].money[0].blocked_value) > 0
        assert [(p.balance, p.blocked) for p in seen[1].securities] == [(20, 20)]
        now = await client.positions()
        assert seen[1].money[0].available_value == now.money[0]
        assert seen[1].money[0].blocked_value == now.blocked[0]

    run(tmp_path, scenario)


def test_the_portfolio_stream_follows_deals_and_prices(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        request = pb.PortfolioStreamRequest(accounts=[client.account_id, "1"])
        stream = client.stream("OperationsStreamService/PortfolioStream", request)
        statuses = {a.account_id: a.subscription_status for a in (await stream.read()).subscriptions.accounts}
        assert statuses == {
            client.account_id: pb.PORTFOLIO_SUBSCRIPTION_STATUS_SUCCESS,
            "1": pb.PORTFOLIO_SUBSCRIPTION_STATUS_ACCOUNT_NOT_FOUND,
        }
        first = (await stream.read()).portfolio
        assert to_nano(first.total_amount_portfolio) == START_NANO
        await client.order(quantity=2)
        bought = (await stream.read()).portfolio
        assert bought == await client.call(
            "OperationsService/GetPortfolio", pb.PortfolioRequest(account_id=client.account_id)
        )
        share, roubles = bought.positions
        assert (share.quantity, share.quantity_lots) == (quotation(20 * NANO), quotation(2 * NANO))
        assert to_nano(share.average_position_price) == 300_020_000_000
        assert to_nano(share.expected_yield) == -20 * 10_000_000  # marked at the middle, bought at the ask
        assert (roubles.instrument_type, to_nano(roubles.quantity)) == (
            "currency", to_nano(bought.total_amount_currencies),
        )  # fmt: skip
        await server.play_until(T0 + 9 * SECOND_NS)  # the price falls, nobody deals
        later = (await stream.read()).portfolio
        assert to_nano(later.total_amount_shares) == 20 * 299_900_000_000

    run(tmp_path, scenario)
