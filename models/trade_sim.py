"""A round-trip simulator fast enough for a search: the live policy on one lot, without queue, cash or limits.

One position per instrument. The live engine, its risk rules and the matching of orders are the business of
``live.backtest``; this file only ranks thresholds, and errs on the dear side (every touch is paid).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

EXIT_HORIZON, EXIT_REVERSAL, EXIT_STOP, EXIT_END = 0, 1, 2, 3
MINUTE_NS = 60_000_000_000
ATR_BARS = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """What the search chooses for one instrument; the rest of the arguments are facts of the market.

    Enter when ``|expected move| - cost > threshold_bps``; ``stop_multiplier`` scales the engine's stop
    distance.
    """

    threshold_bps: float
    exit_move_bps: float = 0.0
    stop_multiplier: float = 1.0


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Closed trades, oldest first, m of them.

    ``entry_row``, ``exit_row``: int64, book rows whose touch was paid; ``entry_ns``, ``exit_ns``: int64,
    when; ``side``: int8, +1 long or -1 short; ``net_bps``, ``gross_bps`` (mid to mid): float64, of the mid
    at entry; ``reason``: int8, one of ``EXIT_*``.
    """

    entry_row: I64
    exit_row: I64
    entry_ns: I64
    exit_ns: I64
    side: I8
    net_bps: F64
    gross_bps: F64
    reason: I8

    def __len__(self) -> int:
        return len(self.net_bps)


def simulate(
    recv_ns: I64, mid2_ticks: I64, spread_ticks: I32, expected_bps: F64, atr_bps: F64, policy: Policy, *,
    horizon_ns: int, latency_ns: int, fee_bps: float, slippage_ticks: float = 0.0,
) -> RoundTrips:  # fmt: skip
    """Trade one stretch of one instrument by ``policy``; whatever is open at its end is closed there.

    ``recv_ns`` int64 [n]; ``mid2_ticks`` int64 [n] = best bid + best ask, 0 where the book is one-sided;
    ``spread_ticks`` int32 [n]; ``expected_bps`` float64 [n], NaN where there is no score; ``atr_bps``
    float64 [n] (``average_true_range``). ``fee_bps`` a side. A decision at row i meets the touch prevailing
    at ``recv_ns[i] + latency_ns``; an entry that meets a one-sided book is lost, an exit waits for the next
    touch.
    """
    trips = _simulate(
        np.ascontiguousarray(recv_ns, np.int64), np.ascontiguousarray(mid2_ticks, np.int64),
        np.ascontiguousarray(spread_ticks, np.int64), np.ascontiguousarray(expected_bps, np.float64),
        np.ascontiguousarray(atr_bps, np.float64), float(policy.threshold_bps), float(policy.exit_move_bps),
        float(policy.stop_multiplier), int(horizon_ns), int(latency_ns), float(fee_bps),
        float(slippage_ticks),
    )  # fmt: skip
    return RoundTrips(*trips)


def cost_bps(mid2_ticks: I64, spread_ticks: I32, *, fee_bps: float, slippage_ticks: float = 0.0) -> F64:
    """Cost of a round trip seen at each row, float64 [n] bps: spread, two fees, two slips; NaN if
    one-sided.
    """
    mid = np.where(mid2_ticks > 0, mid2_ticks / 2.0, np.nan)
    return 1e4 * (np.asarray(spread_ticks) + 2.0 * slippage_ticks) / mid + 2.0 * fee_bps


def average_true_range(recv_ns: I64, mid2_ticks: I64) -> F64:
    """Mean true range of the last five whole one-minute bars of the mid, float64 [n] bps of the current mid.

    Until the first bar is whole it is the range of the bar so far, so that a stop always has a distance.
    """
    return _average_true_range(
        np.ascontiguousarray(recv_ns, np.int64), np.ascontiguousarray(mid2_ticks, np.int64)
    )


