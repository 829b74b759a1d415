"""On which days the exchange trades, as far as anybody can know it beforehand.

The exchange publishes its calendar year by year: it moves holidays, trades on some Saturdays, and since 2025
holds sessions at weekends. None of that can be computed. So the rule here is the plain one, and a file says
what is different; a day that was recorded needs neither, since it shows what happened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Self

from market.errors import ConfigError

HOLIDAYS: Final = frozenset(
    {(1, 1), (1, 2), (1, 7), (2, 23), (3, 8), (5, 1), (5, 9), (6, 12), (11, 4), (12, 31)}
)
"""Month and day of the days on which the exchange rests in every ordinary year."""
MAX_FILE_BYTES: Final = 1_000_000
_FIELDS: Final = ("closed", "open")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Weekdays trade, weekends and ``HOLIDAYS`` do not, but for the days that are named here."""

    closed: frozenset[date] = frozenset()
    open: frozenset[date] = frozenset()

    def trades(self, day: date) -> bool:
        if day in self.closed or day in self.open:
            return day in self.open
        return day.weekday() < 5 and (day.month, day.day) not in HOLIDAYS

    @classmethod
    def read(cls, path: Path) -> Self:
        """From JSON: ``{"closed": ["2026-01-09"], "open": ["2026-02-28"]}``, either may be left out.

        Raises ConfigError, which names the file and what is wrong with it.
        """
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ConfigError(f"the calendar {path} is longer than {MAX_FILE_BYTES:,} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the calendar {path} cannot be read: {error}") from None
        if not isinstance(content, dict) or set(content) - set(_FIELDS):
            raise ConfigError(f'the calendar {path} must look like {{"closed": ["2026-01-09"], "open": []}}')
        closed, opened = (_days(path, name, content.get(name, [])) for name in _FIELDS)
        if both := closed & opened:
            raise ConfigError(f"the calendar {path} calls {min(both)} both closed and open")
        return cls(closed, opened)


def _days(path: Path, name: str, given: Any) -> frozenset[date]:
    days = set()
    for text in given if isinstance(given, list) else [given]:
        try:
            days.add(date.fromisoformat(text))
        except (TypeError, ValueError):
            raise ConfigError(
                f"the calendar {path} has {text!r} under {name!r}; a day is written YYYY-MM-DD"
            ) from None
    return frozenset(days)
