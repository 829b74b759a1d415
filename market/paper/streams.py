"""Who listens to the market, and what they hear of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from market.contract import invest_pb2 as pb
from market.paper import messages_market
from market.paper.book_bytes import BookEncoder
from market.paper.candles import Bar, history
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.outbox import Outbox
from market.paper.subscriptions import BookSubscription, CandleSubscription, MarketStream
from market.types import MILLISECOND_NS

CANDLE_CLOSE_NS = 200 * MILLISECOND_NS
"""Market time from the end of a candle to its last word: the trades of its end are still on their way."""

BOOKS_KEPT = 8
"""Serialised books of one instrument and depth that are kept for the streams that have not sent them yet."""


class MarketHub:
    """Every open market data stream. The replayer tells it what happened.

    ``schedule(market time, action)`` runs an action later; ``now_ns()`` is the market's time.
    ``conflate_ms``: at most one book and one candle of a subscription in so many market milliseconds.
    """

    def __init__(
        self,
        exchange: Exchange,
        conflate_ms: int,
        schedule: Callable[[int, Callable[[int], None]], None],
        now_ns: Callable[[], int],
    ) -> None:
        self._exchange = exchange
        self._conflate_ns = conflate_ms * MILLISECOND_NS
        self._schedule = schedule
        self._now_ns = now_ns
        self.market: set[MarketStream] = set()
        self.books_sent = 0
        self.trades_sent = 0
        self.candles_sent = 0
        self.books_conflated = 0
        self._encoders: dict[tuple[int, int], BookEncoder] = {}
        self._made: dict[tuple[int, int], dict[int, bytes]] = {}

    def outboxes(self) -> list[Outbox]:
        return [stream.outbox for stream in self.market]

    def leave(self, stream: MarketStream) -> None:
        self.market.discard(stream)
        self.books_conflated += stream.outbox.conflated

    def conflated(self) -> int:
        """Books that were never sent because a newer one took their place, over all streams so far."""
        return self.books_conflated + sum(stream.outbox.conflated for stream in self.market)

    # ------------------------------------------------------------------ what happens

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
                stream.outbox.put(lambda: pb.MarketDataResponse(trade=messages_market.trade(listing, row)))
            if index in stream.last_prices:
                stream.outbox.put(
                    partial(pb.MarketDataResponse, last_price=messages_market.last_price(listing))
                )
            for subscription in stream.candles_of.get(index, ()):
                self._candle(stream, listing, subscription, row, now_ns)

    def on_phase(self, listing: Listing, now_ns: int) -> None:
        """The instrument's session goes on to another phase: who subscribed to its status learns of it."""
        for stream in self.market:
            if any(self._exchange.listings[index] is listing for index in stream.infos):
                self._push_status(stream, listing, now_ns)

    def on_close(self, now_ns: int) -> None:
        """The recording is over: everyone who listens to an instrument learns that it stopped trading."""
        for stream in self.market:
            for index in sorted(stream.instruments):
                self._push_status(stream, self._exchange.listings[index], now_ns)

    # ------------------------------------------------------------------ books

    def _push_status(self, stream: MarketStream, listing: Listing, now_ns: int) -> None:
        stream.outbox.release_books()
        stream.outbox.put(
            partial(pb.MarketDataResponse, trading_status=messages_market.status_event(listing, now_ns))
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
        else:
            self._schedule(
                subscription.sent_ns + self._conflate_ns,
                lambda now_ns: self._release(stream, index, subscription, now_ns),
            )
        subscription.held_row = row

    def _release(self, stream: MarketStream, index: int, subscription: BookSubscription, now_ns: int) -> None:
        row, subscription.held_row = subscription.held_row, -1
        if stream in self.market and stream.books.get(index) is subscription and row >= 0:
            self._push_book(stream, index, subscription, row, now_ns)

    def prepare(self, index: int, row: int) -> None:
        """The book that comes next, made while there is time: only sending it is left for its moment."""
        for stream in self.market:
            subscription = stream.books.get(index)
            if subscription is not None:
                self._book_bytes(index, row, subscription.depth)

    def _book_bytes(self, index: int, row: int, depth: int) -> bytes:
        """Serialised once for all subscribers of the same book."""
        made = self._made.setdefault((index, depth), {})
        content = made.get(row)
        if content is not None:
            return content
        encoder = self._encoders.get((index, depth))
        if encoder is None:
            encoder = self._encoders[index, depth] = BookEncoder(self._exchange.listings[index], depth)
        content = made[row] = encoder.encode(row)
        if len(made) > BOOKS_KEPT:
            del made[next(iter(made))]
        return content

    # ------------------------------------------------------------------ candles

    def _candle(
        self, stream: MarketStream, listing: Listing, subscription: CandleSubscription, row: int, now_ns: int
    ) -> None:
        bar = subscription.growing.add(row)
        if subscription.waiting_close:
            self._await_close(stream, listing, subscription, bar)
        elif self._conflate_ns and now_ns < subscription.sent_ns + self._conflate_ns:
            if not subscription.held:
                subscription.held = True
                self._schedule(
                    subscription.sent_ns + self._conflate_ns,
                    lambda now_ns: self._release_candle(stream, listing, subscription, now_ns),
                )
        else:
            subscription.sent_ns = now_ns
            self._push_candle(stream, listing, subscription, bar)

    def await_closes(self, stream: MarketStream) -> None:
        """The candles that grow already when a subscription to their end begins are sent as well."""
        for (index, _), subscription in stream.candles.items():
            bar = subscription.growing.bar
            if not subscription.waiting_close or bar is None:
                continue
            if subscription.growing.interval.end_ns(bar.start_ns) > self._now_ns():
                self._await_close(stream, self._exchange.listings[index], subscription, bar)

    def _await_close(
        self, stream: MarketStream, listing: Listing, subscription: CandleSubscription, bar: Bar
    ) -> None:
        end_ns = subscription.growing.interval.end_ns(bar.start_ns)
        if end_ns <= subscription.closing_ns:
            return
        subscription.closing_ns = end_ns
        self._schedule(
            end_ns + CANDLE_CLOSE_NS,
            lambda _: self._close_candle(stream, listing, subscription, bar.start_ns),
        )

    def _close_candle(
        self, stream: MarketStream, listing: Listing, subscription: CandleSubscription, start_ns: int
    ) -> None:
        interval = subscription.growing.interval
        for bar in history(listing.trades, listing.trade_row + 1, interval, start_ns, start_ns + 1):
            self._push_candle(stream, listing, subscription, bar)

    def _release_candle(
        self, stream: MarketStream, listing: Listing, subscription: CandleSubscription, now_ns: int
    ) -> None:
        subscription.held, subscription.sent_ns = False, now_ns
        if (bar := subscription.growing.bar) is not None:
            self._push_candle(stream, listing, subscription, bar)

    def _push_candle(
        self, stream: MarketStream, listing: Listing, subscription: CandleSubscription, bar: Bar
    ) -> None:
        if stream in self.market and subscription in stream.candles.values():
            self.candles_sent += 1
            stream.outbox.put(
                lambda: pb.MarketDataResponse(
                    candle=messages_market.candle(listing, subscription.interval, bar)
                )
            )
