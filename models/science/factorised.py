"""Two questions instead of one: *does it move?* and *which way?*, each by a linear model and by trees.

``p(flat) = F`` and ``p(up) = (1 - F) U``. In a mirror that swaps buyers and sellers F stays and U becomes
1 - U, so F is fitted on even columns and on the size of odd ones, and U is fitted to be odd: the linear
part on odd columns without an intercept, the trees on every row together with its mirror image, then made
odd. A morning that happened to fall teaches nothing about the afternoon that way, and one day has only
one morning.

Each question is answered by the mean of the log-odds of an L2 logistic regression on robustly scaled,
clipped columns and of shallow, strongly regularised trees (LightGBM). The linear direction model is
fitted on moves over neighbouring horizons as well: their noise differs, the pressure behind them is the
same.

A third voice knows one number only, the imbalance of the touch: five minutes of rows carry a hundred columns
badly, and one column well.

Three things are chosen, on forecasts of inner walk-forward folds of the training span that no part of the
model was fitted on: how many trees and how much weight of the third voice (by log-loss, for each question),
and how much is added to log p(flat) before the largest class is called (by MCC: argmax calls the most
frequent class, MCC rewards calling each as often as it occurs), with a part that follows how still the
market has been in the last minute. Probabilities are not changed by it. The model is then fitted once more
on the whole training span. Nothing here sees the test span.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import evaluate
from models.scaling import Scaler
from models.science.context import Columns
from models.science.protocol import DOWN, FLAT, UP

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Odds = Callable[[Columns], F64]
"""Log-odds of one question, float64 [n]."""
Choice = tuple[int, float]
"""Number of trees, and the weight of the voice that knows the touch only."""

FLAT_BIASES = np.arange(-2.0, 1.51, 0.1)
TILTS = np.arange(-0.3, 0.31, 0.1)
FOLLOWS = (0.0, 0.25, 0.5, 1.0)
"""How far the bias may follow the recent stillness."""
TOUCH, TOUCH_PENALTY = "imbalance_l1", 1e-4
COMPANIONS_S = {1: (1,), 5: (3, 5, 8), 10: (5, 10, 20)}
"""Horizons whose moves teach the linear direction model, by the horizon that is asked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """Chosen on inner folds of the RTS training span; the same for every recording and horizon."""

    penalty: float = 0.02
    """L2 of the logistic regressions per row: C = 1 / (rows x penalty), the same strength for any size."""
    clip: float = 4.0
    rounds: tuple[int, ...] = (20, 40, 80, 160)
    """Numbers of trees to choose from."""
    learning_rate: float = 0.03
    still_leaves: int = 15
    still_rows_in_leaf: float = 0.012
    """Fewest rows in a leaf, as a share of the rows."""
    still_columns: float = 0.5
    way_leaves: int = 8
    way_rows_in_leaf: float = 0.04
    way_columns: float = 0.3
    l2: float = 50.0
    touch_weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Weights of the voice that knows the touch only, to choose from."""
    folds: int = 4
    threads: int = 1


@dataclass(slots=True)
class Part:
    """The answers to one question: linear, trees (which take the number of trees), and by the touch alone."""

    linear: Odds
    trees: Callable[[Columns, int], F64]
    touch: Odds

    def odds(self, rows: Columns, choice: Choice) -> F64:
        rounds, weight = choice
        full = (self.linear(rows) + self.trees(rows, rounds)) / 2
        return (1 - weight) * full + weight * self.touch(rows)

    def answers(self, rows: Columns, options: Options) -> dict[Choice, F64]:
        """Log-odds of every choice."""
        full = {r: (self.linear(rows) + self.trees(rows, r)) / 2 for r in options.rounds}
        touch = self.touch(rows)
        return {(r, w): (1 - w) * full[r] + w * touch for r in options.rounds for w in options.touch_weights}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a model learns from: labels and rows of the horizon asked for, and (rows, labels) of neighbouring
    horizons for the linear direction model (the asked one included)."""

    y: NDArray[np.uint8]
    rows: Mask
    moves: list[tuple[Mask, NDArray[np.uint8]]]


