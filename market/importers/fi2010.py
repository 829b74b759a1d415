"""Kind ``fi2010``: the benchmark's text matrices, 149 rows by N columns.

Rows 1 to 40: ask price, ask size, bid price, bid size of ten levels; rows 41 to 144: hand-made features; rows
145 to 149: labels for the next 10, 20, 30, 50 and 100 events (1 up, 2 stationary, 3 down by the data set's
page).
A column is ten order-book events; no file holds a time.

Only the DecPre files hold prices (times a power of ten that is not stated); ZScore and MinMax are normalised
and good for benchmarks only: ``read_matrix`` returns any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.days import MOSCOW
from market.errors import RecordingError
from market.importers import fixed
from market.importers.clock import midnight_ns, split_days
from market.importers.files import Look, lines
from market.importers.instruments import Facts, describe
from market.importers.source import NO_OPTIONS, Imported, Importer, ImportOptions, Progress
from market.types import BOOK_CONSISTENT, DEPTH, NANO, SECOND_NS, Books, InstrumentDay, Trades

ROWS = 149
BOOK_ROWS = 40
FEATURE_ROWS = 144
LEVELS = 10
HORIZONS = (10, 20, 30, 50, 100)
"""Events ahead of each label row."""
FIRST_DAY = "2010-06-01"
COLUMN_NS = SECOND_NS
"""Made-up distance of two columns."""
OTHER_STOCK = 0.05
"""A mid that moves by more than this share from one column to the next is another stock's: the files hold
five stocks one after the other and do not say where one ends."""
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Matrix:
    """``x`` float64 [N, 144], ``labels`` int8 [N, 5] (columns: HORIZONS), as the file has them."""

    x: NDArray[np.float64]
    labels: NDArray[np.int8]


def read_matrix(path: Path) -> Matrix:
    """Any variant, for benchmarks. RecordingError names the line that is not as it has to be."""
    rows = _rows(path)
    labels = np.stack(rows[FEATURE_ROWS:], axis=1)
    if not np.isin(labels, (1, 2, 3)).all():
        raise RecordingError(f"{path}: rows {FEATURE_ROWS + 1} to {ROWS} are no labels of 1, 2 and 3")
    return Matrix(np.stack(rows[:FEATURE_ROWS], axis=1), labels.astype(np.int8))


def _rows(path: Path, count: int = ROWS) -> list[NDArray[np.float64]]:
    rows: list[NDArray[np.float64]] = []
    for number, line in lines(path):
        if len(rows) == count:
            break
        try:
            row = np.array(line.split(), np.float64)
        except ValueError as error:
            raise RecordingError(f"{path}, line {number}: {error}") from error
        if not len(row) or not np.isfinite(row).all() or (rows and len(row) != len(rows[0])):
            raise RecordingError(
                f"{path}, line {number}: {len(row):,} numbers, or one is not finite; "
                f"the lines before have {len(rows[0]) if rows else 0:,}"
            )
        rows.append(row)
    if len(rows) < count:
        raise RecordingError(f"{path} has {len(rows)} rows, an FI-2010 matrix has {ROWS}")
    return rows


def accepts(seen: Look) -> bool:
    """By name (the benchmark's files all have it), since a matrix of numbers looks like any other."""
    name = seen.path.name
    return name.endswith(".txt") and "Dst_" in name and "_CF_" in name


def variant(rows: list[NDArray[np.float64]]) -> str:
    """DecPre, ZScore or MinMax, by what the book rows look like."""
    prices = np.stack(rows[:BOOK_ROWS:2])
    if (prices < 0).any():
        return "ZScore"
    asks, bids = prices[0::2], prices[1::2]
    ordered = (
        (asks[0] > bids[0])
        & (np.diff(asks, axis=0) > 0).all(axis=0)
        & (np.diff(bids, axis=0) < 0).all(axis=0)
    )
    return "DecPre" if ordered.mean() > 0.9 else "MinMax"


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    provenance: dict[str, Any] = {
        "files": sorted(path.name for path in paths),
        "recv_ns": f"made up: {COLUMN_NS // SECOND_NS} s between two columns, from {FIRST_DAY}; a column is "
        "ten order-book events at unknown times",
        "exch_ns": "equal to recv_ns",
        "prices": "in units of the file's decimal precision, a power of ten that it does not state",
        "trades": "none in the files",
        "instruments_are": f"stretches between jumps of the mid of more than {OTHER_STOCK:.0%}: "
        "the files name no stock",
    }
    days = _days(paths, options, progress, provenance)
    return Imported(days, "fi2010", "REAL", options.tariff or "free", provenance)


def _days(
    paths: tuple[Path, ...], options: ImportOptions, progress: Progress, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    if len(paths) != 1:
        raise RecordingError(
            f"{len(paths)} FI-2010 files at once: their stocks have no names; ingest them apart"
        )
    (path,) = paths
    rows = _rows(path, BOOK_ROWS)
    if (found := variant(rows)) != "DecPre":
        raise RecordingError(
            f"{path} is the {found} variant: its numbers are normalised and no prices. Ingest the DecPre "
            "variant (NoAuction_DecPre); for benchmarks market.importers.fi2010.read_matrix reads this one"
        )
    nano = np.rint(np.stack(rows) * 10.0**_DECIMALS).astype(np.int64)
    px, size = nano[0::2], nano[1::2]
    tick_nano = options.tick_nano or fixed.common_step(px.ravel())
    size_nano = options.size_step_nano or fixed.common_step(size.ravel())
    if tick_nano <= 0 or size_nano <= 0:
        raise RecordingError(f"{path} holds no price or no size")
    provenance["steps"] = (
        f"{fixed.shown(tick_nano)} (price), {fixed.shown(size_nano)} (size): greatest common divisors"
    )
    ticks: Any = fixed.steps(px.ravel(), tick_nano, f"{path}, prices").reshape(px.shape)
    lots: Any = fixed.steps(size.ravel(), size_nano, f"{path}, sizes").reshape(size.shape)
    mid = ticks[0].astype(np.float64) + ticks[1]
    jumps = np.flatnonzero(np.abs(np.diff(mid)) > OTHER_STOCK * mid[:-1]) + 1
    progress(f"{path.name}: {ticks.shape[1]:,} books in {len(jumps) + 1} stretches")
    name = options.ticker or "FI2010"
    for index, part in enumerate(np.split(np.arange(ticks.shape[1]), jumps), start=1):
        ticker = f"{name}-{index}" if len(jumps) else name
        value_nano = options.tick_value_nano or max(1, tick_nano * size_nano // NANO)
        facts = Facts(ticker, "FI2010", "share", options.lot or 1, tick_nano, value_nano, "eur")
        instrument = describe(facts, NO_OPTIONS, provenance)
        yield from split_days(instrument, _books(ticks[:, part], lots[:, part]), Trades.empty())


def _books(ticks: Any, lots: Any) -> Books:
    """From rows that alternate ask and bid, level by level; one column a book."""
    n = len(ticks[0])
    books = Books.empty(n)
    for first, px, qty in ((0, books.ask_px, books.ask_qty), (1, books.bid_px, books.bid_qty)):
        there = (ticks[first::2].T > 0) & (lots[first::2].T > 0)
        px[:, :LEVELS] = np.where(there, ticks[first::2].T, 0)
        qty[:, :LEVELS] = np.where(there, lots[first::2].T, 0)
    stamps = midnight_ns(FIRST_DAY, MOSCOW) + COLUMN_NS * np.arange(n, dtype=np.int64)
    return Books(stamps, stamps.copy(), books.bid_px, books.bid_qty, books.ask_px, books.ask_qty,
                 np.full(n, BOOK_CONSISTENT, np.uint8))  # fmt: skip


assert LEVELS <= DEPTH
FI2010 = Importer("fi2010", "FI-2010 matrices (*Dst_*_CF_*.txt), the DecPre variant", accepts, load)
