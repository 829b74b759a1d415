"""What the four training stages share: the data set in, the learner's folder and its metrics out.

A network's training that was killed goes on after its last whole epoch, by a file that no result depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import params as params_file
from flows.partitions import maker
from flows.stages.common import FEATURES, LABELS, MODELS, Say, whole, write_metrics
from market.errors import ConfigError
from models.dataset import load
from models.resume import Resume, question

RESUME = Path("runtime/training")
CODE, LIBRARIES = ("features", "models"), ("numpy", "numba", "torch")
"""What an epoch that was kept must have been made by."""


def train_stage(name: str, train: Callable[..., dict[str, Any]], say: Say) -> None:
    """Train one learner with its section of ``params.yaml`` as keyword arguments."""
    params = params_file.load()
    hyper: dict[str, Any] = getattr(params, name)
    takes = set(train.__kwdefaults__ or {})
    known = takes - {"progress", "scaler", "resume"}
    if unknown := sorted(set(hyper) - known):
        raise ConfigError(
            f"params.yaml: {name} has no {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    dataset = load(FEATURES, LABELS)
    with whole(MODELS / name) as folder:
        asked = {"seed": params.seed, "threads": params.threads, **hyper}
        given: dict[str, Any] = {}
        if "scaler" in takes:
            given["scaler"] = dataset.fit_scaler()
        if "resume" in takes:
            code = maker(CODE, LIBRARIES)
            given["resume"] = Resume(RESUME / f"{name}.epoch", question(dataset, code, name=name, **asked))
        report = train(dataset, folder, progress=say, **asked, **given)
    if "resume" in given:
        given["resume"].forget()
    kept = ("log_loss", "climatology_log_loss", "brier_skill", "macro_f1", "mcc", "ece")
    write_metrics(f"train_{name}", {key: report[key] for key in kept})
