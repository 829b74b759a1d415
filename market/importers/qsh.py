"""Kind ``qsh``: QScalp archives, one file per instrument, day and stream, put together to days.

An order log gives books and trades; otherwise Quotes give the books and Deals the trades, and either may be
missing. AuxInfo is summed up in the provenance only: a recording has no place for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from market.days import moscow_day
from market.errors import RecordingError
from market.importers import order_log
from market.importers.clock import apart, last_of_each
from market.importers.files import Look, look
from market.importers.fixed import narrow
from market.importers.instruments import describe, moex
from market.importers.levels import EITHER, LevelBook
from market.importers.qsh_format import (
    NET_EPOCH_MS,
    SIGNATURE,
    AuxInfo,
    Deals,
    OrderLog,
    Quotes,
    Stream,
    read_header,
    read_qsh,
)
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.types import BOOK_CONSISTENT, BUY, MILLISECOND_NS, SELL, Books, InstrumentDay, Trades

Group = tuple[str, str]
"""Ticker and Moscow day of the start of the recording."""


def accepts(seen: Look) -> bool:
    return seen.head.startswith(SIGNATURE)


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    groups: dict[Group, list[Path]] = {}
    for path in paths:
        seen = look(path)
        if seen.trouble:
            raise RecordingError(f"{path} is damaged: {seen.trouble}")
        header = read_header(seen.head, path)
        day = moscow_day((header.start_ms - NET_EPOCH_MS) * MILLISECOND_NS).name
        for ticker in dict.fromkeys(name[1] for _, name in header.streams):
            groups.setdefault((ticker, day), []).append(path)
    provenance: dict[str, Any] = {
        "files": sorted(path.name for path in paths),
        "recv_ns": "the recorder's clock, UTC, milliseconds",
        "exch_ns": "the exchange's stamp (Moscow wall time in the file), milliseconds; books of Quotes have "
        "none: equal to the receive time",
    }
    return Imported(
        _days(groups, options, progress, provenance), "qsh", "REAL", options.tariff or "trader", provenance
    )


def _days(
    groups: dict[Group, list[Path]], options: ImportOptions, progress: Progress, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    for (ticker, day), paths in sorted(groups.items()):
        streams = _streams(ticker, day, paths, progress)
        first = next(iter(streams.values()))[1]
        if len({stream.step_nano for _, stream in streams.values()}) > 1:
            raise RecordingError(f"{ticker} {day}: the files disagree on the price step")
        class_code = next((s.class_code for _, s in streams.values() if s.class_code), "")
        instrument = describe(moex(ticker, class_code, first.step_nano), options, provenance)
        told: dict[str, Any] = {}
        provenance.setdefault("days", {})[f"{instrument.ticker}/{day}"] = told
        rows = {what: stream.rows for what, (_, stream) in streams.items()}
        try:
            books, trades = _market(rows, options, told)
        except RecordingError as error:
            raise RecordingError(f"{', '.join(str(path) for path in paths)}: {error}") from error
        if not len(books) and not len(trades):
            raise RecordingError(
                f"{', '.join(str(path) for path in paths)}: no quotes, deals or order log of {ticker} {day}, "
                "so nothing to make a recording of"
            )
        yield InstrumentDay(instrument, day, books, trades)


def _streams(ticker: str, day: str, paths: list[Path], progress: Progress) -> dict[str, tuple[Path, Stream]]:
    """The streams of one instrument and day, by what they hold."""
    found: dict[str, tuple[Path, Stream]] = {}
    for path in paths:
        file = read_qsh(path, progress)
        for stream in file.streams:
            if stream.ticker != ticker:
                continue
            if stream.what in found:
                raise RecordingError(
                    f"{found[stream.what][0]} and {path} both hold the {stream.what} of {ticker} {day}; "
                    "give only one of them"
                )
            found[stream.what] = (path, stream)
            progress(f"{path.name}: {len(stream.rows.recv_ns):,} frames of {stream.what} of {ticker}")
    return found


def _market(
    rows: dict[str, Quotes | Deals | AuxInfo | OrderLog], options: ImportOptions, told: dict[str, Any]
) -> tuple[Books, Trades]:
    books, trades = Books.empty(), Trades.empty()
    quotes, deals, log, aux = (rows.get(what) for what in ("Quotes", "Deals", "OrdLog", "AuxInfo"))
    if isinstance(aux, AuxInfo):
        told["aux_info"] = _aux_summary(aux)
    if isinstance(log, OrderLog):
        books, rebuilt = order_log.books(log, options.book_every_ns)
        trades, matched = order_log.trades(log)
        told["order_log"] = {**order_log.counts(log), **rebuilt, **matched}
        told["receive_less_exchange_time"] = apart(log.recv_ns, log.exch_ns)
        told["not_used"] = [what for what in ("Quotes", "Deals") if what in rows]
        return books, trades
    if isinstance(quotes, Quotes):
        books = books_of_quotes(quotes, options.book_every_ns)
        told["quotes"] = {"frames": len(quotes.end), "changes": len(quotes.px)}
    if isinstance(deals, Deals):
        trades = trades_of_deals(deals)
        told["deals"] = {"deals": len(deals.px), "lots": int(deals.lots.sum())}
        told["receive_less_exchange_time"] = apart(deals.recv_ns, deals.exch_ns)
    return books, trades


def books_of_quotes(quotes: Quotes, every_ns: int = 0) -> Books:
    """A book after each frame, or after the last frame of each ``every_ns``."""
    keep = last_of_each(quotes.recv_ns, every_ns)
    side = np.select([quotes.size > 0, quotes.size < 0], [SELL, BUY], EITHER).astype(np.int8)
    narrow(quotes.size, "quoted sizes")
    levels = LevelBook(exclusive=True).replay(side, quotes.px, np.abs(quotes.size), quotes.end[keep])
    recv_ns = quotes.recv_ns[keep]
    flags = np.full(len(recv_ns), BOOK_CONSISTENT, np.uint8)
    return Books(recv_ns.copy(), recv_ns, *levels, flags)


def trades_of_deals(deals: Deals) -> Trades:
    return Trades(
        deals.exch_ns, deals.recv_ns, narrow(deals.px, "deal prices"), narrow(deals.lots, "deal sizes"),
        deals.side,
    )  # fmt: skip


def _aux_summary(aux: AuxInfo) -> dict[str, Any]:
    out: dict[str, Any] = {"records": len(aux.px)}
    if len(aux.px):
        last = {name: int(getattr(aux, name)[-1]) for name in ("open_interest", "high_limit", "low_limit")}
        values = {name: float(getattr(aux, name)[-1]) for name in ("deposit", "rate")}
        out |= last | {name: value for name, value in values.items() if np.isfinite(value)}
    return out


QSH = Importer("qsh", "QScalp archives (*.qsh, version 4)", accepts, load)
