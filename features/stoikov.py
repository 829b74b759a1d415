"""The micro-price of Stoikov 2018, fitted at once on a finished day: the yardstick of the one that is learnt.

It sees the whole day, so it is for comparison and never a feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.batch import compute
from features.layout import BINS, SPREADS
from features.schema import NAMES
from market.errors import RecordingError
from market.types import InstrumentDay

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
TERMS = 60
"""Of the sum over mid moves; their effect shrinks with each."""
FEWEST_ROWS = 100


def micro_price_table(imbalance: F64, spread: F64, mid: F64) -> F64:
    """G in ticks, float64 [SPREADS, 2 * BINS]: rows are spreads of 1, 2, 3, 4 and more ticks, columns equal
    bins of the imbalance from -1 to 1; NaN for states that were never left.

    From consecutive books: Q without a mid move, R1 moves by their size, R2 moves by the state after;
    g = (1-Q)^-1 R1 k, B = (1-Q)^-1 R2, G = sum of B^i g. Every step is entered with its mirror image, as the
    sum need not converge otherwise.
    """
    row, bins = states(imbalance, spread)
    n = SPREADS * 2 * BINS
    move = np.diff(mid)
    stay, leave, gain, seen = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n), np.zeros(n)
    for column, way in ((bins, 1.0), (2 * BINS - 1 - bins, -1.0)):
        state = row * 2 * BINS + column
        here, there = state[:-1], state[1:]
        np.add.at(seen, here, 1)
        moved = move != 0
        np.add.at(stay, (here[~moved], there[~moved]), 1)
        np.add.at(leave, (here[moved], there[moved]), 1)
        np.add.at(gain, here, way * move)
    known = seen > 0
    share = np.where(known, seen, 1)
    inverse = np.linalg.inv(np.eye(n) - stay / share[:, None])
    first, after = inverse @ (gain / share), inverse @ (leave / share[:, None])
    total, term = np.zeros(n), first
    for _ in range(TERMS):
        total, term = total + term, after @ term
    return np.where(known, total, np.nan).reshape(SPREADS, 2 * BINS)


def states(imbalance: F64, spread: F64) -> tuple[I64, I64]:
    """Row and column of the table for each book."""
    bins = np.clip(((imbalance + 1) * BINS).astype(np.int64), 0, 2 * BINS - 1)
    return np.minimum(spread, SPREADS).astype(np.int64) - 1, bins


def lines(day: InstrumentDay) -> Iterator[str]:
    """The table of a day for people, and how near the column ``micro_price_dev`` came to it."""
    table = compute(day)
    kept = np.flatnonzero(table.usable)
    title = f"{day.instrument.ticker} {day.day}"
    if len(kept) < FEWEST_ROWS:
        raise RecordingError(f"{title}: {len(kept)} usable books, {FEWEST_ROWS} are needed for a micro-price")
    imbalance = table.X[kept, NAMES.index("imbalance_l1")].astype(np.float64)
    spread, mid = table.spread[kept].astype(np.float64), table.mid2[kept] / 2
    fitted = micro_price_table(imbalance, spread, mid)
    row, bins = states(imbalance, spread)
    yield f"{title}: G in ticks over mid, {len(kept):,} books; columns: imbalance of the touch"
    edges = np.linspace(-1, 1, 2 * BINS + 1)
    yield "spread   " + " ".join(f"{low:+.1f}..{high:+.1f}" for low, high in pairwise(edges))
    for k in range(SPREADS):
        name = f"{k + 1} and up" if k == SPREADS - 1 else str(k + 1)
        cells = " ".join(f"{'-' if np.isnan(g) else format(g, '+.3f'):>10}" for g in fitted[k])
        yield f"{name:<8} {cells}"
    learnt = table.X[kept, NAMES.index("micro_price_dev")].astype(np.float64)
    at = fitted[row, bins]
    both = np.isfinite(learnt) & np.isfinite(at)
    if both.sum() > 1 and learnt[both].std() > 0 and at[both].std() > 0:
        alike = float(np.corrcoef(learnt[both], at[both])[0, 1])
        off = float(np.abs(learnt[both] - at[both]).mean())
        yield (
            f"learnt as it goes (micro_price_dev): correlation {alike:.3f}, {off:.3f} ticks off on average, "
            f"known for {both.mean():.0%} of the books"
        )
