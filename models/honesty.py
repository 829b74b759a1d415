"""Does the line find what is there, and nothing where nothing is? Five simulated markets with known answers.

The simulator plants a latent state of known strength; the product's own features and labels, and a plain
ridge, try to recover it. In the strict null N0 the features are one path's and the returns another's, so that
any skill is a leak. In the mechanical null N1 nothing is planted, yet a book is predictable by itself, and
still loses after the spread. In P weak, P medium and P+ a signal is there, too small to trade, visible, and
tradable. Bars and reference figures: ``docs/honesty.md``.

Nothing is tuned on the test day: the ridge's penalty comes from generalised cross-validation on the training
day (Golub, Heath, Wahba 1979). Profit here is never evidence of an edge in a market.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.batch import compute
from features.schema import FEED, NAMES, SEASONAL
from market.errors import ConfigError, ScalperError
from market.simulator import SimSpec, simulate_market
from market.types import InstrumentDay
from models import evaluate
from models.labels import VOID, make_labels
from models.scaling import Scaler

HORIZON_S: Final = 10.0
LATENCY_S: Final = 0.1
STEP_S: Final = 0.25
DAYS: Final = ("2026-01-15", "2026-01-16")
"""The first day teaches, the second judges."""
TOP_SHARE: Final = 0.1
"""The strongest forecasts, which a careful trader would take."""
CONFIDENCE_Z: Final = 1.645
"""One-sided 95 %: by luck alone 5 % of the runs are called significant."""
ORACLE: Final = "oracle"
"""Name of the planted state's column. It is on nobody's allow-list but that of the upper bound."""

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Learner = Literal["ridge", "gbdt"]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tier:
    """One market with a known answer: how strongly the latent state tilts market and limit orders."""

    name: str
    gflow: float
    gbook: float
    about: str
    independent: bool = False
    """Features of one path, returns of another."""


TIERS: Final[tuple[Tier, ...]] = (
    Tier("N0", 0.0, 0.0, "strict null: features of one path, returns of another", independent=True),
    Tier("N1", 0.0, 0.0, "mechanical null: nothing planted, a book's own predictability"),
    Tier("P weak", 0.05, 0.05, "a plant below what the mechanics hide"),
    Tier("P medium", 0.1, 0.1, "a plant that forecasts see and the spread eats"),
    Tier("P+", 0.2, 0.3, "a plant strong enough to pay the spread (unrealistic, no fees)"),
)


def tier_of(name: str) -> Tier:
    """The tier called ``name``; ConfigError names the known ones."""
    for tier in TIERS:
        if tier.name == name:
            return tier
    raise ConfigError(f"unknown honesty tier {name!r}; known: {', '.join(t.name for t in TIERS)}")


# --- a day with its answer ---


@dataclass(frozen=True, slots=True)
class Panel:
    """One day: what may be known at each book, and what came of it. ``n`` rows.

    ``X`` float32 [n, F]; ``latent`` float64 [n], the planted state; ``usable`` bool [n]: a valid feature row
    with a label. In ticks, float64 [n], over ``HORIZON_S`` from the executable entry: ``move`` of the mid,
    ``long`` and ``short`` after the spread, without fees. ``entry_ns``, ``exit_ns`` int64 [n].
    """

    X: F32
    latent: F64
    usable: NDArray[np.bool_]
    move: F64
    long: F64
    short: F64
    entry_ns: I64
    exit_ns: I64

    def __len__(self) -> int:
        return len(self.X)

    def rows(self, at: NDArray[Any]) -> Panel:
        return Panel(
            self.X[at], self.latent[at], self.usable[at], self.move[at], self.long[at], self.short[at],
            self.entry_ns[at], self.exit_ns[at],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Paths:
    """What the simulator made of a tier and seed: features come from ``seen``, returns from ``paid`` (the
    same days but for N0). One entry a day, the last one judges; ``latent`` belongs to ``seen``."""

    seen: tuple[InstrumentDay, ...]
    paid: tuple[InstrumentDay, ...]
    latent: tuple[F64, ...]


def simulate(tier: Tier, seed: int, hours: float, days: Sequence[str] = DAYS) -> Paths:
    """Days of ``tier``, ``hours`` each: base preset SMALL, a snapshot every ``STEP_S``."""
    plant = {"gflow": tier.gflow, "gbook": tier.gbook}
    specs = [SimSpec("HONA", "SMALL", overrides=plant)]
    if tier.independent:
        specs.append(SimSpec("HONB", "SMALL", overrides=plant))
    made, oracle = simulate_market(specs, hours=hours, dt_s=STEP_S, seed=seed, day=list(days))
    seen = tuple(made[: len(days)])
    latent = np.split(oracle["HONA"].astype(np.float64), len(days))
    return Paths(seen, tuple(made[len(days) :]) if tier.independent else seen, tuple(latent))


def panel(seen: InstrumentDay, paid: InstrumentDay, latent: F64) -> Panel:
    """The product's features of one day beside the product's labels of the other (or the same) one."""
    table = compute(seen)
    returns = table if paid is seen else compute(paid)
    labels = make_labels(paid, returns, horizon_s=HORIZON_S, latency_s=LATENCY_S, fee_ppm=0, theta_bps=0.0)
    mid = returns.mid2 / 2.0
    return Panel(
        table.X, latent, table.usable & (labels.y != VOID),
        _half_ticks(labels.move_bps, mid), _half_ticks(labels.long_bps, mid),
        _half_ticks(labels.short_bps, mid), labels.entry_ns, labels.exit_ns,
    )  # fmt: skip


def panels(paths: Paths) -> tuple[Panel, Panel]:
    """The training day and the test day."""
    made = [panel(s, p, latent) for s, p, latent in zip(paths.seen, paths.paid, paths.latent, strict=True)]
    return made[0], made[1]


def _half_ticks(bps: F32, mid: F64) -> F64:
    """Basis points of the mid back in ticks; every result of integer prices is a whole number of halves."""
    return np.asarray(np.rint(2.0 * bps.astype(np.float64) * mid / 1e4) / 2.0)


def independent_rows(p: Panel) -> Panel:
    """Usable rows whose windows do not overlap, greedily from the first: n is then a number of outcomes, and
    no repeated snapshot can inflate it."""
    kept = []
    free_ns = np.iinfo(np.int64).min
    for i in np.flatnonzero(p.usable):
        if p.entry_ns[i] >= free_ns:
            kept.append(i)
            free_ns = p.exit_ns[i]
    return p.rows(np.array(kept, np.int64))


# --- learners ---


def refuse_foreign(names: Sequence[str], allowed: Sequence[str] = NAMES) -> None:
    """ScalperError unless every column is on the allow-list: the feature schema, and nothing else."""
    foreign = [name for name in names if name not in set(allowed)]
    if foreign:
        raise ScalperError(
            f"column {', '.join(foreign)} is no feature of the schema and may not be learnt from: declare it "
            "in features/schema.py, computed from books and trades"
        )


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A fitted forecast of the move in ticks; ``predict(X [n, k]) -> float64 [n]``."""

    names: tuple[str, ...]
    predict: Callable[[F32], F64]


