"""An order on the paper exchange, from the request to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from market.matching import Execution, TimeInForce
from market.paper.listing import Listing
from market.types import Instrument

OrderKind = Literal["limit", "market", "bestprice"]


class Status(Enum):
    """Where an order is in its life."""

    NEW = "new"
    PARTIAL = "partial"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class Cause(Enum):
    """Why an order was cancelled or rejected."""

    CLIENT = "client"
    EXCHANGE = "exchange"
    BROKER = "broker"
    REJECTED_BY_EXCHANGE = "rejected by the exchange"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order that a client asks for, in our own words. ``price_ticks`` None: none was given."""

    account_id: str
    key: str
    listing: Listing
    side: int
    lots: int
    kind: OrderKind
    price_ticks: int | None
    tif: TimeInForce
    confirm_margin: bool = False


@dataclass(slots=True)
class PaperOrder:
    """An order of an account, from acceptance to its end. ``price_ticks`` None is a market order.

    ``disclosed``: clients are told the exchange's id; until then they see ``internal_id``. ``waiting_lots``
    have not been handed to the matching yet.
    """

    account_id: str
    key: str
    internal_id: str
    listing: Listing
    side: int
    lots: int
    kind: OrderKind
    price_ticks: int | None
    tif: TimeInForce
    created_ns: int
    initial_ticks: int
    exchange_id: str = ""
    disclosed: bool = False
    waiting_lots: int = 0
    status: Status = Status.NEW
    cause: Cause | None = None
    executions: list[Execution] = field(default_factory=list)
    lots_executed: int = 0
    changed_ns: int = 0

    @property
    def instrument(self) -> Instrument:
        return self.listing.instrument

    @property
    def shown_id(self) -> str:
        """The id that clients see now."""
        return self.exchange_id if self.disclosed else self.internal_id

    @property
    def active(self) -> bool:
        return self.status in (Status.NEW, Status.PARTIAL)

    @property
    def lots_left(self) -> int:
        """Lots that may still be executed; 0 once the order is over."""
        return self.lots - self.lots_executed if self.active else 0

    def fill(self, execution: Execution) -> None:
        """One more deal."""
        self.executions.append(execution)
        self.lots_executed += execution.lots
        self.status = Status.FILLED if self.lots_executed == self.lots else Status.PARTIAL
        self.changed_ns = execution.now_ns

    @property
    def fee_nano(self) -> int:
        return sum(e.fee_nano for e in self.executions)

    @property
    def executed_nano(self) -> int:
        """Value of what was executed, nano-roubles, positive."""
        return sum(self.instrument.notional_nano(e.price_ticks, e.lots) for e in self.executions)

    @property
    def initial_nano(self) -> int:
        """Value of the whole order at its limit, or at the mark when it was a market order."""
        return self.instrument.notional_nano(self.initial_ticks, self.lots)
