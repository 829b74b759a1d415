"""The ensemble on the rows of a study: what it learns from, for one horizon."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market.types import NANO
from models.science.datasets import Study
from models.science.factorised import COMPANIONS_S, Lesson, Model, Options, fit
from models.science.protocol import FLAT, VOID, make_labels, within

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
RECENT_NS = 60 * NANO
PRIOR_ROWS = 10
"""Of either kind, before a minute has been seen: even odds."""


def forecaster(study: Study, horizon_s: int, options: Options, *, seed: int = 1) -> Model:
    """Chosen on inner folds of the training span, then fitted on all of it."""
    recv_ns, spans = study.frames.recv_ns, study.spans
    horizon_ns = horizon_s * NANO
    y = make_labels(study.frames, horizon_ns)
    inner = [
        (lesson(study, horizon_s, start, middle), within(recv_ns, y, horizon_ns, middle, end))
        for start, middle, end in spans.walk_forward(recv_ns, folds=options.folds)
    ]
    return fit(
        study.columns, inner, lesson(study, horizon_s, *spans.train), options,
        stillness=stillness(recv_ns, y, horizon_ns), seed=seed,
    )  # fmt: skip


def stillness(recv_ns: I64, y: U8, horizon_ns: int) -> F64:
    """Log-odds of FLAT among the labels that were known a minute back, float64 [n]: only windows that had
    ended by the row count, for a later one is not known yet."""
    known, flat = y != VOID, y == FLAT
    upto = np.searchsorted(recv_ns, recv_ns - horizon_ns, side="right")
    since = np.searchsorted(recv_ns, recv_ns - horizon_ns - RECENT_NS, side="left")
    counts = [np.concatenate([[0], np.cumsum(mask)]) for mask in (known & flat, known & ~flat)]
    still, moved = (c[upto] - c[np.minimum(since, upto)] for c in counts)
    return np.log((still + PRIOR_ROWS) / (moved + PRIOR_ROWS))


def lesson(study: Study, horizon_s: int, from_ns: int, to_ns: int) -> Lesson:
    """Labelled rows of [from, to), whose windows end inside it, for the horizon and its companions."""
    recv_ns = study.frames.recv_ns
    moves = []
    for each_s in COMPANIONS_S.get(horizon_s, (horizon_s,)):
        y = make_labels(study.frames, each_s * NANO)
        moved = (y != VOID) & (y != FLAT)
        moves.append((within(recv_ns, y, each_s * NANO, from_ns, to_ns) & moved, y))
    y = make_labels(study.frames, horizon_s * NANO)
    return Lesson(y, within(recv_ns, y, horizon_s * NANO, from_ns, to_ns), moves)
