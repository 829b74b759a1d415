"""What the engine asks for. The driver carries commands out in order; every one says why.

``PlaceOrder``, ``CancelOrder``, ``QueryOrder`` and ``RequestReconcile`` concern the broker; the rest is to be
recorded, shown or sent to a person. The driver must write a ``PlaceOrder`` to disk before it goes on the
wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from live.core.holds import Hold, Tag

OrderType = Literal["market", "limit", "stop"]
TimeInForce = Literal["day", "fak", "fok"]
Role = Literal["ENTRY", "EXIT", "STOP"]

TONE_LIQUIDITY_HZ = 1500
TONE_RISK_HZ = 2500


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Send one order. ``side`` 1 buys, -1 sells. ``price_ticks``: limit price, stop price for ``stop``, else
    None.
    """

    trace_id: str
    client_order_id: str
    ticker: str
    side: int
    lots: int
    order_type: OrderType
    price_ticks: int | None
    tif: TimeInForce
    reduce_only: bool
    reason: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class QueryOrder:
    """Ask the broker for the state of one order; the answer comes back as an ``OrderUpdate``."""

    client_order_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RequestReconcile:
    """Read orders, fills and positions from the broker soon and send ``Reconciled``."""

    reason: str


@dataclass(frozen=True, slots=True)
class RecordSignal:
    """A signal and what became of it. ``outcome`` is ENTRY, EXIT or the reason of the refusal."""

    now_ns: int
    trace_id: str
    ticker: str
    direction: int
    p_e6: tuple[int, int, int]
    expected_move_millibps: int
    cost_millibps: int
    edge_millibps: int
    confidence_e6: int
    source: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """A signal that did not become an order. ``count``: how many alike since the last one told."""

    now_ns: int
    trace_id: str
    ticker: str
    reason: str
    detail: str
    count: int


@dataclass(frozen=True, slots=True)
class HoldChanged:
    now_ns: int
    hold: Hold
    raised: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """One line of ``runtime/audit.log``; ``fields`` values are str or int."""

    now_ns: int
    tag: Tag
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notify:
    """A message to people; ``tone_hz`` 1500 liquidity, 2500 high risk, None silent."""

    now_ns: int
    kind: str
    text: str
    tone_hz: int | None = None


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """The state of an order of ours after an update; the row of the orders table."""

    now_ns: int
    trace_id: str
    client_order_id: str
    exchange_order_id: str
    ticker: str
    side: int
    lots: int
    lots_filled: int
    role: Role
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class FillBooked:
    """One deal of ours, booked once. ``realised_nano`` is what it realised before its own fee."""

    now_ns: int
    trace_id: str
    client_order_id: str
    trade_id: str
    ticker: str
    side: int
    price_ticks: int
    lots: int
    fee_nano: int
    realised_nano: int


@dataclass(frozen=True, slots=True)
class PositionChanged:
    """A position after a fill. ``cost_nano`` is the signed cost of the open lots, without fees."""

    now_ns: int
    ticker: str
    lots: int
    cost_nano: int
    realised_nano: int
    fees_nano: int
    stop_ticks: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class TripClosed:
    """One round trip from flat to flat. ``side`` is the entry's; ``entry_value_nano`` its traded value."""

    trace_id: str
    ticker: str
    side: int
    lots: int
    entry_ns: int
    exit_ns: int
    entry_value_nano: int
    exit_value_nano: int
    gross_nano: int
    fees_nano: int
    net_nano: int
    exit_reason: str


Command = (
    PlaceOrder | CancelOrder | QueryOrder | RequestReconcile | RecordSignal | Refuse | HoldChanged | Audit
    | Notify | OrderChanged | FillBooked | PositionChanged | TripClosed
)  # fmt: skip
