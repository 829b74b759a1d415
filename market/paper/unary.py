"""The unary methods: accounts, instruments, market data, orders and positions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from market.contract import invest_pb2 as pb
from market.contract.convert import ticks_to_quotation, timestamp, to_ns
from market.paper import messages
from market.paper.calls import tracking_id
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange, Listing, PaperOrder
from market.paper.refusals import Refusal
from market.paper.replayer import Replayer
from market.paper.requests import (
    check_account,
    check_depth,
    check_key,
    find_order,
    instrument_id,
    listing_of,
    order_request,
)  # fmt: skip
from market.types import SECOND_NS

MAX_CANDLES = 2400
MAX_LAST_TRADES = 1000
MINUTE_NS = 60 * SECOND_NS


class UnaryServices:
    """``behaviours()`` maps "Service/Method" to a coroutine function from request to reply."""

    def __init__(
        self,
        exchange: Exchange,
        replayer: Replayer,
        clock: MarketClock,
        entry_latency_ns: int,
        span_ns: tuple[int, int],
    ) -> None:
        self._exchange = exchange
        self._replayer = replayer
        self._clock = clock
        self._entry_latency_ns = entry_latency_ns
        self._span_ns = span_ns
        self._on_the_way: dict[str, asyncio.Future[None]] = {}

    def behaviours(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        return {
            "UsersService/GetAccounts": self.get_accounts,
            "UsersService/GetInfo": self.get_info,
            "UsersService/GetUserTariff": self.get_user_tariff,
            "InstrumentsService/ShareBy": self.share_by,
            "InstrumentsService/Shares": self.shares,
            "InstrumentsService/FutureBy": self.future_by,
            "InstrumentsService/Futures": self.futures,
            "InstrumentsService/GetInstrumentBy": self.get_instrument_by,
            "InstrumentsService/FindInstrument": self.find_instrument,
            "InstrumentsService/TradingSchedules": self.trading_schedules,
            "MarketDataService/GetOrderBook": self.get_order_book,
            "MarketDataService/GetLastPrices": self.get_last_prices,
            "MarketDataService/GetTradingStatus": self.get_trading_status,
            "MarketDataService/GetTradingStatuses": self.get_trading_statuses,
            "MarketDataService/GetLastTrades": self.get_last_trades,
            "MarketDataService/GetCandles": self.get_candles,
            "OrdersService/PostOrder": self.post_order,
            "OrdersService/CancelOrder": self.cancel_order,
            "OrdersService/GetOrderState": self.get_order_state,
            "OrdersService/GetOrders": self.get_orders,
            "OperationsService/GetPositions": self.get_positions,
            "OperationsService/GetPortfolio": self.get_portfolio,
        }

    def abandon(self) -> None:
        """The server stops: nobody will wait for what is on the way."""
        for future in self._on_the_way.values():
            future.cancel()

    # ------------------------------------------------------------------ users

    async def get_accounts(self, request: pb.GetAccountsRequest) -> pb.GetAccountsResponse:
        account = pb.Account(
            id=self._exchange.account.account_id, type=pb.ACCOUNT_TYPE_TINKOFF, name="paper",
            status=pb.ACCOUNT_STATUS_OPEN, opened_date=timestamp(self._span_ns[0]),
            access_level=pb.ACCOUNT_ACCESS_LEVEL_FULL_ACCESS,
        )  # fmt: skip
        wanted = (pb.ACCOUNT_STATUS_UNSPECIFIED, pb.ACCOUNT_STATUS_OPEN, pb.ACCOUNT_STATUS_ALL)
        return pb.GetAccountsResponse(accounts=[account] if request.status in wanted else [])

    async def get_info(self, request: pb.GetInfoRequest) -> pb.GetInfoResponse:
        return pb.GetInfoResponse(
            tariff=self._exchange.tariff.name,
            user_id="paper",
            qualified_for_work_with=["derivative", "leverage"],
        )

    async def get_user_tariff(self, request: pb.GetUserTariffRequest) -> pb.GetUserTariffResponse:
        return pb.GetUserTariffResponse()

    # ------------------------------------------------------------------ instruments

    def _kind(self, kind: str) -> Iterator[Listing]:
        return (listing for listing in self._exchange.listings if listing.instrument.kind == kind)

    def _by_request(self, request: pb.InstrumentRequest, kind: str | None = None) -> Listing:
        if not request.id:
            raise Refusal("30093")
        if request.id_type == pb.INSTRUMENT_ID_TYPE_TICKER and not request.class_code:
            raise Refusal("30013")
        for listing in self._exchange.listings:
            i = listing.instrument
            key = {
                pb.INSTRUMENT_ID_TYPE_FIGI: i.figi,
                pb.INSTRUMENT_ID_TYPE_TICKER: i.ticker if i.class_code == request.class_code else None,
                pb.INSTRUMENT_ID_TYPE_UID: i.uid,
                pb.INSTRUMENT_ID_TYPE_POSITION_UID: i.uid,
            }.get(request.id_type)
            if key == request.id and kind in (None, i.kind):
                return listing
        raise Refusal("50002", request.id)

    async def share_by(self, request: pb.InstrumentRequest) -> pb.ShareResponse:
        return pb.ShareResponse(instrument=messages.share(self._by_request(request, "share")))

    async def shares(self, request: pb.InstrumentsRequest) -> pb.SharesResponse:
        return pb.SharesResponse(instruments=[messages.share(x) for x in self._kind("share")])

    async def future_by(self, request: pb.InstrumentRequest) -> pb.FutureResponse:
        return pb.FutureResponse(instrument=messages.future(self._by_request(request, "future")))

    async def futures(self, request: pb.InstrumentsRequest) -> pb.FuturesResponse:
        return pb.FuturesResponse(instruments=[messages.future(x) for x in self._kind("future")])

    async def get_instrument_by(self, request: pb.InstrumentRequest) -> pb.InstrumentResponse:
        return pb.InstrumentResponse(instrument=messages.instrument(self._by_request(request)))

    async def find_instrument(self, request: pb.FindInstrumentRequest) -> pb.FindInstrumentResponse:
        query = request.query.lower()
        found = []
        for listing in self._exchange.listings:
            i = listing.instrument
            if any(query in text.lower() for text in (i.uid, i.figi, i.ticker, i.name)):
                found.append(messages.instrument_short(listing))
        if request.HasField("instrument_kind"):
            found = [short for short in found if short.instrument_kind == request.instrument_kind]
        return pb.FindInstrumentResponse(instruments=found)

    async def trading_schedules(self, request: pb.TradingSchedulesRequest) -> pb.TradingSchedulesResponse:
        """One trading day: the span of the recording."""
        start, end = (timestamp(ns) for ns in self._span_ns)
        day = pb.TradingDay(date=start, is_trading_day=True, start_time=start, end_time=end)
        return pb.TradingSchedulesResponse(
            exchanges=[pb.TradingSchedule(exchange=messages.EXCHANGE_NAME, days=[day])]
        )

    # ------------------------------------------------------------------ market data

    def _listing(self, identifier: str) -> Listing:
        return listing_of(self._exchange, identifier)[1]

    async def get_order_book(self, request: pb.GetOrderBookRequest) -> pb.GetOrderBookResponse:
        check_depth(request.depth)
        return messages.book_reply(self._listing(instrument_id(request)), request.depth)

    async def get_last_prices(self, request: pb.GetLastPricesRequest) -> pb.GetLastPricesResponse:
        wanted = list(request.instrument_id) or [figi for figi in request.figi if figi]
        listings = [self._listing(name) for name in wanted] if wanted else self._exchange.listings
        return pb.GetLastPricesResponse(last_prices=[messages.last_price(x) for x in listings])

    async def get_trading_status(self, request: pb.GetTradingStatusRequest) -> pb.GetTradingStatusResponse:
        return messages.status_reply(self._listing(instrument_id(request)))

    async def get_trading_statuses(
        self, request: pb.GetTradingStatusesRequest
    ) -> pb.GetTradingStatusesResponse:
        statuses = [messages.status_reply(self._listing(name)) for name in request.instrument_id]
        return pb.GetTradingStatusesResponse(trading_statuses=statuses)

    async def get_last_trades(self, request: pb.GetLastTradesRequest) -> pb.GetLastTradesResponse:
        """The latest trades of the period that were played already, oldest first."""
        listing = self._listing(instrument_id(request))
        played = listing.trades.exch_ns[: listing.trade_row + 1]
        from_ns, to_ns = to_ns_pair(request)
        rows = np.flatnonzero((played >= from_ns) & (played < to_ns))[-MAX_LAST_TRADES:]
        return pb.GetLastTradesResponse(trades=[messages.trade(listing, int(row)) for row in rows])

    async def get_candles(self, request: pb.GetCandlesRequest) -> pb.GetCandlesResponse:
        """One-minute candles from the trades that were played already."""
        if request.interval != pb.CANDLE_INTERVAL_1_MIN:
            raise Refusal("12001", "candles of another interval than one minute")
        listing = self._listing(instrument_id(request))
        t, played = listing.trades, listing.trade_row + 1
        from_ns, to_ns = to_ns_pair(request)
        rows = np.flatnonzero((t.exch_ns[:played] >= from_ns) & (t.exch_ns[:played] < to_ns))
        minutes = t.exch_ns[rows] // MINUTE_NS
        changes = np.flatnonzero(minutes[1:] != minutes[:-1]) + 1
        candles = []
        for chunk in np.split(rows, changes) if len(rows) else []:
            px, side, qty = t.px[chunk], t.side[chunk], t.qty[chunk]
            start_ns = int(t.exch_ns[chunk[0]]) // MINUTE_NS * MINUTE_NS
            prices = (px[0], px.max(), px.min(), px[-1])
            o, h, low, c = (ticks_to_quotation(int(p), listing.instrument.tick_nano) for p in prices)
            candles.append(
                pb.HistoricCandle(
                    open=o, high=h, low=low, close=c, volume=int(qty.sum()), time=timestamp(start_ns),
                    is_complete=start_ns + MINUTE_NS <= self._clock.now_ns(),
                    candle_source=pb.CANDLE_SOURCE_EXCHANGE, volume_buy=int(qty[side > 0].sum()),
                    volume_sell=int(qty[side < 0].sum()),
                )
            )  # fmt: skip
        return pb.GetCandlesResponse(candles=candles[-MAX_CANDLES:])

    # ------------------------------------------------------------------ orders

    async def post_order(self, request: pb.PostOrderRequest) -> pb.PostOrderResponse:
        """Answers when the order has met the market. A repeated key gives the first order's state."""
        check_account(self._exchange, request.account_id)
        check_key(request.order_id)
        order = self._exchange.by_key(request.order_id)
        if order is None:
            order = self._accept(request)
        on_the_way = self._on_the_way.get(order.key)
        if on_the_way is not None:
            await asyncio.shield(on_the_way)
        return messages.post_order_reply(order, self._exchange, tracking_id(), self._clock.now_ns())

    def _accept(self, request: pb.PostOrderRequest) -> PaperOrder:
        asked = order_request(self._exchange, request)
        order = self._exchange.accept(
            asked.key,
            asked.listing,
            asked.side,
            asked.lots,
            asked.price_ticks,
            asked.tif,
            self._clock.now_ns(),
        )
        future = self._after_latency(partial(self._exchange.reach, order))
        self._on_the_way[order.key] = future
        future.add_done_callback(lambda _: self._on_the_way.pop(order.key, None))
        return order

    def _after_latency(self, action: Callable[[int], None]) -> asyncio.Future[None]:
        """Runs ``action`` when a request that arrives now reaches the exchange, in market time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def run(now_ns: int) -> None:
            try:
                action(now_ns)
            except Refusal as refusal:
                if not future.done():
                    future.set_exception(refusal)
            else:
                if not future.done():
                    future.set_result(None)

        # A clock that stands still would never bring the moment.
        latency_ns = self._entry_latency_ns if self._clock.running else 0
        self._replayer.schedule(self._clock.now_ns() + latency_ns, run)
        return future

    async def cancel_order(self, request: pb.CancelOrderRequest) -> pb.CancelOrderResponse:
        check_account(self._exchange, request.account_id)
        order = find_order(self._exchange, request.order_id, request.order_id_type)
        await self._after_latency(partial(self._exchange.cancel, order))
        reply = pb.CancelOrderResponse(time=timestamp(order.changed_ns))
        reply.response_metadata.tracking_id = tracking_id()
        reply.response_metadata.server_time.CopyFrom(timestamp(self._clock.now_ns()))
        return reply

    async def get_order_state(self, request: pb.GetOrderStateRequest) -> pb.OrderState:
        check_account(self._exchange, request.account_id)
        order = find_order(self._exchange, request.order_id, request.order_id_type)
        return messages.order_state(order, self._exchange)

    async def get_orders(self, request: pb.GetOrdersRequest) -> pb.GetOrdersResponse:
        """Active orders, or with filters the orders of the session that match them."""
        check_account(self._exchange, request.account_id)
        if not request.HasField("advanced_filters"):
            states = [messages.order_state(o, self._exchange) for o in self._exchange.active_orders]
            return pb.GetOrdersResponse(orders=states)
        filters = request.advanced_filters
        from_ns, to_ns = to_ns_pair(filters)
        states = [
            messages.order_state(order, self._exchange)
            for order in self._exchange.orders
            if from_ns <= order.created_ns < to_ns
        ]
        wanted = set(filters.execution_status)
        return pb.GetOrdersResponse(
            orders=[s for s in states if not wanted or s.execution_report_status in wanted]
        )

    # ------------------------------------------------------------------ operations

    async def get_positions(self, request: pb.PositionsRequest) -> pb.PositionsResponse:
        check_account(self._exchange, request.account_id)
        return messages.positions(self._exchange)

    async def get_portfolio(self, request: pb.PortfolioRequest) -> pb.PortfolioResponse:
        check_account(self._exchange, request.account_id)
        return messages.portfolio(self._exchange)


def to_ns_pair(request: Any) -> tuple[int, int]:
    """(from, to) of a request that has these fields; an absent ``to`` is the end of time."""
    end = to_ns(request.to) if request.HasField("to") else np.iinfo(np.int64).max
    return to_ns(getattr(request, "from")), int(end)
