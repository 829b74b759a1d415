"""Protective stop orders at the broker (``execution.exchange_stop``): ``StopDesk``, a desk around the client.

A stop order waits at the broker, whoever is connected, and becomes an exchange order (its child) under an id
of its own when the price is reached. No stream tells of that, so the list is read every few seconds while a
stop is open, before each reconciliation, and at once when an order appears that nobody sent. To the engine a
stop is one order from its intent to its last deal: whatever the child does is told under the stop's own id.

A request without an answer is never sent again. The list does not show our key, so after a lost answer the
stop is recognised by instrument, side, size, price and time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from live.broker.client import AccountState, BrokerClient, OrderReport
from live.broker.errors import CallFailed, Verdict
from live.core.commands import PlaceOrder
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.types import BUY, SECOND_NS, Instrument

LOOK_S = 3.0
"""Between two readings of the list while a stop is open: 20 of the 50 requests a minute."""
WAIT_S = 5.0
CLOCK_SLACK_NS = 60 * SECOND_NS
"""The broker's clock may be so far behind ours."""
MAX_PENDING = 100
"""Reports of unknown orders that wait for the list to explain them."""
MAX_CHILDREN = 3_000
"""Ids of orders that stops became, three a stop: late reports of them may still come."""
PENDING_LOOKS = 3
"""Readings of the list, begun after the report came, before an unexplained order is called foreign."""

_OVER = {pb.STOP_ORDER_STATUS_CANCELED: "CANCELED", pb.STOP_ORDER_STATUS_EXPIRED: "EXPIRED"}


@dataclass(slots=True)
class _Stop:
    """One stop of ours that is not over. ``child``: the broker's id of the order that it became."""

    client_order_id: str
    instrument: Instrument
    side: int
    lots: int
    stop_ticks: int
    placed_ns: int
    stop_order_id: str = ""
    child: str = ""

    def looks_like(self, listed: pb.StopOrder) -> bool:
        direction = pb.STOP_ORDER_DIRECTION_BUY if self.side == BUY else pb.STOP_ORDER_DIRECTION_SELL
        if (listed.instrument_uid, listed.direction) != (self.instrument.uid, direction):
            return False
        created_ns = convert.to_ns(listed.create_date)
        return (
            listed.lots_requested == self.lots
            and created_ns >= self.placed_ns - CLOCK_SLACK_NS
            and listed.order_type == pb.STOP_ORDER_TYPE_STOP_LOSS
        )


