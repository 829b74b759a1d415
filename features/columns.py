"""What a row says: the columns, written from the state and the present book."""

from __future__ import annotations

import math

from features.layout import (
    ACTIVITY,
    ACTIVITY_SCALE,
    BIPOWER,
    BIPOWER_WEIGHT,
    C_BALANCE,
    C_BIPOWER,
    C_COST,
    C_DAY,
    C_DEPTH,
    C_GAP,
    C_IMBALANCE_5,
    C_INTEGRATED,
    C_LAST_TRADE,
    C_LEVELS,
    C_MICRO,
    C_MOMENTUM,
    C_OFI,
    C_RACE,
    C_REFILL,
    C_RETURN,
    C_SESSION,
    C_SINCE_BOOK,
    C_SLOPE,
    C_SPREAD,
    C_STEP,
    C_TOUCH,
    C_TRADE,
    C_VOL,
    C_VOL_RATIO,
    C_VPIN,
    C_VWAP,
    C_WEIGHTED_MID,
    CLOSES_S,
    COST_LEVEL_SIZES,
    DAY_S,
    DEPTH_WEIGHT,
    EMA,
    F32,
    F64,
    FLOW,
    FLOW_STRIDE,
    GRID,
    GRID_FILLED,
    I32,
    I64,
    INTENSITY,
    LAST_TRADE,
    LEVEL_SHARE,
    LEVEL_WEIGHT,
    LEVELS,
    LOG_OF_LOTS,
    MEAN_DEPTH,
    MID2,
    MID_EMA,
    MID_NS,
    MOSCOW_NS,
    N_ACTIVITY,
    N_ASINH,
    N_BALANCE,
    N_DECAY,
    N_EMA,
    N_FLOW,
    N_INTENSITY,
    N_LOG,
    N_MOMENTUM,
    N_NEAR,
    N_QUOTE,
    N_SESSION,
    N_SIGNAL,
    N_TAPE,
    N_VOL,
    NEAR_HALF_TICKS,
    NEAR_WEIGHT,
    NONE,
    OPENS_S,
    PER_SECOND,
    QUOTE,
    RACE,
    RACE_NORM,
    REFILL,
    RETURN_S,
    RING,
    RING_SIZE,
    ROOT_MOMENTUM,
    ROOT_RETURN,
    SCRATCH,
    SESSION_CAP_MIN,
    SIGNAL,
    SINCE_BOOK_CAP_S,
    SLOPE_LEVELS,
    SPREAD_CAP_TICKS,
    SPREAD_NS,
    STEP_AT,
    STEP_RING,
    STEP_RING_SIZE,
    STEPS,
    TAPE,
    TAPE_STRIDE,
    VARIANCE,
    VARIANCE_WEIGHT,
    VENUE,
    VPIN_FULL,
    VPIN_SUM,
    VPIN_TOTAL,
    WIDEST_GAP_TICKS,
    jit,
)
from features.learnt import micro_price
from features.logs import ln

BIPOWER_SCALE = math.pi / 2
FEWEST_BUCKETS = 10
LEAST_LOTS = 1e-3
LEAST_LOSSES = 1e-3


@jit
def _log_lots(lots: int) -> float:
    return LOG_OF_LOTS[lots] if lots < len(LOG_OF_LOTS) else math.log(1.0 + lots)


@jit
def _slope(px: I32, qty: I32, mid2: int) -> float:
    """OLS slope of log(1 + cumulative lots) on ticks from mid over SLOPE_LEVELS levels."""
    n = SLOPE_LEVELS
    lots = 0
    sx, sy, sxx, sxy = 0.0, 0.0, 0.0, 0.0
    for m in range(n):
        lots += qty[m]
        x = abs(px[m] - mid2 * 0.5)
        y = _log_lots(lots)
        sx += x
        sy += y
        sxx += x * x
        sxy += x * y
    return (n * sxy - sx * sy) / (n * sxx - sx * sx)


@jit
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


