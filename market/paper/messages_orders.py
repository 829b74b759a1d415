"""Orders and their events as the contract's messages. Every unit rule of the API lives here, none in the
exchange.
"""

from __future__ import annotations

from market.contract import invest_pb2 as pb
from market.contract.convert import money, quotation, ticks_to_quotation, timestamp, unit_money_nano
from market.fees import fee_nano
from market.matching import Execution
from market.paper.desk import MAX_GROSS_TO_EQUITY, Desk
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.orders import Cause, PaperOrder, Status
from market.types import BUY, SELL, Instrument

EXCHANGE_CODE = "MOEX"
"""What order states call the exchange, whatever calendar the instrument has."""

DIRECTION = {BUY: pb.ORDER_DIRECTION_BUY, SELL: pb.ORDER_DIRECTION_SELL}
TIME_IN_FORCE = {
    "day": pb.TIME_IN_FORCE_DAY,
    "fak": pb.TIME_IN_FORCE_FILL_AND_KILL,
    "fok": pb.TIME_IN_FORCE_FILL_OR_KILL,
}
STATUS = {
    Status.NEW: pb.EXECUTION_REPORT_STATUS_NEW,
    Status.PARTIAL: pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL,
    Status.FILLED: pb.EXECUTION_REPORT_STATUS_FILL,
    Status.CANCELLED: pb.EXECUTION_REPORT_STATUS_CANCELLED,
    Status.REJECTED: pb.EXECUTION_REPORT_STATUS_REJECTED,
}
_ORDER_TYPE = {
    "limit": pb.ORDER_TYPE_LIMIT,
    "market": pb.ORDER_TYPE_MARKET,
    "bestprice": pb.ORDER_TYPE_BESTPRICE,
}
_CAUSE = {
    Cause.CLIENT: pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT,
    Cause.EXCHANGE: pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_EXCHANGE,
    Cause.BROKER: pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_BROKER,
    Cause.REJECTED_BY_EXCHANGE: pb.OrderStateStreamResponse.CAUSE_REJECTED_BY_EXCHANGE,
}

# ---------------------------------------------------------------- orders


def _average_unit_nano(order: PaperOrder) -> int:
    """Average executed price of one unit, money; 0 while nothing was executed."""
    units = order.lots_executed * order.instrument.lot
    return order.executed_nano // units if units else 0


def _total_nano(order: PaperOrder, exchange: Exchange) -> int:
    if order.lots_executed:
        return order.executed_nano + order.fee_nano
    return order.initial_nano + exchange.commission_nano(order)


def post_order_reply(
    order: PaperOrder, exchange: Exchange, tracking_id: str, now_ns: int
) -> pb.PostOrderResponse:
    """Money in roubles, futures included. ``executed_commission`` stays 0: the broker computes it later."""
    i = order.instrument
    reply = pb.PostOrderResponse(
        order_id=order.shown_id, execution_report_status=STATUS[order.status], lots_requested=order.lots,
        lots_executed=order.lots_executed, initial_order_price=money(order.initial_nano),
        executed_order_price=money(_average_unit_nano(order)),
        total_order_amount=money(_total_nano(order, exchange)),
        initial_commission=money(exchange.commission_nano(order)), executed_commission=money(0),
        aci_value=money(0),
        figi=i.figi, direction=DIRECTION[order.side], order_type=_ORDER_TYPE[order.kind],
        initial_security_price=money(unit_money_nano(i, order.initial_ticks)), instrument_uid=i.uid,
        ticker=i.ticker,
        class_code=i.class_code, order_request_id=order.key,
    )  # fmt: skip
    if i.kind == "future":
        reply.initial_order_price_pt.CopyFrom(ticks_to_quotation(order.initial_ticks, i.tick_nano))
    if order.cause is Cause.EXCHANGE:
        reply.message = (
            f"{order.lots - order.lots_executed} of {order.lots} lots cancelled: nothing to trade with"
        )
    reply.response_metadata.tracking_id = tracking_id
    reply.response_metadata.server_time.CopyFrom(timestamp(now_ns))
    return reply


def order_state(order: PaperOrder, exchange: Exchange, now_ns: int) -> pb.OrderState:
    """The reply of GetOrderState: stages in LOTS, their prices in money of one unit. ``executed_commission``
    holds what was computed by ``now_ns``.
    """
    i = order.instrument
    return pb.OrderState(
        order_id=order.shown_id, execution_report_status=STATUS[order.status], lots_requested=order.lots,
        lots_executed=order.lots_executed, initial_order_price=money(order.initial_nano),
        executed_order_price=money(order.executed_nano),
        total_order_amount=money(_total_nano(order, exchange)),
        average_position_price=money(_average_unit_nano(order)),
        initial_commission=money(exchange.commission_nano(order)),
        executed_commission=money(exchange.known_commission_nano(order, now_ns)),
        figi=i.figi, direction=DIRECTION[order.side], order_type=_ORDER_TYPE[order.kind], currency="rub",
        initial_security_price=money(unit_money_nano(i, order.initial_ticks)), service_commission=money(0),
        stages=[
            pb.OrderStage(
                price=money(unit_money_nano(i, e.price_ticks)), quantity=e.lots, trade_id=e.trade_id,
                execution_time=timestamp(e.now_ns),
            )
            for e in order.executions
        ],
        order_date=timestamp(order.created_ns), instrument_uid=i.uid, order_request_id=order.key,
        ticker=i.ticker,
        class_code=i.class_code,
    )  # fmt: skip


