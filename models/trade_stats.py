"""What a list of round trips proves: precision against break-even, overlap with what could have been traded,
drawdown, and how much of the result hangs on a few trades.

``models.evaluate.trade_summary`` is the short list in the pipeline's reports; here is the rest of the order
in which ``docs/statistics.md`` lets a person read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.evaluate import break_even_precision, wilson

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TOP_TRADES: Final = 5


@dataclass(frozen=True, slots=True)
class Precision:
    """Share of trades in the right direction beside the share at which nothing is earned.

    ``low``, ``high``: Wilson interval on ``n_eff``, the effective number of trades. ``break_even`` above 1:
    no precision is enough. ``verdict``: ``edge`` when the whole interval lies above break-even, ``no edge``
    when it lies below, else ``inconclusive``.
    """

    achieved: float
    low: float
    high: float
    break_even: float
    trades: int
    n_eff: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def precision(
    right: ArrayLike, *, cost_bps: float, win_bps: float, loss_bps: float | None = None,
    n_eff: float | None = None, confidence: float = 0.95,
) -> Precision:  # fmt: skip
    """``right``: bool [n], the move caught was in the trade's favour before costs. ``win_bps``, ``loss_bps``:
    mean size of the moves caught and suffered; ``cost_bps``: of a round trip. ``n_eff`` defaults to n, which
    is right for trades that do not overlap (``models.bootstrap.effective_count`` for labels)."""
    hits = np.asarray(right, bool)
    n = len(hits)
    size = float(n if n_eff is None else min(n_eff, n))
    share = float(hits.mean()) if n else 0.0
    low, high = wilson(share * size, size, confidence)
    bar = break_even_precision(cost_bps, win_bps, loss_bps)
    said = "edge" if low > bar else "no edge" if high < bar else "inconclusive"
    return Precision(share, low, high, bar, n, size, said)


# --- round trips


def round_trips(signal: ArrayLike, day: ArrayLike | None = None) -> I64:
    """Round trips that a sequence of classes would trade, int64 [m, 3]: row opened, row closed, side 1 or -1.

    ``signal`` [n]: 0 down, 1 flat, 2 up, anything else counts as flat. A position opens at the first up or
    down, is closed by the first opposite one, which opens the next, and at the last row of a ``day`` (int
    [n], one day if absent), after the rule of Briola, Bartolucci, Aste 2025. A signal on a day's last row
    opens nothing.
    """
    s = np.asarray(signal, np.int64)
    side = np.where(s == 2, 1, np.where(s == 0, -1, 0))
    days = np.zeros(len(s), np.int64) if day is None else np.asarray(day)
    ends = np.append(days[1:] != days[:-1], True) if len(s) else np.zeros(0, bool)
    last = np.flatnonzero(ends)
    said = np.flatnonzero((side != 0) & ~ends)
    if len(said) == 0:
        return np.empty((0, 3), np.int64)
    session = np.searchsorted(last, said)
    turn = np.ones(len(said), bool)
    turn[1:] = (side[said[1:]] != side[said[:-1]]) | (session[1:] != session[:-1])
    opened, where = said[turn], session[turn]
    follows = np.append(where[1:] == where[:-1], False)
    following = np.append(opened[1:], 0)
    # The last row of a day closes whatever is open, so a turn there needs no rule of its own.
    closed = np.where(follows, following, last[where])
    return np.stack([opened, closed, side[opened]], axis=1)


@dataclass(frozen=True, slots=True)
class Overlap:
    """``p_t`` = common / (predicted + actual - common), the Jaccard index of two sets of round trips; NaN
    when neither side trades."""

    p_t: float
    common: int
    predicted: int
    actual: int


def round_trip_overlap(
    predicted: ArrayLike, actual: ArrayLike, day: ArrayLike | None = None
) -> Overlap:  # fmt: skip
    """Share of round trips that a forecast and the labels have in common: same side, same open, same close.

    ``p_T = CT / (PT + TT - CT)`` (Briola, Bartolucci, Aste 2025); published values are 0.01 to 0.19 even
    where F1 is 0.79, because both ends have to be right.
    """
    p, a = (round_trips(x, day) for x in (predicted, actual))
    common = len({tuple(row) for row in p.tolist()} & {tuple(row) for row in a.tolist()})
    union = len(p) + len(a) - common
    return Overlap(common / union if union else float("nan"), common, len(p), len(a))


# --- the shape of a result


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall of the summed result below its earlier top: ``depth`` in the unit of the trades;
    ``top``, ``bottom``: how many trades had been made by then; ``back``: after how many the top was seen
    again, None if never."""

    depth: float
    top: int
    bottom: int
    back: int | None


def drawdown(net: ArrayLike) -> Drawdown:
    """Of trades float [n] in order, from a start of zero."""
    equity = np.concatenate([[0.0], np.cumsum(np.asarray(net, np.float64))])
    fall = np.maximum.accumulate(equity) - equity
    bottom = int(np.argmax(fall))
    top = int(np.argmax(equity[: bottom + 1]))
    again = np.flatnonzero(equity[bottom:] >= equity[top])
    back = bottom + int(again[0]) if len(again) else None
    return Drawdown(float(fall[bottom]), top, bottom, back)


def by_day(net: ArrayLike, day: ArrayLike) -> tuple[NDArray[Any], F64]:
    """Days in order and the summed result of each, float64."""
    names, which = np.unique(np.asarray(day), return_inverse=True)
    daily = np.bincount(which, np.asarray(net, np.float64), minlength=len(names)).astype(np.float64)
    return names, daily


def shape(net_bps: ArrayLike, day: ArrayLike, fees_bps: ArrayLike | None = None) -> dict[str, Any]:
    """Trades per day, worst day, deepest fall, and how much hangs on the best ``TOP_TRADES`` trades.

    ``net_bps``: float [n] per round trip, after fees; ``fees_bps``: float [n], paid for it. ``top_share`` is
    the best trades' part of the whole result (above 1: without them it was a loss; None when the whole is no
    gain); ``fees_over_gross`` is None when nothing was earned before fees.
    """
    net = np.asarray(net_bps, np.float64)
    if len(net) == 0:
        return {"trades": 0}
    names, daily = by_day(net, day)
    worst, total, fall = int(np.argmin(daily)), float(net.sum()), drawdown(net)
    out: dict[str, Any] = {
        "trades": len(net), "days": len(names), "trades_per_day": len(net) / len(names), "net_bps": total,
        "worst_day": str(names[worst]), "worst_day_bps": float(daily[worst]), "max_drawdown_bps": fall.depth,
        "drawdown_trades": fall.bottom - fall.top,
        "top_share": float(np.sort(net)[-TOP_TRADES:].sum()) / total if total > 0 else None,
    }  # fmt: skip
    if fees_bps is not None:
        fees = float(np.asarray(fees_bps, np.float64).sum())
        gross = total + fees
        out |= {"fees_bps": fees, "fees_over_gross": fees / gross if gross > 0 else None}
    return out