@dataclass(slots=True)
class Model:
    """A fitted forecaster. ``probabilities`` is float64 [n, 3]; ``bias`` is what ``calls`` takes, for rows
    with this recent stillness (log-odds, ``forecast.stillness``)."""

    still: Part
    way: Part
    choices: tuple[Choice, Choice]
    flat_bias: float = 0.0
    follow: float = 0.0
    usual: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, rows: Columns) -> F64:
        return joined(self.still.odds(rows, self.choices[0]), self.way.odds(rows, self.choices[1]))

    def bias(self, stillness: F64) -> tuple[F64, float]:
        return self.flat_bias + self.follow * (stillness - self.usual), 0.0


def fit(
    columns: Columns, inner: list[tuple[Lesson, Mask]], whole: Lesson, options: Options, *,
    stillness: F64 | None = None, seed: int = 1,
) -> Model:  # fmt: skip
    """Choose on the ``inner`` folds (what to learn from, the rows to forecast), then fit on ``whole``.

    ``stillness`` float64 [n]: log-odds of no move in the recent past of each row; None: the bias is constant.
    """
    y = whole.y
    calm = np.zeros(len(y)) if stillness is None else stillness
    usual = float(np.median(calm[whole.rows])) if whole.rows.any() else 0.0
    forecasts = []
    for lesson, rows in inner:
        still, way = parts(columns, lesson, options, seed)
        asked = columns.rows(rows)
        forecasts.append(
            (y[rows], calm[rows] - usual, still.answers(asked, options), way.answers(asked, options))
        )
    every = [(r, w) for r in options.rounds for w in options.touch_weights]
    choices = (
        min(every, key=lambda c: sum(_loss(s[c], t == FLAT) for t, _, s, _ in forecasts)),
        min(every, key=lambda c: sum(_loss(w[c][t != FLAT], t[t != FLAT] == UP) for t, _, _, w in forecasts)),
    )
    told = [(joined(s[choices[0]], w[choices[1]]), t, c) for t, c, s, w in forecasts]
    bias, follow = best_bias(told, FOLLOWS if stillness is not None else (0.0,))
    inner_mcc = [evaluate.mcc(t, calls(p, (bias + follow * c, 0.0))) for p, t, c in told]
    still, way = parts(columns, whole, options, seed)
    facts = {
        "rows": int(whole.rows.sum()), "trees, still": choices[0][0], "trees, way": choices[1][0],
        "touch, still": choices[0][1], "touch, way": choices[1][1], "flat bias": round(bias, 2),
        "follows stillness": follow, "inner MCC": inner_mcc,
    }  # fmt: skip
    return Model(still, way, choices, bias, follow, usual, facts)


def parts(columns: Columns, lesson: Lesson, options: Options, seed: int) -> tuple[Part, Part]:
    """*Does it move* and *which way*, fitted."""
    y, rows = lesson.y, lesson.rows
    scale = _Scale.fit(columns.rows(rows), options.clip)
    moved = rows & (y != FLAT)
    still = Part(
        _linear_still(columns, y == FLAT, rows, scale, options),
        _trees_still(columns, y == FLAT, rows, options, seed),
        _touch(columns, y == FLAT, rows, np.abs, options),
    )
    way = Part(
        _linear_way(columns, lesson.moves, scale, options),
        _trees_way(columns, y == UP, moved, options, seed),
        _touch(columns, y == UP, moved, None, options),
    )
    return still, way


def joined(still: F64, way: F64) -> F64:
    """Class probabilities float64 [n, 3] from the log-odds of staying and of going up when moving."""
    flat, up = _sigmoid(still), _sigmoid(way)
    return np.stack([(1 - flat) * (1 - up), flat, (1 - flat) * up], axis=1)