@jit
def measure(
    fs: F64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32, n_bid: int, n_ask: int, mid2: int
) -> None:
    """The present book's imbalances and depths: the signals whose means are kept."""
    b0, b1, b2, a0, a1, a2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    near_b0, near_b1, near_b2, near_a0, near_a1, near_a2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(n_bid):
        q = float(bid_qty[m])
        b0 += q * LEVEL_WEIGHT[m, 0]
        b1 += q * LEVEL_WEIGHT[m, 1]
        b2 += q * LEVEL_WEIGHT[m, 2]
        h = min(mid2 - 2 * bid_px[m], NEAR_HALF_TICKS - 1)
        near_b0 += q * NEAR_WEIGHT[h, 0]
        near_b1 += q * NEAR_WEIGHT[h, 1]
        near_b2 += q * NEAR_WEIGHT[h, 2]
    for m in range(n_ask):
        q = float(ask_qty[m])
        a0 += q * LEVEL_WEIGHT[m, 0]
        a1 += q * LEVEL_WEIGHT[m, 1]
        a2 += q * LEVEL_WEIGHT[m, 2]
        h = min(2 * ask_px[m] - mid2, NEAR_HALF_TICKS - 1)
        near_a0 += q * NEAR_WEIGHT[h, 0]
        near_a1 += q * NEAR_WEIGHT[h, 1]
        near_a2 += q * NEAR_WEIGHT[h, 2]
    qb, qa = float(bid_qty[0]), float(ask_qty[0])
    fs[SIGNAL] = (b0 - a0) / (b0 + a0)
    fs[SIGNAL + 1] = (b1 - a1) / (b1 + a1)
    fs[SIGNAL + 2] = (b2 - a2) / (b2 + a2)
    near = SIGNAL + N_DECAY
    fs[near] = (near_b0 - near_a0) / (near_b0 + near_a0)
    fs[near + 1] = (near_b1 - near_a1) / (near_b1 + near_a1)
    fs[near + 2] = (near_b2 - near_a2) / (near_b2 + near_a2)
    fs[SIGNAL + N_DECAY + N_NEAR] = (qb - qa) / (qb + qa)
    fs[SIGNAL + N_BALANCE] = ln(1.0 + near_b0 + near_a0)
    fs[SIGNAL + N_BALANCE + 1] = ln(1.0 + near_b1 + near_a1)
    fs[SIGNAL + N_BALANCE + 2] = ln(1.0 + near_b2 + near_a2)


@jit
def write_levels(fs: F64, out: F32) -> None:
    """Imbalances, their means, and depth against its mean."""
    for k in range(N_BALANCE):
        out[C_LEVELS + k] = fs[SIGNAL + k]
    for w in range(N_EMA):
        for k in range(N_BALANCE):
            out[C_LEVELS + N_BALANCE * (1 + w) + k] = fs[EMA + N_SIGNAL * w + k]
    for k in range(N_NEAR):
        out[C_DEPTH + k] = fs[SIGNAL + N_BALANCE + k] - fs[EMA + N_SIGNAL * (N_EMA - 1) + N_BALANCE + k]


