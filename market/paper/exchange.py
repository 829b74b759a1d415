"""The exchange behind the paper API: accounts, orders and matching against a recorded market.

No sockets, no clock, no decimals: prices are ticks, money is nano-roubles, and time is what the caller says
it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from market.fees import fee_nano, tariff
from market.matching import Execution, Matching, TimeInForce
from market.paper.account import Account
from market.paper.refusals import Refusal
from market.types import BUY, NANO, SELL, Books, Instrument, Trades

MAX_GROSS_TO_EQUITY = 2
"""Margin rule: positions plus working orders may reach this multiple of the account's value."""

MAX_ORDER_NANO = 30_000_000 * NANO
"""Largest value of one order, nano-roubles (the broker's cap, 90003)."""

FIRST_EXCHANGE_ID = 10_000_000_001


class Status(Enum):
    """Where an order is in its life."""

    NEW = "new"
    PARTIAL = "partial"
    FILLED = "filled"
    CANCELLED = "cancelled"


class Cause(Enum):
    """Why an order was cancelled."""

    CLIENT = "client"
    EXCHANGE = "exchange"


@dataclass(slots=True)
class Listing:
    """One traded instrument: its matching, what the market shows now, and whether it trades."""

    instrument: Instrument
    matching: Matching
    books: Books
    trades: Trades
    book_row: int = -1
    trade_row: int = -1
    tradable: bool = True

    def mark_ticks(self) -> int | None:
        """The middle of the touch rounded down, else the only side, else the last trade, else None."""
        bid = ask = 0
        if self.book_row >= 0:
            bid = int(self.books.bid_px[self.book_row, 0]) if self.books.bid_qty[self.book_row, 0] else 0
            ask = int(self.books.ask_px[self.book_row, 0]) if self.books.ask_qty[self.book_row, 0] else 0
        if bid and ask:
            return (bid + ask) // 2
        if bid or ask:
            return bid or ask
        return int(self.trades.px[self.trade_row]) if self.trade_row >= 0 else None


@dataclass(slots=True)
class PaperOrder:
    """An order of the account, from acceptance to its end. ``price_ticks`` None is a market order."""

    key: str
    internal_id: str
    listing: Listing
    side: int
    lots: int
    price_ticks: int | None
    tif: TimeInForce
    created_ns: int
    initial_ticks: int
    exchange_id: str = ""
    status: Status = Status.NEW
    cause: Cause | None = None
    executions: list[Execution] = field(default_factory=list)
    changed_ns: int = 0

    @property
    def instrument(self) -> Instrument:
        return self.listing.instrument

    @property
    def active(self) -> bool:
        return self.status in (Status.NEW, Status.PARTIAL)

    @property
    def lots_executed(self) -> int:
        return sum(e.lots for e in self.executions)

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


