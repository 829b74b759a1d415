"""The micro-price of Stoikov 2018, fitted at once on a finished day: the yardstick of the one that is learnt.

It sees the whole day, so it is for comparison and never a feature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.layout import BINS, SPREADS

F64 = NDArray[np.float64]
TERMS = 60
"""Of the sum over mid moves; their effect shrinks with each."""


def micro_price_table(imbalance: F64, spread: F64, mid: F64) -> F64:
    """G in ticks, float64 [SPREADS, 2 * BINS]: rows are spreads of 1, 2, 3, 4 and more ticks, columns equal
    bins of the imbalance from -1 to 1; NaN for states that were never left.

    From consecutive books: Q without a mid move, R1 moves by their size, R2 moves by the state after;
    g = (1-Q)^-1 R1 k, B = (1-Q)^-1 R2, G = sum of B^i g. Every step is entered with its mirror image, as the
    sum need not converge otherwise.
    """
    bins = np.clip(((imbalance + 1) * BINS).astype(int), 0, 2 * BINS - 1)
    row = np.minimum(spread, SPREADS).astype(int) - 1
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
