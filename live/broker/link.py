"""Keeps the runner connected: both streams, back-off with full jitter, the watchdog, the backup channel.

The link is up when its streams are subscribed. A stream that ends is opened again and subscribed to
everything; at once after a planned restart of the server (GOAWAY), after two minutes when the broker counts
too many streams (80001), else after a random part of a pause that doubles. ``failure_threshold`` failures in
a row on the primary switch everything (calls too) to the backup, whose connection is kept warm;
``recovery_message_count`` good answers from the primary bring it back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio

from live.broker.channel import Access, open_channel
from live.broker.client import BrokerClient, OrderReport
from live.broker.stream import MarketDataStream, OrderStream, StreamDown
from live.broker.watchdog import SilenceWatch
from live.clock import MarketClock
from live.core.events import Connection, Event
from market.contract import invest_pb2 as pb
from market.contract.methods import stub
from market.types import Instrument

MIN_PAUSE_S = 0.02
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 15.0
HEALTHY_AFTER_S = 30.0
"""A stream that lived so long starts its next back-off from the beginning."""
AT_ONCE_AFTER_S = 1.0
"""A stream that did not even live so long waits its turn, however politely it was ended."""
AT_ONCE_PAUSE_S = 0.05
SILENCE_S = 10.0
PROBE_INTERVAL_S = 1.0
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    failure_threshold: int = 3
    recovery_message_count: int = 20


class Backoff:
    """Exponential with full jitter: anything up to the pause, so that many clients do not return together."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._pause_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        pause, self._pause_s = self._pause_s, min(MAX_PAUSE_S, self._pause_s * 2)
        return max(MIN_PAUSE_S, pause * self._rng.random())

    def reset(self) -> None:
        self._pause_s = FIRST_PAUSE_S


class Link:
    """``run`` never returns by itself. ``emit`` gets core events, ``report`` the states of our orders; None:
    who only watches the market needs no account, and there is no order stream.
    """

    def __init__(
        self,
        client: BrokerClient,
        instruments: Mapping[str, Instrument],
        clock: MarketClock,
        emit: Callable[[Event], None],
        report: Callable[[OrderReport], None] | None,
        *,
        depth: int,
        backup: Access | None = None,
        policy: Policy | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._client, self._clock, self._emit = client, clock, emit
        self._primary, self._backup = client.access, backup
        self._policy = policy or Policy()
        self._up = {"market": False} if report is None else {"market": False, "orders": False}
        self._announced = False
        self._failures = 0
        self._switching = asyncio.Lock()
        self._standby: grpc.aio.Channel | None = None
        self.channel = "primary"
        self.switched_mono_ns = 0
        """When the link last began to switch channels."""
        self.reconnects = 0
        self.last_error = ""
        self.market = MarketDataStream(
            client, instruments, clock, emit, depth=depth, on_up=lambda: self._set("market")
        )
        self.orders = None
        if report is not None:
            self.orders = OrderStream(client, report, on_up=lambda: self._set("orders"))
        self.watch = SilenceWatch(self.market, client, depth=depth, silence_s=self._wall_s(silence_s))

    @property
    def up(self) -> bool:
        return self._announced

    def report(self) -> dict[str, Any]:
        """Everything that is counted, JSON-able, for the status file."""
        streams = {"market": self.market.report()}
        if self.orders is not None:
            streams["orders"] = self.orders.report()
        return {
            "streams": streams,
            "silence": self.watch.report(),
            "limits": self._client.limits.report(),
        }

    async def run(self) -> None:
        if self._backup is not None:
            self._standby = open_channel(self._backup)
            self._standby.get_state(try_to_connect=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep("market", self.market.run_once), name="market-stream")
            if self.orders is not None:
                group.create_task(self._keep("orders", self.orders.run_once), name="order-stream")
            group.create_task(self.watch.run(), name="silence-watch")
            if self._backup is not None:
                group.create_task(self._probe_primary(), name="primary-probe")

    async def _keep(self, name: str, run_once: Callable[[], Awaitable[None]]) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            started, on = loop.time(), self.channel
            try:
                await run_once()
            except StreamDown as down:
                lived_s = loop.time() - started
                if lived_s > HEALTHY_AFTER_S:
                    backoff.reset()
                self.reconnects += 1
                self._lost(name, down)
                if on == self.channel and not await self._maybe_fail_over():
                    await asyncio.sleep(self._pause_s(down, backoff, lived_s))

    def _pause_s(self, down: StreamDown, backoff: Backoff, lived_s: float) -> float:
        if down.at_once and lived_s > AT_ONCE_AFTER_S:
            return AT_ONCE_PAUSE_S
        return max(self._wall_s(down.pause_s), backoff.next_s())

    def _wall_s(self, market_s: float) -> float:
        """A paper clock that stands or crawls makes nothing wait longer."""
        return market_s / max(1.0, self._clock.speed)

    def _set(self, name: str) -> None:
        self._up[name] = True
        if all(self._up.values()) and not self._announced:
            self._announced, self._failures = True, 0
            self._emit(Connection(self._clock.now_ns(), True, self.channel, ""))

    def _lost(self, name: str, down: StreamDown) -> None:
        self._up[name] = False
        self._failures += down.counts
        self.last_error = f"{name} stream: {down.reason}"
        if self._announced:
            self._announced = False
            self._emit(Connection(self._clock.now_ns(), False, self.channel, self.last_error))

    # ---- fail-over ----

    async def _maybe_fail_over(self) -> bool:
        if (
            self._backup is None
            or self.channel == "backup"
            or self._failures < self._policy.failure_threshold
        ):
            return False
        await self._switch("backup", self._backup)
        return True

    async def _switch(self, name: str, access: Access) -> None:
        async with self._switching:
            if self.channel == name:
                return
            self.channel, self._failures, self.switched_mono_ns = name, 0, time.monotonic_ns()
            if self._announced:
                self._announced = False
                self._emit(Connection(self._clock.now_ns(), False, name, f"switching to {name}"))
            self._up = dict.fromkeys(self._up, False)
            # Closing the old channel ends both streams; their loops come back on the new one.
            await self._client.switch(access)

    async def _probe_primary(self) -> None:
        good = 0
        channel: grpc.aio.Channel | None = None
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            if self.channel == "primary":
                good = 0
                if channel is not None:
                    await channel.close()
                    channel = None
                continue
            channel = channel or open_channel(self._primary)
            good = good + 1 if await _answers(channel, self._primary) else 0
            if good >= self._policy.recovery_message_count:
                await self._switch("primary", self._primary)

    async def close(self) -> None:
        if self._standby is not None:
            await self._standby.close()


async def _answers(channel: grpc.aio.Channel, access: Access) -> bool:
    call: Any = stub(channel, "UsersService/GetAccounts")
    try:
        await call(pb.GetAccountsRequest(), timeout=PROBE_TIMEOUT_S, metadata=access.metadata)
    except grpc.aio.AioRpcError:
        return False
    return True
