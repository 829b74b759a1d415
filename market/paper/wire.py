"""The last step of a stream: what waits is written to the client, with the faults that are in force."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, to_nano
from market.paper.calls import GATEWAY_TEXT, Context
from market.paper.faults import MILLISECONDS_PER_SECOND, Faults
from market.paper.listing import Listing
from market.paper.outbox import Outbox

MAX_DELAYED = 100_000
"""Messages that the fault ``delay`` keeps back before the stream is cut."""

RESET_TEXT = "Received RST_STREAM with error code 8"
"""What clients of the broker see when it resets a stream."""

_NOT_DATA = frozenset({"ping", "subscription"})
_NAMES_AT = ("ticker", "figi", "instrument_uid")


class Wire:
    """Writes the messages of one stream of ``method``; without a fault it only hands them on.

    A fault strikes a message when it is about to leave. ``listings`` tell the tick of a book.
    """

    def __init__(self, method: str, context: Context, faults: Faults, listings: Sequence[Listing]) -> None:
        self._method = method
        self._context = context
        self._faults = faults
        self._ticks = {listing.instrument.uid: listing.instrument.tick_nano for listing in listings}
        self._answer = (
            pb.MarketDataResponse if method.startswith("MarketDataStreamService") else None
        )  # what bytes are
        self._mute_until_s: float | None = None
        self._mute_number = 0
        self._behind: Message | bytes | None = None
        self._delayed: deque[tuple[float, Message | bytes]] = deque()

    async def send_all(self, outbox: Outbox) -> None:
        """Until the outbox ends or is cut; a cut, and the fault ``unavailable``, abort the call.

        Raises the Refusal that the outbox ends with.
        """
        while True:
            if not self._delayed:
                message = await outbox.next()
            else:
                message = await self._next_before_due(outbox)
            if message is None:
                break
            if self._faults.quiet and not self._delayed and self._behind is None:
                if self._mute_until_s is None or not self._muted():
                    await self._context.write(message)
                continue
            await self._leave(message)
        if outbox.cut_because:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, outbox.cut_because)
        if outbox.refusal is not None:
            raise outbox.refusal
        for _, message in self._delayed:
            await self._context.write(message)
        if self._behind is not None:
            await self._context.write(self._behind)

    # ------------------------------------------------------------------ inside

    async def _next_before_due(self, outbox: Outbox) -> Message | bytes | None:
        """The next message of the outbox, writing delayed ones whose time comes first."""
        while self._delayed:
            loop = asyncio.get_running_loop()
            due_s, message = self._delayed[0]
            try:
                async with asyncio.timeout_at(due_s):
                    return await outbox.next()
            except TimeoutError:
                pass
            while self._delayed and self._delayed[0][0] <= loop.time():
                message = self._delayed.popleft()[1]
                await self._context.write(message)
        return await outbox.next()

    async def _leave(self, message: Message | bytes) -> None:
        parsed = self._parse(message)
        payload, names, strikes = _about(parsed) if parsed is not None else ("", (), False)

        def strike(name: str) -> Any:
            return self._faults.strikes(name, method=self._method, names=names, payload=payload)

        if strike("unavailable"):
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, GATEWAY_TEXT)
        if strike("cancelled"):
            await self._context.abort(grpc.StatusCode.CANCELLED, RESET_TEXT)
        if self._muted() or self._mutes(strike("mute_stream")):
            return
        out: list[Message | bytes] = [message]
        book = parsed.orderbook if isinstance(parsed, pb.MarketDataResponse) else None
        if book is not None and payload == "orderbook" and self._spoil(book, strike):
            out = [parsed]
        if strikes:
            if strike("duplicate"):
                out.append(out[0])
            if self._behind is None and strike("reorder"):
                self._behind = out.pop()
            elif self._behind is not None:
                out.append(self._behind)
                self._behind = None
        late = strike("delay")
        await self._write(out, late.delay_ms if late else 0)

    async def _write(self, messages: list[Message | bytes], late_ms: int) -> None:
        """Order is kept: what follows a delayed message waits behind it."""
        if not late_ms and not self._delayed:
            for message in messages:
                await self._context.write(message)
            return
        due_s = asyncio.get_running_loop().time() + late_ms / MILLISECONDS_PER_SECOND
        if self._delayed:
            due_s = max(due_s, self._delayed[-1][0])
        self._delayed.extend((due_s, message) for message in messages)
        if len(self._delayed) > MAX_DELAYED:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, f"{MAX_DELAYED} messages are delayed")

    def _parse(self, message: Message | bytes) -> Message | None:
        if isinstance(message, bytes):
            return self._answer.FromString(message) if self._answer is not None else None
        # A copy: the same message may be on its way to other streams.
        copy = type(message)()
        copy.CopyFrom(message)
        return copy

    def _muted(self) -> bool:
        if self._mute_until_s is None:
            return False
        over = asyncio.get_running_loop().time() >= self._mute_until_s
        if over or self._faults.cleared("mute_stream") != self._mute_number:
            self._mute_until_s = None
        return self._mute_until_s is not None

    def _mutes(self, fault: Any) -> bool:
        if fault is None:
            return False
        for_s = fault.delay_ms / MILLISECONDS_PER_SECOND if fault.delay_ms else float("inf")
        self._mute_until_s = asyncio.get_running_loop().time() + for_s
        self._mute_number = self._faults.cleared("mute_stream")
        return True

    def _spoil(self, book: pb.OrderBook, strike: Callable[[str], Any]) -> bool:
        """Applies what strikes to the book; returns whether anything did."""
        spoilt = False
        if strike("not_consistent_flag"):
            book.is_consistent, spoilt = False, True
        if book.bids and book.asks and strike("crossed_book"):
            tick_nano = self._ticks.get(book.instrument_uid, 1)
            book.bids[0].price.CopyFrom(quotation(to_nano(book.asks[0].price) + tick_nano))
            spoilt = True
        side = book.bids if len(book.bids) > 1 else book.asks
        if len(side) > 1 and strike("inconsistent_book"):
            first = pb.Order()
            first.CopyFrom(side[0])
            side[0].CopyFrom(side[1])
            side[1].CopyFrom(first)
            spoilt = True
        return spoilt


def _about(message: Message) -> tuple[str, tuple[str, ...], bool]:
    """(kind of payload, every name of its instrument, whether it is data and no ping or reply)."""
    kind = message.WhichOneof("payload") or ""
    content = getattr(message, kind) if kind else None
    names = tuple(str(getattr(content, field)) for field in _NAMES_AT if hasattr(content, field))
    return kind, names, bool(kind) and kind not in _NOT_DATA and not kind.startswith("subscribe_")
