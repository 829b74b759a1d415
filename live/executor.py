"""Carries out the engine's commands: orders to the broker (intent first), the rest to disk and people."""

from __future__ import annotations

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


class OrderDesk(Protocol):
    """What the executor needs of a broker; ``BrokerClient`` and ``ShadowDesk`` are two.

    None instead of a report: the answer comes by itself, through the stream of order states.
    """

    async def place(self, order: PlaceOrder, instrument: Instrument) -> OrderReport | None: ...
    async def cancel(self, client_order_id: str, exchange_order_id: str) -> OrderReport | None: ...
    async def query(self, client_order_id: str, exchange_order_id: str = "") -> OrderReport | None: ...
    async def state(self) -> AccountState: ...


class Executor:
    """``carry_out`` never blocks: calls to the broker are supervised tasks, started in the order of the
    commands.
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

    def carry_out(self, commands: list[Command], arrived_ns: int) -> None:
        """``arrived_ns``: monotonic time at which the event that caused the commands arrived."""
        for command in commands:
            self._ledger.on_command(command)
            if isinstance(command, PlaceOrder):
                self._place(command, arrived_ns)
            else:
                self._HANDLERS[type(command)](self, command)

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

    def _place(self, order: PlaceOrder, arrived_ns: int) -> None:
        self.orders_changed = True
        saved = self._storage.intent(
            {
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
                "created_ns": self._clock.now_ns(),
                "updated_ns": self._clock.now_ns(),
            }
        )
        self._sending[order.client_order_id] = self._spawn(
            self._send(order, saved, arrived_ns), f"send-{order.client_order_id[:8]}"
        )

    async def _send(self, order: PlaceOrder, saved: Any, arrived_ns: int) -> None:
        queued_ns = time.monotonic_ns()
        try:
            await saved
        except StorageError as error:
            self._audit.write(
                self._clock.now_ns(),
                "ORDER",
                "INTENT_NOT_WRITTEN",
                {"client_order_id": order.client_order_id, "reason": str(error)},
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

    def _cancel(self, command: CancelOrder) -> None:
        self._spawn(self._send_cancel(command), f"cancel-{command.client_order_id[:8]}")

    async def _send_cancel(self, command: CancelOrder) -> None:
        sending = self._sending.get(command.client_order_id)
        if sending is not None:
            await sending  # an order cannot be cancelled before it was sent
        exchange_order_id = self._exchange_ids.get(command.client_order_id, "")
        self.report(await self._desk.cancel(command.client_order_id, exchange_order_id))

    def _query(self, command: QueryOrder) -> None:
        self._spawn(self._send_query(command.client_order_id), f"query-{command.client_order_id[:8]}")

    async def _send_query(self, client_order_id: str) -> None:
        self.report(await self._desk.query(client_order_id, self._exchange_ids.get(client_order_id, "")))

    def _reconcile(self, command: RequestReconcile) -> None:
        self._want_reconcile(command.reason)

    # ---- records ----

    def _signal(self, s: RecordSignal) -> None:
        self._storage.put(
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
        self._storage.put(Record("orders", fields))

    def _fill(self, fill: FillBooked) -> None:
        self.orders_changed = True
        self._storage.put(
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
        self._storage.put(
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
        self._storage.put(
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
        self._storage.put(
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
        CancelOrder: _cancel,
        QueryOrder: _query,
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
