"""The exchange behind the paper API: accounts, orders and matching against a recorded market.

No sockets, no clock, no decimals: prices are ticks, money is nano-roubles, and time is what the caller says
it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from functools import partial

from market.fees import fee_nano, tariff
from market.latency import Latency
from market.matching import Execution, FillModel, Matching, QueueModel
from market.paper.account import Account
from market.paper.desk import MAX_ORDER_NANO, Desk
from market.paper.faults import Faults
from market.paper.listing import Listing
from market.paper.orders import Cause, OrderRequest, PaperOrder, Status
from market.paper.refusals import Refusal
from market.paper.schedule import Phase
from market.paper.stop_orders import StopOrders
from market.types import BUY, MILLISECOND_NS, NANO, SECOND_NS, Books, Instrument, Trades

BESTPRICE_PER_MILLE = 3
"""How far beyond the last price a best-price order may go (the broker's "about 0.3 %")."""

FIRST_EXCHANGE_ID = 10_000_000_001
FIRST_ACCOUNT_ID = 2_000_000_001
MAX_ACCOUNTS = 100
"""Accounts of one exchange, closed ones included (35001)."""

PARTIAL_PAUSE_NS = 500 * MILLISECOND_NS
"""After the fault partial_fill the rest of a resting order comes to the market so much later."""

COMMISSION_DELAY_NS = SECOND_NS
"""Orders show their final commission so long after the deal: the broker computes it on the side."""

POST_ORDER = "OrdersService/PostOrder"

Schedule = Callable[[int, Callable[[int], None]], None]


class Exchange:
    """Accounts trading several instruments against their recordings.

    ``on_order`` is called with the order after every change of its state, in order; ``on_account`` with the
    id of an account whose money changed otherwise. ``schedule(market time, action)`` makes an action happen
    later; whoever owns the market's time sets it.
    """

    def __init__(
        self,
        listings: Iterable[tuple[Instrument, Books, Trades]],
        tariff_name: str,
        account: Account,
        *,
        fills: FillModel = "queue",
        queue: QueueModel = "risk_averse",
        faults: Faults | None = None,
    ) -> None:
        self.tariff = tariff(tariff_name)
        self.listings = [
            Listing(
                instrument,
                Matching(instrument, self.tariff.ppm(instrument), fills=fills, queue=queue),
                books,
                trades,
            )
            for instrument, books, trades in listings
        ]
        self.desks: dict[str, Desk] = {}
        self.account = account
        self.add_account(account)
        self.stop_orders = StopOrders(self.listings, self._send_child)
        self.faults = faults if faults is not None else Faults()
        self.latency = Latency()
        self.commission_delay_ns = COMMISSION_DELAY_NS
        self.on_order: Callable[[PaperOrder], None] = lambda order: None
        self.on_account: Callable[[str, int], None] = lambda account_id, now_ns: None
        self.schedule: Schedule = _nobody_schedules
        self._by_exchange_id: dict[str, PaperOrder] = {}
        self._next_id = FIRST_EXCHANGE_ID
        self._sent = 0

    # ------------------------------------------------------------------ accounts

    def add_account(self, account: Account) -> Desk:
        """Raises Refusal 35001 when there are too many."""
        if len(self.desks) >= MAX_ACCOUNTS:
            raise Refusal("35001", f"{MAX_ACCOUNTS} accounts were opened")
        desk = Desk(account, self.listings, self.tariff)
        self.desks[account.account_id] = desk
        return desk

    def open_account(self, name: str, now_ns: int) -> Account:
        """A new account without money."""
        account = Account(str(FIRST_ACCOUNT_ID + len(self.desks)), 0, name, now_ns)
        self.add_account(account)
        return account

    def close_account(self, desk: Desk, now_ns: int) -> None:
        """Cancels what the account has at work; its history stays."""
        self.stop_orders.cancel_all(desk.account.account_id, now_ns)
        for order in list(desk.active.values()):
            self._withdraw(order, Cause.BROKER, now_ns)
        desk.account.closed_ns = now_ns

    def pay_in(self, desk: Desk, amount_nano: int, now_ns: int) -> None:
        desk.account.pay_in(amount_nano, now_ns)
        self.on_account(desk.account.account_id, now_ns)

    # ------------------------------------------------------------------ questions

    @property
    def orders(self) -> list[PaperOrder]:
        """Every order of the session, account by account, oldest first."""
        return [order for desk in self.desks.values() for order in desk.orders.values()]

    def desk_of(self, order: PaperOrder) -> Desk:
        return self.desks[order.account_id]

    def by_exchange_id(self, exchange_id: str) -> PaperOrder | None:
        """None as well for an id that was not told to anybody yet."""
        order = self._by_exchange_id.get(exchange_id)
        return order if order is not None and order.disclosed else None

    def commission_nano(self, order: PaperOrder) -> int:
        """Estimated commission of the whole order."""
        return fee_nano(order.initial_nano, self.tariff.ppm(order.instrument))

    def known_commission_nano(self, order: PaperOrder, now_ns: int) -> int:
        """Final commission of the deals for which it was computed already."""
        return sum(e.fee_nano for e in order.executions if e.now_ns + self.commission_delay_ns <= now_ns)

    def marks(self) -> dict[str, int]:
        """Price in ticks at which each instrument is valued now, where there is one."""
        return next(iter(self.desks.values())).marks()

    # ------------------------------------------------------------------ orders

    def accept(self, asked: OrderRequest, now_ns: int) -> PaperOrder:
        """The broker takes the order; it has not reached the exchange yet (``reach``).

        Raises Refusal: 30079 not trading, 30099 outside the limits, 90003 too large, 30051 and 30042 margin,
        30240 unconfirmed margin trade. The key must be new to the account (``Desk.orders``).
        """
        listing, desk = asked.listing, self.desks[asked.account_id]
        price, initial = self._priced(asked)
        self._check_price(asked, price)
        self._check_money(desk, asked, initial)
        order = PaperOrder(
            asked.account_id, asked.key, str(uuid.uuid4()), listing, asked.side, asked.lots, asked.kind,
            price, asked.tif, now_ns, initial, changed_ns=now_ns,
        )  # fmt: skip
        desk.take(order)
        self.on_order(order)
        return order

    def send(
        self, order: PaperOrder, now_ns: int, done: Callable[[PaperOrder], None] = lambda order: None
    ) -> None:
        """Lets an accepted order reach the exchange when its way is over; ``done`` is called then."""
        self._sent += 1

        def arrive(arrived_ns: int) -> None:
            self.reach(order, arrived_ns)
            done(order)

        self.schedule(now_ns + self.latency.entry(self._sent), arrive)

    def reach(self, order: PaperOrder, now_ns: int) -> None:
        """The accepted order meets the market of this moment."""
        if not order.active:  # its account was closed meanwhile
            return
        order.exchange_id = str(self._next_id)
        self._next_id += 1
        self._by_exchange_id[order.exchange_id] = order
        late = self.faults.strikes("internal_id_first", method=POST_ORDER, names=order.listing.names)
        if late is not None:
            self.schedule(now_ns + late.delay_ms * MILLISECOND_NS, partial(self._disclose, order))
        else:
            self._disclose(order, now_ns)
        if not order.listing.tradable:
            self._end(order, Status.REJECTED, Cause.REJECTED_BY_EXCHANGE, now_ns)
            return
        self._meet_market(order, now_ns)

    def cancel(self, order: PaperOrder, now_ns: int) -> None:
        """The client's cancel reaches the exchange. Raises Refusal 30059 when nothing is left to cancel."""
        if not order.active or not self._withdraw(order, Cause.CLIENT, now_ns):
            raise Refusal("30059", f"order {order.shown_id} is {order.status.value}")

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
        self.stop_orders.on_book(index, now_ns)

    def on_trade(self, index: int, row: int, now_ns: int) -> None:
        """The recorded trade ``row`` of listing ``index`` happened."""
        listing = self.listings[index]
        listing.trade_row = row
        t = listing.trades
        px = int(t.px[row])
        executions = listing.matching.on_trade(px, int(t.qty[row]), int(t.side[row]), now_ns)
        if executions:
            self._book_fills(executions)
        self.stop_orders.on_price(index, px, now_ns)

    def close(self, now_ns: int) -> None:
        """The recording is over: nothing trades any more and what rests is cancelled by the exchange."""
        for listing in self.listings:
            self.enter(listing, Phase.CLOSED, now_ns)

    def enter(self, listing: Listing, phase: Phase, now_ns: int) -> None:
        """The session goes on to ``phase``; when it closes, the exchange cancels what rests."""
        listing.phase = phase
        if phase is not Phase.CLOSED:
            return
        for desk in self.desks.values():
            for order in list(desk.active.values()):
                if order.listing is listing and order.exchange_id:
                    self._withdraw(order, Cause.EXCHANGE, now_ns)

    # ------------------------------------------------------------------ inside

    def _priced(self, asked: OrderRequest) -> tuple[int | None, int]:
        """(limit for the matching, price that the order is valued at)."""
        listing = asked.listing
        if not listing.tradable:
            raise Refusal("30079", listing.instrument.ticker)
        if asked.price_ticks is not None and asked.kind == "limit":
            return asked.price_ticks, asked.price_ticks
        price = listing.last_ticks() if asked.kind == "bestprice" else listing.mark_ticks()
        if price is None:
            raise Refusal("30079", f"{listing.instrument.ticker} has no market yet")
        if asked.kind == "market":
            return None, price
        best = price + asked.side * -(-abs(price) * BESTPRICE_PER_MILLE // 1000)
        return best, best

    def _check_price(self, asked: OrderRequest, price: int | None) -> None:
        limits = asked.listing.limits_ticks()
        if price is None or limits is None or asked.kind != "limit":
            return
        if (asked.side == BUY and price > limits[1]) or (asked.side != BUY and price < limits[0]):
            name, low, high = asked.listing.instrument.ticker, *limits
            raise Refusal("30099", f"{name} at {price} ticks; sells from {low}, buys up to {high} ticks")

    def _check_money(self, desk: Desk, asked: OrderRequest, price: int) -> None:
        listing = asked.listing
        value = abs(listing.instrument.notional_nano(price, asked.lots))
        if value > MAX_ORDER_NANO:
            raise Refusal("90003", f"{value // NANO} RUB against {MAX_ORDER_NANO // NANO} RUB")
        uncovered = desk.uncovered(listing, asked.side, asked.lots, price)
        if not desk.account.margin:
            if listing.instrument.kind == "future":
                raise Refusal("30051", desk.account.account_id)
            if uncovered:
                raise Refusal("30042", "the account does not trade on margin")
        if not desk.enough_margin(listing, asked.side, asked.lots, price):
            raise Refusal("30042", f"the account is worth {desk.equity_nano() // NANO} RUB")
        if uncovered and listing.margin_confirmation and not asked.confirm_margin:
            raise Refusal("30240", listing.instrument.ticker)

    def _disclose(self, order: PaperOrder, now_ns: int) -> None:
        order.disclosed = True
        self.on_order(order)

    def _meet_market(self, order: PaperOrder, now_ns: int) -> None:
        lots, tif = order.lots, order.tif
        few = None
        if tif != "fok":
            few = self.faults.strikes("partial_fill", method=POST_ORDER, names=order.listing.names)
        if few is not None:
            lots, tif = max(1, lots * few.share_percent // 100), "fak"
        matching = order.listing.matching
        self._book_fills(matching.submit(order.exchange_id, order.side, lots, order.price_ticks, tif, now_ns))
        if not order.active or matching.remaining(order.exchange_id):
            return
        if few is not None and order.tif == "day" and order.price_ticks is not None:
            order.waiting_lots = order.lots_left
            self.schedule(now_ns + PARTIAL_PAUSE_NS, partial(self._rest_arrives, order))
        else:
            self._end(order, Status.CANCELLED, Cause.EXCHANGE, now_ns)

    def _rest_arrives(self, order: PaperOrder, now_ns: int) -> None:
        """What the fault partial_fill held back comes to the market, unless it was cancelled meanwhile."""
        lots, order.waiting_lots = order.waiting_lots, 0
        if lots and order.active:
            self._book_fills(
                order.listing.matching.submit(
                    order.exchange_id, order.side, lots, order.price_ticks, order.tif, now_ns
                )
            )

    def _send_child(self, asked: OrderRequest, now_ns: int, done: Callable[[PaperOrder], None]) -> None:
        """A stop order's child goes the way of every order. Raises Refusal when it is not accepted."""
        self.send(self.accept(asked, now_ns), now_ns, done)

    def _book_fills(self, executions: list[Execution]) -> None:
        for execution in executions:
            order = self._by_exchange_id[execution.order_id]
            self.desk_of(order).fill(order, execution)
            self.on_order(order)

    def _withdraw(self, order: PaperOrder, cause: Cause, now_ns: int) -> bool:
        """Takes an active order out of the market; False when the market does not have it."""
        resting = order.listing.matching.cancel(order.exchange_id, now_ns)
        if not resting and not order.waiting_lots and cause is Cause.CLIENT:
            return False
        order.waiting_lots = 0
        self._end(order, Status.CANCELLED, cause, now_ns)
        return True

    def _end(self, order: PaperOrder, status: Status, cause: Cause, now_ns: int) -> None:
        self.desk_of(order).end(order, status, cause, now_ns)
        self.on_order(order)


def _nobody_schedules(due_ns: int, action: Callable[[int], None]) -> None:
    raise RuntimeError("this exchange has no market time: set Exchange.schedule first")
