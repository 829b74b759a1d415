"""Features and labels of all instruments in memory, with the block of every row and the resets of states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.batch import FeatureTable
from features.schema import FEED, GAP, MIRROR_PARTNER, MIRROR_SIGN, NAMES, SEASONAL, schema_hash
from market.errors import RecordingError
from models.labels import VOID, Labels
from models.scaling import Scaler
from models.splits import BLOCK_NAMES, Blocks

SEASONAL_DAYS: Final = 5
"""Clock features are muted unless block ``fit`` has this many days: on fewer they only say how late it is."""

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Series:
    """One instrument, its days one after another, ``n`` rows.

    ``X`` float32 [n, F] raw; ``block`` uint8 [n], index into ``Dataset.blocks`` (NO_BLOCK: none); ``usable``
    bool [n], may be fed to a model; ``reset`` bool [n], forget model states before this row (set on the row
    with the gap or day start and again on the first usable row after it, so that it is seen whether or not
    unusable rows are skipped); ``day_start`` int64 [days], first row of each of ``days``. The rest as in
    ``FeatureTable`` and ``Labels``.
    """

    ticker: str
    days: tuple[str, ...]
    day_start: NDArray[np.int64]
    recv_ns: NDArray[np.int64]
    X: NDArray[np.float32]
    status: NDArray[np.uint8]
    mid2: NDArray[np.int64]
    spread: NDArray[np.int32]
    y: NDArray[np.uint8]
    y_multi: NDArray[np.uint8]
    long_bps: NDArray[np.float32]
    short_bps: NDArray[np.float32]
    move_bps: NDArray[np.float32]
    entry_ns: NDArray[np.int64]
    exit_ns: NDArray[np.int64]
    block: NDArray[np.uint8]
    usable: Mask
    reset: Mask

    def __len__(self) -> int:
        return len(self.recv_ns)


@dataclass(slots=True)
class Dataset:
    """All instruments, in order of ticker. ``fit_days``: how many days block ``fit`` touches;
    ``horizons_s``: of the columns of ``Series.y_multi``, the one that is asked for first."""

    series: dict[str, Series]
    blocks: Blocks
    fit_days: int
    horizons_s: tuple[float, ...] = ()

    @property
    def tickers(self) -> tuple[str, ...]:
        return tuple(self.series)

    @property
    def muted(self) -> tuple[int, ...]:
        """Columns that no learner should use: clock features while ``fit`` has under SEASONAL_DAYS days."""
        return () if self.fit_days >= SEASONAL_DAYS else SEASONAL

    def rows(self, ticker: str, block: str, *, labelled: bool = True) -> Mask:
        """Usable rows of a block, bool [n]; with ``labelled``, only those that have a label."""
        s = self.series[ticker]
        chosen = s.usable & (s.block == self.blocks.index(block))
        return chosen & (s.y != VOID) if labelled else chosen

    def pooled(self, block: str, names: Iterable[str] = ("X", "y")) -> tuple[NDArray[Any], ...]:
        """The named arrays of the labelled rows of a block, all instruments one after another."""
        masks = {t: self.rows(t, block) for t in self.series}
        return tuple(
            np.concatenate([getattr(s, name)[masks[t]] for t, s in self.series.items()]) for name in names
        )

    def fit_scaler(self) -> Scaler:
        """The scaler of the product: pooled over instruments, fitted on usable rows of block ``fit`` only,
        symmetric between buyers and sellers, blind to the feed's pace."""
        X = np.concatenate([s.X[self.rows(t, "fit", labelled=False)] for t, s in self.series.items()])
        return Scaler.fit(X, mute=(*self.muted, *FEED)).symmetric(MIRROR_SIGN, MIRROR_PARTNER)


