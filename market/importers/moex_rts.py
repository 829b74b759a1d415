"""Kind ``moex-rts``: the RTS index future of the Moscow Exchange, two Parquet files a day.

``<TICKER>_<day>[_...].book20.parquet``: ``ts_ms`` (receive, UTC), ``bp1 bq1 ap1 aq1 ... aq20`` in ticks and
contracts, absent level price -1. ``<same>.trades.parquet``: ``recv_ts_ms`` (UTC), ``exch_ts_ms_msk`` (Moscow
wall clock written as if UTC, whole seconds), ``side`` (1 buyer, 2 seller aggressor), ``price`` (ticks),
``vol``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from market.days import moscow_day
from market.errors import RecordingError
from market.importers.clock import last_of_each
from market.importers.files import Look
from market.importers.fixed import narrow
from market.importers.instruments import Facts, describe
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.types import (
    BOOK_CONSISTENT,
    BUY,
    DEPTH,
    MILLISECOND_NS,
    NANO,
    SELL,
    Books,
    InstrumentDay,
    Trades,
)

BOOK_SUFFIX = ".book20.parquet"
TRADES_SUFFIX = ".trades.parquet"
UTC_OFFSET_MS = 4 * 3600 * 1000
"""Moscow kept UTC+4 all year from 2011-03-27 to 2014-10-26, where these files come from."""

RTS_12_13 = Facts(
    ticker="RTS-12.13",
    class_code="SPBFUT",
    kind="future",
    lot=1,
    tick_nano=10 * NANO,
    tick_value_nano=6_550_000_000,
    name="RTS index future, December 2013",
)
INSTRUMENTS = {RTS_12_13.ticker: RTS_12_13}
"""The value of a tick is not in the files, so each contract has to be known, or given."""

TICK_VALUE_NOTE = "one tick = 10 points = 0.2 USD at about 32.75 RUB on 2013-12-10 = 6.55 RUB (approximation)"


def accepts(seen: Look) -> bool:
    if seen.is_dir:
        return any(seen.path.glob(f"*{BOOK_SUFFIX}")) and any(seen.path.glob(f"*{TRADES_SUFFIX}"))
    return seen.path.name.endswith((BOOK_SUFFIX, TRADES_SUFFIX))


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    pairs = list(dict.fromkeys(pair for path in paths for pair in _pairs(path)))
    provenance: dict[str, Any] = {
        "files": sorted(name.name for pair in pairs for name in pair),
        "book_exch_ns": "unknown in the source: equal to the receive time",
        "trade_exch_ns": "whole seconds in the source",
    }
    if not options.tick_value_nano:
        provenance["tick_value"] = TICK_VALUE_NOTE
    days = _days(pairs, options, provenance)
    return Imported(days, "moex-rts", "REAL", options.tariff or "trader", provenance)


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    """Book and trades files that belong together, in the order of their names."""
    if path.is_dir():
        stems = {p.name.removesuffix(BOOK_SUFFIX) for p in path.glob(f"*{BOOK_SUFFIX}")}
        stems |= {p.name.removesuffix(TRADES_SUFFIX) for p in path.glob(f"*{TRADES_SUFFIX}")}
        folder = path
    else:
        stems, folder = {path.name.removesuffix(BOOK_SUFFIX).removesuffix(TRADES_SUFFIX)}, path.parent
    pairs = [(folder / (stem + BOOK_SUFFIX), folder / (stem + TRADES_SUFFIX)) for stem in sorted(stems)]
    for pair in pairs:
        for file in pair:
            if not file.is_file():
                raise RecordingError(f"{file} is missing: book and trades of one day are needed together")
    if not pairs:
        raise RecordingError(f"{path} holds no *{BOOK_SUFFIX} with its *{TRADES_SUFFIX}")
    return pairs


def _days(
    pairs: list[tuple[Path, Path]], options: ImportOptions, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    for book_file, trades_file in pairs:
        ticker = book_file.name.partition("_")[0]
        facts = INSTRUMENTS.get(ticker)
        if facts is None:
            given = options.of(ticker)
            if not (given.tick_nano and given.tick_value_nano):
                raise RecordingError(
                    f"{book_file.name}: the tick value of {ticker!r} is not known; it is known of "
                    f"{', '.join(INSTRUMENTS)}. Give both steps, for instance --tick 10 --tick-value 6.55"
                )
            facts = Facts(ticker, "SPBFUT", "future", 1)
        instrument = describe(facts, options, provenance)
        books, trades = _books(book_file), _trades(trades_file)
        if options.book_every_ns:
            books = books.rows(last_of_each(books.recv_ns, options.book_every_ns))
        if not len(books):
            raise RecordingError(f"{book_file} holds no book")
        yield InstrumentDay(instrument, moscow_day(int(books.recv_ns[0])).name, books, trades)


def _read(file: Path, names: list[str]) -> dict[str, NDArray[np.int64]]:
    try:
        if missing := set(names) - set(pq.read_schema(file).names):
            raise RecordingError(f"{file} has no column {', '.join(sorted(missing))}")
        table = pq.read_table(file, columns=names, partitioning=None)
        return {name: table.column(name).cast(pa.int64()).to_numpy() for name in names}
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{file} cannot be read as Parquet: {error}") from error


def _books(file: Path) -> Books:
    levels = [f"{side}{j}" for j in range(1, DEPTH + 1) for side in ("bp", "bq", "ap", "aq")]
    columns = _read(file, ["ts_ms", *levels])
    recv_ns = columns["ts_ms"] * MILLISECOND_NS
    sides: list[NDArray[np.int32]] = []
    for px_name, qty_name in (("bp", "bq"), ("ap", "aq")):
        px = np.empty((len(recv_ns), DEPTH), np.int32)
        qty = np.empty_like(px)
        for j in range(DEPTH):
            price = narrow(columns[f"{px_name}{j + 1}"], f"{file}, {px_name}{j + 1}")
            size = narrow(columns[f"{qty_name}{j + 1}"], f"{file}, {qty_name}{j + 1}")
            px[:, j] = np.where((price == -1) & (size == 0), 0, price)
            qty[:, j] = size
        sides += [px, qty]
    flags = np.full(len(recv_ns), BOOK_CONSISTENT, np.uint8)
    bid_px, bid_qty, ask_px, ask_qty = sides
    return Books(recv_ns.copy(), recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags)


def _trades(file: Path) -> Trades:
    columns = _read(file, ["recv_ts_ms", "exch_ts_ms_msk", "side", "price", "vol"])
    side = np.select([columns["side"] == 1, columns["side"] == 2], [BUY, SELL], 0).astype(np.int8)
    return Trades(
        (columns["exch_ts_ms_msk"] - UTC_OFFSET_MS) * MILLISECOND_NS,
        columns["recv_ts_ms"] * MILLISECOND_NS,
        narrow(columns["price"], f"{file}, price"),
        narrow(columns["vol"], f"{file}, vol"),
        side,
    )


MOEX_RTS = Importer("moex-rts", f"a folder with *{BOOK_SUFFIX} and *{TRADES_SUFFIX}", accepts, load)
