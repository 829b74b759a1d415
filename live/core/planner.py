"""What the risk engine allows: the plan of a signal, and of the rest of a limit order that nobody took."""

from __future__ import annotations

from collections.abc import Mapping

from live.core.books import Market
from live.core.config import EngineConfig
from live.core.desk import Desk
from live.core.events import Book
from live.core.gates import Gates
from live.core.orders import Order
from live.core.outbox import HoldBoard, Outbox
from live.core.plan import (
    Exposure,
    Leg,
    OrderPlan,
    Touch,
    Volume,
    legs,
    loss_per_lot_nano,
    stop_distance_ticks,
    volume,
)
from live.core.portfolio import Holding, Portfolio
from live.core.refusals import Reason
from market.types import Instrument

Refusal = tuple[str, str]
"""(reason, detail) of the first limit that does not allow it."""


class Planner:
    """Makes plans; sends nothing."""

    def __init__(
        self, config: EngineConfig, instruments: Mapping[str, Instrument], markets: Mapping[str, Market],
        gates: Gates, desk: Desk, portfolio: Portfolio, board: HoldBoard, out: Outbox,
    ) -> None:  # fmt: skip
        self._config = config
        self._instruments = instruments
        self._markets = markets
        self._gates = gates
        self._desk = desk
        self._portfolio = portfolio
        self._board = board
        self._out = out

    def entry(self, trace_id: str, ticker: str, direction: int, touch: Touch) -> OrderPlan | Refusal:
        """The plan of a signal that every limit allows."""
        risk, now_ns = self._config.risk, self._out.now_ns
        market = self._markets[ticker]
        refusal = self._forbidden(ticker, market)
        if refusal is not None:
            return refusal
        sum_tr2, bars = market.bars.true_ranges(now_ns)
        if bars < risk.atr_min_bars:
            return Reason.ATR_WARMUP, f"{bars} of {risk.atr_min_bars} one-minute bars"
        entry_ticks, touch_lots = touch.entry(direction)
        if self._outside_collar(entry_ticks, market):
            return self._collar(entry_ticks)
        distance = stop_distance_ticks(
            sum_tr2, bars, touch.spread_ticks, self._gates.model.stop_multiplier_e3
        )
        stop_ticks = entry_ticks - direction * distance
        allowed = self._volume(ticker, entry_ticks, stop_ticks, touch_lots)
        if allowed.lots == 0:
            return f"VOLUME_{allowed.bound_by}", "no room for one lot"
        planned = legs(direction, allowed.lots, touch, self._config.execution)
        if self._out_of_orders(len(planned)):
            return Reason.ORDER_RATE, f"{risk.max_orders_per_minute} orders a minute are used up"
        return OrderPlan(trace_id, ticker, direction, allowed, entry_ticks, stop_ticks, planned)

    def rest(self, order: Order, holding: Holding) -> OrderPlan | Refusal:
        """The plan to take at market what is left of the limit ``order``, under the limits as they are now.

        The stop is that of ``holding``: what is held already and the rest together may lose the risk budget
        there, no more.
        """
        ticker, direction = order.ticker, order.side
        market, stop_ticks = self._markets[ticker], holding.stop_ticks
        refusal = self._forbidden(ticker, market)
        if refusal is not None:
            return refusal
        book = market.book
        if book is None or stop_ticks is None:
            return Reason.NO_BOOK, "no book is believed, or no stop is known"
        entry_ticks, touch_lots = touch_of(book).entry(direction)
        if self._outside_collar(entry_ticks, market):
            return self._collar(entry_ticks)
        if (entry_ticks - stop_ticks) * direction <= 0:
            return Reason.BEYOND_STOP, f"{entry_ticks} is beyond the stop at {stop_ticks}"
        allowed = self._volume(ticker, entry_ticks, stop_ticks, touch_lots)
        budget_lots = self._config.risk.risk_budget_nano // self._loss(ticker, entry_ticks, stop_ticks)
        room = budget_lots - abs(self._portfolio.lots(ticker))
        lots = min(order.lots - order.lots_filled, allowed.lots, room)
        if lots <= 0:
            return f"VOLUME_{allowed.bound_by if room > 0 else 'RISK_BUDGET'}", "no room for one lot"
        if self._out_of_orders(1):
            return Reason.ORDER_RATE, f"{self._config.risk.max_orders_per_minute} orders a minute are used up"
        leg = Leg("market", lots, None, "fak")
        return OrderPlan(order.trace_id, ticker, direction, allowed, entry_ticks, stop_ticks, (leg,))

    # ---- limits

    def _forbidden(self, ticker: str, market: Market) -> Refusal | None:
        hold = self._board.holds.blocking(ticker, reduces=False)
        if hold is not None:
            return f"HOLD_{hold.name}", hold.reason
        if market.book is None or self._out.now_ns - market.book.now_ns > self._config.books.max_age_ns:
            return Reason.STALE_BOOK, "the last believed book is too old"
        if self._desk.orders.working(ticker):
            return Reason.ORDER_WORKING, "an order is still working"
        return None

    def _volume(self, ticker: str, entry_ticks: int, stop_ticks: int, touch_lots: int) -> Volume:
        return volume(
            self._config.risk,
            self._exposure(ticker),
            loss_per_lot=self._loss(ticker, entry_ticks, stop_ticks),
            value_per_lot=self._instruments[ticker].notional_nano(entry_ticks, 1),
            touch_lots=touch_lots,
        )

    def _loss(self, ticker: str, entry_ticks: int, stop_ticks: int) -> int:
        return loss_per_lot_nano(self._instruments[ticker], entry_ticks, stop_ticks, self.fee_ppm(ticker))

    def _out_of_orders(self, more: int) -> bool:
        risk = self._portfolio.risk
        return risk.orders.count(self._out.now_ns) + more > self._config.risk.max_orders_per_minute

    def _collar(self, entry_ticks: int) -> Refusal:
        return (
            Reason.PRICE_COLLAR,
            f"{entry_ticks} is over {self._config.risk.price_collar_bps} bps from the middle of the book",
        )

    def _outside_collar(self, entry_ticks: int, market: Market) -> bool:
        """Further than the collar from the mid now, or from the mid one book ago (a jump is not a price)."""
        collar = self._config.risk.price_collar_bps
        mids = (market.mid2, market.previous_mid2)
        return any(abs(2 * entry_ticks - mid2) * 10_000 > collar * mid2 for mid2 in mids)

    def _exposure(self, ticker: str) -> Exposure:
        """What is held and what working entries may add, at the touch (limit price where there is one)."""
        prices = {t: m.mid2 // 2 for t, m in self._markets.items() if m.mid2}
        gross = self._portfolio.gross_nano(prices)
        ticker_lots, ticker_nano = abs(self._portfolio.lots(ticker)), 0
        if ticker_lots:
            ticker_nano = abs(self._instruments[ticker].notional_nano(prices.get(ticker, 0), ticker_lots))
        for order in self._desk.orders.all_working():
            if order.role == "ENTRY":
                price = order.price_ticks or prices.get(order.ticker, 0)
                value = abs(self._instruments[order.ticker].notional_nano(price, order.lots_open))
                gross += value
                if order.ticker == ticker:
                    ticker_lots += order.lots_open
                    ticker_nano += value
        return Exposure(ticker_lots, ticker_nano, gross)

    def fee_ppm(self, ticker: str) -> int:
        own = self._config.fee_ppm.get(ticker)
        return self._gates.model.fee_ppm.get(ticker, 0) if own is None else own


def touch_of(book: Book) -> Touch:
    return Touch(book.bid_px[0], book.bid_qty[0], book.ask_px[0], book.ask_qty[0])
