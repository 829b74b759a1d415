"""QSH version 4 (QScalp, the archive format of the MOEX community) as arrays.

A file is gzip or plain: the signature, a version byte, recorder and comment (strings with a ULEB128 length),
the start in .NET ticks UTC, then the streams: a type byte and ``Connector:Ticker:Class:Id:step``. Frames
follow to the end of the file. A frame's time is the recorder's clock, UTC; exchange times inside are Moscow
wall time. Both have millisecond resolution and count from year 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from market.days import MOSCOW
from market.errors import RecordingError
from market.importers import clock, qsh_kernel
from market.importers.files import unpacked
from market.importers.fixed import nano_of_text
from market.importers.source import Progress, silent
from market.types import BUY, I8, I64, MILLISECOND_NS, SELL

SIGNATURE = b"QScalp History Data"
VERSION = 4
NET_EPOCH_MS = 62_135_596_800_000
"""Milliseconds from year 1 to the Unix epoch."""
NET_TICKS_PER_MS = 10_000
SESSION_MS = 7 * 86_400_000
"""No frame of a file lies farther from its start."""
OLDEST_ORDER_MS = 400 * 86_400_000
"""An order that rests over days keeps its first exchange time."""
CHUNK = 1 << 16

FLOW_START, ADD, FILL, IS_BUY, IS_SELL, SNAPSHOT, QUOTE, COUNTER = (2 << i for i in range(8))
NON_SYSTEM, TX_END, FOK, MOVED, CANCELED, CANCELED_GROUP, CROSS_TRADE = (512 << i for i in range(7))
"""Flags of the order log."""

_NAMES = {
    qsh_kernel.QUOTES: "Quotes",
    qsh_kernel.DEALS: "Deals",
    qsh_kernel.AUX_INFO: "AuxInfo",
    qsh_kernel.ORDER_LOG: "OrdLog",
}


@dataclass(frozen=True, slots=True)
class Quotes:
    """Book changes. ``recv_ns``, ``end`` int64 [frames]: frame i holds the changes up to ``end[i]``. ``px``
    (steps), ``size`` (lots; above zero an ask, below a bid, zero removes) int64 [changes]."""

    recv_ns: I64
    end: I64
    px: I64
    size: I64


@dataclass(frozen=True, slots=True)
class Deals:
    """Trades, int64 [n] but ``side`` int8 (aggressor). ``px`` in steps, ``lots`` in lots."""

    recv_ns: I64
    exch_ns: I64
    side: I8
    deal_id: I64
    order_id: I64
    px: I64
    lots: I64
    open_interest: I64


@dataclass(frozen=True, slots=True)
class AuxInfo:
    """State of the session, int64 [n] but ``deposit`` and ``rate`` float64. Prices in steps."""

    recv_ns: I64
    exch_ns: I64
    ask_total: I64
    bid_total: I64
    open_interest: I64
    px: I64
    high_limit: I64
    low_limit: I64
    deposit: np.ndarray[Any, np.dtype[np.float64]]
    rate: np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class OrderLog:
    """The full order log, int64 [n]. ``px``, ``deal_px`` in steps; ``rest`` to ``open_interest`` only at
    records with flag FILL, else 0."""

    recv_ns: I64
    exch_ns: I64
    flags: I64
    order_id: I64
    px: I64
    lots: I64
    rest: I64
    deal_id: I64
    deal_px: I64
    open_interest: I64


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a file. ``step_nano``: the price step."""

    what: str
    connector: str
    ticker: str
    class_code: str
    step_nano: int
    rows: Quotes | Deals | AuxInfo | OrderLog


