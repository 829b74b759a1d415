"""Intervals for series that remember: block bootstraps, whole days as blocks, effective sample sizes.

Rows of a market are not independent: labels overlap, volatility and inventories persist. An interval that
forgets this is too narrow by the square root of the memory. Blocks keep neighbours together; where there are
days enough, a block is a day.

Sources: Kunsch 1989 (moving blocks); Politis, Romano 1994 (stationary); Politis, White 2004 with the
correction of Patton, Politis, White 2009 (length of a block); Geyer 1992 (autocorrelation time).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from market.errors import ConfigError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Method = Literal["moving", "stationary", "days"]

DAYS_MIN: Final = 10
"""Fewer days than this make no distribution of days: the interval falls back to blocks within them, which
knows nothing of the difference between days, and says so in its ``method``."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile bootstrap interval. ``block``: mean length of a block in rows; ``blocks``: how many of
    them the series holds. Bounds are NaN for an empty series."""

    value: float
    low: float
    high: float
    method: Method
    block: float
    blocks: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def mean_of(values: F64) -> float:
    """The default statistic."""
    return float(values.mean())


def resampled_rows(
    n: int, *, block: float, method: Literal["moving", "stationary"], resamples: int, seed: int = 0
) -> Iterator[I64]:
    """Row numbers of each resample, int64 [n].

    ``moving``: blocks of ``block`` rows, each start as likely. ``stationary``: lengths are geometric with
    mean ``block`` and the series is a ring, so that the resample is stationary.
    """
    if n < 1 or block < 1 or resamples < 1:
        raise ConfigError(f"bootstrap of {n} rows, blocks of {block:g}, {resamples} resamples: 1 at least")
    rng = np.random.default_rng(seed)
    at = np.arange(n)
    length = min(round(block), n)
    for _ in range(resamples):
        if method == "moving":
            starts = rng.integers(0, n - length + 1, -(-n // length))
            yield (starts[:, None] + np.arange(length)).reshape(-1)[:n]
        else:
            new = rng.random(n) < 1.0 / block
            new[0] = True
            begun = np.maximum.accumulate(np.where(new, at, 0))
            yield (rng.integers(0, n, n)[begun] + at - begun) % n


def interval(
    values: ArrayLike, *, block: float | None = None, method: Literal["moving", "stationary"] = "stationary",
    statistic: Callable[[F64], float] = mean_of, resamples: int = 1000, confidence: float = 0.95,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Interval of a statistic of a dependent series, float [n].

    ``block`` defaults to ``block_length``; choose it no shorter than the label's horizon.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, method, 0.0, 0, confidence)
    length = float(min(n, max(1.0, block_length(x, method) if block is None else block)))
    rows = resampled_rows(n, block=length, method=method, resamples=resamples, seed=seed)
    found = np.array([statistic(x[r]) for r in rows])
    low, high = _percentiles(found, confidence)
    return Interval(statistic(x), low, high, method, length, max(1, round(n / length)), confidence)


def day_interval(
    values: ArrayLike, day: ArrayLike, *, total: bool = False, traded_days: int | None = None,
    resamples: int = 2000, confidence: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """Interval of the mean per row (or, with ``total``, of the sum per day) with whole days as blocks.

    ``day``: int [n], any number that names each row's day. ``traded_days`` adds days without a row (no trade
    is a result too: it counts as 0 in ``total``).
    """
    x = np.asarray(values, np.float64)
    names, which = np.unique(np.asarray(day), return_inverse=True)
    days = max(len(names), traded_days or 0)
    if len(x) == 0:
        return Interval(math.nan, math.nan, math.nan, "days", 0.0, days, confidence)
    sums = np.bincount(which, x, minlength=days)
    rows = np.bincount(which, minlength=days).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(0, days, (resamples, days))
    if total:
        value, found = float(sums.mean()), sums[drawn].mean(axis=1)
    else:
        count = rows[drawn].sum(axis=1)
        value, found = float(x.mean()), sums[drawn].sum(axis=1)[count > 0] / count[count > 0]
    low, high = _percentiles(found, confidence)
    return Interval(value, low, high, "days", len(x) / days, days, confidence)


def net_interval(
    values: ArrayLike, day: ArrayLike, *, block: float | None = None, resamples: int = 2000,
    confidence: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """The interval to print beside a mean result per trade: by days where there are DAYS_MIN of them, else by
    stationary blocks, which the ``method`` of the answer shows."""
    if len(np.unique(np.asarray(day))) >= DAYS_MIN:
        return day_interval(values, day, resamples=resamples, confidence=confidence, seed=seed)
    return interval(values, block=block, resamples=resamples, confidence=confidence, seed=seed)


def _percentiles(found: F64, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


# --- memory


def autocovariance(values: ArrayLike) -> F64:
    """float64 [n], lags 0 to n - 1, divided by n at every lag."""
    x = np.asarray(values, np.float64)
    x = x - x.mean() if len(x) else x
    power = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2 if len(x) else x
    return np.fft.irfft(power)[: len(x)] / max(1, len(x)) if len(x) else x


def block_length(values: ArrayLike, method: Literal["moving", "stationary"] = "stationary") -> float:
    """Length of a block that makes the error of the bootstrap's variance least, 1 or more rows.

    For an AR(1) of coefficient r and stationary blocks it tends to ``(2r / (1 - r^2))^(2/3) n^(1/3)``.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    covariance = autocovariance(x)
    if n < 10 or covariance[0] <= 0:
        return 1.0
    quiet = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(n - 1, math.ceil(math.sqrt(n)) + quiet)
    loud = np.abs(covariance[1 : longest + 1] / covariance[0]) >= 2 * math.sqrt(math.log10(n) / n)
    last = _quiet_after(loud, quiet)
    reach = min(2 * max(1, last), longest)
    lag = np.arange(1, reach + 1)
    taper = np.minimum(1.0, 2.0 * (1.0 - lag / reach))
    spectrum = covariance[0] + 2 * float(taper @ covariance[1 : reach + 1])
    slope = 2 * float((taper * lag) @ covariance[1 : reach + 1])
    if spectrum <= 0:
        return 1.0
    factor = 2.0 if method == "stationary" else 4.0 / 3.0
    length = (2.0 * slope**2 / (factor * spectrum**2)) ** (1 / 3) * n ** (1 / 3)
    return float(min(max(1.0, length), math.ceil(min(3 * math.sqrt(n), n / 3))))


