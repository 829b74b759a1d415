"""What the market did after our fills: the mid at the fill and 1, 5 and 30 seconds later.

Read from the session's journal, so it is the market as this runner saw it. A mid after the end of the journal
or past a gap is None, never an extrapolation.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live.journal import EVENTS_FILE, JournalError
from market.types import SECOND_NS

HORIZONS_S = (1, 5, 30)
STALE_NS = 10 * SECOND_NS
"""A mid older than this is not the mid of the moment."""
BPS = 10_000


@dataclass(slots=True)
class Mids:
    """Moments and mids (in half ticks) of one instrument, in order."""

    at_ns: list[int] = field(default_factory=list)
    mid2: list[int] = field(default_factory=list)

    def at(self, now_ns: int) -> int | None:
        """The mid in force at ``now_ns``; None where it is unknown or older than STALE_NS."""
        n = bisect_right(self.at_ns, now_ns) - 1
        return self.mid2[n] if n >= 0 and now_ns - self.at_ns[n] <= STALE_NS else None

    def covers(self, now_ns: int) -> bool:
        """Whether the journal goes on to ``now_ns``."""
        return bisect_left(self.at_ns, now_ns) < len(self.at_ns)


def mids(folder: Path) -> dict[str, Mids]:
    """The mids of every instrument in the journal of ``folder``. Raises JournalError where there is none."""
    found: dict[str, Mids] = {}
    path = folder / EVENTS_FILE
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if not line.startswith('["Book"') or not line.endswith("\n"):
                    continue
                _, now_ns, ticker, _, bid_px, _, ask_px, *_ = json.loads(line)
                if bid_px and ask_px:
                    of = found.setdefault(ticker, Mids())
                    of.at_ns.append(now_ns)
                    of.mid2.append(bid_px[0] + ask_px[0])
    except (OSError, ValueError) as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from None
    return found


def of_fill(fill: Mapping[str, Any], market: Mapping[str, Mids]) -> dict[str, float | None]:
    """``at``: how much better than the mid the price was, bps; ``1s`` ...: how much the mid moved our way
    from the price paid. Positive is good for us.
    """
    known = market.get(fill["ticker"])
    price2, side = 2 * fill["price_ticks"], fill["side"]
    answer: dict[str, float | None] = {}
    for name, ns in (("at", 0), *((f"{s}s", s * SECOND_NS) for s in HORIZONS_S)):
        when = fill["now_ns"] + ns
        mid2 = known.at(when) if known is not None and (not ns or known.covers(when)) else None
        answer[name] = None if mid2 is None else side * (mid2 - price2) * BPS / price2
    return answer