def fit(
    names: Sequence[str], X: F32, move: F64, *, learner: Learner = "ridge", allowed: Sequence[str] = NAMES
) -> Forecaster:
    """Fit on columns ``names``; the clock and the feed's pace are muted, as in any product run
    of few days."""
    refuse_foreign(names, allowed)
    muted = [k for k, name in enumerate(names) if name in {NAMES[s] for s in (*SEASONAL, *FEED)}]
    scaler = Scaler.fit(X, mute=muted)
    inner = _ridge(scaler.apply(X), move) if learner == "ridge" else _boosted(scaler.apply(X), move)
    return Forecaster(tuple(names), lambda rows: inner(scaler.apply(rows)))


def _ridge(Z: F32, y: F64) -> Callable[[F32], F64]:
    """Least squares with an L2 penalty chosen by generalised cross-validation on these rows."""
    centre, mean, n = Z.mean(axis=0, dtype=np.float64), float(y.mean()), len(y)
    U, s, Vt = np.linalg.svd(Z - centre, full_matrices=False)
    along = U.T @ (y - mean)
    outside = float((y - mean) @ (y - mean) - along @ along)
    best, weights = math.inf, np.zeros(Z.shape[1])
    for penalty in n * np.logspace(-4, 2, 25):
        kept = s * s / (s * s + penalty)
        free = 1.0 - (kept.sum() + 1.0) / n
        loss = (outside + float(((1.0 - kept) * along) @ ((1.0 - kept) * along))) / free**2
        if free > 0 and loss < best:
            best, weights = loss, Vt.T @ (s / (s * s + penalty) * along)
    return lambda rows: mean + (rows - centre) @ weights


