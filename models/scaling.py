"""Robust scaling of feature rows for the learners that need it (all but the trees). Lean: NumPy and Numba."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from market.errors import ScalperError

F32 = NDArray[np.float32]

CLIP: Final = 5.0
MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation over median absolute deviation of a normal variable."""
MAX_FIT_ROWS: Final = 1_000_000
"""Medians of more rows than this are taken from evenly spaced ones."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """``clip((x - center) / scale)``; ``center``, ``scale`` float32 [F]. Infinite scale mutes a column."""

    center: F32
    scale: F32
    clip: float = CLIP

    @classmethod
    def fit(cls, X: F32, *, clip: float = CLIP, mute: Collection[int] = ()) -> Self:
        """Median and MAD of the finite values of each column of ``X`` [n, F].

        A column whose MAD is 0 (mostly one value) falls back to its standard deviation. One without any
        spread, without values, or named in ``mute``, gets an infinite scale: it becomes 0 everywhere.
        """
        if len(X) == 0:
            raise ScalperError("no rows to fit the scaler on: block 'fit' has no usable row, record more")
        step = -(-len(X) // MAX_FIT_ROWS)
        center = np.zeros(X.shape[1], np.float32)
        scale = np.full(X.shape[1], np.inf, np.float32)
        for k in range(X.shape[1]):
            x = X[::step, k].astype(np.float64)
            x = x[np.isfinite(x)]
            if k in mute or len(x) == 0:
                continue
            center[k] = np.median(x)
            spread = MAD_TO_SIGMA * np.median(np.abs(x - np.median(x)))
            if not spread > 0:
                spread = x.std()
            if np.float32(spread) > 0:
                scale[k] = spread
        return cls(center, scale, clip)

    def symmetric(self, sign: F32, partner: NDArray[np.int64]) -> Self:
        """The same scaler for a row and its mirror image ``sign * row[partner]``: a column that changes its
        sign has its centre at zero, two that change places share the means of theirs."""
        center = np.where(sign < 0, np.float32(0), (self.center + self.center[partner]) / 2)
        scale = (self.scale + self.scale[partner]) / 2
        return type(self)(center.astype(np.float32), scale.astype(np.float32), self.clip)

    def apply(self, X: F32) -> F32:
        """Scaled and clipped float32 of the shape of ``X``, [F] or [n, F]; NaN (masked) becomes 0."""
        with np.errstate(invalid="ignore"):  # an infinite value in a muted column
            scaled = (X - self.center) / self.scale
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=self.clip, neginf=-self.clip)
        return np.clip(scaled, -self.clip, self.clip, out=scaled).astype(np.float32, copy=False)

    def apply_row(self, x: F32, out: F32) -> None:
        """``apply`` to one row, to the bit and without its calls: a contiguous row [F] into ``out`` [F]."""
        scale_row(x, self.center, self.scale, self.clip, out)

    def save(self, path: Path) -> None:
        """Write ``path`` (.npz), byte-deterministic, through a temporary name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as stream:
            np.savez(stream, center=self.center, scale=self.scale, clip=np.float64(self.clip))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote. ScalperError when it is missing or is not a scaler."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                center, scale, clip = stored["center"], stored["scale"], float(stored["clip"])
        except (OSError, KeyError, ValueError) as error:
            raise ScalperError(f"no scaler can be read from {path} ({error}): fit it again") from error
        if center.shape != scale.shape or center.ndim != 1:
            raise ScalperError(f"scaler {path} has shapes {center.shape} and {scale.shape}: it is damaged")
        return cls(center.astype(np.float32), scale.astype(np.float32), clip)


@njit(
    "void(float32[::1], float32[::1], float32[::1], float64, float32[::1])", cache=True, error_model="numpy"
)
def scale_row(x: F32, center: F32, scale: F32, clip: float, out: F32) -> None:
    top = np.float32(clip)
    for k in range(len(out)):
        v = (x[k] - center[k]) / scale[k]
        if math.isnan(v):
            v = np.float32(0.0)
        out[k] = min(max(v, -top), top)
