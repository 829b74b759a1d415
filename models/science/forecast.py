"""The ensemble on the rows of a study: what it learns from, for one horizon."""

from __future__ import annotations

from market.types import NANO
from models.science.datasets import Study
from models.science.factorised import COMPANIONS_S, Lesson, Model, Options, fit
from models.science.protocol import FLAT, VOID, make_labels, within


def forecaster(study: Study, horizon_s: int, options: Options, *, seed: int = 1) -> Model:
    """Chosen on inner folds of the training span, then fitted on all of it."""
    recv_ns, spans = study.frames.recv_ns, study.spans
    horizon_ns = horizon_s * NANO
    y = make_labels(study.frames, horizon_ns)
    inner = [
        (lesson(study, horizon_s, start, middle), within(recv_ns, y, horizon_ns, middle, end))
        for start, middle, end in spans.walk_forward(recv_ns, folds=options.folds)
    ]
    return fit(study.columns, inner, lesson(study, horizon_s, *spans.train), options, seed=seed)


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
