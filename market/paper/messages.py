"""The exchange's state as the contract's messages. Every unit rule of the API lives here, none in the
exchange.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from market.contract import invest_pb2 as pb
from market.contract.convert import money, quotation, ticks_to_quotation, timestamp, unit_money_nano
from market.matching import Execution
from market.paper.exchange import Cause, Exchange, Listing, PaperOrder, Status
from market.types import BOOK_CONSISTENT, BUY, SELL, Instrument

EXCHANGE_NAME = "MOEX"

DIRECTION = {BUY: pb.ORDER_DIRECTION_BUY, SELL: pb.ORDER_DIRECTION_SELL}
TIME_IN_FORCE = {
    "day": pb.TIME_IN_FORCE_DAY,
    "fak": pb.TIME_IN_FORCE_FILL_AND_KILL,
    "fok": pb.TIME_IN_FORCE_FILL_OR_KILL,
}
_STATUS = {
    Status.NEW: pb.EXECUTION_REPORT_STATUS_NEW,
    Status.PARTIAL: pb.EXECUTION_REPORT_STATUS_PARTIALLYFILL,
    Status.FILLED: pb.EXECUTION_REPORT_STATUS_FILL,
    Status.CANCELLED: pb.EXECUTION_REPORT_STATUS_CANCELLED,
}
_CAUSE = {
    Cause.CLIENT: pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT,
    Cause.EXCHANGE: pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_EXCHANGE,
}
_TRADE_DIRECTION = {BUY: pb.TRADE_DIRECTION_BUY, SELL: pb.TRADE_DIRECTION_SELL}

# ---------------------------------------------------------------- instruments


def trading_status(listing: Listing) -> pb.SecurityTradingStatus:
    if not listing.tradable:
        return pb.SECURITY_TRADING_STATUS_NOT_AVAILABLE_FOR_TRADING
    if listing.instrument.kind == "future":
        return pb.SECURITY_TRADING_STATUS_SESSION_OPEN
    return pb.SECURITY_TRADING_STATUS_NORMAL_TRADING


def share(listing: Listing) -> pb.Share:
    i = listing.instrument
    return pb.Share(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=EXCHANGE_NAME,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, real_exchange=pb.REAL_EXCHANGE_MOEX, liquidity_flag=True,
        share_type=pb.SHARE_TYPE_COMMON, position_uid=i.uid, asset_uid=i.uid,
    )  # fmt: skip


def future(listing: Listing) -> pb.Future:
    i = listing.instrument
    return pb.Future(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=EXCHANGE_NAME,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, real_exchange=pb.REAL_EXCHANGE_RTS, position_uid=i.uid,
        min_price_increment_amount=quotation(i.tick_value_nano // i.lot),
    )  # fmt: skip


def _kind(i: Instrument) -> tuple[str, pb.InstrumentType]:
    return (
        ("share", pb.INSTRUMENT_TYPE_SHARE) if i.kind == "share" else ("futures", pb.INSTRUMENT_TYPE_FUTURES)
    )


def instrument(listing: Listing) -> pb.Instrument:
    i = listing.instrument
    text, kind = _kind(i)
    return pb.Instrument(
        figi=i.figi, ticker=i.ticker, class_code=i.class_code, lot=i.lot, currency=i.currency,
        name=i.name or i.ticker,
        uid=i.uid, min_price_increment=quotation(i.tick_nano), short_enabled_flag=True,
        exchange=EXCHANGE_NAME,
        trading_status=trading_status(listing), buy_available_flag=True, sell_available_flag=True,
        api_trade_available_flag=True, position_uid=i.uid, instrument_type=text, instrument_kind=kind,
    )  # fmt: skip


def instrument_short(listing: Listing) -> pb.InstrumentShort:
    i = listing.instrument
    text, kind = _kind(i)
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
    return pb.OrderBook(
        figi=i.figi, depth=depth, is_consistent=bool(b.flags[row] & BOOK_CONSISTENT), bids=bids, asks=asks,
        time=timestamp(int(b.exch_ns[row])), instrument_uid=i.uid, order_book_type=pb.ORDERBOOK_TYPE_EXCHANGE,
        ticker=i.ticker, class_code=i.class_code,
    )  # fmt: skip


def book_bytes(listing: Listing, row: int, depth: int) -> bytes:
    """``MarketDataResponse(orderbook=book(...))``, serialised, in a sixth of the time.

    Most levels of a book were in the one before, so their bytes are kept; protobuf defines that the
    concatenation of serialised messages is their merger.
    """
    i, b = listing.instrument, listing.books
    parts = [_book_head(i, depth)]
    moment = pb.OrderBook(
        is_consistent=bool(b.flags[row] & BOOK_CONSISTENT), time=timestamp(int(b.exch_ns[row]))
    )
    parts.append(moment.SerializeToString())
    for bid, prices, sizes in ((True, b.bid_px[row], b.bid_qty[row]), (False, b.ask_px[row], b.ask_qty[row])):
        for price, size in zip(prices[:depth].tolist(), sizes[:depth].tolist(), strict=True):
            if size > 0:
                parts.append(_level_bytes(bid, price * i.tick_nano, size))
    content = b"".join(parts)
    return _ORDERBOOK_TAG + _varint(len(content)) + content


_ORDERBOOK_TAG = bytes([pb.MarketDataResponse.ORDERBOOK_FIELD_NUMBER << 3 | 2])


def _varint(value: int) -> bytes:
    """A length on the wire: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=1024)
