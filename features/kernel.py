"""The one feature kernel: ``step_book`` and ``step_trade`` move the state by one event; ``run`` is a loop
over them.

The whole state of one instrument is two flat arrays (``new_state``), so that saving it is copying them.
Nothing is allocated in a step. Batch and live call the same machine code, so their rows are equal to the bit.

Time is ``recv_ns``: what we could have known. Windows are exponential, decayed by true elapsed time, never by
the number of events. Rejected books (crossed, one-sided, inconsistent) leave no trace but the passing of
time.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features import schema
from features.schema import CROSSED, DUPLICATE, GAP, GAP_NS, INCONSISTENT, ONE_SIDED, WARMUP, WARMUP_NS
from market.types import BOOK_CONSISTENT, DEPTH

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

N_COLUMNS: Final = schema.F
LEVELS: Final = schema.OFI_LEVELS
SLOPE_LEVELS: Final = 10
COST_LEVEL_SIZES: Final = 3.0
SPREAD_CAP_TICKS: Final = 8
RACE: Final = math.sqrt((1 - 0.5) / (1 + 0.5))
RACE_NORM: Final = 2 * math.atan(RACE)
GRID_NS: Final = 250_000_000
"""Mids are remembered on this grid: a return over w seconds spans w to w + 0.25 s, never less."""
PER_SECOND: Final = 4
DAY_S: Final = 86_400
MOSCOW_NS: Final = 3 * 3600 * 1_000_000_000
# Weight exp(-d/5) of a price d ticks from mid, by half ticks; beyond the table it is under 3e-6, taken as
# none.
ALIGN_WEIGHT: Final = np.array([math.exp(-h / 10) for h in range(128)])
DEPTH_WEIGHT: Final = np.array([math.exp(-m / 2) for m in range(LEVELS)])
VOL_DECAY: Final = np.array([math.exp(-1 / w) for w in schema.VOL_WINDOWS_S])
RETURN_S: Final = np.array(schema.RETURN_WINDOWS_S, np.int64)

# Whole numbers in the state.
NONE: Final = -(1 << 62)
CLOCK, VALID_NS, WARM_FROM, HAS_PREV, MID2, SPREAD = 0, 1, 2, 3, 4, 5
SPREAD_NS, MID_NS, GRID, GRID_FILLED, LAST_TRADE = 6, 7, 8, 9, 10
RING: Final = 16
RING_SIZE: Final = 256
PREV: Final = RING + RING_SIZE
I_SIZE: Final = PREV + 4 * DEPTH

# Real numbers in the state: flows of 5 levels and one aligned flow per window, then trades, then the rest.
N_FLOW: Final = len(schema.FLOW_WINDOWS_S)
N_TRADE: Final = len(schema.TRADE_WINDOWS_S)
N_VOL: Final = len(schema.VOL_WINDOWS_S)
FLOW: Final = 0
FLOW_STRIDE: Final = LEVELS + 1
TRADE: Final = FLOW + N_FLOW * FLOW_STRIDE
INTENSITY: Final = TRADE + 2 * N_TRADE
MEAN_DEPTH: Final = INTENSITY + 2 * len(schema.INTENSITY_WINDOWS_S)
DEPTH_NOW: Final = MEAN_DEPTH + 1
VARIANCE: Final = DEPTH_NOW + 1
VARIANCE_WEIGHT: Final = VARIANCE + N_VOL
F_SIZE: Final = VARIANCE_WEIGHT + N_VOL

# _advance spells these windows out, as powers of one exponential.
assert (schema.FLOW_WINDOWS_S, schema.TRADE_WINDOWS_S) == ((1, 5, 20), (1, 5, 20, 60))
assert schema.INTENSITY_WINDOWS_S == (1, 10)

_column = schema.NAMES.index
C_OFI: Final = _column("ofi_l1_1s")
C_ALIGNED: Final = _column("aligned_flow_1s")
C_IMBALANCE: Final = _column("imbalance_l1")
C_IMBALANCE_5: Final = _column("imbalance_d5")
C_WEIGHTED_MID: Final = _column("weighted_mid_dev")
C_RACE: Final = _column("queue_race_up")
C_SLOPE: Final = _column("slope_bid")
C_COST: Final = _column("cost_diff")
C_TRADE: Final = _column("trade_flow_1s")
C_INTENSITY: Final = _column("intensity_buy_1s")
C_VOL: Final = _column("vol_10s")
C_VOL_RATIO: Final = _column("vol_ratio")
C_RETURN: Final = _column("return_1s")
C_LAST_TRADE: Final = _column("last_trade_dev")
C_SPREAD: Final = _column("spread_ticks")
C_SPREAD_BPS: Final = _column("spread_bps")
C_SINCE_SPREAD: Final = _column("since_spread_change")
C_SINCE_MID: Final = _column("since_mid_change")
C_DAY: Final = _column("day_sin")
FROZEN: Final = (schema.schema_hash(), GAP_NS, WARMUP_NS, DEPTH, BOOK_CONSISTENT)
"""What the machine code takes from other files."""
FROZEN_TAG: Final = int(hashlib.sha256(repr(FROZEN).encode()).hexdigest()[:15], 16)


# Divisors are sizes and distances, positive by construction: no check for zero inside the step.
_jit = njit(error_model="numpy")


def new_state() -> tuple[F64, I64]:
    """State before the first event: float64 [F_SIZE] and int64 [I_SIZE]."""
    fstate, istate = np.empty(F_SIZE), np.empty(I_SIZE, np.int64)
    _clear.py_func(fstate, istate)
    istate[CLOCK] = NONE
    return fstate, istate


@_jit
def _clear(fs: F64, st: I64) -> None:
    """Forget everything but the clock."""
    for k in range(F_SIZE):
        fs[k] = 0.0
    for k in range(1, I_SIZE):
        st[k] = 0
    for k in (VALID_NS, WARM_FROM, SPREAD_NS, MID_NS, GRID, LAST_TRADE):
        st[k] = NONE


@_jit
def _advance(fs: F64, st: I64, now_ns: int) -> None:
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


@_jit
def _count_levels(px: I32, qty: I32, direction: int) -> int:
    """Levels present (the first absent one ends the side); -1 for a price not positive or not worse."""
    n = 0
    while n < DEPTH and qty[n] > 0:
        if px[n] <= 0 or (n > 0 and (px[n] - px[n - 1]) * direction <= 0):
            return -1
        n += 1
    return n


@_jit
def _remember_mids(fs: F64, st: I64, now_ns: int) -> None:
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


@_jit
def _is_duplicate(st: I64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32) -> bool:
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


@_jit
def _side_ofi(px: int, qty: int, prev_px: int, prev_qty: int, direction: int) -> int:
    """CKS contribution of one side at one level; ``direction`` is +1 for bids, -1 for asks."""
    better = (px - prev_px) * direction
    if better > 0:
        return qty
    if better == 0:
        return qty - prev_qty
    return -prev_qty


@_jit
def _aligned_side(
    st: I64, prev: int, px: I32, qty: I32, n: int, n_prev: int, mid2: int, direction: int
) -> float:
    """Weighted change of one side's lots over the prices visible in both snapshots: a merge of two lists."""
    worst, worst_prev = px[n - 1], st[prev + n_prev - 1]
    limit = max(worst * direction, worst_prev * direction)
    i, j, total = 0, 0, 0.0
    while i < n or j < n_prev:
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


