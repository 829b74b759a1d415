"""StopOrdersService: the checks of what is asked, and the list."""

from __future__ import annotations

from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError, nano_to_ticks, timestamp, to_nano, to_ns
from market.paper import messages_stop_orders
from market.paper.behaviours import Behaviours, period_ns
from market.paper.calls import tracking_id
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.refusals import Refusal
from market.paper.requests import (
    check_key,
    check_quantity,
    desk_of,
    instrument_id,
    listing_of,
    price_step_nano,
    price_ticks,
)
from market.paper.stop_orders import Distance, StopKind, StopOrder, StopStatus, Trailing
from market.types import BUY, NANO, SELL

_SIDES = {pb.STOP_ORDER_DIRECTION_BUY: BUY, pb.STOP_ORDER_DIRECTION_SELL: SELL}
_KINDS = {
    pb.STOP_ORDER_TYPE_TAKE_PROFIT: StopKind.TAKE_PROFIT,
    pb.STOP_ORDER_TYPE_STOP_LOSS: StopKind.STOP_LOSS,
    pb.STOP_ORDER_TYPE_STOP_LIMIT: StopKind.STOP_LIMIT,
}
_STATUSES = {
    pb.STOP_ORDER_STATUS_UNSPECIFIED: {StopStatus.ACTIVE},
    pb.STOP_ORDER_STATUS_ALL: set(StopStatus),
    pb.STOP_ORDER_STATUS_ACTIVE: {StopStatus.ACTIVE},
    pb.STOP_ORDER_STATUS_EXECUTED: {StopStatus.EXECUTED},
    pb.STOP_ORDER_STATUS_CANCELED: {StopStatus.CANCELED},
    pb.STOP_ORDER_STATUS_EXPIRED: {StopStatus.EXPIRED},
}


class StopOrderCalls:
    def __init__(self, exchange: Exchange, clock: MarketClock) -> None:
        self._exchange = exchange
        self._clock = clock

    def behaviours(self) -> Behaviours:
        return {
            "StopOrdersService/PostStopOrder": self.post_stop_order,
            "StopOrdersService/GetStopOrders": self.get_stop_orders,
            "StopOrdersService/CancelStopOrder": self.cancel_stop_order,
        }

    async def post_stop_order(self, request: pb.PostStopOrderRequest) -> pb.PostStopOrderResponse:
        """A repeated key gives the first stop order."""
        desk_of(self._exchange, request.account_id, to_trade=True)
        check_key(request.order_id)
        order = self._exchange.stop_orders.by_key(request.account_id, request.order_id)
        now_ns = self._clock.now_ns()
        if order is None:
            index, listing = listing_of(self._exchange, instrument_id(request))
            order = self._exchange.stop_orders.place(_stop_order(request, index, listing), now_ns)
        reply = pb.PostStopOrderResponse(stop_order_id=order.stop_order_id, order_request_id=order.key)
        reply.response_metadata.tracking_id = tracking_id()
        reply.response_metadata.server_time.CopyFrom(timestamp(now_ns))
        return reply

    async def get_stop_orders(self, request: pb.GetStopOrdersRequest) -> pb.GetStopOrdersResponse:
        """Active ones unless another status is asked for; ``from`` and ``to`` bound the creation."""
        desk = desk_of(self._exchange, request.account_id)
        wanted = _STATUSES.get(request.status)
        if wanted is None:
            raise Refusal("30106", str(request.status))
        from_ns, to_ns_ = period_ns(request)
        return pb.GetStopOrdersResponse(
            stop_orders=[
                messages_stop_orders.stop_order(order)
                for order in self._exchange.stop_orders.of_account(
                    desk.account.account_id, self._clock.now_ns()
                )
                if order.status in wanted and from_ns <= order.created_ns < to_ns_
            ]
        )

    async def cancel_stop_order(self, request: pb.CancelStopOrderRequest) -> pb.CancelStopOrderResponse:
        desk_of(self._exchange, request.account_id, to_trade=True)
        now_ns = self._clock.now_ns()
        self._exchange.stop_orders.cancel(request.account_id, request.stop_order_id, now_ns)
        return pb.CancelStopOrderResponse(time=timestamp(now_ns))


# ---------------------------------------------------------------- checks