def _book_head(i: Instrument, depth: int) -> bytes:
    return pb.OrderBook(
        figi=i.figi, depth=depth, instrument_uid=i.uid, order_book_type=pb.ORDERBOOK_TYPE_EXCHANGE,
        ticker=i.ticker, class_code=i.class_code,
    ).SerializeToString()  # fmt: skip


@lru_cache(maxsize=1 << 16)
def _level_bytes(bid: bool, price_nano: int, size: int) -> bytes:
    level = [pb.Order(price=quotation(price_nano), quantity=size)]
    return (pb.OrderBook(bids=level) if bid else pb.OrderBook(asks=level)).SerializeToString()


def book_reply(listing: Listing, depth: int) -> pb.GetOrderBookResponse:
    i, b, row = listing.instrument, listing.books, listing.book_row
    reply = pb.GetOrderBookResponse(
        figi=i.figi, depth=depth, instrument_uid=i.uid, ticker=i.ticker, class_code=i.class_code
    )
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


# ---------------------------------------------------------------- orders


def _average_unit_nano(order: PaperOrder) -> int:
    """Average executed price of one unit, money; 0 while nothing was executed."""
    units = order.lots_executed * order.instrument.lot
    return order.executed_nano // units if units else 0


def _total_nano(order: PaperOrder, exchange: Exchange) -> int:
    if order.lots_executed:
        return order.executed_nano + order.fee_nano
    return order.initial_nano + exchange.commission_nano(order)


def _order_type(order: PaperOrder) -> pb.OrderType:
    return pb.ORDER_TYPE_MARKET if order.price_ticks is None else pb.ORDER_TYPE_LIMIT


