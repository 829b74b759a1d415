"""A recording as one sequence of events, as the exchange had them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live.core import events as ev
from market import stream
from market.errors import ScalperError
from market.recording import Recording
from market.types import BOOK_CONSISTENT, Books, Instrument, Trades


class NothingRecorded(ScalperError):
    """The recording has neither a book nor a print in that time."""


@dataclass(frozen=True, slots=True)
class Tape:
    """The events of several instruments in one sequence: by receive time, then by instrument, then as
    recorded.

    ``source`` int32 [m] indexes ``tickers``, ``kind`` int8 [m] is ``stream.TRADE`` or ``stream.BOOK``,
    ``row`` int64 [m].
    """

    tickers: tuple[str, ...]
    instruments: dict[str, Instrument]
    books: tuple[Books, ...]
    trades: tuple[Trades, ...]
    recv_ns: NDArray[np.int64]
    source: NDArray[np.int32]
    kind: NDArray[np.int8]
    row: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        recording: Recording,
        tickers: Sequence[str] | None = None,
        *,
        from_ns: int | None,
        to_ns: int | None,
    ) -> Tape:
        """The part of ``recording`` with from_ns <= receive time < to_ns (None: no bound). Raises
        ScalperError.
        """
        chosen = tuple(tickers or (i.ticker for i in recording.info.instruments))
        low, high = (
            from_ns if from_ns is not None else 0,
            to_ns if to_ns is not None else np.iinfo(np.int64).max,
        )
        books, trades, columns = [], [], []
        for index, ticker in enumerate(chosen):
            days = [recording.read(ticker, day) for day in recording.info.days[ticker]]
            b = _joined(Books, [d.books for d in days], low, high)
            t = _joined(Trades, [d.trades for d in days], low, high)
            kind, row = stream.merge(b, t)
            recv = np.empty(len(kind), np.int64)
            is_book = kind == stream.BOOK
            recv[is_book], recv[~is_book] = b.recv_ns[row[is_book]], t.recv_ns[row[~is_book]]
            books.append(b)
            trades.append(t)
            columns.append((recv, np.full(len(kind), index, np.int32), kind, row))
        recv_ns, source, kind, row = (np.concatenate(c) for c in zip(*columns, strict=True))
        if not len(recv_ns):
            raise NothingRecorded(
                f"the recording holds nothing of {', '.join(chosen)} between {low} and {high}"
            )
        order = np.lexsort((source, recv_ns))  # stable: events of one instrument keep their order
        return cls(
            chosen, {t: recording.info.instrument(t) for t in chosen}, tuple(books), tuple(trades),
            recv_ns[order], source[order], kind[order], row[order],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.recv_ns)

    def events(self) -> Iterator[ev.Book | ev.Trade]:
        """The events, as the engine is told them."""
        for now_ns, source, kind, row in zip(
            self.recv_ns.tolist(), self.source.tolist(), self.kind.tolist(), self.row.tolist(), strict=True
        ):
            ticker = self.tickers[source]
            if kind == stream.BOOK:
                yield book_event(self.books[source], row, ticker, now_ns)
            else:
                t = self.trades[source]
                yield ev.Trade(
                    now_ns, ticker, int(t.exch_ns[row]), int(t.px[row]), int(t.qty[row]), int(t.side[row])
                )


def _joined(kind: Any, parts: list[Any], low: int, high: int) -> Any:
    """Days one after another, cut to [low, high)."""
    cut = [p.rows((p.recv_ns >= low) & (p.recv_ns < high)) for p in parts]
    return kind(*(np.concatenate([getattr(p, name) for p in cut]) for name in kind.__slots__))


def book_event(books: Books, row: int, ticker: str, now_ns: int) -> ev.Book:
    """Row ``row`` of ``books`` as an event: present levels only."""
    bid_px, bid_qty = _present(books.bid_px[row], books.bid_qty[row])
    ask_px, ask_qty = _present(books.ask_px[row], books.ask_qty[row])
    consistent = bool(books.flags[row] & BOOK_CONSISTENT)
    return ev.Book(now_ns, ticker, int(books.exch_ns[row]), bid_px, bid_qty, ask_px, ask_qty, consistent)


def _present(px: NDArray[np.int32], qty: NDArray[np.int32]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    prices, sizes = px.tolist(), qty.tolist()
    if sizes[-1] == 0:
        levels = [(p, q) for p, q in zip(prices, sizes, strict=True) if q != 0]
        return tuple(p for p, _ in levels), tuple(q for _, q in levels)
    return tuple(prices), tuple(sizes)
