"""A recording: instruments' books, trades and own events on disk, by ticker and exchange day.

``<path>/recording.json`` (what it is) and ``<path>/<TICKER>/<YYYY-MM-DD>/{book,trades[,own]}.parquet``. The
same input gives the same bytes. What ``write_recording`` makes appears whole or not at all; what a recorder
(``market.writer``) is making lies in ``<path>/_unfinished`` until it is done, and is read all the same.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from market.errors import RecordingError
from market.fees import tariff as known_tariff
from market.recording.finish import finish
from market.recording.info import (
    INFO_FILE,
    RecordingInfo,
    Watermark,
    check_names,
    check_watermark,
    read_info,
)
from market.recording.log import RECOVERING, UNFINISHED, FolderLock, Locked
from market.recording.tables import BOOKS, OWN, TRADES, TableKind, joined, read_table, write_table
from market.recording.unfinished import Unfinished, utc
from market.types import Books, Instrument, InstrumentDay, OwnEvents, Trades

SNAPSHOT_ATTEMPTS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Rows that lie in the log still, and the days that have tables."""

    log: Unfinished
    tables: RecordingInfo | None


class Recording:
    """A recording on disk. Get one by ``Recording.open`` or ``write_recording``.

    ``remark``: empty, or what is unusual about it: that it was interrupted and recovered, or is still being
    made (then it shows what had been written when it was opened).
    """

    def __init__(
        self, path: Path, info: RecordingInfo, *, remark: str = "", pending: _Pending | None = None
    ) -> None:
        self.path = path
        self.info = info
        self.remark = remark
        self._pending = pending

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read ``recording.json`` and check that every file it names is there.

        A recording whose recorder was killed is recovered first (only when no recorder is at work on it; what
        was found goes to ``remark`` and to the log); where that is impossible, as on a full disk, and while a
        recorder is at work, it is read as it lies there, and nothing in it is changed. RecordingError names
        what is missing or damaged, or the schema version that is too new.
        """
        path = Path(path)
        remark = ""
        if (path / UNFINISHED).is_dir():
            found = _recovered(path)
            if isinstance(found, _Snapshot):
                return cls(path, found.info, remark=found.remark, pending=found.pending)
            remark = found
            if not (path / INFO_FILE).exists():
                raise RecordingError(f"nothing was recorded at {path}: its recorder ended before any event")
        info = read_info(path)
        _check_files(path, info)
        return cls(path, info, remark=remark)

    @property
    def final(self) -> bool:
        """Its files will not change any more, so they have a list and a hash."""
        return self._pending is None

    def read(self, ticker: str, day: str) -> InstrumentDay:
        """One day of one instrument, as it was written."""
        instrument = self.info.instrument(ticker)
        if day not in self.info.days.get(ticker, ()):
            known = ", ".join(self.info.days.get(ticker, ())) or "no day"
            raise RecordingError(f"the recording {self.path} has no day {day!r} of {ticker}; it has {known}")
        own = self._table(OWN, ticker, day) if day in self.info.own.get(ticker, ()) else None
        whole = InstrumentDay(
            instrument, day, self._table(BOOKS, ticker, day), self._table(TRADES, ticker, day), own
        )
        if self._pending is not None and not self._pending.log.still_there():
            raise RecordingError(f"{self.path} was finished by its recorder meanwhile; open it again")
        return whole

    def _table(self, kind: TableKind, ticker: str, day: str) -> Any:
        file = self.path / ticker / day / kind.file
        if self._pending is None:
            return read_table(file, kind)
        pieces = []
        tables = self._pending.tables
        if tables is not None and day in tables.days.get(ticker, ()):
            pieces += [read_table(file, kind)] if file.exists() else []
        if (at := self._pending.log.days().get(ticker, {}).get(day)) is not None:
            pieces += list(self._pending.log.pieces(kind, ticker, at))
        return joined(kind, pieces)

    def slice(self, ticker: str, day: str, from_ns: int, to_ns: int) -> InstrumentDay:
        """The part of a day received in [from_ns, to_ns)."""
        whole = self.read(ticker, day)
        b, t = whole.books.recv_ns, whole.trades.recv_ns
        part = InstrumentDay(
            whole.instrument,
            day,
            whole.books.rows((b >= from_ns) & (b < to_ns)),
            whole.trades.rows((t >= from_ns) & (t < to_ns)),
        )
        if whole.own is not None:
            o = whole.own.event_ns
            part.own = whole.own.rows((o >= from_ns) & (o < to_ns))
        return part

    def files(self) -> tuple[str, ...]:
        """The recording's files, relative and sorted; what else lies in the folder is not part of it."""
        if self._pending is not None:
            raise RecordingError(f"{self.remark}: its files are not final, so they have no list and no hash")
        names = [INFO_FILE]
        names += [n for t, days in self.info.days.items() for day in days for n in self.info.files(t, day)]
        return tuple(sorted(names))

    def data_hash(self) -> str:
        """SHA-256 (hex) over names and contents of the files, wherever the recording lies."""
        total = hashlib.sha256()
        for name in self.files():
            with (self.path / name).open("rb") as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()
            total.update(f"{name}\0{content}\n".encode())
        return total.hexdigest()


