"""The market as data: instruments, books and trades, in whole numbers.

Prices are ticks, sizes are lots, times are nanoseconds UTC, money is nano-roubles. Nothing here knows where
the data came from. Conversions from and to a broker's decimals live in ``market.contract.convert``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

BUY = 1
SELL = -1
DEPTH = 20
"""Levels per side in every array of the product; shallower sources leave the rest empty (size 0)."""

NANO = 1_000_000_000
SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000

BOOK_CONSISTENT = 1
"""Bit 0 of ``Books.flags``: the source claims that the snapshot is complete (``is_consistent``)."""

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable instrument.

    ``tick_nano`` is the price step in nano price units (roubles per unit for a share, points for a future);
    ``tick_value_nano`` is what one lot gains when the price rises one tick, in nano-roubles, so that the
    value of a position is always ``price_ticks * lots * tick_value_nano`` (``Instrument.notional_nano``).
    """

    uid: str
    ticker: str
    class_code: str
    figi: str
    kind: Literal["share", "future"]
    lot: int
    tick_nano: int
    tick_value_nano: int
    currency: str = "rub"
    name: str = ""

    def notional_nano(self, price_ticks: int, lots: int) -> int:
        """Value of ``lots`` at ``price_ticks``, nano-roubles, signed like ``lots``."""
        return price_ticks * lots * self.tick_value_nano

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields)


@dataclass(slots=True)
class Books:
    """Order-book snapshots of one instrument, oldest first. ``n`` rows.

    ``exch_ns``, ``recv_ns``: int64 [n]. ``bid_px``, ``bid_qty``, ``ask_px``, ``ask_qty``: int32 [n, DEPTH],
    best level first; an absent level has size 0 (and price 0). ``flags``: uint8 [n].
    """

    exch_ns: I64
    recv_ns: I64
    bid_px: I32
    bid_qty: I32
    ask_px: I32
    ask_qty: I32
    flags: U8

    def __len__(self) -> int:
        return len(self.recv_ns)

    def rows(self, selection: slice | NDArray[Any]) -> Books:
        """The chosen rows, in order (views for a slice, copies for an index or mask)."""
        return Books(
            self.exch_ns[selection], self.recv_ns[selection], self.bid_px[selection], self.bid_qty[selection],
            self.ask_px[selection], self.ask_qty[selection], self.flags[selection],
        )  # fmt: skip

    @classmethod
    def empty(cls, n: int = 0) -> Books:
        bid_px, bid_qty, ask_px, ask_qty = np.zeros((4, n, DEPTH), np.int32)
        exch_ns, recv_ns = np.zeros((2, n), np.int64)
        flags = np.full(n, BOOK_CONSISTENT, np.uint8)
        return cls(exch_ns, recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags)


@dataclass(slots=True)
class Trades:
    """Anonymous trades of one instrument, oldest first. ``side`` is the aggressor: BUY or SELL, 0 unknown."""

    exch_ns: I64
    recv_ns: I64
    px: I32
    qty: I32
    side: I8

    def __len__(self) -> int:
        return len(self.recv_ns)

    def rows(self, selection: slice | NDArray[Any]) -> Trades:
        return Trades(
            self.exch_ns[selection], self.recv_ns[selection], self.px[selection], self.qty[selection],
            self.side[selection],
        )  # fmt: skip

    @classmethod
    def empty(cls, n: int = 0) -> Trades:
        return cls(
            np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int32), np.zeros(n, np.int32),
            np.zeros(n, np.int8),
        )  # fmt: skip


OWN_KINDS = ("placed", "working", "fill", "cancelled", "rejected", "unknown")
"""What can happen to an order of ours; ``OwnEvents.kind`` is an index into this."""


@dataclass(slots=True)
class OwnEvents:
    """What happened to our own orders in one instrument, in the order in which we learned of it. ``n`` rows.

    ``event_ns``, ``fee_nano``: int64 [n]. ``kind``: uint8 [n], see OWN_KINDS. ``client_order_id``: str [n]
    (object array). ``side``: int8 [n], BUY or SELL, 0 where not known. ``px`` ticks (0: at market) and
    ``qty`` lots: int32 [n], of the order, or of the deal where ``kind`` is a fill.
    """

    event_ns: I64
    kind: U8
    client_order_id: NDArray[np.object_]
    side: I8
    px: I32
    qty: I32
    fee_nano: I64

    def __len__(self) -> int:
        return len(self.event_ns)

    def rows(self, selection: slice | NDArray[Any]) -> OwnEvents:
        return OwnEvents(
            self.event_ns[selection], self.kind[selection], self.client_order_id[selection],
            self.side[selection], self.px[selection], self.qty[selection], self.fee_nano[selection],
        )  # fmt: skip

    @classmethod
    def empty(cls, n: int = 0) -> OwnEvents:
        return cls(
            np.zeros(n, np.int64), np.zeros(n, np.uint8), np.full(n, "", np.object_), np.zeros(n, np.int8),
            np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64),
        )  # fmt: skip


@dataclass(slots=True)
class InstrumentDay:
    """Everything recorded of one instrument on one exchange day (``day`` = YYYY-MM-DD, Moscow).

    ``own`` is None where our own orders were not recorded.
    """

    instrument: Instrument
    day: str
    books: Books
    trades: Trades
    own: OwnEvents | None = None
