"""Gradient-boosted trees (LightGBM) on raw features of single rows, masked ones included.

Every row teaches together with its mirror image (``learner.with_mirror``). Measured on the simulated line,
block ``calibrate``: log-loss 0.297 with it and 0.315 without. One tree model for "does it move?" and one for
"which way?", the second made exactly odd, came to 0.302 and needed three calls a row; averaging answers for
a row and its image gained 0.0004 and needed two. The trees that were taught both need one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models import learner
from models.learner import Progress

NAME = "gbdt"
LEAVES, MIN_ROWS_IN_LEAF = 12, 400
LEARNING_RATE, L2, FEATURE_FRACTION, ROW_FRACTION = 0.08, 50.0, 0.4, 0.5


def train(
    dataset: Any, out_dir: Path, *, seed: int, threads: int, progress: Progress = print,
    rounds: int = 200, leaves: int = LEAVES, learning_rate: float = LEARNING_RATE, patience: int = 20,
    max_rows: int = 80_000, min_rows_in_leaf: int = MIN_ROWS_IN_LEAF, l2: float = L2,
    feature_fraction: float = FEATURE_FRACTION, row_fraction: float = ROW_FRACTION, early_share: float = 0.15,
) -> dict[str, Any]:  # fmt: skip
    """Fit on block ``fit``, stop on its last ``early_share``; writes ``model.txt``, the report and
    ``logits.npz``.

    Labels of neighbouring rows overlap, so a leaf holds hundreds of rows, each tree sees half of the rows and
    some of the columns, and rounds are few: 31 leaves of 20 rows would learn single episodes by heart.
    """
    import lightgbm as lgb

    series = learner.series_of(dataset)
    rows = learner.fit_rows(series, early_share)
    X, y = learner.pool(series, rows.train)
    keep = learner.thin(len(y), max_rows)
    X, y = learner.with_mirror(X[keep], y[keep])
    Xe, ye = learner.with_mirror(*learner.pool(series, rows.early))
    parameters = settings(
        len(y), seed=seed, threads=threads, leaves=leaves, learning_rate=learning_rate,
        min_rows_in_leaf=min_rows_in_leaf, l2=l2, feature_fraction=feature_fraction,
        row_fraction=row_fraction,
    )  # fmt: skip
    teach = lgb.Dataset(X, y, free_raw_data=False)
    stop = lgb.Dataset(Xe, ye, reference=teach)
    progress(f"gbdt: {len(y):,} rows teach, {len(ye):,} rows stop")
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


def settings(
    rows: int, *, seed: int, threads: int, leaves: int = LEAVES, learning_rate: float = LEARNING_RATE,
    min_rows_in_leaf: int = MIN_ROWS_IN_LEAF, l2: float = L2, feature_fraction: float = FEATURE_FRACTION,
    row_fraction: float = ROW_FRACTION,
) -> dict[str, Any]:  # fmt: skip
    """LightGBM's parameters for so many rows that teach."""
    return {
        "objective": "multiclass", "num_class": 3, "metric": "multi_logloss", "num_leaves": leaves,
        "learning_rate": learning_rate, "min_data_in_leaf": max(1, min(min_rows_in_leaf, rows // 20)),
        "lambda_l2": l2, "feature_fraction": feature_fraction, "bagging_fraction": row_fraction,
        "bagging_freq": 1, "max_bin": 63, "seed": seed, "num_threads": threads, "deterministic": True,
        "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip


def log_of(p: Any) -> learner.F32:
    """Log-probabilities float32 [n, 3] of probabilities, with the floor of the product."""
    return np.log(np.maximum(np.asarray(p, np.float64), 1e-7)).astype(np.float32)


def _tell(progress: Progress, rounds: int) -> Any:
    def callback(env: Any) -> None:
        if (env.iteration + 1) % 25 == 0:
            loss = env.evaluation_result_list[0][2]
            progress(f"gbdt: round {env.iteration + 1}/{rounds}, log-loss {loss:.4f} on the stopping rows")

    return callback
