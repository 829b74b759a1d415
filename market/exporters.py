"""A recording as JSON lines: for other programs and for eyes. The ``jsonl`` importer reads it back.

The first line is ``{"type": "info", ...}`` with what ``recording.json`` says about the part that follows.
Then one line for each event, in the order of ``market.stream`` (at equal times our own orders come last) and,
across instruments, by time::

    {"type":"book","ticker":"SIMP","exch_ns":1,"recv_ns":2,"flags":1,"bids":[[1000,5],[999,7]],"asks":[[1001,3]]}
    {"type":"trade","ticker":"SIMP","exch_ns":1,"recv_ns":2,"px":1001,"qty":2,"side":1}
    {"type":"own","ticker":"SIMP","event_ns":3,"kind":1,"client_order_id":"a","side":1,"px":1001,"qty":2,
     "fee_nano":0}

Whole numbers throughout: ticks, lots, nanoseconds. Empty levels at the end of a side are left out.
"""

from __future__ import annotations

import gzip
import heapq
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from market.errors import RecordingError
from market.recording import Recording, RecordingInfo
from market.stream import BOOK, TRADE
from market.types import I32, I64, InstrumentDay, OwnEvents

CHUNK = 1_024
"""So many events become Python objects at once."""
GZIP_LEVEL = 6
OWN = 2
"""Beside the kinds of ``market.stream``: an event of our own orders."""

