"""The append-only log of a recording in progress: frames that are whole or do not count, and its lock.

``<recording>/_unfinished/000001.log`` is a row of frames: ``SCLP``, length of the payload (u32), CRC-32 of
the payload (u32), payload; little-endian. A payload begins with kind (u8), instrument (u16, its place among
those declared so far), rows (u32), the earliest and the latest time in it (i64, i64). Bodies: JSON for HEAD,
INSTRUMENT, NOTE and END; for rows the columns of ``Books`` or ``Trades`` behind each other, compressed
(zstd), and JSON lists for own events. Every file begins with HEAD and declares its instruments, so it can be
read alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from market.errors import RecordingError
from market.recording.tables import BOOKS, OWN, TRADES, TableKind
from market.types import DEPTH, Books, OwnEvents, Trades

UNFINISHED = "_unfinished"
"""The folder of the log in a recording; no ticker begins with an underscore."""
LOCK_FILE = "lock"
LOG_FORMAT = 1
MARKER = b"SCLP"
MAX_FRAME_BYTES = 1 << 26
LOCK_ATTEMPTS = 100
RECORDING, RECOVERING = "recording", "recovering"
"""What the owner of a lock is doing."""
RECOVERY_WAIT_S = 60.0
RECOVERY_POLL_S = 0.05

_FRAME = struct.Struct("<4sII")
_PAYLOAD = struct.Struct("<BHIqq")
_CODEC = pa.Codec("zstd", compression_level=1)
_LEVELS = np.dtype(("<i4", (DEPTH,)))
_COLUMNS: dict[type[Any], tuple[tuple[str, Any], ...]] = {
    Books: (
        ("exch_ns", "<i8"), ("recv_ns", "<i8"), ("bid_px", _LEVELS), ("bid_qty", _LEVELS),
        ("ask_px", _LEVELS), ("ask_qty", _LEVELS), ("flags", "u1"),
    ),
    Trades: (("exch_ns", "<i8"), ("recv_ns", "<i8"), ("px", "<i4"), ("qty", "<i4"), ("side", "i1")),
}  # fmt: skip


class Kind(IntEnum):
    """What a frame holds."""

    HEAD = 0
    INSTRUMENT = 1
    NOTE = 2
    END = 3
    BOOKS = 4
    TRADES = 5
    OWN = 6


TABLES: dict[Kind, TableKind] = {Kind.BOOKS: BOOKS, Kind.TRADES: TRADES, Kind.OWN: OWN}


# ---- writing ----


def text_frame(kind: Kind, fields: dict[str, Any], instrument: int = 0) -> bytes:
    """A frame of facts. RecordingError if they are not JSON."""
    try:
        body = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RecordingError(f"a recording's facts must be JSON: {error}") from None
    return _frame(_PAYLOAD.pack(kind, instrument, 0, 0, 0) + body)


def rows_frame(kind: Kind, instrument: int, rows: Books | Trades | OwnEvents) -> bytes:
    """A frame of at least one row."""
    if isinstance(rows, OwnEvents):
        columns = [getattr(rows, name).tolist() for name in OwnEvents.__slots__]
        body = json.dumps(columns).encode()
    else:
        parts = [np.ascontiguousarray(getattr(rows, name)).tobytes() for name, _ in _COLUMNS[type(rows)]]
        body = _CODEC.compress(b"".join(parts), asbytes=True)
    times = getattr(rows, TABLES[kind].time)
    return _frame(_PAYLOAD.pack(kind, instrument, len(rows), int(times.min()), int(times.max())) + body)


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(MARKER, len(payload), zlib.crc32(payload)) + payload


class LogFile:
    """One log, appended to. OSError as the disk has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self.bytes = 0
        self._synced = True

    def append(self, whole_frames: bytes) -> None:
        """After this a kill of the process loses none of it; a loss of power may, until ``sync``."""
        left = memoryview(whole_frames)
        while left:
            left = left[os.write(self._fd, left) :]
            self._synced = False
        self.bytes += len(whole_frames)

    def sync(self) -> None:
        if not self._synced:
            os.fsync(self._fd)
            self._synced = True

    def cut(self) -> None:
        """Takes away the half of a frame that a failed ``append`` has left."""
        os.ftruncate(self._fd, self.bytes)

    def close(self) -> None:
        """May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


# ---- reading ----


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame: where its body lies in the file, and what is known of it without reading that."""

    kind: Kind
    instrument: int
    rows: int
    first_ns: int
    last_ns: int
    start: int
    stop: int


@dataclass(slots=True)
class Damage:
    """Bytes that are no frames. ``torn``: at the end, as a killed writer leaves them; ``inside``: elsewhere,
    which no kill explains."""

    torn: int = 0
    inside: int = 0


