"""Is it skill, or the best of many tries? Sharpe ratios corrected for shape and for trials, overfitting by
CSCV, and the number of trades that a claim needs.

Sharpe ratios are per period (a day, a bin), never annualised, unless a name says so. The formulas of the
probabilistic Sharpe ratio and of luck are those of ``models.evaluate``, which the pipeline's reports use.

Sources: Bailey, Lopez de Prado 2012 (PSR, minimum track record) and 2014 (deflated Sharpe ratio); Bailey,
Borwein, Lopez de Prado, Zhu 2017 (PBO by combinatorially symmetric cross-validation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from market.errors import ConfigError, ScalperError
from models.evaluate import best_of_unskilled, psr, shape, sharpe, sharpe_variance

F64 = NDArray[np.float64]

DSR_LIMIT: Final = 0.95
PBO_LIMIT: Final = 0.2
"""The gate (``docs/statistics.md``): below the one or above the other there is "no evidence of edge"."""
PBO_BLOCKS: Final = 16
PBO_BLOCKS_MAX: Final = 20
"""184,756 half-splits; more would only cost time."""
TRADING_DAYS: Final = 252
CELLS: Final = 2_000_000
"""Half-splits times trials that are scored at once: bounds the memory of ``pbo`` to about 100 MB."""
_NORMAL: Final = NormalDist()


class EvidenceError(ScalperError):
    """There is too little data for the statistic that was asked for."""


# --- Sharpe ratios


def minimum_periods(
    sharpe_ratio: float, *, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0,
    confidence: float = 0.95,
) -> float:  # fmt: skip
    """Periods after which ``psr`` reaches ``confidence`` (minimum track record length); infinity if never."""
    if sharpe_ratio <= benchmark:
        return math.inf
    z = _NORMAL.inv_cdf(confidence)
    return 1 + sharpe_variance(sharpe_ratio, skew, kurtosis) * (z / (sharpe_ratio - benchmark)) ** 2


def luck_table(
    trials: Sequence[int] = (10, 50, 100, 500), *, days: int = 60
) -> list[dict[str, float]]:  # fmt: skip
    """What the best of N strategies without skill shows over ``days`` days, annualised."""
    sd = math.sqrt(TRADING_DAYS / days)
    return [{"trials": n, "days": days, "annual_sharpe": best_of_unskilled(n, sd)} for n in trials]


def independent_trials(returns: ArrayLike) -> float:
    """How many independent trials N correlated ones are worth: ``r + (1 - r) N`` with r their mean
    correlation (Bailey, Lopez de Prado 2014, appendix). ``returns``: float [T, N]; constant trials are left
    out. Never below 1; a negative mean correlation counts as 0."""
    x = np.asarray(returns, np.float64)
    x = x[:, x.std(axis=0) > 0]
    n = x.shape[1]
    if n < 2:
        return 1.0
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # The mean of all N x N correlations is the mean square of the standardised rows' averages.
    mean = (float(np.mean(z.sum(axis=1) ** 2)) - n) / (n * (n - 1))
    r = min(1.0, max(0.0, mean))
    return r + (1 - r) * n


@dataclass(frozen=True, slots=True)
class Deflated:
    """A deflated Sharpe ratio with everything that went into it, per period. ``benchmark`` is what luck alone
    would have shown; ``probability`` is the DSR."""

    sharpe: float
    periods: int
    skew: float
    kurtosis: float
    trials: float
    trials_sd: float
    benchmark: float
    psr: float
    probability: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def deflated_sharpe(
    returns: ArrayLike, trial_sharpes: ArrayLike, *, trials: float | None = None, least_scatter: float = 0.0
) -> Deflated:  # fmt: skip
    """``returns`` float [T] of the chosen strategy against the luckiest of all that were tried.

    ``trial_sharpes``: the Sharpe ratio of every trial ever made, the chosen one included, on the same periods
    and per period. ``trials`` replaces their number where they are correlated (``independent_trials``);
    ``least_scatter`` is the least standard deviation that is believed of them.
    """
    r, tried = np.asarray(returns, np.float64), np.asarray(trial_sharpes, np.float64)
    if len(tried) == 0:
        raise EvidenceError("the deflated Sharpe ratio needs every trial's Sharpe ratio; none were logged")
    sd = max(least_scatter, float(tried.std(ddof=1)) if len(tried) > 1 else 0.0)
    count = float(len(tried) if trials is None else trials)
    if len(r) < 3 or r.std() == 0:
        return Deflated(0.0, len(r), 0.0, 3.0, count, sd, best_of_unskilled(count, sd), 0.0, 0.0)
    (skew, kurtosis), sr = shape(r), sharpe(r)
    benchmark = best_of_unskilled(count, sd)
    plain = psr(sr, len(r), skew=skew, kurtosis=kurtosis)
    deflated = psr(sr, len(r), skew=skew, kurtosis=kurtosis, benchmark=benchmark)
    return Deflated(sr, len(r), skew, kurtosis, count, sd, benchmark, plain, deflated)


def sharpe_distribution(paths: ArrayLike) -> dict[str, float]:
    """Spread of the Sharpe ratio over the paths of CPCV (``models.cross_validation.Cpcv``), per period.

    ``paths``: float [paths, T], result of each path in each period (a day, a bin), the same periods for all.
    The paths share their data: the spread shows how much hangs on what was trained on, it is no interval.
    """
    x = np.asarray(paths, np.float64)
    if x.ndim != 2 or len(x) == 0 or not np.isfinite(x).all():
        raise EvidenceError(f"a Sharpe distribution needs finite results, paths x periods; got {x.shape}")
    found = np.array([sharpe(path) for path in x])
    low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
    return {
        "paths": len(found), "periods": x.shape[1], "low5": float(low), "median": float(middle),
        "high95": float(high), "worst": float(found.min()), "below_zero": float(np.mean(found < 0)),
    }  # fmt: skip


# --- probability of backtest overfitting


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What CSCV says about choosing the best of N trials.

    ``pbo``: share of half-splits in which the in-sample best is no better than the median out of sample.
    ``logits`` float64 [splits] = ln(w / (1 - w)), w its relative rank there. ``slope``: of its score out of
    sample on its score in sample (negative: the better it looks, the worse it does). ``loss``: share of
    half-splits in which it loses out of sample.
    """

    pbo: float
    logits: F64
    slope: float
    loss: float
    splits: int
    trials: int
    periods: int

    def to_dict(self) -> dict[str, Any]:
        names = ("pbo", "slope", "loss", "splits", "trials", "periods")
        return {name: getattr(self, name) for name in names}