@njit(cache=True)
def _average_true_range(recv_ns: I64, mid2: I64) -> F64:
    out = np.zeros(len(recv_ns))
    ranges = np.zeros(ATR_BARS)
    bars = 0
    minute, previous_close = np.int64(-1), np.int64(0)
    high, low, close = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(recv_ns)):
        if mid2[i] <= 0:
            out[i] = out[i - 1] if i else 0.0
            continue
        if recv_ns[i] // MINUTE_NS != minute:
            if minute >= 0:
                if bars > 0:
                    high, low = max(high, previous_close), min(low, previous_close)
                ranges[bars % ATR_BARS] = high - low
                bars += 1
                previous_close = close
            minute = recv_ns[i] // MINUTE_NS
            high = low = mid2[i]
        high, low, close = max(high, mid2[i]), min(low, mid2[i]), mid2[i]
        held = min(bars, ATR_BARS)
        mean = ranges[:held].sum() / held if held else float(high - low)
        out[i] = 1e4 * mean / mid2[i]
    return out


@njit(cache=True)
def _simulate(
    recv_ns,
    mid2,
    spread,
    expected,
    atr,
    threshold,
    exit_move,
    stop_multiplier,
    horizon_ns,
    latency_ns,
    fee,
    slip,
):
    n = len(recv_ns)
    entry_row, exit_row = np.empty(n, np.int64), np.empty(n, np.int64)
    entry_at, exit_at = np.empty(n, np.int64), np.empty(n, np.int64)
    side_out, reason_out = np.empty(n, np.int8), np.empty(n, np.int8)
    net, gross = np.empty(n), np.empty(n)
    last_two_sided = -1
    for i in range(n):
        if mid2[i] > 0:
            last_two_sided = i
    m = 0
    i = 0
    while i < n:
        # --- flat: look for an entry
        if mid2[i] <= 0 or np.isnan(expected[i]):
            i += 1
            continue
        mid = mid2[i] / 2.0
        cost = 1e4 * (spread[i] + 2.0 * slip) / mid + 2.0 * fee
        if abs(expected[i]) - cost <= threshold:
            i += 1
            continue
        side = 1 if expected[i] > 0 else -1
        filled_ns = recv_ns[i] + latency_ns
        if filled_ns > recv_ns[n - 1]:
            break  # the touch that the order would meet is not part of this stretch
        j = i
        while j + 1 < n and recv_ns[j + 1] <= filled_ns:
            j += 1
        if mid2[j] <= 0:
            i = j + 1
            continue
        entry_mid = mid2[j] / 2.0
        entry_px = entry_mid + side * (spread[j] / 2.0 + slip)
        stop_bps = stop_multiplier * (1.8 * atr[j] + 0.5 * 1e4 * spread[j] / entry_mid)
        stop_px = entry_px * (1.0 - side * stop_bps * 1e-4)
        # --- in a position: look for the exit
        k = j + 1
        reason = EXIT_END
        while k < n:
            if mid2[k] > 0:
                touch = mid2[k] / 2.0 - side * spread[k] / 2.0
                if stop_multiplier > 0 and side * (touch - stop_px) <= 0:
                    reason = EXIT_STOP
                    break
                if not np.isnan(expected[k]):
                    cost = 1e4 * (spread[k] + 2.0 * slip) / (mid2[k] / 2.0) + 2.0 * fee
                    if side * expected[k] < -(cost + threshold):
                        reason = EXIT_REVERSAL
                        break
                    if recv_ns[k] - filled_ns >= horizon_ns and side * expected[k] < exit_move:
                        reason = EXIT_HORIZON
                        break
            k += 1
        if k < n:
            left_ns = recv_ns[k] + latency_ns
            x = k
            while x + 1 < n and (recv_ns[x + 1] <= left_ns or (mid2[x] <= 0 and x < last_two_sided)):
                x += 1
        else:
            x = n - 1
            left_ns = recv_ns[x]
        resume = x + 1
        if mid2[x] <= 0:
            x = last_two_sided
        exit_mid = mid2[x] / 2.0
        exit_px = exit_mid - side * (spread[x] / 2.0 + slip)
        entry_row[m], exit_row[m] = j, x
        entry_at[m], exit_at[m] = filled_ns, max(min(left_ns, recv_ns[n - 1]), recv_ns[x])
        side_out[m], reason_out[m] = side, reason
        gross[m] = 1e4 * side * (exit_mid - entry_mid) / entry_mid
        net[m] = 1e4 * side * (exit_px - entry_px) / entry_mid - fee * (entry_px + exit_px) / entry_mid
        m += 1
        i = resume
    return (
        entry_row[:m].copy(), exit_row[:m].copy(), entry_at[:m].copy(), exit_at[:m].copy(),
        side_out[:m].copy(), net[:m].copy(), gross[:m].copy(), reason_out[:m].copy(),
    )  # fmt: skip