def frames(log: Any, damage: Damage) -> Iterator[Frame]:
    """Every whole frame of a log (bytes or mmap), whatever lies between; counts what it skips."""
    at, end = 0, len(log)
    while at < end:
        stop = _whole(log, at, end)
        if stop:
            kind, instrument, rows, first_ns, last_ns = _PAYLOAD.unpack_from(log, at + _FRAME.size)
            yield Frame(
                Kind(kind), instrument, rows, first_ns, last_ns, at + _FRAME.size + _PAYLOAD.size, stop
            )
            at = stop
            continue
        following = _next_whole(log, at + 1, end)
        if following < 0:
            damage.torn += end - at
            return
        damage.inside += following - at
        at = following


def _whole(log: Any, at: int, end: int) -> int:
    """Where the frame that begins at ``at`` ends; 0 if there is no sound one."""
    if end - at < _FRAME.size + _PAYLOAD.size:
        return 0
    marker, length, crc = _FRAME.unpack_from(log, at)
    start = at + _FRAME.size
    if marker != MARKER or not _PAYLOAD.size <= length <= min(MAX_FRAME_BYTES, end - start):
        return 0
    payload = log[start : start + length]
    if zlib.crc32(payload) != crc or payload[0] > max(Kind):
        return 0
    return start + length


def _next_whole(log: Any, at: int, end: int) -> int:
    while (at := log.find(MARKER, at, end)) >= 0:
        if _whole(log, at, end):
            return at
        at += 1
    return -1


def text_body(log: Any, frame: Frame) -> dict[str, Any]:
    fields = json.loads(log[frame.start : frame.stop])
    if not isinstance(fields, dict):
        raise RecordingError("a frame of the recording's log holds no facts: no recorder wrote it")
    return fields


def rows_body(log: Any, frame: Frame) -> Any:
    """The rows of a frame as its kind's arrays (read-only)."""
    body = log[frame.start : frame.stop]
    rows = TABLES[frame.kind].rows
    if rows is OwnEvents:
        own = OwnEvents.empty(frame.rows)
        for name, column in zip(OwnEvents.__slots__, json.loads(body), strict=True):
            getattr(own, name)[:] = column
        return own
    columns = [(name, np.dtype(kind)) for name, kind in _COLUMNS[rows]]
    size = frame.rows * sum(kind.itemsize for _, kind in columns)
    raw = _CODEC.decompress(body, decompressed_size=size, asbytes=True)
    arrays: dict[str, Any] = {}
    at = 0
    for name, kind in columns:
        arrays[name] = np.frombuffer(raw, kind, frame.rows, at)
        at += frame.rows * kind.itemsize
    return rows(**arrays)


# ---- one writer at a time ----


class Locked(RecordingError):
    """Another process works on the recording. ``doing``: RECORDING, RECOVERING, or not known yet."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        self.doing = str(owner.get("doing", "working on it"))
        self.owner = f"process {owner.get('pid', '?')}, since {owner.get('since', '?')}"
        super().__init__(
            f"{path} is in use: {self.owner} is {self.doing}; stop it, or record into another folder"
        )


class FolderLock:
    """The right to change a recording that is being made; the kernel drops it with the process."""

    def __init__(self, path: Path, doing: str, since: str) -> None:
        """Locks the recording ``path`` and makes its work folder. Raises Locked, or OSError.

        Another process that only recovers the recording is soon done: it is waited for.
        """
        self.work = path / UNFINISHED
        deadline = time.monotonic() + RECOVERY_WAIT_S
        while True:
            try:
                self._file = self._take(path)
                break
            except Locked as busy:
                if busy.doing == RECORDING or time.monotonic() > deadline:
                    raise
                time.sleep(RECOVERY_POLL_S)
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "doing": doing, "since": since}, self._file)
        self._file.flush()

    def _take(self, path: Path) -> IO[str]:
        name = self.work / LOCK_FILE
        for _ in range(LOCK_ATTEMPTS):
            self.work.mkdir(parents=True, exist_ok=True)
            try:
                file = name.open("a+", encoding="utf-8")
            except FileNotFoundError:
                continue  # its last owner has just removed the folder
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _owner(file)
                file.close()
                raise Locked(path, owner) from None
            with contextlib.suppress(FileNotFoundError):
                if name.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            file.close()  # a lock on a file that is gone keeps nobody out
        raise RecordingError(f"{name} cannot be locked: somebody keeps removing it; try again")

    def release(self, *, remove: bool) -> None:
        """``remove``: nothing is left to do, so the work folder goes."""
        if remove:
            (self.work / LOCK_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.work.rmdir()
        self._file.close()


def _owner(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        fields = json.loads(file.read())
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def sync_folder(path: Path) -> None:
    """Makes names in ``path`` survive a loss of power."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
