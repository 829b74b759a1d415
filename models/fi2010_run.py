"""The benchmark from files to figures, inside its budget. Test labels are looked at once, at the end.

Setup 2 is the headline: every learner answers every horizon, a non-negative stack is fitted on the second
half of the validation rows, and temperature and class bias with it. Setup 1 (nine anchored folds, k = 10)
follows where its files are there.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.importers.fi2010 import BOOK_ROWS, HORIZONS
from models import card_figures, ctabl, ensemble, evaluate, fi2010, learner
from models import fi2010_published as published
from models.calibrate import fit_temperature
from models.card_figures import Scored
from models.fi2010 import FOLDS, SETUP2_TESTS, SETUP2_TRAIN, Part, Say
from models.fi2010_budget import Budget
from models.fi2010_learners import OURS, SHARES, TRIVIAL, Given, Task, task_of, warm_up, yardstick

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

ENSEMBLE, BIASED = "ensemble", "ensemble, class bias"
BOOTSTRAP_ROWS = 500
"""Neighbours that are drawn together in an interval: the files name no day."""
BIASES = np.linspace(-1.0, 1.0, 11)
ANCHORED_SHARE = 0.2
"""Of the time, for setup 1 where its files are there."""
TREE_DEPTH, TREE_SUSPECT = 3, 0.70
LIBRARIES = ("numpy", "torch", "lightgbm", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. ``minutes``: the whole budget; ``learners``: names of OURS (empty: all)."""

    variant: str = "ZScore"
    minutes: float = 60.0
    threads: int = 2
    seed: int = 1
    validation: str = "tail"
    anchored: bool = True
    learners: tuple[str, ...] = ()
    cache: Path | None = None


def benchmark(folder: Path, plan: Plan, say: Say) -> dict[str, Any]:
    """Everything the report shows, as plain data. RecordingError when the folder lacks the files."""
    budget = Budget(60.0 * plan.minutes, say)
    cpu = time.process_time()
    found = fi2010.find(folder, plan.variant)
    paths = [found.train[SETUP2_TRAIN], *(found.test[d] for d in SETUP2_TESTS)]
    train = fi2010.read(paths[:1], plan.cache, say)
    test = fi2010.read(paths[1:], plan.cache, say)
    turn = fi2010.orientation(train)
    one_is_up = turn >= 0
    train, test = fi2010.directed(train, one_is_up), fi2010.directed(test, one_is_up)
    say(
        f"setup 2: {len(train):,} rows to learn, {len(test):,} to score in {int(test.fresh.sum())} "
        f"stretches; label 1 means {'up' if one_is_up else 'down'} (correlation {turn:+.3f})"
    )
    anchored = plan.anchored and found.anchored
    horizons = _setup2(train, test, plan, budget, say, keep=ANCHORED_SHARE if anchored else 0.0)
    audit = _audit(train, test, budget)
    folds = _setup1(found, plan, one_is_up, budget, say) if anchored else []
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "claim": f"macro-F1 on FI-2010 setup 2 (7/3, NoAuction, {plan.variant})",
        "variant": plan.variant, "validation": plan.validation, "seed": plan.seed, "threads": plan.threads,
        "budget_minutes": plan.minutes, "seconds": time.monotonic() - budget.begun,
        "cpu_seconds": time.process_time() - cpu, "cut": budget.cut, "spent_s": budget.spent,
        "versions": {"python": platform.python_version(),
                     **{name: importlib.metadata.version(name) for name in LIBRARIES}},
        "files": fi2010.file_hashes(paths),
        "rows": {"train": len(train), "test": len(test)},
        "real": (len(train), len(test)) == (published.TRAIN_ROWS, published.TEST_ROWS),
        "one_is_up": one_is_up, "label_correlation": turn,
        "horizons": horizons, "audit": audit, "anchored": folds,
    }  # fmt: skip


