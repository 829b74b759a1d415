"""The figures of a model card that are measured for it: scores with intervals, curves, importance.

Everything is about rows that nothing was fitted or chosen on. Rows a few seconds apart share most of their
label, so intervals draw whole blocks of time, never rows (Kunsch 1989).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models import evaluate
from models.conformal import risk_coverage
from models.evaluate import CLASSES, LOG_FLOOR

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

CLASS_NAMES = ("down", "flat", "up")
BINS = 15
RESAMPLES = 500
FEWEST_BLOCKS = 8
"""With fewer blocks of time an interval would be a pretence, and is left out."""
CURVE_POINTS = 60
SMALLEST_COVERAGE_ROWS = 50
"""A risk-coverage curve begins where so many rows are acted on."""
PERMUTED_ROWS = 4_000


@dataclass(frozen=True, slots=True)
class Scored:
    """A forecast of held-out rows: ``logp`` float32 [n, 3], ``y`` int [n], ``block`` int [n], the block of
    time that each row is drawn with."""

    logp: NDArray[Any]
    y: NDArray[Any]
    block: I64


def blocks_of(recv_ns: I64, seconds: float) -> I64:
    """Number of the block of time of each row, int64 [n]: rows within ``seconds`` go together."""
    return (recv_ns // round(seconds * 1e9)).astype(np.int64)


def scores(rows: Scored, prior: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """Scores with 95 % intervals (``<name>_ci``, None where there are too few blocks) beside climatology.

    ``skill`` is 1 - log-loss / log-loss of the constant forecast ``prior``.
    """
    prior = np.asarray(prior, np.float64)
    sums = _sums(rows, prior)
    out: dict[str, Any] = {"rows": len(rows.y), "blocks": len(sums), **_of_sums(sums.sum(0))}
    names = [name for name in out if name not in ("rows", "blocks")]
    if len(sums) >= FEWEST_BLOCKS:
        rng = np.random.default_rng(seed)
        drawn = [
            _of_sums(sums[rng.integers(0, len(sums), len(sums))].sum(0)) for _ in range(RESAMPLES)
        ]  # fmt: skip
    for name in names:
        low, high = (
            np.quantile([d[name] for d in drawn], [0.025, 0.975])
            if len(sums) >= FEWEST_BLOCKS
            else (None, None)
        )
        out[f"{name}_ci"] = [low, high]
    return evaluate.rounded(out)


def _sums(rows: Scored, prior: F64) -> F64:
    """What all scores are made of, summed by block: float64 [blocks, k]."""
    logp = np.maximum(np.asarray(rows.logp, np.float64), LOG_FLOOR)
    p, y = np.exp(logp), np.asarray(rows.y, np.int64)
    at = np.arange(len(y))
    hit = np.eye(CLASSES)[y]
    climate = np.log(np.maximum(prior, 1e-7))
    columns = [
        np.ones(len(y)), -logp[at, y], -climate[y],
        np.sum((p - hit) ** 2, axis=1), np.sum((prior - hit) ** 2, axis=1),
    ]  # fmt: skip
    _, slot = np.unique(rows.block, return_inverse=True)
    count = int(slot.max()) + 1 if len(slot) else 0
    parts = [np.bincount(slot, column, count) for column in columns]
    cell = y * CLASSES + np.argmax(logp, axis=1)
    for c in range(CLASSES * CLASSES):
        parts.append(np.bincount(slot, cell == c, count))
    for c in range(CLASSES):
        where = np.minimum((p[:, c] * BINS).astype(np.int64), BINS - 1)
        for b in range(BINS):
            inside = where == b
            parts += [
                np.bincount(slot, inside * p[:, c], count), np.bincount(slot, inside * hit[:, c], count),
            ]  # fmt: skip
    return np.stack(parts, axis=1)


def _of_sums(s: F64) -> dict[str, float]:
    n = s[0]
    confusion = s[5:14].reshape(CLASSES, CLASSES)
    total = confusion.sum(0) + confusion.sum(1)
    f1 = 2.0 * np.diag(confusion)[total > 0] / total[total > 0]
    bins = s[14:].reshape(CLASSES, BINS, 2)
    ece = np.abs(bins[:, :, 0] - bins[:, :, 1]).sum(axis=1) / n
    return {
        "log_loss": s[1] / n, "skill": 1.0 - s[1] / s[2] if s[2] > 0 else 0.0,
        "brier_skill": 1.0 - s[3] / s[4] if s[4] > 0 else 0.0, "macro_f1": float(f1.mean()),
        "mcc": evaluate.mcc_of(confusion), "ece": float(ece.mean()),
        **{f"ece_{name}": float(e) for name, e in zip(CLASS_NAMES, ece, strict=True)},
    }  # fmt: skip


def reliability(rows: Scored) -> dict[str, list[dict[str, float]]]:
    """``evaluate.reliability`` of every class, by its name."""
    p = np.exp(np.asarray(rows.logp, np.float64))
    return evaluate.rounded({name: evaluate.reliability(p, rows.y, c) for c, name in enumerate(CLASS_NAMES)})


def coverage(logp: ArrayLike, y: ArrayLike, long_bps: ArrayLike, short_bps: ArrayLike) -> dict[str, Any]:
    """Two risk-coverage curves of a forecast that may abstain.

    ``wrong``: surest by the largest probability, risk the share of wrong classes. ``net_bps``: surest by
    ``|p_up - p_down|``, value what a taker earns on the side that is likelier, after spread and commission
    (``long_bps``, ``short_bps``, rows where either is unknown left out). Points are (coverage, value).
    """
    logp, y = np.asarray(logp, np.float64), np.asarray(y)
    p = np.exp(logp)
    curve = risk_coverage(p.max(axis=1), p.argmax(axis=1) != y)
    lean = p[:, 2] - p[:, 0]
    earned = np.where(lean > 0, np.asarray(long_bps, np.float64), np.asarray(short_bps, np.float64))
    known = np.isfinite(earned)
    money = risk_coverage(np.abs(lean[known]), -earned[known])
    return evaluate.rounded(
        {
            "wrong": _thinned(curve.coverage, curve.risk, len(y)), "aurc": curve.aurc,
            "excess": curve.excess,
            "net_bps": _thinned(money.coverage, -money.risk, int(known.sum())),
        }
    )  # fmt: skip


def _thinned(x: F64, value: F64, rows: int) -> list[list[float]]:
    """At most ``CURVE_POINTS`` points, evenly spaced in the logarithm of the coverage."""
    first = SMALLEST_COVERAGE_ROWS / rows if rows else 1.0
    if len(x) == 0 or first >= 1.0:
        return []
    wanted = np.geomspace(first, 1.0, CURVE_POINTS)
    at = np.unique(np.minimum(np.searchsorted(x, wanted - 1e-12), len(x) - 1))
    return [[float(x[k]), float(value[k])] for k in at]


def importance(
    model_text: str, names: Sequence[str], X: NDArray[np.float32], y: NDArray[Any], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Every feature of the trees, most important first: its share of the split gain, and how many thousandths
    of a nat the log-loss of held-out rows ``X`` float32 [n, F] rises when its column is shuffled.

    Correlated columns share their importance: shuffling one leaves the others to speak for it.
    """
    import lightgbm as lgb

    booster = lgb.Booster(model_str=model_text)
    gain = booster.feature_importance("gain")
    share = gain / gain.sum() if gain.sum() > 0 else gain
    rows = np.linspace(0, len(y) - 1, min(len(y), PERMUTED_ROWS)).astype(np.int64)
    X, y = X[rows].copy(), np.asarray(y, np.int64)[rows]

    def loss() -> float:
        p = np.asarray(booster.predict(X, num_threads=1), np.float64)
        return evaluate.log_loss(np.log(np.maximum(p, 1e-7)), y)

    base, rng = loss(), np.random.default_rng(seed)
    rise = np.zeros(len(names))
    for k in np.flatnonzero(gain > 0):  # a column without a split cannot change a thing
        kept = X[:, k].copy()
        X[:, k] = kept[rng.permutation(len(kept))]
        rise[k] = 1e3 * (loss() - base)
        X[:, k] = kept
    order = np.argsort(-share, kind="stable")
    return evaluate.rounded(
        [
            {"feature": names[k], "gain_share": float(share[k]), "log_loss_rise_e3": float(rise[k])}
            for k in order
        ]
    )


