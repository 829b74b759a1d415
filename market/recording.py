"""A recording: instruments' books and trades on disk, by ticker and exchange day.

``<path>/recording.json`` (what it is) and ``<path>/<TICKER>/<YYYY-MM-DD>/{book,trades}.parquet``. The same
input gives the same bytes. A recording appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from market.errors import RecordingError
from market.fees import tariff as known_tariff
from market.types import DEPTH, Books, Instrument, InstrumentDay, Trades

SCHEMA_VERSION = 1
INFO_FILE = "recording.json"
BOOK_FILE = "book.parquet"
TRADES_FILE = "trades.parquet"
ROW_GROUP = 1 << 17
ZSTD_LEVEL = 3

Watermark = Literal["SIMULATED", "REAL"]

_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

_SIDES = (("bid_px", "bp"), ("bid_qty", "bq"), ("ask_px", "ap"), ("ask_qty", "aq"))
_BOOK_SCHEMA = pa.schema(
    [pa.field("exch_ns", pa.int64()), pa.field("recv_ns", pa.int64()), pa.field("flags", pa.uint8())]
    + [pa.field(f"{short}{j}", pa.int32()) for _, short in _SIDES for j in range(1, DEPTH + 1)]
)
_TRADES_SCHEMA = pa.schema(
    [
        pa.field("exch_ns", pa.int64()),
        pa.field("recv_ns", pa.int64()),
        pa.field("px", pa.int32()),
        pa.field("qty", pa.int32()),
        pa.field("side", pa.int8()),
    ]
)


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """What ``recording.json`` says."""

    schema_version: int
    source: str
    watermark: Watermark
    tariff: str
    instruments: tuple[Instrument, ...]
    days: dict[str, tuple[str, ...]]
    provenance: dict[str, Any]

    def instrument(self, ticker: str) -> Instrument:
        for instrument in self.instruments:
            if instrument.ticker == ticker:
                return instrument
        known = ", ".join(i.ticker for i in self.instruments)
        raise RecordingError(f"the recording holds no instrument {ticker!r}; it holds {known}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "source": self.source,
            "watermark": self.watermark,
            "tariff": self.tariff,
            "instruments": [i.to_dict() for i in self.instruments],
            "days": {ticker: list(days) for ticker, days in self.days.items()},
            "provenance": self.provenance,
        }


class Recording:
    """A recording that is complete on disk. Get one by ``Recording.open`` or ``write_recording``."""

    def __init__(self, path: Path, info: RecordingInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read ``recording.json`` and check that every file it names is there.

        RecordingError names what is missing or damaged, or the schema version that is too new.
        """
        path = Path(path)
        info = _read_info(path)
        for ticker, days in info.days.items():
            for day in days:
                for name in (BOOK_FILE, TRADES_FILE):
                    if not (path / ticker / day / name).is_file():
                        raise RecordingError(
                            f"the recording {path} is damaged: {ticker}/{day}/{name} is missing; "
                            "record or ingest it again"
                        )
        return cls(path, info)

    def read(self, ticker: str, day: str) -> InstrumentDay:
        """One day of one instrument, as it was written."""
        instrument = self.info.instrument(ticker)
        if day not in self.info.days.get(ticker, ()):
            known = ", ".join(self.info.days.get(ticker, ())) or "no day"
            raise RecordingError(f"the recording {self.path} has no day {day!r} of {ticker}; it has {known}")
        folder = self.path / ticker / day
        return InstrumentDay(
            instrument, day, _read_books(folder / BOOK_FILE), _read_trades(folder / TRADES_FILE)
        )

    def slice(self, ticker: str, day: str, from_ns: int, to_ns: int) -> InstrumentDay:
        """The part of a day received in [from_ns, to_ns)."""
        whole = self.read(ticker, day)
        b, t = whole.books.recv_ns, whole.trades.recv_ns
        return InstrumentDay(
            whole.instrument,
            day,
            whole.books.rows((b >= from_ns) & (b < to_ns)),
            whole.trades.rows((t >= from_ns) & (t < to_ns)),
        )

    def files(self) -> tuple[str, ...]:
        """The recording's files, relative and sorted; what else lies in the folder is not part of it."""
        names = [INFO_FILE]
        names += [
            f"{ticker}/{day}/{name}"
            for ticker, days in self.info.days.items()
            for day in days
            for name in (BOOK_FILE, TRADES_FILE)
        ]
        return tuple(sorted(names))

    def data_hash(self) -> str:
        """SHA-256 (hex) over names and contents of the files, wherever the recording lies."""
        total = hashlib.sha256()
        for name in self.files():
            with (self.path / name).open("rb") as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()
            total.update(f"{name}\0{content}\n".encode())
        return total.hexdigest()


