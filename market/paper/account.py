"""Money and positions of one paper account, in nano-roubles and lots."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from market.matching import Execution
from market.paper.operations import Operation, OperationKind
from market.types import BUY, Instrument


@dataclass(slots=True)
class Holding:
    """A position: signed ``lots`` and the signed value at which they were opened, by weighted average.

    ``parts`` are the same lots in the order of their opening, (price in ticks, signed lots), for the first-in
    first-out average.
    """

    instrument: Instrument
    lots: int = 0
    cost_nano: int = 0
    parts: deque[tuple[int, int]] = field(default_factory=deque)

    def change(self, price_ticks: int, lots: int) -> int:
        """Adds signed ``lots``; returns what closing won, nano-roubles. Closes first, the rest opens."""
        self._change_parts(price_ticks, lots)
        won = 0
        if self.lots * lots < 0:
            closing = min(abs(self.lots), abs(lots)) * (1 if lots > 0 else -1)
            # Pro rata in whole nano; closing the last lot takes all that is left, so nothing is ever lost.
            cost = self.cost_nano * -closing // self.lots
            won = self.instrument.notional_nano(price_ticks, -closing) - cost
            self.cost_nano -= cost
            self.lots += closing
            lots -= closing
        self.cost_nano += self.instrument.notional_nano(price_ticks, lots)
        self.lots += lots
        return won

    def fifo_cost_nano(self) -> int:
        """Signed value of the held lots when the oldest are closed first."""
        return sum(self.instrument.notional_nano(price, lots) for price, lots in self.parts)

    def _change_parts(self, price_ticks: int, lots: int) -> None:
        while lots and self.parts and self.parts[0][1] * lots < 0:
            price, oldest = self.parts[0]
            if abs(oldest) > abs(lots):
                self.parts[0] = (price, oldest + lots)
                return
            self.parts.popleft()
            lots += oldest
        if lots:
            self.parts.append((price_ticks, lots))


@dataclass(slots=True)
class Account:
    """Shares move their whole value through the cash; futures move only what a closed part won or lost.

    ``margin``: may trade futures and open uncovered positions. ``closed_ns``: None while it is open.
    """

    account_id: str
    cash_nano: int
    name: str = "paper"
    opened_ns: int = 0
    margin: bool = True
    closed_ns: int | None = None
    fees_nano: int = 0
    holdings: dict[str, Holding] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    """Oldest first."""

    def __post_init__(self) -> None:
        if self.cash_nano:
            self._record(OperationKind.PAID_IN, self.opened_ns, self.cash_nano)

    def lots(self, ticker: str) -> int:
        holding = self.holdings.get(ticker)
        return holding.lots if holding else 0

    def pay_in(self, amount_nano: int, now_ns: int) -> None:
        self.cash_nano += amount_nano
        self._record(OperationKind.PAID_IN, now_ns, amount_nano)

    def apply(self, instrument: Instrument, execution: Execution) -> None:
        """Books one fill of ours, commission included."""
        holding = self.holdings.setdefault(instrument.ticker, Holding(instrument))
        change = execution.side * execution.lots
        won = holding.change(execution.price_ticks, change)
        paid = -instrument.notional_nano(execution.price_ticks, change) if instrument.kind == "share" else 0
        kind = OperationKind.BUY if execution.side == BUY else OperationKind.SELL
        deal = self._record(kind, execution.now_ns, paid, instrument, execution)
        self.cash_nano += paid
        if instrument.kind == "future" and won:
            kind = OperationKind.VARIATION_GAIN if won > 0 else OperationKind.VARIATION_LOSS
            self._record(kind, execution.now_ns, won, instrument, parent=deal)
            self.cash_nano += won
        if execution.fee_nano:
            self._record(OperationKind.FEE, execution.now_ns, -execution.fee_nano, instrument, parent=deal)
            self.cash_nano -= execution.fee_nano
            self.fees_nano += execution.fee_nano

    def variation_nano(self, ticker: str, mark_ticks: int) -> int:
        """What a future's position has won since it was opened and not been paid yet, at the mark."""
        holding = self.holdings[ticker]
        return holding.instrument.notional_nano(mark_ticks, holding.lots) - holding.cost_nano

    def equity_nano(self, marks: dict[str, int]) -> int:
        """Cash plus positions at ``marks`` (ticks by ticker); a position without a mark counts as opened."""
        total = self.cash_nano
        for ticker, holding in self.holdings.items():
            value = holding.cost_nano
            if ticker in marks:
                value = holding.instrument.notional_nano(marks[ticker], holding.lots)
            total += value if holding.instrument.kind == "share" else value - holding.cost_nano
        return total

    def _record(
        self, kind: OperationKind, now_ns: int, payment_nano: int, instrument: Instrument | None = None,
        execution: Execution | None = None, parent: int = 0,
    ) -> int:  # fmt: skip
        number = len(self.operations) + 1
        price, lots, trade_id = (
            (execution.price_ticks, execution.lots, execution.trade_id) if execution else (0, 0, "")
        )
        self.operations.append(
            Operation(number, parent, kind, now_ns, payment_nano, instrument, price, lots, trade_id)
        )
        return number