def _setup2(
    train: Part, test: Part, plan: Plan, budget: Budget, say: Say, *, keep: float
) -> list[dict[str, Any]]:
    x = np.concatenate([train.x, test.x])
    rich = np.concatenate([fi2010.relative(train), fi2010.relative(test)])
    chosen = fi2010.validation(len(train), train.fresh, plan.validation)
    fits = {**TRIVIAL, **{name: fit for name, fit in OURS.items() if name in (plan.learners or OURS)}}
    say("loading the libraries")
    warm_up(fits, plan.threads)
    answered: list[tuple[Task, dict[str, F32]]] = []
    for position, k in enumerate(HORIZONS):
        task = task_of(train, test, x, rich, chosen, position)
        ends = budget.usable - (budget.usable - keep * budget.seconds) / (len(HORIZONS) - position)
        logp: dict[str, F32] = {}
        for name, fit in fits.items():
            seconds = SHARES.get(name, 0.1) * max(0.0, budget.usable - ends)
            with budget.step(f"k={k} {name}", seconds) as limit:
                if limit > 0:
                    logp[name] = fit(task, Given(limit, plan.threads, plan.seed, say))
        answered.append((task, logp))
    # Only now: nothing above has seen a label of a test row.
    return [
        {"k": k, **_judged(task, logp, test.y[:, position], len(train), plan.seed)}
        for position, (k, (task, logp)) in enumerate(zip(HORIZONS, answered, strict=True))
    ]


