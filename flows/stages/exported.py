"""What the later stages share about the exported models: running them over the recorded rows, reading the
result.

Everything after ``quantise`` judges the files that trade, through the code that trades them
(``models.inference``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.stages.common import CALIBRATION, EXPORTED, LOGP, read_json
from models.bundle import ENSEMBLE, MEMBER_FILES, SCALER, Bundle
from models.dataset import Dataset
from models.learner import log_softmax
from models.members import Members

WARM_NS = 300_000_000_000
"""Rows before block ``calibrate`` that are run to fill the LSTM's state and the Transformer's window."""

Logp = dict[str, dict[str, NDArray[np.float32]]]
"""Ticker to member to log-probabilities float32 [n, 3], NaN where there is no score."""


def model_files() -> dict[str, Path]:
    """Bundle name to file, for the members and their scaler."""
    return {name: EXPORTED / name for name in (*sorted(MEMBER_FILES.values()), SCALER)}


def draft(manifest: dict[str, object] | None = None) -> Bundle:
    """An unsigned bundle over the exported and calibrated files, for stages that run before the bundle
    exists."""
    return Bundle.draft(model_files() | {ENSEMBLE: CALIBRATION / ENSEMBLE}, manifest or {})


def run_members(dataset: Dataset) -> Logp:
    """The exported members over everything from a little before block ``calibrate`` to the end of
    ``score``."""
    from_ns, to_ns = dataset.blocks.span("calibrate")[0] - WARM_NS, dataset.blocks.span("score")[1]
    out: Logp = {}
    for ticker, series in dataset.series.items():
        first, last = (int(i) for i in np.searchsorted(series.recv_ns, (from_ns, to_ns)))
        rows = slice(first, last)
        part = Members(EXPORTED).run(series.X[rows], series.usable[rows], series.reset[rows])
        out[ticker] = {}
        for name, logp in part.items():
            full = np.full((len(series), 3), np.nan, np.float32)
            full[rows] = logp
            out[ticker][name] = full
    return out


def load_logp() -> Logp:
    """What stage ``calibrate`` stored."""
    out: Logp = {}
    with np.load(LOGP, allow_pickle=False) as stored:
        for key in stored.files:
            ticker, member = key.rsplit("/", 1)
            out.setdefault(ticker, {})[member] = stored[key]
    return out


def blended(logp: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The calibrated ensemble's log-probabilities float32 [n, 3] of one ticker."""
    settings = read_json(CALIBRATION / ENSEMBLE)
    total = sum(
        weight * logp[name].astype(np.float64) for name, weight in settings["members"].items() if weight > 0
    )
    mixed = np.asarray(total) / settings["temperature"]
    out = np.full(mixed.shape, np.nan, np.float32)
    known = np.isfinite(mixed).all(axis=1)
    out[known] = log_softmax(mixed[known])
    return out
