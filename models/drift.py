"""Drift of features and scores against the training reference: PSI and W1/sd, and how surprising they are.
LEAN.

Order-book rows are autocorrelated: half an hour of rows four times a second may hold no more than five
independent values of a slow feature, so a limit that counts rows alarms on a market that has not changed
(``docs/drift.md``). Here a sample is thinned to one row per ``THIN_NS``, the size of a window is its
*effective* size, and what a distance is worth is read off the training data itself: under no drift
``PSI ~ (1/n + 1/m) chi2(B - 1)`` and ``E W1 = sqrt(2/pi) sqrt(1/n + 1/m) integral sqrt(F (1 - F))`` with n
and m effective (Potgieter et al. 2023; Bickel, Freedman 1981), times how much farther blocks of training days
really lay from the other days. A window is compared with the same hour of the day where the training days
know it.

A distance that is surprising is a fact about one column. What makes an alarm is ``models.drift_rule``;
nothing here retrains.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from market.errors import BundleError

FORMAT: Final = "scalper-drift/2"
FILE: Final = "drift.npz"
"""What the reference is called in a bundle."""
BINS: Final = 10
SMOOTHING: Final = 0.5
GRID: Final = 64
"""Quantiles that stand for a column's distribution."""
THIN_NS: Final = 5_000_000_000
"""Between two rows of a sample: half of the usual label horizon, far over the features' fastest window."""
WINDOW_ROWS: Final = 360
"""Half an hour of rows: a market that changed is seen whole after that, with time left to be sure of it."""
LEAST_ROWS: Final = 120
EVERY_ROWS: Final = 60
"""Between two looks: five minutes."""
HOUR_NS: Final = 3_600_000_000_000
PSI_FLOOR: Final = 0.2
W1_FLOOR: Final = 0.2
"""Less than this is no change that a person would act on, however sure it is."""
W1_SHAPE: Final = 4.0
"""W1 under no drift is near a gamma variable of this shape (a test measures it)."""
SIGNIFICANCE: Final = 0.001
"""Of the limits that are shown beside a distance; the rule uses the p-values."""
WHOLE_DAY: Final = -1
SCORE: Final = "score"
"""The extra column p_up - p_down of the ensemble."""
ENTROPY: Final = "entropy"
TRADE: Final = "trade"
"""1 where the model would trade (its expected move is over the entry threshold), else 0."""
SCORES: Final = (SCORE, ENTROPY, TRADE)

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TickerReference:
    """What is remembered of one instrument's C columns, by phase of the day (P, the first is the whole day).

    ``edges`` [C, BINS - 1], padded with infinity where a column has fewer distinct quantiles; ``shares``
    [P, C, BINS]; ``quantiles`` [P, C, GRID]; ``rows`` [P, C] finite rows; ``sd`` [C]; ``roughness`` [C] is
    the integral of sqrt(F (1 - F)) over sd; ``independence`` [C] effective rows a row, within days;
    ``missing`` [C]; ``weight`` [C] importance to the models, summing to 1 over the features;
    ``inflation`` and ``shape`` [C, 2] (PSI, W1): mean of the blocks' distances over what effective size alone
    explains, and the gamma shape of that ratio. ``blocks``, ``days``: how many the inflation was seen on.
    ``strictness`` multiplies what distances are expected to be, so that training days raise no alarm.
    """

    names: tuple[str, ...]
    phases: tuple[int, ...]
    edges: F64
    shares: F64
    quantiles: F64
    rows: F64
    sd: F64
    roughness: F64
    independence: F64
    missing: F64
    weight: F64
    inflation: F64
    shape: F64
    blocks: int
    days: int
    strictness: float

    def phase(self, now_ns: int) -> int:
        """Index of the phase that holds this time of the day; 0, the whole day, where days were too few."""
        hour = hour_of_day(now_ns)
        return self.phases.index(hour) if hour in self.phases else 0


