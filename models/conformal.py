"""Abstention with a guarantee: conformal prediction sets, their adaptive form, and the risk-coverage curve.

A row is traded only when its set is exactly {up} or exactly {down}. Split conformal covers the true class
with probability 1 - alpha when calibration and test rows are exchangeable (Vovk, Gammerman, Shafer 2005;
Papadopoulos et al. 2002). Markets are not; adaptive conformal inference (Gibbs, Candes 2021) moves alpha so
that the share of misses comes out right over time whatever the market does.

``p``: float [n, 3], probabilities of down, flat, up; ``y``: int [n]. The score of a class is ``1 - p``. NumPy
only, so that the runner may use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from market.errors import ConfigError

F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
Mask = NDArray[np.bool_]

CLASSES: Final = 3
DOWN, UP = 0, 2
GAMMA: Final = 0.005
"""Step of the adaptive form (Gibbs, Candes 2021; ``docs/statistics.md``)."""


def scores(p: ArrayLike, y: ArrayLike) -> F64:
    """``1 - p`` of what happened, float64 [n]."""
    q, what = np.asarray(p, np.float64), np.asarray(y, np.int64)
    return np.asarray(1.0 - q[np.arange(len(q)), what])


def finite_sample_quantile(ordered: F64, alpha: float) -> float:
    """The ``ceil((n + 1)(1 - alpha))``-th smallest of n scores in ascending order: infinite where there are
    too few for that (everything is covered), minus infinity for alpha of 1 and more (nothing is)."""
    if alpha >= 1.0:
        return -math.inf
    n = len(ordered)
    # The tolerance keeps a product such as 10 x 0.9 from being rounded up past its whole number.
    rank = math.ceil((n + 1) * (1.0 - alpha) - 1e-9)
    return math.inf if rank > n else float(ordered[max(rank, 1) - 1])


def sides(sets: Mask) -> I8:
    """The singleton rule, int8 [n]: 1 where the set is exactly {up}, -1 where exactly {down}, else 0."""
    alone = sets.sum(axis=-1) == 1
    return np.where(alone & sets[..., UP], 1, np.where(alone & sets[..., DOWN], -1, 0)).astype(np.int8)


def one_sided(down: F64, up: F64, down_quantile: float, up_quantile: float) -> I8:
    """``sides`` of sets over {down, up} alone, int8 [n], from the two probabilities of each row.

    With quantiles fitted by class at alpha, at most a share alpha of the rows that go down is bought and of
    those that go up sold, flat rows being neither here nor there: what a flat row costs is the business of
    the threshold. ``side_of`` is the same for one row of plain numbers.
    """
    falls, rises = 1.0 - down <= down_quantile, 1.0 - up <= up_quantile
    return np.where(rises & ~falls, 1, np.where(falls & ~rises, -1, 0)).astype(np.int8)


def side_of(down: float, up: float, down_quantile: float, up_quantile: float) -> int:
    """``one_sided`` of one row."""
    falls, rises = 1.0 - down <= down_quantile, 1.0 - up <= up_quantile
    return int(rises) - int(falls)


@dataclass(frozen=True, slots=True)
class SplitConformal:
    """Sets of all classes whose score is at most ``quantile`` (float64 [3], one per class; equal ones unless
    fitted by class). ``rows``: calibration rows behind each."""

    alpha: float
    quantile: F64
    rows: NDArray[np.int64]

    @classmethod
    def fit(
        cls, p: ArrayLike, y: ArrayLike, *, alpha: float, by_class: bool = False
    ) -> SplitConformal:  # fmt: skip
        """On rows that neither the models nor the calibration have seen. ``by_class``: coverage holds within
        each true class (Mondrian; Vovk 2012), which flat rows cannot carry for the rare ones."""
        _check_alpha(alpha)
        s, what = scores(p, y), np.asarray(y, np.int64)
        groups = [s[what == c] for c in range(CLASSES)] if by_class else [s] * CLASSES
        quantile = [finite_sample_quantile(np.sort(g), alpha) for g in groups]
        return cls(alpha, np.array(quantile), np.array([len(g) for g in groups], np.int64))

    def sets(self, p: ArrayLike) -> Mask:
        """Classes in each row's set, bool [n, 3]; a set may be empty."""
        return (1.0 - np.asarray(p, np.float64)) <= self.quantile

    def sides(self, p: ArrayLike) -> I8:
        """What to do with each row by the singleton rule, int8 [n]."""
        return sides(self.sets(p))

    def report(self, p: ArrayLike, y: ArrayLike) -> dict[str, Any]:
        """Coverage on other rows, mean set size, shares of empty sets and of rows that are acted on, and how
        often those were right."""
        found = self.sets(p)
        what = np.asarray(y, np.int64)
        n = len(what)
        if n == 0:
            return {"rows": 0}
        side = sides(found)
        acted = side != 0
        right = what[acted] == np.where(side[acted] > 0, UP, DOWN)
        return {
            "rows": n, "alpha": self.alpha, "coverage": float(found[np.arange(n), what].mean()),
            "set_size": float(found.sum(axis=1).mean()), "empty": float((~found.any(axis=1)).mean()),
            "acted": float(acted.mean()), "right_when_acted": float(right.mean()) if acted.any() else None,
        }  # fmt: skip


