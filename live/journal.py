"""The session journal: what the engine was told and which orders it asked for, one compact JSON line each.

``events.jsonl`` starts with a header object, then lists: ``["Book", now_ns, ticker, ...]`` for an event in
the order the engine saw it, ``["=PlaceOrder", ...]`` for a broker command that it answered with.
``live.replay`` runs the session again from it. Records wait until the decision is made, then they become
lines, which are flushed every second or ``FLUSH_LINES`` lines, so a crash loses at most that (orders
themselves are in SQLite before they are sent); a torn last line is recognised.
"""

from __future__ import annotations

import hashlib
import json
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams
from market.errors import ScalperError
from market.types import DEPTH, SECOND_NS, Instrument

JOURNAL_FORMAT = 1
EVENTS_FILE = "events.jsonl"
FLUSH_LINES = 512
FLUSH_NS = SECOND_NS
MAX_WAITING = 64
MAX_BYTES = 8 << 30
"""A journal never grows beyond this; what comes later is counted, not written."""

ORDER_COMMANDS: tuple[type, ...] = (cmd.PlaceOrder, cmd.CancelOrder, cmd.QueryOrder)
OrderCommand = cmd.PlaceOrder | cmd.CancelOrder | cmd.QueryOrder
TRUNCATED = ["#truncated"]


class JournalError(ScalperError):
    """A journal is missing, damaged, cut short or of another format."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a session started with. ``restored`` and ``pipeline``: the checkpoint that the engine, and the
    features and models, went on from.
    """

    session_id: str
    session_key: str
    config: EngineConfig
    instruments: dict[str, Instrument]
    model: ModelParams
    watermark: str
    restored: dict[str, Any] | None = None
    pipeline: dict[str, Any] | None = None

    @property
    def manifest_sha256(self) -> str:
        return self.model.manifest_sha256

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": JOURNAL_FORMAT,
            "session_id": self.session_id,
            "session_key": self.session_key,
            "config": self.config.to_dict(),
            "instruments": [i.to_dict() for i in self.instruments.values()],
            "manifest_sha256": self.manifest_sha256,
            "model": self.model.to_dict(),
            "watermark": self.watermark,
            "restored": self.restored,
            "pipeline": self.pipeline,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        if not isinstance(values, dict) or values.get("format") != JOURNAL_FORMAT:
            raise JournalError(f"this is not a journal of format {JOURNAL_FORMAT}: {str(values)[:80]}")
        instruments = [Instrument.from_dict(i) for i in values["instruments"]]
        return cls(
            values["session_id"],
            values["session_key"],
            EngineConfig.from_dict(values["config"]),
            {i.ticker: i for i in instruments},
            ModelParams.from_dict(values["model"]),
            values["watermark"],
            values["restored"],
            values.get("pipeline"),
        )


# ---- one line


def _nested(value: Any) -> Any:
    if is_dataclass(value):
        return [getattr(value, f.name) for f in fields(value)]
    raise TypeError(f"{type(value).__name__} cannot be journalled")


_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=_nested
).encode


def encode(record: ev.Event | OrderCommand) -> str:
    """One line without its newline. Commands carry a ``=`` before their name."""
    kind = type(record)
    values, name = _SHAPES[kind]
    return _encode([name, *values(record)])


def decode(line: str) -> ev.Event | OrderCommand:
    """The record of one line, equal to the one that was encoded. Raises JournalError."""
    try:
        name, *values = json.loads(line)
        kind, converters = _DECODERS[name]
        return kind(*[convert(value) for convert, value in zip(converters, values, strict=True)])
    except (ValueError, KeyError, TypeError) as e:
        raise JournalError(f"this is no line of a journal ({type(e).__name__}: {e}): {line[:80]!r}") from e


def _same(value: Any) -> Any:
    return value


def _converter(hint: Any) -> Callable[[Any], Any]:
    """Turns what JSON gave back into what the field holds: lists into tuples, of records where it says so."""
    if typing.get_origin(hint) is not tuple:
        return _same
    inner = typing.get_args(hint)[0]
    if is_dataclass(inner):
        make = typing.cast("Callable[..., Any]", inner)
        return lambda value: tuple(make(*item) for item in value)
    return tuple


_EVENT_TYPES: tuple[type, ...] = typing.get_args(ev.Event)


