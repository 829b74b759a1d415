"""What the four learners share: which rows teach, which rows judge, and how results reach the disk.

A learner fits on block ``fit`` only. The last part of that block is kept for early stopping (and Platt
scaling), and the rows whose label reaches into it are purged. Reports carry no wall time: the same inputs
give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features import schema
from market.errors import ScalperError
from models import evaluate
from models.labels import DOWN, UP, VOID
from models.scaling import Scaler
from models.splits import BLOCK_NAMES

if TYPE_CHECKING:
    from models.dataset import Dataset

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
Progress = Callable[[str], None]

JUDGED = ("calibrate",)
"""Blocks for which every learner leaves log-probabilities: stacking and the parity check read them. Later
blocks belong to the exported files, which are what trades."""


class TrainingError(ScalperError):
    """The data set cannot teach a learner: rows or classes are missing."""


@dataclass(frozen=True, slots=True)
class Series:
    """One instrument as a learner sees it, ``n`` book rows in time order.

    ``X`` float32 [n, F] raw features (NaN = masked); ``y`` int64 [n], -1 = void; ``usable``, ``reset`` bool
    [n]; ``blocks``: bool [n] by name; ``recv_ns``, ``exit_ns`` int64 [n] (``exit_ns``: where the label's
    future ends); ``muted``: columns that nothing may be learnt from (clock features over too few days);
    ``y_multi``: int64 [n, H], labels of H horizons, -1 = void, column 0 is ``y`` (None: only ``y`` is known).
    """

    ticker: str
    X: F32
    y: I64
    usable: Mask
    reset: Mask
    blocks: Mapping[str, Mask]
    recv_ns: I64
    exit_ns: I64
    muted: tuple[int, ...] = ()
    y_multi: I64 | None = None

    def __len__(self) -> int:
        return len(self.X)

    @property
    def targets(self) -> I64:
        """Labels of every horizon, int64 [n, H], -1 = void; the horizon that is asked for first."""
        return self.y[:, None] if self.y_multi is None else self.y_multi

    @property
    def labelled(self) -> Mask:
        return self.usable & (self.y >= 0)

    @property
    def judged(self) -> Mask:
        """Usable rows of the blocks that learners must score."""
        return self.usable & np.logical_or.reduce([self.blocks[b] for b in JUDGED])


def series_of(dataset: Any, *, scaled: bool = False, scaler: Any = None) -> list[Series]:
    """The instruments of a data set as learners see them, by name; ``Series`` pass as they are.

    ``scaled``: X goes through ``scaler``, by default the one of the product, which also silences muted
    columns. Unscaled, a muted column is all NaN, so that no tree can split on it.
    """
    series = [_view(dataset, t) for t in dataset.tickers] if hasattr(dataset, "tickers") else list(dataset)
    if not series:
        raise TrainingError("the data set holds no instrument: run the features and labels stages")
    series.sort(key=lambda s: s.ticker)
    if scaled:
        if scaler is None:
            muted = series[0].muted
            fit = np.concatenate([s.X[s.usable & s.blocks["fit"]] for s in series])
            scaler = dataset.fit_scaler() if hasattr(dataset, "fit_scaler") else Scaler.fit(fit, mute=muted)
        return [replace(s, X=scaler.apply(s.X)) for s in series]
    return [replace(s, X=_silenced(s.X, s.muted)) if s.muted else s for s in series]


def _view(dataset: Dataset, ticker: str) -> Series:
    s = dataset.series[ticker]
    names = dataset.blocks.names
    blocks = {
        n: s.block == dataset.blocks.index(n) if n in names else np.zeros(len(s), bool) for n in BLOCK_NAMES
    }
    y = np.where(s.y == VOID, -1, s.y.astype(np.int64))
    y_multi = np.where(s.y_multi == VOID, -1, s.y_multi.astype(np.int64))
    return Series(ticker, s.X, y, s.usable, s.reset, blocks, s.recv_ns, s.exit_ns, dataset.muted, y_multi)


def _silenced(X: F32, columns: Sequence[int]) -> F32:
    X = X.copy()
    X[:, list(columns)] = np.nan
    return X


@dataclass(frozen=True, slots=True)
class FitRows:
    """Per instrument: rows that teach, rows that stop (both labelled), and the first nanosecond of the
    latter.
    """

    train: list[Mask]
    early: list[Mask]
    cut_ns: int


def fit_rows(series: Sequence[Series], early_share: float = 0.15) -> FitRows:
    """Cut block ``fit`` in time, one moment for all instruments, purging labels that reach over the cut."""
    times = np.concatenate([s.recv_ns[s.labelled & s.blocks["fit"]] for s in series])
    if len(times) < 50:
        raise TrainingError(
            f"block 'fit' holds {len(times)} labelled rows, at least 50 are needed: record more hours or "
            "check the labels stage"
        )
    cut_ns = int(np.quantile(times, 1.0 - early_share, method="lower"))
    train, early = [], []
    for s in series:
        rows = s.labelled & s.blocks["fit"]
        train.append(rows & (s.exit_ns < cut_ns))
        early.append(rows & (s.recv_ns >= cut_ns))
    return FitRows(train, early, cut_ns)


def usable_rows(s: Series) -> tuple[I64, Mask]:
    """Indices of the usable rows, and which of them start afresh (first of all, or a reset since the last
    one).
    """
    rows = np.flatnonzero(s.usable)
    segment = np.cumsum(s.reset)[rows]
    fresh = np.ones(len(rows), bool)
    fresh[1:] = segment[1:] != segment[:-1]
    return rows, fresh


def pool(series: Sequence[Series], masks: Sequence[Mask]) -> tuple[F32, I64]:
    """Rows chosen by ``masks`` of all instruments, ordered by time (ties by instrument): X [m, F], y [m]."""
    X = np.concatenate([s.X[m] for s, m in zip(series, masks, strict=True)])
    y = np.concatenate([s.y[m] for s, m in zip(series, masks, strict=True)])
    at = np.concatenate([s.recv_ns[m] for s, m in zip(series, masks, strict=True)])
    order = np.argsort(at, kind="stable")
    return X[order], y[order]


def with_mirror(X: F32, y: I64) -> tuple[F32, I64]:
    """The rows and, after them, their mirror images: buyers and sellers change places, up becomes down.

    A morning that happened to fall teaches nothing about the afternoon that way. Scaled rows may be mirrored
    as well, for the product's scaler has the symmetry (``Dataset.fit_scaler``). A table of other columns than
    the product's declares no mirror and stays as it is.
    """
    if X.shape[1] != schema.F:
        return X, y
    image = schema.MIRROR_SIGN * X[:, schema.MIRROR_PARTNER]
    return np.concatenate([X, image]), np.concatenate([y, UP + DOWN - y])


def thin(n: int, limit: int) -> slice:
    """A stride over ``n`` rows that keeps at most ``limit``."""
    return slice(None, None, max(1, -(-n // limit)))


def log_softmax(z: NDArray[Any]) -> F32:
    """Row-wise log-softmax, float32 [n, 3] with a floor."""
    z = np.asarray(z, np.float64)
    z = z - z.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return np.maximum(logp, evaluate.LOG_FLOOR).astype(np.float32)


@contextmanager
def fixed_threads(threads: int, *, torch: bool = False) -> Iterator[None]:
    """Compute with exactly ``threads`` threads: sums, and so weights, depend on that number to the last
    bit.
    """
    from threadpoolctl import threadpool_limits

    if not torch:
        with threadpool_limits(threads):
            yield
        return
    import torch as t

    before = t.get_num_threads(), t.are_deterministic_algorithms_enabled()
    t.set_num_threads(threads)
    t.use_deterministic_algorithms(True)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        t.set_num_threads(before[0])
        t.use_deterministic_algorithms(before[1])


def finish(
    name: str, out_dir: Path, series: Sequence[Series], rows: FitRows, logp: Mapping[str, F32], *,
    weights: Mapping[str, NDArray[Any]] | None, facts: Mapping[str, Any], progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Judge a fitted learner on block ``calibrate`` and write its three files; returns the report."""
    taught = np.concatenate([s.y[m] for s, m in zip(series, rows.train, strict=True)])
    prior = evaluate.shares(taught)
    parts = {
        s.ticker: (logp[s.ticker][m], s.y[m])
        for s in series
        if (m := s.labelled & s.blocks["calibrate"] & np.isfinite(logp[s.ticker]).all(axis=1)).any()
    }
    if not parts:
        raise TrainingError(
            "block 'calibrate' holds no labelled row that the learner scored: record more hours"
        )
    scored, y = (np.concatenate([p[i] for p in parts.values()]) for i in (0, 1))
    report: dict[str, Any] = {
        "name": name, "features": int(series[0].X.shape[1]), "muted_features": series[0].muted,
        "tickers": [s.ticker for s in series],
        "rows": {
            "train": len(taught), "early": int(sum(m.sum() for m in rows.early)), "calibrate": len(y),
        },
        "class_shares": {"train": prior, "calibrate": evaluate.shares(y, floor=0.0)},
        **evaluate.classification(scored, y, prior),
        "per_ticker": {t: evaluate.classification(*p, prior) for t, p in parts.items()}, **facts,
    }  # fmt: skip
    report = evaluate.rounded(report)
    out_dir.mkdir(parents=True, exist_ok=True)
    if weights is not None:
        save_npz(out_dir / "weights.npz", weights)
    save_npz(out_dir / "logits.npz", logp)
    save_json(out_dir / f"{name}.training.json", report)
    progress(
        f"{name}: log-loss {report['log_loss']:.4f} (climatology {report['climatology_log_loss']:.4f}), "
        f"macro-F1 {report['macro_f1']:.3f}, MCC {report['mcc']:.3f} on {len(y):,} rows of block calibrate"
    )
    return report


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Arrays to ``path`` by way of a temporary name; equal arrays give equal bytes."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        np.savez(f, **dict(arrays))  # type: ignore[arg-type]
    part.replace(path)


def save_json(path: Path, value: Any) -> None:
    """JSON for people and diffs to ``path`` by way of a temporary name."""
    save_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def save_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