@_jit
def _add_flow(
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


@_jit
def _keep_book(
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


@_jit
def _slope(px: I32, qty: I32, mid2: int) -> float:
    """OLS slope of log(1 + cumulative lots) on ticks from mid over SLOPE_LEVELS levels."""
    n = SLOPE_LEVELS
    cumulated, sx, sy, sxx, sxy = 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(n):
        cumulated += qty[m]
        x = abs(px[m] - mid2 * 0.5)
        y = math.log(1.0 + cumulated)
        sx += x
        sy += y
        sxx += x * x
        sxy += x * y
    return (n * sxy - sx * sy) / (n * sxx - sx * sx)


@_jit
def _walk_cost(px: I32, qty: I32, n: int, lots: float, mid2: int) -> float:
    """Mean distance from mid, in ticks, paid for taking ``lots``; NaN when the visible side is thinner."""
    left, paid = lots, 0.0
    for m in range(n):
        take = min(left, float(qty[m]))
        paid += take * abs(px[m] - mid2 * 0.5)
        left -= take
        if left <= 0.0:
            return paid / lots
    return math.nan


@_jit
def _write_shape(
    fs: F64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32, n_bid: int, n_ask: int, mid2: int, out: F32
) -> None:
    """Columns that look at the present book only."""
    qb, qa = float(bid_qty[0]), float(ask_qty[0])
    spread = ask_px[0] - bid_px[0]
    imbalance = (qb - qa) / (qb + qa)
    out[C_IMBALANCE] = imbalance
    out[C_WEIGHTED_MID] = 0.5 * spread * imbalance
    out[C_RACE] = 0.5 + math.atan(RACE * imbalance) / RACE_NORM
    if n_bid >= LEVELS and n_ask >= LEVELS:
        b, a = 0.0, 0.0
        for m in range(LEVELS):
            b += DEPTH_WEIGHT[m] * bid_qty[m]
            a += DEPTH_WEIGHT[m] * ask_qty[m]
        out[C_IMBALANCE_5] = (b - a) / (b + a)
    if n_bid >= SLOPE_LEVELS:
        out[C_SLOPE] = _slope(bid_px, bid_qty, mid2)
    if n_ask >= SLOPE_LEVELS:
        out[C_SLOPE + 1] = _slope(ask_px, ask_qty, mid2)
    out[C_SLOPE + 2] = out[C_SLOPE] - out[C_SLOPE + 1]
    lots = COST_LEVEL_SIZES * max(fs[MEAN_DEPTH], 1.0)
    out[C_COST] = _walk_cost(ask_px, ask_qty, n_ask, lots, mid2) - _walk_cost(
        bid_px, bid_qty, n_bid, lots, mid2
    )
    out[C_SPREAD] = min(spread, SPREAD_CAP_TICKS)
    out[C_SPREAD_BPS] = spread * 2e4 / mid2


@_jit
def _asinh(x: float) -> float:
    """The library's own takes twice the time for digits that float32 drops."""
    size = abs(x)
    return math.copysign(math.log(size + math.sqrt(size * size + 1.0)), x)


@_jit
def _write_flows(fs: F64, n_levels: int, out: F32) -> None:
    """Columns of order flow, trade flow and intensities."""
    per_lot = 1.0 / (fs[MEAN_DEPTH] + 1.0)
    for w in range(N_FLOW):
        base = FLOW + w * FLOW_STRIDE
        for m in range(min(LEVELS, n_levels)):
            out[C_OFI + w * LEVELS + m] = _asinh(fs[base + m] * per_lot)
        out[C_ALIGNED + w] = _asinh(fs[base + LEVELS] * per_lot)
    for w in range(N_TRADE):
        buy, sell = fs[TRADE + 2 * w], fs[TRADE + 2 * w + 1]
        out[C_TRADE + w] = (buy - sell) / (buy + sell + 1.0)
    for k in range(4):
        out[C_INTENSITY + k] = math.log(1.0 + fs[INTENSITY + k])


@_jit
def _write_times(fs: F64, st: I64, now_ns: int, out: F32) -> None:
    """Columns of volatility, returns, the last trade and the clock."""
    mid2 = st[MID2]
    sigma_60 = 0.0
    if fs[VARIANCE_WEIGHT] > 0.0:
        for k in range(N_VOL):
            sigma = math.sqrt(fs[VARIANCE + k] / fs[VARIANCE_WEIGHT + k])
            out[C_VOL + k] = sigma * 2e4 / mid2
            if k == 1:
                sigma_60 = sigma
        long_run = math.sqrt(fs[VARIANCE + N_VOL - 1] / fs[VARIANCE_WEIGHT + N_VOL - 1])
        out[C_VOL_RATIO] = math.sqrt(fs[VARIANCE] / fs[VARIANCE_WEIGHT]) / (long_run + 0.1)
    for k in range(len(RETURN_S)):
        back = PER_SECOND * RETURN_S[k]
        if st[GRID_FILLED] > back:
            move = (mid2 - st[RING + (st[GRID] - back) % RING_SIZE]) * 0.5
            out[C_RETURN + k] = move / max(1.0, sigma_60 * math.sqrt(float(RETURN_S[k])))
    if st[LAST_TRADE] != NONE:
        out[C_LAST_TRADE] = st[LAST_TRADE] - mid2 * 0.5
    out[C_SINCE_SPREAD] = math.log(1.0 + (now_ns - st[SPREAD_NS]) * 1e-9)
    out[C_SINCE_MID] = math.log(1.0 + (now_ns - st[MID_NS]) * 1e-9)
    angle = 2 * math.pi / DAY_S * (((now_ns + MOSCOW_NS) % (DAY_S * 1_000_000_000)) * 1e-9)
    out[C_DAY] = math.sin(angle)
    out[C_DAY + 1] = math.cos(angle)


_BOOK = "float64[::1], int64[::1], int64, int32[::1], int32[::1], int32[::1], int32[::1], int64, float32[::1]"


@njit(f"int64({_BOOK})", cache=True, error_model="numpy")
def step_book(
    fs: F64,
    st: I64,
    recv_ns: int,
    bid_px: I32,
    bid_qty: I32,
    ask_px: I32,
    ask_qty: I32,
    flags: int,
    out: F32,
) -> int:
    """Take one snapshot, write one row.

    ``fs``, ``st``: the state, changed in place. ``bid_px`` .. ``ask_qty``: int32 [DEPTH], best first, absent
    = size 0. ``flags``: ``Books.flags``. ``out``: float32 [F], all NaN when the book is rejected. Returns the
    status bits of ``features.schema``. A row that goes back in time is INCONSISTENT and changes nothing.
    """
    for k in range(N_COLUMNS):
        out[k] = math.nan
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    status = 0
    if st[VALID_NS] != NONE and recv_ns - st[VALID_NS] > GAP_NS:
        _clear(fs, st)
        status = GAP
    _advance(fs, st, recv_ns)
    if st[WARM_FROM] == NONE or recv_ns - st[WARM_FROM] < WARMUP_NS:
        status |= WARMUP
    n_bid, n_ask = _count_levels(bid_px, bid_qty, -1), _count_levels(ask_px, ask_qty, 1)
    if not flags & BOOK_CONSISTENT or n_bid < 0 or n_ask < 0:
        st[HAS_PREV] = 0  # what was missed is unknown, so the next snapshot has nothing to be compared with
        return status | INCONSISTENT
    if n_bid == 0 or n_ask == 0:
        return status | ONE_SIDED
    if bid_px[0] >= ask_px[0]:
        return status | CROSSED

    mid2, spread = bid_px[0] + ask_px[0], ask_px[0] - bid_px[0]
    _remember_mids(fs, st, recv_ns)
    fresh = st[VALID_NS] == NONE
    if fresh:
        st[WARM_FROM] = recv_ns
    if fresh or spread != st[SPREAD]:
        st[SPREAD], st[SPREAD_NS] = spread, recv_ns
    if fresh or mid2 != st[MID2]:
        st[MID2], st[MID_NS] = mid2, recv_ns
    st[VALID_NS] = recv_ns
    if st[HAS_PREV] and _is_duplicate(st, bid_px, bid_qty, ask_px, ask_qty):
        status |= DUPLICATE
    else:
        if st[HAS_PREV]:
            _add_flow(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2)
        _keep_book(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask)
        if fresh:
            fs[MEAN_DEPTH] = fs[DEPTH_NOW]
    _write_flows(fs, min(n_bid, n_ask), out)
    _write_shape(fs, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2, out)
    _write_times(fs, st, recv_ns, out)
    return status


@njit("int64(float64[::1], int64[::1], int64, int64, int64, int64)", cache=True, error_model="numpy")
def step_trade(fs: F64, st: I64, recv_ns: int, px: int, qty: int, side: int) -> int:
    """Take one trade: ``px`` ticks, ``qty`` lots, ``side`` of the aggressor (+1, -1, 0 unknown).

    Returns 0, or INCONSISTENT (and changes nothing) when it goes back in time.
    """
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    _advance(fs, st, recv_ns)
    st[LAST_TRADE] = px
    if side != 0:
        s = 0 if side > 0 else 1
        for w in range(N_TRADE):
            fs[TRADE + 2 * w + s] += qty
        fs[INTENSITY + s] += 1.0
        fs[INTENSITY + 2 + s] += 1.0
    return 0


@njit(
    "void(float64[::1], int64[::1], int8[::1], int64[::1],"
    " int64[::1], int32[:,::1], int32[:,::1], int32[:,::1], int32[:,::1], uint8[::1],"
    " int64[::1], int32[::1], int32[::1], int8[::1], float32[:,::1], uint8[::1])",
    cache=True,
    error_model="numpy",
)
def run(
    fs: F64,
    st: I64,
    kind: NDArray[np.int8],
    row: I64,
    book_ns: I64,
    bid_px: I32,
    bid_qty: I32,
    ask_px: I32,
    ask_qty: I32,
    flags: NDArray[np.uint8],
    trade_ns: I64,
    trade_px: I32,
    trade_qty: I32,
    trade_side: NDArray[np.int8],
    out: F32,
    status: NDArray[np.uint8],
) -> None:
    """The steps over merged events: ``kind`` [m] 0 = trade, 1 = book; ``row`` [m]; ``out`` [n, F]."""
    for k in range(len(kind)):
        r = row[k]
        if kind[k] == 0:
            step_trade(fs, st, trade_ns[r], trade_px[r], trade_qty[r], trade_side[r])
        else:
            status[r] = step_book(
                fs, st, book_ns[r], bid_px[r], bid_qty[r], ask_px[r], ask_qty[r], flags[r], out[r]
            )


@njit("int64()", cache=True, error_model="numpy")
def _compiled_tag() -> int:
    return FROZEN_TAG


# Numba's cache watches this file only, while the column numbers come from schema.py: cached machine code of
# another schema would write into other columns. The tag frozen into it tells.
if _compiled_tag() != FROZEN_TAG:
    for _function in (_compiled_tag, step_trade, step_book, run):
        _any: Any = _function
        _any.recompile()
