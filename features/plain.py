"""The same features in plain NumPy, written from the formulas and not from the kernel.

Every window is a sum over the whole history here, every level a look-up by price: slow, and easy to check. It
is the yardstick of the tests (equal numbers) and of the bench (how much faster). It knows one gapless stretch
of clean two-sided books; the rules for everything else are the kernel's. Here are flows, shapes and moves of
the book; ``plain_more`` has the tape, the means, and what is learnt.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features import declaration as d
from features.schema import NAMES, F
from market.types import InstrumentDay
from market.venues import VENUES

Row = dict[str, float]
F64 = NDArray[np.float64]


def features(day: InstrumentDay, leader: InstrumentDay | None = None) -> F64:
    """Features of every snapshot, float64 [n, F], NaN = masked. Books must be two-sided and gapless."""
    from features import plain_more

    history = History(day)
    more = plain_more.More(history, leader)
    out = np.full((len(day.books), F), np.nan)
    for n in range(len(day.books)):
        row = _shape(history, n) | _flows(history, n) | _times(history, n)
        row |= more.row(n, row)
        out[n] = [row.get(name, math.nan) for name in NAMES]
    return out


class History:
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
        self.same = np.zeros(len(self.t), bool)
        for n in range(1, len(self.t)):
            columns = (b.bid_px, b.bid_qty, b.ask_px, b.ask_qty)
            self.same[n] = all(np.array_equal(c[n], c[n - 1]) for c in columns)
        self.ofi = np.zeros((len(self.t), d.OFI_LEVELS))
        self.aligned = np.zeros(len(self.t))
        for n in range(1, len(self.t)):
            # A level counts only where all four sides of the step have it: an absent one is not an empty one.
            seen = min(len(side[k]) for side in (self.bid, self.ask) for k in (n - 1, n))
            for m in range(min(d.OFI_LEVELS, seen)):
                self.ofi[n, m] = _level_flow(self.bid, n, m, 1) - _level_flow(self.ask, n, m, -1)
            self.aligned[n] = _aligned(self.bid, n, self.mid[n], 1) - _aligned(self.ask, n, self.mid[n], -1)
        self.depth = np.array(
            [np.mean(np.concatenate([a[:5, 1], b[:5, 1]])) for a, b in zip(self.bid, self.ask, strict=True)]
        )

        self.component = self._components()
        usual = VENUES[day.instrument.kind].continuous() if day.instrument.kind in VENUES else ()
        self.sessions = [[at.hour * 3600 + at.minute * 60 for at in session] for session in usual]

    def _components(self) -> F64:
        """After each snapshot, one step of power iteration on the covariance of the levels' 1 s flows."""
        levels = d.OFI_LEVELS
        share = np.full((len(self.t), levels), 1 / levels)
        flow = np.zeros((len(self.t), levels))
        for n in range(1, len(self.t)):
            share[n] = share[n - 1]
            if (
                min(len(side[k]) for side in (self.bid, self.ask) for k in (n - 1, n)) < levels
                or self.same[n]
            ):
                continue
            kept = np.exp(-(self.t[n] - self.t[: n + 1]))
            flow[n] = kept @ self.ofi[: n + 1] / (self.mean_depth(n) + 1)
            age = np.exp(-(self.t[n] - self.t[: n + 1]) / 300)
            turned = np.maximum((flow[: n + 1].T * age) @ flow[: n + 1] @ share[n], 0)
            if turned.sum() > 0:
                share[n] = turned / turned.sum()
        return share

    def mean_depth(self, n: int) -> float:
        """Exponentially weighted time average (60 s) of the depth in force before snapshot ``n``."""
        return float(self.mean(self.depth, n, 60))

    def mean(self, series: F64, n: int, window_s: float) -> F64:
        """Exponentially weighted time average of what was in force before snapshot ``n``; of ``series`` [n,
        ...]."""
        kept = np.exp(-(self.t[n] - self.t[: n + 1]) / window_s)
        return np.asarray(series[0] * kept[0] + np.tensordot(np.diff(kept), series[:n], 1))


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


