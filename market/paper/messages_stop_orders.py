"""Stop orders as the contract's messages."""

from __future__ import annotations

from market.contract import invest_pb2 as pb
from market.contract.convert import money, quotation, timestamp, unit_money_nano
from market.paper.stop_orders import Distance, StopKind, StopOrder, StopStatus, Trailing
from market.types import BUY

_KIND = {
    StopKind.TAKE_PROFIT: pb.STOP_ORDER_TYPE_TAKE_PROFIT,
    StopKind.STOP_LOSS: pb.STOP_ORDER_TYPE_STOP_LOSS,
    StopKind.STOP_LIMIT: pb.STOP_ORDER_TYPE_STOP_LIMIT,
}
_STATUS = {
    StopStatus.ACTIVE: pb.STOP_ORDER_STATUS_ACTIVE,
    StopStatus.EXECUTED: pb.STOP_ORDER_STATUS_EXECUTED,
    StopStatus.CANCELED: pb.STOP_ORDER_STATUS_CANCELED,
    StopStatus.EXPIRED: pb.STOP_ORDER_STATUS_EXPIRED,
}


def stop_order(order: StopOrder) -> pb.StopOrder:
    """Prices in money of one unit; trailing distances in the price's own unit or per cent."""
    child = pb.EXCHANGE_ORDER_TYPE_LIMIT if order.limit_child else pb.EXCHANGE_ORDER_TYPE_MARKET
    i = order.listing.instrument
    message = pb.StopOrder(
        stop_order_id=order.stop_order_id, lots_requested=order.lots, figi=i.figi,
        direction=pb.STOP_ORDER_DIRECTION_BUY if order.side == BUY else pb.STOP_ORDER_DIRECTION_SELL,
        currency="rub", order_type=_KIND[order.kind], create_date=timestamp(order.created_ns),
        instrument_uid=i.uid, status=_STATUS[order.status],
        exchange_order_type=child, ticker=i.ticker, class_code=i.class_code,
    )  # fmt: skip
    if order.kind is StopKind.TAKE_PROFIT:
        message.take_profit_type = (
            pb.TAKE_PROFIT_TYPE_REGULAR if order.trailing is None else pb.TAKE_PROFIT_TYPE_TRAILING
        )
    if order.activated_ns is not None:
        message.activation_date_time.CopyFrom(timestamp(order.activated_ns))
    if order.expires_ns is not None:
        message.expiration_time.CopyFrom(timestamp(order.expires_ns))
    if order.price_ticks is not None:
        message.price.CopyFrom(money(unit_money_nano(i, order.price_ticks)))
    if order.stop_ticks is not None:
        message.stop_price.CopyFrom(money(unit_money_nano(i, order.stop_ticks)))
    if order.child is not None:
        message.exchange_order_id = order.child.shown_id
    if order.trailing is not None:
        message.trailing_data.CopyFrom(_trailing(order, order.trailing))
    return message


def _trailing(order: StopOrder, trailing: Trailing) -> pb.StopOrder.TrailingData:
    tick = order.listing.instrument.tick_nano
    data = pb.StopOrder.TrailingData(
        indent=_distance(trailing.indent, tick), indent_type=_distance_type(trailing.indent),
        spread=_distance(trailing.spread, tick), spread_type=_distance_type(trailing.spread),
        status=pb.TRAILING_STOP_ACTIVATED if order.following else pb.TRAILING_STOP_ACTIVE,
    )  # fmt: skip
    if order.price_ticks is not None:
        data.price.CopyFrom(quotation(order.price_ticks * tick))
    if order.extremum_ticks is not None:
        data.extr.CopyFrom(quotation(order.extremum_ticks * tick))
    return data


def _distance(distance: Distance, tick_nano: int) -> pb.Quotation:
    return quotation(distance.value if distance.relative else distance.value * tick_nano)


def _distance_type(distance: Distance) -> pb.TrailingValueType:
    return pb.TRAILING_VALUE_RELATIVE if distance.relative else pb.TRAILING_VALUE_ABSOLUTE