def _quiet_after(loud: NDArray[np.bool_], quiet: int) -> int:
    """The lag after which ``quiet`` lags in a row are insignificant (the last loud one if there is none)."""
    run = 0
    for k, significant in enumerate(loud):
        run = 0 if significant else run + 1
        if run == quiet:
            return k + 1 - quiet
    hits = np.flatnonzero(loud)
    return int(hits[-1]) + 1 if len(hits) else 0


def effective_sample_size(values: ArrayLike) -> float:
    """Independent values that would estimate the mean as well: n over the autocorrelation time, 1 to n.

    Correlations are summed in neighbouring pairs, never rising, until a pair is no longer positive (initial
    monotone sequence, Geyer 1992): rather too few than too many. For an AR(1) of coefficient r it tends to
    ``n (1 - r) / (1 + r)``. A constant series is one value.
    """
    covariance = autocovariance(values)
    n = len(covariance)
    if n < 2 or covariance[0] <= 0:
        return float(min(n, 1))
    rho = covariance / covariance[0]
    pairs = np.minimum.accumulate(rho[: n - n % 2].reshape(-1, 2).sum(axis=1))
    ends = np.flatnonzero(pairs <= 0)
    time = 2 * float(pairs[: ends[0] if len(ends) else len(pairs)].sum()) - 1
    return float(min(n, max(1.0, n / max(time, 1e-12))))


def effective_count(span_ns: int, *, horizon_ns: int, decorrelation_ns: int = 0) -> float:
    """``T / max(h, 2 tau)``: independent looks that a stretch of time holds (``docs/statistics.md``)."""
    return span_ns / max(1, horizon_ns, 2 * decorrelation_ns)