def _values(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """What reads all fields of a record at once."""
    names = [f.name for f in fields(kind)]
    if len(names) > 1:
        return attrgetter(*names)
    only = names[0]
    return lambda record: (getattr(record, only),)


_SHAPES: dict[type, tuple[Callable[[Any], tuple[Any, ...]], str]] = {
    kind: (_values(kind), prefix + kind.__name__)
    for kinds, prefix in ((_EVENT_TYPES, ""), (ORDER_COMMANDS, "="))
    for kind in kinds
}
_DECODERS: dict[str, tuple[type, list[Callable[[Any], Any]]]] = {
    name: (kind, [_converter(typing.get_type_hints(kind)[f.name]) for f in fields(kind)])
    for kind, (_, name) in _SHAPES.items()
}


class _BookLines:
    """``encode`` for the books of one instrument: from one to the next a few sizes change, seldom a price."""

    __slots__ = ("_ask_px", "_ask_text", "_bid_px", "_bid_text", "_ticker")

    def __init__(self, ticker: str) -> None:
        self._ticker = _encode(ticker)
        self._bid_px: tuple[int, ...] = ()
        self._ask_px: tuple[int, ...] = ()
        self._bid_text = self._ask_text = "[]"

    def line(self, book: ev.Book) -> str:
        if book.bid_px != self._bid_px:
            self._bid_px, self._bid_text = book.bid_px, _whole_numbers(book.bid_px)
        if book.ask_px != self._ask_px:
            self._ask_px, self._ask_text = book.ask_px, _whole_numbers(book.ask_px)
        return (
            f'["Book",{book.now_ns},{self._ticker},{book.exch_ns},'
            f"{self._bid_text},{_whole_numbers(book.bid_qty)},"
            f"{self._ask_text},{_whole_numbers(book.ask_qty)},{'true' if book.consistent else 'false'}]"
        )


_LISTS = tuple("[" + ",".join(["%d"] * n) + "]" for n in range(DEPTH + 1))


def _whole_numbers(values: tuple[int, ...]) -> str:
    return _LISTS[len(values)] % values if len(values) <= DEPTH else _encode(values)


# ---- writing


class JournalWriter:
    """Appends to ``folder/events.jsonl``; the folder must not hold one yet. Not for several threads.

    ``monotonic_ns`` decides when a second is over. Raises JournalError when the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = Path(folder) / EVENTS_FILE
        self.not_written = 0
        """Lines that came after the journal was full."""
        self._monotonic_ns = monotonic_ns
        self._max_bytes = max_bytes
        self._waiting: list[ev.Event | OrderCommand] = []
        """Records that are not lines yet: a decision does not wait for their making."""
        self._books: dict[str, _BookLines] = {}
        self._buffer: list[str] = []
        self._bytes = 0
        self._flushed_ns = monotonic_ns()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("x", encoding="utf-8")
        except OSError as e:
            raise JournalError(f"cannot start the journal {self.path}: {e.strerror}") from e
        self._add(json.dumps(header.to_dict(), separators=(",", ":"), ensure_ascii=False))
        self.flush()

    def event(self, event: ev.Event) -> None:
        """Take down an event; before it is handed to the engine."""
        self._waiting.append(event)
        if len(self._waiting) >= MAX_WAITING:
            self.write()

    def commands(self, commands: Iterable[cmd.Command]) -> None:
        """Take down the broker commands among ``commands``."""
        for command in commands:
            if isinstance(command, ORDER_COMMANDS):
                self._waiting.append(typing.cast("OrderCommand", command))

    def write(self) -> None:
        """Make lines of what waits: when a decision has been made and its orders are on their way."""
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            self._add(self._book_line(record) if isinstance(record, ev.Book) else encode(record))
        if len(self._buffer) >= FLUSH_LINES or self._monotonic_ns() - self._flushed_ns >= FLUSH_NS:
            self._flush_lines()

    def _book_line(self, book: ev.Book) -> str:
        lines = self._books.get(book.ticker)
        if lines is None:
            lines = self._books[book.ticker] = _BookLines(book.ticker)
        return lines.line(book)

    def _add(self, line: str) -> None:
        if self.not_written:
            self.not_written += 1
            return
        self._bytes += len(line.encode()) + 1
        if self._bytes > self._max_bytes:
            self.not_written = 1
            line = json.dumps(TRUNCATED)
        self._buffer.append(line)

    def flush(self) -> None:
        """Hand everything taken down so far to the operating system."""
        self.write()
        self._flush_lines()

    def _flush_lines(self) -> None:
        self._flushed_ns = self._monotonic_ns()
        if not self._buffer:
            return
        try:
            self._file.write("\n".join(self._buffer) + "\n")
            self._file.flush()
        except OSError as e:
            raise JournalError(f"cannot write the journal {self.path}: {e.strerror}") from e
        self._buffer.clear()

    def close(self) -> None:
        self.flush()
        self._file.close()


# ---- reading


class JournalReader:
    """Reads a session's journal; iterate for its records. ``torn``: the last line was cut off by a crash."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / EVENTS_FILE
        self.torn = False
        self.truncated = False
        try:
            with self.path.open(encoding="utf-8") as file:
                first = file.readline()
        except OSError as e:
            raise JournalError(f"cannot read the journal {self.path}: {e.strerror}") from e
        try:
            self.header = Header.from_dict(json.loads(first))
        except (ValueError, KeyError, TypeError) as e:
            raise JournalError(f"{self.path} does not start with a journal's header: {e}") from e

    def __iter__(self) -> Iterator[ev.Event | OrderCommand]:
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                if not line.endswith("\n"):
                    self.torn = True
                    return
                if line.startswith('["#'):
                    self.truncated = True
                    return
                try:
                    yield decode(line)
                except JournalError as e:
                    raise JournalError(f"{self.path}, line {number}: {e}") from e


def order_list_hash(orders: Iterable[cmd.PlaceOrder]) -> str:
    """SHA-256 (hex) over the orders in sequence: two sessions with equal hashes asked for the same orders."""
    digest = hashlib.sha256()
    for order in orders:
        digest.update(encode(order).encode())
        digest.update(b"\n")
    return digest.hexdigest()