def _order_trade(i: Instrument, e: Execution) -> pb.OrderTrade:
    """One fill in the streams: quantity in UNITS, price in points for futures."""
    return pb.OrderTrade(
        date_time=timestamp(e.now_ns), price=ticks_to_quotation(e.price_ticks, i.tick_nano),
        quantity=e.lots * i.lot, trade_id=e.trade_id,
    )  # fmt: skip


def order_event(order: PaperOrder) -> pb.OrderStateStreamResponse:
    """The order as it is now; before it reached the exchange it carries the broker's internal id."""
    i = order.instrument
    executed = order.lots_executed
    over = order.status in (Status.CANCELLED, Status.REJECTED)
    cancelled = order.lots - executed if over else 0
    state = pb.OrderStateStreamResponse.OrderState(
        order_id=order.shown_id, order_request_id=order.key,
        created_at=timestamp(order.created_ns), execution_report_status=STATUS[order.status],
        ticker=i.ticker,
        class_code=i.class_code, lot_size=i.lot, direction=DIRECTION[order.side],
        time_in_force=TIME_IN_FORCE[order.tif], order_type=_ORDER_TYPE[order.kind],
        account_id=order.account_id,
        initial_order_price=money(order.initial_nano, "RUB"),
        order_price=money(order.initial_ticks * i.tick_nano, "RUB"), amount=money(order.initial_nano, "RUB"),
        executed_order_price=money(_average_unit_nano(order), "RUB"), currency="RUB",
        lots_requested=order.lots,
        lots_executed=executed, lots_left=order.lots - executed - cancelled, lots_cancelled=cancelled,
        trades=[_order_trade(i, e) for e in order.executions], exchange=EXCHANGE_CODE, instrument_uid=i.uid,
    )  # fmt: skip
    if not order.active:
        state.completion_time.CopyFrom(timestamp(order.changed_ns))
    if order.cause is not None:
        state.status_info = _CAUSE[order.cause]
    return pb.OrderStateStreamResponse(order_state=state)


def trades_event(order: PaperOrder) -> pb.TradesStreamResponse:
    """The last fill of the order."""
    i = order.instrument
    return pb.TradesStreamResponse(
        order_trades=pb.OrderTrades(
            order_id=order.shown_id, created_at=timestamp(order.changed_ns),
            direction=DIRECTION[order.side],
            figi=i.figi, trades=[_order_trade(i, order.executions[-1])], account_id=order.account_id,
            instrument_uid=i.uid,
        )
    )  # fmt: skip


# ---------------------------------------------------------------- questions before an order


def max_lots(desk: Desk, listing: Listing, price_ticks: int | None) -> pb.GetMaxLotsResponse:
    """What PostOrder would accept now, at the price or, without one, at the opposite touch."""
    bid, ask = listing.touch_ticks()
    mark = listing.mark_ticks()
    buy_at = next((p for p in (price_ticks, ask, mark) if p is not None), None)
    buy_market_at = ask if ask is not None else mark
    sell_at = next((p for p in (price_ticks, bid, mark) if p is not None), None)

    def buys(*, margin: bool) -> pb.GetMaxLotsResponse.BuyLimitsView:
        money_nano = desk.equity_nano() * MAX_GROSS_TO_EQUITY - desk.worst_gross_nano()
        return pb.GetMaxLotsResponse.BuyLimitsView(
            buy_money_amount=quotation(money_nano if margin else desk.free_cash_nano()),
            buy_max_lots=_lots(desk, listing, BUY, buy_at, margin=margin),
            buy_max_market_lots=_lots(desk, listing, BUY, buy_market_at, margin=margin),
        )

    def sells(*, margin: bool) -> pb.GetMaxLotsResponse.SellLimitsView:
        lots = _lots(desk, listing, SELL, sell_at, margin=margin)
        return pb.GetMaxLotsResponse.SellLimitsView(sell_max_lots=lots)

    return pb.GetMaxLotsResponse(
        currency="rub", buy_limits=buys(margin=False), buy_margin_limits=buys(margin=True),
        sell_limits=sells(margin=False), sell_margin_limits=sells(margin=True),
    )  # fmt: skip


def _lots(desk: Desk, listing: Listing, side: int, price_ticks: int | None, *, margin: bool) -> int:
    if price_ticks is None:
        return 0
    return desk.max_lots(listing, side, price_ticks, margin=margin and desk.account.margin)


def order_price(
    exchange: Exchange, listing: Listing, price_ticks: int, lots: int
) -> pb.GetOrderPriceResponse:
    i = listing.instrument
    value = abs(i.notional_nano(price_ticks, lots))
    fee = fee_nano(value, exchange.tariff.ppm(i))
    reply = pb.GetOrderPriceResponse(
        total_order_amount=money(value + fee), lots_requested=lots, initial_order_amount=money(value),
        executed_commission=money(fee), executed_commission_rub=money(fee), service_commission=money(0),
        deal_commission=money(fee),
    )  # fmt: skip
    if i.kind == "future":
        reply.extra_future.initial_margin.CopyFrom(money(-(-value // MAX_GROSS_TO_EQUITY)))
    return reply
