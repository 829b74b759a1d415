"""What an event does to the state: time passes, mids are remembered, order flow is added, a book is kept."""

from __future__ import annotations

import math

from features.layout import (
    ACTIVITY,
    ALIGN_WEIGHT,
    BIPOWER,
    BIPOWER_WEIGHT,
    COMPONENT,
    COVARIANCE,
    DEPTH_NOW,
    EMA,
    F64,
    F_KEPT,
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
    KEPT,
    LAST_RETURN,
    LAST_TRADE,
    LEVEL_SHARE,
    LEVELS,
    LOST,
    MEAN_DEPTH,
    MICRO_NS,
    MID2,
    MID_EMA,
    MID_NS,
    N_FLOW,
    N_PREV_ASK,
    N_PREV_BID,
    N_SIGNAL,
    N_VOL,
    NONE,
    PER_SECOND,
    PREV,
    QUOTE,
    REFILL,
    RING,
    RING_SIZE,
    SIGNAL,
    SPREAD_NS,
    STEP_AT,
    STEP_RING,
    STEP_RING_SIZE,
    TAPE_NS,
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
    """Forget everything but the clock and the leader."""
    for k in range(F_KEPT, F_SIZE):
        fs[k] = 0.0
    for m in range(LEVELS):
        fs[LEVEL_SHARE + m] = 1.0 / LEVELS
    for k in range(KEPT, I_SIZE):
        st[k] = 0
    for k in (VALID_NS, WARM_FROM, SPREAD_NS, MID_NS, GRID, LAST_TRADE, TAPE_NS, MICRO_NS, LOST, LOST + 4):
        st[k] = NONE
    st[LAST_RETURN] = -1


@jit
def pass_time(fs: F64, st: I64, now_ns: int) -> None:
    """Let the windows of the book decay by the time since the last valid one.

    What a book showed was in force until now, so means take it in here: the present book has no weight in
    them.
    """
    dt = (now_ns - st[VALID_NS]) * 1e-9
    if dt <= 0.0:
        return
    e300 = math.exp(-dt / 300)  # the others are whole powers of it: one exponential per book
    e60 = e300 * e300 * e300 * e300 * e300
    e20 = e60 * e60 * e60
    e10 = e20 * e20
    e5 = e10 * e10
    e2 = e10 * e10 * e10 * e10 * e10
    e1 = e2 * e2
    e025 = (e1 * e1) * (e1 * e1)
    for m in range(FLOW_STRIDE):
        fs[FLOW + m] *= e1
        fs[FLOW + FLOW_STRIDE + m] *= e5
        fs[FLOW + 2 * FLOW_STRIDE + m] *= e20
    for k in range(4):
        fs[QUOTE + k] *= e1
        fs[QUOTE + 4 + k] *= e10
        fs[REFILL + k] *= e60
    fs[ACTIVITY] *= e2
    fs[ACTIVITY + 1] *= e20
    for k in range(LEVELS * LEVELS):
        fs[COVARIANCE + k] *= e300
    for k in range(N_SIGNAL):
        now = fs[SIGNAL + k]
        fs[EMA + k] = fs[EMA + k] * e2 + now * (1.0 - e2)
        fs[EMA + N_SIGNAL + k] = fs[EMA + N_SIGNAL + k] * e10 + now * (1.0 - e10)
        fs[EMA + 2 * N_SIGNAL + k] = fs[EMA + 2 * N_SIGNAL + k] * e60 + now * (1.0 - e60)
        fs[EMA + 3 * N_SIGNAL + k] = fs[EMA + 3 * N_SIGNAL + k] * e300 + now * (1.0 - e300)
    mid = st[MID2] * 0.5
    fs[MID_EMA] = fs[MID_EMA] * e025 + mid * (1.0 - e025)
    fs[MID_EMA + 1] = fs[MID_EMA + 1] * e1 + mid * (1.0 - e1)
    fs[MID_EMA + 2] = fs[MID_EMA + 2] * e5 + mid * (1.0 - e5)
    fs[MID_EMA + 3] = fs[MID_EMA + 3] * e20 + mid * (1.0 - e20)
    fs[MID_EMA + 4] = fs[MID_EMA + 4] * e60 + mid * (1.0 - e60)
    fs[MID_EMA + 5] = fs[MID_EMA + 5] * e300 + mid * (1.0 - e300)
    fs[MEAN_DEPTH] = fs[MEAN_DEPTH] * e60 + fs[DEPTH_NOW] * (1.0 - e60)


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
            size = abs(st[MID2] - st[RING + (g - PER_SECOND) % RING_SIZE])
            r = size * 0.5
            for k in range(N_VOL):
                fs[VARIANCE + k] = fs[VARIANCE + k] * VOL_DECAY[k] + r * r * (1.0 - VOL_DECAY[k])
                fs[VARIANCE_WEIGHT + k] = fs[VARIANCE_WEIGHT + k] * VOL_DECAY[k] + 1.0 - VOL_DECAY[k]
            if st[LAST_RETURN] >= 0:
                both = r * (st[LAST_RETURN] * 0.5)
                for k in range(N_VOL):
                    fs[BIPOWER + k] = fs[BIPOWER + k] * VOL_DECAY[k] + both * (1.0 - VOL_DECAY[k])
                    fs[BIPOWER_WEIGHT + k] = fs[BIPOWER_WEIGHT + k] * VOL_DECAY[k] + 1.0 - VOL_DECAY[k]
            st[LAST_RETURN] = size


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
    seen = min(min(n_bid, n_ask), min(st[N_PREV_BID], st[N_PREV_ASK]))
    for m in range(min(LEVELS, seen)):
        e = _side_ofi(bid_px[m], bid_qty[m], st[prev_bid + m], st[prev_bid + DEPTH + m], 1)
        e -= _side_ofi(ask_px[m], ask_qty[m], st[prev_ask + m], st[prev_ask + DEPTH + m], -1)
        for w in range(N_FLOW):
            fs[FLOW + w * FLOW_STRIDE + m] += e
    aligned = _aligned_side(st, prev_bid, bid_px, bid_qty, n_bid, st[N_PREV_BID], mid2, 1)
    aligned -= _aligned_side(st, prev_ask, ask_px, ask_qty, n_ask, st[N_PREV_ASK], mid2, -1)
    for w in range(N_FLOW):
        fs[FLOW + w * FLOW_STRIDE + LEVELS] += aligned
    if seen >= LEVELS:
        _turn_component(fs)


@jit
def _turn_component(fs: F64) -> None:
    """One step of power iteration towards the first principal component of the levels' 1 s flows.

    The covariance forgets over 300 s; flows are taken per mean level size, so that a busy minute does not
    outweigh the others. Shares are non-negative and sum up to one.
    """
    per_lot = 1.0 / (fs[MEAN_DEPTH] + 1.0)
    for i in range(LEVELS):
        a = fs[FLOW + i] * per_lot
        for j in range(LEVELS):
            fs[COVARIANCE + LEVELS * i + j] += a * (fs[FLOW + j] * per_lot)
    total = 0.0
    for i in range(LEVELS):
        x = 0.0
        for j in range(LEVELS):
            x += fs[COVARIANCE + LEVELS * i + j] * fs[LEVEL_SHARE + j]
        x = max(x, 0.0)
        fs[COMPONENT + i] = x
        total += x
    if total > 0.0:
        for i in range(LEVELS):
            fs[LEVEL_SHARE + i] = fs[COMPONENT + i] / total


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
    st[N_PREV_BID], st[N_PREV_ASK] = n_bid, n_ask
    st[HAS_PREV] = 1
    st[STEP_AT] += 1
    st[STEP_RING + st[STEP_AT] % STEP_RING_SIZE] = bid_px[0] + ask_px[0]
    lots, levels = 0, 0
    for m in range(min(LEVELS, n_bid)):
        lots += bid_qty[m]
        levels += 1
    for m in range(min(LEVELS, n_ask)):
        lots += ask_qty[m]
        levels += 1
    fs[DEPTH_NOW] = lots / levels
