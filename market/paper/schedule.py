"""When the paper exchange trades: what the recording shows, and the usual calendar for every other day."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from itertools import pairwise
from typing import Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

import numpy as np

from market.paper.calendar import Calendar
from market.types import I64, SECOND_NS, Books, Instrument, Trades
from market.venues import VENUES, Venue

MOSCOW: Final = ZoneInfo("Europe/Moscow")
SILENCE_NS: Final = 15 * 60 * SECOND_NS
"""A venue that says nothing for so long does not trade."""
BREAK_SILENCE_NS: Final = 90 * SECOND_NS
"""So much is enough where the calendar has a break."""
NEAR_NS: Final = 60 * SECOND_NS
"""A change that the calendar has within this distance of the silence happens at the calendar's time."""
OPENING_NS: Final = 10 * 60 * SECOND_NS
"""The opening auction before a trading day."""

Kind = Literal["share", "future"]


class Phase(Enum):
    """What a venue does. Only TRADING takes orders: auctions are not held here."""

    CLOSED = "closed"
    OPENING = "opening"
    TRADING = "trading"
    BREAK = "break"


class Change(NamedTuple):
    """From ``at_ns`` on the venue is in ``phase``."""

    at_ns: int
    phase: Phase


def to_ns(day: date, wall: time) -> int:
    """Nanoseconds UTC of a Moscow wall time."""
    return int(datetime.combine(day, wall, MOSCOW).timestamp()) * SECOND_NS


def moscow_day(ns: int) -> date:
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).astimezone(MOSCOW).date()


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one phase, [start_ns, end_ns)."""

    phase: Phase
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The phases that the recording shows, by kind of instrument: every venue of the recording has some."""

    phases: Mapping[str, tuple[Change, ...]]
    recorded_days: Mapping[str, frozenset[date]]
    calendar: Calendar = field(default_factory=Calendar)
    """For the days that were not recorded."""

    @classmethod
    def of(cls, tables: Iterable[tuple[Instrument, Books, Trades]], calendar: Calendar | None = None) -> Self:
        """From everything that is recorded of every instrument, whatever part of it is played.

        A silence of the whole venue is a break when it lasts 15 minutes, or 90 seconds where the calendar has
        one; with a midnight inside, the venue was closed.
        """
        by_kind: dict[str, list[I64]] = {}
        for instrument, books, trades in tables:
            by_kind.setdefault(instrument.kind, []).extend((books.recv_ns, trades.recv_ns))
        times = {kind: np.unique(np.concatenate(columns)) for kind, columns in by_kind.items()}
        times = {kind: column for kind, column in times.items() if len(column)}
        first = min((int(column[0]) for column in times.values()), default=0)
        last = max((int(column[-1]) for column in times.values()), default=0)
        phases = {kind: tuple(_changes(VENUES[kind], column, first, last)) for kind, column in times.items()}
        days = {
            kind: frozenset(
                day for span in _spans(changes) if span.phase is Phase.TRADING for day in _days_of(span, last)
            )
            for kind, changes in phases.items()
        }
        return cls(phases, days, calendar or Calendar())

    def phase(self, kind: str, now_ns: int) -> Phase:
        """The phase in force; a venue without any recording trades."""
        changes = self.phases.get(kind)
        if not changes:
            return Phase.TRADING
        position = bisect_right(changes, now_ns, key=lambda change: change.at_ns)
        return changes[position - 1].phase if position else Phase.CLOSED

    def changes(self, kind: str, from_ns: int, to_ns: int) -> Sequence[Change]:
        """Changes in (from_ns, to_ns), oldest first."""
        return [c for c in self.phases.get(kind, ()) if from_ns < c.at_ns < to_ns]

    def is_trading_day(self, kind: str, day: date) -> bool:
        return day in self.recorded_days.get(kind, ()) or self.calendar.trades(day)

    def spans(self, kind: str, day: date) -> list[Span]:
        """The phases but CLOSED of one recorded day, clipped to it; none for a day without a recording."""
        if day not in self.recorded_days.get(kind, ()):
            return []
        low, high = to_ns(day, time()), to_ns(day + timedelta(days=1), time())
        return [
            Span(s.phase, max(s.start_ns, low), min(s.end_ns, high))
            for s in _spans(self.phases[kind])
            if s.phase is not Phase.CLOSED and s.start_ns < high and s.end_ns > low
        ]


def _spans(changes: Sequence[Change]) -> list[Span]:
    return [Span(a.phase, a.at_ns, b.at_ns) for a, b in pairwise(changes)]


def _days_of(span: Span, last_ns: int) -> list[date]:
    day, end = moscow_day(span.start_ns), moscow_day(min(span.end_ns - 1, last_ns))
    return [day + timedelta(days=k) for k in range((end - day).days + 1)]


def _changes(venue: Venue, times: I64, first_ns: int, last_ns: int) -> list[Change]:
    """Phases of one venue from the sorted times of its events; ends with CLOSED just after the last.

    ``first_ns``, ``last_ns``: of the whole recording. A venue that is quiet for less than 15 minutes at
    either end trades there as well.
    """
    start = first_ns if times[0] - first_ns < SILENCE_NS else int(times[0])
    end = last_ns if last_ns - times[-1] < SILENCE_NS else int(times[-1])
    found = [Change(start - 1, Phase.TRADING)]
    for position in np.flatnonzero(np.diff(times) >= BREAK_SILENCE_NS):
        before, after = int(times[position]), int(times[position + 1])
        edges = _edges(venue, before, after)
        if after - before < SILENCE_NS and not any(0 <= edge - before < NEAR_NS for edge in edges):
            continue
        stop = next((edge for edge in edges if 0 <= edge - before < NEAR_NS), before + 1)
        again = next((edge for edge in reversed(edges) if 0 <= after - edge < NEAR_NS), after - 1)
        again = again if again > stop else after - 1
        if moscow_day(before) == moscow_day(after):
            found.append(Change(stop, Phase.BREAK))
        else:
            found.append(Change(stop, Phase.CLOSED))
            if again - OPENING_NS > stop:
                found.append(Change(again - OPENING_NS, Phase.OPENING))
        found.append(Change(again, Phase.TRADING))
    return [*found, Change(end + 1, Phase.CLOSED)]


def _edges(venue: Venue, before_ns: int, after_ns: int) -> list[int]:
    """The venue's usual changes on the two days that the silence touches, within it."""
    days = {moscow_day(before_ns), moscow_day(after_ns)}
    edges = sorted(to_ns(day, wall) for day in days for wall in venue.edges())
    return [edge for edge in edges if before_ns <= edge < after_ns]
