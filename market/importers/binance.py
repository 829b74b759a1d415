"""Kind ``binance``: raw captures, one line ``<local time> <websocket JSON>``, plain or gzip, several files.

Snapshots (REST answers) stand among the messages. Prices and sizes become whole steps by exact decimal
arithmetic; the steps are the greatest common divisors of what was quoted, unless given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from market.errors import RecordingError
from market.importers import fixed
from market.importers.binance_feed import Feed, whole
from market.importers.clock import apart, last_of_each, plausible, split_days
from market.importers.files import Look, lines
from market.importers.instruments import Facts, describe
from market.importers.levels import CLEAR, LevelBook
from market.importers.source import Imported, Importer, ImportOptions, Progress
from market.types import BUY, I32, I64, MILLISECOND_NS, NANO, SELL, Books, InstrumentDay, Trades

UNIT_NS = {19: 1, 16: 1_000, 13: 1_000_000}
"""The local clock's unit by how many digits its stamps have."""
PROGRESS_LINES = 250_000
QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "TRY", "EUR", "BTC", "ETH", "BNB")

_decoder = json.JSONDecoder(parse_float=str)


def accepts(seen: Look) -> bool:
    stamp, _, text = seen.first_line().partition(b" ")
    if not (stamp.isdigit() and len(stamp) in UNIT_NS and text.startswith(b"{")):
        return False
    return any(key in text for key in (b'"stream"', b'"lastUpdateId"', b'"depthUpdate"', b'"e"'))


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    ordered = sorted(paths, key=lambda path: (_first_stamp(path), path.name))
    provenance: dict[str, Any] = {
        "files": [path.name for path in ordered],
        "recv_ns": "the capturing machine's clock, as it is in the file",
        "exch_ns": "the exchange's transaction time (its event time on the spot venue), milliseconds",
        "tariff": "the broker's, for comparison; not the venue's commission",
    }
    days = _days(ordered, options, progress, provenance)
    return Imported(days, "binance", "REAL", options.tariff or "trader", provenance)


def _first_stamp(path: Path) -> int:
    for _, line in lines(path):
        stamp = line.partition(b" ")[0]
        return int(stamp) * UNIT_NS.get(len(stamp), 1) if stamp.isdigit() else 0
    raise RecordingError(f"{path} is empty")


def read_capture(paths: list[Path], progress: Progress) -> dict[str, Feed]:
    """All symbols of one session, whose files follow each other. RecordingError names the file and line."""
    feeds: dict[str, Feed] = {}
    nameless: list[tuple[int, dict[str, Any], str]] = []
    for path in paths:
        number = 0
        try:
            for number, line in lines(path):
                _take(line, feeds, nameless, f"{path}, line {number:,}")
                if number % PROGRESS_LINES == 0:
                    progress(f"{path.name}: {number:,} lines")
            for feed in feeds.values():
                for column in (feed.changes, feed.trade_numbers, feed.top_numbers, feed.aggregated_numbers):
                    column.flush()
        except fixed.BadDecimal as error:
            raise RecordingError(f"{path}, at or before line {number:,}: {error}") from error
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
            OverflowError,
            RecursionError,
        ) as error:
            raise RecordingError(
                f"{path}, line {number:,} is no message of a Binance capture: {_said(error)}"
            ) from error
        progress(f"{path.name}: {number:,} lines")
    if nameless:
        raise RecordingError(f"{nameless[0][2]}: a snapshot without a symbol, and no message names one")
    return feeds