def best_bias(
    told: list[tuple[F64, NDArray[np.uint8], F64]], follows: tuple[float, ...] = (0.0,)
) -> tuple[float, float]:
    """What is added to log p(flat), and how far it follows the third column (stillness above its usual
    value), with the best mean MCC over the folds, smoothed over neighbouring biases.

    A single point of the grid wins by luck; the mean of three wins because the neighbourhood is good.
    """
    if not told:
        return 0.0, 0.0
    best, chosen = -2.0, (0.0, 0.0)
    for follow in follows:
        score = np.array(
            [
                np.mean([evaluate.mcc(y, calls(p, (b + follow * c, 0.0))) for p, y, c in told])
                for b in FLAT_BIASES
            ]
        )
        smooth = np.convolve(np.pad(score, 1, mode="edge"), np.ones(3) / 3, mode="valid")
        if smooth.max() > best + 1e-12:
            best, chosen = float(smooth.max()), (float(FLAT_BIASES[int(np.argmax(smooth))]), follow)
    return chosen


def _loss(odds: F64, target: Mask) -> float:
    return float(np.mean(np.logaddexp(0, np.where(target, -odds, odds)))) if len(target) else 0.0


def choose_bias(p: F64, y: NDArray[np.uint8]) -> tuple[float, float]:
    """(added to log p(flat), added to log p(up) less that of down) with the best MCC; ties: the smallest.

    For the rivals, on the choosing span; the ensemble has ``best_bias``.
    """
    if len(y) == 0:
        return 0.0, 0.0
    logp = np.log(np.maximum(p, 1e-9))
    best, chosen = -2.0, (0.0, 0.0)
    for flat in sorted(FLAT_BIASES, key=abs):
        for tilt in sorted(TILTS, key=abs):
            score = evaluate.mcc(y, _called(logp, float(flat), float(tilt)))
            if score > best + 1e-12:
                best, chosen = score, (float(flat), float(tilt))
    return chosen


def calls(p: F64, bias: tuple[float | F64, float]) -> NDArray[np.uint8]:
    """Class with the largest biased log-probability, uint8 [n]."""
    return _called(np.log(np.maximum(p, 1e-9)), *bias)


def _called(logp: F64, flat: float | F64, tilt: float) -> NDArray[np.uint8]:
    down, up = logp[:, DOWN] - tilt, logp[:, UP] + tilt
    sides = np.where(up >= down, UP, DOWN)
    return np.where(logp[:, FLAT] + flat >= np.maximum(up, down), FLAT, sides).astype(np.uint8)


# --- the four answers


@dataclass(frozen=True, slots=True)
class _Scale:
    odd: Scaler
    even: Scaler

    @classmethod
    def fit(cls, rows: Columns, clip: float) -> _Scale:
        # An odd column has its centre at zero by symmetry: only its scale is fitted.
        scaler = Scaler.fit(rows.odd, clip=clip)
        return cls(Scaler(np.zeros_like(scaler.center), scaler.scale, clip), Scaler.fit(rows.even, clip=clip))

    def oddly(self, rows: Columns) -> F32:
        return self.odd.apply(rows.odd)

    def evenly(self, rows: Columns) -> F32:
        return np.concatenate([np.abs(self.odd.apply(rows.odd)), self.even.apply(rows.even)], axis=1)


def _linear_still(columns: Columns, flat: Mask, rows: Mask, scale: _Scale, options: Options) -> Odds:
    Z, target = scale.evenly(columns.rows(rows)), flat[rows]
    weights, intercept = logistic(Z, target, options.penalty)
    return lambda asked: scale.evenly(asked) @ weights + intercept


def _linear_way(
    columns: Columns, targets: list[tuple[Mask, NDArray[np.uint8]]], scale: _Scale, options: Options
) -> Odds:
    Z = np.concatenate([scale.oddly(columns.rows(rows)) for rows, _ in targets])
    up = np.concatenate([y[rows] == UP for rows, y in targets])
    weights, _ = logistic(Z, up, options.penalty, intercept=False)
    return lambda asked: scale.oddly(asked) @ weights