Progress = Callable[[str], None]

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: lines by type, and bytes on disk."""

    books: int
    trades: int
    own: int
    size: int


def export_jsonl(
    recording: Recording,
    out: Path,
    *,
    ticker: str | None = None,
    day: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write ``recording`` (or one ticker, or one day of it) to ``out``, gzipped when that ends in ``.gz``.

    In memory is one day of one instrument; days with several instruments pass through temporary files beside
    ``out``, as large as the lines. The same recording gives the same bytes. ``out`` appears when it is
    complete and replaces an older file. RecordingError when nothing is chosen or it cannot be written.
    """
    out = Path(out)
    info = _chosen(recording.info, ticker, day)
    days = sorted({one for held in info.days.values() for one in held})
    written = (0, 0, 0)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _opened(draft, zipped=out.suffix == ".gz") as f:
            f.write(_line({"type": "info", **info.to_dict()}))
            for one in days:
                tickers = [t for t in sorted(info.days) if one in info.days[t]]
                counts = _write_day(recording, one, tickers, f, out.parent)
                written = (written[0] + counts[0], written[1] + counts[1], written[2] + counts[2])
                if progress is not None:
                    progress(f"{one}: {counts[0]:,} books, {counts[1]:,} trades of {', '.join(tickers)}")
        size = draft.stat().st_size
        draft.replace(out)
    except OSError as error:
        raise RecordingError(
            f"{out} cannot be written: {error.strerror or error}; check the folder and the free space"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Exported(*written, size)


def _chosen(info: RecordingInfo, ticker: str | None, day: str | None) -> RecordingInfo:
    if ticker is not None:
        info.instrument(ticker)
    days = {
        t: tuple(d for d in held if day in (None, d)) for t, held in info.days.items() if ticker in (None, t)
    }
    days = {t: held for t, held in days.items() if held}
    if not days:
        known = sorted({d for held in info.days.values() for d in held})
        raise RecordingError(f"the recording has no day {day!r} of that; it has {', '.join(known) or 'none'}")
    own = {t: tuple(d for d in info.own.get(t, ()) if d in held) for t, held in days.items()}
    return replace(
        info,
        instruments=tuple(i for i in info.instruments if i.ticker in days),
        days=days,
        own={t: held for t, held in own.items() if held},
    )


def _write_day(
    recording: Recording, day: str, tickers: list[str], f: IO[bytes], folder: Path
) -> tuple[int, int, int]:
    """The lines of one day of several instruments; how many books, trades and own events."""
    books = trades = own = 0
    with ExitStack() as stack:
        spills: list[Iterator[tuple[int, int, bytes]]] = []
        for index, ticker in enumerate(tickers):
            item = recording.read(ticker, day)
            books, trades = books + len(item.books), trades + len(item.trades)
            own += len(item.own) if item.own is not None else 0
            if len(tickers) == 1:
                f.writelines(line for _, line in _events(item))
                break
            spill = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            for at_ns, line in _events(item):
                spill.write(b"%d\t%b" % (at_ns, line))
            spill.seek(0)
            spills.append(_spilled(spill, index))
        f.writelines(line for _, _, line in heapq.merge(*spills))
    return books, trades, own


def _spilled(spill: IO[bytes], index: int) -> Iterator[tuple[int, int, bytes]]:
    """Sorted by time, then by ticker; lines of one instrument keep their order.

    ``heapq.merge`` compares whole items only when they come from different inputs, and those differ in index.
    """
    for text in spill:
        at_ns, _, line = text.partition(b"\t")
        yield int(at_ns), index, line


def _events(item: InstrumentDay) -> Iterator[tuple[int, bytes]]:
    """(time, line) in the order of replay. The time is the latest so far: a table always keeps its order."""
    own = OwnEvents.empty() if item.own is None else item.own
    times = [
        np.maximum.accumulate(stamps)
        for stamps in (item.trades.recv_ns, item.books.recv_ns, own.event_ns)
        if len(stamps)
    ]
    at_ns = np.concatenate(times) if times else np.zeros(0, np.int64)
    order = np.argsort(at_ns, kind="stable")  # as market.stream: at equal times trades, then books
    first_book, first_own = len(item.trades), len(item.trades) + len(item.books)
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        lines = {
            TRADE: _trade_lines(item, rows[rows < first_book]),
            BOOK: _book_lines(item, rows[(rows >= first_book) & (rows < first_own)] - first_book),
            OWN: _own_lines(item, own, rows[rows >= first_own] - first_own),
        }
        kinds = (rows >= first_book).astype(np.int8) + (rows >= first_own)
        for time_ns, kind in zip(at_ns[rows].tolist(), kinds.tolist(), strict=True):
            yield time_ns, next(lines[kind])


def _trade_lines(item: InstrumentDay, rows: I64) -> Iterator[bytes]:
    t = item.trades.rows(rows)
    names = ("exch_ns", "recv_ns", "px", "qty", "side")
    return _lines("trade", item, {name: getattr(t, name).tolist() for name in names})


def _book_lines(item: InstrumentDay, rows: I64) -> Iterator[bytes]:
    b = item.books.rows(rows)
    flat = {"exch_ns": b.exch_ns.tolist(), "recv_ns": b.recv_ns.tolist(), "flags": b.flags.tolist()}
    sides = {"bids": _levels(b.bid_px, b.bid_qty), "asks": _levels(b.ask_px, b.ask_qty)}
    return _lines("book", item, {**flat, **sides})


def _own_lines(item: InstrumentDay, own: OwnEvents, rows: I64) -> Iterator[bytes]:
    chosen = own.rows(rows)
    names = ("event_ns", "kind", "client_order_id", "side", "px", "qty", "fee_nano")
    return _lines("own", item, {name: getattr(chosen, name).tolist() for name in names})


def _lines(kind: str, item: InstrumentDay, columns: dict[str, list[Any]]) -> Iterator[bytes]:
    head = {"type": kind, "ticker": item.instrument.ticker}
    for values in zip(*columns.values(), strict=True):
        yield _line({**head, **dict(zip(columns, values, strict=True))})


def _levels(px: I32, qty: I32) -> list[list[list[int]]]:
    """Pairs up to the last level that is not empty: a hole before it is written as [0, 0]."""
    pairs: list[list[list[int]]] = np.stack((px, qty), axis=2).tolist()
    held = (px != 0) | (qty != 0)
    last = np.where(held.any(axis=1), px.shape[1] - np.argmax(held[:, ::-1], axis=1), 0)
    return [levels[:n] for levels, n in zip(pairs, last.tolist(), strict=True)]


def _line(fields: dict[str, Any]) -> bytes:
    return _ENCODER.encode(fields).encode() + b"\n"


@contextmanager
def _opened(path: Path, *, zipped: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if not zipped:
            yield raw
            return
        # Neither name nor time of day in the header: the same recording gives the same bytes.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as f:
            yield f  # type: ignore[misc]
