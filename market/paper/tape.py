"""What the paper exchange plays: days of several instruments as one stream in the order of receipt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from market.errors import RecordingError
from market.fees import tariff as known_tariff
from market.recording import Recording
from market.stream import BOOK, TRADE, merge
from market.types import I8, I32, I64, Books, Instrument, InstrumentDay, Trades

__all__ = ["BOOK", "TRADE", "PaperMarket", "Tape"]


@dataclass(frozen=True, slots=True)
class PaperMarket:
    """A recorded market in memory. ``days`` may hold several days of an instrument."""

    days: tuple[InstrumentDay, ...]
    tariff: str = "simulated"
    watermark: str = "SIMULATED"
    source: str = "memory"

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        return tuple({day.instrument.ticker: day.instrument for day in self.days}.values())

    @classmethod
    def read(cls, recording: Recording, tickers: Sequence[str] = ()) -> Self:
        """Reads a recording, or only ``tickers`` of it. RecordingError names a ticker it does not hold."""
        info = recording.info
        chosen = [info.instrument(ticker).ticker for ticker in tickers or info.days]
        days = tuple(recording.read(ticker, day) for ticker in chosen for day in info.days[ticker])
        return cls(days, info.tariff, info.watermark, info.source)


@dataclass(slots=True)
class Tape:
    """All events in the order in which they are played, ``n`` events.

    ``recv_ns`` int64 [n]; ``kind`` int8 [n] (TRADE, BOOK); ``instrument`` int32 [n] (index into
    ``instruments``); ``row`` int64 [n] (row of that instrument's table). ``standing[i]`` is the row of the
    book that instrument i had when the span began, -1 if none.
    """

    instruments: tuple[Instrument, ...]
    books: tuple[Books, ...]
    trades: tuple[Trades, ...]
    recv_ns: I64
    kind: I8
    instrument: I32
    row: I64
    standing: tuple[int, ...]
    start_ns: int
    end_ns: int

    def __len__(self) -> int:
        return len(self.recv_ns)

    @classmethod
    def build(cls, market: PaperMarket, from_ns: int | None = None, to_ns: int | None = None) -> Self:
        """The stream of ``market`` between ``from_ns`` (inclusive) and ``to_ns`` (exclusive).

        Order: by receive time, at equal times trades first (as market.stream.merge), then by instrument.
        Raises RecordingError when nothing lies in the span.
        """
        known_tariff(market.tariff)
        instruments = market.instruments
        books, trades, times, kinds, owners, rows, standing = [], [], [], [], [], [], []
        for index, instrument in enumerate(instruments):
            of_it = sorted((d for d in market.days if d.instrument == instrument), key=lambda d: d.day)
            b = _join_books([d.books for d in of_it])
            t = _join_trades([d.trades for d in of_it])
            kind, row = merge(b, t)
            recv = np.where(kind == BOOK, _pick(b.recv_ns, row), _pick(t.recv_ns, row))
            inside = np.ones(len(recv), bool)
            if from_ns is not None:
                inside &= recv >= from_ns
            if to_ns is not None:
                inside &= recv < to_ns
            before = np.flatnonzero(b.recv_ns < from_ns) if from_ns is not None else np.empty(0, np.int64)
            standing.append(int(before[-1]) if len(before) else -1)
            books.append(b)
            trades.append(t)
            times.append(recv[inside])
            kinds.append(kind[inside])
            rows.append(row[inside])
            owners.append(np.full(int(inside.sum()), index, np.int32))
        if not times or not sum(len(t) for t in times):
            raise RecordingError(
                "there is nothing to play: no event between "
                f"--from-ns {from_ns} and --to-ns {to_ns}; the recording covers {_span(books, trades)}"
            )
        time, kind = np.concatenate(times), np.concatenate(kinds)
        order = np.lexsort((kind, time))
        time = time[order]
        return cls(
            instruments, tuple(books), tuple(trades), time, kind[order], np.concatenate(owners)[order],
            np.concatenate(rows)[order], tuple(standing),
            int(time[0]), int(time[-1]),
        )  # fmt: skip


def _pick(column: I64, rows: I64) -> I64:
    """``column[rows]`` where the row is one of this table's; anything where it is not."""
    return column[np.minimum(rows, len(column) - 1)] if len(column) else np.zeros(len(rows), np.int64)


def _join_books(parts: Sequence[Books]) -> Books:
    return Books(*(np.concatenate([getattr(p, f) for p in parts]) for f in Books.__slots__))


def _join_trades(parts: Sequence[Trades]) -> Trades:
    return Trades(*(np.concatenate([getattr(p, f) for p in parts]) for f in Trades.__slots__))


def _span(books: Iterable[Books], trades: Iterable[Trades]) -> str:
    times = [t.recv_ns for t in books if len(t)] + [t.recv_ns for t in trades if len(t)]
    return f"{min(t.min() for t in times)}..{max(t.max() for t in times)}" if times else "no event at all"
