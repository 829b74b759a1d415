"""Rows that the drift monitor saw, kept for the platform's drift report.

``runtime/drift_samples/YYYYMMDD/TICKER-<12 hex of the manifest>.rows``: one line of JSON (format, ticker,
manifest, column names), then records of one int64 (market time, ns) and a float32 for each column, little
endian. A record that a crash cut short is not read, and is cut off before the next one is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from market.errors import ScalperError
from market.types import SECOND_NS

FORMAT: Final = "scalper-drift-samples/1"
FOLDER: Final = "drift_samples"
KEEP_DAYS: Final = 7
"""Folders of days that stay: a day of ten instruments takes some 45 MB."""
MAX_HEADER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Samples:
    """One file: ``recv_ns`` int64 [n], ``x`` float32 [n, C]."""

    ticker: str
    manifest_sha256: str
    names: tuple[str, ...]
    recv_ns: NDArray[np.int64]
    x: NDArray[np.float32]


class SampleWriter:
    """Appends rows of one model; a new day is a new folder, and the oldest ones go."""

    def __init__(self, runtime: Path, names: Sequence[str], manifest_sha256: str) -> None:
        self._root, self._names, self._sha256 = runtime / FOLDER, tuple(names), manifest_sha256
        self._record = _record(len(self._names))
        self._open: dict[str, Path] = {}
        """By instrument, the file that is known to be whole."""

    def write(self, now_ns: int, ticker: str, row: NDArray[np.float32]) -> None:
        """Append one row; raises OSError."""
        day = datetime.fromtimestamp(now_ns / SECOND_NS, UTC).strftime("%Y%m%d")
        path = self._root / day / f"{ticker}-{self._sha256[:12]}.rows"
        if self._open.get(ticker) != path:
            self._begin(path, ticker)
            self._open[ticker] = path
        record = np.zeros(1, self._record)
        record["recv_ns"], record["x"] = now_ns, row
        with open(path, "ab") as file:
            file.write(record.tobytes())

    def _begin(self, path: Path, ticker: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._prune()
        header = json.dumps(
            {"format": FORMAT, "ticker": ticker, "manifest_sha256": self._sha256, "names": self._names},
            separators=(",", ":"),
        )
        head = header.encode() + b"\n"
        if path.exists() and path.read_bytes()[: len(head)] == head:
            rest = (path.stat().st_size - len(head)) % self._record.itemsize
            if rest:
                with open(path, "rb+") as file:
                    file.truncate(path.stat().st_size - rest)
            return
        draft = path.with_suffix(".draft")
        draft.write_bytes(head)
        draft.replace(path)

    def _prune(self) -> None:
        days = sorted(folder for folder in self._root.iterdir() if folder.is_dir())
        for folder in days[:-KEEP_DAYS]:
            shutil.rmtree(folder, ignore_errors=True)


def read(path: Path) -> Samples:
    """The whole records of a file. Raises ScalperError for anything else."""
    data = path.read_bytes()
    end = data.find(b"\n", 0, MAX_HEADER_BYTES)
    try:
        head: dict[str, Any] = json.loads(data[: max(end, 0)])
        if head["format"] != FORMAT:
            raise ValueError(f"it has format {head['format']!r}, this version reads {FORMAT!r}")
        names = tuple(str(name) for name in head["names"])
        kind = _record(len(names))
        count = (len(data) - end - 1) // kind.itemsize
        rows = np.frombuffer(data, kind, count=count, offset=end + 1)
        return Samples(
            str(head["ticker"]), str(head["manifest_sha256"]), names, rows["recv_ns"].astype(np.int64),
            rows["x"].astype(np.float32),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ScalperError(f"{path} holds no drift samples ({error}): move it away") from None


def files(runtime: Path) -> list[Path]:
    """All sample files, the oldest day first."""
    return sorted((runtime / FOLDER).glob("*/*.rows"))


def _record(columns: int) -> np.dtype[Any]:
    return np.dtype([("recv_ns", "<i8"), ("x", "<f4", (columns,))])
