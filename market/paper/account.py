"""Money and positions of one paper account, in nano-roubles and lots."""

from __future__ import annotations

from dataclasses import dataclass, field

from market.matching import Execution
from market.types import Instrument


@dataclass(slots=True)
class Holding:
    """A position: signed ``lots``, and for a future the signed value at which they were opened."""

    instrument: Instrument
    lots: int = 0
    opened_at_nano: int = 0


@dataclass(slots=True)
class Account:
    """Shares move their whole value through the cash; futures move only what a closed part won or lost."""

    account_id: str
    cash_nano: int
    fees_nano: int = 0
    holdings: dict[str, Holding] = field(default_factory=dict)

    def lots(self, ticker: str) -> int:
        holding = self.holdings.get(ticker)
        return holding.lots if holding else 0

    def apply(self, instrument: Instrument, execution: Execution) -> None:
        """Books one fill of ours, commission included."""
        holding = self.holdings.setdefault(instrument.ticker, Holding(instrument))
        change = execution.side * execution.lots
        value = instrument.notional_nano(execution.price_ticks, change)
        self.cash_nano -= execution.fee_nano
        self.fees_nano += execution.fee_nano
        if instrument.kind == "share":
            self.cash_nano -= value
        else:
            self._apply_future(holding, instrument, execution.price_ticks, change)
        holding.lots += change

    def _apply_future(self, holding: Holding, instrument: Instrument, price_ticks: int, change: int) -> None:
        """Closes against the average opening value first; what is left of ``change`` opens."""
        if holding.lots * change < 0:
            closing = min(abs(holding.lots), abs(change)) * (1 if change > 0 else -1)
            # Pro rata in whole nano; closing the last lot takes all that is left, so nothing is ever lost.
            opened_at = holding.opened_at_nano * -closing // holding.lots
            self.cash_nano += instrument.notional_nano(price_ticks, -closing) - opened_at
            holding.opened_at_nano -= opened_at
            change -= closing
        holding.opened_at_nano += instrument.notional_nano(price_ticks, change)

    def equity_nano(self, marks: dict[str, int]) -> int:
        """Cash plus positions at ``marks`` (ticks by ticker); a position without a mark counts as opened."""
        total = self.cash_nano
        for ticker, holding in self.holdings.items():
            if ticker in marks:
                total += (
                    holding.instrument.notional_nano(marks[ticker], holding.lots) - holding.opened_at_nano
                )
        return total
