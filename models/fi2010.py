"""FI-2010 as its protocol has it: which files, which rows teach, choose and score, and what a row holds.

Setup 2: ``Train_..._CF_7`` (days 1 to 7) teaches, its last fifth chooses, ``Test_..._CF_7``, ``8`` and ``9``
(days 8 to 10) one after the other score. Setup 1: nine folds, days 1 to d against day d + 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from market.errors import RecordingError
from market.importers.fi2010 import BOOK_ROWS, FEATURE_ROWS, HORIZONS, read_matrix

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
Say = Callable[[str], None]

FOLDS = range(1, 10)
SETUP2_TRAIN, SETUP2_TESTS = 7, (7, 8, 9)
VALIDATION_SHARE = 0.2
SEAM_SIGMAS = 20.0
"""The best ask moves by more usual moves than this from one row to the next where another stock or day
begins: the files hold five stocks one after the other and do not say where one ends."""
LAGS = (1, 5, 10, 50)
"""Rows back that the window-relative features look."""
DOWN, FLAT, UP = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of the benchmark: ``x`` float32 [n, 144], ``y`` int64 [n, 5] (DOWN, FLAT, UP by HORIZONS),
    ``fresh`` bool [n]: another stock or day begins here."""

    x: F32
    y: I64
    fresh: Mask

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Found:
    """The matrices of a folder: ``train`` and ``test`` by fold, of one variant."""

    variant: str
    train: dict[int, Path]
    test: dict[int, Path]

    @property
    def anchored(self) -> bool:
        """Whether all nine folds of setup 1 are there."""
        return all(d in self.train and d in self.test for d in FOLDS)


def find(folder: Path, variant: str = "ZScore") -> Found:
    """The NoAuction matrices below ``folder``, at any depth. RecordingError names what setup 2 lacks."""
    if not folder.is_dir():
        raise RecordingError(f"there is no folder {folder}: unpack the benchmark's archive and name that")
    found: dict[str, dict[int, Path]] = {"Train": {}, "Test": {}}
    for path in sorted(folder.rglob("*_Dst_NoAuction_*_CF_*.txt")):
        kind, _, rest = path.stem.partition("_Dst_NoAuction_")
        named, _, fold = rest.rpartition("_CF_")
        if kind in found and named.lower() == variant.lower() and fold.isdigit():
            found[kind][int(fold)] = path
    wanted = [("Train", SETUP2_TRAIN), *(("Test", d) for d in SETUP2_TESTS)]
    missing = [f"{k}_Dst_NoAuction_{variant}_CF_{d}.txt" for k, d in wanted if d not in found[k]]
    if missing:
        seen = sorted({p.stem.split("_")[-3] for p in folder.rglob("*_Dst_NoAuction_*_CF_*.txt")})
        there = f"variants seen: {', '.join(seen)}" if seen else "no NoAuction matrix is there"
        raise RecordingError(f"{folder} lacks {', '.join(missing)} ({there})")
    return Found(variant, found["Train"], found["Test"])


def read(paths: Sequence[Path], cache: Path | None, say: Say) -> Part:
    """Matrices one after the other. ``cache``: a folder for binary copies, since the text takes a minute."""
    xs, labels, starts, at = [], [], [], 0
    for path in paths:
        x, y = _read_one(path, cache, say)
        xs.append(x)
        labels.append(y)
        starts.append(at)
        at += len(x)
    x, codes = np.concatenate(xs), np.concatenate(labels).astype(np.int64)
    fresh = seams(x[:, 0])
    fresh[starts] = True
    return Part(x, codes, fresh)


