"""Gradient-boosted trees (LightGBM) on raw features of single rows, masked ones included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models import learner
from models.learner import Progress

NAME = "gbdt"


def train(
    dataset: Any, out_dir: Path, *, seed: int, threads: int, progress: Progress = print,
    rounds: int = 200, leaves: int = 31, learning_rate: float = 0.06, patience: int = 15,
    max_rows: int = 80_000, min_rows_in_leaf: int = 200, l2: float = 10.0, feature_fraction: float = 0.7,
    early_share: float = 0.15,
) -> dict[str, Any]:  # fmt: skip
    """Fit on block ``fit``, stop on its last ``early_share``; writes ``model.txt``, the report and
    ``logits.npz``.

    Labels of neighbouring rows overlap, so a leaf holds hundreds of rows and rounds are few: 31 leaves of
    20 rows would learn single episodes by heart.
    """
    import lightgbm as lgb

    series = learner.series_of(dataset)
    rows = learner.fit_rows(series, early_share)
    X, y = learner.pool(series, rows.train)
    keep = learner.thin(len(y), max_rows)
    Xe, ye = learner.pool(series, rows.early)
    parameters = {
        "objective": "multiclass", "num_class": 3, "metric": "multi_logloss", "num_leaves": leaves,
        "learning_rate": learning_rate, "min_data_in_leaf": max(1, min(min_rows_in_leaf, len(y[keep]) // 20)),
        "lambda_l2": l2, "feature_fraction": feature_fraction, "seed": seed, "num_threads": threads,
        "deterministic": True, "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip
    teach = lgb.Dataset(X[keep], y[keep], free_raw_data=False)
    stop = lgb.Dataset(Xe, ye, reference=teach)
    progress(f"gbdt: {len(y[keep]):,} rows teach, {len(ye):,} rows stop")
    history: dict[str, Any] = {}
    booster = lgb.train(
        parameters, teach, rounds, valid_sets=[stop], valid_names=["early"],
        callbacks=[
            lgb.early_stopping(patience, verbose=False), lgb.record_evaluation(history),
            _tell(progress, rounds),
        ],
    )  # fmt: skip
    best = booster.best_iteration or booster.current_iteration()
    logp = {}
    for s in series:
        logp[s.ticker] = np.full((len(s), 3), np.nan, np.float32)
        if s.judged.any():
            p = booster.predict(s.X[s.judged], num_iteration=best, num_threads=threads)
            logp[s.ticker][s.judged] = log_of(p)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    learner.save_text(out_dir / "model.txt", booster.model_to_string(num_iteration=best))
    facts = {
        "epochs": best, "history": history["early"]["multi_logloss"][::10], "seed": seed, "threads": threads,
        "hyper": {k: v for k, v in parameters.items() if k not in ("seed", "num_threads", "verbosity")},
    }  # fmt: skip
    return learner.finish(NAME, out_dir, series, rows, logp, weights=None, facts=facts, progress=progress)


def log_of(p: Any) -> learner.F32:
    """Log-probabilities float32 [n, 3] of probabilities, with the floor of the product."""
    return np.log(np.maximum(np.asarray(p, np.float64), 1e-7)).astype(np.float32)


def _tell(progress: Progress, rounds: int) -> Any:
    def callback(env: Any) -> None:
        if (env.iteration + 1) % 25 == 0:
            loss = env.evaluation_result_list[0][2]
            progress(f"gbdt: round {env.iteration + 1}/{rounds}, log-loss {loss:.4f} on the stopping rows")

    return callback