def economics(
    move_bps: ArrayLike, spread_ticks: ArrayLike, mid2_ticks: ArrayLike, fee_bps: float
) -> dict[str, Any]:
    """What an instrument asks of a forecast: the usual cost of a taker's round trip, the usual move over the
    horizon, and the share of right calls at which the two balance (over 100 %: impossible)."""
    move = np.abs(np.asarray(move_bps, np.float64))
    spread, mid2 = np.asarray(spread_ticks, np.float64), np.asarray(mid2_ticks, np.float64)
    sound = np.isfinite(move) & (mid2 > 0)
    if not sound.any():
        return {"cost_bps": None, "move_bps": None, "break_even": None}
    cost = float(np.median(2e4 * spread[sound] / mid2[sound])) + 2.0 * fee_bps
    typical = float(move[sound].mean())
    return evaluate.rounded(
        {
            "cost_bps": cost, "move_bps": typical,
            "break_even": evaluate.break_even_precision(cost, typical) if typical > 0 else None,
        }
    )  # fmt: skip


def at_fees(trips: Sequence[Mapping[str, Any]], fees_bps: Sequence[float]) -> list[dict[str, Any]]:
    """The same round trips at other commissions, ``{"net_bps", "fee_bps"}`` each; empty without a trip."""
    if not trips:
        return []
    net = np.array([trip["net_bps"] for trip in trips], np.float64)
    paid = np.array([trip["fee_bps"] for trip in trips], np.float64)
    rows = []
    for fee in fees_bps:
        at = net + 2.0 * (paid - fee)
        low, high = evaluate.block_bootstrap(at, block=max(1, round(len(at) ** (1 / 3))))
        rows.append({"fee_bps": fee, "net_bps": float(at.mean()), "net_bps_ci": [low, high],
                     "won": float((at > 0).mean())})  # fmt: skip
    return evaluate.rounded(rows)
