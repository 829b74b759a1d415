"""Drift of features and scores against the training reference: PSI and W1/sd with limits that know the
sample.

Order-book rows are autocorrelated: an hour of rows four times a second may hold no more than ten independent
values of a slow feature. Every limit below therefore uses the *effective* sample size, and every comparison
uses a thinned sample. Formulas: docs of PSI with ten reference-quantile bins and +0.5 smoothing; under no
drift ``PSI ~ (1/n + 1/m) * chi2(B - 1)`` with n and m the effective sizes (Potgieter et al. 2023).

A distance over its limit is a fact for a person or a rule that looks at several windows; nothing here
retrains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

BINS = 10
SMOOTHING = 0.5
MAX_ROWS = 20_000
"""Rows of a reference sample and of a compared window, at most."""
THIN_NS = 5_000_000_000
"""Between two rows of a sample: half of the usual label horizon, far over the features' fastest window."""
PSI_FLOOR = 0.2
W1_FLOOR = 0.2
SIGNIFICANCE = 0.999
W1_NULL_SCALE = 3.5
"""W1/sd between two samples of one distribution stays under this times sqrt(1/n + 1/m) (checked by a
test)."""
SCORE = "score"
"""The extra column: p_up - p_down of the ensemble."""

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """What is remembered of one column: bin edges [BINS - 1], shares [BINS], a sorted sample, its effective
    size."""

    name: str
    edges: F64
    shares: F64
    sample: F64
    sd: float
    n_eff: float
    missing: float


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column's distance from its reference. ``drifted`` when either distance passes its limit."""

    name: str
    psi: float
    psi_limit: float
    w1: float
    w1_limit: float
    rows: int
    n_eff: float
    missing: float

    @property
    def drifted(self) -> bool:
        return self.psi > self.psi_limit or self.w1 > self.w1_limit

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drifted": self.drifted}


def effective_size(x: F64) -> float:
    """n / (1 + 2 * sum of autocorrelations) up to the first one below 0.05; between 1 and n."""
    n = len(x)
    if n < 3:
        return float(max(n, 1))
    centred = x - x.mean()
    variance = float(centred @ centred) / n
    if variance <= 0:
        return float(n)
    spectrum = np.fft.rfft(centred, 2 * n)
    acf = np.fft.irfft(np.abs(spectrum) ** 2)[: n // 2] / (n * variance)
    below = np.flatnonzero(acf < 0.05)
    last = int(below[0]) if len(below) else len(acf)
    return float(np.clip(n / (1.0 + 2.0 * acf[1:last].sum()), 1.0, n))


def thin(recv_ns: NDArray[np.int64], every_ns: int = THIN_NS, max_rows: int = MAX_ROWS) -> NDArray[np.int64]:
    """Row numbers of the first row of each ``every_ns`` bucket; evenly spread over at most ``max_rows``."""
    bucket = recv_ns // every_ns
    first = np.flatnonzero(np.diff(bucket, prepend=bucket[:1] - 1) != 0)
    if len(first) > max_rows:
        first = first[np.linspace(0, len(first) - 1, max_rows).astype(np.int64)]
    return first


def psi(expected: F64, actual: F64) -> float:
    """Population stability index of two share vectors [B]: sum (a - e) * ln(a / e)."""
    return float(((actual - expected) * np.log(actual / expected)).sum())


def w1(a_sorted: F64, b_sorted: F64) -> float:
    """Wasserstein-1 distance of two sorted samples: the area between their quantile functions."""
    grid = (np.arange(512) + 0.5) / 512
    return float(np.abs(np.quantile(a_sorted, grid) - np.quantile(b_sorted, grid)).mean())


def _shares(x: F64, edges: F64) -> F64:
    counts = np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1).astype(np.float64)
    counts += SMOOTHING
    return counts / counts.sum()


def _column(name: str, values: F64) -> Column | None:
    good = values[np.isfinite(values)]
    if len(good) < BINS * 2:
        return None
    # A discrete feature (a spread in ticks) has equal quantiles: fewer, distinct bins are the honest answer.
    edges = np.unique(np.quantile(good, np.arange(1, BINS) / BINS))
    return Column(
        name, edges, _shares(good, edges), np.sort(good), float(good.std()), effective_size(good),
        1.0 - len(good) / len(values),
    )  # fmt: skip


