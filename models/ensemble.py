"""How much to believe each learner: weights by stacking, shrunk to equal, capped; and who becomes INT8.

The forecast is ``softmax(sum_i w_i logp_i)``, whose log-loss is convex in ``w``, so the simplex has one
best point. Evidence that fitted weights beat equal ones is thin (Breiman 1996 and since), hence the
shrinkage and the cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import evaluate, learner
from models.learner import F32, F64, I64, Progress

WEIGHTS_FILE = "ensemble_weights.json"
PLAN_FILE = "quantization_plan.json"


def build(
    dataset: Any, models_dir: Path, out_dir: Path, *, members: Sequence[str], shrink: float = 0.5,
    cap: float = 0.6, int8_weight_threshold: float = 0.2, full_integer: bool = False,
    threads: int = 1, progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """Weights from every member's ``logits.npz`` on block ``calibrate``; writes both JSON files, returns
    the first.
    """
    series = learner.series_of(dataset)
    logp: dict[str, dict[str, F32]] = {m: load_logits(Path(models_dir) / m / "logits.npz") for m in members}
    scored, y = [], []
    for s in series:
        rows = s.labelled & s.blocks["calibrate"]
        for m in members:
            rows = rows & np.isfinite(logp[m][s.ticker]).all(axis=1)
        scored.append({m: logp[m][s.ticker][rows] for m in members})
        y.append(s.y[rows])
    pooled = {m: np.concatenate([part[m] for part in scored]) for m in members}
    outcome = np.concatenate(y)
    if len(outcome) == 0:
        raise learner.TrainingError(
            "block 'calibrate' holds no row that every member scored: record more hours"
        )
    rows_of_fit = np.concatenate([s.y[s.labelled & s.blocks["fit"]] for s in series])
    prior = evaluate.shares(rows_of_fit)
    with learner.fixed_threads(threads):
        weights, notes = fit(pooled, outcome, prior, shrink=shrink, cap=cap)
        blend = learner.log_softmax(
            np.sum([w * pooled[m].astype(np.float64) for m, w in weights.items()], axis=0)
        )
        report = evaluate.rounded(
            {
                "weights": weights, "members": notes, "shrink": shrink, "cap": cap, "rows": len(outcome),
                "blend": evaluate.classification(blend, outcome, prior),
                "evidence": any(n["kept"] and n["beats_climatology"] for n in notes.values()),
            }
        )  # fmt: skip
    plan = quantization_plan(weights, int8_weight_threshold, full_integer=full_integer)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    learner.save_json(out_dir / WEIGHTS_FILE, report)
    learner.save_json(out_dir / PLAN_FILE, plan)
    progress("ensemble: " + ", ".join(f"{m} {w:.2f} {plan['members'][m]}" for m, w in weights.items()))
    return report


def load_logits(path: Path) -> dict[str, F32]:
    """Log-probabilities by ticker, float32 [n, 3]."""
    if not path.is_file():
        raise learner.TrainingError(f"{path} is missing: train that member first")
    with np.load(path) as f:
        return {k: f[k] for k in f.files}


def fit(
    logp: Mapping[str, F32], y: I64, prior: F64, *, shrink: float = 0.5, cap: float = 0.6
) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights by member (sum 1, a dropped member 0) and why; all ``logp`` are [n, 3] on the same n rows.

    A member no better than climatology is dropped. If all are, all stay with equal weights: there is no
    evidence to choose by, and the calibration that follows will refuse to trade.
    """
    names = list(logp)
    climate = evaluate.log_loss(np.broadcast_to(np.log(prior), (len(y), 3)), y)
    losses = {m: evaluate.log_loss(logp[m], y) for m in names}
    kept = [m for m in names if losses[m] < climate]
    alone = dict(zip(kept, stack([logp[m] for m in kept], y), strict=True)) if kept else {}
    chosen = temper(alone, shrink, cap) if kept else {m: 1.0 / len(names) for m in names}
    weights = normalised({m: chosen.get(m, 0.0) for m in names})
    notes = {
        m: {
            "log_loss": losses[m], "climatology_log_loss": climate, "beats_climatology": losses[m] < climate,
            "kept": m in chosen, "stacked": alone.get(m, 0.0), "weight": weights[m],
        }
        for m in names
    }  # fmt: skip
    return weights, notes


def stack(logp: Sequence[F32], y: I64, steps: int = 2000) -> F64:
    """Simplex weights with the least log-loss, by exponentiated gradient with a falling step (convex
    problem).
    """
    L = np.stack(logp).astype(np.float64)  # [members, n, 3]
    at_y = L[:, np.arange(len(y)), y]
    w = np.full(len(L), 1.0 / len(L))

    def loss(v: F64) -> tuple[float, F64]:
        z = np.tensordot(v, L, 1)
        top = z.max(axis=1, keepdims=True)
        e = np.exp(z - top)
        total = e.sum(axis=1, keepdims=True)
        value = float(np.mean(np.log(total[:, 0]) + top[:, 0] - v @ at_y))
        gradient = np.einsum("mnc,nc->m", L, e / total) / len(y) - at_y.mean(axis=1)
        return value, gradient

    value, gradient = loss(w)
    rate = 1.0
    for _ in range(steps):
        trial = w * np.exp(-rate * (gradient - gradient.min()))
        trial /= trial.sum()
        new_value, new_gradient = loss(trial)
        if new_value > value:
            rate *= 0.5
            if rate < 1e-6:
                break
            continue
        moved = np.abs(trial - w).max()
        w, value, gradient, rate = trial, new_value, new_gradient, rate * 1.3
        if moved < 1e-7:
            break
    return w


def temper(weights: Mapping[str, float], shrink: float, cap: float) -> dict[str, float]:
    """Move weights ``shrink`` of the way to equal, then cap each at ``cap``, the excess shared out in
    proportion (equally, where all the others have no weight at all).

    With so few members that the cap cannot hold (k * cap < 1) they end up equal.
    """
    k = len(weights)
    w = {m: (1.0 - shrink) * v + shrink / k for m, v in weights.items()}
    if k * cap <= 1.0:
        return dict.fromkeys(w, 1.0 / k)
    capped: set[str] = set()
    while True:
        free = sum(v for m, v in w.items() if m not in capped)
        room = 1.0 - cap * len(capped)
        even = room / max(1, k - len(capped))
        w = {m: cap if m in capped else v / free * room if free else even for m, v in w.items()}
        over = {m for m, v in w.items() if v > cap + 1e-12}
        if not over:
            return w
        capped |= over


def normalised(weights: Mapping[str, float], digits: int = 6) -> dict[str, float]:
    """Weights rounded for the file; the largest takes the rounding, so that they still sum to one."""
    w = {m: round(v, digits) for m, v in weights.items()}
    top = max(w, key=lambda m: w[m])
    w[top] = round(w[top] + 1.0 - sum(w.values()), digits)
    return w


def quantization_plan(
    weights: Mapping[str, float], threshold: float, *, full_integer: bool = False
) -> dict[str, Any]:
    """INT8 for members that weigh more than ``threshold``, FLOAT16 for the rest; trees stay text.

    INT8 means int8 weights with float inputs and outputs; ``full_integer`` asks for INT8_FULL in its place.
    """
    int8 = "INT8_FULL" if full_integer else "INT8"
    plan = {m: "TEXT" if m == "gbdt" else (int8 if w > threshold else "FLOAT16") for m, w in weights.items()}
    return {"int8_weight_threshold": threshold, "members": plan}
