"""What the kernel learns of an instrument as it goes: its micro-price, and how fast its queues refill.

Nothing is fitted beforehand, so there is no fit that could know the future, and a day computed in batch, live
or in replay has learnt the same at the same moment. A gap forgets it.
"""

from __future__ import annotations

import math

from features.layout import (
    BINS,
    F64,
    I32,
    I64,
    LOST,
    MICRO_COUNT,
    MICRO_NS,
    MICRO_SIGNED,
    MICRO_SUM,
    MICRO_WAITING,
    MID2,
    NONE,
    PREV,
    REFILL,
    SPREADS,
    STATES,
    jit,
)
from market.types import DEPTH, SECOND_NS

MICRO_MEMORY_S = 600.0
FEWEST_SEEN = 20.0


@jit
def _micro_state(imbalance: float, spread: int) -> int:
    return (min(spread, SPREADS) - 1) * BINS + min(BINS - 1, int(abs(imbalance) * BINS))


@jit
def micro_price(fs: F64, imbalance: float, spread: int) -> float:
    """Expected sum of the mid moves to come, in ticks; NaN for a state that was hardly seen."""
    if imbalance == 0.0:
        return 0.0
    s = _micro_state(imbalance, spread)
    if fs[MICRO_COUNT + s] < FEWEST_SEEN:
        return math.nan
    return math.copysign(fs[MICRO_SUM + s] / fs[MICRO_COUNT + s], fs[MICRO_SUM + s] * imbalance)


@jit
def learn_micro_price(fs: F64, st: I64, now_ns: int, imbalance: float, spread: int, mid2: int) -> None:
    """Mid has moved: tell every book since the last move what came of it.

    Stoikov's micro-price is G(s) = E[first mid move + G(state after it)]; here the expectation is a mean
    that forgets over 600 s, and G on the right is what is known so far. A book and its mirror image are one
    state with two signs, as Stoikov's symmetrisation has it.
    """
    move = (mid2 - st[MID2]) * 0.5
    after = micro_price(fs, imbalance, spread)
    if not math.isnan(after):
        move += after
    kept = math.exp(-(now_ns - st[MICRO_NS]) * (1e-9 / MICRO_MEMORY_S))
    st[MICRO_NS] = now_ns
    for s in range(STATES):
        fs[MICRO_SUM + s] = fs[MICRO_SUM + s] * kept + fs[MICRO_SIGNED + s] * move
        fs[MICRO_COUNT + s] = fs[MICRO_COUNT + s] * kept + fs[MICRO_WAITING + s]
        fs[MICRO_SIGNED + s] = 0.0
        fs[MICRO_WAITING + s] = 0.0


@jit
def see_state(fs: F64, imbalance: float, spread: int) -> None:
    """This book waits for the next mid move."""
    if imbalance != 0.0:
        s = _micro_state(imbalance, spread)
        fs[MICRO_SIGNED + s] += math.copysign(1.0, imbalance)
        fs[MICRO_WAITING + s] += 1.0


@jit
def _lots_at(price: int, px: I32, qty: I32, n: int) -> int:
    for m in range(n):
        if px[m] == price:
            return qty[m]
    return 0


@jit
def see_refill(fs: F64, st: I64, now_ns: int, side: int, px: I32, qty: I32, n: int) -> None:
    """A second after a loss: which share of it is back at that price? ``side``: 0 bids, 1 asks."""
    at = LOST + 4 * side
    if st[at] == NONE or now_ns - st[at] < SECOND_NS:
        return
    back = _lots_at(st[at + 1], px, qty, n) - st[at + 3]
    share = back / (st[at + 2] - st[at + 3])
    fs[REFILL + 2 * side] += min(1.0, max(0.0, share))
    fs[REFILL + 2 * side + 1] += 1.0
    st[at] = NONE


@jit
def see_loss(st: I64, now_ns: int, side: int, px: I32, qty: I32) -> None:
    """Half of the best queue of the book before is gone: remember it, one a side at a time."""
    at, prev, direction = LOST + 4 * side, PREV + 2 * DEPTH * side, 1 - 2 * side
    better = (px[0] - st[prev]) * direction
    if st[at] != NONE or better > 0:
        return
    before, after = st[prev + DEPTH], qty[0] if better == 0 else 0
    if 2 * after <= before:
        st[at], st[at + 1], st[at + 2], st[at + 3] = now_ns, st[prev], before, after
