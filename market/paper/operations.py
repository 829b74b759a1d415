"""What an account's money did, entry by entry: the sum of all payments is the cash."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from market.types import Instrument


class OperationKind(Enum):
    """Kinds of operations that trading makes."""

    PAID_IN = "paid in"
    BUY = "buy"
    SELL = "sell"
    FEE = "fee"
    VARIATION_GAIN = "variation gain"
    VARIATION_LOSS = "variation loss"


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry. ``number`` counts the account's operations from 1; ``parent`` is the number of the deal that
    a fee or a variation margin belongs to, 0 for none. ``payment_nano`` is signed: what the cash gained. A
    deal in a future pays nothing itself; what closing it won or lost is a variation margin.
    """

    number: int
    parent: int
    kind: OperationKind
    now_ns: int
    payment_nano: int
    instrument: Instrument | None = None
    price_ticks: int = 0
    lots: int = 0
    trade_id: str = ""