def _stop_order(request: pb.PostStopOrderRequest, index: int, listing: Listing) -> StopOrder:
    """Everything about a stop order that can be checked without the market."""
    check_quantity(request.quantity)
    if request.direction == pb.STOP_ORDER_DIRECTION_UNSPECIFIED:
        raise Refusal("30019")
    if request.direction not in _SIDES:
        raise Refusal("30020", str(request.direction))
    if request.stop_order_type == pb.STOP_ORDER_TYPE_UNSPECIFIED:
        raise Refusal("30037")
    kind = _KINDS.get(request.stop_order_type)
    if kind is None:
        raise Refusal("30038", str(request.stop_order_type))
    if request.price_type not in pb.PriceType.values():
        raise Refusal("30104", str(request.price_type))
    trailing = _trailing(request, kind, listing)
    stop_ticks = None
    if request.HasField("stop_price"):
        stop_ticks = price_ticks(listing.instrument, request.stop_price, request.price_type)
    elif trailing is None:
        raise Refusal("30036")
    limit_child = _limit_child(request, kind)
    price = None
    if limit_child and trailing is None:
        if not request.HasField("price"):
            raise Refusal("30017")
        price = price_ticks(listing.instrument, request.price, request.price_type)
    return StopOrder(
        request.account_id, request.order_id, listing, index, _SIDES[request.direction], request.quantity,
        kind, stop_ticks, price, limit_child, _expires_ns(request), trailing, request.confirm_margin_trade,
    )  # fmt: skip


def _limit_child(request: pb.PostStopOrderRequest, kind: StopKind) -> bool:
    """A stop limit's child has a limit, a stop loss's never; a take profit says which. Without a word, a
    price given means a limit.
    """
    if request.exchange_order_type not in pb.ExchangeOrderType.values():
        raise Refusal("30105", str(request.exchange_order_type))
    if kind is StopKind.STOP_LIMIT:
        return True
    if kind is StopKind.STOP_LOSS:
        return False
    if request.exchange_order_type == pb.EXCHANGE_ORDER_TYPE_UNSPECIFIED:
        return request.HasField("price")
    return request.exchange_order_type == pb.EXCHANGE_ORDER_TYPE_LIMIT


def _trailing(request: pb.PostStopOrderRequest, kind: StopKind, listing: Listing) -> Trailing | None:
    if request.take_profit_type != pb.TAKE_PROFIT_TYPE_TRAILING:
        return None
    if kind is not StopKind.TAKE_PROFIT:
        raise Refusal("30039", "only a take profit can trail")
    data = request.trailing_data
    if not (data.HasField("indent") and data.HasField("spread")):
        raise Refusal("30210")
    if data.indent_type == pb.TRAILING_VALUE_UNSPECIFIED:
        raise Refusal("30211")
    if data.spread_type == pb.TRAILING_VALUE_UNSPECIFIED:
        raise Refusal("30212")
    step = price_step_nano(listing.instrument, request.price_type)
    indent = _distance(data.indent, data.indent_type, step)
    if indent.value == 0:
        raise Refusal("30039", "indent must be positive")
    return Trailing(indent, _distance(data.spread, data.spread_type, step))


def _distance(value: pb.Quotation, value_type: int, step_nano: int) -> Distance:
    """Absolute: in the unit of the price, on the tick. Relative: per cent."""
    try:
        nano = to_nano(value)
        if nano < 0:
            raise Refusal("30039", "indent and spread must not be negative")
        if value_type == pb.TRAILING_VALUE_RELATIVE:
            if nano >= 100 * NANO:
                raise Refusal("30039", "a relative indent or spread is below 100 per cent")
            return Distance(nano, relative=True)
        return Distance(nano_to_ticks(nano, step_nano), relative=False)
    except ConversionError as error:
        raise Refusal("30039", str(error)) from None


def _expires_ns(request: pb.PostStopOrderRequest) -> int | None:
    if request.expiration_type == pb.STOP_ORDER_EXPIRATION_TYPE_UNSPECIFIED:
        raise Refusal("30043")
    if request.expiration_type == pb.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_CANCEL:
        return None
    if request.expiration_type != pb.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_DATE:
        raise Refusal("30044", str(request.expiration_type))
    if not request.HasField("expire_date"):
        raise Refusal("30040", "GOOD_TILL_DATE needs expire_date")
    return to_ns(request.expire_date)