@dataclass(frozen=True, slots=True)
class QshFile:
    path: Path
    recorder: str
    comment: str
    start_ns: int
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the frames. ``start_ms``: .NET. ``streams``: kind and the five parts of the name."""

    recorder: str
    comment: str
    start_ms: int
    streams: tuple[tuple[int, tuple[str, ...]], ...]
    size: int


class _Bytes:
    """Reads the header; RecordingError when it ends early."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise RecordingError(f"{self.path} is cut off within its header, at byte {len(self.data):,}")
        self.at += count
        return self.data[self.at - count : self.at]

    def text(self) -> str:
        start, length, shift = self.at, 0, 0
        while True:
            (byte,) = self.take(1)
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 28:
                raise RecordingError(f"{self.path} is damaged: a text at byte {start:,} has no proper length")
        return self.take(length).decode("utf-8", "replace")


def read_header(data: bytes, path: Path) -> Header:
    """Read the unpacked file's header; ``data`` may be only its beginning."""
    part = _Bytes(data, path)
    if not data.startswith(SIGNATURE):
        raise RecordingError(f"{path} is no QSH file: it does not begin with {SIGNATURE.decode()!r}")
    part.take(len(SIGNATURE))
    (version,) = part.take(1)
    if version != VERSION:
        raise RecordingError(f"{path} is QSH version {version}; only version {VERSION} is read")
    recorder, comment = part.text(), part.text()
    start_ms = int.from_bytes(part.take(8), "little", signed=True) // NET_TICKS_PER_MS
    clock.plausible((start_ms - NET_EPOCH_MS) * MILLISECOND_NS, f"{path}, start of the recording")
    (count,) = part.take(1)
    streams: list[tuple[int, tuple[str, ...]]] = []
    for _ in range(count):
        (kind,) = part.take(1)
        if kind not in _NAMES:
            raise RecordingError(
                f"{path} has a stream of type 0x{kind:02x}; known are {', '.join(_NAMES.values())}"
            )
        parts = tuple(part.text().split(":"))
        if len(parts) != 5:
            raise RecordingError(
                f"{path}: a stream is called {':'.join(parts)!r}, not Connector:Ticker:Class:Id:step"
            )
        streams.append((kind, parts))
    if not streams:
        raise RecordingError(f"{path} holds no stream")
    return Header(recorder, comment, start_ms, tuple(streams), part.at)


def read_qsh(path: Path, progress: Progress = silent) -> QshFile:
    """Decode a whole file. RecordingError names the byte (of the unpacked file) of what is damaged."""
    data = unpacked(path)
    header = read_header(data, path)
    tables = _decode(data, header, path, progress)
    offset_ms = -NET_EPOCH_MS
    streams: list[Stream] = []
    for index, (kind, (connector, ticker, class_code, _, step)) in enumerate(header.streams):
        rows = _rows(kind, index, tables, header, path)
        step_nano = nano_of_text(step.replace(",", "."), f"{path}: the price step of {ticker}")
        streams.append(Stream(_NAMES[kind], connector, ticker, class_code, step_nano, rows))
    start_ns = (header.start_ms + offset_ms) * MILLISECOND_NS
    return QshFile(path, header.recorder, header.comment, start_ns, tuple(streams))


