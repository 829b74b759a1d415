"""Average-cost accounting in whole nano-roubles: nothing is lost to rounding, so it equals the broker's cash.

A partial close releases its share of the cost rounded down and leaves the remainder in the position; whatever
the rounding, ``realised - fees + (mark - cost) == cash flow + mark`` holds exactly at every step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from live.core.whole import whole
from market.types import Instrument


@dataclass(slots=True)
class Trip:
    """The round trip in progress: from flat to flat. Values are traded values, all >= 0, nano-roubles."""

    trace_id: str
    side: int
    entry_ns: int
    lots: int = 0
    entry_value_nano: int = 0
    exit_value_nano: int = 0
    gross_nano: int = 0
    fees_nano: int = 0


@dataclass(frozen=True, slots=True)
class Booked:
    """What one fill did. ``closed`` is the round trip that it ended, if any."""

    realised_nano: int
    closed: Trip | None
    opened: bool


@dataclass(slots=True)
class Position:
    """Our lots of one instrument. ``cost_nano`` is the signed cost of the open lots, fees apart."""

    lots: int = 0
    cost_nano: int = 0
    realised_nano: int = 0
    """Realised by closing, before fees, since the engine was new."""
    fees_nano: int = 0
    trip: Trip | None = None

    def book(
        self,
        instrument: Instrument,
        side: int,
        price_ticks: int,
        lots: int,
        fee_nano: int,
        now_ns: int,
        trace_id: str,
    ) -> Booked:
        """Book one deal: ``side`` 1 bought, -1 sold, ``lots`` > 0. A deal larger than the position reverses
        it.
        """
        if side not in (1, -1) or lots <= 0:
            raise ValueError(f"a deal has a side of 1 or -1 and lots > 0, not {side} and {lots}")
        self.fees_nano += fee_nano
        value = instrument.notional_nano(price_ticks, lots)
        closing = min(lots, abs(self.lots)) if self.lots * side < 0 else 0
        realised, closed = 0, None
        closing_fee = fee_nano * closing // lots
        if closing:
            realised = self._reduce(
                side, instrument.notional_nano(price_ticks, closing), closing, closing_fee
            )
            if self.lots == 0:
                closed, self.trip = self.trip, None
        opening = lots - closing
        opened = False
        if opening:
            opened = self.lots == 0
            opening_value = value - instrument.notional_nano(price_ticks, closing)
            self._enlarge(side, opening_value, opening, fee_nano - closing_fee, now_ns, trace_id)
        return Booked(realised, closed, opened)

    def _reduce(self, side: int, value_nano: int, lots: int, fee_nano: int) -> int:
        released = self.cost_nano * lots // abs(self.lots)
        realised = -side * value_nano - released
        self.cost_nano -= released
        self.lots += side * lots
        self.realised_nano += realised
        if self.trip is not None:
            self.trip.exit_value_nano += abs(value_nano)
            self.trip.gross_nano += realised
            self.trip.fees_nano += fee_nano
        return realised

    def _enlarge(
        self, side: int, value_nano: int, lots: int, fee_nano: int, now_ns: int, trace_id: str
    ) -> None:
        if self.trip is None:
            self.trip = Trip(trace_id, side, now_ns)
        self.lots += side * lots
        self.cost_nano += side * value_nano
        self.trip.lots += lots
        self.trip.entry_value_nano += abs(value_nano)
        self.trip.fees_nano += fee_nano

    def unrealised_nano(self, instrument: Instrument, price_ticks: int) -> int:
        """Open result if the position were valued at ``price_ticks``, fees of the exit not counted."""
        return instrument.notional_nano(price_ticks, self.lots) - self.cost_nano

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Position:
        trip = fields["trip"]
        return whole(cls, {**fields, "trip": whole(Trip, trip) if trip else None})
