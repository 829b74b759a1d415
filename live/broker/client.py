"""``BrokerClient``: the account side of the Invest API, in the product's whole numbers.

Every call has a deadline, takes its turn in the rate budget, and fails with ``CallFailed``. Orders never
raise: ``place`` and ``query`` answer with an ``OrderReport`` whose status is UNKNOWN when nobody knows. The
client order id is the idempotency key for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio

from live.broker.channel import Access
from live.broker.errors import CANCEL_FAILED, RATE_LIMITED, CallFailed, Failure, Verdict
from live.broker.levels import Levels, levels
from live.broker.limits import Allowance, RateLimits
from live.broker.transport import guarded, open_transport
from live.core.commands import PlaceOrder
from live.core.events import FillInfo, OpenOrder, OrderStatus
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.errors import BrokerError
from market.fees import fee_nano
from market.types import BUY, SELL, Instrument

MAX_ORDER_WAIT_S = 0.3
"""An order that would wait longer for its turn is refused here: by then the price is another one."""
MAX_OTHER_WAIT_S = 5.0
READ_ATTEMPTS = 3
READ_PAUSE_S = 0.25
MAX_INSTRUMENTS_FOUND = 50

_STATUS: dict[int, OrderStatus] = {
    pb.EXECUTION_REPORT_STATUS_NEW: "NEW",
    pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL: "PARTIAL",
    pb.EXECUTION_REPORT_STATUS_FILL: "FILLED",
    pb.EXECUTION_REPORT_STATUS_CANCELLED: "CANCELLED",
    pb.EXECUTION_REPORT_STATUS_REJECTED: "REJECTED",
}
_TIF = {
    "day": pb.TIME_IN_FORCE_DAY,
    "fak": pb.TIME_IN_FORCE_FILL_AND_KILL,
    "fok": pb.TIME_IN_FORCE_FILL_OR_KILL,
}


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What is known about one order. ``not_found``: the broker has never seen it (status is UNKNOWN then)."""

    client_order_id: str
    status: OrderStatus
    exchange_order_id: str = ""
    lots_executed: int = 0
    fills: tuple[FillInfo, ...] = ()
    reason: str = ""
    not_found: bool = False
    ticker: str = ""


@dataclass(frozen=True, slots=True)
class AccountState:
    """Positions in lots (signed), working orders, free cash."""

    positions: dict[str, int]
    open_orders: tuple[OpenOrder, ...]
    cash_nano: int
    odd_units: dict[str, int]
    """Units that do not make whole lots, by ticker: reported, never traded."""


def status_of(code: int, lots_executed: int, lots: int) -> OrderStatus:
    """Our status from the broker's, trusting the lots over the text (a filled order may still say NEW)."""
    status = _STATUS.get(code, "UNKNOWN")
    if status in ("NEW", "PARTIAL", "UNKNOWN") and lots > 0 and lots_executed >= lots:
        return "FILLED"
    if status == "NEW" and lots_executed > 0:
        return "PARTIAL"
    return status


def _both_ids(client_order_id: str, exchange_order_id: str) -> list[tuple[str, Any]]:
    """The ways to name an order, surest first."""
    ids: list[tuple[str, Any]] = [(exchange_order_id, pb.ORDER_ID_TYPE_EXCHANGE)] if exchange_order_id else []
    return [*ids, (client_order_id, pb.ORDER_ID_TYPE_REQUEST)]


