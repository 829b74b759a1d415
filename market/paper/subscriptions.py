"""What one market data stream is subscribed to, and the answers to its requests to change that."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from market.contract import invest_pb2 as pb
from market.paper.calls import tracking_id
from market.paper.candles import STREAMED, GrowingCandle
from market.paper.limits import MAX_SUBSCRIPTIONS, RateLimits
from market.paper.listing import Listing
from market.paper.outbox import Outbox
from market.paper.requests import DEPTHS

_SUCCESS = pb.SUBSCRIPTION_STATUS_SUCCESS
_DEALER_BOOK, _DEALER_TRADES = pb.ORDERBOOK_TYPE_DEALER, pb.TRADE_SOURCE_DEALER


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True, eq=False)
class Subscription:
    """Trades, trading statuses or last prices of one instrument. ``item``: what to repeat in answers."""

    subscription_id: str = field(default_factory=_new_id)
    item: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class BookSubscription:
    """What a stream wants of one book; ``held_row`` waits for the throttling window to end (-1: none)."""

    depth: int
    subscription_id: str = field(default_factory=_new_id)
    sent_ns: int = 0
    held_row: int = -1

    @property
    def item(self) -> dict[str, Any]:
        return {"depth": self.depth, "order_book_type": pb.ORDERBOOK_TYPE_EXCHANGE}


@dataclass(slots=True, eq=False)
class CandleSubscription:
    """Candles of one instrument and interval; ``held``: an update waits for the throttling window to end."""

    interval: int
    waiting_close: bool
    growing: GrowingCandle
    subscription_id: str = field(default_factory=_new_id)
    sent_ns: int = 0
    held: bool = False
    closing_ns: int = -1

    @property
    def item(self) -> dict[str, Any]:
        return {"interval": self.interval, "waiting_close": self.waiting_close}


@dataclass(slots=True, eq=False)
class MarketStream:
    """One market data call: its subscriptions by index of the instrument, candles by (index, interval)."""

    stream_id: str = field(default_factory=_new_id)
    outbox: Outbox = field(default_factory=Outbox)
    books: dict[int, BookSubscription] = field(default_factory=dict)
    trades: dict[int, Subscription] = field(default_factory=dict)
    infos: dict[int, Subscription] = field(default_factory=dict)
    last_prices: dict[int, Subscription] = field(default_factory=dict)
    candles: dict[tuple[int, int], CandleSubscription] = field(default_factory=dict)
    candles_of: dict[int, list[CandleSubscription]] = field(default_factory=dict)

    @property
    def instruments(self) -> set[int]:
        return {
            *self.books, *self.trades, *self.infos, *self.last_prices, *(index for index, _ in self.candles)
        }  # fmt: skip

    @property
    def counted(self) -> int:
        """Subscriptions that count against the limit of 300."""
        return len(self.books) + len(self.trades) + len(self.candles)

    def index_candles(self) -> None:
        """Rebuilds ``candles_of`` after a change of ``candles``."""
        self.candles_of = {}
        for (index, _), subscription in self.candles.items():
            self.candles_of.setdefault(index, []).append(subscription)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where the request, the answer and its entries of one kind of data are."""

    answer: str
    entries: str
    entry: type[Any]
    table: str
    counted: bool


_KINDS = {
    "subscribe_candles_request": _Kind(
        "subscribe_candles_response", "candles_subscriptions", pb.CandleSubscription, "candles", True
    ),
    "subscribe_order_book_request": _Kind(
        "subscribe_order_book_response", "order_book_subscriptions", pb.OrderBookSubscription, "books", True
    ),
    "subscribe_trades_request": _Kind(
        "subscribe_trades_response", "trade_subscriptions", pb.TradeSubscription, "trades", True
    ),
    "subscribe_info_request": _Kind(
        "subscribe_info_response", "info_subscriptions", pb.InfoSubscription, "infos", False
    ),
    "subscribe_last_price_request": _Kind(
        "subscribe_last_price_response", "last_price_subscriptions", pb.LastPriceSubscription, "last_prices",
        False,
    ),
}  # fmt: skip


