"""When the rows came: span, rates, and the silences between books with what explains them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Self

import numpy as np

from market.days import MOSCOW, moscow_day
from market.types import I64, SECOND_NS, Instrument
from market.validate import GAP_NS

LONG_INTERVALS = 3
"""An interval of more than so many median intervals is long: features void their flow step there."""
MAX_GAPS = 200
"""So many gaps, the longest ones, are listed one by one."""
RATE_BINS = 240

BREAKS: dict[str, tuple[tuple[str, time, time], ...]] = {
    "future": (
        ("before the opening", time(0, 0), time(9, 1)),
        ("before the opening", time(9, 49), time(10, 1)),
        ("clearing break", time(13, 59), time(14, 6)),
        ("evening clearing", time(18, 39), time(19, 6)),
    ),
    "share": (
        ("before the opening", time(0, 0), time(7, 1)),
        ("opening auction", time(9, 49), time(10, 1)),
        ("closing auction", time(18, 38), time(19, 6)),
    ),
}
"""Moscow times by kind of instrument, wide enough for every calendar since 2013 (they moved by minutes)."""
EVENING, MORNING = time(18, 38), time(10, 1)
"""A silence that begins after the one and ends on a later day before the other is the night (or weekend)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often one kind of event came. ``per_s``: events per second in equal bins of ``bin_ns``.

    ``median_ns``, ``p99_ns``: intervals between consecutive events, 0 with fewer than two. ``busiest``: the
    most events in one second of the clock.
    """

    count: int
    first_ns: int
    last_ns: int
    median_ns: int
    p99_ns: int
    busiest: int
    bin_ns: int
    per_s: tuple[float, ...]

    @property
    def mean_per_s(self) -> float:
        span_ns = self.last_ns - self.first_ns
        return self.count * SECOND_NS / span_ns if span_ns else 0.0

    @classmethod
    def of(cls, recv_ns: I64, first_ns: int, last_ns: int) -> Self | None:
        """Over the span [first_ns, last_ns] of the day, so that the bins of books and trades agree."""
        if not len(recv_ns):
            return None
        apart = np.diff(recv_ns)
        median, p99 = np.quantile(apart, (0.5, 0.99)).astype(np.int64).tolist() if len(apart) else (0, 0)
        bins = min(RATE_BINS, max(1, (last_ns - first_ns) // SECOND_NS))
        bin_ns = (last_ns - first_ns) // bins + 1
        held = np.bincount((recv_ns - first_ns) // bin_ns, minlength=bins)[:bins]
        busiest = int(np.unique(recv_ns // SECOND_NS, return_counts=True)[1].max())
        return cls(
            len(recv_ns), int(recv_ns[0]), int(recv_ns[-1]), median, p99, busiest, int(bin_ns),
            tuple((held * SECOND_NS / bin_ns).tolist()),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gap:
    """A silence between two books. ``cause``: a known break of trading, or "" when nothing explains it.

    ``trades`` were printed while the book stood still (the last second is not counted: it belongs to what
    comes next).
    """

    from_ns: int
    to_ns: int
    cause: str
    trades: int

    @property
    def length_ns(self) -> int:
        return self.to_ns - self.from_ns


@dataclass(frozen=True, slots=True)
class Silences:
    """Gaps longer than ``GAP_NS`` between sound books, and intervals that are long for this instrument.

    ``listed`` holds at most ``MAX_GAPS`` gaps in order of time, ``count`` all of them. ``unexplained`` and
    ``unexplained_ns`` leave the known breaks out. ``long_share``: share of the intervals above
    ``LONG_INTERVALS`` medians.
    """

    count: int
    unexplained: int
    total_ns: int
    unexplained_ns: int
    trades: int
    long_share: float
    listed: tuple[Gap, ...]


def find_silences(book_recv_ns: I64, trade_recv_ns: I64, instrument: Instrument) -> Silences:
    """``book_recv_ns`` never goes back; ``trade_recv_ns`` neither."""
    apart = np.diff(book_recv_ns)
    if not len(apart):
        return Silences(0, 0, 0, 0, 0, 0.0, ())
    at = np.flatnonzero(apart > GAP_NS)
    gaps = [
        Gap(
            start := int(book_recv_ns[i]),
            end := int(book_recv_ns[i + 1]),
            _cause(start, end, instrument),
            int(np.diff(np.searchsorted(trade_recv_ns, (start + 1, end - SECOND_NS)))[0]),
        )
        for i in at
    ]
    median_ns = float(np.median(apart))
    longest = sorted(gaps, key=lambda gap: -gap.length_ns)[:MAX_GAPS]
    odd = [gap for gap in gaps if not gap.cause]
    return Silences(
        len(gaps),
        len(odd),
        sum(gap.length_ns for gap in gaps),
        sum(gap.length_ns for gap in odd),
        sum(gap.trades for gap in gaps),
        float((apart > LONG_INTERVALS * median_ns).mean()),
        tuple(sorted(longest, key=lambda gap: gap.from_ns)),
    )


def moscow(ns: int) -> datetime:
    """Moscow wall clock, to the microsecond."""
    return (
        datetime.fromtimestamp(ns // SECOND_NS, UTC)
        .replace(microsecond=ns % SECOND_NS // 1000)
        .astimezone(MOSCOW)
    )


def _cause(from_ns: int, to_ns: int, instrument: Instrument) -> str:
    """The break in which the whole silence lies. Only roubles are traded by Moscow's timetable."""
    if instrument.currency != "rub":
        return ""
    start, end = moscow(from_ns), moscow(to_ns)
    if start.date() != end.date():
        return "night" if start.time() >= EVENING and end.time() <= MORNING else ""
    for name, opens, closes in BREAKS.get(instrument.kind, ()):
        if opens <= start.time() and end.time() <= closes:
            return name
    return ""


def outside_day(recv_ns: I64, day: str) -> int:
    """How many stamps are not on the Moscow day ``day``."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=MOSCOW)
    whole = moscow_day(int(noon.timestamp()) * SECOND_NS)
    return int(((recv_ns < whole.from_ns) | (recv_ns >= whole.to_ns)).sum())