def _touch(
    columns: Columns, target: Mask, rows: Mask, size: Callable[[F64], F64] | None, options: Options
) -> Odds:
    """Logistic regression on the touch imbalance alone (its ``size`` for an even question)."""
    if TOUCH not in columns.odd_names:
        return lambda asked: np.zeros(len(asked.odd))
    k = columns.odd_names.index(TOUCH)

    def table(asked: Columns) -> F32:
        x = np.nan_to_num(asked.odd[:, k].astype(np.float64))
        return (size(x) if size else x).astype(np.float32)[:, None]

    weights, intercept = logistic(
        table(columns.rows(rows)), target[rows], TOUCH_PENALTY, intercept=size is not None
    )
    return lambda asked: table(asked) @ weights + intercept


def _trees_still(
    columns: Columns, flat: Mask, rows: Mask, options: Options, seed: int
) -> Callable[[Columns, int], F64]:
    def table(asked: Columns) -> F32:
        return np.concatenate([np.abs(asked.odd), asked.even], axis=1)

    booster = _boost(
        table(columns.rows(rows)), flat[rows], options, seed,
        leaves=options.still_leaves, share=options.still_rows_in_leaf, columns=options.still_columns,
    )  # fmt: skip
    return lambda asked, rounds: _raw(booster, table(asked), rounds)


def _trees_way(
    columns: Columns, up: Mask, rows: Mask, options: Options, seed: int
) -> Callable[[Columns, int], F64]:
    def table(asked: Columns) -> F32:
        return np.concatenate([asked.odd, asked.even], axis=1)

    def mirror(asked: Columns) -> F32:
        return np.concatenate([-asked.odd, asked.even], axis=1)

    taught = columns.rows(rows)
    booster = _boost(
        np.concatenate([table(taught), mirror(taught)]), np.concatenate([up[rows], ~up[rows]]), options, seed,
        leaves=options.way_leaves, share=options.way_rows_in_leaf, columns=options.way_columns,
    )  # fmt: skip
    return lambda asked, rounds: (
        (_raw(booster, table(asked), rounds) - _raw(booster, mirror(asked), rounds)) / 2
    )


def logistic(Z: F32, target: Mask, penalty: float, *, intercept: bool = True) -> tuple[F64, float]:
    """Weights float64 [k] and intercept of an L2 logistic regression; a single class gives zeros."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(target) == 0 or target.all() or not target.any():
        prior = np.log((target.sum() + 0.5) / ((~target).sum() + 0.5)) if intercept else 0.0
        return np.zeros(Z.shape[1]), float(prior)
    # Few columns, many rows: Newton's method needs a handful of passes. Threads would only wait.
    model = LogisticRegression(
        C=1 / (len(target) * penalty), max_iter=50, fit_intercept=intercept, solver="newton-cholesky"
    )
    with threadpool_limits(1):
        model.fit(Z, target)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0]) if intercept else 0.0


def _boost(
    X: F32, target: Mask, options: Options, seed: int, *, leaves: int, share: float, columns: float
) -> Any:
    """A LightGBM booster with the largest number of rounds, or None where there is nothing to tell apart."""
    if len(target) == 0 or target.all() or not target.any():
        return None
    import lightgbm as lgb

    parameters = {
        "objective": "binary", "num_leaves": leaves, "learning_rate": options.learning_rate,
        "min_data_in_leaf": max(20, int(share * len(target))), "feature_fraction": columns,
        "bagging_fraction": 0.5, "bagging_freq": 1, "lambda_l2": options.l2, "max_bin": 63,
        "num_threads": options.threads, "deterministic": True, "force_col_wise": True, "verbosity": -1,
        "seed": seed,
    }  # fmt: skip
    return lgb.train(parameters, lgb.Dataset(X, target.astype(np.float32)), max(options.rounds))


def _raw(booster: Any, X: F32, rounds: int) -> F64:
    if booster is None:
        return np.zeros(len(X))
    return np.asarray(booster.predict(X, raw_score=True, num_iteration=rounds, num_threads=1), np.float64)


def _sigmoid(x: F64) -> F64:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
