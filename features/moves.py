"""What an event does to the state: time passes, mids are remembered, order flow is added, a book is kept."""

from __future__ import annotations

import math

from features.layout import (
    ALIGN_WEIGHT,
    CLOCK,
    DEPTH_NOW,
    F64,
    F_SIZE,
    FLOW,
    FLOW_STRIDE,
    GRID,
    GRID_FILLED,
    GRID_NS,
    HAS_PREV,
    I32,
    I64,
    I_SIZE,
    INTENSITY,
    LAST_TRADE,
    LEVELS,
    MEAN_DEPTH,
    MID2,
    MID_NS,
    N_FLOW,
    N_VOL,
    NONE,
    PER_SECOND,
    PREV,
    RING,
    RING_SIZE,
    SPREAD_NS,
    TRADE,
    VALID_NS,
    VARIANCE,
    VARIANCE_WEIGHT,
    VOL_DECAY,
    WARM_FROM,
    jit,
)
from market.types import DEPTH


@jit
def clear(fs: F64, st: I64) -> None:
    """Forget everything but the clock."""
    for k in range(F_SIZE):
        fs[k] = 0.0
    for k in range(1, I_SIZE):
        st[k] = 0
    for k in (VALID_NS, WARM_FROM, SPREAD_NS, MID_NS, GRID, LAST_TRADE):
        st[k] = NONE


@jit
def advance(fs: F64, st: I64, now_ns: int) -> None:
    """Let time pass: decay every exponential window by the true elapsed time."""
    if st[CLOCK] != NONE and now_ns > st[CLOCK]:
        dt = (now_ns - st[CLOCK]) * 1e-9
        e60 = math.exp(-dt / 60)  # the others are whole powers of it: one exponential per event
        e20 = e60 * e60 * e60
        e10 = e20 * e20
        e5 = e10 * e10
        e1 = e5 * e5 * e5 * e5 * e5
        for m in range(FLOW_STRIDE):
            fs[FLOW + m] *= e1
            fs[FLOW + FLOW_STRIDE + m] *= e5
            fs[FLOW + 2 * FLOW_STRIDE + m] *= e20
        for s in range(2):
            fs[TRADE + s] *= e1
            fs[TRADE + 2 + s] *= e5
            fs[TRADE + 4 + s] *= e20
            fs[TRADE + 6 + s] *= e60
            fs[INTENSITY + s] *= e1
            fs[INTENSITY + 2 + s] *= e10
        # The depth in force since the last event, so that the present book has no weight in its own
        # normaliser.
        fs[MEAN_DEPTH] = fs[MEAN_DEPTH] * e60 + fs[DEPTH_NOW] * (1.0 - e60)
    st[CLOCK] = now_ns


@jit
def count_levels(px: I32, qty: I32, direction: int) -> int:
    """Levels present (the first absent one ends the side); -1 for a price not positive or not worse."""
    n = 0
    while n < DEPTH and qty[n] > 0:
        if px[n] <= 0 or (n > 0 and (px[n] - px[n - 1]) * direction <= 0):
            return -1
        n += 1
    return n


@jit
def remember_mids(fs: F64, st: I64, now_ns: int) -> None:
    """Write the mid in force on every grid point before ``now_ns``; take 1 s returns into the variances."""
    last = (now_ns - 1) // GRID_NS
    if st[GRID] == NONE:
        st[GRID] = last
        return
    while st[GRID] < last:  # at most GAP_NS / GRID_NS + 1 turns: a longer silence has reset the state
        st[GRID] += 1
        g = st[GRID]
        st[RING + g % RING_SIZE] = st[MID2]
        st[GRID_FILLED] += 1
        if g % PER_SECOND == 0 and st[GRID_FILLED] > PER_SECOND:
            r = (st[MID2] - st[RING + (g - PER_SECOND) % RING_SIZE]) * 0.5
            for k in range(N_VOL):
                fs[VARIANCE + k] = fs[VARIANCE + k] * VOL_DECAY[k] + r * r * (1.0 - VOL_DECAY[k])
                fs[VARIANCE_WEIGHT + k] = fs[VARIANCE_WEIGHT + k] * VOL_DECAY[k] + 1.0 - VOL_DECAY[k]