def _boosted(Z: F32, y: F64) -> Callable[[F32], F64]:
    """A small LightGBM; fixed size, for its purpose is to show that the verdicts are not the ridge's."""
    import lightgbm as lgb

    parameters = {
        "objective": "regression", "num_leaves": 7, "learning_rate": 0.05, "min_data_in_leaf": 40,
        "lambda_l2": 10.0, "feature_fraction": 0.7, "seed": 1, "num_threads": 1, "deterministic": True,
        "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip
    booster = lgb.train(parameters, lgb.Dataset(Z, y), 100)
    return lambda rows: np.asarray(booster.predict(rows, num_threads=1), np.float64)


# --- one run and its verdict ---


@dataclass(frozen=True, slots=True)
class Run:
    """One tier and seed. Ticks are means over the top decile of forecasts; ``*_lower`` are 95 % bounds."""

    tier: str
    seed: int
    train_rows: int
    test_rows: int
    ic: float
    ic_oracle: float
    trades: int
    gross_ticks: float
    gross_lower: float
    net_ticks: float
    net_lower: float

    @property
    def gross_significant(self) -> bool:
        return self.gross_lower > 0

    @property
    def net_significant(self) -> bool:
        return self.net_lower > 0


def information_coefficient(forecast: F64, move: F64) -> float:
    """Pearson correlation; 0 where either side is constant."""
    if len(move) < 3 or forecast.std() == 0 or move.std() == 0:
        return 0.0
    return float(np.corrcoef(forecast, move)[0, 1])


def leaks(ic: float, ic_oracle: float, rows: int, z: float = 3.0) -> bool:
    """Does the pipeline beat the oracle by more than ``z`` standard errors?

    Nobody knows more than features and planted state together, so such a pipeline has seen the future. The
    error is that of one IC, far above that of a difference of two on the same rows.
    """
    return ic - ic_oracle > z / math.sqrt(max(rows - 3, 1))


def top_decile(forecast: F64, test: Panel, share: float = TOP_SHARE) -> tuple[F64, F64]:
    """Gross (mid to mid) and net (touch to touch) ticks of following the strongest forecasts.

    The cut is by rank of the forecasts alone.
    """
    count = max(1, round(share * len(forecast)))
    rows = np.argsort(-np.abs(forecast), kind="stable")[:count]
    up = forecast[rows] > 0
    return np.where(up, test.move[rows], -test.move[rows]), np.where(up, test.long[rows], test.short[rows])


def score(tier: str, seed: int, train: Panel, test: Panel, *, learner: Learner = "ridge") -> Run:
    """Fit on one day's independent rows and judge on the other's, with and without the planted state."""
    train, test = independent_rows(train), independent_rows(test)
    if min(len(train), len(test)) < 2 * len(NAMES):
        raise ScalperError(
            f"{len(train)} and {len(test)} independent rows are too few for {len(NAMES)} features: more hours"
        )
    forecast = fit(NAMES, train.X, train.move, learner=learner).predict(test.X)
    known = (*NAMES, ORACLE)
    bound = fit(known, _with_oracle(train), train.move, learner=learner, allowed=known)
    gross, net = top_decile(forecast, test)
    return Run(
        tier, seed, len(train), len(test), information_coefficient(forecast, test.move),
        information_coefficient(bound.predict(_with_oracle(test)), test.move), len(gross),
        float(gross.mean()), evaluate.lower_bound(gross, CONFIDENCE_Z),
        float(net.mean()), evaluate.lower_bound(net, CONFIDENCE_Z),
    )  # fmt: skip


def run_tier(tier: Tier, seed: int, hours: float, *, learner: Learner = "ridge") -> Run:
    """Simulate, compute, fit, judge: ``hours`` of training and as many of test."""
    return score(tier.name, seed, *panels(simulate(tier, seed, hours)), learner=learner)


def _with_oracle(p: Panel) -> F32:
    return np.column_stack([p.X, p.latent.astype(np.float32)])
