"""The tape, the means and what is learnt, in plain NumPy: see ``plain``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from features import declaration as d
from features.plain import F64, History, Row
from market.types import InstrumentDay

Signal = Callable[[F64, F64, float], float]


def _share(bids: float, asks: float) -> float:
    return (bids - asks) / (bids + asks)


def _levels(decay: float) -> Signal:
    def signal(bid: F64, ask: F64, mid: float) -> float:
        b, a = (float(np.exp(-decay * np.arange(len(s))) @ s[:, 1]) for s in (bid, ask))
        return _share(b, a)

    return signal


def _near(bid: F64, ask: F64, mid: float, ticks: float) -> tuple[float, float]:
    b, a = (float(np.exp(-np.minimum(abs(s[:, 0] - mid), 99.5) / ticks) @ s[:, 1]) for s in (bid, ask))
    return b, a


def signals() -> dict[str, Signal]:
    """Each imbalance by the name of its column, then the log depths whose means are kept."""
    out: dict[str, Signal] = {f"levels_{x:g}": _levels(x) for x in d.LEVEL_DECAYS}
    for ticks in d.DISTANCES_TICKS:
        out[f"near_{ticks}"] = lambda b, a, m, x=ticks: _share(*_near(b, a, m, x))  # type: ignore[misc]
    out["imbalance_l1"] = lambda b, a, m: _share(b[0, 1], a[0, 1])
    for ticks in d.DISTANCES_TICKS:
        out[f"depth_{ticks}"] = lambda b, a, m, x=ticks: math.log1p(sum(_near(b, a, m, x)))  # type: ignore[misc]
    return out


class More:
    """Rows of one day, asked for in their order."""

    def __init__(self, h: History, leader: InstrumentDay | None) -> None:
        self.h = h
        self.names = tuple(signals())
        self.signals = np.array(
            [[of(*x) for of in signals().values()] for x in zip(h.bid, h.ask, h.mid, strict=True)]
        )
        self.best_px = {
            name: np.array([s[0, 0] for s in side]) for name, side in (("bid", h.bid), ("ask", h.ask))
        }
        self.vpin = _vpin(h)
        self.micro = _micro_price(h)
        self.refill = {"bid": _refills(h, h.bid, 1), "ask": _refills(h, h.ask, -1)}
        self.distinct = np.flatnonzero(~h.same)
        self.leader = _Leader(leader) if leader is not None else None

    def row(self, n: int, known: Row) -> Row:
        """Columns of snapshot ``n``; ``known`` are those that ``plain`` has."""
        row = self._means(n) | self._trades(n) | self._quotes(n)
        h = self.h
        for k in d.STEPS:
            before = self.distinct[self.distinct <= n]
            if len(before) > k:
                row[f"step_{k}"] = h.mid[n] - h.mid[before[-1 - k]]
        if n:
            row["since_book"] = min(h.t[n] - h.t[n - 1], 3.0)
        row["micro_price_dev"] = self.micro[n]
        for side, refills in self.refill.items():
            done = [(math.exp(-(h.t[n] - t) / 60), share) for t, share in refills if t <= h.t[n]]
            if sum(w for w, _ in done) > 1e-3:
                row[f"resilience_{side}"] = sum(w * x for w, x in done) / sum(w for w, _ in done)
        if self.leader is not None:
            for w, move in self.leader.moves(int(h.ns[n])).items():
                row[f"leader_move_{w}s"] = move
                row[f"leader_gap_{w}s"] = move - known[f"momentum_{w}s"]
        return row

    def _means(self, n: int) -> Row:
        row: Row = dict(zip(self.names, self.signals[n].tolist(), strict=True))
        for w in d.EMA_WINDOWS_S:
            for name, mean in zip(self.names, self.h.mean(self.signals, n, w).tolist(), strict=True):
                if not name.startswith("depth_"):
                    row[f"{name}_{w}s"] = mean
                elif w == 300:
                    row[name] -= mean
        return row

    def _trades(self, n: int) -> Row:
        h, row = self.h, Row()
        # A trade of the same nanosecond came before.
        k = int(np.searchsorted(h.trade_ns, h.ns[n], side="right"))
        age, side, qty = h.t[n] - h.trade_t[:k], h.trade_side[:k], h.trade_qty[:k]
        size = h.mean_depth(n) + 1
        for w in d.TAPE_WINDOWS_S:
            kept = np.exp(-age / w)
            buy, sell = (kept * qty)[side > 0].sum(), (kept * qty)[side < 0].sum()
            buys, sells = kept[side > 0].sum(), kept[side < 0].sum()
            row[f"trade_flow_{w:g}s"] = (buy - sell) / (buy + sell + 1)
            row[f"trade_balance_{w:g}s"] = (buys - sells) / (buys + sells + 2)
            row[f"trade_pressure_{w:g}s"] = math.asinh((buy - sell) / size)
            row[f"trade_volume_{w:g}s"] = math.log1p((buy + sell) / size)
            if w in d.VWAP_WINDOWS_S and buy + sell > 1e-3:
                lots = kept * qty * (side != 0)
                row[f"vwap_{w}s"] = h.mid[n] - float(lots @ h.trade_px[:k]) / lots.sum()
        for w in d.INTENSITY_WINDOWS_S:
            kept = np.exp(-age / w)
            row[f"intensity_buy_{w:g}s"] = math.log1p(kept[side > 0].sum())
            row[f"intensity_sell_{w:g}s"] = math.log1p(kept[side < 0].sum())
        if k:
            row["last_trade_dev"] = h.trade_px[k - 1] - h.mid[n]
            row["vpin"] = self.vpin[k - 1]
        return row

    def _quotes(self, n: int) -> Row:
        h, row = self.h, Row()
        age = h.t[n] - h.t[1 : n + 1]
        for name, best_px in self.best_px.items():
            step = np.diff(best_px[: n + 1])
            for w in d.QUOTE_WINDOWS_S:
                kept = np.exp(-age / w)
                row[f"intensity_{name}_up_{w}s"] = math.log1p(kept[step > 0].sum())
                row[f"intensity_{name}_down_{w}s"] = math.log1p(kept[step < 0].sum())
        path = np.abs(np.diff(h.mid[: n + 1]))
        for w in d.ACTIVITY_WINDOWS_S:
            row[f"activity_{w}s"] = math.log1p(1000 / w * float(np.exp(-age / w) @ path))
        return row


def _vpin(h: History) -> list[float]:
    """VPIN after each trade, NaN under ten full buckets of twenty mean trades."""
    size, lots, signed = 0, 0, 0
    full: list[tuple[int, int]] = []
    out: list[float] = []
    for k, (qty, side) in enumerate(zip(h.trade_qty, h.trade_side, strict=True)):
        known = h.trade_side[: k + 1] != 0
        kept = np.exp(-(h.trade_t[k] - h.trade_t[: k + 1]) / 300) * known
        for _ in range(int(qty) if side else 0):  # lot by lot
            size = size or max(1, int(20 * (kept @ h.trade_qty[: k + 1]) / kept.sum()))
            lots, signed = lots + 1, signed + int(side)
            if lots == size:
                full.append((abs(signed), size))
                size = lots = signed = 0
        last = full[-50:]
        out.append(sum(x for x, _ in last) / sum(v for _, v in last) if len(full) >= 10 else math.nan)
    return out


def _micro_price(h: History) -> F64:
    """Expected moves to come after each snapshot, learnt from those before it."""
    summed: dict[tuple[int, int], float] = {}
    count: dict[tuple[int, int], float] = {}
    waiting: list[tuple[tuple[int, int], float]] = []
    moved_s, out = 0.0, np.full(len(h.t), np.nan)

    def known(state: tuple[int, int], sign: float) -> float:
        if sign == 0:
            return 0.0
        return sign * summed[state] / count[state] if count.get(state, 0.0) >= 20 else math.nan

    for n in range(len(h.t)):
        imbalance = _share(h.bid[n][0, 1], h.ask[n][0, 1])
        state, sign = (int(min(h.spread[n], 4)), min(4, int(abs(imbalance) * 5))), float(np.sign(imbalance))
        if n and h.mid[n] != h.mid[n - 1]:
            after = known(state, sign)
            move = h.mid[n] - h.mid[n - 1] + (0.0 if math.isnan(after) else after)
            kept = math.exp(-(h.t[n] - moved_s) / 600)
            summed = {s: x * kept for s, x in summed.items()}
            count = {s: x * kept for s, x in count.items()}
            for s, way in waiting:
                summed[s] = summed.get(s, 0.0) + way * move
                count[s] = count.get(s, 0.0) + 1
            waiting, moved_s = [], h.t[n]
        if sign and not h.same[n]:
            waiting.append((state, sign))
        out[n] = known(state, sign)
    return out


def _refills(h: History, side: list[F64], direction: int) -> list[tuple[float, float]]:
    """(when it was seen, share that was back) of every loss of half the best queue."""
    out: list[tuple[float, float]] = []
    lost: tuple[int, float, float, float] | None = None
    for n in range(1, len(h.t)):
        if lost is not None and h.ns[n] - lost[0] >= 1_000_000_000:
            _, price, before, after = lost
            out.append(
                (h.t[n], min(1.0, max(0.0, (dict(side[n]).get(price, 0.0) - after) / (before - after))))
            )
            lost = None
        (price, before), best = side[n - 1][0], side[n][0]
        if lost is None and not h.same[n] and (best[0] - price) * direction <= 0:
            after = dict(side[n]).get(price, 0.0)
            if 2 * after <= before:
                lost = (int(h.ns[n]), price, before, after)
    return out


class _Leader:
    """The leader's mid by receive time."""

    def __init__(self, day: InstrumentDay) -> None:
        b = day.books
        last = np.append(np.diff(b.recv_ns) > 0, True)  # of equal times, the last one counts
        self.ns = b.recv_ns[last]
        self.mid = ((b.bid_px[:, 0] + b.ask_px[:, 0]) / 2)[last]

    def moves(self, now_ns: int) -> dict[float, float]:
        """Mid less its mean, in sigmas, by window; of quotes that came strictly before ``now_ns``."""
        k = int(np.searchsorted(self.ns, now_ns, side="left"))
        if k == 0 or now_ns - self.ns[0] < 20_000_000_000 or now_ns - self.ns[k - 1] > 10_000_000_000:
            return {}
        age = (now_ns - np.append(self.ns[:k], now_ns)) * 1e-9
        variance = float(np.exp(-age[1:-1] / 60) @ np.diff(self.mid[:k]) ** 2) / 60
        moves = {}
        for w in d.LEADER_WINDOWS_S:
            kept = np.exp(-age / w)
            mean = self.mid[0] * kept[0] + float(self.mid[:k] @ np.diff(kept))
            moves[w] = (self.mid[k - 1] - mean) / max(1.0, math.sqrt(variance * w))
        return moves
