"""What the log of a recording holds: read without changing anything, a day of one instrument at a time."""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from market.days import Day, moscow_day
from market.errors import RecordingError
from market.recording.info import RecordingInfo, Watermark
from market.recording.log import (
    LOG_FORMAT,
    TABLES,
    UNFINISHED,
    Damage,
    Frame,
    Kind,
    frames,
    rows_body,
    text_body,
)
from market.recording.tables import ROW_GROUP, TableKind, joined
from market.types import SECOND_NS, Instrument

COMMITTED = "compacted"
"""A folder in ``_unfinished``: the finished tables of some logs, about to take their places."""
MAX_SESSIONS = 1000
"""Runs of the recorder that the provenance keeps, newest last."""


@dataclass(slots=True)
class Session:
    """One run of a recorder, as ``provenance["sessions"]`` shows it."""

    id: str
    facts: dict[str, Any]
    closed: bool = False
    books: int = 0
    trades: int = 0
    own: int = 0
    first_ns: int = 0
    last_ns: int = 0
    dropped_bytes: int = 0

    def count(self, frame: Frame) -> None:
        name = {Kind.BOOKS: "books", Kind.TRADES: "trades", Kind.OWN: "own"}[frame.kind]
        setattr(self, name, getattr(self, name) + frame.rows)
        self.first_ns = min(self.first_ns or frame.first_ns, frame.first_ns)
        self.last_ns = max(self.last_ns, frame.last_ns)

    def to_dict(self, before: dict[str, Any], finished: bool) -> dict[str, Any]:
        """JSON-able; ``before`` is the same session as it was written at an earlier midnight."""
        counts = {name: getattr(self, name) + before.get(name, 0) for name in ("books", "trades", "own")}
        end = "closed" if self.closed else "interrupted" if finished else "goes on"
        times = {
            "from": before.get("from") or utc(self.first_ns),
            "to": utc(self.last_ns) or before.get("to", ""),
        }
        lost = self.dropped_bytes + before.get("dropped_bytes", 0)
        dropped = {"dropped_bytes": lost} if lost else {}
        return {"id": self.id, **self.facts, **times, **counts, "end": end, **dropped}


def utc(ns: int) -> str:
    """A moment for people: ISO 8601, UTC, whole seconds; empty for 0."""
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ns else ""


@dataclass(slots=True)
class _Segment:
    """One log file, mapped as it was when it was opened."""

    path: Path
    inode: int
    log: Any
    damage: Damage = field(default_factory=Damage)


_INDEX_WIDTH = 6


