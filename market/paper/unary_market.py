"""MarketDataService: books, prices, statuses, trades and candles of this moment."""

from __future__ import annotations

import numpy as np

from market.contract import invest_pb2 as pb
from market.paper import messages_market
from market.paper.behaviours import Behaviours, period_ns
from market.paper.candles import DAY_NS, HISTORIC, Interval, history
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.refusals import Refusal
from market.paper.requests import check_depth, instrument_id, listing_of

MAX_LAST_TRADES = 1000


class MarketDataCalls:
    def __init__(self, exchange: Exchange, clock: MarketClock) -> None:
        self._exchange = exchange
        self._clock = clock

    def behaviours(self) -> Behaviours:
        return {
            "MarketDataService/GetOrderBook": self.get_order_book,
            "MarketDataService/GetLastPrices": self.get_last_prices,
            "MarketDataService/GetTradingStatus": self.get_trading_status,
            "MarketDataService/GetTradingStatuses": self.get_trading_statuses,
            "MarketDataService/GetLastTrades": self.get_last_trades,
            "MarketDataService/GetCandles": self.get_candles,
        }

    def _listing(self, identifier: str) -> Listing:
        return listing_of(self._exchange, identifier)[1]

    async def get_order_book(self, request: pb.GetOrderBookRequest) -> pb.GetOrderBookResponse:
        check_depth(request.depth)
        return messages_market.book_reply(self._listing(instrument_id(request)), request.depth)

    async def get_last_prices(self, request: pb.GetLastPricesRequest) -> pb.GetLastPricesResponse:
        wanted = list(request.instrument_id) or [figi for figi in request.figi if figi]
        listings = [self._listing(name) for name in wanted] if wanted else self._exchange.listings
        return pb.GetLastPricesResponse(last_prices=[messages_market.last_price(x) for x in listings])

    async def get_trading_status(self, request: pb.GetTradingStatusRequest) -> pb.GetTradingStatusResponse:
        return messages_market.status_reply(self._listing(instrument_id(request)))

    async def get_trading_statuses(
        self, request: pb.GetTradingStatusesRequest
    ) -> pb.GetTradingStatusesResponse:
        statuses = [messages_market.status_reply(self._listing(name)) for name in request.instrument_id]
        return pb.GetTradingStatusesResponse(trading_statuses=statuses)

    async def get_last_trades(self, request: pb.GetLastTradesRequest) -> pb.GetLastTradesResponse:
        """The latest trades of the period that were played already, oldest first."""
        listing = self._listing(instrument_id(request))
        played = listing.trades.exch_ns[: listing.trade_row + 1]
        from_ns, to_ns = period_ns(request)
        rows = np.flatnonzero((played >= from_ns) & (played < to_ns))[-MAX_LAST_TRADES:]
        return pb.GetLastTradesResponse(trades=[messages_market.trade(listing, int(row)) for row in rows])

    async def get_candles(self, request: pb.GetCandlesRequest) -> pb.GetCandlesResponse:
        """Candles of the trades that were played already; at most ``limit``, the newest of them.

        Raises Refusal: 30011 interval, 30228 neither from nor limit, 30004 no to, 30220 limit together with
        candle_source_type, 30003 backwards, 30014 too long for the interval.
        """
        interval = HISTORIC.get(request.interval)
        if interval is None:
            raise Refusal("30011", str(request.interval))
        listing = self._listing(instrument_id(request))
        from_ns, to_ns = _candle_period(request, interval)
        played = listing.trade_row + 1
        if request.limit == 0 and to_ns - from_ns < interval.length_ns:
            return pb.GetCandlesResponse()
        bars = history(listing.trades, played, interval, from_ns, to_ns)
        most = min(request.limit, interval.limit) if request.limit > 0 else interval.limit
        now_ns = self._clock.now_ns()
        return pb.GetCandlesResponse(
            candles=[
                messages_market.historic_candle(
                    listing, bar, complete=interval.end_ns(bar.start_ns) <= now_ns
                )
                for bar in bars[-most:]
            ]
        )


def _candle_period(request: pb.GetCandlesRequest, interval: Interval) -> tuple[int, int]:
    """[from, to) with the time of day left out for candles of a day and more."""
    limited = request.limit > 0
    if limited and request.HasField("candle_source_type"):
        raise Refusal("30220")
    if not request.HasField("from") and not limited:
        raise Refusal("30228")
    if not request.HasField("to") and not limited:
        raise Refusal("30004")
    from_ns, to_ns = period_ns(request)
    if to_ns < from_ns:
        raise Refusal("30003")
    if not limited and to_ns - from_ns > interval.period_ns:
        raise Refusal("30014")
    if interval.end_ns(0) >= DAY_NS:
        from_ns, to_ns = from_ns // DAY_NS * DAY_NS, -(-to_ns // DAY_NS) * DAY_NS
    return from_ns, to_ns