@jit
def write_shape(
    fs: F64, bid_px: I32, bid_qty: I32, ask_px: I32, ask_qty: I32, n_bid: int, n_ask: int, mid2: int, out: F32
) -> None:
    """Columns that look at the present book only."""
    spread = ask_px[0] - bid_px[0]
    imbalance = fs[SIGNAL + N_DECAY + N_NEAR]
    if n_bid >= LEVELS and n_ask >= LEVELS:
        b, a = 0.0, 0.0
        for m in range(LEVELS):
            b += DEPTH_WEIGHT[m] * bid_qty[m]
            a += DEPTH_WEIGHT[m] * ask_qty[m]
        out[C_IMBALANCE_5] = (b - a) / (b + a)
    out[C_WEIGHTED_MID] = 0.5 * spread * imbalance
    out[C_MICRO] = micro_price(fs, imbalance, spread)
    out[C_RACE] = math.atan(RACE * imbalance) / RACE_NORM
    here, there = _log_lots(bid_qty[0]), _log_lots(ask_qty[0])
    out[C_TOUCH] = here - there
    out[C_TOUCH + 1] = here + there
    if n_bid >= SLOPE_LEVELS:
        out[C_SLOPE] = _slope(bid_px, bid_qty, mid2)
    if n_ask >= SLOPE_LEVELS:
        out[C_SLOPE + 1] = _slope(ask_px, ask_qty, mid2)
    out[C_SLOPE + 2] = out[C_SLOPE] - out[C_SLOPE + 1]
    out[C_SLOPE + 3] = out[C_SLOPE] + out[C_SLOPE + 1]
    lots = COST_LEVEL_SIZES * max(fs[MEAN_DEPTH], 1.0)
    buy = _walk_cost(ask_px, ask_qty, n_ask, lots, mid2)
    sell = _walk_cost(bid_px, bid_qty, n_bid, lots, mid2)
    out[C_COST] = buy * 2e4 / mid2
    out[C_COST + 1] = sell * 2e4 / mid2
    out[C_COST + 2] = buy - sell
    for j in range(1, min(4, min(n_bid, n_ask))):
        below = min(bid_px[j - 1] - bid_px[j], WIDEST_GAP_TICKS)
        above = min(ask_px[j] - ask_px[j - 1], WIDEST_GAP_TICKS)
        out[C_GAP + j - 1] = above - below
        out[C_GAP + 2 + j] = above + below
    out[C_SPREAD] = min(spread, SPREAD_CAP_TICKS)
    out[C_SPREAD + 1] = spread * 2e4 / mid2
    out[C_SPREAD + 2] = 1.0 if spread == 1 else 0.0
    out[C_SPREAD + 3] = 1.0 if spread == 2 else 0.0


@jit
def write_logs(fs: F64, st: I64, n_levels: int, now_ns: int, out: F32) -> None:
    """Columns told as asinh and as log(1 + x): first their arguments, then all logarithms in one loop."""
    per_lot = 1.0 / (fs[MEAN_DEPTH] + 1.0)
    at = SCRATCH
    for w in range(N_FLOW):
        base = FLOW + w * FLOW_STRIDE
        whole = 0.0
        for m in range(LEVELS):
            fs[at + w * LEVELS + m] = fs[base + m] * per_lot
            whole += fs[base + m] * fs[LEVEL_SHARE + m]
        fs[at + N_FLOW * LEVELS + w] = fs[base + LEVELS] * per_lot
        fs[at + N_FLOW * (LEVELS + 1) + w] = whole * per_lot
    pressure, volume = at + N_FLOW * (LEVELS + 2), at + N_ASINH
    for w in range(N_TAPE):
        buy, sell = fs[TAPE + TAPE_STRIDE * w], fs[TAPE + TAPE_STRIDE * w + 1]
        fs[pressure + w] = (buy - sell) * per_lot
        fs[volume + w] = (buy + sell) * per_lot
    at = volume + N_TAPE
    for k in range(2 * N_INTENSITY):
        fs[at + k] = fs[INTENSITY + k]
    at += 2 * N_INTENSITY
    for k in range(4 * N_QUOTE):
        fs[at + k] = fs[QUOTE + k]
    at += 4 * N_QUOTE
    for k in range(N_ACTIVITY):
        fs[at + k] = fs[ACTIVITY + k] * ACTIVITY_SCALE[k]
    fs[at + N_ACTIVITY] = (now_ns - st[SPREAD_NS]) * 1e-9
    fs[at + N_ACTIVITY + 1] = (now_ns - st[MID_NS]) * 1e-9
    # asinh(x) = sign(x) log(|x| + sqrt(x^2 + 1)), log(1 + x) without the root
    for k in range(N_ASINH):
        x = fs[SCRATCH + k]
        out[k] = math.copysign(ln(abs(x) + math.sqrt(x * x + 1.0)), x)
    for k in range(N_ASINH, N_LOG):
        out[k] = ln(1.0 + fs[SCRATCH + k])
    if n_levels < LEVELS:
        for w in range(N_FLOW):
            for m in range(n_levels, LEVELS):
                out[C_OFI + w * LEVELS + m] = math.nan
            out[C_INTEGRATED + w] = math.nan


