"""A wider look at the book and the tape than the live feature set has, for the offline study only.

Every column is *odd* (it changes its sign in a mirror that swaps buyers and sellers) or *even* (it does
not). That is a fact about markets that a learner need not be taught: direction is an odd function of a
book, activity an even one. Pairs (bid side, ask side) therefore enter as difference and sum.

Windows are exponential, in seconds of receive time; a row sees its own book and what was received before
it, or at the same time on the tape. No column looks ahead: ``tests/models/test_science.py`` cuts the
future off and compares.

Sources: imbalances after Gould, Bonart 2016 and Cont, Kukanov, Stoikov 2014; flows and returns after Ait-
Sahalia, Fan, Xue, Zhou 2022; depth slopes after Naes, Skjeltorp 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from features.batch import compute
from features.schema import NAMES
from market.types import NANO, Books, InstrumentDay, Trades

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LEVEL_DECAYS = (0.1, 0.3, 1.0)
DISTANCES_TICKS = (2.0, 6.0, 20.0)
MEMORIES_S = (2.0, 10.0, 60.0)
FLOW_MEMORIES_S = (0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 300.0)
VWAP_MEMORIES_S = (3.0, 10.0, 60.0, 300.0)
STEPS = (1, 2, 3, 5, 10)
LARGEST_TRADE_LOTS = 50.0
FAR_TICKS = 99.0
WIDEST_GAP_TICKS = 20

PRODUCT_PAIRS = (
    ("slope_bid", "slope_ask"),
    ("intensity_buy_1s", "intensity_sell_1s"),
    ("intensity_buy_10s", "intensity_sell_10s"),
)
PRODUCT_EVEN = frozenset(
    {
        "vol_10s",
        "vol_60s",
        "vol_ratio",
        "spread_ticks",
        "spread_bps",
        "since_spread_change",
        "since_mid_change",
    }
)
LEFT_OUT = frozenset({"day_sin", "day_cos", "vol_300s"})
"""Within one day the time of day and the slow volatility only say which hour it is."""


@dataclass(frozen=True, slots=True)
class Columns:
    """``odd`` float32 [n, k], ``even`` float32 [n, m] (NaN = masked) and their names."""

    odd: F32
    even: F32
    odd_names: tuple[str, ...]
    even_names: tuple[str, ...]

    def rows(self, selection: NDArray[np.bool_] | slice) -> Columns:
        return Columns(self.odd[selection], self.even[selection], self.odd_names, self.even_names)


def columns(day: InstrumentDay, *, wide: bool = True) -> Columns:
    """The product's features of every book of ``day``, odd and even; ``wide`` adds the study's."""
    odd, even = _product(compute(day).X)
    if wide and len(day.books):
        more_odd, more_even = _wide(day.books, day.trades)
        odd, even = odd | more_odd, even | more_even

    def stack(columns: dict[str, F64]) -> F32:
        return np.stack([v.astype(np.float32) for v in columns.values()], axis=1)

    return Columns(stack(odd), stack(even), tuple(odd), tuple(even))


def _product(X: F32) -> tuple[dict[str, F64], dict[str, F64]]:
    value = {name: X[:, k].astype(np.float64) for k, name in enumerate(NAMES) if name not in LEFT_OUT}
    odd: dict[str, F64] = {}
    even: dict[str, F64] = {}
    for ours, theirs in PRODUCT_PAIRS:
        a, b = value.pop(ours), value.pop(theirs)
        odd[f"{ours}-{theirs}"], even[f"{ours}+{theirs}"] = a - b, a + b
    odd.pop("slope_bid-slope_ask")  # the product has it already, as slope_diff
    odd["queue_race"] = value.pop("queue_race_up") - 0.5
    for name, column in value.items():
        (even if name in PRODUCT_EVEN else odd)[name] = column
    return odd, even


def _wide(books: Books, trades: Trades) -> tuple[dict[str, F64], dict[str, F64]]:
    t = books.recv_ns / NANO
    bid_px, bid_qty = books.bid_px.astype(np.float64), books.bid_qty.astype(np.float64)
    ask_px, ask_qty = books.ask_px.astype(np.float64), books.ask_qty.astype(np.float64)
    two_sided = (bid_qty[:, 0] > 0) & (ask_qty[:, 0] > 0)
    # A one-sided book has no mid: the last one stays, so that no window swallows a jump to zero.
    mid = _held((bid_px[:, 0] + ask_px[:, 0]) / 2, two_sided)
    odd: dict[str, F64] = {}
    even: dict[str, F64] = {}
    _imbalances(t, mid, bid_px, bid_qty, ask_px, ask_qty, odd, even)
    _tape(t, mid, trades, odd, even)
    for memory in FLOW_MEMORIES_S:
        odd[f"momentum_{memory:g}s"] = mid - _ema(t, mid, memory)
    for k in STEPS:
        odd[f"step_{k}"] = mid - np.concatenate([np.full(min(k, len(mid)), mid[0]), mid[:-k]])
    step = np.abs(np.diff(mid, prepend=mid[0]))
    for memory in (3.0, 30.0):
        even[f"activity_{memory:g}s"] = np.log(_ema(t, step, memory) + 1e-3)
    even["since_book"] = np.clip(np.diff(t, prepend=t[0]), 0, 3)
    _shape(bid_px, bid_qty, ask_px, ask_qty, odd, even)
    for column in (*odd.values(), *even.values()):
        column[~two_sided] = np.nan
    return odd, even


def _imbalances(
    t: F64, mid: F64, bid_px: F64, bid_qty: F64, ask_px: F64, ask_qty: F64,
    odd: dict[str, F64], even: dict[str, F64],
) -> None:  # fmt: skip
    level = np.arange(bid_px.shape[1])
    for decay in LEVEL_DECAYS:
        weight = np.exp(-decay * level)
        x = _share(bid_qty @ weight, ask_qty @ weight)
        odd[f"levels_{decay:g}"] = x
        for memory in MEMORIES_S:
            odd[f"levels_{decay:g}_{memory:g}s"] = _ema(t, x, memory)
    below = np.clip(mid[:, None] - bid_px, 0, FAR_TICKS)
    above = np.clip(ask_px - mid[:, None], 0, FAR_TICKS)
    for scale in DISTANCES_TICKS:
        bids, asks = (bid_qty * np.exp(-below / scale)).sum(1), (ask_qty * np.exp(-above / scale)).sum(1)
        x = _share(bids, asks)
        odd[f"near_{scale:g}"] = x
        for memory in (*MEMORIES_S, 300.0):
            odd[f"near_{scale:g}_{memory:g}s"] = _ema(t, x, memory)
        depth = np.log1p(bids + asks)
        even[f"depth_{scale:g}"] = depth - _ema(t, depth, 300.0)
    touch = _share(bid_qty[:, 0], ask_qty[:, 0])
    for memory in (0.5, *MEMORIES_S):
        odd[f"touch_{memory:g}s"] = _ema(t, touch, memory)


def _tape(t: F64, mid: F64, trades: Trades, odd: dict[str, F64], even: dict[str, F64]) -> None:
    when = trades.recv_ns / NANO
    lots = np.minimum(trades.qty.astype(np.float64), LARGEST_TRADE_LOTS)
    side = trades.side.astype(np.float64)
    for memory in FLOW_MEMORIES_S:
        volume, signed = _decayed(t, when, lots, memory), _decayed(t, when, lots * side, memory)
        count, balance = _decayed(t, when, np.ones(len(when)), memory), _decayed(t, when, side, memory)
        odd[f"flow_{memory:g}s"] = signed / (volume + 5)
        odd[f"balance_{memory:g}s"] = balance / (count + 2)
        odd[f"pressure_{memory:g}s"] = np.sign(signed) * np.sqrt(np.abs(signed))
        even[f"volume_{memory:g}s"] = np.log1p(volume)
    price = trades.px - mid[0]
    for memory in VWAP_MEMORIES_S:
        paid, volume = _decayed(t, when, lots * price, memory), _decayed(t, when, lots, memory)
        some = volume > 1e-3
        odd[f"vwap_{memory:g}s"] = np.where(some, mid - mid[0] - paid / np.where(some, volume, 1), 0.0)


def _shape(
    bid_px: F64, bid_qty: F64, ask_px: F64, ask_qty: F64, odd: dict[str, F64], even: dict[str, F64]
) -> None:
    a, b = np.log1p(bid_qty[:, 0]), np.log1p(ask_qty[:, 0])
    odd["touch_log"], even["touch_size"] = a - b, a + b
    for j in (1, 2, 3):
        bids = np.where(
            bid_qty[:, j] > 0, np.clip(bid_px[:, j - 1] - bid_px[:, j], 0, WIDEST_GAP_TICKS), np.nan
        )
        asks = np.where(
            ask_qty[:, j] > 0, np.clip(ask_px[:, j] - ask_px[:, j - 1], 0, WIDEST_GAP_TICKS), np.nan
        )
        odd[f"gap_{j}"], even[f"gaps_{j}"] = asks - bids, asks + bids


def _share(bids: F64, asks: F64) -> F64:
    return (bids - asks) / (bids + asks + 1)


def _held(values: F64, known: NDArray[np.bool_]) -> F64:
    """``values`` where known, else the last known one (before the first: the first)."""
    if not known.any():
        return np.zeros_like(values)
    at = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return values[np.where(at < 0, int(np.argmax(known)), at)]


@nb.njit(cache=True)  # type: ignore[untyped-decorator]
def _ema(t: F64, x: F64, memory_s: float) -> F64:
    """Exponential mean of a step function sampled at ``t``, by the time that has really passed."""
    out = np.empty_like(x)
    value = x[0]
    out[0] = value
    for i in range(1, len(x)):
        kept = np.exp(-(t[i] - t[i - 1]) / memory_s)
        value = kept * value + (1 - kept) * x[i]
        out[i] = value
    return out


@nb.njit(cache=True)  # type: ignore[untyped-decorator]
def _decayed(t: F64, when: F64, weight: F64, memory_s: float) -> F64:
    """Sum of the weights of all events at or before ``t``, each faded by its age."""
    out = np.zeros(len(t))
    value, k, last = 0.0, 0, t[0]
    for i in range(len(t)):
        while k < len(when) and when[k] <= t[i]:
            value = (
                value * np.exp(-(when[k] - last) / memory_s) + weight[k]
                if when[k] > last
                else value + weight[k]
            )
            last = max(last, when[k])
            k += 1
        value *= np.exp(-(t[i] - last) / memory_s)
        last = t[i]
        out[i] = value
    return out
