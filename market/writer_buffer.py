"""The rows of one instrument between two writes of its recorder: a bounded, preallocated buffer."""

from __future__ import annotations

from collections.abc import Sequence

from market.errors import RecordingError
from market.recording.log import Kind, rows_frame
from market.types import DEPTH, OWN_KINDS, Books, OwnEvents, Trades

BUFFER_ROWS = 512
"""Rows of one table of one instrument in memory; one more and the caller waits until they are written."""


class Buffer:
    """Takes at most ``BUFFER_ROWS`` rows of each table; the caller asks ``full`` first.

    RecordingError for what no column can hold; such a row is not taken.
    """

    def __init__(self, ticker: str) -> None:
        self._ticker = ticker
        self._books, self._trades = Books.empty(BUFFER_ROWS), Trades.empty(BUFFER_ROWS)
        self._own: OwnEvents | None = None
        self._n = {Kind.BOOKS: 0, Kind.TRADES: 0, Kind.OWN: 0}

    def full(self, kind: Kind) -> bool:
        return self._n[kind] >= BUFFER_ROWS

    def book(
        self,
        exch_ns: int,
        recv_ns: int,
        bid_px: Sequence[int],
        bid_qty: Sequence[int],
        ask_px: Sequence[int],
        ask_qty: Sequence[int],
        flags: int,
    ) -> None:
        books, n = self._books, self._n[Kind.BOOKS]
        bids, asks = min(len(bid_px), DEPTH), min(len(ask_px), DEPTH)
        if len(bid_px) != len(bid_qty) or len(ask_px) != len(ask_qty):
            raise RecordingError(f"a book of {self._ticker} has not as many sizes as prices")
        try:
            books.exch_ns[n], books.recv_ns[n], books.flags[n] = exch_ns, recv_ns, flags
            books.bid_px[n, :bids], books.bid_qty[n, :bids] = bid_px[:bids], bid_qty[:bids]
            books.ask_px[n, :asks], books.ask_qty[n, :asks] = ask_px[:asks], ask_qty[:asks]
        except OverflowError as error:
            for levels in (books.bid_px, books.bid_qty, books.ask_px, books.ask_qty):
                levels[n] = 0  # the next book takes this row, and may be shallower
            raise self._too_large("book", error) from None
        self._n[Kind.BOOKS] = n + 1

    def trade(self, exch_ns: int, recv_ns: int, px: int, qty: int, side: int) -> None:
        trades, n = self._trades, self._n[Kind.TRADES]
        try:
            trades.exch_ns[n], trades.recv_ns[n], trades.side[n] = exch_ns, recv_ns, side
            trades.px[n], trades.qty[n] = px, qty
        except OverflowError as error:
            raise self._too_large("trade", error) from None
        self._n[Kind.TRADES] = n + 1

    def own(
        self, event_ns: int, kind: str, client_order_id: str, side: int, px: int, qty: int, fee_nano: int
    ) -> None:
        if kind not in OWN_KINDS:
            raise RecordingError(f"an own event is one of {', '.join(OWN_KINDS)}, not {kind!r}")
        if self._own is None:
            self._own = OwnEvents.empty(BUFFER_ROWS)
        own, n = self._own, self._n[Kind.OWN]
        try:
            own.event_ns[n], own.kind[n], own.fee_nano[n] = event_ns, OWN_KINDS.index(kind), fee_nano
            own.side[n], own.px[n], own.qty[n] = side, px, qty
        except OverflowError as error:
            raise self._too_large("own event", error) from None
        own.client_order_id[n] = str(client_order_id)
        self._n[Kind.OWN] = n + 1

    def _too_large(self, what: str, error: OverflowError) -> RecordingError:
        return RecordingError(f"a number in a {what} of {self._ticker} does not fit its column: {error}")

    def frames(self, instrument: int) -> list[bytes]:
        """What is in it, for the log; ``instrument`` is its number there."""
        tables = ((Kind.BOOKS, self._books), (Kind.TRADES, self._trades), (Kind.OWN, self._own))
        return [
            rows_frame(kind, instrument, rows.rows(slice(0, self._n[kind])))
            for kind, rows in tables
            if rows is not None and self._n[kind]
        ]