class AdaptiveConformal:
    """Split conformal whose alpha follows its misses: ``alpha += gamma * (target - miss)``, per regime.

    Over T answers of a regime the share of misses is within ``bound(T)`` of the target for any sequence at
    all (Gibbs, Candes 2021, prop. 4.1). A label is known only when its window has passed: call ``learn``
    then, not before, about the set that was answered at the time.
    """

    def __init__(
        self, calibration_scores: ArrayLike, *, alpha: float, gamma: float = GAMMA, regimes: int = 1
    ) -> None:
        _check_alpha(alpha)
        if gamma <= 0 or regimes < 1:
            raise ConfigError(f"adaptive conformal: gamma {gamma:g} and {regimes} regimes must be above zero")
        self.target, self.gamma = alpha, gamma
        self.ordered: F64 = np.sort(np.asarray(calibration_scores, np.float64))
        self.alpha: F64 = np.full(regimes, alpha)

    def set(self, p: ArrayLike, regime: int = 0) -> Mask:
        """The set of one row, bool [3]. Everything when alpha has fallen to 0, nothing when it has reached
        1."""
        alpha = float(self.alpha[regime])
        if alpha <= 0.0:
            return np.ones(CLASSES, bool)
        return (1.0 - np.asarray(p, np.float64)) <= finite_sample_quantile(self.ordered, alpha)

    def learn(self, miss: bool, regime: int = 0) -> None:
        """The outcome of one earlier answer of this regime: was the true class outside its set?"""
        self.alpha[regime] += self.gamma * (self.target - float(miss))

    def bound(self, answers: int, delay: int = 0) -> float:
        """How far the share of misses of a regime can be from the target after so many learnt answers:
        ``(max(a, 1 - a) + (delay + 1) gamma) / (gamma T)``, a the target, ``delay`` answers still unknown."""
        worst = max(self.target, 1.0 - self.target) + (delay + 1) * self.gamma
        return worst / (self.gamma * answers) if answers else math.inf


def run_adaptive(
    p: ArrayLike, y: ArrayLike, calibration_scores: ArrayLike, *, alpha: float, gamma: float = GAMMA,
    delay: int = 0, regime: ArrayLike | None = None,
) -> tuple[Mask, F64]:  # fmt: skip
    """Play a series through: sets bool [n, 3] and the alpha that each row was answered with, float64 [n].

    ``delay``: rows that pass before a label is known (its window). ``regime``: int [n] from 0.
    """
    q, what = np.asarray(p, np.float64), np.asarray(y, np.int64)
    n = len(what)
    which = np.zeros(n, np.int64) if regime is None else np.asarray(regime, np.int64)
    state = AdaptiveConformal(
        calibration_scores, alpha=alpha, gamma=gamma, regimes=int(which.max()) + 1 if n else 1
    )
    found, used = np.zeros((n, CLASSES), bool), np.empty(n)
    for t in range(n):
        known = t - 1 - delay
        if known >= 0:
            state.learn(not found[known, what[known]], int(which[known]))
        used[t] = state.alpha[which[t]]
        found[t] = state.set(q[t], int(which[t]))
    return found, used


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha {alpha:g} must lie between 0 and 1: it is the share of misses allowed")


# --- risk and coverage


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Mean loss of the rows acted on (``risk``) when only the surest share of all rows is (``coverage``);
    float64 [m] in order of coverage, one point per distinct confidence. ``aurc``: area under it, the mean
    risk over all coverages; ``excess``: over that of a perfect order of the same losses."""

    coverage: F64
    risk: F64
    threshold: F64
    aurc: float
    excess: float

    def at(self, coverage: float) -> float:
        """Risk at the first point that covers so much; NaN for an empty curve."""
        if len(self.coverage) == 0:
            return math.nan
        at = int(np.searchsorted(self.coverage, coverage - 1e-12))
        return float(self.risk[min(at, len(self.risk) - 1)])


def risk_coverage(confidence: ArrayLike, loss: ArrayLike) -> RiskCoverage:
    """The curve of a forecast that may abstain (Geifman, El-Yaniv 2017; excess: Geifman et al. 2019).

    ``confidence`` float [n], larger is surer; ``loss`` float [n]: 1 for a wrong row, or minus the net bps of
    its trade. Rows of equal confidence enter together, so that the order of the rows changes nothing.
    """
    c, x = np.asarray(confidence, np.float64), np.asarray(loss, np.float64)
    n = len(c)
    if n == 0:
        empty = np.empty(0)
        return RiskCoverage(empty, empty, empty, math.nan, math.nan)
    order = np.argsort(-c, kind="stable")
    c, x = c[order], x[order]
    ends = np.flatnonzero(np.append(c[1:] != c[:-1], True)) + 1
    risk = np.cumsum(x)[ends - 1] / ends
    steps = np.diff(np.concatenate([[0], ends]))
    aurc = float(risk @ steps) / n
    best = np.cumsum(np.sort(x)) / np.arange(1, n + 1)
    return RiskCoverage(ends / n, risk, c[ends - 1], aurc, aurc - float(best.mean()))
