"""Kind ``columns``: any CSV or Parquet table of books or trades, read by a mapping that a person wrote.

The mapping is a dictionary (``flows/column_map.py`` reads it from YAML)::

    instrument: {ticker: SBER, class_code: TQBR, kind: share, lot: 10, tick: "0.01"}   # tariff, currency too
    price_unit: "0.01"       # what 1 in a price column means; here the prices are kopecks. Default 1
    size_unit: "1"           # what 1 in a size column means, in lots; default 1
    books:
      recv_time: {column: ts, unit: ns, zone: UTC}    # unit: ns, us, ms, s or iso; a plain name means ns UTC
      exch_time: ...                                  # default: the same as recv_time
      bid_price: bid_{level}_price                    # {level} counts from 1
      bid_size: bid_{level}_qty
      ask_price: ask_{level}_price
      ask_size: ask_{level}_qty
    trades:
      recv_time: {column: ts, unit: ns}
      price: price
      size: qty
      side: {column: side, buy: [1, B, buy], sell: [-1, 2, S, sell]}                  # may be left out

A level whose size is 0 or empty, or whose price is empty, 0 or -1, is not there. Each file is taken for the
section whose columns it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from market.errors import RecordingError
from market.importers import clock, fixed
from market.importers.column_mapping import NEEDED, UNITS_NS, Mapping, Section, Time, mapping_of
from market.importers.files import Look, unpacked
from market.importers.instruments import Facts, describe
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.types import BOOK_CONSISTENT, BUY, DEPTH, I8, I64, NANO, SELL, Books, InstrumentDay, Trades

PARQUET = b"PAR1"


def accepts(seen: Look) -> bool:
    return False  # any table could be meant: a person has to say so, and how


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    if options.columns is None:
        raise RecordingError("kind columns needs a mapping of the columns: --columns mapping.yaml")
    return load_mapped(paths, mapping_of(options.columns), options, progress, "columns")


def load_mapped(
    paths: tuple[Path, ...], mapping: Mapping, options: ImportOptions, progress: Progress, source: str
) -> Imported:
    """Read ``paths`` by ``mapping``, as the kind ``source``."""
    provenance: dict[str, Any] = {
        "files": sorted(path.name for path in paths),
        "times": {
            section.what: {
                "recv_ns": f"{section.recv.column} ({section.recv.unit}, {section.recv.zone.key})",
                "exch_ns": f"{section.exch.column} ({section.exch.unit}, {section.exch.zone.key})",
            }
            for section in mapping.sections
        },
    }
    days = _days(paths, mapping, options, progress, provenance)
    return Imported(days, source, "REAL", options.tariff or mapping.tariff, provenance)


def _days(
    paths: tuple[Path, ...], mapping: Mapping, options: ImportOptions, progress: Progress,
    provenance: dict[str, Any],
) -> Iterator[InstrumentDay]:  # fmt: skip
    read = [_read(path, mapping, progress) for path in paths]
    facts = mapping.facts
    options = options.of(facts.ticker)
    tick_nano = options.tick_nano or facts.tick_nano
    if tick_nano is None:
        tick_nano = fixed.common_step(np.concatenate([part.prices() for part in read]))
        tick_nano = tick_nano * mapping.price_unit_nano // NANO
        provenance["tick"] = f"{fixed.shown(tick_nano)}: the greatest common divisor of the prices"
    facts = Facts(
        facts.ticker, facts.class_code, facts.kind, facts.lot, tick_nano or None, facts.tick_value_nano,
        facts.currency, facts.name,
    )  # fmt: skip
    instrument = describe(facts, options, provenance)
    step_nano, rest = divmod(tick_nano * NANO, mapping.price_unit_nano)
    size_nano, size_rest = divmod((options.size_step_nano or NANO) * NANO, mapping.size_unit_nano)
    if rest or size_rest or not step_nano or not size_nano:
        raise RecordingError(
            f"a tick of {fixed.shown(tick_nano)} is not a whole number of nano of the price column's unit "
            f"{fixed.shown(mapping.price_unit_nano)}; give another tick or price_unit"
        )
    books = [part.books(step_nano, size_nano) for part in read if isinstance(part, _BookColumns)]
    trades = [part.trades(step_nano, size_nano) for part in read if isinstance(part, _TradeColumns)]
    all_books = _joined(Books.empty(), books)
    if options.book_every_ns:
        all_books = all_books.rows(clock.last_of_each(all_books.recv_ns, options.book_every_ns))
    yield from clock.split_days(instrument, all_books, _joined(Trades.empty(), trades))


def _joined(empty: Any, parts: list[Any]) -> Any:
    parts = sorted((part for part in parts if len(part)), key=lambda part: int(part.recv_ns[0]))
    if not parts:
        return empty
    names = type(empty).__dataclass_fields__
    return type(empty)(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True)
class _BookColumns:
    where: str
    recv_ns: I64
    exch_ns: I64
    sides: list[list[I64]]
    """bid_price, bid_size, ask_price, ask_size by level, nano of the columns' units."""

    def prices(self) -> I64:
        values = np.concatenate([*self.sides[0], *self.sides[2]])
        return values[values > 0]

    def books(self, step_nano: int, size_nano: int) -> Books:
        n = len(self.recv_ns)
        out: list[NDArray[np.int32]] = []
        for prices, sizes in (self.sides[:2], self.sides[2:]):
            px, qty = np.zeros((2, n, DEPTH), np.int32)
            for j, (price, size) in enumerate(zip(prices, sizes, strict=True)):
                there = (size != 0) & (price != 0) & (price != -NANO)
                px[:, j] = fixed.steps(
                    np.where(there, price, 0), step_nano, f"{self.where}, prices of level {j + 1}"
                )
                qty[:, j] = fixed.steps(
                    np.where(there, size, 0), size_nano, f"{self.where}, sizes of level {j + 1}"
                )
            out += [px, qty]
        bid_px, bid_qty, ask_px, ask_qty = out
        flags = np.full(n, BOOK_CONSISTENT, np.uint8)
        return Books(self.exch_ns, self.recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags)


