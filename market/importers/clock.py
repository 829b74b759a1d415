"""Clocks of foreign files: exchange wall time to UTC, exchange days, how far two clocks are apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from market.days import moscow_day
from market.errors import RecordingError
from market.types import I64, MILLISECOND_NS, SECOND_NS, Books, Instrument, InstrumentDay, Trades

EARLIEST_NS = 631_152_000 * SECOND_NS
"""1990-01-01 UTC. No electronic order book is older; an earlier stamp is damage."""
LATEST_NS = 4_102_444_800 * SECOND_NS
"""2100-01-01 UTC."""


def plausible(ns: I64 | int, what: str) -> None:
    """RecordingError unless every stamp lies between 1990 and 2100."""
    stamps = np.atleast_1d(np.asarray(ns, np.int64))
    wrong = np.flatnonzero((stamps < EARLIEST_NS) | (stamps >= LATEST_NS))
    if len(wrong):
        raise RecordingError(
            f"{what}: time {int(stamps[wrong[0]]):,} ns (value {int(wrong[0]) + 1:,}) is not between 1990 "
            "and 2100: the file is damaged, or its times are in another unit"
        )


@lru_cache(maxsize=4096)
def _offset_ns(zone: ZoneInfo, wall_hour: int) -> int:
    wall = datetime(1970, 1, 1) + timedelta(hours=wall_hour)
    return int(wall.replace(tzinfo=zone).utcoffset().total_seconds()) * SECOND_NS  # type: ignore[union-attr]


def wall_to_utc(wall_ns: I64, zone: ZoneInfo) -> I64:
    """Wall-clock stamps of ``zone``, written as if they were UTC, as UTC. The stamps have to be plausible.
    In the hour that a clock repeats, the first pass is meant."""
    hours, which = np.unique(wall_ns // (3600 * SECOND_NS), return_inverse=True)
    offsets = np.array([_offset_ns(zone, int(hour)) for hour in hours], np.int64)
    return np.asarray(wall_ns - offsets[which]) if len(wall_ns) else wall_ns.copy()


def midnight_ns(day: str, zone: ZoneInfo) -> int:
    """00:00 of ``day`` in ``zone``, ns UTC. RecordingError if there is no such day."""
    try:
        start = datetime.combine(date.fromisoformat(day), datetime.min.time(), zone)
    except ValueError as error:
        raise RecordingError(f"{day!r} is no day") from error
    return int(start.timestamp()) * SECOND_NS


_FRACTION = re.compile(r"[.,](\d+)")


def iso_ns(text: str) -> int:
    """An ISO 8601 time with up to nine decimals, ns UTC; without a zone it is taken for UTC. ValueError when
    it is none."""
    fraction = _FRACTION.search(text)
    whole = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    nano = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return int(whole.timestamp()) * SECOND_NS + nano


def epoch_ns(value: int | str) -> int:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, by their size, in ns. ValueError when it
    is none of them."""
    number = Decimal(value)
    for scale in (SECOND_NS, MILLISECOND_NS, 1_000, 1):
        if EARLIEST_NS <= number * scale < LATEST_NS:
            return int(number * scale)
    raise ValueError(f"{value!r} is no time since 1970 between 1990 and 2100")


def split_days(instrument: Instrument, books: Books, trades: Trades) -> Iterator[InstrumentDay]:
    """The rows by Moscow day of receipt. Rows that go back in time stay in the order they have."""
    both = np.concatenate([books.recv_ns, trades.recv_ns])
    plausible(both, instrument.ticker)
    left = np.sort(both)
    while len(left):
        day = moscow_day(int(left[0]))
        left = left[np.searchsorted(left, day.to_ns) :]
        b = (books.recv_ns >= day.from_ns) & (books.recv_ns < day.to_ns)
        t = (trades.recv_ns >= day.from_ns) & (trades.recv_ns < day.to_ns)
        whole = b.all() and t.all()
        yield InstrumentDay(
            instrument, day.name, books if whole else books.rows(b), trades if whole else trades.rows(t)
        )


def apart(recv_ns: I64, exch_ns: I64) -> dict[str, Any]:
    """How receive time less exchange time is spread, for the provenance. A negative lowest value says that
    the receiver's clock runs behind the exchange's by at least so much."""
    if not len(recv_ns):
        return {}
    lowest, middle, highest = np.quantile(recv_ns - exch_ns, (0.0, 0.5, 1.0)) / MILLISECOND_NS
    return {
        "lowest_ms": round(float(lowest), 3),
        "median_ms": round(float(middle), 3),
        "highest_ms": round(float(highest), 3),
        "receiver_behind_by_at_least_ms": round(max(0.0, -float(lowest)), 3),
    }


def last_of_each(recv_ns: I64, every_ns: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask of the last row of each interval of ``every_ns``; all rows for 0."""
    keep = np.ones(len(recv_ns), np.bool_)
    if every_ns > 0 and len(recv_ns):
        keep[:-1] = recv_ns[1:] // every_ns != recv_ns[:-1] // every_ns
    return keep