def _read_one(path: Path, cache: Path | None, say: Say) -> tuple[F32, NDArray[np.int8]]:
    kept = None
    if cache is not None:
        stat = path.stat()
        key = hashlib.sha256(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
        kept = cache / f"{path.stem}.{key}.npz"
        if kept.is_file():
            with np.load(kept, allow_pickle=False) as stored:
                return stored["x"], stored["labels"]
    say(f"reading {path.name} ({path.stat().st_size / 1e6:.0f} MB of text)")
    matrix = read_matrix(path)
    x = matrix.x.astype(np.float32)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{kept.name}")
        with part.open("wb") as file:
            np.savez(file, x=x, labels=matrix.labels)
        part.replace(kept)
    return x, matrix.labels


def seams(ask: F32) -> Mask:
    """Rows at which another stock or day begins, bool [n]; the first row is one."""
    out = np.zeros(len(ask), np.bool_)
    out[:1] = True
    if len(ask) > 2:
        step = np.diff(ask.astype(np.float64))
        # A deviation that the seams themselves do not swell: by the middle half of the moves that are any.
        moved = np.abs(step[step != 0])
        usual = float(np.quantile(moved, 0.75)) if len(moved) else 0.0
        out[1:] = np.abs(step) > SEAM_SIGMAS * max(usual, 1e-9)
    return out


def orientation(part: Part) -> float:
    """Correlation of label code 1 against 3 (shortest horizon, +1 for code 1) with the next row's mid change.

    Above zero: 1 means up, as the data set's page says; two public loaders claim the reverse.
    """
    mid = (part.x[:, 0].astype(np.float64) + part.x[:, 2]) / 2
    ahead = np.diff(mid)
    side = (2 - part.y[:-1, 0]).astype(np.float64)
    same = ~part.fresh[1:]
    if not same.any() or np.std(ahead[same]) == 0 or np.std(side[same]) == 0:
        return 0.0
    return float(np.corrcoef(side[same], ahead[same])[0, 1])


def directed(part: Part, one_is_up: bool) -> Part:
    """The same rows with DOWN, FLAT, UP in the place of the file's codes."""
    return Part(part.x, 3 - part.y if one_is_up else part.y - 1, part.fresh)


def validation(n: int, fresh: Mask, kind: str) -> Mask:
    """Rows of training that choose: its ``tail`` (the published protocol), or the last fifth of each stretch
    of one stock (``stocks``: the tail of a file in the order of stocks knows only one or two of them)."""
    out = np.zeros(n, np.bool_)
    if kind == "tail":
        out[int(n * (1 - VALIDATION_SHARE)) :] = True
        return out
    starts = np.flatnonzero(fresh)
    for a, b in zip(starts, [*starts[1:], n], strict=True):
        out[int(b - (b - a) * VALIDATION_SHARE) : b] = True
    return out


def relative(part: Part) -> F32:
    """What trees and kernels need, float32 [n, 40 + 104 + r]: the book against its own recent past.

    Per lag: mid and touch sizes less those of so many rows ago (0 across a seam), mid less its trailing mean;
    per level the imbalance of the two sizes; then the file's 144 columns.
    """
    x = part.x.astype(np.float64)
    mid = (x[:, 0] + x[:, 2]) / 2
    block = np.cumsum(part.fresh).astype(np.int64)
    columns = [x[:, 0] - x[:, 2]]
    for lag in LAGS:
        for value in (mid, x[:, 1], x[:, 3]):
            columns.append(_since(value, block, lag))
        columns.append(mid - trailing_mean(mid, part.fresh, lag))
    for level in range(BOOK_ROWS // 4):
        columns.append(x[:, 4 * level + 3] - x[:, 4 * level + 1])
    return np.concatenate([part.x, np.stack(columns, axis=1).astype(np.float32)], axis=1)


def _since(value: NDArray[np.float64], block: I64, lag: int) -> NDArray[np.float64]:
    out = np.zeros(len(value))
    same = block[lag:] == block[:-lag]
    out[lag:] = np.where(same, value[lag:] - value[:-lag], 0.0)
    return out


def trailing_mean(value: NDArray[np.float64], fresh: Mask, rows: int) -> NDArray[np.float64]:
    """Mean of the last ``rows`` rows up to and including this one, never over a seam."""
    n = len(value)
    start = np.maximum.accumulate(np.where(fresh, np.arange(n), 0))
    first = np.maximum(np.arange(n) - rows + 1, start)
    total = np.concatenate([[0.0], np.cumsum(value)])
    return (total[np.arange(n) + 1] - total[first]) / (np.arange(n) + 1 - first)


def file_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by file name, so that a figure can be traced to the bytes it is of."""
    out = {}
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        out[path.name] = digest.hexdigest()
    return out


assert FEATURE_ROWS == 144 and len(HORIZONS) == 5
