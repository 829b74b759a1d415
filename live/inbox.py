"""The one queue in front of the engine: everything in the order of its arrival, bounded, books conflated.

All producers run in the event loop's thread and stamp ``now_ns`` when they post, so arrival order is time
order. Under pressure an older book of an instrument is skipped when a newer one already waits (a snapshot
replaces a snapshot). Only market data may be dropped, and never silently; orders' news never is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from live.core.events import Book, Event, Timer, Trade

CONFLATE_ABOVE = 32
"""Waiting events from which on superseded books are skipped: below it every book is used."""

_PASSING = frozenset({Book, Trade, Timer})


class Inbox:
    """``post`` from anywhere in the loop, ``get`` from the engine's task only."""

    def __init__(self, max_length: int) -> None:
        self._items: deque[tuple[int, Event]] = deque()
        self._waiting_books: dict[str, int] = {}
        self.news = 0
        """Waiting events that are not the market and not the clock: what the broker and people said."""
        self._arrived = asyncio.Event()
        self._max_length = max_length
        self.conflated = 0
        self.dropped = 0
        self.longest = 0

    def __len__(self) -> int:
        return len(self._items)

    def post(self, event: Event) -> bool:
        """Queues the event. False: a market event was dropped because the queue is full."""
        kind = type(event)
        if len(self._items) >= self._max_length and kind in (Book, Trade):
            self.dropped += 1
            return False
        if isinstance(event, Book):
            self._waiting_books[event.ticker] = self._waiting_books.get(event.ticker, 0) + 1
        if kind not in _PASSING:
            self.news += 1
        self._items.append((time.monotonic_ns(), event))
        self.longest = max(self.longest, len(self._items))
        self._arrived.set()
        return True

    async def get(self) -> tuple[int, Event]:
        """(monotonic ns of arrival, event), oldest first."""
        while True:
            while self._items:
                arrived_ns, event = self._items.popleft()
                if isinstance(event, Book):
                    waiting = self._waiting_books[event.ticker] = self._waiting_books[event.ticker] - 1
                    if waiting and len(self._items) > CONFLATE_ABOVE:
                        self.conflated += 1
                        continue
                elif type(event) not in _PASSING:
                    self.news -= 1
                return arrived_ns, event
            self._arrived.clear()
            await self._arrived.wait()
