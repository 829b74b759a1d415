"""The same features in plain NumPy, written from the formulas and not from the kernel.

Every window is a sum over the whole history here, every level a look-up by price: slow, and easy to check. It
is the yardstick of the tests (equal numbers) and of the bench (how much faster). It knows one gapless stretch
of clean two-sided books; the rules for everything else are the kernel's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features import schema
from features.schema import NAMES, F
from market.types import InstrumentDay

Row = dict[str, float]
F64 = NDArray[np.float64]


def features(day: InstrumentDay) -> F64:
    """Features of every snapshot, float64 [n, F], NaN = masked. Books must be two-sided and gapless."""
    history = _History(day)
    out = np.full((len(day.books), F), np.nan)
    for n in range(len(day.books)):
        row = _shape(history, n) | _flows(history, n) | _trades(history, n) | _times(history, n)
        out[n] = [row.get(name, math.nan) for name in NAMES]
    return out


class _History:
    """The day as arrays in seconds and floats, with the order flow between consecutive snapshots."""

    def __init__(self, day: InstrumentDay) -> None:
        b, t = day.books, day.trades
        self.ns = b.recv_ns
        self.t = (b.recv_ns - b.recv_ns[0]) * 1e-9
        self.bid = [_levels(p, q) for p, q in zip(b.bid_px, b.bid_qty, strict=True)]
        self.ask = [_levels(p, q) for p, q in zip(b.ask_px, b.ask_qty, strict=True)]
        self.mid = (b.bid_px[:, 0] + b.ask_px[:, 0]) / 2
        self.spread = (b.ask_px[:, 0] - b.bid_px[:, 0]).astype(float)
        self.trade_ns = t.recv_ns
        self.trade_t = (t.recv_ns - b.recv_ns[0]) * 1e-9
        self.trade_px, self.trade_qty, self.trade_side = t.px, t.qty.astype(float), t.side
        self.ofi = np.zeros((len(self.t), schema.OFI_LEVELS))
        self.aligned = np.zeros(len(self.t))
        for n in range(1, len(self.t)):
            # A level counts only where all four sides of the step have it: an absent one is not an empty one.
            seen = min(len(side[k]) for side in (self.bid, self.ask) for k in (n - 1, n))
            for m in range(min(schema.OFI_LEVELS, seen)):
                self.ofi[n, m] = _level_flow(self.bid, n, m, 1) - _level_flow(self.ask, n, m, -1)
            self.aligned[n] = _aligned(self.bid, n, self.mid[n], 1) - _aligned(self.ask, n, self.mid[n], -1)
        self.depth = np.array(
            [np.mean(np.concatenate([a[:5, 1], b[:5, 1]])) for a, b in zip(self.bid, self.ask, strict=True)]
        )

    def mean_depth(self, n: int) -> float:
        """Exponentially weighted time average (60 s) of the depth in force before snapshot ``n``."""
        kept = np.exp(-(self.t[n] - self.t[: n + 1]) / 60)
        return float(self.depth[0] * kept[0] + np.sum(self.depth[:n] * np.diff(kept)))


def _levels(px: NDArray[np.int32], qty: NDArray[np.int32]) -> F64:
    """Present levels, [k, 2] of price and size."""
    absent = np.flatnonzero(qty <= 0)
    k = absent[0] if len(absent) else len(qty)
    return np.stack([px[:k], qty[:k]], axis=1).astype(float)


def _level_flow(side: list[F64], n: int, m: int, direction: int) -> float:
    (px, qty), (prev_px, prev_qty) = side[n][m], side[n - 1][m]
    gained = qty if (px - prev_px) * direction >= 0 else 0.0
    lost = prev_qty if (px - prev_px) * direction <= 0 else 0.0
    return float(gained - lost)


def _aligned(side: list[F64], n: int, mid: float, direction: int) -> float:
    now, before = dict(side[n]), dict(side[n - 1])
    limit = max(side[n][-1, 0] * direction, side[n - 1][-1, 0] * direction)
    seen = [p for p in now | before if p * direction >= limit and (mid - p) * direction < 64]
    return float(sum(math.exp(-abs(p - mid) / 5) * (now.get(p, 0) - before.get(p, 0)) for p in seen))


def _shape(h: _History, n: int) -> Row:
    bid, ask, mid = h.bid[n], h.ask[n], h.mid[n]
    qb, qa = bid[0, 1], ask[0, 1]
    race = math.sqrt(0.5 / 1.5)
    row = {
        "imbalance_l1": (qb - qa) / (qb + qa),
        "weighted_mid_dev": (ask[0, 0] * qb + bid[0, 0] * qa) / (qb + qa) - mid,
        "queue_race_up": 0.5 - math.atan(race * (qa - qb) / (qa + qb)) / (2 * math.atan(race)),
        "spread_ticks": min(h.spread[n], 8.0),
        "spread_bps": h.spread[n] / mid * 1e4,
    }
    if min(len(bid), len(ask)) >= 5:
        weight = np.exp(-np.arange(5) / 2)
        b, a = weight @ bid[:5, 1], weight @ ask[:5, 1]
        row["imbalance_d5"] = (b - a) / (b + a)
    for name, side in (("slope_bid", bid), ("slope_ask", ask)):
        if len(side) >= 10:
            row[name] = np.polyfit(abs(side[:10, 0] - mid), np.log1p(np.cumsum(side[:10, 1])), 1)[0]
    row["slope_diff"] = row.get("slope_bid", math.nan) - row.get("slope_ask", math.nan)
    lots = 3 * max(h.mean_depth(n), 1.0)
    row["cost_diff"] = _cost(ask, lots, mid) - _cost(bid, lots, mid)
    return row


def _cost(side: F64, lots: float, mid: float) -> float:
    taken = np.diff(np.minimum(np.cumsum(side[:, 1]), lots), prepend=0.0)
    return float(taken @ abs(side[:, 0] - mid) / lots) if side[:, 1].sum() >= lots else math.nan


def _flows(h: _History, n: int) -> Row:
    row: Row = {}
    size = h.mean_depth(n) + 1
    for w in schema.FLOW_WINDOWS_S:
        kept = np.exp(-(h.t[n] - h.t[: n + 1]) / w)
        row[f"aligned_flow_{w}s"] = math.asinh(kept @ h.aligned[: n + 1] / size)
        for m in range(min(schema.OFI_LEVELS, len(h.bid[n]), len(h.ask[n]))):
            row[f"ofi_l{m + 1}_{w}s"] = math.asinh(kept @ h.ofi[: n + 1, m] / size)
    return row


def _trades(h: _History, n: int) -> Row:
    row: Row = {}
    k = int(np.searchsorted(h.trade_ns, h.ns[n], side="right"))  # a trade of the same nanosecond came before
    age, side, qty = h.t[n] - h.trade_t[:k], h.trade_side[:k], h.trade_qty[:k]
    for w in schema.TRADE_WINDOWS_S:
        kept = qty * np.exp(-age / w)
        buy, sell = kept[side > 0].sum(), kept[side < 0].sum()
        row[f"trade_flow_{w}s"] = (buy - sell) / (buy + sell + 1)
    for w in schema.INTENSITY_WINDOWS_S:
        kept = np.exp(-age / w)
        row[f"intensity_buy_{w}s"] = math.log1p(kept[side > 0].sum())
        row[f"intensity_sell_{w}s"] = math.log1p(kept[side < 0].sum())
    if k:
        row["last_trade_dev"] = h.trade_px[k - 1] - h.mid[n]
    return row


def _times(h: _History, n: int) -> Row:
    row: Row = {}
    sigma = _volatility(h, n)
    for w, value in sigma.items():
        row[f"vol_{w}s"] = value / h.mid[n] * 1e4
    if sigma:
        row["vol_ratio"] = sigma[10] / (sigma[300] + 0.1)
    last_grid = (int(h.ns[n]) - 1) // 250_000_000 * 250_000_000
    for w in schema.RETURN_WINDOWS_S:
        past = int(np.searchsorted(h.ns, last_grid - w * 1_000_000_000, side="right")) - 1
        if past >= 0:
            scale = max(1.0, sigma.get(60, 0.0) * math.sqrt(w))
            row[f"return_{w}s"] = (h.mid[n] - h.mid[past]) / scale
    for name, series in (("since_spread_change", h.spread), ("since_mid_change", h.mid)):
        changed = np.flatnonzero(np.diff(series[: n + 1]) != 0)
        row[name] = math.log1p(h.t[n] - (h.t[changed[-1] + 1] if len(changed) else 0.0))
    angle = 2 * math.pi * ((h.ns[n] / 1e9 + 3 * 3600) % 86400) / 86400
    return row | {"day_sin": math.sin(angle), "day_cos": math.cos(angle)}


def _volatility(h: _History, n: int) -> dict[int, float]:
    """Standard deviation of 1 s mid changes in ticks by window; empty while there is none."""
    second = 1_000_000_000
    grid = np.arange(-(-int(h.ns[0]) // second), (int(h.ns[n]) - 1) // second + 1) * second
    if len(grid) < 2:
        return {}
    r2 = np.diff(h.mid[np.searchsorted(h.ns[: n + 1], grid, side="right") - 1]) ** 2
    age = np.arange(len(r2))[::-1]
    weights = {w: np.exp(-age / w) for w in schema.VOL_WINDOWS_S}
    return {w: math.sqrt(kept @ r2 / kept.sum()) for w, kept in weights.items()}
