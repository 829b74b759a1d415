"""One recorded day in numbers: what a person needs to know before trusting it.

Pure statistics over the arrays of an ``InstrumentDay``: nothing is read, written or repaired here. What the
numbers mean is said in ``market.verdict`` and in docs/data.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from market.inspect.books import Level, Mid, Price, Spread, States, depth, mid, price, spread, states
from market.inspect.clock import Skew, skew
from market.inspect.stats import Histogram, Quantiles
from market.inspect.timing import Gap, Rate, Silences, find_silences, moscow, outside_day
from market.inspect.trades import OFFSET_LIMIT, Location, TradeStats, locate
from market.types import Instrument, InstrumentDay
from market.validate import BookReport, clean_day

__all__ = [
    "OFFSET_LIMIT", "DayInspection", "Gap", "Histogram", "Level", "Location", "Mid", "Price", "Quantiles",
    "Rate", "Silences", "Skew", "Spread", "States", "TradeStats", "inspect_day", "moscow",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DayInspection:
    """Everything known about one day of one instrument; None or empty where there is nothing to judge.

    ``report`` counts the rows as they came and ``states`` is the time they stood for; all else is computed
    from the sound rows. Shares are 0..1.
    """

    instrument: Instrument
    day: str
    report: BookReport
    first_ns: int
    last_ns: int
    outside_day: int
    """Sound rows, books and trades, whose receive time is on another Moscow day than ``day``."""
    books: Rate | None
    trade_rate: Rate | None
    silences: Silences
    states: States | None
    spread: Spread | None
    depth: tuple[Level, ...]
    mid: Mid | None
    price: Price | None
    trades: TradeStats | None
    book_clock: Skew | None
    trade_clock: Skew | None

    @property
    def span_ns(self) -> int:
        return self.last_ns - self.first_ns

    def to_dict(self) -> dict[str, Any]:
        """For JSON: names as here, without the series that are only drawn."""
        out = asdict(self)
        out.pop("price")
        for clock in ("book_clock", "trade_clock"):
            for name in ("time_ns", "low_ns", "middle_ns", "high_ns"):
                (out[clock] or {}).pop(name, None)
        return out


def inspect_day(raw: InstrumentDay) -> DayInspection:
    """Judge a day as recorded. Whatever ``clean_day`` would drop is counted and then left out."""
    day, report = clean_day(raw)
    books, trades = day.books, day.trades
    ends = [int(table.recv_ns[i]) for table in (books, trades) if len(table) for i in (0, -1)]
    first_ns, last_ns = (min(ends), max(ends)) if ends else (0, 0)
    return DayInspection(
        day.instrument,
        day.day,
        report,
        first_ns,
        last_ns,
        outside_day(books.recv_ns, day.day) + outside_day(trades.recv_ns, day.day),
        Rate.of(books.recv_ns, first_ns, last_ns),
        Rate.of(trades.recv_ns, first_ns, last_ns),
        find_silences(books.recv_ns, trades.recv_ns, day.instrument),
        states(raw.books),
        spread(books),
        depth(books),
        mid(books),
        price(books, trades),
        locate(books, trades, day.instrument.tick_value_nano),
        skew(books.exch_ns, books.recv_ns),
        skew(trades.exch_ns, trades.recv_ns),
    )
