"""From a signal to an ``OrderPlan``: where the stop is, how many lots, in which orders. All integer, all
pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from live.core.commands import OrderType, TimeInForce
from live.core.config import ExecutionConfig, RiskConfig
from live.core.errors import ImpossibleEvent
from market.fees import fee_nano
from market.types import BUY, Instrument


@dataclass(frozen=True, slots=True)
class Leg:
    """One order of a plan."""

    order_type: OrderType
    lots: int
    price_ticks: int | None
    tif: TimeInForce


_SEAL = object()


@dataclass(frozen=True, slots=True)
class Volume:
    """Lots that every limit of the risk engine allows; ``bound_by`` names the one that set them.

    Only ``volume`` makes them: what has not passed the limits cannot become a plan, and so no order.
    """

    lots: int
    bound_by: str
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise ImpossibleEvent(f"a volume of {self.lots} lots was not allowed by the risk engine")


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """What the risk engine allows for one signal. Its legs are of the allowed volume together, never more."""

    trace_id: str
    ticker: str
    direction: int
    volume: Volume
    entry_ticks: int
    stop_ticks: int
    legs: tuple[Leg, ...]

    def __post_init__(self) -> None:
        if sum(leg.lots for leg in self.legs) > self.volume.lots or any(leg.lots <= 0 for leg in self.legs):
            raise ImpossibleEvent(f"the legs {self.legs} are not of the {self.volume.lots} lots allowed")

    @property
    def lots(self) -> int:
        return self.volume.lots


@dataclass(frozen=True, slots=True)
class Touch:
    """The best prices and sizes, ticks and lots."""

    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int

    def entry(self, direction: int) -> tuple[int, int]:
        """(price, size) that an order of ``direction`` would meet."""
        return (self.ask_ticks, self.ask_lots) if direction == BUY else (self.bid_ticks, self.bid_lots)

    @property
    def spread_ticks(self) -> int:
        return self.ask_ticks - self.bid_ticks


def stop_distance_ticks(sum_tr2: int, bars: int, spread_ticks: int, multiplier_e3: int = 1_000) -> int:
    """``multiplier * (1.8 * atr5 + 0.5 * spread)`` in whole ticks, rounded away from the entry, at least one.

    ``sum_tr2``: sum of the true ranges of ``bars`` (1..5) one-minute mid bars, in half-ticks, so that atr5 =
    sum_tr2 / (2 * bars) ticks. The specification writes atr5 and spread as fractions of the price; times the
    entry price they are these ticks. Rounding away widens the stop, which makes the volume smaller, never
    larger.
    """
    return max(1, _round_away(multiplier_e3 * (9 * sum_tr2 + 5 * bars * spread_ticks), 10_000 * bars))


def _round_away(numerator: int, denominator: int) -> int:
    """The quotient of whole numbers >= 0, rounded up: a distance never shrinks by rounding."""
    return -(-numerator // denominator)


def loss_per_lot_nano(instrument: Instrument, entry_ticks: int, stop_ticks: int, fee_ppm: int) -> int:
    """What one lot loses if the stop fills at its price, both fees included. At least one nano-rouble."""
    value, stop_value = instrument.notional_nano(entry_ticks, 1), instrument.notional_nano(stop_ticks, 1)
    return max(1, abs(value - stop_value) + fee_nano(value, fee_ppm) + fee_nano(stop_value, fee_ppm))


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is already held or working, absolute nano-roubles (``gross``) and lots."""

    ticker_lots: int = 0
    ticker_nano: int = 0
    gross_nano: int = 0


def volume(
    risk: RiskConfig,
    exposure: Exposure,
    *,
    loss_per_lot: int,
    value_per_lot: int,
    touch_lots: int,
) -> Volume:
    """Lots, rounded down, and the limit that bound them; 0 lots is a refusal by that limit.

    The smallest of: risk budget / loss per lot at the stop, room under the position limit, room under the
    instrument's and the gross exposure limits, and the allowed share of the size shown at the touch.
    """
    rooms = (
        ("RISK_BUDGET", risk.risk_budget_nano // loss_per_lot),
        ("POSITION_LIMIT", risk.max_position_lots - exposure.ticker_lots),
        ("EXPOSURE_LIMIT", (risk.exposure_nano - exposure.ticker_nano) // value_per_lot),
        ("GROSS_EXPOSURE_LIMIT", (risk.max_gross_exposure_nano - exposure.gross_nano) // value_per_lot),
        ("LIQUIDITY", touch_lots * risk.liquidity_share_pct // 100),
    )
    name, lots = min(rooms, key=lambda room: room[1])
    return Volume(max(0, lots), name, _SEAL)


def legs(direction: int, lots: int, touch: Touch, execution: ExecutionConfig) -> tuple[Leg, ...]:
    """The VWAP split above the threshold (a market share, the rest improved by some ticks), else one IOC
    order.

    The limit asks for ``limit_improvement_ticks`` better than the touch it could take, yet never worse than
    joining the queue on our own side.
    """
    if lots <= execution.vwap_threshold_lots:
        return (Leg("market", lots, None, "fak"),)
    market_lots = lots * execution.vwap_market_share_ppm // 1_000_000
    entry_ticks, _ = touch.entry(direction)
    queue_ticks, _ = touch.entry(-direction)
    improved = entry_ticks - direction * execution.limit_improvement_ticks
    price = max(improved, queue_ticks) if direction == BUY else min(improved, queue_ticks)
    planned = []
    if market_lots:
        planned.append(Leg("market", market_lots, None, "fak"))
    if lots - market_lots:
        planned.append(Leg("limit", lots - market_lots, price, "day"))
    return tuple(planned)
