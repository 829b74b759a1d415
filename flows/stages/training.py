"""What the four training stages share: the data set in, the learner's folder and its metrics out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows import params as params_file
from flows.stages.common import FEATURES, LABELS, MODELS, Say, whole, write_metrics
from market.errors import ConfigError
from models.dataset import load


def train_stage(name: str, train: Callable[..., dict[str, Any]], say: Say) -> None:
    """Train one learner with its section of ``params.yaml`` as keyword arguments."""
    params = params_file.load()
    hyper: dict[str, Any] = getattr(params, name)
    known = set(train.__kwdefaults__ or {}) - {"progress", "scaler"}
    if unknown := sorted(set(hyper) - known):
        raise ConfigError(
            f"params.yaml: {name} has no {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    dataset = load(FEATURES, LABELS)
    with whole(MODELS / name) as folder:
        if "scaler" in (train.__kwdefaults__ or {}):
            hyper = {**hyper, "scaler": dataset.fit_scaler()}
        report = train(dataset, folder, seed=params.seed, threads=params.threads, progress=say, **hyper)
    kept = ("log_loss", "climatology_log_loss", "brier_skill", "macro_f1", "mcc", "ece")
    write_metrics(f"train_{name}", {key: report[key] for key in kept})