def post_order_reply(
    order: PaperOrder, exchange: Exchange, tracking_id: str, now_ns: int
) -> pb.PostOrderResponse:
    """Money in roubles, futures included. ``executed_commission`` stays 0: the broker computes it later."""
    i = order.instrument
    reply = pb.PostOrderResponse(
        order_id=order.exchange_id, execution_report_status=_STATUS[order.status], lots_requested=order.lots,
        lots_executed=order.lots_executed, initial_order_price=money(order.initial_nano),
        executed_order_price=money(_average_unit_nano(order)),
        total_order_amount=money(_total_nano(order, exchange)),
        initial_commission=money(exchange.commission_nano(order)), executed_commission=money(0),
        aci_value=money(0),
        figi=i.figi, direction=DIRECTION[order.side], order_type=_order_type(order),
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


def order_state(order: PaperOrder, exchange: Exchange) -> pb.OrderState:
    """The reply of GetOrderState: stages in LOTS, their prices in money of one unit."""
    i = order.instrument
    return pb.OrderState(
        order_id=order.exchange_id, execution_report_status=_STATUS[order.status], lots_requested=order.lots,
        lots_executed=order.lots_executed, initial_order_price=money(order.initial_nano),
        executed_order_price=money(order.executed_nano),
        total_order_amount=money(_total_nano(order, exchange)),
        average_position_price=money(_average_unit_nano(order)),
        initial_commission=money(exchange.commission_nano(order)), executed_commission=money(order.fee_nano),
        figi=i.figi, direction=DIRECTION[order.side], order_type=_order_type(order), currency="rub",
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


def order_event(order: PaperOrder, account_id: str) -> pb.OrderStateStreamResponse:
    """The order as it is now; before it reached the exchange it carries the broker's internal id."""
    i = order.instrument
    executed = order.lots_executed
    cancelled = order.lots - executed if order.status is Status.CANCELLED else 0
    state = pb.OrderStateStreamResponse.OrderState(
        order_id=order.exchange_id or order.internal_id, order_request_id=order.key,
        created_at=timestamp(order.created_ns), execution_report_status=_STATUS[order.status],
        ticker=i.ticker,
        class_code=i.class_code, lot_size=i.lot, direction=DIRECTION[order.side],
        time_in_force=TIME_IN_FORCE[order.tif], order_type=_order_type(order), account_id=account_id,
        initial_order_price=money(order.initial_nano, "RUB"),
        order_price=money(order.initial_ticks * i.tick_nano, "RUB"), amount=money(order.initial_nano, "RUB"),
        executed_order_price=money(_average_unit_nano(order), "RUB"), currency="RUB",
        lots_requested=order.lots,
        lots_executed=executed, lots_left=order.lots - executed - cancelled, lots_cancelled=cancelled,
        trades=[_order_trade(i, e) for e in order.executions], exchange=EXCHANGE_NAME, instrument_uid=i.uid,
    )  # fmt: skip
    if not order.active:
        state.completion_time.CopyFrom(timestamp(order.changed_ns))
    if order.cause is not None:
        state.status_info = _CAUSE[order.cause]
    return pb.OrderStateStreamResponse(order_state=state)


def trades_event(order: PaperOrder, account_id: str) -> pb.TradesStreamResponse:
    """The last fill of the order."""
    i = order.instrument
    return pb.TradesStreamResponse(
        order_trades=pb.OrderTrades(
            order_id=order.exchange_id, created_at=timestamp(order.changed_ns),
            direction=DIRECTION[order.side],
            figi=i.figi, trades=[_order_trade(i, order.executions[-1])], account_id=account_id,
            instrument_uid=i.uid,
        )
    )  # fmt: skip


# ---------------------------------------------------------------- positions


def positions(exchange: Exchange) -> pb.PositionsResponse:
    """Free and blocked cash in roubles; balances in UNITS, where balance + blocked is the whole position."""
    account = exchange.account
    blocked_nano = exchange.blocked_cash_nano()
    reply = pb.PositionsResponse(
        money=[money(account.cash_nano - blocked_nano)],
        blocked=[money(blocked_nano)],
        account_id=account.account_id,
    )
    for listing in exchange.listings:
        i = listing.instrument
        held, blocked = account.lots(i.ticker) * i.lot, exchange.blocked_lots(listing) * i.lot
        if not held:
            continue
        row: dict[str, Any] = {
            "figi": i.figi, "blocked": blocked, "balance": held - blocked, "position_uid": i.uid,
            "instrument_uid": i.uid, "ticker": i.ticker, "class_code": i.class_code,
        }  # fmt: skip
        if i.kind == "share":
            reply.securities.append(pb.PositionsSecurities(instrument_type="share", **row))
        else:
            reply.futures.append(pb.PositionsFutures(**row))
    return reply


def portfolio(exchange: Exchange) -> pb.PortfolioResponse:
    """Totals in roubles at the current marks."""
    account, marks = exchange.account, exchange.marks()
    totals = {"share": 0, "future": 0}
    reply = pb.PortfolioResponse(account_id=account.account_id)
    for listing in exchange.listings:
        i = listing.instrument
        lots, mark = account.lots(i.ticker), marks.get(i.ticker)
        if not lots or mark is None:
            continue
        totals[i.kind] += i.notional_nano(mark, lots)
        reply.positions.append(
            pb.PortfolioPosition(
                figi=i.figi, instrument_type=_kind(i)[0], quantity=pb.Quotation(units=lots * i.lot),
                current_price=money(unit_money_nano(i, mark)), position_uid=i.uid, instrument_uid=i.uid,
                blocked_lots=pb.Quotation(units=exchange.blocked_lots(listing) * i.lot), ticker=i.ticker,
                class_code=i.class_code,
            )
        )  # fmt: skip
    for field, nano in (
        ("total_amount_shares", totals["share"]),
        ("total_amount_futures", totals["future"]),
        ("total_amount_currencies", account.cash_nano),
        ("total_amount_portfolio", account.equity_nano(marks)),
    ):
        getattr(reply, field).CopyFrom(money(nano))
    return reply
