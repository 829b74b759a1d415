"""Positions and the intentions behind them, and what a fill does to both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from live.core.commands import FillBooked, PositionChanged, TripClosed
from live.core.events import FillInfo
from live.core.orders import Order
from live.core.outbox import HoldBoard, Outbox
from live.core.positions import Position
from live.core.risk import RiskState
from live.core.whole import whole
from live.core.words import roubles
from market.types import Instrument


@dataclass(slots=True)
class Holding:
    """Why we are, or are about to be, in an instrument: the plan that was sent and how it is to end."""

    trace_id: str
    direction: int
    stop_ticks: int | None
    opened_ns: int = 0
    """Time of the first fill; 0 while nothing is filled."""
    score_ns: int = 0
    """Time of the last score seen while in the position."""
    exit_reason: str = ""
    """Set once the position is to be closed; it then stays so until flat."""
    exit_attempts: int = 0
    exit_not_before_ns: int = 0


class Portfolio:
    """All positions; books fills and keeps the risk engine's counters."""

    def __init__(
        self, instruments: Mapping[str, Instrument], risk: RiskState, board: HoldBoard, out: Outbox, *,
        day_loss_nano: int, max_consecutive_losses: int, cooldown_ns: int,
    ) -> None:  # fmt: skip
        self.instruments = instruments
        self.positions: dict[str, Position] = {ticker: Position() for ticker in instruments}
        self.holdings: dict[str, Holding] = {}
        self.risk = risk
        self._board = board
        self._out = out
        self._day_loss_nano = day_loss_nano
        self._max_consecutive_losses = max_consecutive_losses
        self._cooldown_ns = cooldown_ns
        self._marks: dict[str, int] = {}  # ticker -> open loss at the touch, <= 0; only of open positions

    def lots(self, ticker: str) -> int:
        return self.positions[ticker].lots

    def book_fill(self, order: Order, fill: FillInfo) -> None:
        """Book one deal of ``order``: position, day's result, run of losses, and the commands for it."""
        ticker, now_ns = order.ticker, self._out.now_ns
        position = self.positions[ticker]
        booked = position.book(
            self.instruments[ticker],
            order.side,
            fill.price_ticks,
            fill.lots,
            fill.fee_nano,
            now_ns,
            order.trace_id,
        )
        self.risk.day_realised_nano += booked.realised_nano - fill.fee_nano
        holding = self.holdings.get(ticker)
        if booked.opened:
            if holding is None or holding.direction != order.side:
                # Nobody planned this position (a late or double fill, a restored order): it has to go.
                holding = self.holdings[ticker] = Holding(
                    order.trace_id, order.side, None, exit_reason="UNPLANNED"
                )
            holding.opened_ns = holding.score_ns = now_ns
        self._out.add(
            FillBooked(
                now_ns,
                order.trace_id,
                order.client_order_id,
                fill.trade_id,
                ticker,
                order.side,
                fill.price_ticks,
                fill.lots,
                fill.fee_nano,
                booked.realised_nano,
            )
        )
        self._out.audit(
            "ORDER", "FILL", ticker=ticker, client_order_id=order.client_order_id, trade_id=fill.trade_id,
            side=order.side, lots=fill.lots, price_ticks=fill.price_ticks, fee_nano=fill.fee_nano,
        )  # fmt: skip
        verb = "bought" if order.side > 0 else "sold"
        self._out.notify(
            "FILL", f"FILL {ticker}: {verb} {fill.lots} at {fill.price_ticks} ticks ({order.reason})"
        )
        self._out.add(
            PositionChanged(
                now_ns,
                ticker,
                position.lots,
                position.cost_nano,
                position.realised_nano,
                position.fees_nano,
                holding.stop_ticks if holding and position.lots else None,
                order.reason,
            )
        )
        if booked.closed is not None:
            self._trip_closed(order, booked.closed)
        if position.lots == 0:
            self._marks.pop(ticker, None)
        self.check_day_loss()

    def _trip_closed(self, order: Order, trip: Any) -> None:
        net = trip.gross_nano - trip.fees_nano
        self._out.add(
            TripClosed(
                trip.trace_id,
                order.ticker,
                trip.side,
                trip.lots,
                trip.entry_ns,
                self._out.now_ns,
                trip.entry_value_nano,
                trip.exit_value_nano,
                trip.gross_nano,
                trip.fees_nano,
                net,
                order.reason,
            )
        )
        self.risk.trip_closed(net)
        losses = self.risk.consecutive_losses
        if losses >= self._max_consecutive_losses and self._cooldown_ns:
            until_ns = self._out.now_ns + self._cooldown_ns
            self._board.hold("LOSS_COOLDOWN", f"{losses} losing trades in a row", until_ns=until_ns)
            self.risk.consecutive_losses = 0

    def mark(self, ticker: str, bid_ticks: int, ask_ticks: int) -> None:
        """Value an open position at the touch it would leave by; may end the day."""
        position = self.positions[ticker]
        if position.lots == 0:
            return
        price = bid_ticks if position.lots > 0 else ask_ticks
        self._marks[ticker] = min(0, position.unrealised_nano(self.instruments[ticker], price))
        self.check_day_loss()

    def check_day_loss(self) -> None:
        """Stop the day when its realised result, fees included, plus open losses reaches the limit.

        Open profits do not count: they cannot buy room for more losses.
        """
        result = self.risk.day_realised_nano + sum(self._marks.values())
        if -result >= self._day_loss_nano and self._board.holds.get("DAILY_LOSS") is None:
            self._board.hold(
                "DAILY_LOSS",
                f"the day's result is {roubles(result)}, the limit is {roubles(-self._day_loss_nano)}",
            )

    def gross_nano(self, prices: Mapping[str, int]) -> int:
        """Sum of the absolute values of all positions at ``prices`` (ticks), else at cost."""
        total = 0
        for ticker, position in self.positions.items():
            if position.lots:
                price = prices.get(ticker)
                value = (
                    position.cost_nano
                    if price is None
                    else self.instruments[ticker].notional_nano(price, position.lots)
                )
                total += abs(value)
        return total

    def to_dict(self) -> dict[str, Any]:
        return {
            "positions": {t: p.to_dict() for t, p in self.positions.items()},
            "holdings": {t: asdict(h) for t, h in self.holdings.items()},
            "marks": dict(self._marks),
        }

    def restore(self, fields: dict[str, Any]) -> None:
        for ticker, row in fields["positions"].items():
            if ticker in self.positions:
                self.positions[ticker] = Position.from_dict(row)
        self.holdings = {t: whole(Holding, h) for t, h in fields["holdings"].items() if t in self.positions}
        self._marks = {t: m for t, m in fields["marks"].items() if t in self.positions}
