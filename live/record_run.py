"""The runner's own recording: the market it saw, and what became of its orders (`--record`).

Trading comes first: a recording that cannot go on ends with one report, and the runner trades on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from live.core.commands import Command, FillBooked, OrderChanged, PlaceOrder
from live.core.events import Event
from live.record import StreamRecorder, app_version
from market.errors import RecordingError
from market.types import DEPTH, Instrument
from market.writer import RecordingWriter

_KINDS = {
    "NEW": "working",
    "PARTIAL": "working",
    "CANCELLED": "cancelled",
    "REJECTED": "rejected",
    "UNKNOWN": "unknown",
}
"""What an order's state is called in a recording; FILLED is told by its fills."""


class RunRecorder:
    """``take`` gets every event of the stream, ``commands`` everything that the engine decides."""

    def __init__(
        self,
        path: Path,
        instruments: dict[str, Instrument],
        *,
        mode: str,
        watermark: str,
        tariff: str,
        facts: dict[str, Any],
        now_ns: Callable[[], int],
        failed: Callable[[str], None],
    ) -> None:
        """RecordingError as for ``RecordingWriter``: the runner does not start then."""
        provenance = {"recorder": "live-runner --record", "version": app_version(), "broker": mode}
        self._writer: RecordingWriter | None = RecordingWriter(
            path,
            source=f"live-runner ({mode})",
            watermark=watermark,
            tariff=tariff,
            provenance=provenance | {"depth": DEPTH} | facts,
        )
        self._stream = StreamRecorder(self._writer, instruments)
        self._instruments, self._now_ns, self._failed = instruments, now_ns, failed

    def take(self, event: Event) -> None:
        if self._writer is not None:
            try:
                self._stream.take(event)
            except RecordingError as error:
                self._end(error)

    def commands(self, commands: Sequence[Command]) -> None:
        if self._writer is not None:
            try:
                for command in commands:
                    self._own(self._writer, command)
            except RecordingError as error:
                self._end(error)

    def _own(self, writer: RecordingWriter, command: Command) -> None:
        if isinstance(command, PlaceOrder):
            instrument, price = self._instruments[command.ticker], command.price_ticks or 0
            key = command.client_order_id
            writer.own(instrument, self._now_ns(), "placed", key, command.side, price, command.lots)
        elif isinstance(command, FillBooked):
            instrument, key = self._instruments[command.ticker], command.client_order_id
            price, lots, fee = command.price_ticks, command.lots, command.fee_nano
            writer.own(instrument, command.now_ns, "fill", key, command.side, price, lots, fee)
        elif isinstance(command, OrderChanged) and command.status in _KINDS:
            instrument, kind = self._instruments[command.ticker], _KINDS[command.status]
            key = command.client_order_id
            writer.own(instrument, command.now_ns, kind, key, command.side, 0, command.lots)

    def close(self) -> None:
        """Turns what was recorded into tables. A failure is reported, not raised: trading is over."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.note(gaps=self._stream.gaps)
                writer.close()
            except RecordingError as error:
                self._failed(str(error))

    def _end(self, error: RecordingError) -> None:
        writer, self._writer = self._writer, None
        self._failed(str(error))
        if writer is not None:
            writer.abandon()