@jit
def is_duplicate(st: I64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32) -> bool:
    p = PREV
    for m in range(DEPTH):
        if (
            st[p + m] != bid_px[m]
            or st[p + DEPTH + m] != bid_qty[m]
            or st[p + 2 * DEPTH + m] != ask_px[m]
            or st[p + 3 * DEPTH + m] != ask_qty[m]
        ):
            return False
    return True


@jit
def _side_ofi(px: int, qty: int, prev_px: int, prev_qty: int, direction: int) -> int:
    """CKS contribution of one side at one level; ``direction`` is +1 for bids, -1 for asks."""
    better = (px - prev_px) * direction
    if better > 0:
        return qty
    if better == 0:
        return qty - prev_qty
    return -prev_qty


@jit
def _aligned_side(
    st: I64, prev: int, px: I32, qty: I32, n: int, n_prev: int, mid2: int, direction: int
) -> float:
    """Weighted change of one side's lots over the prices visible in both snapshots: a merge of two lists."""
    worst, worst_prev = px[n - 1], st[prev + n_prev - 1]
    limit = max(worst * direction, worst_prev * direction)
    i, j, total = 0, 0, 0.0
    while i < n or j < n_prev:
        if i < n and j < n_prev and px[i] == st[prev + j] and qty[i] == st[prev + DEPTH + j]:
            i, j = i + 1, j + 1  # most levels stay as they were: nothing to add
            continue
        here = px[i] * direction if i < n else NONE
        there = st[prev + j] * direction if j < n_prev else NONE
        best = max(here, there)
        half_ticks = mid2 * direction - 2 * best
        if best < limit or half_ticks >= len(ALIGN_WEIGHT):
            break
        change = 0
        if here == best:
            change += qty[i]
            i += 1
        if there == best:
            change -= st[prev + DEPTH + j]
            j += 1
        # An old bid may lie above the new mid; it weighs as much as one as far below.
        total += ALIGN_WEIGHT[min(abs(half_ticks), len(ALIGN_WEIGHT) - 1)] * change
    return total


@jit
def add_flow(
    fs: F64, st: I64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32, n_bid: int, n_ask: int, mid2: int
) -> None:
    """Add this snapshot's order flow against the previous one to every flow window."""
    prev_bid, prev_ask = PREV, PREV + 2 * DEPTH
    for m in range(min(LEVELS, n_bid, n_ask)):
        if st[prev_bid + DEPTH + m] == 0 or st[prev_ask + DEPTH + m] == 0:
            break
        e = _side_ofi(bid_px[m], bid_qty[m], st[prev_bid + m], st[prev_bid + DEPTH + m], 1)
        e -= _side_ofi(ask_px[m], ask_qty[m], st[prev_ask + m], st[prev_ask + DEPTH + m], -1)
        for w in range(N_FLOW):
            fs[FLOW + w * FLOW_STRIDE + m] += e
    n_prev_bid, n_prev_ask = 0, 0
    for m in range(DEPTH):
        n_prev_bid += st[prev_bid + DEPTH + m] != 0
        n_prev_ask += st[prev_ask + DEPTH + m] != 0
    aligned = _aligned_side(st, prev_bid, bid_px, bid_qty, n_bid, n_prev_bid, mid2, 1)
    aligned -= _aligned_side(st, prev_ask, ask_px, ask_qty, n_ask, n_prev_ask, mid2, -1)
    for w in range(N_FLOW):
        fs[FLOW + w * FLOW_STRIDE + LEVELS] += aligned


@jit
def keep_book(
    fs: F64, st: I64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32, n_bid: int, n_ask: int
) -> None:
    """This book becomes the previous one."""
    for m in range(DEPTH):
        st[PREV + m] = bid_px[m]
        st[PREV + DEPTH + m] = bid_qty[m] if m < n_bid else 0
        st[PREV + 2 * DEPTH + m] = ask_px[m]
        st[PREV + 3 * DEPTH + m] = ask_qty[m] if m < n_ask else 0
    st[HAS_PREV] = 1
    lots, levels = 0, 0
    for m in range(min(LEVELS, n_bid)):
        lots += bid_qty[m]
        levels += 1
    for m in range(min(LEVELS, n_ask)):
        lots += ask_qty[m]
        levels += 1
    fs[DEPTH_NOW] = lots / levels