class Exchange:
    """One account trading several instruments against their recordings.

    ``on_order`` is called with the order after every change of its state, in order.
    """

    def __init__(
        self, listings: Iterable[tuple[Instrument, Books, Trades]], tariff_name: str, account: Account
    ) -> None:
        self.tariff = tariff(tariff_name)
        self.account = account
        self.listings = [
            Listing(instrument, Matching(instrument, self.tariff.ppm(instrument)), books, trades)
            for instrument, books, trades in listings
        ]
        self.on_order: Callable[[PaperOrder], None] = lambda order: None
        self._orders: dict[str, PaperOrder] = {}
        self._active: dict[str, PaperOrder] = {}
        self._by_exchange_id: dict[str, PaperOrder] = {}
        self._next_id = FIRST_EXCHANGE_ID

    # ------------------------------------------------------------------ questions

    @property
    def orders(self) -> list[PaperOrder]:
        """Every order of the session, oldest first."""
        return list(self._orders.values())

    @property
    def active_orders(self) -> list[PaperOrder]:
        """Orders that are neither filled nor cancelled, oldest first."""
        return list(self._active.values())

    def by_key(self, key: str) -> PaperOrder | None:
        return self._orders.get(key)

    def by_exchange_id(self, exchange_id: str) -> PaperOrder | None:
        return self._by_exchange_id.get(exchange_id)

    def commission_nano(self, order: PaperOrder) -> int:
        """Estimated commission of the whole order."""
        return fee_nano(order.initial_nano, self.tariff.ppm(order.instrument))

    def marks(self) -> dict[str, int]:
        """Price in ticks at which each instrument is valued now, where there is one."""
        found = ((listing.instrument.ticker, listing.mark_ticks()) for listing in self.listings)
        return {ticker: mark for ticker, mark in found if mark is not None}

    def working_lots(self, listing: Listing, side: int) -> int:
        """Lots of ``side`` that are accepted and not yet executed or cancelled."""
        return sum(
            o.lots - o.lots_executed for o in self._active.values() if o.listing is listing and o.side == side
        )

    def blocked_cash_nano(self) -> int:
        """Cash that working buys of shares would take, commission included."""
        total = 0
        for order in self._active.values():
            if order.side == BUY and order.instrument.kind == "share":
                left = order.lots - order.lots_executed
                value = order.instrument.notional_nano(order.initial_ticks, left)
                total += value + fee_nano(value, self.tariff.ppm(order.instrument))
        return total

    def blocked_lots(self, listing: Listing) -> int:
        """Held lots that working sells would take."""
        held = self.account.lots(listing.instrument.ticker)
        return min(max(held, 0), self.working_lots(listing, SELL))

    # ------------------------------------------------------------------ orders

    def accept(
        self,
        key: str,
        listing: Listing,
        side: int,
        lots: int,
        price_ticks: int | None,
        tif: TimeInForce,
        now_ns: int,
    ) -> PaperOrder:
        """The broker takes the order; it has not reached the exchange yet (``reach``).

        Raises Refusal: 30079 not trading, 30042 margin, 90003 too large. ``key`` must be new (``by_key``).
        """
        if not listing.tradable:
            raise Refusal("30079", listing.instrument.ticker)
        mark = listing.mark_ticks()
        initial_ticks = price_ticks if price_ticks is not None else mark
        if initial_ticks is None:
            raise Refusal("30079", f"{listing.instrument.ticker} has no market yet")
        value = abs(listing.instrument.notional_nano(initial_ticks, lots))
        if value > MAX_ORDER_NANO:
            raise Refusal("90003", f"{value // NANO} RUB against {MAX_ORDER_NANO // NANO} RUB")
        self._check_margin(listing, side, lots, mark if mark is not None else initial_ticks)
        order = PaperOrder(
            key, str(uuid.uuid4()), listing, side, lots, price_ticks, tif, now_ns, initial_ticks,
            changed_ns=now_ns,
        )  # fmt: skip
        self._orders[key] = self._active[key] = order
        self.on_order(order)
        return order

    def reach(self, order: PaperOrder, now_ns: int) -> None:
        """The accepted order meets the market of this moment."""
        order.exchange_id = str(self._next_id)
        self._next_id += 1
        self._by_exchange_id[order.exchange_id] = order
        order.changed_ns = now_ns
        self.on_order(order)
        if not order.listing.tradable:
            self._cancel(order, Cause.EXCHANGE, now_ns)
            return
        matching = order.listing.matching
        executions = matching.submit(
            order.exchange_id, order.side, order.lots, order.price_ticks, order.tif, now_ns
        )
        self._book_fills(executions)
        if order.active and not matching.remaining(order.exchange_id):
            self._cancel(order, Cause.EXCHANGE, now_ns)

    def cancel(self, order: PaperOrder, now_ns: int) -> None:
        """The client's cancel reaches the exchange. Raises Refusal 30059 when nothing is left to cancel."""
        if not order.active or not order.listing.matching.cancel(order.exchange_id, now_ns):
            raise Refusal("30059", f"order {order.exchange_id or order.key} is {order.status.value}")
        self._cancel(order, Cause.CLIENT, now_ns)

    # ------------------------------------------------------------------ the market

    def on_book(self, index: int, row: int, now_ns: int) -> None:
        """The recorded book ``row`` of listing ``index`` is now standing."""
        listing = self.listings[index]
        listing.book_row = row
        b = listing.books
        executions = listing.matching.on_book(
            b.bid_px[row], b.bid_qty[row], b.ask_px[row], b.ask_qty[row], now_ns
        )
        if executions:
            self._book_fills(executions)

    def on_trade(self, index: int, row: int, now_ns: int) -> None:
        """The recorded trade ``row`` of listing ``index`` happened."""
        listing = self.listings[index]
        listing.trade_row = row
        t = listing.trades
        executions = listing.matching.on_trade(int(t.px[row]), int(t.qty[row]), int(t.side[row]), now_ns)
        if executions:
            self._book_fills(executions)

    def close(self, now_ns: int) -> None:
        """The recording is over: nothing trades any more and what rests is cancelled by the exchange."""
        for listing in self.listings:
            listing.tradable = False
            for resting in listing.matching.open_orders:
                listing.matching.cancel(resting.order_id, now_ns)
                self._cancel(self._by_exchange_id[resting.order_id], Cause.EXCHANGE, now_ns)

    # ------------------------------------------------------------------ inside

    def _book_fills(self, executions: list[Execution]) -> None:
        for execution in executions:
            order = self._by_exchange_id[execution.order_id]
            order.executions.append(execution)
            order.status = Status.PARTIAL
            if order.lots_executed == order.lots:
                order.status = Status.FILLED
                del self._active[order.key]
            order.changed_ns = execution.now_ns
            self.account.apply(order.instrument, execution)
            self.on_order(order)

    def _cancel(self, order: PaperOrder, cause: Cause, now_ns: int) -> None:
        order.status, order.cause, order.changed_ns = Status.CANCELLED, cause, now_ns
        del self._active[order.key]
        self.on_order(order)

    def _check_margin(self, listing: Listing, side: int, lots: int, mark: int) -> None:
        """Refuses what would grow the worst-case gross position past the margin rule; never a reduction."""
        marks = self.marks() | {listing.instrument.ticker: mark}
        before = after = 0
        for other in self.listings:
            price = marks.get(other.instrument.ticker)
            if price is None:
                continue
            held = self.account.lots(other.instrument.ticker)
            buys, sells = self.working_lots(other, BUY), self.working_lots(other, SELL)
            now = max(abs(held), abs(held + buys), abs(held - sells))
            before += abs(other.instrument.notional_nano(price, now))
            if other is listing:
                buys, sells = (buys + lots, sells) if side == BUY else (buys, sells + lots)
                now = max(abs(held), abs(held + buys), abs(held - sells))
            after += abs(other.instrument.notional_nano(price, now))
        limit = MAX_GROSS_TO_EQUITY * self.account.equity_nano(marks)
        if after > before and after > limit:
            raise Refusal("30042", f"gross {after // NANO} RUB would exceed {limit // NANO} RUB")