def _decode(data: bytes, header: Header, path: Path, progress: Progress) -> list[I64]:
    """The five outputs of the kernel, each int64 [columns, rows]."""
    raw = np.frombuffer(data, np.uint8)
    kinds = np.array([kind for kind, _ in header.streams], np.uint8)
    states = np.zeros((len(kinds), qsh_kernel.STATE_COLUMNS), np.int64)
    place = np.array([header.size, header.start_ms, 0], np.int64)
    filled = np.zeros(5, np.int64)
    columns = (
        qsh_kernel.FRAME_COLUMNS, qsh_kernel.CHANGE_COLUMNS, qsh_kernel.DEAL_COLUMNS,
        qsh_kernel.AUX_COLUMNS, qsh_kernel.ORDER_COLUMNS,
    )  # fmt: skip
    outputs = [np.empty((count, CHUNK), np.int64) for count in columns]
    parts: list[list[I64]] = [[output[:, :0]] for output in outputs]
    changes_before = tenth = 0
    while True:
        frames, changes, deals, aux, orders = outputs
        status = qsh_kernel.decode(raw, place, kinds, states, frames, changes, deals, aux, orders, filled)
        if status not in (qsh_kernel.DONE, qsh_kernel.FULL):
            raise RecordingError(f"{path} is damaged: {_fault(status)} (frame at unpacked byte {place[0]:,})")
        outputs[0][2, : filled[0]] += changes_before
        changes_before += int(filled[1])
        for part, output, count in zip(parts, outputs, filled, strict=True):
            if count:
                part.append(output[:, :count].copy())
        if status == qsh_kernel.DONE:
            return [np.concatenate(part, axis=1) for part in parts]
        if place[2] > outputs[1].shape[1]:
            outputs[1] = np.empty((qsh_kernel.CHANGE_COLUMNS, int(place[2])), np.int64)
        place[2] = 0
        if (done := 10 * int(place[0]) // len(data)) > tenth and len(data) > 100 * CHUNK:
            tenth = done
            progress(f"{path.name}: {10 * done} %")


def _fault(status: int) -> str:
    return {
        qsh_kernel.CUT: "the bytes end inside a frame",
        qsh_kernel.LONG: "a number of more than ten bytes",
        qsh_kernel.NO_STREAM: "a frame of a stream that the header does not list",
        qsh_kernel.NO_COUNT: "a frame claims more level changes than bytes are left",
    }[status]


def _rows(
    kind: int, index: int, tables: list[I64], header: Header, path: Path
) -> Quotes | Deals | AuxInfo | OrderLog:
    frames, changes, deals, aux, orders = tables
    single = len(header.streams) == 1

    def of_stream(table: I64) -> I64:
        return table if single else table[:, table[0] == index]

    def recv(ms: I64, what: str) -> I64:
        wrong = np.flatnonzero(np.abs(ms - header.start_ms) > SESSION_MS)
        if len(wrong):
            raise RecordingError(
                f"{path} is damaged: the time of {what} {int(wrong[0]) + 1:,} lies more than seven days "
                "from the start of the recording"
            )
        return np.asarray((ms - NET_EPOCH_MS) * MILLISECOND_NS)

    def exch(ms: I64, recv_ns: I64, what: str) -> I64:
        given = ms != 0
        wrong = given & ((ms < header.start_ms - OLDEST_ORDER_MS) | (ms > header.start_ms + SESSION_MS))
        if wrong.any():
            raise RecordingError(
                f"{path} is damaged: the exchange time of {what} {int(np.flatnonzero(wrong)[0]) + 1:,} "
                "is far from the start of the recording"
            )
        wall_ns = np.where(given, (ms - NET_EPOCH_MS) * MILLISECOND_NS, recv_ns)
        return np.where(given, clock.wall_to_utc(wall_ns, MOSCOW), recv_ns)

    if kind == qsh_kernel.QUOTES:
        counts = np.diff(frames[2], prepend=0)
        if not single:
            changes = changes[:, np.repeat(frames[0] == index, counts)]
        mine = frames[0] == index
        return Quotes(recv(frames[1, mine], "frame"), np.cumsum(counts[mine]), *changes.copy())
    if kind == qsh_kernel.DEALS:
        _, ms, exch_ms, code, *rest = of_stream(deals)
        recv_ns = recv(ms, "deal")
        side = np.select([code == 1, code == 2], [BUY, SELL], 0).astype(np.int8)
        return Deals(recv_ns, exch(exch_ms, recv_ns, "deal"), side, *rest)
    if kind == qsh_kernel.AUX_INFO:
        _, ms, exch_ms, asks, bids, interest, px, high, low, deposit, rate = of_stream(aux)
        recv_ns = recv(ms, "record")
        return AuxInfo(
            recv_ns, exch(exch_ms, recv_ns, "record"), asks, bids, interest, px, high, low,
            np.ascontiguousarray(deposit).view(np.float64), np.ascontiguousarray(rate).view(np.float64),
        )  # fmt: skip
    _, ms, exch_ms, *rest = of_stream(orders)
    recv_ns = recv(ms, "record")
    return OrderLog(recv_ns, exch(exch_ms, recv_ns, "record"), *rest)
