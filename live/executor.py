"""Carries out the engine's commands: orders to the broker (intent first), the rest to disk and people.

What goes to the broker comes first (``send``). Records and audit lines follow (``record``) when the request
is on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from live.audit import AuditLog
from live.broker.client import AccountState, OrderReport
from live.clock import MarketClock
from live.core.commands import (
    Audit,
    CancelOrder,
    Command,
    FillBooked,
    HoldChanged,
    Notify,
    OrderChanged,
    PlaceOrder,
    PositionChanged,
    QueryOrder,
    RecordSignal,
    Refuse,
    RequestReconcile,
    TripClosed,
)
from live.core.events import Event, OrderUpdate
from live.latency import Latencies
from live.ledger import Ledger
from live.notify import Notifier
from live.storage import Record, Storage, StorageError
from market.types import Instrument

MAX_EXCHANGE_IDS = 20_000
_CALLS = (PlaceOrder, CancelOrder, QueryOrder)
"""What goes to the broker."""


class OrderDesk(Protocol):
    """What the executor needs of a broker; ``BrokerClient`` and ``ShadowDesk`` are two.

    None instead of a report: the answer comes by itself, through the stream of order states.
    """

    async def place(self, order: PlaceOrder, instrument: Instrument) -> OrderReport | None: ...
    async def cancel(self, client_order_id: str, exchange_order_id: str) -> OrderReport | None: ...
    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport | None: ...
    async def state(self) -> AccountState: ...


class Executor:
    """``send`` holds still for an intention as long as a healthy disk takes, and for nothing else: calls to
    the broker are supervised tasks, started in the order of the commands.
    """

    def __init__(
        self,
        *,
        desk: OrderDesk,
        storage: Storage,
        audit: AuditLog,
        notifier: Notifier,
        ledger: Ledger,
        latencies: Latencies,
        clock: MarketClock,
        instruments: Mapping[str, Instrument],
        session_id: str,
        post: Callable[[Event], object],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        want_reconcile: Callable[[str], None],
        shadow: bool,
    ) -> None:
        self._desk, self._storage, self._audit, self._notifier = desk, storage, audit, notifier
        self._ledger, self._latencies, self._clock = ledger, latencies, clock
        self._instruments = dict(instruments)
        self._session_id, self._post, self._spawn = session_id, post, spawn
        self._want_reconcile, self._shadow = want_reconcile, shadow
        self._sending: dict[str, Any] = {}
        self._exchange_ids: OrderedDict[str, str] = OrderedDict()
        self.orders_changed = False
        """Set when a command concerns orders or positions; the checkpoint task clears it."""
        self.started = False
        """Set when calls to the broker were started; who owns the event loop gives them a turn, clears it."""
        self._records: list[Record] = []

    def send(self, commands: list[Command], arrived_ns: int) -> None:
        """Starts what is for the broker. ``arrived_ns``: monotonic time at which the event that caused the
        commands arrived.
        """
        calls = [command for command in commands if isinstance(command, _CALLS)]
        if calls:
            self._call_broker(calls, arrived_ns)

    def record(self, commands: list[Command]) -> None:
        """Counts all of the commands, and carries out those that are for disk and people."""
        for command in commands:
            self._ledger.on_command(command)
            if not isinstance(command, _CALLS):
                self._HANDLERS[type(command)](self, command)
        if self._records:
            self._storage.put(*self._records)
            self._records.clear()

    def remember(self, client_order_id: str, exchange_order_id: str) -> None:
        """Keeps the broker's id of an order (bounded, oldest forgotten)."""
        if exchange_order_id:
            self._exchange_ids[client_order_id] = exchange_order_id
            if len(self._exchange_ids) > MAX_EXCHANGE_IDS:
                self._exchange_ids.popitem(last=False)

    def report(self, report: OrderReport | None) -> None:
        """The broker's word, handed to the engine as an event."""
        if report is None:
            return
        self.remember(report.client_order_id, report.exchange_order_id)
        self._post(
            OrderUpdate(
                self._clock.now_ns(),
                report.client_order_id,
                report.exchange_order_id,
                report.status,
                report.lots_executed,
                report.fills,
                report.reason,
            )
        )

    # ---- orders ----

    def _call_broker(self, calls: list[PlaceOrder | CancelOrder | QueryOrder], arrived_ns: int) -> None:
        self.started, queued_ns = True, time.monotonic_ns()
        orders = [command for command in calls if isinstance(command, PlaceOrder)]
        intents = [self._storage.queue_intent(self._intent(order)) for order in orders]
        waiting = iter(intents)
        # The calls are made ready while the writer's thread wakes up.
        for command in calls:
            key = command.client_order_id
            if isinstance(command, PlaceOrder):
                self.orders_changed = True
                self._sending[key] = self._spawn(
                    self._send(command, next(waiting).future, queued_ns, arrived_ns), f"send-{key[:8]}"
                )
            elif isinstance(command, CancelOrder):
                self._spawn(self._send_cancel(command), f"cancel-{key[:8]}")
            else:
                self._spawn(self._send_query(key), f"query-{key[:8]}")
        if intents:
            self._storage.hold_still(intents)

    def _intent(self, order: PlaceOrder) -> dict[str, Any]:
        now_ns = self._clock.now_ns()
        return {
            "client_order_id": order.client_order_id,
            "session_id": self._session_id,
            "trace_id": order.trace_id,
            "ticker": order.ticker,
            "side": order.side,
            "lots": order.lots,
            "order_type": order.order_type,
            "price_ticks": order.price_ticks,
            "tif": order.tif,
            "reduce_only": int(order.reduce_only),
            "reason": order.reason,
            "created_ns": now_ns,
            "updated_ns": now_ns,
        }

    async def _send(
        self, order: PlaceOrder, saved: asyncio.Future[None], queued_ns: int, arrived_ns: int
    ) -> None:
        try:
            await saved
        except StorageError as error:
            self._audit.write(
                self._clock.now_ns(),
                "ORDER",
                "INTENT_NOT_WRITTEN",
                {
                    "client_order_id": order.client_order_id,
                    "trace_id": order.trace_id,
                    "reason": str(error),
                },
                sync=True,
            )
            self._sending.pop(order.client_order_id, None)
            self.report(OrderReport(order.client_order_id, "REJECTED", reason=f"NOT_SENT: {error}"))
            return
        sent_ns = time.monotonic_ns()
        self._latencies.add_ns("intent_commit", sent_ns - queued_ns)
        self._latencies.add_ns("tick_to_order", sent_ns - arrived_ns)
        report = await self._desk.place(order, self._instruments[order.ticker])
        self._latencies.add_ns("rpc", time.monotonic_ns() - sent_ns)
        self._sending.pop(order.client_order_id, None)
        self.report(report)

    async def _send_cancel(self, command: CancelOrder) -> None:
        sending = self._sending.get(command.client_order_id)
        if sending is not None:
            await sending  # an order cannot be cancelled before it was sent
        exchange_order_id = self._exchange_ids.get(command.client_order_id, "")
        self.report(await self._desk.cancel(command.client_order_id, exchange_order_id))

    async def _send_query(self, client_order_id: str) -> None:
        self.report(await self._desk.query(client_order_id, self._exchange_ids.get(client_order_id, "")))

    def _reconcile(self, command: RequestReconcile) -> None:
        self._want_reconcile(command.reason)

    # ---- records ----

    def _signal(self, s: RecordSignal) -> None:
        self._records.append(
            Record(
                "signals",
                {
                    "session_id": self._session_id,
                    "trace_id": s.trace_id,
                    "now_ns": s.now_ns,
                    "ticker": s.ticker,
                    "side": s.direction,
                    "source": s.source,
                    "p_down_e6": s.p_e6[0],
                    "p_flat_e6": s.p_e6[1],
                    "p_up_e6": s.p_e6[2],
                    "expected_move_millibps": s.expected_move_millibps,
                    "cost_millibps": s.cost_millibps,
                    "edge_millibps": s.edge_millibps,
                    "confidence_e6": s.confidence_e6,
                    "outcome": s.outcome,
                },
            )
        )

    def _order_changed(self, order: OrderChanged) -> None:
        self.orders_changed = True
        status, note = ("SHADOW", order.status) if self._shadow else (order.status, order.reason)
        fields: dict[str, Any] = {
            "client_order_id": order.client_order_id,
            "status": status,
            "lots_executed": order.lots_filled,
            "updated_ns": order.now_ns,
            "note": note,
        }
        if order.exchange_order_id:
            fields["exchange_order_id"] = order.exchange_order_id
        self._records.append(Record("orders", fields))

    def _fill(self, fill: FillBooked) -> None:
        self.orders_changed = True
        self._records.append(
            Record(
                "fills",
                {
                    "client_order_id": fill.client_order_id,
                    "trade_id": fill.trade_id,
                    "session_id": self._session_id,
                    "ticker": fill.ticker,
                    "side": fill.side,
                    "price_ticks": fill.price_ticks,
                    "lots": fill.lots,
                    "fee_nano": fill.fee_nano,
                    "realised_nano": fill.realised_nano,
                    "now_ns": fill.now_ns,
                },
            )
        )

    def _position(self, position: PositionChanged) -> None:
        self._records.append(
            Record(
                "positions",
                {
                    "session_id": self._session_id,
                    "ticker": position.ticker,
                    "lots": position.lots,
                    "cost_nano": position.cost_nano,
                    "stop_ticks": position.stop_ticks,
                    "realised_nano": position.realised_nano,
                    "fees_nano": position.fees_nano,
                    "updated_ns": position.now_ns,
                },
            )
        )

    def _trip(self, trip: TripClosed) -> None:
        self._records.append(
            Record(
                "trips",
                {
                    "session_id": self._session_id,
                    "trace_id": trip.trace_id,
                    "ticker": trip.ticker,
                    "side": trip.side,
                    "lots": trip.lots,
                    "entry_ns": trip.entry_ns,
                    "exit_ns": trip.exit_ns,
                    "gross_nano": trip.gross_nano,
                    "fees_nano": trip.fees_nano,
                    "net_nano": trip.net_nano,
                    "exit_reason": trip.exit_reason,
                },
            )
        )

    def _hold(self, change: HoldChanged) -> None:
        hold = change.hold
        self._records.append(
            Record(
                "holds",
                {
                    "session_id": self._session_id,
                    "name": hold.name,
                    "scope": hold.scope,
                    "raised_ns": hold.since_ns,
                    "severity": hold.severity.name,
                    "reason": hold.reason,
                    "lifted_ns": None if change.raised else change.now_ns,
                },
            )
        )

    def _audit_line(self, line: Audit) -> None:
        self._audit.write(line.now_ns, line.tag, line.event, line.fields)

    def _notify(self, notice: Notify) -> None:
        self._notifier.send(notice.text, notice.tone_hz, kind=notice.kind)

    def _nothing(self, command: Refuse) -> None:
        """Counted by the ledger; the signal's row already says why."""

    _HANDLERS: Mapping[type, Callable[..., None]] = {
        RequestReconcile: _reconcile,
        RecordSignal: _signal,
        OrderChanged: _order_changed,
        FillBooked: _fill,
        PositionChanged: _position,
        TripClosed: _trip,
        HoldChanged: _hold,
        Audit: _audit_line,
        Notify: _notify,
        Refuse: _nothing,
    }
