"""Who listens to what, and what waits to be sent to them."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp
from market.paper import messages
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange, Listing, PaperOrder
from market.paper.replayer import Replayer
from market.types import MILLISECOND_NS

CONFLATE_FROM = 256
"""Messages waiting for one subscriber from which at most one book of an instrument waits among them."""

MAX_WAITING = 100_000
"""Messages waiting for one subscriber at which the exchange cuts the connection: it does not read."""

Payload = Callable[[], Message | bytes]


@dataclass(slots=True)
class _Item:
    """One message, made when it is sent. ``book``: the instrument's index, -1 for anything but a book."""

    make: Payload
    book: int = -1


class Outbox:
    """Messages for one stream, in order. Books may be conflated, nothing else is ever lost."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._waiting_books: dict[int, int] = {}
        self._held_books: dict[int, _Item] = {}
        self._filled = asyncio.Event()
        self._finished = False
        self.conflated = 0
        self.cut_because = ""

    def put(self, make: Payload) -> None:
        self._append(_Item(make))

    def put_book(self, index: int, make: Payload) -> None:
        """A book of instrument ``index``. A subscriber who is far behind gets the one that waits already and
        then, at the end of the queue, the newest of those that came meanwhile.

        Were the waiting book replaced and moved to the end instead, a queue that stays long would never send
        one.
        """
        item = _Item(make, index)
        if self._waiting_books.get(index, 0) and len(self._items) >= CONFLATE_FROM:
            self.conflated += index in self._held_books
            self._held_books[index] = item
            return
        if self._held_books.pop(index, None) is not None:
            self.conflated += 1
        self._append(item)

    def release_books(self) -> None:
        """What comes next must not overtake a book."""
        held, self._held_books = list(self._held_books.values()), {}
        for item in held:
            self._append(item)

    def finish(self) -> None:
        """Nothing more will come; what waits is still sent."""
        self._finished = True
        self._filled.set()

    def cut(self, because: str) -> None:
        """The stream is to be broken off; what waits is lost with it."""
        self.cut_because = because
        self._filled.set()

    async def next(self) -> Message | bytes | None:
        """The next message; None at the end, or when the stream is to be broken off (``cut_because``)."""
        while not self.cut_because:
            while self._items:
                item = self._items.popleft()
                if item.book >= 0:
                    self._book_leaves(item.book)
                return item.make()
            if self._finished:
                return None
            self._filled.clear()
            await self._filled.wait()
        return None

    def _book_leaves(self, index: int) -> None:
        self._waiting_books[index] -= 1
        held = self._held_books.pop(index, None)
        if held is not None:
            self._append(held)

    def _append(self, item: _Item) -> None:
        self._items.append(item)
        if item.book >= 0:
            self._waiting_books[item.book] = self._waiting_books.get(item.book, 0) + 1
        if len(self._items) > MAX_WAITING:
            self.cut_because = f"the client does not read: {MAX_WAITING} messages are waiting"
        self._filled.set()


@dataclass(slots=True)
class BookSubscription:
    """What a stream wants of one book; ``held_row`` waits for the throttling window to end (-1: none)."""

    depth: int
    subscription_id: str
    sent_ns: int = 0
    held_row: int = -1


@dataclass(slots=True, eq=False)
class MarketStream:
    """One MarketDataStream call: what it is subscribed to, by index of the instrument -> subscription id."""

    stream_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    outbox: Outbox = field(default_factory=Outbox)
    books: dict[int, BookSubscription] = field(default_factory=dict)
    trades: dict[int, str] = field(default_factory=dict)
    infos: dict[int, str] = field(default_factory=dict)
    last_prices: dict[int, str] = field(default_factory=dict)

    @property
    def instruments(self) -> set[int]:
        return {*self.books, *self.trades, *self.infos, *self.last_prices}


@dataclass(slots=True, eq=False)
class OrderStream:
    """One OrderStateStream or TradesStream call."""

    make: Callable[[PaperOrder, str], Message]
    fills_only: bool
    outbox: Outbox = field(default_factory=Outbox)
    sent_lots: dict[str, int] = field(default_factory=dict)


class Hub:
    """Every open stream. The replayer and the exchange tell it what happened."""

    def __init__(self, exchange: Exchange, clock: MarketClock, conflate_ms: int) -> None:
        self._exchange = exchange
        self._clock = clock
        self._conflate_ns = conflate_ms * MILLISECOND_NS
        self.replayer: Replayer | None = None
        self.market: set[MarketStream] = set()
        self.orders: set[OrderStream] = set()
        self.books_sent = 0
        self.trades_sent = 0
        self.books_conflated = 0
        self._book_cache: tuple[tuple[int, int, int], bytes] = ((-1, -1, -1), b"")

    def ping(self, request: pb.PingRequest | None = None) -> pb.Ping:
        """A ping of this moment, with market time."""
        message = pb.Ping(time=timestamp(self._clock.now_ns()))
        if request is not None and request.HasField("time"):
            message.ping_request_time.CopyFrom(request.time)
        return message

    def cut_all(self) -> None:
        """Ends every open stream, as a broker's restart would."""
        for outbox in [s.outbox for s in self.market] + [s.outbox for s in self.orders]:
            outbox.cut("the exchange restarts its streams")

    def finish_all(self) -> None:
        """Ends every open stream in good order."""
        for outbox in [s.outbox for s in self.market] + [s.outbox for s in self.orders]:
            outbox.finish()

    def leave(self, stream: MarketStream) -> None:
        self.market.discard(stream)
        self.books_conflated += stream.outbox.conflated

    def conflated(self) -> int:
        """Books that were never sent because a newer one took their place, over all streams so far."""
        return self.books_conflated + sum(stream.outbox.conflated for stream in self.market)

    # ------------------------------------------------------------------ the market

    def on_book(self, index: int, row: int, now_ns: int) -> None:
        for stream in self.market:
            subscription = stream.books.get(index)
            if subscription is None:
                continue
            if self._conflate_ns and now_ns < subscription.sent_ns + self._conflate_ns:
                self._hold(stream, index, subscription, row)
            else:
                self._push_book(stream, index, subscription, row, now_ns)

    def on_trade(self, index: int, row: int, now_ns: int) -> None:
        listing = self._exchange.listings[index]
        for stream in self.market:
            if index in stream.trades:
                self.trades_sent += 1
                stream.outbox.put(lambda: pb.MarketDataResponse(trade=messages.trade(listing, row)))
            if index in stream.last_prices:
                stream.outbox.put(partial(pb.MarketDataResponse, last_price=messages.last_price(listing)))

    def on_close(self, now_ns: int) -> None:
        """The recording is over: everyone who listens to an instrument learns that it stopped trading."""
        for stream in self.market:
            for index in sorted(stream.instruments):
                self.push_status(stream, self._exchange.listings[index], now_ns)

    def push_status(self, stream: MarketStream, listing: Listing, now_ns: int) -> None:
        stream.outbox.release_books()
        stream.outbox.put(
            partial(pb.MarketDataResponse, trading_status=messages.status_event(listing, now_ns))
        )

    def _push_book(
        self, stream: MarketStream, index: int, subscription: BookSubscription, row: int, now_ns: int
    ) -> None:
        subscription.sent_ns = now_ns
        self.books_sent += 1
        depth = subscription.depth
        stream.outbox.put_book(index, lambda: self._book_bytes(index, row, depth))

    def _hold(self, stream: MarketStream, index: int, subscription: BookSubscription, row: int) -> None:
        """Keeps the newest book of a throttled subscription until its turn comes."""
        if subscription.held_row >= 0:
            self.books_conflated += 1
        elif self.replayer is not None:
            self.replayer.schedule(
                subscription.sent_ns + self._conflate_ns,
                lambda now_ns: self._release(stream, index, subscription, now_ns),
            )
        subscription.held_row = row

    def _release(self, stream: MarketStream, index: int, subscription: BookSubscription, now_ns: int) -> None:
        row, subscription.held_row = subscription.held_row, -1
        if stream in self.market and stream.books.get(index) is subscription and row >= 0:
            self._push_book(stream, index, subscription, row, now_ns)

    def _book_bytes(self, index: int, row: int, depth: int) -> bytes:
        """Serialised once for all subscribers of the same book."""
        key = (index, row, depth)
        if self._book_cache[0] != key:
            self._book_cache = (key, messages.book_bytes(self._exchange.listings[index], row, depth))
        return self._book_cache[1]

    # ------------------------------------------------------------------ our orders

    def on_order(self, order: PaperOrder) -> None:
        """Called after every change of an order's state; the message shows the state of this very moment."""
        account_id = self._exchange.account.account_id
        for stream in self.orders:
            executed = order.lots_executed
            if stream.fills_only and executed == stream.sent_lots.get(order.key, 0):
                continue
            stream.sent_lots[order.key] = executed
            stream.outbox.put(_ready(stream.make(order, account_id)))


def _ready(message: Message) -> Payload:
    return lambda: message


def find_listing(listings: Iterable[Listing], instrument_id: str) -> tuple[int, Listing] | None:
    """By uid, then FIGI, then TICKER_CLASSCODE, as the broker looks an ``instrument_id`` up."""
    known = list(enumerate(listings))
    if not instrument_id:
        return None
    for index, listing in known:
        if listing.instrument.uid == instrument_id:
            return index, listing
    for index, listing in known:
        i = listing.instrument
        if instrument_id in (i.figi, f"{i.ticker}_{i.class_code}"):
            return index, listing
    return None