class Unfinished:
    """The rows of some log files. A file that is being written counts up to its last whole frame."""

    def __init__(self, paths: list[Path]) -> None:
        """Reads the frames' headers and checks every CRC; OSError or RecordingError."""
        self.source, self.tariff = "", ""
        self.watermark: Watermark = "SIMULATED"
        self.provenance: dict[str, Any] = {}
        self.instruments: dict[str, Instrument] = {}
        self.sessions: dict[str, Session] = {}
        self.rows = 0
        self._days: dict[Kind, dict[str, dict[str, Day]]] = {kind: {} for kind in TABLES}
        # Where each instrument's frames are: six numbers each, not an object, since a day has a million.
        self._index: dict[tuple[str, Kind], array[int]] = {}
        self._segments = [segment for path in paths if (segment := _opened(path)) is not None]
        for number, segment in enumerate(self._segments):
            self._read(number, segment)

    @classmethod
    def of(cls, recording: Path) -> Unfinished:
        """Everything in the log of the recording in the folder ``recording``."""
        return cls(log_files(recording))

    def _read(self, number: int, segment: _Segment) -> None:
        declared: dict[int, Instrument] = {}
        session: Session | None = None
        for frame in frames(segment.log, segment.damage):
            if frame.kind is Kind.HEAD:
                session = self._head(text_body(segment.log, frame), segment.path)
            elif frame.kind is Kind.INSTRUMENT:
                instrument = Instrument.from_dict(text_body(segment.log, frame))
                declared[frame.instrument] = instrument
                self.instruments.setdefault(instrument.ticker, instrument)
            elif session is None or (frame.kind in TABLES and frame.instrument not in declared):
                segment.damage.inside += frame.stop - frame.start  # what it belongs to is lost
            elif frame.kind is Kind.NOTE:
                session.facts |= text_body(segment.log, frame)
            elif frame.kind is Kind.END:
                session.closed = True
            else:
                session.count(frame)
                self._add(number, segment, frame, declared[frame.instrument].ticker)
        if session is not None:
            session.dropped_bytes += segment.damage.torn + segment.damage.inside

    def _add(self, number: int, segment: _Segment, frame: Frame, ticker: str) -> None:
        self.rows += frame.rows
        index = self._index.setdefault((ticker, frame.kind), array("q"))
        index.extend((number, frame.rows, frame.first_ns, frame.last_ns, frame.start, frame.stop))
        days = self._days[frame.kind].setdefault(ticker, {})
        first = moscow_day(frame.first_ns)
        days[first.name] = first
        if frame.last_ns not in first:
            times = getattr(rows_body(segment.log, frame), TABLES[frame.kind].time)
            days.update({day.name: day for day in map(moscow_day, times.tolist())})

    def _head(self, fields: dict[str, Any], path: Path) -> Session:
        if fields.get("format") != LOG_FORMAT:
            raise RecordingError(
                f"{path} is a log of format {fields.get('format')!r}, this program reads {LOG_FORMAT}; "
                "finish the recording with the version that began it"
            )
        self.source, self.tariff = str(fields["source"]), str(fields["tariff"])
        self.watermark, self.provenance = fields["watermark"], dict(fields["provenance"])
        return self.sessions.setdefault(fields["session"], Session(fields["session"], dict(fields["facts"])))

    # ---- what is in it ----

    @property
    def torn_bytes(self) -> int:
        return sum(segment.damage.torn for segment in self._segments)

    @property
    def damaged(self) -> list[Path]:
        """Logs that a kill alone cannot have left like this."""
        return [segment.path for segment in self._segments if segment.damage.inside]

    @property
    def last_ns(self) -> int:
        return max((session.last_ns for session in self.sessions.values()), default=0)

    def days(self) -> dict[str, dict[str, Day]]:
        """The days on which there is anything, by ticker and name."""
        found: dict[str, dict[str, Day]] = {}
        for by_ticker in self._days.values():
            for ticker, days in by_ticker.items():
                found.setdefault(ticker, {}).update(days)
        return found

    def pieces(self, kind: TableKind, ticker: str, day: Day) -> Iterator[Any]:
        """The rows of one day in the order of their arrival, as ``kind.rows`` of about ``ROW_GROUP`` rows."""
        waiting: list[Any] = []
        count = 0
        for segment, frame in self._frames(kind, ticker, day):
            rows = rows_body(segment.log, frame)
            if frame.first_ns not in day or frame.last_ns not in day:
                times = getattr(rows, kind.time)
                rows = rows.rows((times >= day.from_ns) & (times < day.to_ns))
            waiting.append(rows)
            count += len(rows)
            if count >= ROW_GROUP:
                yield joined(kind, waiting)
                waiting, count = [], 0
        if waiting:
            yield joined(kind, waiting)

    def _frames(self, kind: TableKind, ticker: str, day: Day) -> Iterator[tuple[_Segment, Frame]]:
        code = next(code for code, table in TABLES.items() if table is kind)
        index = self._index.get((ticker, code), array("q"))
        for at in range(0, len(index), _INDEX_WIDTH):
            number, rows, first_ns, last_ns, start, stop = index[at : at + _INDEX_WIDTH]
            if last_ns >= day.from_ns and first_ns < day.to_ns:
                yield self._segments[number], Frame(code, 0, rows, first_ns, last_ns, start, stop)

    def info_after(self, info: RecordingInfo | None, *, finished: bool) -> RecordingInfo:
        """``recording.json`` once these rows are part of the recording. ``finished``: no recorder is at work
        any more, so a run that did not close was interrupted."""
        found = self.days()
        if info is None and not found:
            raise RecordingError("nothing was recorded: no book, trade or own event had come")
        known = {i.ticker: i for i in info.instruments} if info else {}
        days = {t: set(names) for t, names in info.days.items()} if info else {}
        own = {t: set(names) for t, names in info.own.items()} if info else {}
        for ticker, at in found.items():
            days.setdefault(ticker, set()).update(at)
            own.setdefault(ticker, set()).update(self._days[Kind.OWN].get(ticker, ()))
        instruments = {t: known.get(t) or self.instruments[t] for t in days}
        provenance = self._provenance(info.provenance if info else None, known, finished)
        source, watermark, tariff = (
            (info.source, info.watermark, info.tariff) if info else (self.source, self.watermark, self.tariff)
        )
        return RecordingInfo.of(source, watermark, tariff, instruments, days, own, provenance)

    def _provenance(
        self, before: dict[str, Any] | None, known: dict[str, Instrument], finished: bool
    ) -> dict[str, Any]:
        provenance = dict(self.provenance if before is None else before)
        earlier = {s["id"]: s for s in provenance.get("sessions", []) if isinstance(s, dict) and "id" in s}
        for session in self.sessions.values():
            entry = session.to_dict(earlier.get(session.id, {}), finished)
            changed = {
                t: i.tick_value_nano
                for t, i in self.instruments.items()
                if t in known and known[t].tick_value_nano != i.tick_value_nano
            }
            earlier[session.id] = entry | ({"tick_value_nano": changed} if changed else {})
        return provenance | {"sessions": list(earlier.values())[-MAX_SESSIONS:]}

    def still_there(self) -> bool:
        """No recorder has finished these logs since they were read."""
        for segment in self._segments:
            try:
                if segment.path.stat().st_ino != segment.inode:
                    return False
            except FileNotFoundError:
                return False
            if (segment.path.parent / COMMITTED).exists():
                return False
        return True


def recorded_to_ns(info: RecordingInfo) -> int:
    """The latest event that a recorder has written into a recording, whole seconds; 0 where none has."""
    ends = [s.get("to", "") for s in info.provenance.get("sessions", []) if isinstance(s, dict)]
    return max((int(datetime.fromisoformat(end).timestamp()) * SECOND_NS for end in ends if end), default=0)


def log_files(recording: Path) -> list[Path]:
    """The logs of a recording, oldest first."""
    return sorted((recording / UNFINISHED).glob("[0-9]*.log"))


def _opened(path: Path) -> _Segment | None:
    """None for a file without a byte: its recorder was killed before the first write."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not status.st_size:
            return None
        return _Segment(path, status.st_ino, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