def write_recording(
    path: Path,
    days: Iterable[InstrumentDay],
    *,
    source: str,
    watermark: Watermark,
    tariff: str,
    provenance: dict[str, Any],
) -> Recording:
    """Write ``days`` as a recording, one day in memory at a time, and open it.

    The folder is built beside ``path`` and renamed when it is complete; a recording (or an empty folder) at
    ``path`` is replaced, anything else is refused with RecordingError. On failure ``path`` stays as it was.
    """
    target = Path(path).resolve()
    known_tariff(tariff)
    if watermark not in get_args(Watermark):
        raise RecordingError(f"a recording's watermark is SIMULATED or REAL, not {watermark!r}")
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        building.mkdir()
        _write_files(building, days, source, watermark, tariff, provenance)
        _put_in_place(building, target)
    except OSError as error:
        raise RecordingError(
            f"the recording {path} cannot be written: {error.strerror or error}; "
            "check the free space and permissions there"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Recording.open(Path(path))


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    if target.is_dir() and ((target / INFO_FILE).is_file() or not any(target.iterdir())):
        return
    raise RecordingError(
        f"{target} exists and is not a recording, so it is not replaced; give another path or move it away"
    )


def _write_files(
    folder: Path,
    days: Iterable[InstrumentDay],
    source: str,
    watermark: Watermark,
    tariff: str,
    provenance: dict[str, Any],
) -> None:
    instruments: dict[str, Instrument] = {}
    written: dict[str, list[str]] = {}
    for item in days:
        ticker, day = item.instrument.ticker, item.day
        _check_names(ticker, day)
        if instruments.setdefault(ticker, item.instrument) != item.instrument:
            raise RecordingError(f"{ticker} has two different instrument descriptions in one recording")
        if day in written.setdefault(ticker, []):
            raise RecordingError(f"{ticker} has the day {day} twice in one recording")
        written[ticker].append(day)
        at = folder / ticker / day
        at.mkdir(parents=True)
        _write_table(at / BOOK_FILE, _book_table(item))
        _write_table(at / TRADES_FILE, _trades_table(item))
    if not instruments:
        raise RecordingError("a recording needs at least one day of one instrument; there was none")
    info = RecordingInfo(
        SCHEMA_VERSION, source, watermark, tariff,
        tuple(instruments[t] for t in sorted(instruments)),
        {t: tuple(sorted(written[t])) for t in sorted(written)},
        provenance,
    )  # fmt: skip
    text = json.dumps(info.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with (folder / INFO_FILE).open("w", encoding="utf-8", newline="\n") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _put_in_place(building: Path, target: Path) -> None:
    """Rename; an old recording steps aside first and comes back should the rename fail."""
    if not target.exists():
        building.rename(target)
        return
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old.tmp")
    target.rename(aside)
    try:
        building.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _check_names(ticker: str, day: str) -> None:
    """Both become folder names, and may come from a file that somebody else wrote."""
    if not _TICKER.fullmatch(ticker):
        raise RecordingError(f"the ticker {ticker!r} cannot be a folder name in a recording")
    try:
        proper = date.fromisoformat(day).isoformat() == day
    except (ValueError, TypeError):
        proper = False
    if not proper:
        raise RecordingError(f"the day of {ticker} is written YYYY-MM-DD in a recording, not {day!r}")


def _read_info(path: Path) -> RecordingInfo:
    if not path.is_dir():
        raise RecordingError(f"there is no recording at {path}: no such folder")
    try:
        raw = json.loads((path / INFO_FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"{path} is not a recording: it has no {INFO_FILE}") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path / INFO_FILE} cannot be read: {error}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise RecordingError(f"{path / INFO_FILE} has no schema_version: it does not describe a recording")
    if version != SCHEMA_VERSION:
        newer = "update this program to read it" if version > SCHEMA_VERSION else "ingest it again"
        raise RecordingError(
            f"the recording {path} has schema version {version}, this program reads {SCHEMA_VERSION}; {newer}"
        )
    try:
        info = RecordingInfo(
            version, str(raw["source"]), raw["watermark"], str(raw["tariff"]),
            tuple(Instrument.from_dict(fields) for fields in raw["instruments"]),
            {str(t): tuple(days) for t, days in raw["days"].items()},
            dict(raw["provenance"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{path / INFO_FILE} is damaged: {error!r}") from error
    if info.watermark not in get_args(Watermark):
        raise RecordingError(f"{path / INFO_FILE} has the unknown watermark {info.watermark!r}")
    for ticker, days in info.days.items():
        info.instrument(ticker)
        for day in days:
            _check_names(ticker, day)
    return info


def _book_table(item: InstrumentDay) -> pa.Table:
    books = item.books
    n = len(books)
    _check_shapes(item, books, n, {"flags": np.uint8}, {side: np.int32 for side, _ in _SIDES})
    columns: list[NDArray[Any]] = [books.exch_ns, books.recv_ns, books.flags]
    for side, _ in _SIDES:
        # One transposed copy makes the twenty columns contiguous, which Arrow then takes without copying.
        columns.extend(np.ascontiguousarray(getattr(books, side).T))
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=_BOOK_SCHEMA)


def _trades_table(item: InstrumentDay) -> pa.Table:
    trades = item.trades
    _check_shapes(item, trades, len(trades), {"px": np.int32, "qty": np.int32, "side": np.int8}, {})
    columns = [pa.array(np.ascontiguousarray(getattr(trades, f.name))) for f in _TRADES_SCHEMA]
    return pa.Table.from_arrays(columns, schema=_TRADES_SCHEMA)


def _check_shapes(
    item: InstrumentDay, table: Books | Trades, n: int, flat: dict[str, Any], deep: dict[str, Any]
) -> None:
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        "exch_ns": ((n,), np.int64),
        "recv_ns": ((n,), np.int64),
        **{name: ((n,), kind) for name, kind in flat.items()},
        **{name: ((n, DEPTH), kind) for name, kind in deep.items()},
    }
    for name, (shape, kind) in expected.items():
        array = getattr(table, name)
        if array.shape != shape or array.dtype != kind:
            raise RecordingError(
                f"{item.instrument.ticker} {item.day}: {name} is {array.dtype}{list(array.shape)}, "
                f"a recording needs {np.dtype(kind)}{list(shape)}"
            )


def _write_table(path: Path, table: pa.Table) -> None:
    # Everything that would bring the writer's environment into the bytes is off.
    with path.open("wb") as f:
        pq.write_table(
            table,
            f,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            use_dictionary=False,
            column_encoding={name: _encoding(name) for name in table.column_names},
            write_statistics=False,
            store_schema=False,
            row_group_size=ROW_GROUP,
        )
        f.flush()
        os.fsync(f.fileno())


def _encoding(column: str) -> str:
    return "PLAIN" if column in ("flags", "side") else "DELTA_BINARY_PACKED"


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{path} is damaged and cannot be read ({error}); ingest it again") from error
    if not table.schema.equals(schema):
        raise RecordingError(f"{path} has other columns than a recording of schema version {SCHEMA_VERSION}")
    return table


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return np.ascontiguousarray(table.column(name).to_numpy())


def _read_books(path: Path) -> Books:
    table = _read_table(path, _BOOK_SCHEMA)
    sides: list[NDArray[np.int32]] = []
    for _, short in _SIDES:
        levels = np.empty((table.num_rows, DEPTH), np.int32)
        for j in range(DEPTH):
            levels[:, j] = table.column(f"{short}{j + 1}").to_numpy()
        sides.append(levels)
    flat = [_column(table, name) for name in ("exch_ns", "recv_ns", "flags")]
    bid_px, bid_qty, ask_px, ask_qty = sides
    return Books(flat[0], flat[1], bid_px, bid_qty, ask_px, ask_qty, flat[2])


def _read_trades(path: Path) -> Trades:
    table = _read_table(path, _TRADES_SCHEMA)
    return Trades(*(_column(table, f.name) for f in _TRADES_SCHEMA))
