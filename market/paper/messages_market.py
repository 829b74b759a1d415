"""Instruments and market data as the contract's messages. Every unit rule of the API lives here, none in the
exchange.
"""

from __future__ import annotations

from typing import Any

from market.contract import invest_pb2 as pb
from market.contract.convert import money, quotation, ticks_to_quotation, timestamp
from market.paper.candles import Bar
from market.paper.desk import MAX_GROSS_TO_EQUITY
from market.paper.listing import Listing
from market.paper.schedule import Phase
from market.types import BOOK_CONSISTENT, BUY, NANO, SELL, Instrument
from market.venues import VENUES

_RISK_RATES: dict[str, Any] = {
    name: quotation(NANO // MAX_GROSS_TO_EQUITY)
    for name in ("dlong", "dshort", "dlong_min", "dshort_min", "dlong_client", "dshort_client")
}
"""Every instrument's margin as a part of its value: the paper exchange has one rule for all."""

_TRADE_DIRECTION = {BUY: pb.TRADE_DIRECTION_BUY, SELL: pb.TRADE_DIRECTION_SELL}

_STATUS = {
    Phase.CLOSED: pb.SECURITY_TRADING_STATUS_NOT_AVAILABLE_FOR_TRADING,
    Phase.OPENING: pb.SECURITY_TRADING_STATUS_OPENING_PERIOD,
    Phase.TRADING: pb.SECURITY_TRADING_STATUS_NORMAL_TRADING,
    Phase.BREAK: pb.SECURITY_TRADING_STATUS_BREAK_IN_TRADING,
}

# ---------------------------------------------------------------- instruments


def trading_status(listing: Listing) -> pb.SecurityTradingStatus:
    """A share trades normally, a future's session is open; the rest is the same for both."""
    if listing.phase is Phase.TRADING and listing.instrument.kind == "future":
        return pb.SECURITY_TRADING_STATUS_SESSION_OPEN
    return _STATUS[listing.phase]


def lot_margin(listing: Listing) -> pb.MoneyValue:
    """Initial margin of one lot at the current price; buyers and sellers are asked the same."""
    value_nano = abs(listing.instrument.notional_nano(listing.mark_ticks() or 0, 1))
    return money(-(-value_nano // MAX_GROSS_TO_EQUITY))


def share(listing: Listing) -> pb.Share:
    i = listing.instrument
    return pb.Share(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=VENUES[i.kind].name,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, real_exchange=pb.REAL_EXCHANGE_MOEX, liquidity_flag=True,
        share_type=pb.SHARE_TYPE_COMMON, position_uid=i.uid, asset_uid=i.uid, **_RISK_RATES,
    )  # fmt: skip


def future(listing: Listing) -> pb.Future:
    i = listing.instrument
    return pb.Future(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=VENUES[i.kind].name,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, real_exchange=pb.REAL_EXCHANGE_RTS, position_uid=i.uid,
        min_price_increment_amount=quotation(i.tick_value_nano // i.lot),
        initial_margin_on_buy=lot_margin(listing), initial_margin_on_sell=lot_margin(listing), **_RISK_RATES,
    )  # fmt: skip


def kind_of(i: Instrument) -> tuple[str, pb.InstrumentType]:
    return (
        ("share", pb.INSTRUMENT_TYPE_SHARE) if i.kind == "share" else ("futures", pb.INSTRUMENT_TYPE_FUTURES)
    )


def instrument(listing: Listing) -> pb.Instrument:
    i = listing.instrument
    text, kind = kind_of(i)
    return pb.Instrument(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=VENUES[i.kind].name,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, position_uid=i.uid, instrument_type=text, instrument_kind=kind,
        **_RISK_RATES,
    )  # fmt: skip


def instrument_short(listing: Listing) -> pb.InstrumentShort:
    i = listing.instrument
    text, kind = kind_of(i)
    return pb.InstrumentShort(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, name=i.name or i.ticker, uid=i.uid,
        position_uid=i.uid, instrument_type=text, instrument_kind=kind, api_trade_available_flag=True,
    )  # fmt: skip


# ---------------------------------------------------------------- market data


def _levels(listing: Listing, row: int, depth: int) -> tuple[list[pb.Order], list[pb.Order]]:
    b, tick = listing.books, listing.instrument.tick_nano
    sides = []
    for prices, sizes in ((b.bid_px[row], b.bid_qty[row]), (b.ask_px[row], b.ask_qty[row])):
        sides.append(
            [
                pb.Order(price=ticks_to_quotation(price, tick), quantity=size)
                for price, size in zip(prices[:depth].tolist(), sizes[:depth].tolist(), strict=True)
                if size > 0
            ]
        )
    return sides[0], sides[1]


def book(listing: Listing, row: int, depth: int) -> pb.OrderBook:
    i, b = listing.instrument, listing.books
    bids, asks = _levels(listing, row, depth)
    low, high = limits_nano(listing)
    return pb.OrderBook(
        figi=i.figi, depth=depth, is_consistent=bool(b.flags[row] & BOOK_CONSISTENT), bids=bids, asks=asks,
        time=timestamp(int(b.exch_ns[row])), instrument_uid=i.uid, order_book_type=pb.ORDERBOOK_TYPE_EXCHANGE,
        ticker=i.ticker, class_code=i.class_code, limit_up=quotation(high), limit_down=quotation(low),
    )  # fmt: skip


def limits_nano(listing: Listing) -> tuple[int, int]:
    """(limit down, limit up) as they stand now; 0 while the instrument has no price at all."""
    low, high = listing.limits_ticks() or (0, 0)
    return low * listing.instrument.tick_nano, high * listing.instrument.tick_nano


def book_reply(listing: Listing, depth: int) -> pb.GetOrderBookResponse:
    i, b, row = listing.instrument, listing.books, listing.book_row
    reply = pb.GetOrderBookResponse(
        figi=i.figi, depth=depth, instrument_uid=i.uid, ticker=i.ticker, class_code=i.class_code
    )
    low, high = limits_nano(listing)
    reply.limit_down.CopyFrom(quotation(low))
    reply.limit_up.CopyFrom(quotation(high))
    if row >= 0:
        bids, asks = _levels(listing, row, depth)
        reply.bids.extend(bids)
        reply.asks.extend(asks)
        reply.orderbook_ts.CopyFrom(timestamp(int(b.exch_ns[row])))
    if listing.trade_row >= 0:
        last = last_price(listing)
        reply.last_price.CopyFrom(last.price)
        reply.last_price_ts.CopyFrom(last.time)
    return reply


def trade(listing: Listing, row: int) -> pb.Trade:
    i, t = listing.instrument, listing.trades
    return pb.Trade(
        figi=i.figi, direction=_TRADE_DIRECTION.get(int(t.side[row]), pb.TRADE_DIRECTION_UNSPECIFIED),
        price=ticks_to_quotation(int(t.px[row]), i.tick_nano), quantity=int(t.qty[row]),
        time=timestamp(int(t.exch_ns[row])), instrument_uid=i.uid, trade_source=pb.TRADE_SOURCE_EXCHANGE,
        ticker=i.ticker, class_code=i.class_code,
    )  # fmt: skip


def last_price(listing: Listing) -> pb.LastPrice:
    """The last trade, or the mark while there was none; without either, price and time are left unset."""
    i, t, row = listing.instrument, listing.trades, listing.trade_row
    message = pb.LastPrice(
        figi=i.figi, instrument_uid=i.uid, ticker=i.ticker, class_code=i.class_code,
        last_price_type=pb.LAST_PRICE_EXCHANGE,
    )  # fmt: skip
    if row >= 0:
        message.price.CopyFrom(ticks_to_quotation(int(t.px[row]), i.tick_nano))
        message.time.CopyFrom(timestamp(int(t.exch_ns[row])))
    elif (mark := listing.mark_ticks()) is not None:
        message.price.CopyFrom(ticks_to_quotation(mark, i.tick_nano))
        message.time.CopyFrom(timestamp(int(listing.books.exch_ns[listing.book_row])))
    return message


def candle(listing: Listing, interval: int, bar: Bar) -> pb.Candle:
    i, tick = listing.instrument, listing.instrument.tick_nano
    return pb.Candle(
        figi=i.figi, interval=pb.SubscriptionInterval.Name(interval),
        open=ticks_to_quotation(bar.open_px, tick), high=ticks_to_quotation(bar.high_px, tick),
        low=ticks_to_quotation(bar.low_px, tick), close=ticks_to_quotation(bar.close_px, tick),
        volume=bar.lots, time=timestamp(bar.start_ns), last_trade_ts=timestamp(bar.last_trade_ns),
        instrument_uid=i.uid, ticker=i.ticker, class_code=i.class_code, volume_buy=bar.lots_buy,
        volume_sell=bar.lots_sell,
        candle_source_type=pb.CANDLE_SOURCE_EXCHANGE,
    )  # fmt: skip


def historic_candle(listing: Listing, bar: Bar, *, complete: bool) -> pb.HistoricCandle:
    tick = listing.instrument.tick_nano
    return pb.HistoricCandle(
        open=ticks_to_quotation(bar.open_px, tick), high=ticks_to_quotation(bar.high_px, tick),
        low=ticks_to_quotation(bar.low_px, tick), close=ticks_to_quotation(bar.close_px, tick),
        volume=bar.lots, time=timestamp(bar.start_ns), is_complete=complete,
        candle_source=pb.CANDLE_SOURCE_EXCHANGE, volume_buy=bar.lots_buy, volume_sell=bar.lots_sell,
    )  # fmt: skip


def status_event(listing: Listing, now_ns: int) -> pb.TradingStatus:
    i = listing.instrument
    return pb.TradingStatus(
        figi=i.figi, trading_status=trading_status(listing), time=timestamp(now_ns), instrument_uid=i.uid,
        limit_order_available_flag=listing.tradable, market_order_available_flag=listing.tradable,
        ticker=i.ticker, class_code=i.class_code,
    )  # fmt: skip


def status_reply(listing: Listing) -> pb.GetTradingStatusResponse:
    i = listing.instrument
    return pb.GetTradingStatusResponse(
        figi=i.figi, trading_status=trading_status(listing), instrument_uid=i.uid, ticker=i.ticker,
        class_code=i.class_code, limit_order_available_flag=listing.tradable,
        market_order_available_flag=listing.tradable, api_trade_available_flag=True,
    )  # fmt: skip
