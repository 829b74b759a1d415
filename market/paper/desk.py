"""One account at the exchange: its orders, what they block, and how much more it may trade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from market.fees import Tariff, fee_nano
from market.matching import Execution
from market.paper.account import Account
from market.paper.listing import Listing
from market.paper.orders import Cause, PaperOrder, Status
from market.types import BUY, NANO, SELL

MAX_GROSS_TO_EQUITY = 2
"""Margin rule: positions plus working orders may reach this multiple of the account's value. The initial
margin is therefore one part in so many of a position's value, and the minimal margin half of that.
"""

MAX_ORDER_NANO = 30_000_000 * NANO
"""Largest value of one order, nano-roubles (the broker's cap, 90003)."""


class Desk:
    """The account with its orders by idempotency key, all of the session and those still active.

    What working orders block is counted along with them: nothing here looks through the orders.
    """

    def __init__(self, account: Account, listings: Sequence[Listing], tariff: Tariff) -> None:
        self.account = account
        self.orders: dict[str, PaperOrder] = {}
        self.active: dict[str, PaperOrder] = {}
        self._listings = listings
        self._tariff = tariff
        self._working: Counter[tuple[str, int]] = Counter()
        self._blocked_cash_nano = 0

    # ------------------------------------------------------------------ the life of orders

    def take(self, order: PaperOrder) -> None:
        """A new order, under a new key."""
        self.orders[order.key] = self.active[order.key] = order
        self._count(order, 1)

    def fill(self, order: PaperOrder, execution: Execution) -> None:
        """One deal of a working order, in the order and in the account."""
        self._count(order, -1)
        order.fill(execution)
        self._count(order, 1)
        if not order.active:
            del self.active[order.key]
        self.account.apply(order.instrument, execution)

    def end(self, order: PaperOrder, status: Status, cause: Cause, now_ns: int) -> None:
        """A working order is over without being filled."""
        self._count(order, -1)
        order.status, order.cause, order.changed_ns = status, cause, now_ns
        del self.active[order.key]

    def _count(self, order: PaperOrder, sign: int) -> None:
        lots = order.lots_left
        self._working[order.instrument.ticker, order.side] += sign * lots
        if order.side == BUY and order.instrument.kind == "share":
            self._blocked_cash_nano += sign * self.cost_nano(order.listing, order.initial_ticks, lots)

    # ------------------------------------------------------------------ what orders block

    def working_lots(self, listing: Listing, side: int) -> int:
        """Lots of ``side`` that are accepted and not yet executed or cancelled."""
        return self._working[listing.instrument.ticker, side]

    def blocked_cash_nano(self) -> int:
        """Cash that working buys of shares would take, commission included."""
        return self._blocked_cash_nano

    def free_cash_nano(self) -> int:
        """Cash that no working order blocks; negative when the account borrows."""
        return self.account.cash_nano - self.blocked_cash_nano()

    def blocked_lots(self, listing: Listing) -> int:
        """Held lots that working sells would take."""
        held = self.account.lots(listing.instrument.ticker)
        return min(max(held, 0), self.working_lots(listing, SELL))

    def cost_nano(self, listing: Listing, price_ticks: int, lots: int) -> int:
        """Value of ``lots`` and the commission on it."""
        value = listing.instrument.notional_nano(price_ticks, lots)
        return value + fee_nano(value, self._tariff.ppm(listing.instrument))

    # ------------------------------------------------------------------ margin

    def marks(self) -> dict[str, int]:
        """Price in ticks at which each instrument is valued now, where there is one."""
        found = ((listing.instrument.ticker, listing.mark_ticks()) for listing in self._listings)
        return {ticker: mark for ticker, mark in found if mark is not None}

    def equity_nano(self) -> int:
        return self.account.equity_nano(self.marks())

    def gross_nano(self) -> int:
        """Value of all positions, longs and shorts alike."""
        marks = self.marks()
        return sum(
            abs(listing.instrument.notional_nano(marks[ticker], self.account.lots(ticker)))
            for listing in self._listings
            if (ticker := listing.instrument.ticker) in marks
        )

    def worst_gross_nano(self, extra: tuple[Listing, int, int, int] | None = None) -> int:
        """The gross value if the working orders of the worse side were filled, everywhere at once.

        ``extra`` is one more order: listing, side, lots, and its price in ticks where there is no mark yet.
        """
        marks, total = self.marks(), 0
        if extra is not None:
            marks.setdefault(extra[0].instrument.ticker, extra[3])
        for listing in self._listings:
            mark = marks.get(listing.instrument.ticker)
            if mark is None:
                continue
            held = self.account.lots(listing.instrument.ticker)
            buys, sells = self.working_lots(listing, BUY), self.working_lots(listing, SELL)
            if extra is not None and extra[0] is listing:
                buys, sells = (buys + extra[2], sells) if extra[1] == BUY else (buys, sells + extra[2])
            lots = max(abs(held), abs(held + buys), abs(held - sells))
            total += abs(listing.instrument.notional_nano(mark, lots))
        return total

    def starting_margin_nano(self) -> int:
        return -(-self.gross_nano() // MAX_GROSS_TO_EQUITY)

    def corrected_margin_nano(self) -> int:
        """The starting margin as it would be if the working orders that grow positions were filled."""
        return -(-self.worst_gross_nano() // MAX_GROSS_TO_EQUITY)

    def guarantee_nano(self) -> int:
        """Money held back for positions in futures."""
        marks = self.marks()
        return sum(
            -(-abs(holding.instrument.notional_nano(marks[ticker], holding.lots)) // MAX_GROSS_TO_EQUITY)
            for ticker, holding in self.account.holdings.items()
            if holding.instrument.kind == "future" and ticker in marks
        )

    def enough_margin(self, listing: Listing, side: int, lots: int, price_ticks: int) -> bool:
        """Whether one more order keeps the margin rule. What does not grow the worst case always does."""
        return self.worst_gross_nano((listing, side, lots, price_ticks)) <= self._gross_limit_nano()

    def _gross_limit_nano(self) -> int:
        """What the worst case may grow to; an account beyond the rule keeps what it has."""
        return max(self.worst_gross_nano(), MAX_GROSS_TO_EQUITY * self.equity_nano())

    def uncovered(self, listing: Listing, side: int, lots: int, price_ticks: int) -> bool:
        """Whether the order may open a position in shares with borrowed money or borrowed shares."""
        if listing.instrument.kind != "share":
            return False
        held = self.account.lots(listing.instrument.ticker)
        if side == SELL:
            return lots > max(held, 0) - self.working_lots(listing, SELL)
        opening = lots - max(0, -held - self.working_lots(listing, BUY))
        return opening > 0 and self.cost_nano(listing, price_ticks, opening) > self.free_cash_nano()

    # ------------------------------------------------------------------ how much more

    def max_lots(self, listing: Listing, side: int, price_ticks: int, *, margin: bool) -> int:
        """The largest order that would be accepted now, with borrowing or without."""
        lot_nano = abs(listing.instrument.notional_nano(price_ticks, 1))
        if lot_nano == 0:
            return 0

        limit_nano = self._gross_limit_nano()

        def allowed(lots: int) -> bool:
            covered = margin or not self.uncovered(listing, side, lots, price_ticks)
            return covered and self.worst_gross_nano((listing, side, lots, price_ticks)) <= limit_nano

        return _largest(MAX_ORDER_NANO // lot_nano, allowed)


def _largest(upper: int, allowed: Callable[[int], bool]) -> int:
    """The largest number from 0 to ``upper`` that is allowed, when all smaller ones are."""
    low = 0
    while low < upper:
        middle = (low + upper + 1) // 2
        low, upper = (middle, upper) if allowed(middle) else (low, middle - 1)
    return low