def load(features_dir: Path, labels_dir: Path) -> Dataset:
    """Read ``<features>/<TICKER>/<day>.npz``, ``<labels>/<TICKER>/<day>.npz`` and the blocks of
    ``<labels>/blocks.json``.

    RecordingError names what is missing, does not fit together, or is of another feature schema.
    """
    _check_schema(features_dir / "schema.json")
    blocks_path = labels_dir / "blocks.json"
    if not blocks_path.is_file():
        raise RecordingError(f"no blocks at {blocks_path}: run the stage 'labels' first")
    stored = json.loads(blocks_path.read_text())
    blocks = Blocks.from_dict(stored)
    series: dict[str, Series] = {}
    for folder in sorted(p for p in features_dir.iterdir() if p.is_dir()):
        paths = sorted(folder.glob("*.npz"))
        if paths:
            series[folder.name] = _read_series(folder.name, paths, labels_dir / folder.name, blocks)
    if not series:
        raise RecordingError(f"no features under {features_dir}: run the stage 'features' first")
    for path in sorted(labels_dir.glob("*/*.npz")):
        partner = features_dir / path.relative_to(labels_dir)
        if not partner.is_file():  # without a word the learners would know a market less
            raise RecordingError(
                f"no features at {partner}, but labels at {path}: run the stage 'features' again"
            )
    fit = BLOCK_NAMES[0]
    fit_days = {d for s in series.values() for d in _days_in(s, blocks.index(fit))}
    return Dataset(series, blocks, len(fit_days), tuple(stored.get("horizons_s", ())))


def write_schema(features_dir: Path) -> None:
    """Write ``schema.json`` beside the feature files: hash and names of the columns."""
    features_dir.mkdir(parents=True, exist_ok=True)
    path = features_dir / "schema.json"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps({"hash": schema_hash(), "names": list(NAMES)}, indent=1) + "\n")
    temporary.replace(path)


def write_blocks(labels_dir: Path, blocks: Blocks, horizons_s: Sequence[float] = ()) -> None:
    """Write ``blocks.json`` beside the label files: the split, and the horizons of ``y_multi``."""
    labels_dir.mkdir(parents=True, exist_ok=True)
    path = labels_dir / "blocks.json"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps({**blocks.to_dict(), "horizons_s": list(horizons_s)}, indent=1) + "\n")
    temporary.replace(path)


def _check_schema(path: Path) -> None:
    if not path.is_file():
        raise RecordingError(f"no feature schema at {path}: run the stage 'features' first")
    stored = json.loads(path.read_text())
    if stored.get("hash") != schema_hash():
        raise RecordingError(
            f"{path} names feature schema {str(stored.get('hash'))[:12]}, this program has "
            f"{schema_hash()[:12]}: run the stage 'features' again"
        )


def _read_series(ticker: str, paths: list[Path], labels_dir: Path, blocks: Blocks) -> Series:
    tables = [FeatureTable.load(p) for p in paths]
    labels = [Labels.load(labels_dir / p.name) for p in paths]
    for path, table, label in zip(paths, tables, labels, strict=True):
        if len(table) != len(label):
            raise RecordingError(
                f"{ticker} {path.stem}: {len(table)} feature rows, {len(label)} label rows; "
                "run the stage 'labels' again"
            )
    joined = {f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(FeatureTable)}
    joined |= {f.name: np.concatenate([getattr(x, f.name) for x in labels]) for f in fields(Labels)}
    day_start = np.concatenate([[0], np.cumsum([len(t) for t in tables])[:-1]]).astype(np.int64)
    usable = np.concatenate([t.usable for t in tables])
    return Series(
        ticker=ticker,
        days=tuple(p.stem for p in paths),
        day_start=day_start,
        block=blocks.code(joined["recv_ns"]),
        usable=usable,
        reset=resets(joined["status"], usable, day_start),
        **joined,
    )


def resets(status: NDArray[np.uint8], usable: Mask, day_start: NDArray[np.int64]) -> Mask:
    """Rows before which model states are forgotten: gaps, day starts, and the first usable row after each."""
    reset = (status & GAP) != 0
    reset[day_start[day_start < len(reset)]] = True
    epoch = np.cumsum(reset)
    feedable = np.flatnonzero(usable)
    first = np.ones(len(feedable), bool)
    first[1:] = np.diff(epoch[feedable]) != 0
    reset[feedable[first]] = True
    return reset


def _days_in(series: Series, block: int) -> set[str]:
    """Days with a row in the block."""
    ends = np.append(series.day_start[1:], len(series))
    return {
        day
        for day, a, b in zip(series.days, series.day_start, ends, strict=True)
        if np.any(series.block[a:b] == block)
    }
