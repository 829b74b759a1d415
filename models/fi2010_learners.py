"""Our learners on the benchmark: the product's own four, the yardstick BiN-CTABL, and what needs no learning.

Each answers one horizon: ``Task`` in, log-probabilities float32 [n, 3] out for the validation and test rows
(NaN where a window does not fit), from the training rows alone. Labels of test rows are not in a ``Task``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import ctabl, evaluate, gbdt, learner, lstm, svm, transformer
from models.ensemble import load_logits
from models.fi2010 import Part, trailing_mean
from models.learner import Series
from models.scaling import Scaler

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
Say = Callable[[str], None]

BOOK = 40
NAME = "fi2010"
MOMENTUM_ROWS = 5
EARLY_SHARE = 0.15
PROBE_ROWS = 5_120
"""Rows of the first, timed bit of training, from which the number of epochs follows."""


@dataclass(frozen=True, slots=True)
class Task:
    """One horizon: training, validation and test rows one after the other.

    ``x`` float32 [n, 144], ``rich`` float32 [n, F] with the window-relative columns, ``y`` int64 [n, 5], this
    horizon first, -1 on test rows; ``fresh`` bool [n]; ``train``, ``asked`` bool [n].
    """

    x: F32
    rich: F32
    y: I64
    fresh: Mask
    train: Mask
    asked: Mask

    @property
    def prior(self) -> NDArray[np.float64]:
        return evaluate.shares(self.y[self.train, 0])


@dataclass(frozen=True, slots=True)
class Given:
    """What a learner may use: seconds, threads, a seed, somebody to tell."""

    seconds: float
    threads: int
    seed: int
    say: Say


Fit = Callable[[Task, Given], F32]


def majority(task: Task, given: Given) -> F32:
    """The shares of the training rows, whatever the book says."""
    return np.broadcast_to(np.log(task.prior), (len(task.x), 3)).astype(np.float32)


def momentum(task: Task, given: Given) -> F32:
    """The mid less its trailing mean in fifths of the training rows, each fifth with what followed it there.

    No forecast at all: what it scores is how much of the label is the past (a leak of the labels' smoothing).
    """
    mid = (task.x[:, 0].astype(np.float64) + task.x[:, 2]) / 2
    lean = mid - trailing_mean(mid, task.fresh, MOMENTUM_ROWS)
    edges = np.unique(np.quantile(lean[task.train], [0.1, 0.3, 0.45, 0.55, 0.7, 0.9]))
    slot = np.searchsorted(edges, lean)
    y, out = task.y[:, 0], np.empty((len(lean), 3), np.float32)
    for k in range(len(edges) + 1):
        known = y[task.train & (slot == k)]
        out[slot == k] = np.log(evaluate.shares(np.append(known, [0, 1, 2])))
    return out


def logistic(task: Task, given: Given) -> F32:
    """Multinomial logistic regression on the window-relative columns."""
    from sklearn.linear_model import LogisticRegression

    scaler = Scaler.fit(task.rich[task.train])
    rows = np.flatnonzero(task.train)
    rows = rows[learner.thin(len(rows), 60_000)]
    with learner.fixed_threads(given.threads):
        model = LogisticRegression(max_iter=100, C=0.1).fit(scaler.apply(task.rich[rows]), task.y[rows, 0])
        out = np.full((len(task.x), 3), np.nan, np.float32)
        p = np.full((int(task.asked.sum()), 3), 1e-7)
        p[:, model.classes_.astype(int)] = model.predict_proba(scaler.apply(task.rich[task.asked]))
    out[task.asked] = gbdt.log_of(p)
    return out


def yardstick(task: Task, given: Given) -> F32:
    """BiN-CTABL on the ten levels of the last ten rows; as many epochs as the time allows, at most 20."""
    scaled = Scaler.fit(task.x[task.train, :BOOK]).apply(np.ascontiguousarray(task.x[:, :BOOK]))
    since = _since_fresh(task.fresh)
    whole = since >= ctabl.WINDOW - 1
    rows = np.flatnonzero(task.train & whole)
    cut = int(len(rows) * (1 - EARLY_SHARE))
    ends, early = rows[:cut], rows[cut:]
    early = early[learner.thin(len(early), 10_000)]
    y = task.y[:, 0]

    def fit(epochs: int, rows_per_epoch: int) -> Any:
        return ctabl.fit(
            scaled, ends, y[ends], early, y[early], seed=given.seed, epochs=epochs,
            rows_per_epoch=rows_per_epoch,
        )  # fmt: skip

    with learner.fixed_threads(given.threads, torch=True):
        begun = time.monotonic()
        fit(1, min(PROBE_ROWS, len(ends)))
        a_row = (time.monotonic() - begun) / min(PROBE_ROWS, len(ends))
        affordable = max(PROBE_ROWS, int(0.7 * given.seconds / max(a_row, 1e-9)))
        epochs = int(np.clip(affordable // len(ends), 4, 20))
        per_epoch = int(min(len(ends), max(ctabl.BATCH, affordable // epochs)))
        given.say(f"{ctabl.NAME}: {epochs} epochs of {per_epoch:,} rows")
        best, _ = fit(epochs, per_epoch)
        out = np.full((len(task.x), 3), np.nan, np.float32)
        at = np.flatnonzero(task.asked & whole)
        out[at] = ctabl.predict(best, scaled, at)
    return out


def _since_fresh(fresh: Mask) -> I64:
    at = np.arange(len(fresh))
    return at - np.maximum.accumulate(np.where(fresh, at, 0))


def _ours(train: Callable[..., dict[str, Any]], columns: str, **hyper: Any) -> Fit:
    """One of the product's learners, as the line trains it: with early stopping inside the training rows."""

    def fit(task: Task, given: Given) -> F32:
        x = task.rich if columns == "rich" else np.ascontiguousarray(task.x[:, :BOOK])
        n = len(x)
        at = np.arange(n, dtype=np.int64)
        never = np.zeros(n, np.bool_)
        blocks = {
            "fit": task.train,
            "calibrate": task.asked,
            "threshold": never,
            "score": never,
            "live": never,
        }
        # A row is a second here: the learners only ask which comes first and whether labels overlap.
        series = Series(
            NAME, x, task.y[:, 0], np.ones(n, np.bool_), task.fresh, blocks, at * 10**9, at * 10**9,
            (), task.y,
        )  # fmt: skip
        known = set(train.__kwdefaults__ or {})
        asked = {key: value for key, value in hyper.items() if key in known}
        with tempfile.TemporaryDirectory() as folder:
            train(
                [series], Path(folder), seed=given.seed, threads=given.threads, progress=given.say, **asked
            )  # fmt: skip
            return load_logits(Path(folder) / "logits.npz")[NAME]

    return fit


TRIVIAL: dict[str, Fit] = {"majority class": majority, "momentum only": momentum, "logistic": logistic}
OURS: dict[str, Fit] = {
    "gbdt": _ours(gbdt.train, "rich", rounds=300, leaves=31, max_rows=210_000),
    "svm": _ours(svm.train, "rich", features=1024, max_rows=60_000),
    "lstm": _ours(lstm.train, "book", epochs=15, yardstick_epochs=0),
    "transformer": _ours(transformer.train, "book", window=20, epochs=12, windows_per_epoch=24_000,
                         yardstick_epochs=0),
    ctabl.NAME: yardstick,
}  # fmt: skip
"""Members of the ensemble, in the order in which they are trained."""
SHARES: Mapping[str, float] = {"logistic": 0.1, "gbdt": 0.3, "svm": 0.25, "lstm": 0.35, "transformer": 0.5,
                               ctabl.NAME: 1.0}  # fmt: skip
"""Of the time that is left for a horizon when the learner's turn comes."""


def warm_up(names: Collection[str], threads: int) -> None:
    """Every learner once on a few rows of noise, so that libraries are loaded and kernels compiled before a
    step's time begins: an import that is stopped half-way leaves a module that is broken."""
    rng = np.random.default_rng(0)
    n, known = 400, np.arange(400) < 300
    x = rng.normal(size=(n, 144)).astype(np.float32)
    fresh = np.arange(n) == 0
    y = rng.integers(0, 3, (n, 5)).astype(np.int64)
    task = Task(x, x, y, fresh, known, ~known)
    for name, fit in (TRIVIAL | OURS).items():
        if name in names:
            fit(task, Given(1.0, threads, 0, lambda line: None))


def task_of(train: Part, test: Part, x: F32, rich: F32, validation: Mask, horizon: int) -> Task:
    """The rows of both parts (``x``, ``rich``: joined) for one horizon (its position); test labels are left
    out."""
    n, m = len(train), len(test)
    order = [horizon, *(k for k in range(train.y.shape[1]) if k != horizon)]
    y = np.full((n + m, len(order)), -1, np.int64)
    y[:n] = train.y[:, order]
    fresh = np.concatenate([train.fresh, test.fresh])
    teach, asked = np.zeros(n + m, np.bool_), np.zeros(n + m, np.bool_)
    teach[:n] = ~validation
    asked[:n] = validation
    asked[n:] = True
    return Task(x, rich, y, fresh, teach, asked)