@jit
def write_tape(fs: F64, st: I64, mid2: int, out: F32) -> None:
    """Columns of trades that are ratios and distances."""
    for w in range(N_TAPE):
        at = TAPE + TAPE_STRIDE * w
        buy, sell = fs[at], fs[at + 1]
        out[C_TRADE + w] = (buy - sell) / (buy + sell + 1.0)
        out[C_BALANCE + w] = (fs[at + 2] - fs[at + 3]) / (fs[at + 2] + fs[at + 3] + 2.0)
        if w >= 2 and buy + sell > LEAST_LOTS:
            out[C_VWAP + w - 2] = mid2 * 0.5 - fs[at + 4] / (buy + sell)
    if st[LAST_TRADE] != NONE:
        out[C_LAST_TRADE] = st[LAST_TRADE] - mid2 * 0.5
    if st[VPIN_FULL] >= FEWEST_BUCKETS:
        out[C_VPIN] = st[VPIN_SUM] / st[VPIN_TOTAL]


@jit
def write_moves(fs: F64, st: I64, out: F32) -> None:
    """Columns of what mid has done."""
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
    if fs[BIPOWER_WEIGHT] > 0.0:
        for k in range(N_VOL):
            bipower = BIPOWER_SCALE * fs[BIPOWER + k] / fs[BIPOWER_WEIGHT + k]
            out[C_BIPOWER + k] = math.sqrt(bipower) * 2e4 / mid2
    for k in range(len(RETURN_S)):
        back = PER_SECOND * RETURN_S[k]
        if st[GRID_FILLED] > back:
            move = (mid2 - st[RING + (st[GRID] - back) % RING_SIZE]) * 0.5
            out[C_RETURN + k] = move / max(1.0, sigma_60 * ROOT_RETURN[k])
    for k in range(N_MOMENTUM):
        out[C_MOMENTUM + k] = (mid2 * 0.5 - fs[MID_EMA + k]) / max(1.0, sigma_60 * ROOT_MOMENTUM[k])
    for k in range(len(STEPS)):
        if st[STEP_AT] > STEPS[k]:
            out[C_STEP + k] = (mid2 - st[STEP_RING + (st[STEP_AT] - STEPS[k]) % STEP_RING_SIZE]) * 0.5


@jit
def write_states(fs: F64, st: I64, since_ns: int, now_ns: int, out: F32) -> None:
    """Resilience, the time since the book before (negative: there was none), and the clock."""
    for s in range(2):
        if fs[REFILL + 2 * s + 1] > LEAST_LOSSES:
            out[C_REFILL + s] = fs[REFILL + 2 * s] / fs[REFILL + 2 * s + 1]
    if since_ns >= 0:
        out[C_SINCE_BOOK] = min(since_ns * 1e-9, SINCE_BOOK_CAP_S)
    wall_s = ((now_ns + MOSCOW_NS) % (DAY_S * 1_000_000_000)) * 1e-9
    angle = 2 * math.pi / DAY_S * wall_s
    out[C_DAY] = math.sin(angle)
    out[C_DAY + 1] = math.cos(angle)
    venue = st[VENUE]
    if venue != NONE:
        for k in range(N_SESSION):
            if OPENS_S[venue, k] <= wall_s < CLOSES_S[venue, k]:
                out[C_SESSION] = min((wall_s - OPENS_S[venue, k]) / 60.0, SESSION_CAP_MIN)
                out[C_SESSION + 1] = min((CLOSES_S[venue, k] - wall_s) / 60.0, SESSION_CAP_MIN)
