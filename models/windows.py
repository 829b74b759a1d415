"""Windows of the last T usable rows: where they end and what they are labelled, without copying a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.learner import F32, I64, Mask, Series, usable_rows


def ends_of(s: Series, wanted: Mask, window: int) -> tuple[F32, I64, I64]:
    """Usable rows packed [m, F], positions there that end a whole window on a wanted row, and their row
    numbers. A window never reaches over a reset."""
    rows, fresh = usable_rows(s)
    position = np.arange(len(rows))
    since = position - np.maximum.accumulate(np.where(fresh, position, 0))
    ends = np.flatnonzero((since >= window - 1) & wanted[rows])
    return np.ascontiguousarray(s.X[rows]), ends, rows[ends]


def pooled(series: Sequence[Series], wanted: Sequence[Mask], window: int) -> tuple[F32, I64, I64]:
    """Packed rows of all instruments, where windows on wanted rows end, and the labels of every horizon there
    (int64 [m, H], the asked one first, -1 = void)."""
    xs, ends, ys, offset = [], [], [], 0
    for s, mask in zip(series, wanted, strict=True):
        X, at, rows = ends_of(s, mask, window)
        xs.append(X)
        ends.append(at + offset)
        ys.append(s.targets[rows])
        offset += len(X)
    return np.concatenate(xs), np.concatenate(ends), np.concatenate(ys)