def pbo(
    pnl: ArrayLike, *, blocks: int = PBO_BLOCKS, score: Literal["sharpe", "mean"] = "sharpe"
) -> Overfitting:
    """Probability of backtest overfitting by CSCV.

    ``pnl``: float [T, N], result of each trial in each period (a day, a bin), all trials ever made. Time is
    cut into ``blocks`` runs of neighbouring periods; each of the ``comb(blocks, blocks/2)`` halves is once
    the sample in which the best trial is picked, and its complement the one in which that trial is ranked. A
    trial that never moves scores 0. EvidenceError when a block would have fewer than two periods.
    """
    x = np.asarray(pnl, np.float64)
    if x.ndim != 2 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise EvidenceError(
            f"PBO needs finite results of two trials or more, periods x trials; got {x.shape}"
        )
    if blocks % 2 or not 2 <= blocks <= PBO_BLOCKS_MAX:
        raise ConfigError(f"PBO with {blocks} blocks: an even number from 2 to {PBO_BLOCKS_MAX} is needed")
    periods, trials = x.shape
    if periods < 2 * blocks:
        raise EvidenceError(
            f"PBO with {blocks} blocks needs {2 * blocks} periods and there are {periods}: record more days, "
            "use shorter bins or fewer blocks"
        )
    parts = np.array_split(np.arange(periods), blocks)
    sums = np.stack([x[p].sum(axis=0) for p in parts])
    squares = np.stack([(x[p] ** 2).sum(axis=0) for p in parts])
    counts = np.array([len(p) for p in parts], np.float64)
    halves = np.zeros((math.comb(blocks, blocks // 2), blocks))
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    halves[np.arange(len(halves))[:, None], chosen] = 1.0
    logits, inside, outside = (np.empty(len(halves)) for _ in range(3))
    step = max(1, CELLS // trials)
    for at in range(0, len(halves), step):
        take = slice(at, at + step)
        ins = _scores(halves[take], sums, squares, counts, score)
        oos = _scores(1.0 - halves[take], sums, squares, counts, score)
        rows, best = np.arange(len(ins)), np.argmax(ins, axis=1)
        inside[take], outside[take] = ins[rows, best], oos[rows, best]
        mine = outside[take][:, None]
        rank = (oos < mine).sum(axis=1) + ((oos == mine).sum(axis=1) + 1) / 2  # ties share the middle rank
        logits[take] = np.log(rank / (trials + 1 - rank))
    scatter = inside - inside.mean()
    power = float(scatter @ scatter)
    slope = float(scatter @ outside) / power if power > 0 else 0.0
    return Overfitting(
        pbo=float(np.mean(logits <= 0)), logits=logits, slope=slope,
        loss=float(np.mean(outside < 0)), splits=len(halves), trials=trials, periods=periods,
    )  # fmt: skip


def _scores(half: F64, sums: F64, squares: F64, counts: F64, score: str) -> F64:
    """Score of every trial on every choice of blocks, float64 [splits, trials], from the blocks' sums."""
    n = (half @ counts)[:, None]
    mean = half @ sums / n
    if score == "mean":
        return mean
    second = half @ squares
    variance = (second - n * mean**2) / (n - 1)
    # A constant trial's variance is rounding, not zero.
    moving = variance > 1e-12 * second / n
    return np.where(moving, mean / np.sqrt(np.where(moving, variance, 1.0)), 0.0)


def verdict(dsr: float, overfitting: float) -> str:
    """One sentence by the gate: DSR at least DSR_LIMIT and PBO at most PBO_LIMIT."""
    found = f"DSR {dsr:.3f} (at least {DSR_LIMIT}), PBO {overfitting:.2f} (at most {PBO_LIMIT})"
    passed = dsr >= DSR_LIMIT and overfitting <= PBO_LIMIT
    return f"evidence of edge: {found}" if passed else f"no evidence of edge: {found}"


# --- how many trades a claim needs


def trades_needed(edge_bps: float, sd_bps: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Independent trades after which a true edge is found with probability ``power`` by a one-sided test at
    ``alpha``: ``((z_alpha + z_power) sd / edge)^2``, rounded up."""
    if edge_bps <= 0:
        raise ConfigError(f"an edge of {edge_bps} bps cannot be found: the test asks for one above zero")
    z = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    return math.ceil((z * sd_bps / edge_bps) ** 2)


def power_of(trades: float, edge_bps: float, sd_bps: float, *, alpha: float = 0.05) -> float:
    """Probability that so many independent trades show a true edge at ``alpha``, one-sided."""
    return _NORMAL.cdf(edge_bps * math.sqrt(trades) / sd_bps - _NORMAL.inv_cdf(1 - alpha))


def detectable_bps(trades: float, sd_bps: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest edge that so many independent trades can show."""
    z = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    return z * sd_bps / math.sqrt(trades) if trades > 0 else math.inf


def power_table(
    edges_bps: Sequence[float] = (0.2, 0.5, 1.0, 2.0), *, sd_bps: float = 8.0, power: float = 0.8
) -> list[dict[str, float]]:
    """``trades_needed`` for some edges, the table of ``docs/statistics.md``."""
    return [
        {"edge_bps": e, "sd_bps": sd_bps, "trades": trades_needed(e, sd_bps, power=power)} for e in edges_bps
    ]
