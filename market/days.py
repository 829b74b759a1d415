"""The exchange's day: Moscow's calendar, which has not always been three hours ahead of UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from market.types import SECOND_NS

MOSCOW = ZoneInfo("Europe/Moscow")
HOUR_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day in Moscow: ``name`` YYYY-MM-DD, [from_ns, to_ns) in nanoseconds UTC."""

    name: str
    from_ns: int
    to_ns: int

    def __contains__(self, ns: int) -> bool:
        return self.from_ns <= ns < self.to_ns


def moscow_day(ns: int) -> Day:
    """The day that holds the moment ``ns`` (nanoseconds UTC)."""
    day = _day_at(int(ns // HOUR_NS) * 3600)
    # Only before 1930 may midnight have come in the middle of an hour.
    return day if ns in day else _day_at(int(ns // SECOND_NS))


@lru_cache(maxsize=4096)
def _day_at(second: int) -> Day:
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).astimezone(MOSCOW)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    after = (midnight.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=MOSCOW)
    return Day(
        midnight.date().isoformat(), int(midnight.timestamp()) * SECOND_NS, int(after.timestamp()) * SECOND_NS
    )