def _said(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _take(
    line: bytes, feeds: dict[str, Feed], nameless: list[tuple[int, dict[str, Any], str]], where: str
) -> None:
    stamp, _, text = line.partition(b" ")
    if not text:
        if not stamp.strip():
            return
        raise ValueError("no local time before the message")
    unit = UNIT_NS.get(len(stamp)) if stamp.isdigit() else None
    if unit is None:
        raise ValueError(f"the local time {stamp[:24]!r} is not in ms, us or ns since 1970")
    recv_ns = int(stamp) * unit
    message, _ = _decoder.raw_decode(text.decode())
    data = message.get("data", message)
    if "lastUpdateId" in data and "bids" in data:
        symbol = data.get("symbol") or data.get("s")
        if symbol is None and len(feeds) > 1:
            raise ValueError("a snapshot without a symbol in a capture of several symbols")
        if symbol is None and not feeds:
            nameless.append((recv_ns, data, where))
            return
        symbol = symbol or next(iter(feeds))
        _feed(feeds, symbol, nameless).snapshot(recv_ns, data)
        return
    kind = data.get("e")
    if kind not in ("depthUpdate", "trade", "aggTrade", "bookTicker"):
        return
    feed = _feed(feeds, data["s"], nameless)
    feed.coin_margined |= "ps" in data
    if kind == "depthUpdate":
        feed.diff(recv_ns, data)
    elif kind == "bookTicker":
        feed.tops.append((recv_ns, whole(data["u"])))
        feed.top_numbers.extend([data["b"], data["B"], data["a"], data["A"]])
    else:
        aggregated = kind == "aggTrade"
        side = SELL if data["m"] else BUY
        (feed.aggregated if aggregated else feed.trades).append((recv_ns, whole(data["T"]), side))
        (feed.aggregated_numbers if aggregated else feed.trade_numbers).extend([data["p"], data["q"]])


def _feed(feeds: dict[str, Feed], symbol: str, nameless: list[tuple[int, dict[str, Any], str]]) -> Feed:
    if not isinstance(symbol, str):
        raise ValueError(f"the symbol is {symbol!r}")
    if symbol not in feeds:
        feeds[symbol] = Feed(symbol)
        if nameless and len(feeds) == 1:
            recv_ns, data, _ = nameless.pop(0)
            feeds[symbol].snapshot(recv_ns, data)
    return feeds[symbol]


def _days(
    paths: list[Path], options: ImportOptions, progress: Progress, provenance: dict[str, Any]
) -> Iterator[InstrumentDay]:
    feeds = read_capture(paths, progress)
    names = ", ".join(str(path) for path in paths)
    if not feeds:
        raise RecordingError(f"{names}: no message of a Binance stream")
    for symbol, feed in sorted(feeds.items()):
        told: dict[str, Any] = {}
        provenance.setdefault("symbols", {})[symbol] = told
        try:
            yield from _symbol_days(feed, options, provenance, told)
        except RecordingError as error:
            raise RecordingError(f"{names}: {symbol}: {error}") from error


def _symbol_days(
    feed: Feed, options: ImportOptions, provenance: dict[str, Any], told: dict[str, Any]
) -> Iterator[InstrumentDay]:
    told |= feed.told
    options = options.of(feed.symbol)
    if not feed.told["snapshots"]:
        raise RecordingError(
            f"{feed.told['depth_messages']:,} differences but no snapshot, so no book can be made; the "
            "snapshot of a session stands in its first file: give that file as well"
        )
    px_nano, size_nano = feed.changes.array().reshape(-1, 2).T
    tick_nano = options.tick_nano or fixed.common_step(px_nano)
    step_nano = options.size_step_nano or fixed.common_step(size_nano)
    side = feed.side_codes()
    px, size = np.zeros(len(side), np.int64), np.zeros(len(side), np.int64)
    px[side != CLEAR] = fixed.steps(px_nano, tick_nano, "prices")
    size[side != CLEAR] = fixed.steps(size_nano, step_nano, "sizes")
    if len(size) and size.min() < 0:
        raise RecordingError("a size below zero")
    recv_ns, exch_ms, ends, ids, flags = np.array(feed.rows, np.int64).reshape(-1, 5).T
    plausible(recv_ns, "local times")
    exch_ns = _exch_ns(exch_ms)
    keep = last_of_each(recv_ns, options.book_every_ns)
    levels = LevelBook().replay(side, px, size, ends[keep])
    books = Books(exch_ns[keep], recv_ns[keep], *levels, flags[keep].astype(np.uint8))
    trades = _trades(feed, tick_nano, step_nano, told)
    told["receive_less_exchange_time"] = apart(recv_ns, exch_ns)
    told["best_prices_agree"] = _agreement(feed, books, ids[keep], tick_nano, step_nano)
    told["size_step"] = fixed.shown(step_nano)
    instrument = describe(_facts(feed, tick_nano, step_nano, books), options, provenance)
    yield from split_days(instrument, books, trades)


def _exch_ns(exch_ms: I64) -> I64:
    plausible(np.clip(exch_ms, 0, 1 << 42) * MILLISECOND_NS, "exchange times")
    return exch_ms * MILLISECOND_NS


def _trades(feed: Feed, tick_nano: int, step_nano: int, told: dict[str, Any]) -> Trades:
    """Single trades; the aggregated ones only where no single ones were captured."""
    rows, numbers, told["trades_are"] = feed.trades, feed.trade_numbers, "single"
    if not rows and feed.aggregated:
        rows, numbers, told["trades_are"] = feed.aggregated, feed.aggregated_numbers, "aggregated"
    told["trades"] = len(rows)
    recv_ns, exch_ms, side = np.array(rows, np.int64).reshape(-1, 3).T
    px, qty = numbers.array().reshape(-1, 2).T
    plausible(recv_ns, "local times of trades")
    return Trades(
        _exch_ns(exch_ms), recv_ns.copy(), fixed.steps(px, tick_nano, "trade prices"),
        fixed.steps(qty, step_nano, "trade sizes"), side.astype(np.int8),
    )  # fmt: skip


def _agreement(feed: Feed, books: Books, ids: I64, tick_nano: int, step_nano: int) -> float | None:
    """Share of books whose best prices and sizes equal the newest best-price message up to the same update
    id; None where none was captured."""
    if not feed.tops or not len(books):
        return None
    top_ids = np.array(feed.tops, np.int64)[:, 1]
    order = np.argsort(top_ids, kind="stable")
    at = np.searchsorted(top_ids[order], ids, side="right") - 1
    numbers = feed.top_numbers.array().reshape(-1, 4)[order][np.maximum(at, 0)]
    seen: list[tuple[I32, int]] = [
        (books.bid_px, tick_nano),
        (books.bid_qty, step_nano),
        (books.ask_px, tick_nano),
        (books.ask_qty, step_nano),
    ]
    same = np.ones(len(books), np.bool_)
    for column, (levels, step) in enumerate(seen):
        same &= numbers[:, column] == levels[:, 0].astype(np.int64) * step
    known = at >= 0
    return round(float(same[known].mean()), 5) if known.any() else None


def _facts(feed: Feed, tick_nano: int, step_nano: int, books: Books) -> Facts:
    steps = (
        f"steps {fixed.shown(tick_nano)} (price) and {fixed.shown(step_nano)} (size): the greatest common "
    )
    steps += "divisors of what was quoted, where not given"
    if feed.coin_margined:
        contract = 100 if feed.symbol.startswith("BTC") else 10
        bids = books.bid_px[books.bid_px[:, 0] > 0, 0]
        value = round(contract * NANO / int(bids[0])) if len(bids) else contract * NANO
        return Facts(
            feed.symbol, "BINANCE-COINM", "future", 1, tick_nano, max(1, value), "usd",
            assumed=f"{steps}; a contract of {contract} USD; the contract is inverse, a tick's value is that "
            "at the first price (approximation)",
        )  # fmt: skip
    value, rest = divmod(tick_nano * step_nano, NANO)
    if rest or not value:
        raise RecordingError(
            f"a tick of {fixed.shown(tick_nano)} on a size of {fixed.shown(step_nano)} is worth less than a "
            "nano-unit; choose larger steps (--tick, --size-step)"
        )
    quote = next((q for q in QUOTES if feed.symbol.endswith(q) and feed.symbol != q), "USDT")
    venue = "BINANCE-USDM" if feed.futures else "BINANCE-SPOT"
    return Facts(
        feed.symbol,
        venue,
        "future" if feed.futures else "share",
        1,
        tick_nano,
        value,
        quote.lower(),
        assumed=steps,
    )


BINANCE = Importer(
    "binance", "raw Binance captures, lines of local time and JSON, plain or gzip", accepts, load
)
