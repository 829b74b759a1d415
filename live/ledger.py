"""What the session did, counted from the engine's own commands: orders, fills, holds, money.

The result is marked at the touch a position would leave by: a long at the bid, a short at the ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from live.core.commands import (
    Command,
    FillBooked,
    HoldChanged,
    PlaceOrder,
    PositionChanged,
)
from live.core.events import Book
from live.core.holds import Hold
from market.types import SECOND_NS, Instrument

MAX_HOLDS_LISTED = 500


class Ledger:
    """Feed it every book and every command; read ``result`` and ``summary`` at any time."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self._instruments = dict(instruments)
        self._touch: dict[str, tuple[int, int]] = {}
        self.last_books: dict[str, Book] = {}
        self._cost: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.realised_nano = 0
        self.fees_nano = 0
        self._open_holds: dict[tuple[str, str], Hold] = {}
        self._closed_holds: list[dict[str, Any]] = []
        self.holds_not_listed = 0
        self.from_ns = 0
        self.to_ns = 0

    def restore_position(self, ticker: str, lots: int, cost_nano: int) -> None:
        """A position carried over from an earlier session; its result so far belongs to that session's
        account.
        """
        if lots:
            self.positions[ticker], self._cost[ticker] = lots, cost_nano

    def restore_hold(self, hold: Hold) -> None:
        self._open_holds[hold.name, hold.scope] = hold

    def on_book(self, book: Book) -> None:
        self.counts["books"] += 1
        self.last_books[book.ticker] = book
        self.from_ns = self.from_ns or book.now_ns
        self.to_ns = max(self.to_ns, book.now_ns)
        if book.bid_px and book.ask_px:
            self._touch[book.ticker] = (book.bid_px[0], book.ask_px[0])

    def on_command(self, command: Command) -> None:
        if isinstance(command, PlaceOrder):
            self.counts["orders"] += 1
        elif isinstance(command, FillBooked):
            self.counts["fills"] += 1
            self.realised_nano += command.realised_nano
            self.fees_nano += command.fee_nano
        elif isinstance(command, PositionChanged):
            self.positions[command.ticker] = command.lots
            self._cost[command.ticker] = command.cost_nano
        elif isinstance(command, HoldChanged):
            self._hold(command)

    def _hold(self, change: HoldChanged) -> None:
        key = (change.hold.name, change.hold.scope)
        if change.raised:
            self._open_holds[key] = change.hold
            return
        self._open_holds.pop(key, None)
        if len(self._closed_holds) < MAX_HOLDS_LISTED:
            self._closed_holds.append(_hold_row(change.hold, change.now_ns, lifted=True))
        else:
            self.holds_not_listed += 1

    def unrealised_nano(self) -> int:
        return sum(self.unrealised_of(ticker) for ticker in self.positions)

    def unrealised_of(self, ticker: str) -> int:
        """What closing the position at the touch would realise; 0 without a position or a book."""
        lots, touch = self.positions.get(ticker, 0), self._touch.get(ticker)
        if not lots or not touch:
            return 0
        price = touch[0] if lots > 0 else touch[1]
        return self._instruments[ticker].notional_nano(price, lots) - self._cost[ticker]

    def result(self) -> tuple[int, int, int]:
        """(gross, fees, net) in nano-roubles, open positions marked."""
        gross = self.realised_nano + self.unrealised_nano()
        return gross, self.fees_nano, gross - self.fees_nano

    @property
    def open_holds(self) -> list[Hold]:
        return list(self._open_holds.values())

    def open_positions(self) -> dict[str, dict[str, int | None]]:
        rows: dict[str, dict[str, int | None]] = {}
        for ticker, lots in self.positions.items():
            if lots:
                touch = self._touch.get(ticker)
                mark = None if touch is None else touch[0] if lots > 0 else touch[1]
                rows[ticker] = {"lots": lots, "cost_nano": self._cost[ticker], "mark_ticks": mark}
        return rows

    def summary(self, now_ns: int) -> dict[str, Any]:
        gross, fees, net = self.result()
        return {
            "from_ns": self.from_ns, "to_ns": self.to_ns,
            "books": self.counts["books"], "trades": self.counts["trades"],
            "orders": self.counts["orders"], "fills": self.counts["fills"],
            "gross_nano": gross, "fees_nano": fees, "net_nano": net,
            "open_positions": self.open_positions(),
            "holds": [*self._closed_holds, *(_hold_row(h, now_ns, lifted=False) for h in self.open_holds)],
            "holds_not_listed": self.holds_not_listed,
        }  # fmt: skip


def _hold_row(hold: Hold, now_ns: int, *, lifted: bool) -> dict[str, Any]:
    return {
        "name": hold.name, "scope": hold.scope, "severity": hold.severity.name, "since_ns": hold.since_ns,
        "seconds": max(0, now_ns - hold.since_ns) / SECOND_NS, "reason": hold.reason, "lifted": lifted,
    }  # fmt: skip