def unit_price_ticks(price_nano: int, instrument: Instrument) -> int:
    """A deal's price as the broker tells it, in ticks: for futures documented as money of one unit, whatever
    price_type says; to the nearest tick.
    """
    if instrument.kind != "future":
        return convert.nano_to_ticks(price_nano, instrument.tick_nano)
    tick = instrument.tick_value_nano
    return (price_nano * instrument.lot + tick // 2) // tick


class BrokerClient:
    """Calls of one account over one channel.

    ``fee_ppm`` per ticker: fees are computed here, because the broker reports them late or not at all.
    ``time_scale``: market seconds per second, for a paper exchange. ``transport``: native, or sdk (raises
    SdkMissing).
    """

    def __init__(
        self,
        access: Access,
        fee_ppm: Mapping[str, int],
        *,
        time_scale: float = 1.0,
        transport: str = "native",
    ) -> None:
        self.access = access
        self.account_id = access.account_id
        self.limits = RateLimits(time_scale)
        self._fee_ppm = dict(fee_ppm)
        self._kind = transport
        self._transport = open_transport(transport, access)
        self._by_uid: dict[str, Instrument] = {}

    @property
    def channel(self) -> grpc.aio.Channel:
        """What the streams use, too."""
        return self._transport.channel

    @property
    def instruments(self) -> dict[str, Instrument]:
        """Instruments resolved so far, by uid."""
        return self._by_uid

    def set_fees(self, fee_ppm: Mapping[str, int]) -> None:
        self._fee_ppm = dict(fee_ppm)

    async def switch(self, access: Access) -> None:
        """Goes on over another channel (fail-over); calls in flight on the old one end as UNKNOWN."""
        old, self._transport = self._transport, open_transport(self._kind, access)
        self.access = access
        await old.close()

    async def close(self) -> None:
        await self._transport.close()

    # ---- the account ----

    async def choose_account(self) -> str:
        """The configured account, or the only open one; checks that the token may trade on it."""
        reply = await self._read("UsersService/GetAccounts", pb.GetAccountsRequest())
        accounts = {a.id: a for a in reply.accounts if a.status != pb.ACCOUNT_STATUS_CLOSED}
        if self.account_id:
            if self.account_id not in accounts:
                raise BrokerError(
                    f"broker.account_id {self.account_id} is not among the accounts of the token: "
                    f"{', '.join(accounts) or 'none'}"
                )
        elif len(accounts) != 1:
            raise BrokerError(
                f"the token sees {len(accounts)} accounts ({', '.join(accounts)}); set broker.account_id"
            )
        self.account_id = self.account_id or next(iter(accounts))
        level = accounts[self.account_id].access_level
        if level in (pb.ACCOUNT_ACCESS_LEVEL_READ_ONLY, pb.ACCOUNT_ACCESS_LEVEL_NO_ACCESS):
            raise BrokerError(
                f"the token may not trade on account {self.account_id}; make one with full access"
            )
        return self.account_id

    async def learn_limits(self) -> str:
        """Asks for the account's own limits; empty, or why the documented ones stay in force."""
        try:
            reply = await self._read("UsersService/GetUserTariff", pb.GetUserTariffRequest())
        except CallFailed as error:
            return str(error)
        self.limits.learn(
            Allowance(
                tuple(name.rpartition(".")[2] for name in row.methods),
                row.limit_per_minute,
                row.limit_per_second,
            )
            for row in reply.unary_limits
        )
        return ""

    async def instrument(self, name: str) -> Instrument:
        """The instrument called ``TICKER`` or ``TICKER_CLASSCODE``. BrokerError if unknown or ambiguous."""
        ticker, _, class_code = name.partition("_")
        if not class_code:
            class_code = await self._class_code(ticker)
        try:
            request = pb.InstrumentRequest(
                id_type=pb.INSTRUMENT_ID_TYPE_TICKER, class_code=class_code, id=ticker
            )
            try:
                reply = await self._read("InstrumentsService/ShareBy", request)
                found = convert.share(reply.instrument)
            except CallFailed as error:
                if error.failure.code not in ("50002", "30041"):
                    raise
                found = await self._future(request)
        except CallFailed as error:
            if error.failure.code == "50002":
                raise BrokerError(
                    f"the broker knows no share or future {name}; check data.instruments"
                ) from None
            raise
        self._by_uid[found.uid] = found
        return found

    async def _future(self, request: pb.InstrumentRequest) -> Instrument:
        reply = await self._read("InstrumentsService/FutureBy", request)
        message = reply.instrument
        if convert.to_nano(message.min_price_increment_amount) <= 0:
            margin = await self._read(
                "InstrumentsService/GetFuturesMargin", pb.GetFuturesMarginRequest(instrument_id=message.uid)
            )
            message.min_price_increment_amount.CopyFrom(margin.min_price_increment_amount)
        return convert.future(message)

    async def _class_code(self, ticker: str) -> str:
        reply = await self._read("InstrumentsService/FindInstrument", pb.FindInstrumentRequest(query=ticker))
        found = [i for i in reply.instruments[:MAX_INSTRUMENTS_FOUND] if i.ticker == ticker]
        codes = sorted(
            {i.class_code for i in found if i.api_trade_available_flag} or {i.class_code for i in found}
        )
        if len(codes) == 1:
            return codes[0]
        if "TQBR" in codes:
            return "TQBR"
        if not codes:
            raise BrokerError(f"the broker knows no instrument {ticker}; check data.instruments")
        raise BrokerError(f"{ticker} trades on several boards ({', '.join(codes)}); write {ticker}_CLASSCODE")

    async def state(self) -> AccountState:
        """Positions and working orders as the broker has them now."""
        positions = await self._read(
            "OperationsService/GetPositions", pb.PositionsRequest(account_id=self.account_id)
        )
        if positions.limits_loading_in_progress:
            raise BrokerError(
                "the broker is still loading the account's limits; positions are not complete yet"
            )
        orders = await self._read("OrdersService/GetOrders", pb.GetOrdersRequest(account_id=self.account_id))
        lots: dict[str, int] = {}
        odd: dict[str, int] = {}
        for item in [*positions.securities, *positions.futures]:
            instrument = self._by_uid.get(item.instrument_uid)
            if instrument is None:
                continue  # not ours to trade
            # Units held for a working sell order are "blocked" but still ours.
            units = item.balance + (item.blocked if item.balance >= 0 else -item.blocked)
            whole, rest = divmod(abs(units), instrument.lot)
            lots[instrument.ticker] = whole if units >= 0 else -whole
            if rest:
                odd[instrument.ticker] = rest if units >= 0 else -rest
        cash = sum(convert.to_nano(m) for m in positions.money if m.currency.lower() == "rub")
        return AccountState(
            {t: n for t, n in lots.items() if n},
            tuple(o for o in (self._open_order(order) for order in orders.orders) if o is not None),
            cash,
            odd,
        )

    def _open_order(self, order: pb.OrderState) -> OpenOrder | None:
        instrument = self._by_uid.get(order.instrument_uid)
        if instrument is None:
            return None
        return OpenOrder(
            client_order_id=order.order_request_id,
            exchange_order_id=order.order_id,
            ticker=instrument.ticker,
            side=BUY if order.direction == pb.ORDER_DIRECTION_BUY else SELL,
            lots=order.lots_requested,
            lots_executed=order.lots_executed,
        )

    async def order_book(self, instrument: Instrument, depth: int) -> Levels:
        """The book as the broker has it now; raises CallFailed, ConversionError."""
        request = pb.GetOrderBookRequest(instrument_id=instrument.uid, depth=depth)
        reply = await self.call("MarketDataService/GetOrderBook", request, wait_s=MAX_OTHER_WAIT_S)
        return levels(reply, instrument)

    async def last_price_nano(self, instrument_id: str) -> int | None:
        """The last price of anything that has one (an index too), in billionths of a point; None: unknown.

        Raises CallFailed.
        """
        request = pb.GetLastPricesRequest(instrument_id=[instrument_id])
        reply = await self.call("MarketDataService/GetLastPrices", request, wait_s=MAX_OTHER_WAIT_S)
        prices = [convert.to_nano(found.price) for found in reply.last_prices if found.HasField("price")]
        return prices[0] if prices else None

    # ---- orders ----

    async def place(self, order: PlaceOrder, instrument: Instrument) -> OrderReport:
        """Sends the order once. Never raises for a broker's failure and never sends again."""
        key = "OrdersService/PostOrder"
        if order.order_type == "stop":
            return OrderReport(order.client_order_id, "REJECTED", reason="STOP_ORDERS_NOT_SUPPORTED")
        if self.limits.wait_s(key) > MAX_ORDER_WAIT_S:
            return OrderReport(order.client_order_id, "REJECTED", reason="OWN_RATE_LIMIT")
        request = pb.PostOrderRequest(
            quantity=order.lots,
            direction=pb.ORDER_DIRECTION_BUY if order.side == BUY else pb.ORDER_DIRECTION_SELL,
            account_id=self.account_id,
            order_type=pb.ORDER_TYPE_MARKET if order.price_ticks is None else pb.ORDER_TYPE_LIMIT,
            order_id=order.client_order_id,
            instrument_id=instrument.uid,
            price_type=pb.PRICE_TYPE_POINT if instrument.kind == "future" else pb.PRICE_TYPE_CURRENCY,
            confirm_margin_trade=self.access.confirm_margin_trade,
        )
        if order.price_ticks is not None:
            request.price.CopyFrom(convert.ticks_to_quotation(order.price_ticks, instrument.tick_nano))
            request.time_in_force = _TIF[order.tif]
        try:
            reply = await self.call(key, request, wait_s=MAX_ORDER_WAIT_S)
        except CallFailed as error:
            return await self._after_failed_place(order.client_order_id, error.failure)
        return OrderReport(
            order.client_order_id,
            status_of(reply.execution_report_status, reply.lots_executed, reply.lots_requested),
            reply.order_id,
            reply.lots_executed,
            reason=reply.message,
            ticker=instrument.ticker,
        )

    async def _after_failed_place(self, client_order_id: str, failure: Failure) -> OrderReport:
        if failure.verdict is Verdict.REFUSED or failure.verdict is Verdict.NOT_FOUND:
            return OrderReport(client_order_id, "REJECTED", reason=str(failure))
        if failure.verdict is Verdict.DUPLICATE:
            # It got there with an earlier attempt of this very key.
            return await self.query(client_order_id)
        return OrderReport(client_order_id, "UNKNOWN", reason=str(failure))

    async def cancel(self, client_order_id: str, exchange_order_id: str) -> OrderReport | None:
        """Asks for a cancel. None: accepted, the stream tells the rest; a report: it was already over, or
        unknown.
        """
        for order_id, kind in _both_ids(client_order_id, exchange_order_id):
            request = pb.CancelOrderRequest(account_id=self.account_id, order_id=order_id, order_id_type=kind)
            try:
                await self.call("OrdersService/CancelOrder", request, wait_s=MAX_OTHER_WAIT_S)
            except CallFailed as error:
                if error.failure.verdict is Verdict.NOT_FOUND:
                    continue
                if error.failure.code == CANCEL_FAILED or error.failure.verdict is Verdict.UNKNOWN:
                    break
                return OrderReport(client_order_id, "UNKNOWN", exchange_order_id, reason=str(error.failure))
            return None
        return await self.query(client_order_id, exchange_order_id)

    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport:
        """The broker's word on one order, looked for by both ids and in today's list before "not found" is
        believed.
        """
        for order_id, kind in _both_ids(client_order_id, exchange_order_id):
            request = pb.GetOrderStateRequest(
                account_id=self.account_id,
                order_id=order_id,
                order_id_type=kind,
                price_type=pb.PRICE_TYPE_POINT,
            )
            try:
                reply = await self.call("OrdersService/GetOrderState", request, wait_s=MAX_OTHER_WAIT_S)
            except CallFailed as error:
                if error.failure.verdict is not Verdict.NOT_FOUND:
                    return OrderReport(
                        client_order_id, "UNKNOWN", exchange_order_id, reason=str(error.failure)
                    )
            else:
                return self.report(client_order_id, reply)
        return await self._search(client_order_id, exchange_order_id)

    async def _search(self, client_order_id: str, exchange_order_id: str) -> OrderReport:
        # Users report that GetOrderState by the client's key fails on some accounts: look through the list
        # too.
        wanted = pb.GetOrdersRequest(account_id=self.account_id)
        wanted.advanced_filters.execution_status.extend(_STATUS)
        for request in (wanted, pb.GetOrdersRequest(account_id=self.account_id)):
            try:
                reply = await self.call("OrdersService/GetOrders", request, wait_s=MAX_OTHER_WAIT_S)
            except CallFailed as error:
                if error.failure.verdict is Verdict.REFUSED and request is wanted:
                    continue
                return OrderReport(client_order_id, "UNKNOWN", exchange_order_id, reason=str(error.failure))
            for order in reply.orders:
                if order.order_request_id == client_order_id:
                    return self.report(client_order_id, order)
        return OrderReport(
            client_order_id,
            "UNKNOWN",
            exchange_order_id,
            reason="the broker does not know it",
            not_found=True,
        )

    def report(self, client_order_id: str, order: pb.OrderState) -> OrderReport:
        """An ``OrderReport`` from GetOrderState or GetOrders."""
        instrument = self._by_uid.get(order.instrument_uid)
        fills = (
            () if instrument is None else tuple(self._stage_fill(stage, instrument) for stage in order.stages)
        )
        return OrderReport(
            client_order_id,
            status_of(order.execution_report_status, order.lots_executed, order.lots_requested),
            order.order_id,
            order.lots_executed,
            fills,
            ticker=instrument.ticker if instrument else "",
        )

    def _stage_fill(self, stage: pb.OrderStage, instrument: Instrument) -> FillInfo:
        price_ticks = unit_price_ticks(convert.to_nano(stage.price), instrument)
        return self.fill(stage.trade_id, price_ticks, stage.quantity, instrument)

    def fill(self, trade_id: str, price_ticks: int, lots: int, instrument: Instrument) -> FillInfo:
        """A deal of ours with its fee by the tariff, rounded up."""
        ppm = self._fee_ppm.get(instrument.ticker)
        if ppm is None:
            raise BrokerError(f"no commission is known for {instrument.ticker}; set broker.tariff")
        return FillInfo(
            trade_id, price_ticks, lots, fee_nano(instrument.notional_nano(price_ticks, lots), ppm)
        )

    # ---- calls ----

    async def _read(self, key: str, request: Any) -> Any:
        """A call that changes nothing: tried again on time-outs and lost connections."""
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                return await self.call(key, request, wait_s=MAX_OTHER_WAIT_S)
            except CallFailed as error:
                failure = error.failure
                again = failure.verdict is Verdict.UNKNOWN or failure.code == RATE_LIMITED
                if not again or attempt == READ_ATTEMPTS:
                    raise
                await asyncio.sleep(max(failure.retry_after_s, READ_PAUSE_S * attempt))
        raise AssertionError("unreachable")

    async def call(self, key: str, request: Any, *, wait_s: float) -> Any:
        """One call of "Service/Method" in its turn. Raises CallFailed."""
        return await guarded(self._transport, self.limits, key, request, wait_s=wait_s)
