"""Plays the tape against the market clock, with our orders at their place in between."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from market.paper.alarm import Alarm
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.tape import BOOK, Tape

STEPS_PER_TURN = 32
"""Events played before other tasks get a turn, when there is something to catch up with."""


class Audience(Protocol):
    """Who hears about the market, after the exchange does."""

    def on_book(self, index: int, row: int, now_ns: int) -> None: ...
    def on_trade(self, index: int, row: int, now_ns: int) -> None: ...
    def on_close(self, now_ns: int) -> None: ...
    def prepare(self, index: int, row: int) -> None: ...


class Replayer:
    """One event at a time in market order: recorded events, then actions due at the same moment.

    An action (an order reaching the exchange) runs at its own market time even when the process is late, so
    the result does not depend on how busy the machine is, only on when requests arrived.
    """

    def __init__(self, tape: Tape, clock: MarketClock, exchange: Exchange, audience: Audience) -> None:
        self._tape = tape
        self._clock = clock
        self._exchange = exchange
        self._audience = audience
        self._times: list[int] = tape.recv_ns.tolist()
        self._kinds: list[int] = tape.kind.tolist()
        self._owners: list[int] = tape.instrument.tolist()
        self._rows: list[int] = tape.row.tolist()
        self._position = 0
        self._actions: list[tuple[int, int, Callable[[int], None]]] = []
        self._scheduled = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self.reached_ns = tape.start_ns
        self.worst_lag_ns = 0
        for index, row in enumerate(tape.standing):
            if row >= 0:
                exchange.on_book(index, row, tape.start_ns)

    @property
    def played(self) -> int:
        """Events played so far."""
        return self._position

    @property
    def finished(self) -> bool:
        return self._position == len(self._times)

    def wake(self) -> None:
        """The clock was started or moved."""
        self._idle.clear()
        self._wake.set()

    def schedule(self, due_ns: int, action: Callable[[int], None]) -> None:
        """Runs ``action(market time)`` once the market reaches ``due_ns``; never before what was already
        played.
        """
        self._scheduled += 1
        heapq.heappush(self._actions, (max(due_ns, self.reached_ns), self._scheduled, action))
        self.wake()

    async def caught_up(self) -> None:
        """Returns when everything that is due now has been played."""
        await self._idle.wait()

    async def run(self) -> None:
        """Plays until cancelled."""
        alarm = Alarm(self.wake)
        try:
            while True:
                await self._play_what_is_due()
                self._wake.clear()
                await self._pass(alarm)
        finally:
            alarm.close()

    async def _pass(self, alarm: Alarm) -> None:
        """Waits for the next event or action, or until something wakes the replayer."""
        self._prepare()
        due_ns = self._next_ns()
        wait_s = self._clock.wall_s_until(due_ns) if due_ns is not None else None
        if wait_s == 0.0:
            return
        self._idle.set()
        if wait_s:
            alarm.set(wait_s)
        await self._wake.wait()
        alarm.cancel()

    def _prepare(self) -> None:
        position = self._position
        if not self.finished and self._kinds[position] == BOOK:
            self._audience.prepare(self._owners[position], self._rows[position])

    def _next_ns(self) -> int | None:
        # Before the clock starts nobody listens: even the first event has to wait. Actions need not.
        event = self._times[self._position] if not self.finished and self._clock.running else None
        action = self._actions[0][0] if self._actions else None
        if event is None or action is None:
            return event if action is None else action
        return min(event, action)

    async def _play_what_is_due(self) -> None:
        steps = 0
        while True:
            due_ns = self._next_ns()
            now_ns = self._clock.now_ns()
            if due_ns is None or due_ns > now_ns:
                return
            self.worst_lag_ns = max(self.worst_lag_ns, now_ns - due_ns)
            self._step(due_ns)
            steps += 1
            if steps % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _step(self, due_ns: int) -> None:
        self.reached_ns = max(self.reached_ns, due_ns)
        position = self._position
        playable = self._clock.running and position < len(self._times) and self._times[position] == due_ns
        if not playable:
            heapq.heappop(self._actions)[2](self.reached_ns)
            return
        self._position = position + 1
        index, row = self._owners[position], self._rows[position]
        if self._kinds[position] == BOOK:
            self._exchange.on_book(index, row, due_ns)
            self._audience.on_book(index, row, due_ns)
        else:
            self._exchange.on_trade(index, row, due_ns)
            self._audience.on_trade(index, row, due_ns)
        if self.finished:
            self._exchange.close(due_ns)
            self._audience.on_close(due_ns)
