"""A broker in simulated time: ``market.matching`` per instrument behind the delays of ``market.latency``.

The backtest and the shadow mode use it. Orders and cancels reach the exchange some time after they are sent
and answers come back some time later; in between the market moves on. Nothing here knows a clock: the caller
says what time it is and asks for what is due.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.core.events import FillInfo, OpenOrder, OrderStatus, OrderUpdate, Reconciled
from market.errors import ScalperError
from market.fees import fee_nano
from market.latency import Latency
from market.matching import Execution, FillModel, Levels, Matching, QueueModel
from market.types import Instrument

MAX_PENDING = 100_000
MAX_FINISHED = 2_000
"""Finished orders that can still be asked about: more than the engine remembers."""
_FINAL = frozenset({"FILLED", "CANCELLED", "REJECTED"})


@dataclass(slots=True)
class _Account:
    """What the exchange knows of one of our orders."""

    order: PlaceOrder
    exchange_order_id: str
    answered_ns: int = 0
    """When the first answer reaches us; no cancel leaves before that."""
    lots_executed: int = 0
    status: OrderStatus = "NEW"
    fills: list[FillInfo] = field(default_factory=list)
    finished: bool = False


class SimBroker:
    """Carries out broker commands for ``instruments``.

    ``fee_ppm`` per ticker; ``slippage_ticks`` is added against us to every taking deal. ``send`` commands,
    feed the market as the exchange has it with ``on_book`` and ``on_trade``, and collect what is due with
    ``poll``. The feed's own delay is the caller's business: who is told of a book, and when.

    Like the live executor it holds a cancel back until the placing of its order has been answered; and
    answers come through one stream, so that none overtakes another.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        fee_ppm: Mapping[str, int],
        latency: Latency,
        *,
        fills: FillModel = "queue",
        queue: QueueModel = "risk_averse",
        slippage_ticks: int = 0,
    ) -> None:
        self._instruments = dict(instruments)
        self._fee_ppm = dict(fee_ppm)
        self._matching = {
            t: Matching(i, self._fee_ppm[t], fills=fills, queue=queue) for t, i in self._instruments.items()
        }
        self._latency = latency
        self._slippage_ticks = slippage_ticks
        self.positions: dict[str, int] = dict.fromkeys(self._instruments, 0)
        """The exchange's own count of our lots: what a reconciliation is answered with."""
        self.taken_lots = self.rested_lots = 0
        self.crossed_spread_nano = 0
        """The spread at the moment of each taking deal times its lots."""
        self._accounts: dict[str, _Account] = {}
        self._finished: deque[str] = deque()
        """Keys of finished orders, longest finished first."""
        self._received = 0
        self._stops: dict[str, list[_Account]] = {t: [] for t in self._instruments}
        self._arrivals: list[tuple[int, int, Callable[[int], None]]] = []
        self._answers: list[tuple[int, int, OrderUpdate]] = []
        self._placing: dict[str, list[int]] = {}
        """Orders on their way, each with the moments at which its cancels were asked for."""
        self._last_answer_ns = 0
        self._sequence = 0

    # ---- what we send

    def send(self, command: PlaceOrder | CancelOrder | QueryOrder, now_ns: int) -> None:
        """Put a command on its way to the exchange."""
        if len(self._arrivals) >= MAX_PENDING:
            raise ScalperError(f"more than {MAX_PENDING} commands are on their way to the simulated exchange")
        match command:
            case PlaceOrder(client_order_id=key):
                if key not in self._accounts:
                    self._placing.setdefault(key, [])
                self._dispatch(now_ns, self._latency.entry, lambda at_ns: self._arrive(command, at_ns))
            case CancelOrder(client_order_id=key) if key in self._placing:
                self._placing[key].append(now_ns)
            case CancelOrder(client_order_id=key):
                self._send_cancel(key, now_ns)
            case QueryOrder(client_order_id=key):
                self._dispatch(now_ns, self._latency.entry, lambda at_ns: self._answer_query(key, at_ns))

    def _send_cancel(self, key: str, asked_ns: int) -> None:
        account = self._accounts.get(key)
        leaves_ns = asked_ns if account is None else max(asked_ns, account.answered_ns)
        self._dispatch(leaves_ns, self._latency.cancel, lambda at_ns: self._cancel(key, at_ns))

    def _dispatch(self, leaves_ns: int, delay_ns: Callable[[int], int], act: Callable[[int], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._arrivals, (leaves_ns + delay_ns(self._sequence), self._sequence, act))

    def next_ns(self) -> int | None:
        """When the next command arrives or the next answer is due; None when nothing is on its way."""
        if not self._arrivals:
            return self._answers[0][0] if self._answers else None
        first = self._arrivals[0][0]
        return min(first, self._answers[0][0]) if self._answers else first

    def poll(self, now_ns: int) -> list[OrderUpdate]:
        """Let everything that is due by ``now_ns`` happen; the answers that have reached us, stamped when
        due.
        """
        self._let_arrive(now_ns)
        updates = []
        while self._answers and self._answers[0][0] <= now_ns:
            updates.append(heapq.heappop(self._answers)[2])
        return updates

    # ---- the market

    def on_book(
        self, ticker: str, bid_px: Levels, bid_qty: Levels, ask_px: Levels, ask_qty: Levels, now_ns: int
    ) -> None:
        """The recorded book as the exchange has it now. Keeps the arguments until the next one."""
        if self._arrivals and self._arrivals[0][0] < now_ns:
            self._let_arrive(now_ns - 1)
        executions = self._matching[ticker].on_book(bid_px, bid_qty, ask_px, ask_qty, now_ns)
        if executions:
            self._fill(executions, now_ns)
        if self._stops[ticker]:
            self._trigger_stops(ticker, now_ns)

    def on_trade(self, ticker: str, px: int, qty: int, side: int, now_ns: int) -> None:
        """A recorded print."""
        if self._arrivals and self._arrivals[0][0] < now_ns:
            self._let_arrive(now_ns - 1)
        executions = self._matching[ticker].on_trade(px, qty, side, now_ns)
        if executions:
            self._fill(executions, now_ns)

    # ---- inside the exchange

    def _let_arrive(self, until_ns: int) -> None:
        """Everything that reaches the exchange by ``until_ns`` does, in order."""
        while self._arrivals and self._arrivals[0][0] <= until_ns:
            at_ns, _, act = heapq.heappop(self._arrivals)
            act(at_ns)

    def _arrive(self, order: PlaceOrder, now_ns: int) -> None:
        key = order.client_order_id
        cancels_asked_ns = self._placing.pop(key, [])
        if key in self._accounts:  # the id is an idempotency key: nothing new happens
            self._answer_query(key, now_ns)
        else:
            self._received += 1
            account = self._accounts[key] = _Account(order, f"sim-{self._received}")
            self._place(account, now_ns)
            account.answered_ns = self._last_answer_ns
        for asked_ns in cancels_asked_ns:
            self._send_cancel(key, asked_ns)

    def _place(self, account: _Account, now_ns: int) -> None:
        order = account.order
        if order.ticker not in self._matching:
            account.status = "REJECTED"
            self._answer(account, (), now_ns, f"unknown instrument {order.ticker}")
        elif order.order_type == "stop":
            self._stops[order.ticker].append(account)
            self._answer(account, (), now_ns, "")
            self._trigger_stops(order.ticker, now_ns)
        else:
            self._match(account, order.price_ticks if order.order_type == "limit" else None, now_ns)

    def _match(self, account: _Account, price_ticks: int | None, now_ns: int) -> None:
        order = account.order
        matching = self._matching[order.ticker]
        tif = "fak" if price_ticks is None else order.tif
        executions = matching.submit(order.client_order_id, order.side, order.lots, price_ticks, tif, now_ns)
        fills = tuple(self._fill_info(account, execution) for execution in executions)
        account.lots_executed += sum(fill.lots for fill in fills)
        account.fills += fills
        if account.lots_executed == order.lots:
            account.status = "FILLED"
        elif not matching.remaining(order.client_order_id):
            account.status = "CANCELLED"
        else:
            account.status = "PARTIAL" if account.lots_executed else "NEW"
        self._answer(
            account, fills, now_ns, "" if account.status != "CANCELLED" else "beyond the visible book"
        )

    def _fill(self, executions: Sequence[Execution], now_ns: int) -> None:
        for execution in executions:
            account = self._accounts[execution.order_id]
            fill = self._fill_info(account, execution)
            account.lots_executed += fill.lots
            account.fills.append(fill)
            account.status = "FILLED" if account.lots_executed == account.order.lots else "PARTIAL"
            self._answer(account, (fill,), now_ns, "")

    def _fill_info(self, account: _Account, execution: Execution) -> FillInfo:
        ticker, lots = account.order.ticker, execution.lots
        price, fee = execution.price_ticks, execution.fee_nano
        instrument = self._instruments[ticker]
        if execution.maker:
            self.rested_lots += lots
        else:
            self.taken_lots += lots
            bid_ticks, ask_ticks = self._matching[ticker].touch or (0, 0)
            self.crossed_spread_nano += instrument.notional_nano(ask_ticks - bid_ticks, lots)
            if self._slippage_ticks:
                price = max(1, price + execution.side * self._slippage_ticks)
                fee = fee_nano(instrument.notional_nano(price, lots), self._fee_ppm[ticker])
        self.positions[ticker] += execution.side * lots
        return FillInfo(execution.trade_id, price, lots, fee)

    def _trigger_stops(self, ticker: str, now_ns: int) -> None:
        touch = self._matching[ticker].touch
        if touch is None:
            return
        for account in list(self._stops[ticker]):
            order = account.order
            leaving_ticks = touch[0] if order.side < 0 else touch[1]
            if order.price_ticks is not None and (leaving_ticks - order.price_ticks) * order.side >= 0:
                self._stops[ticker].remove(account)
                self._match(account, None, now_ns)

    def _cancel(self, client_order_id: str, now_ns: int) -> None:
        account = self._accounts.get(client_order_id)
        if account is None:
            return
        resting = self._matching[account.order.ticker].cancel(client_order_id, now_ns)
        stops = self._stops[account.order.ticker]
        if account in stops:
            stops.remove(account)
            resting = True
        if resting:
            account.status = "CANCELLED"
        self._answer(account, (), now_ns, "cancelled" if resting else "")

    def _answer_query(self, client_order_id: str, now_ns: int) -> None:
        account = self._accounts.get(client_order_id)
        if account is not None:
            self._answer(account, tuple(account.fills), now_ns, "")

    def _answer(self, account: _Account, fills: tuple[FillInfo, ...], now_ns: int, reason: str) -> None:
        self._sequence += 1
        due_ns = now_ns + self._latency.response(self._sequence)
        due_ns = self._last_answer_ns = max(self._last_answer_ns, due_ns)
        update = OrderUpdate(
            due_ns, account.order.client_order_id, account.exchange_order_id, account.status,
            account.lots_executed, fills, reason,
        )  # fmt: skip
        heapq.heappush(self._answers, (due_ns, self._sequence, update))
        if account.status in _FINAL and not account.finished:
            account.finished = True
            self._finished.append(account.order.client_order_id)
            if len(self._finished) > MAX_FINISHED:
                del self._accounts[self._finished.popleft()]

    def reconciled(self, now_ns: int) -> Reconciled:
        """The answer to ``RequestReconcile``: positions and working orders as the exchange has them."""
        orders = tuple(
            OpenOrder(
                a.order.client_order_id,
                a.exchange_order_id,
                a.order.ticker,
                a.order.side,
                a.order.lots,
                a.lots_executed,
            )
            for a in self._accounts.values()
            if a.status in ("NEW", "PARTIAL")
        )
        return Reconciled(now_ns, dict(self.positions), orders)
