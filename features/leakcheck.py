"""Does a row know what came after it? Compute on the whole day and on days that end early, and compare.

A day is cut after one of its events, at moments drawn by chance: half of them anywhere, half right before the
mid moves, where a look ahead pays and so shows. Every row of the short day must equal, to the bit, the same
row of the whole one. The stream that runs live cannot look ahead, so its rows are compared as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.batch import FeatureTable, compute
from features.leader import quotes
from features.schema import NAMES, F
from features.stream import FeatureStream
from market.stream import BOOK, merge
from market.types import InstrumentDay

Table = Callable[[InstrumentDay], FeatureTable]
"""What is checked: ``features.batch.compute``, or a function like it."""

CUTS = 40
BESIDE = ("status", "mid2", "spread")
"""What a row says beside its features."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that changed when the future was taken away.

    ``row`` counts the day's books; ``whole`` and ``short`` are the two values; ``against`` says where the
    short one comes from.
    """

    ticker: str
    day: str
    recv_ns: int
    row: int
    feature: str
    whole: float
    short: float
    against: str

    def line(self) -> str:
        when = np.datetime64(self.recv_ns, "ns")
        return (
            f"{self.ticker} {self.day}, book {self.row} at {when} UTC: {self.feature} is {self.whole!r} "
            f"on the whole day and {self.short!r} {self.against}"
        )


@dataclass(frozen=True, slots=True)
class Leaks:
    """What a check found: rows compared, and the earliest difference of each feature that has one."""

    rows: int
    cuts: int
    differences: tuple[Difference, ...]


def check_day(
    day: InstrumentDay,
    table: Table = compute,
    *,
    cuts: int = CUTS,
    seed: int = 0,
    leader: InstrumentDay | None = None,
) -> Leaks:
    """Compare ``table`` of ``day`` with ``table`` of up to ``cuts`` shorter days; ``compute`` also with the
    live stream.

    ``leader``: the instrument that ``compute`` takes beside it; it is cut at the same moments.
    """

    def rows_of(part: InstrumentDay, until_ns: int | None) -> FeatureTable:
        if leader is None:
            return table(part)
        known = leader.books.recv_ns
        seen = known <= (until_ns if until_ns is not None else known.max(initial=0))
        return compute(
            part, InstrumentDay(leader.instrument, leader.day, leader.books.rows(seen), leader.trades)
        )

    whole = rows_of(day, None)
    found: dict[str, Difference] = {}
    rows = 0
    ends = cut_points(day, whole.mid2, cuts, np.random.default_rng(seed))
    for events in ends.tolist():
        short, kept = first_events(day, events)
        rows += len(kept)
        end_ns = _end_ns(short)
        when = f"when the day ends at {np.datetime64(end_ns, 'ns')} UTC"
        _compare(day, whole, rows_of(short, end_ns), kept, when, found)
    if table is compute:
        X, status = stream_rows(day, leader=leader)
        rows += len(X)
        streamed = FeatureTable(whole.recv_ns, X, status, whole.mid2, whole.spread)
        _compare(day, whole, streamed, np.arange(len(X)), "in the live stream", found)
    return Leaks(rows, len(ends), tuple(sorted(found.values(), key=lambda d: (d.recv_ns, d.row))))


def cut_points(
    day: InstrumentDay, mid2: NDArray[np.int64], cuts: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How many events each short day keeps, int64 [<= cuts], growing: at least one, never all."""
    kind, row = merge(day.books, day.trades)
    n = len(kind)
    if n < 2:
        return np.zeros(0, np.int64)
    anywhere = rng.integers(1, n, cuts - cuts // 2)
    books = np.flatnonzero(kind == BOOK)
    moves = np.flatnonzero(np.diff(mid2[row[books]]) != 0)
    before = books[rng.choice(moves, min(cuts // 2, len(moves)), replace=False)] + 1 if len(moves) else []
    return np.unique(np.concatenate([anywhere, before]).astype(np.int64))


def first_events(day: InstrumentDay, events: int) -> tuple[InstrumentDay, NDArray[np.int64]]:
    """The day with its first ``events`` events, and the rows of the books that it keeps."""
    kind, row = merge(day.books, day.trades)
    kind, row = kind[:events], row[:events]
    books, trades = np.sort(row[kind == BOOK]), np.sort(row[kind != BOOK])
    return InstrumentDay(day.instrument, day.day, day.books.rows(books), day.trades.rows(trades)), books


def stream_rows(
    day: InstrumentDay, stream: FeatureStream | None = None, *, leader: InstrumentDay | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The day's rows, float32 [n, F], and their status, uint8 [n], as ``stream`` gives them.

    ``leader``: its quotes come in by receive time, before events of the same time.
    """
    said = deque(zip(*(a.tolist() for a in quotes(leader.books)), strict=True)) if leader else deque()
    books, trades = day.books, day.trades
    X, status = np.empty((len(books), F), np.float32), np.zeros(len(books), np.uint8)
    stream = stream or FeatureStream(day.instrument.kind)
    kind, row = merge(books, trades)
    for k, r in zip(kind.tolist(), row.tolist(), strict=True):
        while said and said[0][0] <= (books if k == BOOK else trades).recv_ns[r]:
            stream.on_leader(*said.popleft())
        if k == BOOK:
            status[r] = stream.on_book(
                int(books.recv_ns[r]), books.bid_px[r], books.bid_qty[r], books.ask_px[r], books.ask_qty[r],
                int(books.flags[r]), X[r],
            )  # fmt: skip
        else:
            stream.on_trade(
                int(trades.recv_ns[r]), int(trades.px[r]), int(trades.qty[r]), int(trades.side[r])
            )
    for late in said:
        stream.on_leader(*late)
    return X, status


def _end_ns(day: InstrumentDay) -> int:
    return max(int(table.recv_ns.max()) for table in (day.books, day.trades) if len(table))


def _compare(
    day: InstrumentDay,
    whole: FeatureTable,
    short: FeatureTable,
    kept: NDArray[np.int64],
    against: str,
    found: dict[str, Difference],
) -> None:
    """Put the first difference of each feature into ``found`` where it is earlier than the one there."""

    def note(at: int, feature: str, here: float, there: float) -> None:
        row = int(kept[at])
        known = found.get(feature)
        if known is None or row < known.row:
            found[feature] = Difference(
                day.instrument.ticker, day.day, int(day.books.recv_ns[row]), row, feature, here, there,
                against,
            )  # fmt: skip

    before = np.ascontiguousarray(whole.X[kept]).view(np.uint32)
    after = np.ascontiguousarray(short.X).view(np.uint32)
    differs = before != after
    for column in np.flatnonzero(differs.any(axis=0)).tolist():
        at = int(differs[:, column].argmax())
        note(at, NAMES[column], float(whole.X[kept[at], column]), float(short.X[at, column]))
    for name in BESIDE:
        here, there = getattr(whole, name)[kept], getattr(short, name)
        if (other := here != there).any():
            at = int(other.argmax())
            note(at, name, float(here[at]), float(there[at]))
