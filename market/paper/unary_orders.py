"""OrdersService: placing, replacing, cancelling and asking about orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp
from market.paper import messages_orders
from market.paper.behaviours import Behaviours, period_ns
from market.paper.calls import tracking_id
from market.paper.clock import MarketClock
from market.paper.desk import Desk
from market.paper.exchange import POST_ORDER, Exchange
from market.paper.orders import Cause, OrderRequest, PaperOrder, Status
from market.paper.refusals import Refusal
from market.paper.requests import (
    check_idempotency_key,
    check_key,
    check_quantity,
    desk_of,
    find_order,
    instrument_id,
    listing_of,
    order_request,
    price_ticks,
    side_of,
)


class OrderCalls:
    """Answers leave when the order has met the market, in market time."""

    def __init__(self, exchange: Exchange, clock: MarketClock) -> None:
        self._exchange = exchange
        self._clock = clock
        self._on_the_way: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._travelling: set[asyncio.Future[None]] = set()
        self._sent = 0

    def behaviours(self) -> Behaviours:
        return {
            "OrdersService/PostOrder": self.post_order,
            "OrdersService/PostOrderAsync": self.post_order_async,
            "OrdersService/CancelOrder": self.cancel_order,
            "OrdersService/ReplaceOrder": self.replace_order,
            "OrdersService/GetOrderState": self.get_order_state,
            "OrdersService/GetOrders": self.get_orders,
            "OrdersService/GetMaxLots": self.get_max_lots,
            "OrdersService/GetOrderPrice": self.get_order_price,
        }

    def abandon(self) -> None:
        """The server stops: nobody will wait for what is on the way."""
        for future in [*self._on_the_way.values(), *self._travelling]:
            future.cancel()

    # ------------------------------------------------------------------ placing

    async def post_order(self, request: pb.PostOrderRequest) -> pb.PostOrderResponse:
        """A repeated key gives the first order's state, or 30057 where the fault says so."""
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        check_key(request.order_id)
        order = self._known(desk, request.order_id)
        if order is None:
            order = self._accept(order_request(self._exchange, request))
        on_the_way = self._on_the_way.get((order.account_id, order.key))
        if on_the_way is not None:
            await asyncio.shield(on_the_way)
        return self._reply(order)

    async def post_order_async(self, request: pb.PostOrderAsyncRequest) -> pb.PostOrderAsyncResponse:
        """Answers as soon as the broker has the order: no exchange id, no fills, no promise."""
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        check_key(request.order_id)
        order = self._known(desk, request.order_id)
        if order is None:
            order = self._accept(order_request(self._exchange, request))
        return pb.PostOrderAsyncResponse(
            order_request_id=order.key,
            execution_report_status=messages_orders.STATUS[order.status],
            trade_intent_id=order.internal_id,
        )

    async def replace_order(self, request: pb.ReplaceOrderRequest) -> pb.PostOrderResponse:
        """Cancel, then a new order: when the new one is refused, the old one is gone all the same."""
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        check_idempotency_key(request.idempotency_key)
        repeated = self._known(desk, request.idempotency_key)
        if repeated is not None:
            return self._reply(repeated)
        old = find_order(self._exchange, desk, request.order_id, request.order_id_type)
        check_quantity(request.quantity)
        price = old.price_ticks
        if request.HasField("price"):
            price = price_ticks(old.instrument, request.price, request.price_type)
        asked = OrderRequest(
            old.account_id, request.idempotency_key, old.listing, old.side, request.quantity, old.kind, price,
            old.tif, request.confirm_margin_trade,
        )  # fmt: skip

        def replace(now_ns: int) -> None:
            self._exchange.cancel(old, now_ns)
            self._exchange.reach(self._exchange.accept(asked, now_ns), now_ns)

        await self._travel(replace)
        return self._reply(desk.orders[asked.key])

    async def cancel_order(self, request: pb.CancelOrderRequest) -> pb.CancelOrderResponse:
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        order = find_order(self._exchange, desk, request.order_id, request.order_id_type)
        await self._travel(partial(self._exchange.cancel, order))
        reply = pb.CancelOrderResponse(time=timestamp(order.changed_ns))
        reply.response_metadata.tracking_id = tracking_id()
        reply.response_metadata.server_time.CopyFrom(timestamp(self._clock.now_ns()))
        return reply

    # ------------------------------------------------------------------ asking

    async def get_order_state(self, request: pb.GetOrderStateRequest) -> pb.OrderState:
        desk = desk_of(self._exchange, request.account_id)
        order = find_order(self._exchange, desk, request.order_id, request.order_id_type)
        return self._state(order)

    async def get_orders(self, request: pb.GetOrdersRequest) -> pb.GetOrdersResponse:
        """Active orders, or with filters the orders of the session that match them."""
        desk = desk_of(self._exchange, request.account_id)
        if not request.HasField("advanced_filters"):
            return pb.GetOrdersResponse(orders=[self._state(order) for order in desk.active.values()])
        filters = request.advanced_filters
        from_ns, to_ns = period_ns(filters)
        wanted = set(filters.execution_status)
        return pb.GetOrdersResponse(
            orders=[
                self._state(order)
                for order in desk.orders.values()
                if from_ns <= order.created_ns < to_ns
                and (not wanted or messages_orders.STATUS[order.status] in wanted)
            ]
        )

    async def get_max_lots(self, request: pb.GetMaxLotsRequest) -> pb.GetMaxLotsResponse:
        desk = desk_of(self._exchange, request.account_id)
        _, listing = listing_of(self._exchange, instrument_id(request))
        price = None
        if request.HasField("price"):
            price = price_ticks(listing.instrument, request.price, pb.PRICE_TYPE_UNSPECIFIED)
        return messages_orders.max_lots(desk, listing, price)

    async def get_order_price(self, request: pb.GetOrderPriceRequest) -> pb.GetOrderPriceResponse:
        desk_of(self._exchange, request.account_id)
        _, listing = listing_of(self._exchange, instrument_id(request))
        check_quantity(request.quantity)
        side_of(request.direction)
        if not request.HasField("price"):
            raise Refusal("30017")
        price = price_ticks(listing.instrument, request.price, pb.PRICE_TYPE_UNSPECIFIED)
        return messages_orders.order_price(self._exchange, listing, price, request.quantity)

    # ------------------------------------------------------------------ inside

    def _known(self, desk: Desk, key: str) -> PaperOrder | None:
        order = desk.orders.get(key)
        if order is not None and self._exchange.faults.strikes(
            "duplicate_30057", method=POST_ORDER, names=order.listing.names
        ):
            raise Refusal("30057", key)
        return order

    def _accept(self, asked: OrderRequest) -> PaperOrder:
        now_ns = self._clock.now_ns()
        order = self._exchange.accept(asked, now_ns)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        way = (order.account_id, order.key)
        self._on_the_way[way] = future
        future.add_done_callback(lambda _: self._on_the_way.pop(way, None))
        self._exchange.send(order, now_ns, lambda _: self._answer(future))
        return order

    def _answer(self, future: asyncio.Future[None], refusal: Refusal | None = None) -> None:
        """Lets the caller know when the answer's own way is over."""

        def arrived(now_ns: int) -> None:
            if future.done():
                return
            if refusal is not None:
                future.set_exception(refusal)
            else:
                future.set_result(None)

        self._sent += 1
        late_ns = self._exchange.latency.response(self._sent)
        if late_ns:
            self._exchange.schedule(self._clock.now_ns() + late_ns, arrived)
        else:
            arrived(0)

    async def _travel(self, action: Callable[[int], None]) -> None:
        """Runs ``action`` when a cancel that leaves now reaches the exchange; its Refusal comes back."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._travelling.add(future)
        future.add_done_callback(self._travelling.discard)

        def arrive(now_ns: int) -> None:
            try:
                action(now_ns)
            except Refusal as refusal:
                self._answer(future, refusal)
            else:
                self._answer(future)

        self._sent += 1
        due_ns = self._clock.now_ns() + self._exchange.latency.cancel(self._sent)
        self._exchange.schedule(due_ns, arrive)
        await future

    def _state(self, order: PaperOrder) -> pb.OrderState:
        return messages_orders.order_state(order, self._exchange, self._clock.now_ns())

    def _reply(self, order: PaperOrder) -> pb.PostOrderResponse:
        if order.status is Status.REJECTED:
            raise Refusal(
                "30096", f"order {order.shown_id}: {order.listing.instrument.ticker} is not trading"
            )
        if order.tif == "fok" and order.cause is Cause.EXCHANGE and not order.executions:
            raise Refusal("30227", f"order {order.shown_id}: fewer lots than {order.lots} were offered")
        return messages_orders.post_order_reply(order, self._exchange, tracking_id(), self._clock.now_ns())
