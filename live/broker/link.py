"""Keeps the runner connected: both streams, back-off with jitter, and the backup channel.

The link is up when both streams are subscribed. ``failure_threshold`` failures in a row on the primary switch
everything (calls too) to the backup, whose connection is kept warm; ``recovery_message_count`` good answers
from the primary bring it back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio

from live.broker.channel import Access, open_channel
from live.broker.client import BrokerClient, OrderReport
from live.broker.stream import MarketStream, OrderStream, StreamDown
from live.clock import MarketClock
from live.core.events import Connection, Event
from market.contract import invest_pb2 as pb
from market.contract.methods import stub
from market.types import Instrument

FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 15.0
HEALTHY_AFTER_S = 30.0
"""A stream that lived so long starts its next back-off from the beginning."""
PROBE_INTERVAL_S = 1.0
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    failure_threshold: int = 3
    recovery_message_count: int = 20


class Backoff:
    """Exponential with full jitter, so that many clients do not return together."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._pause_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        pause, self._pause_s = self._pause_s, min(MAX_PAUSE_S, self._pause_s * 2)
        return pause * (0.5 + 0.5 * self._rng.random())

    def reset(self) -> None:
        self._pause_s = FIRST_PAUSE_S


class Link:
    """``run`` never returns by itself. ``emit`` gets core events, ``report`` the states of our orders."""

    def __init__(
        self,
        client: BrokerClient,
        instruments: Mapping[str, Instrument],
        clock: MarketClock,
        emit: Callable[[Event], None],
        report: Callable[[OrderReport], None],
        *,
        depth: int,
        backup: Access | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._client, self._clock, self._emit = client, clock, emit
        self._primary, self._backup = client.access, backup
        self._policy = policy or Policy()
        self._up = {"market": False, "orders": False}
        self._announced = False
        self._failures = 0
        self._switching = asyncio.Lock()
        self._standby: grpc.aio.Channel | None = None
        self.channel = "primary"
        self.reconnects = 0
        self.last_error = ""
        self.market = MarketStream(
            client, instruments, clock, emit, depth=depth, on_up=lambda: self._set("market")
        )
        self.orders = OrderStream(client, report, on_up=lambda: self._set("orders"))

    @property
    def up(self) -> bool:
        return self._announced

    async def run(self) -> None:
        if self._backup is not None:
            self._standby = open_channel(self._backup)
            self._standby.get_state(try_to_connect=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep("market", self.market.run_once), name="market-stream")
            group.create_task(self._keep("orders", self.orders.run_once), name="order-stream")
            if self._backup is not None:
                group.create_task(self._probe_primary(), name="primary-probe")

    async def _keep(self, name: str, run_once: Callable[[], Awaitable[None]]) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            started, on = loop.time(), self.channel
            try:
                await run_once()
            except StreamDown as down:
                if loop.time() - started > HEALTHY_AFTER_S:
                    backoff.reset()
                self.reconnects += 1
                self._lost(name, down.reason)
                if on == self.channel and not await self._maybe_fail_over():
                    await asyncio.sleep(max(down.pause_s, backoff.next_s()))

    def _set(self, name: str) -> None:
        self._up[name] = True
        if all(self._up.values()) and not self._announced:
            self._announced, self._failures = True, 0
            self._emit(Connection(self._clock.now_ns(), True, self.channel, ""))

    def _lost(self, name: str, reason: str) -> None:
        self._up[name] = False
        self._failures += 1
        self.last_error = f"{name} stream: {reason}"
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
            self.channel, self._failures = name, 0
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
