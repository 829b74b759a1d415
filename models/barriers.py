"""Triple barriers on executable prices: take-profit, stop and time-out of a taker's position, both sides.

Lopez de Prado 2018, ch. 3, with the difference that every price is one that could have been had: the position
opens at the touch after the latency, is valued at the opposite touch net of two fees, and an exit that a
barrier triggers is filled at the touch one latency later (at the time-out at the latest).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.schema import GAP_NS

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Barriers:
    """Both sides of every row, n of them. ``touch_*`` int8: 1 take-profit, -1 stop, 0 time-out (or void);
    ``*_bps`` float64: net result at the exit, NaN where void; ``exit_*_ns`` int64: when the exit was filled;
    ``profit_bps``, ``stop_bps`` float64: where the barriers were."""

    touch_long: I8
    long_bps: F64
    exit_long_ns: I64
    touch_short: I8
    short_bps: F64
    exit_short_ns: I64
    profit_bps: F64
    stop_bps: F64

    def meta_label(self, side: NDArray[np.int8]) -> I8:
        """Should the trade be taken? (Lopez de Prado 2018, 3.6.)

        Given a forecast's ``side`` (1, -1, 0 = none) of each row: 1 where that position ended above zero net,
        0 where not, -1 where there is none or it is void.
        """
        result = np.where(side > 0, self.long_bps, self.short_bps)
        known = (side != 0) & np.isfinite(result)
        return np.where(known, result > 0, -1).astype(np.int8)


def trailing_sigma_bps(recv_ns: I64, mid: F64, *, step_ns: int, window_ns: int, horizon_ns: int) -> F64:
    """Volatility over ``horizon_ns`` from the past alone: root mean square of the log changes of ``mid``
    (float64 [n], NaN = none) over ``step_ns``, seen at the rows of the last ``window_ns``, times
    sqrt(horizon/step). float64 [n] bps; NaN until the first window is full or where it holds no change. A
    change over a gap is none."""
    logs = np.log(mid)
    before = np.searchsorted(recv_ns, recv_ns - step_ns, side="right") - 1
    held = np.maximum(before, 0)
    fresh = (before >= 0) & (recv_ns - step_ns - recv_ns[held] <= GAP_NS)
    change = np.where(fresh, logs - logs[held], np.nan)
    seen = np.isfinite(change)
    square = np.concatenate([[0.0], np.cumsum(np.where(seen, change, 0.0) ** 2)])
    count = np.concatenate([[0], np.cumsum(seen)])
    first = np.searchsorted(recv_ns, recv_ns - window_ns, side="right")
    at = np.arange(len(recv_ns)) + 1
    rows = count[at] - count[first]
    full = (first > 0) & (rows > 0)
    mean = (square[at] - square[first]) / np.maximum(rows, 1)
    # Sums of squares cancel to a last bit below zero when nothing has moved.
    return np.where(full, np.sqrt(np.maximum(mean, 0.0) * horizon_ns / step_ns) * 1e4, np.nan)


def first_touch(
    recv_ns: I64, bid: F64, ask: F64, tradable: Mask, entry: I64, leave: I64, exit_ns: I64, valid: Mask,
    sigma_bps: F64, *, up_sigma: float, down_sigma: float, floor_costs: float, fee_bps: float,
    latency_ns: int,
) -> Barriers:  # fmt: skip
    """Exits of a long and a short position opened for every ``valid`` row.

    ``entry``, ``leave``: int64 [n], rows of the books in force at the entry and at the time-out ``exit_ns``;
    ``sigma_bps``: float64 [n], volatility over the horizon; ``fee_bps`` for the round trip. A barrier stands
    at its multiple of sigma or at ``floor_costs`` times the cost (spread at entry and fees), whichever is
    farther; at least 1 there keeps a position from being stopped by its own cost.
    """
    found = _first_touch(
        recv_ns, bid, ask, tradable, entry, leave, exit_ns, valid, sigma_bps, float(up_sigma),
        float(down_sigma), float(floor_costs), float(fee_bps), int(latency_ns),
    )  # fmt: skip
    return Barriers(*found)


@njit(cache=True)
def _first_touch(
    recv_ns, bid, ask, tradable, entry, leave, exit_ns, valid, sigma, up, down, floor, fee, latency
):
    n = len(recv_ns)
    touch = np.zeros((2, n), np.int8)
    result = np.full((2, n), np.nan)
    out_ns = np.empty((2, n), np.int64)
    profit, stop = np.full(n, np.nan), np.full(n, np.nan)
    for i in range(n):
        out_ns[0, i] = out_ns[1, i] = exit_ns[i]
        if not valid[i]:
            continue
        e, last = entry[i], leave[i]
        mid = (bid[i] + ask[i]) / 2.0
        cost = (ask[e] - bid[e]) / mid * 1e4 + fee
        profit[i] = max(up * sigma[i], floor * cost)
        stop[i] = max(down * sigma[i], floor * cost)
        for s in range(2):  # 0 long, 1 short
            out = last
            for r in range(e + 1, last + 1):
                if not tradable[r]:
                    continue
                net = (bid[r] - ask[e] if s == 0 else bid[e] - ask[r]) / mid * 1e4 - fee
                if net >= profit[i]:
                    touch[s, i] = 1
                elif net <= -stop[i]:
                    touch[s, i] = -1
                if touch[s, i] != 0:
                    out = r
                    filled_ns = recv_ns[r] + latency
                    x = r + 1
                    while x <= last and recv_ns[x] <= filled_ns:
                        if tradable[x]:
                            out = x
                        x += 1
                    out_ns[s, i] = min(filled_ns, exit_ns[i])
                    break
            result[s, i] = (bid[out] - ask[e] if s == 0 else bid[e] - ask[out]) / mid * 1e4 - fee
    return touch[0], result[0], out_ns[0], touch[1], result[1], out_ns[1], profit, stop
