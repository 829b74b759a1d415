"""Money, positions, portfolio and operations as the contract's messages, in the API's units."""

from __future__ import annotations

from typing import Any

from market.contract import invest_pb2 as pb
from market.contract.convert import money, quotation, timestamp, unit_money_nano
from market.paper.account import Account, Holding
from market.paper.desk import Desk
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.messages_market import kind_of
from market.paper.operations import Operation, OperationKind
from market.types import NANO

ROUBLE_FIGI = "RUB000UTSTOM"
ROUBLE_UID = "a92e2e25-a698-45cc-a781-167cf465257c"
"""How the broker calls the position "roubles" in a portfolio."""

TYPES: dict[OperationKind, pb.OperationType] = {
    OperationKind.PAID_IN: pb.OPERATION_TYPE_INPUT,
    OperationKind.BUY: pb.OPERATION_TYPE_BUY,
    OperationKind.SELL: pb.OPERATION_TYPE_SELL,
    OperationKind.FEE: pb.OPERATION_TYPE_BROKER_FEE,
    OperationKind.VARIATION_GAIN: pb.OPERATION_TYPE_ACCRUING_VARMARGIN,
    OperationKind.VARIATION_LOSS: pb.OPERATION_TYPE_WRITING_OFF_VARMARGIN,
}
_TEXTS = {
    OperationKind.PAID_IN: "Пополнение брокерского счёта",
    OperationKind.BUY: "Покупка",
    OperationKind.SELL: "Продажа",
    OperationKind.FEE: "Удержание комиссии за операцию",
    OperationKind.VARIATION_GAIN: "Зачисление вариационной маржи",
    OperationKind.VARIATION_LOSS: "Списание вариационной маржи",
}

# ---------------------------------------------------------------- positions


def positions(desk: Desk, exchange: Exchange) -> pb.PositionsResponse:
    """Free and blocked cash in roubles; balances in UNITS, where balance + blocked is the whole position."""
    reply = pb.PositionsResponse(
        money=[money(desk.free_cash_nano())],
        blocked=[money(desk.blocked_cash_nano())],
        account_id=desk.account.account_id,
    )
    for listing in exchange.listings:
        if desk.account.lots(listing.instrument.ticker):
            add_position(reply, desk, listing)
    return reply


def position_change(desk: Desk, listing: Listing | None, now_ns: int) -> pb.PositionData:
    """What PositionsStream says after a change: new absolute balances, of the instrument it was about."""
    data = pb.PositionData(
        account_id=desk.account.account_id,
        money=[
            pb.PositionsMoney(
                available_value=money(desk.free_cash_nano()), blocked_value=money(desk.blocked_cash_nano())
            )
        ],
        date=timestamp(now_ns),
    )
    if listing is not None and listing.instrument.ticker in desk.account.holdings:
        add_position(data, desk, listing)
    return data


def add_position(reply: pb.PositionsResponse | pb.PositionData, desk: Desk, listing: Listing) -> None:
    """One instrument in UNITS, also when nothing is left of it."""
    i = listing.instrument
    held, blocked = desk.account.lots(i.ticker) * i.lot, desk.blocked_lots(listing) * i.lot
    row: dict[str, Any] = {
        "figi": i.figi, "blocked": blocked, "balance": held - blocked, "position_uid": i.uid,
        "instrument_uid": i.uid, "ticker": i.ticker, "class_code": i.class_code,
    }  # fmt: skip
    if i.kind == "share":
        reply.securities.append(pb.PositionsSecurities(instrument_type="share", **row))
    else:
        reply.futures.append(pb.PositionsFutures(**row))


def withdraw_limits(desk: Desk) -> pb.WithdrawLimitsResponse:
    """Free and blocked cash as GetPositions has them, and what is held back for futures."""
    return pb.WithdrawLimitsResponse(
        money=[money(desk.free_cash_nano())],
        blocked=[money(desk.blocked_cash_nano())],
        blocked_guarantee=[money(desk.guarantee_nano())],
    )


