"""Kind ``jsonl``: JSON lines, plain or gzip: this product's own export, or the books of the original system.

The export (``market.exporters``) comes back as the same recording, byte for byte. The original's books are
``{"figi"|"instrument": ..., "time": ..., "bids": [{"price": ..., "quantity": ...}, ...], "asks": [...]}``; a
price is a number, a text or ``{"units": ..., "nano": ...}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from market.errors import RecordingError
from market.importers import clock, fixed
from market.importers.files import Look, lines
from market.importers.instruments import Facts, describe
from market.importers.jsonl_tables import BadLine, Days
from market.importers.own import described_itself, thinned
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.recording.info import RecordingInfo, info_of
from market.types import BOOK_CONSISTENT, DEPTH, NANO, Books, InstrumentDay, Trades

PROGRESS_LINES = 250_000

_decoder = json.JSONDecoder(parse_float=str)


def accepts(seen: Look) -> bool:
    line = seen.first_line()
    if not line.startswith(b"{"):
        return False
    keys = line[:4096].replace(b" ", b"")
    return b'"type":"info"' in keys or (
        b'"bids":[' in keys and b'"time":' in keys and (b'"figi":' in keys or b'"instrument":' in keys)
    )


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    first = _first(paths[0])
    if first.get("type") != "info":
        return _books_of_the_original(paths, options, progress)
    if len(paths) != 1:
        raise RecordingError(
            f"{len(paths)} exports at once: each is a recording of its own; ingest them apart"
        )
    described_itself(options, "an export")
    del first["type"]
    info = info_of(first, f"{paths[0]}, line 1")
    days = thinned(_days(paths[0], info, progress), options)
    return Imported(days, info.source, info.watermark, options.tariff or info.tariff, info.provenance)


def _first(path: Path) -> dict[str, Any]:
    for number, line in lines(path):
        return _parsed(line, path, number)
    raise RecordingError(f"{path} is empty")


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}, line {number:,} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RecordingError(f"{path}, line {number:,} is no JSON object")
    return value


def _days(path: Path, info: RecordingInfo, progress: Progress) -> Iterator[InstrumentDay]:
    """The days as soon as they are complete: an export holds one day of all instruments after another."""
    days = Days(info)
    number = 1
    try:
        for number, line in lines(path):
            if number > 1:
                yield from days.add(number, _parsed(line, path, number))
            if number % PROGRESS_LINES == 0:
                progress(f"{path.name}: {number:,} lines")
        yield from days.rest()
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        number = error.number if isinstance(error, BadLine) else number
        raise RecordingError(f"{path}, line {number:,} is no line of an export: {said}") from error


def _books_of_the_original(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    provenance: dict[str, Any] = {
        "files": sorted(path.name for path in paths),
        "recv_ns": "the field time of each line; UTC where it names no zone",
        "exch_ns": "equal to recv_ns: a line has one time",
        "trades": "none in the files",
    }
    days = _original_days(paths, options, progress, provenance)
    return Imported(days, "jsonl", "REAL", options.tariff or "trader", provenance)


class _Original:
    """The books of one instrument, in decimals until its steps are known."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.sides = ((fixed.TextColumn(), [0]), (fixed.TextColumn(), [0]))
        """Bids and asks: prices and sizes in turn, and how many levels up to and with each book."""

    def add(self, line: dict[str, Any]) -> None:
        for (texts, counts), key in zip(self.sides, ("bids", "asks"), strict=True):
            levels = line[key][:DEPTH]
            counts.append(counts[-1] + len(levels))
            texts.extend(
                [text for level in levels for text in (_text(level["price"]), _text(level["quantity"]))]
            )
        time = line["time"]
        self.times.append(clock.iso_ns(time) if isinstance(time, str) else clock.epoch_ns(time))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return fixed.shown(int(value.get("units", 0)) * NANO + int(value.get("nano", 0)))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is no number")
    return str(value)


def _original_days(
    paths: tuple[Path, ...], options: ImportOptions, progress: Progress, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    found: dict[str, _Original] = {}
    for path in paths:
        number = 0
        try:
            for number, raw in lines(path):
                if raw.strip():
                    line = _decoder.decode(raw.decode())
                    name = line.get("figi") or line["instrument"]
                    found.setdefault(str(name), _Original()).add(line)
                if number % PROGRESS_LINES == 0:
                    progress(f"{path.name}: {number:,} lines")
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            raise RecordingError(f"{path}, line {number:,} is no order book: {said}") from error
        progress(f"{path.name}: {number:,} lines")
    for name, original in sorted(found.items()):
        facts = options.of(name)
        try:
            numbers = [texts.array().reshape(-1, 2) for texts, _ in original.sides]
        except fixed.BadDecimal as error:
            raise RecordingError(f"{', '.join(map(str, paths))}: {name}: {error}") from error
        tick_nano = facts.tick_nano
        if tick_nano is None:
            tick_nano = fixed.common_step(np.concatenate([values[:, 0] for values in numbers]))
            note = f"{fixed.shown(tick_nano)}: the greatest common divisor of the prices"
            provenance.setdefault("tick", {})[name] = note
        instrument = describe(Facts(name, tick_nano=tick_nano), facts, provenance)
        step_nano = facts.size_step_nano or NANO
        books = Books.empty(len(original.times))
        stamps = np.array(original.times, np.int64)
        books.recv_ns, books.exch_ns = stamps, stamps.copy()
        books.flags[:] = BOOK_CONSISTENT
        sides = ((books.bid_px, books.bid_qty), (books.ask_px, books.ask_qty))
        for (px, qty), values, (_, counts) in zip(sides, numbers, original.sides, strict=True):
            ends = np.array(counts, np.int64)
            row = np.repeat(np.arange(len(stamps)), np.diff(ends))
            level = np.arange(len(row)) - ends[row]
            px[row, level] = fixed.steps(values[:, 0], instrument.tick_nano, f"{name}, prices")
            qty[row, level] = fixed.steps(values[:, 1], step_nano, f"{name}, sizes")
        keep = clock.last_of_each(stamps, options.book_every_ns)
        yield from clock.split_days(instrument, books.rows(keep), Trades.empty())


JSONL = Importer(
    "jsonl", "JSON lines: an export of this product, or books of the original system", accepts, load
)
