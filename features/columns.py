"""What a row says: the columns, written from the state and the present book."""

from __future__ import annotations

import math

from features.layout import (
    C_ALIGNED,
    C_COST,
    C_DAY,
    C_IMBALANCE,
    C_IMBALANCE_5,
    C_INTENSITY,
    C_LAST_TRADE,
    C_OFI,
    C_RACE,
    C_RETURN,
    C_SINCE_MID,
    C_SINCE_SPREAD,
    C_SLOPE,
    C_SPREAD,
    C_SPREAD_BPS,
    C_TRADE,
    C_VOL,
    C_VOL_RATIO,
    C_WEIGHTED_MID,
    COST_LEVEL_SIZES,
    DAY_S,
    DEPTH_WEIGHT,
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
    LEVELS,
    LOG_OF_LOTS,
    MEAN_DEPTH,
    MID2,
    MID_NS,
    MOSCOW_NS,
    N_FLOW,
    N_TRADE,
    N_VOL,
    NONE,
    PER_SECOND,
    RACE,
    RACE_NORM,
    RETURN_S,
    RING,
    RING_SIZE,
    SLOPE_LEVELS,
    SPREAD_CAP_TICKS,
    SPREAD_NS,
    TRADE,
    VARIANCE,
    VARIANCE_WEIGHT,
    jit,
)


@jit
def _slope(px: I32, qty: I32, mid2: int) -> float:
    """OLS slope of log(1 + cumulative lots) on ticks from mid over SLOPE_LEVELS levels."""
    n = SLOPE_LEVELS
    lots = 0
    sx, sy, sxx, sxy = 0.0, 0.0, 0.0, 0.0
    for m in range(n):
        lots += qty[m]
        x = abs(px[m] - mid2 * 0.5)
        y = LOG_OF_LOTS[lots] if lots < len(LOG_OF_LOTS) else math.log(1.0 + lots)
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
def write_shape(
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


@jit
def _asinh(x: float) -> float:
    """The library's own takes twice the time for digits that float32 drops."""
    size = abs(x)
    return math.copysign(math.log(size + math.sqrt(size * size + 1.0)), x)


@jit
def write_flows(fs: F64, n_levels: int, out: F32) -> None:
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


@jit
def write_times(fs: F64, st: I64, now_ns: int, out: F32) -> None:
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