def margin_attributes(desk: Desk) -> pb.GetMarginAttributesResponse:
    """The level is (portfolio - minimal) / (starting - minimal) in hundredths, 100 without positions."""
    liquid, starting = desk.equity_nano(), desk.starting_margin_nano()
    minimal = -(-starting // 2)
    level = (liquid - minimal) * 100 // (starting - minimal) if starting > minimal else 100 * 100
    return pb.GetMarginAttributesResponse(
        liquid_portfolio=money(liquid), starting_margin=money(starting), minimal_margin=money(minimal),
        funds_sufficiency_level=quotation(level * (NANO // 100)),
        amount_of_missing_funds=money(starting - liquid),
        corrected_margin=money(desk.corrected_margin_nano()),
    )  # fmt: skip


# ---------------------------------------------------------------- portfolio


def portfolio(desk: Desk, exchange: Exchange) -> pb.PortfolioResponse:
    """Totals in roubles at the current marks. The whole portfolio is cash, shares and the futures' unpaid
    variation margin; ``total_amount_futures`` is the value of the contracts and no part of that sum.
    """
    account, marks = desk.account, desk.marks()
    totals = {"share": 0, "future": 0}
    reply = pb.PortfolioResponse(account_id=account.account_id)
    expected = 0
    for listing in exchange.listings:
        i = listing.instrument
        holding, mark = account.holdings.get(i.ticker), marks.get(i.ticker)
        if holding is None or not holding.lots or mark is None:
            continue
        totals[i.kind] += i.notional_nano(mark, holding.lots)
        expected += i.notional_nano(mark, holding.lots) - holding.cost_nano
        reply.positions.append(_position(desk, listing, holding, mark))
    reply.positions.append(_roubles(account))
    equity = account.equity_nano(marks)
    for field, nano in (
        ("total_amount_shares", totals["share"]),
        ("total_amount_bonds", 0),
        ("total_amount_etf", 0),
        ("total_amount_futures", totals["future"]),
        ("total_amount_options", 0),
        ("total_amount_sp", 0),
        ("total_amount_currencies", account.cash_nano),
        ("total_amount_portfolio", equity),
    ):
        getattr(reply, field).CopyFrom(money(nano))
    paid_in = sum(o.payment_nano for o in account.operations if o.kind is OperationKind.PAID_IN)
    gained = equity - paid_in
    reply.daily_yield.CopyFrom(money(gained))
    reply.daily_yield_relative.CopyFrom(_percent(gained, paid_in))
    reply.expected_yield.CopyFrom(_percent(expected, equity - expected))
    return reply


def _position(desk: Desk, listing: Listing, holding: Holding, mark: int) -> pb.PortfolioPosition:
    """Quantity in UNITS, money of one unit."""
    i = listing.instrument
    units = holding.lots * i.lot
    value = i.notional_nano(mark, holding.lots)
    fifo = holding.fifo_cost_nano()
    message = pb.PortfolioPosition(
        figi=i.figi, instrument_type=kind_of(i)[0], quantity=pb.Quotation(units=units),
        average_position_price=money(holding.cost_nano // units), current_nkd=money(0),
        average_position_price_fifo=money(fifo // units),
        expected_yield=quotation(value - holding.cost_nano), expected_yield_fifo=quotation(value - fifo),
        current_price=money(unit_money_nano(i, mark)), quantity_lots=pb.Quotation(units=holding.lots),
        blocked_lots=pb.Quotation(units=desk.blocked_lots(listing) * i.lot), position_uid=i.uid,
        instrument_uid=i.uid, ticker=i.ticker, class_code=i.class_code,
        daily_yield=money(value - holding.cost_nano),
    )  # fmt: skip
    if i.kind == "future":
        message.var_margin.CopyFrom(money(desk.account.variation_nano(i.ticker, mark)))
        # Points of one unit: an average of ticks, rounded down to the nano.
        message.average_position_price_pt.CopyFrom(
            quotation(holding.cost_nano * i.tick_nano // (i.tick_value_nano * holding.lots))
        )
    return message


def _roubles(account: Account) -> pb.PortfolioPosition:
    return pb.PortfolioPosition(
        figi=ROUBLE_FIGI, instrument_type="currency", quantity=quotation(account.cash_nano),
        average_position_price=money(NANO), current_price=money(NANO), expected_yield=quotation(0),
        quantity_lots=quotation(account.cash_nano), blocked_lots=quotation(0), position_uid=ROUBLE_UID,
        instrument_uid=ROUBLE_UID, ticker=ROUBLE_FIGI, class_code="CETS",
    )  # fmt: skip


def _percent(part_nano: int, whole_nano: int) -> pb.Quotation:
    return quotation(part_nano * 100 * NANO // whole_nano if whole_nano > 0 else 0)


# ---------------------------------------------------------------- operations


def cursor(entry: Operation) -> str:
    return str(entry.number)


def operation(entry: Operation, account: Account) -> pb.Operation:
    """Quantity in UNITS, price of one unit in money; ``payment`` is what the cash gained."""
    message = pb.Operation(
        id=_id(account, entry.number), parent_operation_id=_id(account, entry.parent), currency="rub",
        payment=money(entry.payment_nano), state=pb.OPERATION_STATE_EXECUTED, date=timestamp(entry.now_ns),
        type=_TEXTS[entry.kind], operation_type=TYPES[entry.kind],
    )  # fmt: skip
    i = entry.instrument
    if i is not None:
        message.figi, message.instrument_type = i.figi, kind_of(i)[0]
        message.instrument_uid = message.position_uid = message.asset_uid = i.uid
    if i is not None and entry.lots:
        message.quantity = entry.lots * i.lot
        message.price.CopyFrom(money(unit_money_nano(i, entry.price_ticks)))
        message.trades.add(
            trade_id=entry.trade_id, date_time=message.date, quantity=message.quantity, price=message.price
        )
    return message


def operation_item(entry: Operation, account: Account, *, trades: bool) -> pb.OperationItem:
    """The same for GetOperationsByCursor; a deal names its commission, which is an operation of its own."""
    plain = operation(entry, account)
    message = pb.OperationItem(
        cursor=cursor(entry), broker_account_id=account.account_id, id=plain.id,
        parent_operation_id=plain.parent_operation_id, name=plain.type, date=plain.date,
        type=plain.operation_type, description=plain.type, state=plain.state, payment=plain.payment,
        instrument_uid=plain.instrument_uid, figi=plain.figi, instrument_type=plain.instrument_type,
        position_uid=plain.position_uid, asset_uid=plain.asset_uid, quantity=plain.quantity,
        quantity_done=plain.quantity,
    )  # fmt: skip
    if entry.instrument is not None:
        message.instrument_kind = kind_of(entry.instrument)[1]
    if not plain.trades:
        return message
    message.price.CopyFrom(plain.price)
    message.commission.CopyFrom(money(_child_nano(entry, account, OperationKind.FEE)))
    won = _child_nano(entry, account, OperationKind.VARIATION_GAIN, OperationKind.VARIATION_LOSS)
    getattr(message, "yield").CopyFrom(money(won))
    if trades:
        message.trades_info.trades.add(
            num=entry.trade_id, date=plain.date, quantity=plain.quantity, price=plain.price
        )
    return message


def _child_nano(entry: Operation, account: Account, *kinds: OperationKind) -> int:
    """Payments of the operations that belong to a deal: they stand right behind it."""
    behind = account.operations[entry.number : entry.number + 2]
    return sum(o.payment_nano for o in behind if o.parent == entry.number and o.kind in kinds)


def _id(account: Account, number: int) -> str:
    return f"{account.account_id}{number:08d}" if number else ""
