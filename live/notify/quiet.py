"""Quiet hours: a stretch of the day, in the exchange's time zone, in which only alerts make a sound."""

from __future__ import annotations

from datetime import datetime, time
from zoneinfo import ZoneInfo


class QuietHours:
    """``text`` is ``HH:MM-HH:MM`` (it may go over midnight), or empty for never."""

    def __init__(self, text: str, timezone: str) -> None:
        self._zone = ZoneInfo(timezone)
        begin, _, end = text.partition("-")
        self._span = (time.fromisoformat(begin), time.fromisoformat(end)) if text else None

    def now(self) -> bool:
        return self.at(datetime.now(self._zone))

    def at(self, moment: datetime) -> bool:
        if self._span is None:
            return False
        begin, end = self._span
        here = moment.astimezone(self._zone).time()
        return begin <= here < end if begin <= end else here >= begin or here < end
