"""The data engine: what is known of each instrument's market, and which instruments are worth the work.

A TTL cache of last books, a ring of compact rows per instrument (bounded by ``data.ring_length``), gaps
counted, ages shown. Every so often the instruments are ranked by spread, depth and turnover over what the
rings hold, and the best ``data.keep_instruments`` are kept. It observes rotated-out instruments too: that is
how they find their way back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from live.core.books import MILLIBPS
from live.core.events import Book, Trade
from market.types import NANO, SECOND_NS, Instrument

DEPTH_LEVELS = 5
"""Levels a side that count as depth: what an entry could reach without moving far."""
HYSTERESIS = 1.2
"""A newcomer must be so many times as tradable as the one it replaces: no rotation on noise."""
MIN_ROWS = 20
"""An instrument with fewer believable books is not ranked."""


@dataclass(frozen=True, slots=True)
class Tradability:
    """``score`` is the geometric mean of depth and turnover (roubles) over the spread (bps): more is better.

    ``spread_millibps`` and ``depth_nano`` are medians over the ring; ``turnover_nano`` is per minute.
    """

    ticker: str
    score: float
    spread_millibps: int
    depth_nano: int
    turnover_nano: int


_Row = tuple[int, int, int, tuple[int, ...], tuple[int, ...]]


class _Lane:
    """One instrument: last book, ring of (now_ns, bid, ask, bid sizes, ask sizes), ring of trades, gaps.

    What is ranked is worked out when it is ranked: this is filled on every book.
    """

    __slots__ = ("books", "gaps", "longest_gap_ns", "rows", "seen_ns", "snapshot", "trades")

    def __init__(self, ring_length: int) -> None:
        self.snapshot: Book | None = None
        self.seen_ns = 0
        self.books = 0
        self.gaps = 0
        self.longest_gap_ns = 0
        self.rows: deque[_Row] = deque(maxlen=ring_length)
        self.trades: deque[tuple[int, int, int]] = deque(maxlen=ring_length)


class DataEngine:
    """``ttl_ns``: a book older than this is no book, and a silence longer than this is a gap."""

    def __init__(self, instruments: Mapping[str, Instrument], *, ttl_ns: int, ring_length: int) -> None:
        self._instruments = dict(instruments)
        self._ttl_ns = ttl_ns
        self._lanes = {ticker: _Lane(ring_length) for ticker in self._instruments}

    def on_book(self, book: Book) -> None:
        lane = self._lanes[book.ticker]
        if lane.seen_ns:
            silent_ns = book.now_ns - lane.seen_ns
            if silent_ns > self._ttl_ns:
                lane.gaps += 1
                lane.longest_gap_ns = max(lane.longest_gap_ns, silent_ns)
        lane.snapshot, lane.seen_ns = book, book.now_ns
        lane.books += 1
        if book.bid_px and book.ask_px:
            lane.rows.append(
                (book.now_ns, book.bid_px[0], book.ask_px[0], book.bid_qty[:DEPTH_LEVELS],
                 book.ask_qty[:DEPTH_LEVELS])
            )  # fmt: skip

    def on_trade(self, trade: Trade) -> None:
        self._lanes[trade.ticker].trades.append((trade.now_ns, trade.price_ticks, trade.lots))

    def clear(self) -> None:
        """The channel changed: books of the old one are not the market. Counts and rings stay."""
        for lane in self._lanes.values():
            lane.snapshot = None

    def book(self, ticker: str, now_ns: int) -> Book | None:
        """The last book, None where there is none within the TTL."""
        lane = self._lanes[ticker]
        fresh = lane.snapshot is not None and now_ns - lane.seen_ns <= self._ttl_ns
        return lane.snapshot if fresh else None

    def report(self, now_ns: int) -> dict[str, dict[str, Any]]:
        """By instrument, JSON-able, for the status file: age of the last book, gaps, how full the ring is."""
        return {
            ticker: {
                "age_s": round((now_ns - lane.seen_ns) / SECOND_NS, 3) if lane.seen_ns else None,
                "fresh": self.book(ticker, now_ns) is not None,
                "books": lane.books,
                "gaps": lane.gaps,
                "longest_gap_s": round(lane.longest_gap_ns / SECOND_NS, 3),
                "ring": len(lane.rows),
            }
            for ticker, lane in self._lanes.items()
        }

    @property
    def gaps(self) -> int:
        return sum(lane.gaps for lane in self._lanes.values())

    # ---- ranking ----

    def rank(self) -> list[Tradability]:
        """The instruments that can be judged, most tradable first; equal ones by name."""
        found = [t for t in (self._judge(ticker) for ticker in self._lanes) if t is not None]
        return sorted(found, key=lambda t: (-t.score, t.ticker))

    def _judge(self, ticker: str) -> Tradability | None:
        lane = self._lanes[ticker]
        rows = [row for row in lane.rows if row[1] < row[2]]
        if len(rows) < MIN_ROWS:
            return None
        spread = int(median(2 * (ask - bid) * MILLIBPS // (bid + ask) for _, bid, ask, *_ in rows))
        depth = int(median(self._depth_nano(ticker, row) for row in rows))
        minutes = max(1, rows[-1][0] - rows[0][0]) / (60 * SECOND_NS)
        since_ns = rows[0][0]
        traded = sum(
            abs(self._instruments[ticker].notional_nano(price, lots))
            for at, price, lots in lane.trades
            if at >= since_ns
        )
        turnover = int(traded / max(minutes, 1 / 60))
        # One rouble and a thousandth of a basis point keep silence and a zero finite.
        size = math.sqrt((depth / NANO + 1) * (turnover / NANO + 1))
        return Tradability(ticker, size * 1_000 / (spread + 1), spread, depth, turnover)

    def _depth_nano(self, ticker: str, row: _Row) -> int:
        _, bid, ask, bids, asks = row
        return abs(self._instruments[ticker].notional_nano((bid + ask) // 2, sum(bids) + sum(asks)))


def choose(
    ranked: Sequence[Tradability],
    active: Collection[str],
    pinned: Iterable[str],
    keep: int,
    *,
    known: Iterable[str] = (),
    hysteresis: float = HYSTERESIS,
) -> tuple[str, ...]:
    """Which instruments to keep, sorted. ``keep`` 0 keeps all of ``known``.

    ``pinned`` (a position or a working order) always stay and count against ``keep``; an instrument in
    ``active`` gives way only to one that is ``hysteresis`` times as tradable; what cannot be ranked yet stays
    where it is while there is room.
    """
    everything = {*known, *active, *(t.ticker for t in ranked)}
    if keep <= 0 or len(everything) <= keep:
        return tuple(sorted(everything))
    worth = {t.ticker: t.score * (hysteresis if t.ticker in active else 1.0) for t in ranked}
    kept = set(pinned)
    # Ranked ones by worth; unranked active ones before unranked newcomers, then by name.
    order = sorted(everything - kept, key=lambda t: (t not in worth, -worth.get(t, 0.0), t not in active, t))
    for ticker in order:
        if len(kept) >= keep:
            break
        kept.add(ticker)
    return tuple(sorted(kept))