Reference = dict[str, dict[str, Column]]
"""Ticker to column name to what is remembered of it."""


def reference_of(
    names: Sequence[str],
    rows: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]],
) -> Reference:
    """A reference from training rows: per ticker (recv_ns [n], X [n, F], score [n], NaN where none)."""
    out: Reference = {}
    for ticker, (recv_ns, x, score) in rows.items():
        kept = thin(recv_ns)
        table = {name: x[kept, j] for j, name in enumerate(names)} | {SCORE: score[kept]}
        columns = {name: _column(name, values.astype(np.float64)) for name, values in table.items()}
        out[ticker] = {name: column for name, column in columns.items() if column is not None}
    return out


def compare(
    reference: Reference,
    ticker: str,
    recv_ns: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float32]],
) -> list[ColumnDrift]:
    """Distances of a window of rows from the reference of ``ticker``, in the order of ``columns``.

    ``columns``: name to values [n] (features by name, ``SCORE`` for the score). Columns without a reference
    or with too few finite values are left out.
    """
    kept = thin(recv_ns)
    out = []
    for name, values in columns.items():
        known = reference[ticker].get(name)
        window = values[kept].astype(np.float64)
        good = window[np.isfinite(window)]
        if known is None or len(good) < BINS:
            continue
        n_eff = effective_size(good)
        spread = 1.0 / n_eff + 1.0 / known.n_eff
        freedom = max(len(known.shares) - 1, 1)
        scale = known.sd if known.sd > 0 else 1.0
        out.append(
            ColumnDrift(
                name=name,
                psi=psi(known.shares, _shares(good, known.edges)),
                psi_limit=max(PSI_FLOOR, spread * float(chi2.ppf(SIGNIFICANCE, freedom))),
                w1=w1(known.sample, np.sort(good)) / scale,
                w1_limit=max(W1_FLOOR, W1_NULL_SCALE * spread**0.5),
                rows=len(good),
                n_eff=n_eff,
                missing=1.0 - len(good) / len(window),
            )
        )
    return out


def save(reference: Reference, folder: Path) -> None:
    """``reference.npz`` (arrays) and ``reference.json`` (what a person wants to see); the same bytes for the
    same data."""
    arrays: dict[str, NDArray[Any]] = {}
    readable: dict[str, dict[str, Any]] = {}
    for ticker, columns in sorted(reference.items()):
        for name, c in columns.items():
            key = f"{ticker}/{name}"
            arrays[f"{key}/edges"], arrays[f"{key}/shares"] = c.edges, c.shares
            arrays[f"{key}/sample"] = c.sample.astype(np.float32)
            arrays[f"{key}/stats"] = np.array([c.sd, c.n_eff, c.missing])
            low, middle, high = (float(q) for q in np.quantile(c.sample, (0.01, 0.5, 0.99)))
            readable.setdefault(ticker, {})[name] = {
                "p01": low, "median": middle, "p99": high, "sd": c.sd,
                "rows": len(c.sample), "effective_rows": round(c.n_eff, 1), "missing": round(c.missing, 6),
            }  # fmt: skip
    np.savez(folder / "reference.npz", **arrays)  # type: ignore[arg-type]
    draft = folder / ".reference.json.draft"
    draft.write_text(json.dumps(readable, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(folder / "reference.json")


def load(folder: Path) -> Reference:
    """What :func:`save` wrote."""
    out: Reference = {}
    with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            if not key.endswith("/edges"):
                continue
            ticker, name, _ = key.split("/")
            sd, n_eff, missing = (float(v) for v in arrays[f"{ticker}/{name}/stats"])
            out.setdefault(ticker, {})[name] = Column(
                name, arrays[key], arrays[f"{ticker}/{name}/shares"],
                arrays[f"{ticker}/{name}/sample"].astype(np.float64), sd, n_eff, missing,
            )  # fmt: skip
    return out
