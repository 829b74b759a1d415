"""When a simulated instrument trades: opening, clearing breaks, close, and how busy each minute is.

The kernel runs in trading time, which stands still during a break; ``Clock`` turns it into the time of day.
The hours of an exchange change, so a session is data, and the named ones say which rules they follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import time
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError
from market.types import SECOND_NS

MAX_BREAKS = 16


@dataclass(frozen=True, slots=True)
class Session:
    """One exchange day, Moscow wall clock, times written HH:MM.

    Nothing happens during ``breaks``: no book, no trade. The intraday U spans the trading hours up to
    ``evening_from`` (the whole day when it is empty); from then on activity stays at ``evening_activity``
    times the level of the U's bottom. After the opening and after every break there is a burst: activity is
    ``1 + burst`` times as high, fading within about ``burst_s`` seconds.
    """

    open: str
    close: str
    breaks: tuple[tuple[str, str], ...] = ()
    evening_from: str = ""
    evening_activity: float = 0.5
    burst: float = 1.0
    burst_s: float = 180.0

    def __post_init__(self) -> None:
        edges = [_seconds(self.open), *(_seconds(t) for pair in self.breaks for t in pair)]
        edges.append(_seconds(self.close))
        if any(later <= earlier for earlier, later in pairwise(edges)):
            raise ConfigError(
                f"the session {self.open}-{self.close} with breaks {list(self.breaks)} is not in order: "
                "opening, each break's start and end, and the close must follow one another"
            )
        if len(self.breaks) > MAX_BREAKS:
            raise ConfigError(f"a simulated session has at most {MAX_BREAKS} breaks, not {len(self.breaks)}")
        if self.evening_from and not edges[0] < _seconds(self.evening_from) < edges[-1]:
            raise ConfigError(f"the evening cannot start at {self.evening_from}: that is outside the session")
        if min(self.evening_activity, self.burst_s) <= 0 or self.burst < 0:
            raise ConfigError(
                f"evening_activity and burst_s must be above 0 and burst at least 0, not "
                f"{self.evening_activity!r}, {self.burst_s!r}, {self.burst!r}"
            )

    def periods_s(self) -> list[tuple[int, int]]:
        """Trading periods, seconds after midnight."""
        edges = [_seconds(self.open), *(_seconds(t) for pair in self.breaks for t in pair)]
        edges.append(_seconds(self.close))
        return list(zip(edges[::2], edges[1::2], strict=True))

    def trading_s(self) -> int:
        return sum(end - start for start, end in self.periods_s())

    def clock(self) -> Clock:
        periods = self.periods_s()
        lengths = np.array([end - start for start, end in periods], np.int64)
        pauses = [start - end for (_, end), (start, _) in pairwise(periods)]
        return Clock(
            periods[0][0] * SECOND_NS,
            np.cumsum(lengths)[:-1] * SECOND_NS,
            np.array(pauses, np.int64) * SECOND_NS,
        )

    def activity(self, n: int, dt_ns: int, ushape: float) -> NDArray[np.float64]:
        """How busy the interval before each of ``n`` snapshots is: float64 [n], one at the U's bottom."""
        at_s = (np.arange(n) + 0.5) * dt_ns / SECOND_NS
        day_s = self.trading_s()
        main_s = self._trading_before(self.evening_from) if self.evening_from else day_s
        x = 2 * np.minimum(at_s, main_s) / main_s - 1
        level = np.where(at_s < main_s, 1 + ushape * x * x, self.evening_activity)
        starts = np.concatenate([[0], self.clock().pause_at_ns / SECOND_NS])
        since_s = at_s - starts[np.searchsorted(starts, at_s, side="right") - 1]
        return np.asarray(level * (1 + self.burst * np.exp(-since_s / self.burst_s)))

    def _trading_before(self, moment: str) -> int:
        at = _seconds(moment)
        return sum(max(0, min(end, at) - start) for start, end in self.periods_s())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _no_ns() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Clock:
    """From trading time to the time of day. ``pause_at_ns`` int64 [k]: trading time of each pause, rising;
    ``pause_ns`` int64 [k]: how long it lasts; ``open_ns``: the opening, after midnight."""

    open_ns: int
    pause_at_ns: NDArray[np.int64] = field(default_factory=_no_ns)
    pause_ns: NDArray[np.int64] = field(default_factory=_no_ns)

    def of_day_ns(self, trading_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanoseconds after midnight; what happens at the very start of a pause comes before it."""
        paused = np.concatenate([[0], np.cumsum(self.pause_ns)])
        passed = paused[np.searchsorted(self.pause_at_ns, trading_ns, side="left")]
        return np.asarray(trading_ns + self.open_ns + passed, np.int64)


def _seconds(moment: str) -> int:
    try:
        at = time.fromisoformat(moment)
    except (ValueError, TypeError):
        raise ConfigError(f"a time of a simulated session is written HH:MM, not {moment!r}") from None
    return at.hour * 3600 + at.minute * 60 + at.second


SESSIONS: Mapping[str, Session] = MappingProxyType(
    {
        "shares": Session("10:00", "18:40"),
        "shares-evening": Session("10:00", "23:50", (("18:40", "19:05"),), evening_from="18:40"),
        "futures": Session("10:00", "23:50", (("14:00", "14:05"), ("18:45", "19:05")), evening_from="18:45"),
        "futures-2026": Session("08:50", "23:50", evening_from="19:00"),
    }
)
"""Moscow Exchange. ``shares``: the main session; with its evening: ``shares-evening``. ``futures``: the two
clearings of the years up to March 2026; ``futures-2026``: the single session since then, cleared at night."""
