"""The small numbers that every part of an inspection is made of: quantiles, histograms, rates of change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """``count`` values, in the unit of the field that holds this; weighted where that field says so.

    A quantile is a value that occurred: the smallest one that at least the named share is not above.
    """

    count: int
    mean: float
    low: float
    p1: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    p99: float
    high: float

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> Self | None:
        """None without values. Weights that are all zero count as equal ones."""
        if not len(values):
            return None
        order = np.argsort(values, kind="stable")
        ordered = np.asarray(values, np.float64)[order]
        w = (
            np.ones(len(values))
            if weights is None or not weights.any()
            else weights[order].astype(np.float64)
        )
        reached = np.cumsum(w)
        at = np.searchsorted(reached, np.array((0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)) * reached[-1])
        p1, p5, p25, p50, p75, p95, p99 = ordered[np.minimum(at, len(ordered) - 1)].tolist()
        mean = float(ordered @ w / reached[-1])
        return cls(len(values), mean, float(ordered[0]), p1, p5, p25, p50, p75, p95, p99, float(ordered[-1]))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of the whole: bin ``i`` holds ``start + i * width <= x < start + (i + 1) * width``.

    ``beyond`` is the share above the last bin; below the first there is nothing.
    """

    start: float
    width: float
    shares: tuple[float, ...]
    beyond: float

    @classmethod
    def of(cls, values: Array, weights: Array, *, start: float, width: float, bins: int) -> Self:
        w = weights if weights.any() else np.ones(len(values))
        index = np.floor((values - start) / width).astype(np.int64)
        inside = (index >= 0) & (index < bins)
        held = np.bincount(index[inside], weights=w[inside], minlength=bins) / w.sum()
        return cls(start, width, tuple(held.tolist()), float(w[index >= bins].sum() / w.sum()))


def slope(x: Array, y: Array) -> tuple[float, float]:
    """Theil's slope (the median over all pairs), and the median distance of the points from that line.

    Theil (1950); a few wild points do not bend it. At least two different x are needed.
    """
    i, j = np.triu_indices(len(x), 1)
    apart = x[i] != x[j]
    i, j = i[apart], j[apart]
    steep = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
    rest = y - steep * x
    return steep, float(np.median(np.abs(rest - np.median(rest))))