class StopDesk:
    """An ``OrderDesk``: stops go to StopOrders, everything else to ``client``.

    ``report`` gets what happens to stops; ``now_ns`` is market time. ``run`` reads the list while a stop is
    open and never returns by itself.
    """

    def __init__(
        self,
        client: BrokerClient,
        now_ns: Callable[[], int],
        report: Callable[[OrderReport], None],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._client, self._now_ns, self._report, self._look_s = client, now_ns, report, look_s
        self._stops: dict[str, _Stop] = {}
        self._children: OrderedDict[str, str] = OrderedDict()
        """A child's ids (the broker's first and later one, and its request id) -> our stop."""
        self._pending: list[tuple[OrderReport, int]] = []
        """(report, readings still to wait for)"""
        self._wanted = asyncio.Event()

    # ---- the desk ----

    async def place(self, order: PlaceOrder, instrument: Instrument) -> OrderReport:
        if order.order_type != "stop":
            return await self._client.place(order, instrument)
        if order.price_ticks is None:
            raise AssertionError("a stop order has a price")
        stop = _Stop(
            order.client_order_id, instrument, order.side, order.lots, order.price_ticks, self._now_ns()
        )
        self._stops[order.client_order_id] = stop
        request = pb.PostStopOrderRequest(
            quantity=order.lots,
            stop_price=convert.ticks_to_quotation(order.price_ticks, instrument.tick_nano),
            direction=pb.STOP_ORDER_DIRECTION_BUY if order.side == BUY else pb.STOP_ORDER_DIRECTION_SELL,
            account_id=self._client.account_id,
            expiration_type=pb.STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_CANCEL,
            stop_order_type=pb.STOP_ORDER_TYPE_STOP_LOSS,
            instrument_id=instrument.uid,
            price_type=pb.PRICE_TYPE_POINT if instrument.kind == "future" else pb.PRICE_TYPE_CURRENCY,
            order_id=order.client_order_id,
            confirm_margin_trade=self._client.access.confirm_margin_trade,
        )
        try:
            reply = await self._client.call("StopOrdersService/PostStopOrder", request, wait_s=WAIT_S)
        except CallFailed as error:
            refused = error.failure.verdict in (Verdict.REFUSED, Verdict.NOT_FOUND)
            if refused:
                del self._stops[order.client_order_id]
            status = "REJECTED" if refused else "UNKNOWN"
            return OrderReport(order.client_order_id, status, reason=str(error.failure))  # type: ignore[arg-type]
        stop.stop_order_id = reply.stop_order_id
        return OrderReport(order.client_order_id, "NEW", reply.stop_order_id, ticker=instrument.ticker)

    async def cancel(self, client_order_id: str, exchange_order_id: str) -> OrderReport | None:
        stop = self._stops.get(client_order_id)
        if stop is None:
            return await self._client.cancel(client_order_id, exchange_order_id)
        if not stop.stop_order_id:
            return await self.query(client_order_id, exchange_order_id)
        request = pb.CancelStopOrderRequest(
            account_id=self._client.account_id, stop_order_id=stop.stop_order_id
        )
        try:
            await self._client.call("StopOrdersService/CancelStopOrder", request, wait_s=WAIT_S)
        except CallFailed:
            # Triggered, or over, or nobody knows: the list says which.
            return await self.query(client_order_id, exchange_order_id)
        del self._stops[client_order_id]
        return OrderReport(client_order_id, "CANCELLED", stop.stop_order_id, ticker=stop.instrument.ticker)

    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport:
        stop = self._stops.get(client_order_id)
        if stop is None:
            return await self._client.query(client_order_id, exchange_order_id)
        try:
            listed = await self._listed()
        except CallFailed as error:
            return OrderReport(client_order_id, "UNKNOWN", stop.stop_order_id, reason=str(error.failure))
        return await self._judge(stop, listed)

    async def state(self) -> AccountState:
        """As the client's; stops that were triggered are told first, children are not called foreign."""
        await self.look()
        state = await self._client.state()
        others = tuple(o for o in state.open_orders if o.exchange_order_id not in self._children)
        return replace(state, open_orders=others)

    # ---- restart, and reports from the stream ----

    def adopt(
        self, client_order_id: str, instrument: Instrument, side: int, lots: int, stop_ticks: int,
        placed_ns: int, stop_order_id: str = "",
    ) -> None:  # fmt: skip
        """A stop of an earlier session whose end is not known."""
        if client_order_id not in self._stops:
            self._stops[client_order_id] = _Stop(
                client_order_id, instrument, side, lots, stop_ticks, placed_ns, stop_order_id
            )

    def claim(self, report: OrderReport, known: bool) -> OrderReport | None:
        """``report`` under the id of the stop it belongs to; None: it waits until the list was read.

        ``known``: the engine sent an order of that id.
        """
        ours = self._owner(report)
        if ours is not None:
            return replace(report, client_order_id=ours, exchange_order_id="")
        if known or not any(stop.instrument.ticker == report.ticker for stop in self._stops.values()):
            return report
        if len(self._pending) >= MAX_PENDING:
            return report
        self._pending.append((report, PENDING_LOOKS))
        self._wanted.set()
        return None

    def _owner(self, report: OrderReport) -> str | None:
        return self._children.get(report.exchange_order_id) or self._children.get(report.client_order_id)

    @property
    def open_stops(self) -> int:
        return len(self._stops)

    # ---- the list ----

    async def run(self) -> None:
        while True:
            # Not wait_for: on Python 3.11 it may lose a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.look()
            await asyncio.sleep(self._look_s / 10)

    async def look(self) -> None:
        """Reads the list once, if a stop is open, and reports whatever is no longer waiting."""
        pending, self._pending = self._pending, []
        if self._stops:
            try:
                listed = await self._listed()
            except CallFailed:
                self._pending = pending + self._pending
                return  # the next look comes soon
            for stop in list(self._stops.values()):
                before = stop.stop_order_id
                report = await self._judge(stop, listed)
                if not report.not_found and (report.status != "NEW" or stop.stop_order_id != before):
                    self._report(report)
        for report, looks in pending:
            ours = self._owner(report)
            if ours is not None:
                self._report(replace(report, client_order_id=ours, exchange_order_id=""))
            elif looks > 1 and self._stops:
                self._pending.append((report, looks - 1))
                self._wanted.set()
            else:
                self._report(report)

    async def _listed(self) -> list[pb.StopOrder]:
        since_ns = min(stop.placed_ns for stop in self._stops.values()) - CLOCK_SLACK_NS
        request = pb.GetStopOrdersRequest(account_id=self._client.account_id, status=pb.STOP_ORDER_STATUS_ALL)
        getattr(request, "from").CopyFrom(convert.timestamp(max(0, since_ns)))
        request.to.CopyFrom(convert.timestamp(self._now_ns() + CLOCK_SLACK_NS))
        reply = await self._client.call("StopOrdersService/GetStopOrders", request, wait_s=WAIT_S)
        return list(reply.stop_orders)

    async def _judge(self, stop: _Stop, listed: Iterable[pb.StopOrder]) -> OrderReport:
        """What the list says of ``stop``."""
        found = self._find(stop, listed)
        key, ticker = stop.client_order_id, stop.instrument.ticker
        if found is None:
            why = "the broker lists no such stop order"
            return OrderReport(key, "UNKNOWN", stop.stop_order_id, reason=why, not_found=True, ticker=ticker)
        stop.stop_order_id = found.stop_order_id
        if found.status in _OVER:
            self._stops.pop(key, None)
            return OrderReport(key, "CANCELLED", found.stop_order_id, reason=_OVER[found.status])
        if found.status != pb.STOP_ORDER_STATUS_EXECUTED:
            return OrderReport(key, "NEW", found.stop_order_id, ticker=ticker)
        if not found.exchange_order_id:
            return OrderReport(key, "NEW", found.stop_order_id, reason="triggered", ticker=ticker)
        stop.child = found.exchange_order_id
        self._know_as(stop.child, key)
        request = pb.GetOrderStateRequest(
            account_id=self._client.account_id, order_id=stop.child,
            order_id_type=pb.ORDER_ID_TYPE_EXCHANGE, price_type=pb.PRICE_TYPE_POINT,
        )  # fmt: skip
        try:
            state = await self._client.call("OrdersService/GetOrderState", request, wait_s=WAIT_S)
        except CallFailed as error:
            # Known under another id a moment later; until then it is a stop that was triggered.
            return OrderReport(key, "NEW", found.stop_order_id, reason=str(error.failure), ticker=ticker)
        self._know_as(state.order_id, key)
        self._know_as(state.order_request_id, key)
        report = self._client.report(key, state)
        if report.status in ("FILLED", "CANCELLED", "REJECTED"):
            complete = sum(fill.lots for fill in report.fills) >= report.lots_executed
            if complete:
                self._stops.pop(key, None)
        status = "CANCELLED" if report.status == "REJECTED" else report.status
        return replace(report, exchange_order_id=found.stop_order_id, status=status)

    def _know_as(self, child: str, client_order_id: str) -> None:
        self._children[child] = client_order_id
        self._children.move_to_end(child)
        if len(self._children) > MAX_CHILDREN:
            self._children.popitem(last=False)

    def _find(self, stop: _Stop, listed: Iterable[pb.StopOrder]) -> pb.StopOrder | None:
        taken = {other.stop_order_id for other in self._stops.values() if other is not stop}
        for one in listed:
            if stop.stop_order_id:
                if one.stop_order_id == stop.stop_order_id:
                    return one
            elif one.stop_order_id not in taken and stop.looks_like(one):
                wanted_nano = convert.unit_money_nano(stop.instrument, stop.stop_ticks)
                if convert.to_nano(one.stop_price) == wanted_nano:
                    return one
        return None