@dataclass(frozen=True, slots=True)
class _TradeColumns:
    where: str
    recv_ns: I64
    exch_ns: I64
    price: I64
    size: I64
    side: I8

    def prices(self) -> I64:
        return self.price[self.price > 0]

    def trades(self, step_nano: int, size_nano: int) -> Trades:
        return Trades(
            self.exch_ns, self.recv_ns, fixed.steps(self.price, step_nano, f"{self.where}, prices"),
            fixed.steps(self.size, size_nano, f"{self.where}, sizes"), self.side,
        )  # fmt: skip


def _read(path: Path, mapping: Mapping, progress: Progress) -> _BookColumns | _TradeColumns:
    raw = unpacked(path)
    header = _header(raw, mapping.delimiter, path)
    for section in mapping.sections:
        if (wanted := section.wanted(header)) is not None:
            break
    else:
        asked = "; ".join(f"{s.what}: {', '.join(_names(s))}" for s in mapping.sections)
        raise RecordingError(f"{path} has not the columns of any section of the mapping ({asked})")
    table = _table(raw, wanted, mapping.delimiter, path)
    progress(f"{path.name}: {table.num_rows:,} rows of {section.what}")
    recv_ns, exch_ns = _times(table, section.recv, path), _times(table, section.exch, path)
    if section.what == "books":
        levels = section.levels(header)
        sides = tuple(
            [_numbers(table, name, path) for name in section.names[role][:levels]] for role in NEEDED["books"]
        )
        return _BookColumns(str(path), recv_ns, exch_ns, sides)  # type: ignore[arg-type]
    side = np.zeros(table.num_rows, np.int8)
    if "side" in section.names:
        texts = table[section.names["side"][0]].to_pylist()
        codes = {
            text: BUY if text in section.buy else SELL if text in section.sell else 0 for text in set(texts)
        }
        side = np.array([codes[text] for text in texts], np.int8)
    price, size = (_numbers(table, section.names[role][0], path) for role in ("price", "size"))
    return _TradeColumns(str(path), recv_ns, exch_ns, price, size, side)


def _names(section: Section) -> list[str]:
    return [section.recv.column, *(names[0] for names in section.names.values())]


def _header(raw: bytes, delimiter: str, path: Path) -> list[str]:
    try:
        if raw.startswith(PARQUET):
            return list(pq.read_schema(pa.BufferReader(raw)).names)
        with csv.open_csv(
            pa.BufferReader(raw), parse_options=csv.ParseOptions(delimiter=delimiter)
        ) as reader:
            return list(reader.schema.names)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise RecordingError(f"{path} cannot be read as a table: {error}") from error


def _table(raw: bytes, wanted: list[str], delimiter: str, path: Path) -> pa.Table:
    """The columns as text: what a decimal point means must not be decided by a float."""
    try:
        if raw.startswith(PARQUET):
            table = pq.read_table(pa.BufferReader(raw), columns=wanted)
            return pa.table({name: _as_text(table[name]) for name in wanted})
        return csv.read_csv(
            pa.BufferReader(raw),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise RecordingError(f"{path} cannot be read as a table: {error}") from error


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    return pc.fill_null(column.cast(pa.string()), "")


def _numbers(table: pa.Table, name: str, path: Path) -> I64:
    column = table[name]
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    try:
        return fixed.nano_of_column(pc.if_else(blank, "0", column))
    except fixed.BadDecimal as error:
        raise RecordingError(f"{path}, column {name}, row {error.index + 1:,}: {error}") from error


def _times(table: pa.Table, time: Time, path: Path) -> I64:
    column, where = table[time.column], f"{path}, column {time.column}"
    try:
        if time.unit == "s":
            ns = fixed.nano_of_column(column, rounded=True)
        elif time.unit == "iso":
            ns = np.array([clock.iso_ns(text) for text in column.to_pylist()], np.int64)
        else:
            ns = column.cast(pa.int64()).to_numpy()
            scale = UNITS_NS[time.unit]
            clock.plausible(np.clip(ns, 0, clock.LATEST_NS // scale) * scale, where)
            ns = ns * scale
    except fixed.BadDecimal as error:
        raise RecordingError(f"{where}, row {error.index + 1:,}: {error}") from error
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise RecordingError(f"{where} is no time in {time.unit}: {error}") from error
    clock.plausible(ns, where)
    return clock.wall_to_utc(ns, time.zone) if time.zone.key != "UTC" else ns


COLUMNS = Importer("columns", "CSV or Parquet tables with a mapping (--columns mapping.yaml)", accepts, load)
