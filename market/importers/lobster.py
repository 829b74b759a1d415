"""Kind ``lobster``: message and order-book CSV of lobsterdata.com, as the zip archive or as the two files.

Row k of the order book is the state after row k of the messages. Times are seconds after midnight in New
York, prices US dollars x 10000. The direction of a message is that of the resting order, so an execution's
aggressor is on the other side. Hidden executions are trades as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray

from market.errors import RecordingError
from market.importers import fixed
from market.importers.clock import last_of_each, midnight_ns
from market.importers.files import Look, members, unpacked
from market.importers.instruments import Facts, describe
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.types import BOOK_CONSISTENT, BUY, DEPTH, I8, I64, SECOND_NS, SELL, Books, InstrumentDay, Trades

NEW_YORK = ZoneInfo("America/New_York")
NAME = re.compile(
    r"(?P<stem>(?P<ticker>.+)_(?P<day>\d{4}-\d\d-\d\d)_\d+_\d+)_(?P<what>message|orderbook)_\d+\.csv"
)
ABSENT = 9_999_999_999
"""Price, with a minus on the bid side, of a level that is not there."""
UNIT_NANO = 100_000
"""One price unit of the files, 1/10000 dollar, in nano-dollars."""
CENT_NANO = 10_000_000
EXECUTION, HIDDEN, CROSS, HALT = 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class Messages:
    """int64 [n]; ``kind`` int8; ``px`` in 1/10000 dollar."""

    recv_ns: I64
    kind: I8
    order_id: I64
    size: I64
    px: I64
    direction: I64


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of one day, unpacked."""

    ticker: str
    day: str
    where: str
    message: bytes
    orderbook: bytes


def accepts(seen: Look) -> bool:
    if seen.members:
        return any(NAME.fullmatch(PurePosixPath(name).name) for name in seen.members)
    return NAME.fullmatch(_plain(seen.path.name)) is not None


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    provenance: dict[str, Any] = {
        "files": sorted(path.name for path in paths),
        "recv_ns": "the exchange's stamp: New York wall time in the file, up to nanoseconds",
        "exch_ns": "the same as recv_ns: the files hold no receive time",
    }
    days = _days(paths, options, progress, provenance)
    return Imported(days, "lobster", "REAL", options.tariff or "trader", provenance)


def _plain(name: str) -> str:
    return name.removesuffix(".gz")


def pairs(paths: tuple[Path, ...]) -> Iterator[Pair]:
    """The days in ``paths``, one in memory at a time; RecordingError when half of a day is missing."""
    loose: dict[str, dict[str, Path]] = {}
    for path in paths:
        if not path.name.endswith(".zip"):
            if (match := NAME.fullmatch(_plain(path.name))) is None:
                raise RecordingError(
                    f"{path} is not called like a LOBSTER file, TICKER_DAY_..._message_N.csv"
                )
            loose.setdefault(match["stem"], {})[match["what"]] = path
            continue
        packed: dict[str, dict[str, bytes]] = {}
        for name, content in members(path).items():
            if match := NAME.fullmatch(PurePosixPath(name).name):
                packed.setdefault(match["stem"], {})[match["what"]] = content
        if not packed:
            raise RecordingError(f"{path} holds no LOBSTER files")
        for stem in sorted(packed):
            yield _pair(stem, str(path), packed[stem])
    for stem in sorted(loose):
        parts = {what: unpacked(path) for what, path in loose[stem].items()}
        yield _pair(stem, str(next(iter(loose[stem].values())).parent / stem), parts)


def _pair(stem: str, where: str, parts: dict[str, bytes]) -> Pair:
    for what in ("message", "orderbook"):
        if what not in parts:
            raise RecordingError(f"{where}: the {what} file of {stem} is missing; both are needed")
    ticker, day, *_ = stem.rsplit("_", 3)
    return Pair(ticker, day, where, parts["message"], parts["orderbook"])


