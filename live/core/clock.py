"""The exchange's days and trading windows as integer arithmetic on nanoseconds UTC."""

from __future__ import annotations

from live.core.config import DAY_S, SessionConfig
from market.types import SECOND_NS

DAY_NS = DAY_S * SECOND_NS
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, Monday being 0


def exchange_day(now_ns: int, utc_offset_s: int) -> int:
    """Number of the exchange's calendar day since 1970-01-01 in its own time."""
    return (now_ns + utc_offset_s * SECOND_NS) // DAY_NS


def day_start_ns(day: int, utc_offset_s: int) -> int:
    """The exchange's midnight that begins ``day``, ns UTC."""
    return day * DAY_NS - utc_offset_s * SECOND_NS


def weekday(day: int) -> int:
    """0 Monday .. 6 Sunday."""
    return (day + _EPOCH_WEEKDAY) % 7


def window_open(now_ns: int, session: SessionConfig) -> bool:
    """Is trading allowed by the schedule: an allowed weekday, in [start - pre_open, end + post_close)?"""
    if not session.enabled:
        return True
    day = exchange_day(now_ns, session.utc_offset_s)
    if weekday(day) not in session.allowed_weekdays:
        return False
    opens, closes = _window(day, session)
    return opens <= now_ns < closes


def next_open_ns(now_ns: int, session: SessionConfig) -> int:
    """When the next window opens after ``now_ns``; at most a week away."""
    today = exchange_day(now_ns, session.utc_offset_s)
    for day in range(today, today + 8):
        opens, _ = _window(day, session)
        if weekday(day) in session.allowed_weekdays and opens > now_ns:
            return opens
    raise AssertionError("a session has at least one allowed weekday")  # checked by SessionConfig


def next_edge_ns(now_ns: int, session: SessionConfig) -> int:
    """When ``window_open`` next changes its answer, or an upper bound of a week."""
    if not session.enabled:
        return now_ns + 7 * DAY_NS
    if window_open(now_ns, session):
        return _window(exchange_day(now_ns, session.utc_offset_s), session)[1]
    return next_open_ns(now_ns, session)


def _window(day: int, session: SessionConfig) -> tuple[int, int]:
    midnight = day_start_ns(day, session.utc_offset_s)
    opens = midnight + (session.start_s - session.pre_open_s) * SECOND_NS
    closes = midnight + (session.end_s + session.post_close_s) * SECOND_NS
    return opens, closes


def iso_time(now_ns: int, utc_offset_s: int) -> str:
    """``YYYY-MM-DD HH:MM`` in the exchange's time, for people (civil date by H. Hinnant's algorithm)."""
    local_s = now_ns // SECOND_NS + utc_offset_s
    days, seconds = divmod(local_s, DAY_S)
    shifted = days + 719_468
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_index = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_index + 2) // 5 + 1
    month = month_index + 3 if month_index < 10 else month_index - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    return f"{year:04d}-{month:02d}-{day:02d} {seconds // 3600:02d}:{seconds // 60 % 60:02d}"
