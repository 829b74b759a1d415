"""A broker in simulated time: ``market.matching`` per instrument behind a latency queue.

The backtest and the shadow mode use it. Orders reach the exchange ``entry_latency_ns`` after they are sent,
answers come back ``response_latency_ns`` later; in between the market moves on. Nothing here knows a clock:
the caller says what time it is and asks for what is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.core.events import FillInfo, OpenOrder, OrderStatus, OrderUpdate, Reconciled
from market.errors import ScalperError
from market.fees import fee_nano
from market.matching import Execution, Matching, QueueModel
from market.types import I32, Instrument

FillModel = Literal["pessimistic", "queue", "optimistic"]
FILL_MODELS: tuple[FillModel, ...] = ("pessimistic", "queue", "optimistic")
"""How resting orders fill: only when the market trades through our price or the opposite touch reaches it;
when the queue ahead of us is done; at the first print. Orders that take are the same in all three.
"""

Levels = I32 | Sequence[int]
MAX_PENDING = 100_000


@dataclass(slots=True)
class _Account:
    """What the exchange knows of one of our orders."""

    order: PlaceOrder
    exchange_order_id: str
    lots_executed: int = 0
    status: OrderStatus = "NEW"
    fills: list[FillInfo] = field(default_factory=list)
    triggered: bool = False


class SimBroker:
    """Carries out broker commands for ``instruments``.

    ``fee_ppm`` per ticker; ``slippage_ticks`` is added against us to every taking deal. ``send`` commands,
    feed the market with ``on_book`` and ``on_trade``, and collect what is due with ``poll``.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        fee_ppm: Mapping[str, int],
        latency_ns: int,
        *,
        response_latency_ns: int = 0,
        fill_model: FillModel = "queue",
        slippage_ticks: int = 0,
    ) -> None:
        if fill_model not in FILL_MODELS:
            raise ScalperError(f"unknown fill model {fill_model!r}; known: {', '.join(FILL_MODELS)}")
        self._instruments = dict(instruments)
        self._fee_ppm = dict(fee_ppm)
        queue: QueueModel = "optimistic" if fill_model == "optimistic" else "risk_averse"
        self._matching = {t: Matching(i, self._fee_ppm[t], queue=queue) for t, i in self._instruments.items()}
        self._pessimistic = fill_model == "pessimistic"
        self._entry_ns = latency_ns
        self._response_ns = response_latency_ns
        self._slippage_ticks = slippage_ticks
        self.positions: dict[str, int] = dict.fromkeys(self._instruments, 0)
        """The exchange's own count of our lots: what a reconciliation is answered with."""
        self._accounts: dict[str, _Account] = {}
        self._stops: dict[str, list[_Account]] = {t: [] for t in self._instruments}
        self._touch: dict[str, tuple[int, int]] = {}
        self._arrivals: list[tuple[int, int, Callable[[int], None]]] = []
        self._answers: list[tuple[int, int, OrderUpdate]] = []
        self._sequence = 0

    # ---- what we send

    def send(self, command: PlaceOrder | CancelOrder | QueryOrder, now_ns: int) -> None:
        """Put a command on its way to the exchange."""
        if len(self._arrivals) >= MAX_PENDING:
            raise ScalperError(f"more than {MAX_PENDING} commands are on their way to the simulated exchange")
        match command:
            case PlaceOrder():
                act = lambda at_ns: self._arrive(command, at_ns)  # noqa: E731
            case CancelOrder(client_order_id=key):
                act = lambda at_ns: self._cancel(key, at_ns)  # noqa: E731
            case QueryOrder(client_order_id=key):
                act = lambda at_ns: self._answer_query(key, at_ns)  # noqa: E731
        self._sequence += 1
        heapq.heappush(self._arrivals, (now_ns + self._entry_ns, self._sequence, act))

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
        while self._arrivals and self._arrivals[0][0] <= now_ns:
            at_ns, _, act = heapq.heappop(self._arrivals)
            act(at_ns)
        updates = []
        while self._answers and self._answers[0][0] <= now_ns:
            updates.append(heapq.heappop(self._answers)[2])
        return updates

    # ---- the market

    def on_book(
        self, ticker: str, bid_px: Levels, bid_qty: Levels, ask_px: Levels, ask_qty: Levels, now_ns: int
    ) -> None:
        """The recorded book as the exchange has it now. Keeps the arguments until the next one."""
        self._fill(self._matching[ticker].on_book(bid_px, bid_qty, ask_px, ask_qty, now_ns), now_ns)
        has_touch = len(bid_px) and len(ask_px) and bid_qty[0] > 0 and ask_qty[0] > 0
        if has_touch:
            self._touch[ticker] = (int(bid_px[0]), int(ask_px[0]))
            if self._stops[ticker]:
                self._trigger_stops(ticker, now_ns)

    def on_trade(self, ticker: str, px: int, qty: int, side: int, now_ns: int) -> None:
        """A recorded print."""
        matching = self._matching[ticker]
        if self._pessimistic and any(order.price_ticks == px for order in matching.open_orders):
            return  # a print at our own price never reaches us
        self._fill(matching.on_trade(px, qty, side, now_ns), now_ns)

    # ---- inside the exchange

    def _arrive(self, order: PlaceOrder, now_ns: int) -> None:
        account = _Account(order, f"sim-{len(self._accounts) + 1}")
        if order.client_order_id in self._accounts:
            self._answer_query(
                order.client_order_id, now_ns
            )  # the id is an idempotency key: nothing new happens
            return
        self._accounts[order.client_order_id] = account
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
        price, fee = execution.price_ticks, execution.fee_nano
        if not execution.maker and self._slippage_ticks:
            ticker = account.order.ticker
            price = max(1, price + execution.side * self._slippage_ticks)
            fee = fee_nano(
                self._instruments[ticker].notional_nano(price, execution.lots), self._fee_ppm[ticker]
            )
        self.positions[account.order.ticker] += execution.side * execution.lots
        return FillInfo(execution.trade_id, price, execution.lots, fee)

    def _trigger_stops(self, ticker: str, now_ns: int) -> None:
        touch = self._touch.get(ticker)
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
        due_ns = now_ns + self._response_ns
        update = OrderUpdate(
            due_ns, account.order.client_order_id, account.exchange_order_id, account.status,
            account.lots_executed, fills, reason,
        )  # fmt: skip
        self._sequence += 1
        heapq.heappush(self._answers, (due_ns, self._sequence, update))

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