def _days(
    paths: tuple[Path, ...], options: ImportOptions, progress: Progress, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    for pair in pairs(paths):
        progress(f"{pair.ticker} {pair.day}: {len(pair.orderbook) / 1e6:.0f} MB of books")
        messages, levels = read_pair(pair)
        instrument = describe(
            Facts(
                pair.ticker, "NASDAQ", "share", 1, CENT_NANO, currency="usd",
                assumed="sizes are single shares; a price step of one cent",
            ),
            options,
            provenance,
        )  # fmt: skip
        told: dict[str, Any] = {}
        trades = trades_of(messages, instrument.tick_nano, told)
        keep = last_of_each(messages.recv_ns, options.book_every_ns)
        books = books_of(messages.recv_ns[keep], levels[keep], instrument.tick_nano, pair.where)
        provenance.setdefault("days", {})[f"{instrument.ticker}/{pair.day}"] = told
        yield InstrumentDay(instrument, pair.day, books, trades)


def _table(raw: bytes, types: dict[str, pa.DataType] | None, where: str) -> pa.Table:
    try:
        return csv.read_csv(
            pa.py_buffer(raw),
            read_options=csv.ReadOptions(
                autogenerate_column_names=types is None, column_names=list(types) if types else None
            ),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except (pa.ArrowException, ValueError) as error:
        raise RecordingError(f"{where} cannot be read as CSV: {error}") from error


def read_pair(pair: Pair) -> tuple[Messages, I64]:
    """The messages and the book rows int64 [n, 4 x levels] of one day, as they stand in the files."""
    wide = {"order_id": pa.int64(), "size": pa.int64(), "px": pa.int64(), "direction": pa.int64()}
    text = _table(
        pair.message, {"time": pa.string(), "kind": pa.int8(), **wide}, f"{pair.where}, messages"
    )  # fmt: skip
    book = _table(pair.orderbook, None, f"{pair.where}, order book")
    if book.num_columns % 4 or not book.num_columns:
        raise RecordingError(f"{pair.where}, order book: {book.num_columns} columns, a level takes four")
    if text.num_rows != book.num_rows:
        raise RecordingError(
            f"{pair.where}: {text.num_rows:,} messages but {book.num_rows:,} books; a file is cut off"
        )
    try:
        seconds_nano = fixed.nano_of_column(text["time"], rounded=True)
        columns = [text[name].to_numpy() for name in ("kind", *wide)]
        levels = np.empty((book.num_rows, book.num_columns), np.int64)
        for j, column in enumerate(book.columns):
            levels[:, j] = column.cast(pa.int64()).to_numpy()
    except fixed.BadDecimal as error:
        raise RecordingError(f"{pair.where}, messages, line {error.index + 1:,}: {error}") from error
    except (pa.ArrowException, ValueError) as error:
        raise RecordingError(f"{pair.where}: a value is missing or no whole number: {error}") from error
    if len(seconds_nano) and (seconds_nano.min() < 0 or seconds_nano.max() > 2 * 86_400 * SECOND_NS):
        raise RecordingError(f"{pair.where}: a time is not in seconds after midnight")
    return Messages(midnight_ns(pair.day, NEW_YORK) + seconds_nano, *columns), levels


def books_of(recv_ns: I64, levels: I64, tick_nano: int, where: str) -> Books:
    """Books from rows of (ask price, ask size, bid price, bid size) per level."""
    depth = min(levels.shape[1] // 4, DEPTH)
    sides: list[NDArray[np.int32]] = []
    for first, sign in ((2, -1), (0, 1)):
        px, size = levels[:, first : 4 * depth : 4], levels[:, first + 1 : 4 * depth : 4]
        there = (px != sign * ABSENT) & (size != 0)
        full_px, full_qty = np.zeros((2, len(levels), DEPTH), np.int32)
        full_px[:, :depth] = _ticks(np.where(there, px, 0), tick_nano, f"{where}, book prices")
        full_qty[:, :depth] = fixed.narrow(np.where(there, size, 0).ravel(), f"{where}, sizes").reshape(
            px.shape
        )
        sides += [full_px, full_qty]
    bid_px, bid_qty, ask_px, ask_qty = sides
    flags = np.full(len(levels), BOOK_CONSISTENT, np.uint8)
    return Books(recv_ns.copy(), recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags)


def _ticks(px: I64, tick_nano: int, what: str) -> NDArray[np.int32]:
    limit = fixed.INT32_MAX
    if px.size and (px.min() < -limit or px.max() > limit):
        raise RecordingError(f"{what}: a price beyond 32 bits of 1/10000 dollar")
    return fixed.steps(px.ravel() * UNIT_NANO, tick_nano, what).reshape(px.shape)


def trades_of(messages: Messages, tick_nano: int, told: dict[str, Any]) -> Trades:
    """Visible and hidden executions. A hidden one between two ticks is moved to the nearest tick towards the
    resting side, and counted: a recording has whole ticks only."""
    kind = messages.kind
    told |= {
        "messages": len(kind),
        "visible_executions": int(np.count_nonzero(kind == EXECUTION)),
        "hidden_executions": int(np.count_nonzero(kind == HIDDEN)),
        "cross_trades_left_out": int(np.count_nonzero(kind == CROSS)),
        "halt_messages": int(np.count_nonzero(kind == HALT)),
    }
    rows = np.flatnonzero((kind == EXECUTION) | (kind == HIDDEN))
    px_nano, direction = (
        fixed.narrow(messages.px[rows], "execution prices") * np.int64(UNIT_NANO),
        messages.direction[rows],
    )
    down, rest = np.divmod(px_nano, tick_nano)
    told["executions_between_ticks"] = int(np.count_nonzero(rest))
    px = np.where((rest > 0) & (direction < 0), down + 1, down)
    side = np.where(direction > 0, SELL, BUY).astype(np.int8)
    stamps = messages.recv_ns[rows]
    return Trades(
        stamps.copy(), stamps, px.astype(np.int32), fixed.narrow(messages.size[rows], "execution sizes"), side
    )


LOBSTER = Importer(
    "lobster", "LOBSTER archives (*.zip) or *_message_*.csv with *_orderbook_*.csv", accepts, load
)