def _check_files(path: Path, info: RecordingInfo) -> None:
    for ticker, days in info.days.items():
        for day in days:
            for name in info.files(ticker, day):
                if not (path / name).is_file():
                    raise RecordingError(
                        f"the recording {path} is damaged: {name} is missing; record or ingest it again"
                    )


# ---- recordings that were not finished ----


@dataclass(frozen=True, slots=True)
class _Snapshot:
    info: RecordingInfo
    remark: str
    pending: _Pending


def _recovered(path: Path) -> _Snapshot | str:
    """Finishes what a dead recorder left and says so, or looks at what a live one has written."""
    try:
        return recover_folder(path)
    except Locked as busy:
        return _snapshot(path, f"{path} is still being recorded ({busy.owner})")
    except OSError as error:
        remark = f"{path} was interrupted and cannot be finished here ({error.strerror or error})"
        _log.warning("%s; it is read as it is", remark)
        return _snapshot(path, remark)


def recover_folder(path: Path) -> str:
    """Turns the log of a recorder that is gone into tables; says what was found ("" where there was nothing).

    Raises Locked while a recorder is at work, OSError where the tables cannot be written.
    """
    lock = FolderLock(path, RECOVERING, datetime.now(UTC).isoformat(timespec="seconds"))
    done = False
    try:
        taken = finish(path)
        done = True
    finally:
        lock.release(remove=done)
    if taken is None or all(session.closed for session in taken.sessions.values()):
        return ""
    lost = f", {taken.torn_bytes} bytes of an unfinished write were dropped" if taken.torn_bytes else ""
    damaged = f"; damaged parts were kept as {path}/damaged-*.log" if taken.damaged else ""
    remark = (
        f"{path} had been interrupted and was recovered: {taken.rows:,} rows up to {utc(taken.last_ns)}"
        f"{lost}{damaged}"
    )
    _log.warning("%s", remark)
    return remark


def _snapshot(path: Path, remark: str) -> _Snapshot:
    for _ in range(SNAPSHOT_ATTEMPTS):
        try:
            log = Unfinished.of(path)
            tables = read_info(path) if (path / INFO_FILE).exists() else None
            if log.still_there():
                return _Snapshot(log.info_after(tables, finished=False), remark, _Pending(log, tables))
        except FileNotFoundError:
            pass  # the recorder finished that log between two of our looks
        except RecordingError as error:
            raise RecordingError(f"{remark}: {error}") from None
        time.sleep(0.05)
    raise RecordingError(f"{path} is being finished by its recorder; open it again in a moment")


# ---- whole recordings ----


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
    check_watermark(watermark)
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
    if (target / UNFINISHED).exists():
        raise RecordingError(
            f"{target} is being recorded, or was interrupted: it is not replaced; "
            f"`live-runner record --recover {target}` finishes it, or give another path"
        )
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
    written: dict[str, set[str]] = {}
    own: dict[str, set[str]] = {}
    for item in days:
        ticker, day = item.instrument.ticker, item.day
        check_names(ticker, day)
        if instruments.setdefault(ticker, item.instrument) != item.instrument:
            raise RecordingError(f"{ticker} has two different instrument descriptions in one recording")
        if day in written.setdefault(ticker, set()):
            raise RecordingError(f"{ticker} has the day {day} twice in one recording")
        written[ticker].add(day)
        at = folder / ticker / day
        at.mkdir(parents=True)
        tables: list[tuple[TableKind, Books | Trades | OwnEvents]] = [
            (BOOKS, item.books),
            (TRADES, item.trades),
        ]
        if item.own is not None:
            own.setdefault(ticker, set()).add(day)
            tables.append((OWN, item.own))
        for kind, rows in tables:
            write_table(at / kind.file, kind, iter((kind.to_arrow(rows, f"{ticker} {day}"),)))
    if not instruments:
        raise RecordingError("a recording needs at least one day of one instrument; there was none")
    RecordingInfo.of(source, watermark, tariff, instruments, written, own, provenance).write(folder)


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
