"""The jitted event loop of the simulated market: one instrument, one session, whole lots.

A Cont-Stoikov-Talreja book driven by Hawkes market orders and Pareto-length metaorders, with liquidity that
leans against the flow, a mean-reverting log-activity and an intraday U. One latent state ``s`` (a unit
Ornstein-Uhlenbeck process) can be planted in the market orders (``gflow``) and the limit orders (``gbook``);
a fair ``value`` from outside, part of which several instruments may share, pulls through the same two
channels.

The clock is trading time: a pause (clearing, break) takes none, but what relaxes does so over its length.

The book lives on a grid of ``GRID`` price levels that is re-centred when the touch nears an edge. One helper
serves both sides: ``away`` is the direction in which a side's prices get worse (-1 for bids, +1 for asks).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from market.simulator_random import faded, generator, loop, normal, top_up, uniform
from market.types import BUY, DEPTH, SELL

GRID = 8192
EDGE = 300
"""No best price comes nearer than this to the end of the grid."""
RECENTRE_AT = 600
SEED_LEVELS = 60
"""Levels per side that hold orders when the session opens."""
FAR_LEVELS = 25
"""Levels behind the active ones that are kept from running empty."""
GUIDE = 256
"""Parts of the whole rate of limit orders for which the distance to begin with is kept."""
MAX_LEVELS_PER_ORDER = 64
"""Most price levels one market order may sweep."""


@loop
def _next_level(sizes: Any, p: int, away: int) -> int:
    while sizes[p] <= 0 and EDGE < p < GRID - EDGE:
        p += away
    return p


@loop
def _lots(size: float) -> int:
    return max(1, int(size + 0.5))


@loop
def _snapshot(sizes: Any, best: int, away: int, shift: int, px: Any, qty: Any) -> None:
    """Write the best DEPTH non-empty levels; what is missing keeps price 0 and size 0."""
    j = 0
    p = best
    while j < DEPTH and 0 < p < GRID - 1 and p + shift > 0:
        if sizes[p] > 0:
            px[j] = p + shift
            qty[j] = sizes[p]
            j += 1
        p += away


@loop
def _sweep(
    rng: Any,
    sizes: Any,
    best: int,
    away: int,
    lots: int,
    shift: int,
    trade_px: Any,
    trade_qty: Any,
    count: int,
) -> tuple[int, int]:
    """A market order against one side: one print per level, 60 % stop after a level is gone."""
    for _ in range(MAX_LEVELS_PER_ORDER):
        fill = min(lots, sizes[best])
        if fill <= 0:
            break
        trade_px[count] = best + shift
        trade_qty[count] = fill
        count += 1
        sizes[best] -= fill
        lots -= fill
        if sizes[best] > 0:
            break
        best = _next_level(sizes, best, away)
        if lots <= 0 or uniform(rng) < 0.6:
            break
    return best, count


@loop
def _rest(
    rng: Any, sizes: Any, best: int, opposite: int, away: int, distance: int, pin: float, lots: int
) -> int:
    """A limit order ``distance`` ticks from the opposite best; it improves the quote with chance ``pin``."""
    p = opposite + away * distance
    if away * (p - best) < 0 and uniform(rng) > pin:
        p = best
    sizes[p] += lots
    return p if away * (p - best) < 0 else best


@loop
def _lay_guide(placed: Any, guide: Any) -> None:
    """Where to begin looking in ``placed``, the cumulative rate by distance: int64 [GUIDE + 1].

    One step early, for the sake of the rounding: entry ``j`` is the first ``i`` of 1.. with ``placed[i]`` at
    least ``j - 1`` parts in GUIDE of the whole.
    """
    guide[0] = i = 1
    for j in range(1, GUIDE + 1):
        while placed[i] < placed[-1] * ((j - 1) / GUIDE):
            i += 1
        guide[j] = i


@loop
def _distance(placed: Any, guide: Any, part: float) -> int:
    """The first ``i`` of 1.. with ``placed[i]`` at least ``part`` (of [0, 1)) of the whole."""
    r = part * placed[-1]
    i = guide[int(part * GUIDE)]
    while placed[i] < r:
        i += 1
    return int(i)


@loop
def _cancel(
    rng: Any, sizes: Any, best: int, away: int, levels: int, total: int, lots: int
) -> tuple[int, int]:
    """Cancel at a level drawn in proportion to its size; the new best and what was taken away."""
    # Rounded up, since then whole numbers decide as the exact ones would, and much faster.
    left = int(np.ceil(uniform(rng) * total))
    p = best
    last = best + away * (levels - 1)
    while p != last and left > sizes[p]:
        left -= sizes[p]
        p += away
    gone = min(lots, sizes[p])
    sizes[p] -= gone
    return _next_level(sizes, best, away), gone


@loop
def _follow(rng: Any, sizes: Any, best: int, opposite: int, away: int, ticks: int, q0: float) -> int:
    """After the opposite side lost ``ticks`` levels this side steps after it, never across it."""
    p = best - away * ticks
    p = min(p, opposite - 1) if away < 0 else max(p, opposite + 1)
    if away * (p - best) < 0:
        sizes[p] += _lots(q0 * (0.3 + 0.7 * uniform(rng)))
        return p
    return best


@loop
def _resting(sizes: Any, best: int, away: int, levels: int) -> int:
    """Lots in the active levels."""
    total = 0
    for i in range(levels):
        total += sizes[best + away * i]
    return total


@loop
def _empty_far(sizes: Any, best: int, away: int, first: int) -> int:
    """How many of the levels behind the active ones hold nothing."""
    count = 0
    for i in range(first, first + FAR_LEVELS):
        count += sizes[best + away * i] <= 0
    return count


@loop
def _seed_far(rng: Any, sizes: Any, best: int, away: int, first: int, q0: float) -> int:
    """Give each empty far level a small chance of new orders; how many stay empty."""
    left = 0
    for i in range(first, first + FAR_LEVELS):
        if sizes[best + away * i] <= 0:
            if uniform(rng) < 0.02:
                sizes[best + away * i] = _lots(q0 * (0.3 + uniform(rng)))
            else:
                left += 1
    return left


@loop
def _recentre(sizes: Any, offset: int) -> None:
    """Move the grid by ``offset`` levels, in place."""
    for i in range(GRID):
        p = i if offset > 0 else GRID - 1 - i
        sizes[p] = sizes[p + offset] if 0 <= p + offset < GRID else 0


@loop
def _play(
    words: Any, rng: Any, bid: Any, ask: Any, placed: Any, guide: Any,
    bid_px: Any, bid_qty: Any, ask_px: Any, ask_qty: Any, latent: Any, flow: Any,
    trade_ns: Any, trade_px: Any, trade_qty: Any, trade_side: Any,
    n: int, dt_ns: int, mid_ticks: int, max_trades: int,
    profile: Any, value: Any, pull_flow: float, pull_book: float, pull_cap: float,
    pause_row: Any, pause_s: Any,
    levels: int, k: float, alpha: float, mu: float, theta: float, pin: float, resil: float, pmeta: float,
    gmeta: float, ha: float, hb: float, cimb: float, kappa: float, vv: float, vtau: float, ushape: float,
    q0: float, tau: float, gflow: float, gbook: float,
) -> tuple[int, int]:  # fmt: skip
    """The loop of ``simulate``: the arrays are room for its book, its tables and its answer, all zero.

    Returns how many trades there were, or -1, and how many events.
    """
    top_up(words, rng)
    session_s = n * dt_ns * 1e-9
    centre = GRID // 2
    shift = mid_ticks - centre
    b = centre - 2
    a = centre + 2
    for i in range(SEED_LEVELS):
        bid[b - i] = _lots(q0 * (0.5 + uniform(rng)))
        ask[a + i] = _lots(q0 * (0.5 + uniform(rng)))
    for i in range(1, levels + 1):
        placed[i] = placed[i - 1] + k * i ** (-alpha)
    _lay_guide(placed, guide)

    ofi = 0
    trades = 0
    t = 0.0
    s = normal(rng)
    activity = 0.0
    hawkes_buy = 0.0
    hawkes_sell = 0.0
    meta_buy = True
    meta_left = 1
    # Kept up to date rather than summed at every event: whole numbers, so the result is the same.
    bid_total = _resting(bid, b, -1, levels)
    ask_total = _resting(ask, a, 1, levels)
    bid_empty = _empty_far(bid, b, -1, levels)
    ask_empty = _empty_far(ask, a, 1, levels)
    tau_rate, vtau_rate, half_var = 1 / tau, 1 / vtau, 0.5 * vv * vv
    pauses = 0
    events = 0
    row = 0
    while row < n:
        top_up(words, rng)
        # Rates of the six kinds of event.
        x = 2 * t / session_s - 1
        act = (1 + ushape * x * x) * profile[row] * np.exp(activity - half_var)
        imbalance = (bid[b] - ask[a]) / (bid[b] + ask[a])
        gap = min(max(value[row] - (0.5 * (a + b) + shift - mid_ticks), -pull_cap), pull_cap)
        tilt = gflow * s + cimb * imbalance + pull_flow * gap
        tilted = np.exp(tilt)
        buys = mu * act * tilted + hawkes_buy
        sells = mu * act / tilted + hawkes_sell
        lean = kappa * min(max((hawkes_buy - hawkes_sell) / (mu * act), -3.0), 3.0)
        push = gbook * s + pull_book * gap
        pushed = np.exp(push - lean)
        bids = placed[levels] * act * pushed
        asks = placed[levels] * act / pushed
        bid_cancels = theta * act * bid_total / q0
        ask_cancels = theta * act * ask_total / q0
        rate = buys + sells + bids + asks + bid_cancels + ask_cancels

        wait = -np.log(1.0 - uniform(rng)) / rate
        now_ns = np.int64((t + wait) * 1e9)
        while row < n and (row + 1) * dt_ns < now_ns:
            _snapshot(bid, b, -1, shift, bid_px[row], bid_qty[row])
            _snapshot(ask, a, 1, shift, ask_px[row], ask_qty[row])
            latent[row] = s
            flow[row] = ofi
            ofi = 0
            row += 1
        if row >= n:
            break
        if pauses < len(pause_row) and row >= pause_row[pauses]:
            decay = np.exp(-pause_s[pauses] / tau)
            s = s * decay + np.sqrt(1 - decay * decay) * normal(rng)
            decay = np.exp(-pause_s[pauses] / vtau)
            activity = activity * decay + vv * np.sqrt(1 - decay * decay) * normal(rng)
            decay = np.exp(-hb * pause_s[pauses])
            hawkes_buy *= decay
            hawkes_sell *= decay
            pauses += 1
        decay = faded(wait * tau_rate)
        s = s * decay + np.sqrt(1 - decay * decay) * normal(rng)
        decay = faded(wait * vtau_rate)
        activity = activity * decay + vv * np.sqrt(1 - decay * decay) * normal(rng)
        decay = faded(hb * wait)
        hawkes_buy *= decay
        hawkes_sell *= decay
        t += wait

        events += 1
        b0 = b
        a0 = a
        bid_before = bid[b]
        ask_before = ask[a]
        u = uniform(rng) * rate
        if u < buys + sells:
            buy = u < buys
            if uniform(rng) < pmeta:
                buy = meta_buy
                meta_left -= 1
                if meta_left <= 0:
                    meta_buy = uniform(rng) * (1 + 1 / (tilted * tilted)) < 1
                    meta_left = int(min((1.0 - uniform(rng)) ** (-1 / gmeta), 2000.0))
            lots = _lots(min(q0 * 0.35 * (1.0 - uniform(rng)) ** (-0.45), 12 * q0))
            if trades + MAX_LEVELS_PER_ORDER > max_trades:
                trades = -1
                break
            first = trades
            if buy:
                hawkes_buy += ha
                a, trades = _sweep(rng, ask, a, 1, lots, shift, trade_px, trade_qty, trades)
                ask_total += ask[a] - ask_before
            else:
                hawkes_sell += ha
                b, trades = _sweep(rng, bid, b, -1, lots, shift, trade_px, trade_qty, trades)
                bid_total += bid[b] - bid_before
            for i in range(first, trades):
                trade_ns[i] = now_ns
                trade_side[i] = BUY if buy else SELL
        elif u < buys + sells + bids + asks:
            distance = _distance(placed, guide, uniform(rng))
            lots = _lots(1 - q0 * 0.5 * np.log(1.0 - uniform(rng)))
            if u < buys + sells + bids:
                b = _rest(rng, bid, b, a, -1, distance, pin, lots)
                bid_total += lots
            else:
                a = _rest(rng, ask, a, b, 1, distance, pin, lots)
                ask_total += lots
        else:
            lots = _lots(1 - q0 * 0.5 * np.log(1.0 - uniform(rng)))
            if u < buys + sells + bids + asks + bid_cancels:
                b, gone = _cancel(rng, bid, b, -1, levels, bid_total, lots)
                bid_total -= gone
            else:
                a, gone = _cancel(rng, ask, a, 1, levels, ask_total, lots)
                ask_total -= gone
        if a > a0 and uniform(rng) < resil:
            b = _follow(rng, bid, b, a, -1, a - a0, q0)
        if b < b0 and uniform(rng) < resil:
            a = _follow(rng, ask, a, b, 1, b0 - b, q0)
        if b != b0:
            bid_total = _resting(bid, b, -1, levels)
            bid_empty = _empty_far(bid, b, -1, levels)
        if a != a0:
            ask_total = _resting(ask, a, 1, levels)
            ask_empty = _empty_far(ask, a, 1, levels)
        if bid_empty:
            bid_empty = _seed_far(rng, bid, b, -1, levels, q0)
        if ask_empty:
            ask_empty = _seed_far(rng, ask, a, 1, levels, q0)
        ofi += (bid[b] if b >= b0 else 0) - (bid_before if b <= b0 else 0)
        ofi -= (ask[a] if a <= a0 else 0) - (ask_before if a >= a0 else 0)
        if b < RECENTRE_AT or a > GRID - RECENTRE_AT:
            offset = (a + b) // 2 - centre
            _recentre(bid, offset)
            _recentre(ask, offset)
            a -= offset
            b -= offset
            shift += offset
    return trades, events


@njit(cache=True)
def simulate(
    n: int, dt_ns: int, seed: int, mid_ticks: int, max_trades: int,
    profile: Any, value: Any, pull_flow: float, pull_book: float, pull_cap: float,
    pause_row: Any, pause_s: Any,
    levels: int, k: float, alpha: float, mu: float, theta: float, pin: float, resil: float, pmeta: float,
    gmeta: float, ha: float, hb: float, cimb: float, kappa: float, vv: float, vtau: float, ushape: float,
    q0: float, tau: float, gflow: float, gbook: float,
) -> tuple[Any, ...]:  # fmt: skip
    """Play ``n`` snapshots of ``dt_ns``; ``levels`` and on are those of ``Preset``, in its order.

    ``profile`` float64 [n] multiplies the activity while a row is awaited. ``value`` float64 [n] is a fair
    price in ticks from ``mid_ticks``: each tick that it lies above the mid, up to ``pull_cap``, tilts market
    orders by ``pull_flow`` and limit orders by ``pull_book``. Before the first event after row
    ``pause_row[j]`` was emitted, ``pause_s[j]`` seconds pass in which nothing happens.

    Returns bid_px, bid_qty, ask_px, ask_qty int32 [n, DEPTH]; s float32 [n] (the ORACLE: never a feature);
    the order-flow imbalance at the touch, summed over the events since the row before, lots, float32 [n];
    trade_ns int64, trade_px, trade_qty int32, trade_side int8 [m] with times from the session's start; m,
    or -1 when ``max_trades`` did not suffice; and how many events there were. Row i is the book after every
    event up to (i + 1) * dt_ns.
    """
    words, rng = generator(seed)
    bid_px = np.zeros((n, DEPTH), np.int32)
    bid_qty = np.zeros((n, DEPTH), np.int32)
    ask_px = np.zeros((n, DEPTH), np.int32)
    ask_qty = np.zeros((n, DEPTH), np.int32)
    latent = np.zeros(n, np.float32)
    flow = np.zeros(n, np.float32)
    # Untouched pages of memory cost nothing.
    trade_ns = np.empty(max_trades, np.int64)
    trade_px = np.empty(max_trades, np.int32)
    trade_qty = np.empty(max_trades, np.int32)
    trade_side = np.empty(max_trades, np.int8)
    trades, events = _play(
        words, rng, np.zeros(GRID, np.int64), np.zeros(GRID, np.int64), np.zeros(levels + 1),
        np.zeros(GUIDE + 1, np.int64), bid_px, bid_qty, ask_px, ask_qty, latent, flow,
        trade_ns, trade_px, trade_qty, trade_side,
        n, dt_ns, mid_ticks, max_trades, profile, value, pull_flow, pull_book, pull_cap, pause_row, pause_s,
        levels, k, alpha, mu, theta, pin, resil, pmeta, gmeta, ha, hb, cimb, kappa, vv, vtau, ushape, q0, tau,
        gflow, gbook,
    )  # fmt: skip
    kept = max(trades, 0)
    return (
        bid_px, bid_qty, ask_px, ask_qty, latent, flow, trade_ns[:kept].copy(), trade_px[:kept].copy(),
        trade_qty[:kept].copy(), trade_side[:kept].copy(), trades, events,
    )  # fmt: skip