Reference = dict[str, TickerReference]


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column of one window. ``p``: how often a window as far away as this comes without any drift; 1 for
    distances under the floors. ``psi_chance``: the PSI that windows of this size have without drift."""

    name: str
    psi: float
    psi_chance: float
    psi_limit: float
    w1: float
    w1_limit: float
    p: float
    rows: int
    n_eff: float
    missing: float
    weight: float

    @property
    def over(self) -> bool:
        """Over one of its limits, taken alone. Of many columns some are: see ``models.drift_rule``."""
        return self.psi > self.psi_limit or self.w1 > self.w1_limit

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"over": self.over}


def hour_of_day(ns: int) -> int:
    """0 to 23, UTC: exchanges here keep one offset all year."""
    return int(ns // HOUR_NS % 24)


def thin(recv_ns: I64, every_ns: int = THIN_NS) -> I64:
    """Row numbers of the first row of each ``every_ns`` bucket."""
    bucket = recv_ns // every_ns
    return np.flatnonzero(np.diff(bucket, prepend=bucket[:1] - 1) != 0)


# ---- distances


def ordered(x: NDArray[Any]) -> tuple[F64, I64]:
    """(the columns of ``x`` [n, C] in ascending order [C, n] with NaN last, their finite values [C])."""
    table = np.ascontiguousarray(np.asarray(x, np.float64).T)
    table[~np.isfinite(table)] = np.nan
    table.sort(axis=1)
    return table, np.asarray(np.isfinite(table).sum(axis=1))


def bin_counts(rising: F64, finite: I64, edges: F64) -> F64:
    """Values of each ordered column in each of its bins, [C, BINS]; a value on an edge belongs above it."""
    under = [row[:n].searchsorted(at) for row, n, at in zip(rising, finite.tolist(), edges, strict=True)]
    steps = np.column_stack([np.zeros(len(finite)), np.array(under), finite])
    return np.diff(steps, axis=1)


def smooth_shares(counts: F64, edges: F64) -> F64:
    """Shares [..., C, BINS] with half a row added to each bin that the column has; 0 in bins it has not."""
    known = np.arange(BINS) <= np.isfinite(edges).sum(axis=1)[:, None]
    added = np.where(known, counts + SMOOTHING, 0.0)
    return np.asarray(added / added.sum(axis=-1, keepdims=True))


def psi(expected: F64, actual: F64) -> F64:
    """Population stability index over the last axis: sum (a - e) ln(a / e); bins of no share say nothing."""
    known = (expected > 0) & (actual > 0)
    ratio = np.where(known, actual, 1.0) / np.where(known, expected, 1.0)
    return np.asarray((np.where(known, actual - expected, 0.0) * np.log(ratio)).sum(axis=-1))


def grid_quantiles(rising: F64, finite: I64) -> F64:
    """Quantiles of each ordered column at (j + 1/2) / GRID, [C, GRID]."""
    last = np.maximum(finite - 1, 0)[:, None]
    place = np.clip((np.arange(GRID) + 0.5) / GRID * finite[:, None] - 0.5, 0, last)
    low = place.astype(np.int64)
    a = np.take_along_axis(rising, low, 1)
    b = np.take_along_axis(rising, np.minimum(low + 1, last), 1)
    return np.asarray(a + (b - a) * (place - low))


def w1(a: F64, b: F64) -> F64:
    """Wasserstein-1 distance of two quantile functions on the same grid (last axis)."""
    return np.asarray(np.abs(a - b).mean(axis=-1))


# ---- what a distance is worth


def expected_distances(reference: TickerReference, rows: F64, phase: int = 0) -> F64:
    """Mean of (PSI, W1/sd) of a window of ``rows`` [C] rows under no drift, float64 [C, 2]."""
    window = np.maximum(rows * reference.independence, 1.0)
    known = np.maximum(reference.rows[phase] * reference.independence, 1.0)
    spread = 1.0 / window + 1.0 / known
    freedom = np.isfinite(reference.edges).sum(axis=1)
    alone = np.stack(
        [freedom * spread, math.sqrt(2 / math.pi) * np.sqrt(spread) * reference.roughness], axis=1
    )
    return np.asarray(alone * reference.inflation * reference.strictness)


def survival(ratio: F64, shape: F64) -> F64:
    """P(G > ratio) of gamma variables of mean 1, by the cube root of Wilson and Hilferty (1931)."""
    z = (np.cbrt(ratio) - (1 - 1 / (9 * shape))) * 3 * np.sqrt(shape)
    flat = [0.5 * math.erfc(v / math.sqrt(2)) for v in z.ravel().tolist()]
    return np.array(flat).reshape(z.shape)


def upper_quantile(shape: F64) -> F64:
    """The ratio that ``survival`` gives SIGNIFICANCE."""
    z = 3.0902
    return np.asarray((1 - 1 / (9 * shape) + z / (3 * np.sqrt(shape))) ** 3)


def compare(
    reference: TickerReference, x: NDArray[Any], now_ns: int | None = None, *,
    psi_floor: float = PSI_FLOOR, w1_floor: float = W1_FLOOR,
) -> list[ColumnDrift]:  # fmt: skip
    """The columns of a window ``x`` [n, C] (one row per THIN_NS, in the order of ``reference.names``) against
    the reference; with ``now_ns`` against the same hour of the day.

    Columns with fewer than LEAST_ROWS finite values, or with no reference, are left out.
    """
    phase = 0 if now_ns is None else reference.phase(now_ns)
    rising, finite = ordered(x)
    rows = finite.astype(np.float64)
    # A phase may not know a column that the whole day knows.
    known = reference.rows[phase] >= LEAST_ROWS
    shares = smooth_shares(bin_counts(rising, finite, reference.edges), reference.edges)
    far = w1(reference.quantiles[phase], grid_quantiles(rising, finite)) / reference.sd
    distances = np.stack([psi(reference.shares[phase], shares), far], axis=1)
    expected = expected_distances(reference, rows, phase)
    floors = np.array([psi_floor, w1_floor])
    with np.errstate(invalid="ignore"):
        p = np.where(distances > floors, survival(distances / expected, reference.shape), 1.0)
    p = np.minimum(1.0, 2.0 * p.min(axis=1))  # two looks at one column
    limits = np.maximum(floors, expected * upper_quantile(reference.shape))
    use = np.flatnonzero((rows >= LEAST_ROWS) & known)
    return [
        ColumnDrift(
            reference.names[j], float(distances[j, 0]), float(expected[j, 0]), float(limits[j, 0]),
            float(distances[j, 1]), float(limits[j, 1]), float(p[j]), int(rows[j]),
            float(max(rows[j] * reference.independence[j], 1.0)), float(1 - rows[j] / len(x)),
            float(reference.weight[j]),
        )
        for j in use
    ]  # fmt: skip


# ---- on disk

_ARRAYS: Final = (
    "edges", "shares", "quantiles", "rows", "sd", "roughness", "independence", "missing", "weight",
    "inflation", "shape",
)  # fmt: skip


def save(reference: Mapping[str, TickerReference], path: Path) -> None:
    """One ``.npz``, the same bytes for the same reference."""
    facts: dict[str, Any] = {"format": FORMAT, "tickers": {}}
    arrays: dict[str, NDArray[Any]] = {}
    for ticker, known in sorted(reference.items()):
        facts["tickers"][ticker] = {
            "names": list(known.names), "phases": list(known.phases), "blocks": known.blocks,
            "days": known.days, "strictness": known.strictness,
        }  # fmt: skip
        for name in _ARRAYS:
            arrays[f"{ticker}/{name}"] = getattr(known, name).astype(np.float32)
    text = json.dumps(facts, sort_keys=True).encode()
    np.savez(path, facts=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]


def load(source: Path | bytes) -> Reference:
    """What ``save`` wrote; BundleError for anything else."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["format"] != FORMAT:
                raise ValueError(f"it has format {facts['format']!r}, this version reads {FORMAT!r}")
            return {
                ticker: TickerReference(
                    names=tuple(known["names"]), phases=tuple(known["phases"]), blocks=int(known["blocks"]),
                    days=int(known["days"]), strictness=float(known["strictness"]),
                    **{name: arrays[f"{ticker}/{name}"].astype(np.float64) for name in _ARRAYS},
                )
                for ticker, known in facts["tickers"].items()
            }  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"the drift reference cannot be read ({error}): build the bundle again with `dvc repro`"
        ) from None