def _shape(h: History, n: int) -> Row:
    bid, ask, mid = h.bid[n], h.ask[n], h.mid[n]
    qb, qa = bid[0, 1], ask[0, 1]
    race = math.sqrt(0.5 / 1.5)
    row = {
        "imbalance_l1": (qb - qa) / (qb + qa),
        "weighted_mid_dev": (ask[0, 0] * qb + bid[0, 0] * qa) / (qb + qa) - mid,
        "queue_race": -math.atan(race * (qa - qb) / (qa + qb)) / (2 * math.atan(race)),
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
    slopes = row.get("slope_bid", math.nan), row.get("slope_ask", math.nan)
    row |= {"slope_diff": slopes[0] - slopes[1], "slope_sum": slopes[0] + slopes[1]}
    lots = 3 * max(h.mean_depth(n), 1.0)
    buy, sell = _cost(ask, lots, mid), _cost(bid, lots, mid)
    row |= {"cost_buy": buy / mid * 1e4, "cost_sell": sell / mid * 1e4, "cost_diff": buy - sell}
    row |= {"spread_is_1": float(h.spread[n] == 1), "spread_is_2": float(h.spread[n] == 2)}
    row |= {"touch_log": math.log1p(qb) - math.log1p(qa), "touch_size": math.log1p(qb) + math.log1p(qa)}
    for j in d.GAPS:
        if j < min(len(bid), len(ask)):
            below, above = (min(abs(side[j, 0] - side[j - 1, 0]), 20.0) for side in (bid, ask))
            row |= {f"gap_{j}": above - below, f"gaps_{j}": above + below}
    return row


def _cost(side: F64, lots: float, mid: float) -> float:
    taken = np.diff(np.minimum(np.cumsum(side[:, 1]), lots), prepend=0.0)
    return float(taken @ abs(side[:, 0] - mid) / lots) if side[:, 1].sum() >= lots else math.nan


def _flows(h: History, n: int) -> Row:
    row: Row = {}
    size = h.mean_depth(n) + 1
    for w in d.FLOW_WINDOWS_S:
        kept = np.exp(-(h.t[n] - h.t[: n + 1]) / w)
        row[f"aligned_flow_{w}s"] = math.asinh(kept @ h.aligned[: n + 1] / size)
        levels = min(d.OFI_LEVELS, len(h.bid[n]), len(h.ask[n]))
        for m in range(levels):
            row[f"ofi_l{m + 1}_{w}s"] = math.asinh(kept @ h.ofi[: n + 1, m] / size)
        if levels == d.OFI_LEVELS:
            row[f"integrated_ofi_{w}s"] = math.asinh(kept @ h.ofi[: n + 1] @ h.component[n] / size)
    return row


def _times(h: History, n: int) -> Row:
    row: Row = {}
    sigma = _volatility(h, n)
    for w, value in sigma.items():
        row[f"vol_{w}s"] = value / h.mid[n] * 1e4
    for w, value in _volatility(h, n, bipower=True).items():
        row[f"bipower_{w}s"] = value / h.mid[n] * 1e4
    if sigma:
        row["vol_ratio"] = sigma[10] / (sigma[300] + 0.1)
    for w in d.MOMENTUM_WINDOWS_S:
        scale = max(1.0, sigma.get(60, 0.0) * math.sqrt(w))
        row[f"momentum_{w:g}s"] = float(h.mid[n] - h.mean(h.mid, n, w)) / scale
    last_grid = (int(h.ns[n]) - 1) // 250_000_000 * 250_000_000
    for w in d.RETURN_WINDOWS_S:
        past = int(np.searchsorted(h.ns, last_grid - w * 1_000_000_000, side="right")) - 1
        if past >= 0:
            scale = max(1.0, sigma.get(60, 0.0) * math.sqrt(w))
            row[f"return_{w}s"] = (h.mid[n] - h.mid[past]) / scale
    for name, series in (("since_spread_change", h.spread), ("since_mid_change", h.mid)):
        changed = np.flatnonzero(np.diff(series[: n + 1]) != 0)
        row[name] = math.log1p(h.t[n] - (h.t[changed[-1] + 1] if len(changed) else 0.0))
    wall = (h.ns[n] / 1e9 + 3 * 3600) % 86400
    angle = 2 * math.pi * wall / 86400
    for opens, closes in h.sessions:
        if opens <= wall < closes:
            row |= {"since_open": min((wall - opens) / 60, 30), "to_break": min((closes - wall) / 60, 30)}
    return row | {"day_sin": math.sin(angle), "day_cos": math.cos(angle)}


def _volatility(h: History, n: int, *, bipower: bool = False) -> dict[float, float]:
    """Standard deviation of 1 s mid changes in ticks by window, ``bipower``: by products of neighbours; empty
    while there is none."""
    second = 1_000_000_000
    grid = np.arange(-(-int(h.ns[0]) // second), (int(h.ns[n]) - 1) // second + 1) * second
    if len(grid) < 2 + bipower:
        return {}
    r = np.diff(h.mid[np.searchsorted(h.ns[: n + 1], grid, side="right") - 1])
    r2 = math.pi / 2 * np.abs(r[1:] * r[:-1]) if bipower else r**2
    age = np.arange(len(r2))[::-1]
    weights = {w: np.exp(-age / w) for w in d.VOL_WINDOWS_S}
    return {w: math.sqrt(kept @ r2 / kept.sum()) for w, kept in weights.items()}