def _judged(task: Task, logp: dict[str, F32], y_test: Any, n: int, seed: int) -> dict[str, Any]:
    """One horizon: stack on the second half of validation, then every forecast on the same test rows."""
    whole = task.asked & np.logical_and.reduce([np.isfinite(v).all(axis=1) for v in logp.values()])
    chosen = np.flatnonzero(whole & (task.y[:, 0] >= 0))
    second = chosen[len(chosen) // 2 :]
    tested = np.flatnonzero(whole)
    tested = tested[tested >= n]
    members = {name: v for name, v in logp.items() if name in OURS}
    y = np.asarray(y_test)[tested - n]
    block = np.arange(len(y)) // BOOTSTRAP_ROWS
    rows = [_row(name, logp[name][tested], y, block, task.prior, seed) for name in logp]
    stack: dict[str, Any] = {"weights": {}, "temperature": None, "bias": None}
    if members and len(second):
        y_second = task.y[second, 0]
        weights, _ = ensemble.fit({m: v[second] for m, v in members.items()}, y_second, task.prior)
        blend = np.sum([w * members[m].astype(np.float64) for m, w in weights.items()], axis=0)
        temperature = fit_temperature(blend[second], y_second)
        mixed = learner.log_softmax(np.nan_to_num(blend) / temperature)
        bias = choose_bias(mixed[second], y_second)
        rows.append(_row(ENSEMBLE, mixed[tested], y, block, task.prior, seed))
        rows.append(_row(BIASED, mixed[tested] + np.asarray(bias, np.float32), y, block, task.prior, seed,
                         probabilities=False))  # fmt: skip
        stack = {"weights": weights, "temperature": temperature, "bias": list(bias)}
    return evaluate.rounded(
        {
            "rows": {"train": int(task.train.sum()), "choose": len(second), "test": len(tested),
                     "left_out": len(y_test) - len(tested)},
            "shares_test": evaluate.shares(y, floor=0.0), "forecasts": rows, "stack": stack,
        }
    )  # fmt: skip


def choose_bias(logp: F32, y: Any) -> tuple[float, float, float]:
    """What is added to the log-probability of (down, flat, up) for the best macro-F1; ties: the smallest."""
    best, found = -1.0, (0.0, 0.0, 0.0)
    for flat in sorted(BIASES, key=abs):
        for tilt in sorted(BIASES / 2, key=abs):
            bias = (-float(tilt), float(flat), float(tilt))
            score = evaluate.macro_f1(y, np.argmax(logp + np.asarray(bias), axis=1))
            if score > best + 1e-12:
                best, found = score, bias
    return found


def _row(
    name: str, logp: F32, y: Any, block: Any, prior: Any, seed: int, *, probabilities: bool = True
) -> dict[str, Any]:
    called = logp.argmax(axis=1)
    c = evaluate.confusion(y, called)
    total = c.sum(0) + c.sum(1)
    f1 = np.where(total > 0, 2.0 * np.diag(c) / np.maximum(total, 1), np.nan)
    scores = card_figures.scores(Scored(logp, y, block), prior, seed=seed)
    kept = ("macro_f1", "macro_f1_ci", "mcc", "mcc_ci")
    return {
        "name": name, **{key: scores[key] for key in kept},
        "f1": {label: float(v) for label, v in zip(card_figures.CLASS_NAMES, f1, strict=True)},
        "accuracy": float(np.trace(c) / max(1, c.sum())), "confusion": c.tolist(),
        "log_loss": scores["log_loss"] if probabilities else None,
        "ece": scores["ece"] if probabilities else None,
    }  # fmt: skip


def _audit(train: Part, test: Part, budget: Budget) -> dict[str, Any]:
    """A tree of depth 3 on the hand-made columns at k = 20: so little cannot know so much without a leak."""
    from sklearn.tree import DecisionTreeClassifier

    score = None
    with budget.step("audit of the hand-made columns", 60.0) as limit:
        if limit > 0:
            at = HORIZONS.index(20)
            few = learner.thin(len(train), 60_000)
            tree = DecisionTreeClassifier(max_depth=TREE_DEPTH, class_weight="balanced", random_state=0)
            tree.fit(train.x[few, BOOK_ROWS:], train.y[few, at])
            score = evaluate.macro_f1(test.y[:, at], tree.predict(test.x[:, BOOK_ROWS:]))
    suspect = None if score is None else score > TREE_SUSPECT
    return evaluate.rounded({"k": 20, "depth": TREE_DEPTH, "macro_f1": score, "suspect": suspect})


def _setup1(
    found: fi2010.Found, plan: Plan, one_is_up: bool, budget: Budget, say: Say
) -> list[dict[str, Any]]:
    """BiN-CTABL on nine anchored folds, k = 10: days 1 to d against day d + 1."""
    rows = []
    for done, d in enumerate(FOLDS):
        with budget.step(f"setup 1, fold {d} of 9", budget.usable / (len(FOLDS) - done)) as limit:
            if limit <= 0:
                continue
            train, test = (
                fi2010.directed(fi2010.read([p], plan.cache, say), one_is_up)
                for p in (found.train[d], found.test[d])
            )
            rows.append({"fold": d, **_fold(train, test, Given(limit, plan.threads, plan.seed, say))})
    return rows


def _fold(train: Part, test: Part, given: Given) -> dict[str, Any]:
    x = np.concatenate([train.x, test.x])
    task = task_of(train, test, x, x, np.zeros(len(train), np.bool_), 0)
    logp = yardstick(task, given)
    rows = np.flatnonzero(np.isfinite(logp).all(axis=1))
    rows = rows[rows >= len(train)]
    y, called = test.y[rows - len(train), 0], logp[rows].argmax(axis=1)
    return evaluate.rounded(
        {
            "learner": ctabl.NAME, "train": len(train), "test": len(rows),
            "macro_f1": evaluate.macro_f1(y, called), "kappa": kappa(y, called),
            "mcc": evaluate.mcc(y, called),
        }
    )  # fmt: skip


def kappa(y: Sequence[int] | Any, called: Any) -> float:
    """Cohen's kappa: agreement beyond what the two sides' class shares would give by chance."""
    c = evaluate.confusion(y, called).astype(np.float64)
    n = c.sum()
    chance = float(c.sum(0) @ c.sum(1)) / (n * n) if n else 1.0
    return float((np.trace(c) / n - chance) / (1 - chance)) if chance < 1 else 0.0
