"""The ensemble's answers as columns that drift is watched on: score, entropy, would it trade. LEAN."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]


def columns(p: ArrayLike, expected_move_millibps: ArrayLike, threshold_millibps: int | None) -> F64:
    """Float64 [..., 3] in the order of ``models.drift.SCORES``.

    ``p`` [..., 3] (down, flat, up), NaN where the ensemble said nothing; ``expected_move_millibps`` [...] as
    the core is told; ``threshold_millibps`` None where the instrument is not traded.
    """
    chances = np.asarray(p, np.float64)
    entropy = -(chances * np.log(np.maximum(chances, 1e-300))).sum(axis=-1)
    moves = np.abs(np.asarray(expected_move_millibps, np.float64))
    over = np.zeros(moves.shape, bool) if threshold_millibps is None else moves >= threshold_millibps
    trades = np.where(np.isfinite(entropy), over.astype(np.float64), np.nan)
    return np.stack([chances[..., 2] - chances[..., 0], entropy, trades], axis=-1)
