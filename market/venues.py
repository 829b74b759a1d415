"""The usual day of a trading venue, as the broker's documents had it before there were morning sessions.
Where a recording shows something else, the recording goes first (``market.paper.schedule``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from typing import Final


@dataclass(frozen=True, slots=True)
class Venue:
    """A trading venue's usual day, Moscow wall clock: sessions (from, to), breaks between them included."""

    name: str
    opening_auction: tuple[time, time]
    main: tuple[time, time]
    evening: tuple[time, time]
    clearing: tuple[time, time] | None
    closing_auction: tuple[time, time] | None = None
    evening_auction: tuple[time, time] | None = None

    def edges(self) -> list[time]:
        """Wall times at which the venue usually changes."""
        pairs = (self.main, self.evening, self.clearing, self.closing_auction, self.evening_auction)
        return sorted({edge for pair in pairs if pair for edge in pair})

    def continuous(self) -> tuple[tuple[time, time], ...]:
        """Stretches of continuous trading, [from, to): no auction, no clearing."""
        if self.clearing is None:
            return self.main, self.evening
        before, after = (self.main[0], self.clearing[0]), (self.clearing[1], self.main[1])
        return before, after, self.evening


VENUES: Final[Mapping[str, Venue]] = {
    "share": Venue(
        "MOEX_PLUS", (time(9, 50), time(10)), (time(10), time(18, 40)), (time(19, 5), time(23, 50)), None,
        (time(18, 40), time(18, 50)), (time(19), time(19, 5)),
    ),
    "future": Venue(
        "FORTS_EVENING", (time(8, 50), time(9)), (time(9), time(18, 50)), (time(19, 5), time(23, 50)),
        (time(14), time(14, 5)),
    ),
}  # fmt: skip
"""By kind of instrument."""