class Subscriptions:
    """Changes streams as their requests say. ``find``: an instrument by any identifier, with its index."""

    def __init__(
        self,
        listings: Sequence[Listing],
        find: Callable[[str], tuple[int, Listing] | None],
        limits: RateLimits,
    ) -> None:
        self._listings = listings
        self._find = find
        self._limits = limits

    def change(self, stream: MarketStream, kind: str, request: Any) -> pb.MarketDataResponse:
        """One answer with one entry per instrument, in the order of the request.

        A bad instrument does not fail the others. Subscribing to what is subscribed already keeps the
        subscription and its id; another depth or waiting_close replaces it.
        """
        k = _KINDS[kind]
        reply = pb.MarketDataResponse()
        answer = getattr(reply, k.answer)
        answer.tracking_id = tracking_id()
        if k.table == "trades":
            answer.trade_source = pb.TRADE_SOURCE_EXCHANGE
        action = request.subscription_action
        allowed = self._limits.may_subscribe()
        for item in request.instruments:
            found = self._find(item.instrument_id or item.figi)
            echo = _echo(k.table, request, item)
            status = self._status(stream, k, request, item, found) if allowed else _TOO_MANY
            known = None
            if found is not None and status == _SUCCESS:
                known = self._apply(stream, k.table, action, found[0], request, item)
            entry = _entry(k.entry, stream.stream_id, found, status, action, echo)
            if known is not None:
                entry.subscription_id = known.subscription_id
            elif found is None:
                # What was asked for, so that the client can tell which one failed.
                entry.figi, entry.instrument_uid = item.figi, item.instrument_id
            getattr(answer, k.entries).append(entry)
        return reply

    def mine(self, stream: MarketStream) -> Iterable[pb.MarketDataResponse]:
        """The answer to GetMySubscriptions: one message per kind that has active subscriptions."""
        for k in _KINDS.values():
            table = getattr(stream, k.table)
            if not table:
                continue
            reply = pb.MarketDataResponse()
            answer = getattr(reply, k.answer)
            answer.tracking_id = tracking_id()
            if k.table == "trades":
                answer.trade_source = pb.TRADE_SOURCE_EXCHANGE
            for key, subscription in table.items():
                index = key[0] if k.table == "candles" else key
                entry = _entry(
                    k.entry, stream.stream_id, (index, self._listings[index]), _SUCCESS,
                    pb.SUBSCRIPTION_ACTION_SUBSCRIBE, subscription.item,
                )  # fmt: skip
                entry.subscription_id = subscription.subscription_id
                getattr(answer, k.entries).append(entry)
            yield reply

    # ------------------------------------------------------------------ inside

    def _status(
        self, stream: MarketStream, k: _Kind, request: Any, item: Any, found: tuple[int, Listing] | None
    ) -> pb.SubscriptionStatus:
        action = request.subscription_action
        if action not in (pb.SUBSCRIPTION_ACTION_SUBSCRIBE, pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE):
            return pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_ACTION_IS_INVALID
        if found is None:
            return pb.SUBSCRIPTION_STATUS_INSTRUMENT_NOT_FOUND
        if k.table == "candles" and item.interval not in STREAMED:
            return pb.SUBSCRIPTION_STATUS_INTERVAL_IS_INVALID
        key = (found[0], item.interval) if k.table == "candles" else found[0]
        known = key in getattr(stream, k.table)
        if action == pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE:
            return _SUCCESS if known else pb.SUBSCRIPTION_STATUS_SUBSCRIPTION_NOT_FOUND
        if k.table == "books" and item.depth not in DEPTHS:
            return pb.SUBSCRIPTION_STATUS_DEPTH_IS_INVALID
        if k.table == "books" and item.order_book_type == _DEALER_BOOK:
            return pb.SUBSCRIPTION_STATUS_SOURCE_IS_INVALID
        if k.table == "trades" and request.trade_source == _DEALER_TRADES:
            return pb.SUBSCRIPTION_STATUS_SOURCE_IS_INVALID
        if k.counted and not known and stream.counted >= MAX_SUBSCRIPTIONS:
            return pb.SUBSCRIPTION_STATUS_LIMIT_IS_EXCEEDED
        return _SUCCESS

    def _apply(
        self, stream: MarketStream, table: str, action: int, index: int, request: Any, item: Any
    ) -> Any:
        """Adds, keeps or removes; returns the subscription concerned."""
        key: Any = (index, item.interval) if table == "candles" else index
        known: MutableMapping[Any, Any] = getattr(stream, table)
        if action == pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE:
            subscription = known.pop(key)
        else:
            subscription = known.get(key)
            if table == "books" and (subscription is None or subscription.depth != item.depth):
                subscription = BookSubscription(item.depth)
            elif table == "candles" and (
                subscription is None or subscription.waiting_close != request.waiting_close
            ):
                listing = self._listings[index]
                growing = GrowingCandle(listing.trades, listing.trade_row + 1, STREAMED[item.interval])
                subscription = CandleSubscription(item.interval, request.waiting_close, growing)
            elif subscription is None:
                subscription = Subscription(item=_echo(table, request, item))
            known[key] = subscription
        if table == "candles":
            stream.index_candles()
        return subscription


_TOO_MANY = pb.SUBSCRIPTION_STATUS_TOO_MANY_REQUESTS


def _echo(table: str, request: Any, item: Any) -> dict[str, Any]:
    """What an answer's entry repeats of the request."""
    if table == "books":
        return {"depth": item.depth, "order_book_type": pb.ORDERBOOK_TYPE_EXCHANGE}
    if table == "candles":
        echo = {"interval": item.interval, "waiting_close": request.waiting_close}
        if request.HasField("candle_source_type"):
            echo["candle_source_type"] = request.candle_source_type
        return echo
    return {"with_open_interest": request.with_open_interest} if table == "trades" else {}


def _entry(
    entry_type: type[Any],
    stream_id: str,
    found: tuple[int, Listing] | None,
    status: int,
    action: int,
    echo: dict[str, Any],
) -> Any:
    entry = entry_type(
        subscription_status=status, stream_id=stream_id, subscription_action=action, **echo
    )  # fmt: skip
    if found is not None:
        i = found[1].instrument
        entry.figi, entry.instrument_uid = i.figi, i.uid
        entry.ticker, entry.class_code = i.ticker, i.class_code
    return entry
