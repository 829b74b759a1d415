"""Trades: how they decay, what one adds, and the buckets of equal volume (VPIN)."""

from __future__ import annotations

import math

from features.layout import (
    BUCKETS,
    F64,
    I64,
    INTENSITY,
    LAST_TRADE,
    N_INTENSITY,
    N_TAPE,
    NONE,
    TAPE,
    TAPE_NS,
    TAPE_STRIDE,
    VPIN_FULL,
    VPIN_LOTS,
    VPIN_RING,
    VPIN_SIGNED,
    VPIN_SIZE,
    VPIN_SUM,
    VPIN_TOTAL,
    jit,
)

TRADES_A_BUCKET = 20.0
_LONGEST = TAPE + TAPE_STRIDE * (N_TAPE - 1)


@jit
def pass_tape(fs: F64, st: I64, now_ns: int) -> None:
    """Let the windows of trades decay by the time since the last event."""
    if st[TAPE_NS] == NONE or now_ns <= st[TAPE_NS]:
        st[TAPE_NS] = max(now_ns, st[TAPE_NS])
        return
    dt = (now_ns - st[TAPE_NS]) * 1e-9
    st[TAPE_NS] = now_ns
    e300 = math.exp(-dt / 300)
    e60 = e300 * e300 * e300 * e300 * e300
    e20 = e60 * e60 * e60
    e10 = e20 * e20
    e5 = e10 * e10
    e1 = e5 * e5 * e5 * e5 * e5
    e025 = (e1 * e1) * (e1 * e1)
    e01 = (e025 * e025) * (e1 * e1)
    for k in range(TAPE_STRIDE):
        fs[TAPE + k] *= e025
        fs[TAPE + TAPE_STRIDE + k] *= e1
        fs[TAPE + 2 * TAPE_STRIDE + k] *= e5
        fs[TAPE + 3 * TAPE_STRIDE + k] *= e20
        fs[TAPE + 4 * TAPE_STRIDE + k] *= e60
        fs[TAPE + 5 * TAPE_STRIDE + k] *= e300
    for s in range(2):
        fs[INTENSITY + s] *= e01
        fs[INTENSITY + 2 + s] *= e1
        fs[INTENSITY + 4 + s] *= e10


@jit
def add_trade(fs: F64, st: I64, px: int, qty: int, side: int) -> None:
    """One trade; of an unknown side it only moves the last price."""
    st[LAST_TRADE] = px
    if side == 0:
        return
    s = 0 if side > 0 else 1
    paid = float(qty) * px
    for w in range(N_TAPE):
        fs[TAPE + TAPE_STRIDE * w + s] += qty
        fs[TAPE + TAPE_STRIDE * w + 2 + s] += 1.0
        fs[TAPE + TAPE_STRIDE * w + 4] += paid
    for w in range(N_INTENSITY):
        fs[INTENSITY + 2 * w + s] += 1.0
    _fill_buckets(fs, st, qty, 1 - 2 * s)


@jit
def _bucket_lots(fs: F64) -> int:
    """Lots of a bucket: so many mean trades of the last five minutes."""
    lots = fs[_LONGEST] + fs[_LONGEST + 1]
    count = fs[_LONGEST + 2] + fs[_LONGEST + 3]
    return max(1, int(TRADES_A_BUCKET * lots / count))


@jit
def _fill_buckets(fs: F64, st: I64, qty: int, direction: int) -> None:
    """Pour the trade into buckets; the ring keeps |bought - sold| and the size of the last full ones."""
    left, closed = qty, 0
    while left > 0 and closed < BUCKETS:  # more than a whole ring changes nothing
        if st[VPIN_SIZE] == 0:
            st[VPIN_SIZE] = _bucket_lots(fs)
        take = min(left, st[VPIN_SIZE] - st[VPIN_LOTS])
        left -= take
        st[VPIN_LOTS] += take
        st[VPIN_SIGNED] += direction * take
        if st[VPIN_LOTS] == st[VPIN_SIZE]:
            at = VPIN_RING + 2 * (st[VPIN_FULL] % BUCKETS)
            st[VPIN_SUM] += abs(st[VPIN_SIGNED]) - st[at]
            st[VPIN_TOTAL] += st[VPIN_SIZE] - st[at + 1]
            st[at], st[at + 1] = abs(st[VPIN_SIGNED]), st[VPIN_SIZE]
            st[VPIN_FULL] += 1
            st[VPIN_LOTS] = st[VPIN_SIGNED] = st[VPIN_SIZE] = 0
            closed += 1
