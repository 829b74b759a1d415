"""What the book looked like: its states, its spread, its depth, and how its middle moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from market.inspect.stats import Array, Histogram, Quantiles
from market.types import BOOK_CONSISTENT, DEPTH, I64, Books, Trades
from market.validate import GAP_NS

SPREAD_BINS = 20
PRICE_BINS = 1_200


@dataclass(frozen=True, slots=True)
class States:
    """Shares of the time (0..1) in which the book, as recorded, was so; the shares of a kind may overlap.

    A state lasts until the next row, but at most ``GAP_NS``: what was true during a longer silence is not
    known. ``crossed_longest_ns``: the longest run of crossed or locked rows.
    """

    known_ns: int
    one_sided: float
    locked: float
    crossed: float
    incomplete: float
    crossed_longest_ns: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Best ask minus best bid, weighted by time, over rows with both sides."""

    ticks: Quantiles
    bps: Quantiles
    ticks_histogram: Histogram
    bps_histogram: Histogram


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the book, weighted by time. Lots count as 0 while the level is empty.

    ``bid_filled``, ``ask_filled``: share of the time with something there. ``*_away_ticks``: mean distance
    from the best price of its own side while filled (0 for the first level, 0 when never filled).
    """

    level: int
    bid_lots: float
    ask_lots: float
    bid_filled: float
    ask_filled: float
    bid_away_ticks: float
    ask_away_ticks: float


@dataclass(frozen=True, slots=True)
class Mid:
    """Moves of the middle between two rows, where it moved.

    ``autocorrelation`` of one move with the next; ``reverting``: share of the moves that take back exactly
    the one before; ``largest_ticks``: without sign.
    """

    moves: int
    autocorrelation: float
    reverting: float
    largest_ticks: float


@dataclass(frozen=True, slots=True)
class Price:
    """The day's price in at most ``PRICE_BINS`` equal bins: lowest bid, highest ask, last middle, in ticks.

    Made of trades (lowest, highest, last) where ``source`` is "trades". Bins without a row are left out.
    """

    source: str
    bin_ns: int
    time_ns: tuple[int, ...]
    low_ticks: tuple[float, ...]
    high_ticks: tuple[float, ...]
    last_ticks: tuple[float, ...]


def dwell(recv_ns: I64) -> I64:
    """How long each row was the current one, ns; at most ``GAP_NS``, 0 for the last and for steps back."""
    out = np.zeros(len(recv_ns), np.int64)
    np.clip(np.diff(recv_ns), 0, GAP_NS, out=out[:-1])
    return out


def states(books: Books) -> States | None:
    """Of the rows as recorded, unsound ones too. None without books."""
    if not len(books):
        return None
    weight = dwell(books.recv_ns)
    total = int(weight.sum())
    both = _both(books)
    locked = both & (books.bid_px[:, 0] == books.ask_px[:, 0])
    crossed = both & (books.bid_px[:, 0] > books.ask_px[:, 0])
    incomplete = (books.flags & BOOK_CONSISTENT) == 0

    def share(mask: Array) -> float:
        return float(weight[mask].sum() / total) if total else float(mask.mean())

    return States(
        total, share(~both), share(locked), share(crossed), share(incomplete),
        _longest_run(crossed | locked, weight),
    )  # fmt: skip


def spread(books: Books) -> Spread | None:
    """Of sound rows. None when no row has both sides."""
    both = _both(books)
    if not both.any():
        return None
    weight = dwell(books.recv_ns)[both]
    bid, ask = (px[both, 0].astype(np.int64) for px in (books.bid_px, books.ask_px))
    ticks = ask - bid
    bps = 20_000.0 * ticks / (ask + bid)
    in_ticks, in_bps = Quantiles.of(ticks, weight), Quantiles.of(bps, weight)
    assert in_ticks is not None and in_bps is not None
    low = min(int(ticks.min()), 1)  # 0 where locked books occur
    wide = max(1, math.ceil((in_ticks.p99 - low + 1) / SPREAD_BINS))
    bins = max(4, min(SPREAD_BINS, math.ceil((in_ticks.p99 - low + 1) / wide)))
    return Spread(
        in_ticks,
        in_bps,
        Histogram.of(ticks, weight, start=low, width=wide, bins=bins),
        Histogram.of(bps, weight, start=0.0, width=_round_up(in_bps.p99 / SPREAD_BINS), bins=SPREAD_BINS + 1),
    )


def depth(books: Books) -> tuple[Level, ...]:
    """Of sound rows; levels that are never filled on either side are left out."""
    if not len(books):
        return ()
    weight = dwell(books.recv_ns).astype(np.float64)
    weight = weight / weight.sum() if weight.any() else np.full(len(books), 1.0 / len(books))
    out = []
    for j in range(DEPTH):
        sides = []
        for px, qty in ((books.bid_px, books.bid_qty), (books.ask_px, books.ask_qty)):
            filled = qty[:, j] > 0
            share = float(weight[filled].sum())
            away = np.abs(px[filled, j].astype(np.int64) - px[filled, 0])
            sides.append(
                (float(weight @ qty[:, j]), share, float(weight[filled] @ away / share) if share else 0.0)
            )
        (bid_lots, bid_filled, bid_away), (ask_lots, ask_filled, ask_away) = sides
        if bid_filled or ask_filled:
            out.append(Level(j + 1, bid_lots, ask_lots, bid_filled, ask_filled, bid_away, ask_away))
    return tuple(out)


def mid(books: Books) -> Mid | None:
    """None with fewer than three moves."""
    both = _both(books)
    twice = books.bid_px[both, 0].astype(np.int64) + books.ask_px[both, 0]
    moves = np.diff(twice)
    moves = moves[moves != 0]
    if len(moves) < 3:
        return None
    before, after = moves[:-1].astype(np.float64), moves[1:].astype(np.float64)
    spread_out = before.std() * after.std()
    together = (
        float(((before - before.mean()) * (after - after.mean())).mean() / spread_out) if spread_out else 0.0
    )
    return Mid(len(moves), together, float((before == -after).mean()), float(np.abs(moves).max() / 2))


def price(books: Books, trades: Trades) -> Price | None:
    """None with neither a two-sided book nor a trade."""
    both = _both(books)
    if both.any():
        recv_ns = books.recv_ns[both]
        low, high = books.bid_px[both, 0], books.ask_px[both, 0]
        last, source = (low.astype(np.float64) + high) / 2, "book"
    elif len(trades):
        recv_ns, low, high, last, source = trades.recv_ns, trades.px, trades.px, trades.px, "trades"
    else:
        return None
    bin_ns = int(recv_ns[-1] - recv_ns[0]) // PRICE_BINS + 1
    which = (recv_ns - recv_ns[0]) // bin_ns
    start = np.flatnonzero(np.diff(which, prepend=-1))
    end = np.append(start[1:], len(which)) - 1
    return Price(
        source,
        bin_ns,
        tuple((recv_ns[0] + which[start] * bin_ns).tolist()),
        tuple(np.minimum.reduceat(low, start).astype(float).tolist()),
        tuple(np.maximum.reduceat(high, start).astype(float).tolist()),
        tuple(last[end].astype(float).tolist()),
    )


def _both(books: Books) -> Array:
    return (books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0)


def _longest_run(mask: Array, weight: I64) -> int:
    if not mask.any():
        return 0
    run = np.cumsum(~mask)  # the same number all along a run
    return int(np.bincount(run[mask] - run[mask][0], weights=weight[mask]).max())


def _round_up(width: float) -> float:
    """To 1, 2 or 5 times a power of ten: bins that a person can read."""
    if width <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(width))
    return next(step * scale for step in (1.0, 2.0, 5.0, 10.0) if step * scale >= width * (1 - 1e-9))
