"""The one queue in front of the engine: everything in the order of its arrival, bounded, books conflated.

All producers run in the event loop's thread and stamp ``now_ns`` when they post, so arrival order is time
order. Under pressure a new book takes the place of those of its instrument that wait, all but the oldest (a
snapshot replaces a snapshot): the engine is with the market again, and the memory is free at once. The oldest
keeps its place among what else waits, or the instrument with the most books would never be decided on. Only
market data may be dropped, and never silently; orders' news never is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from live.core.events import Book, Event, Timer, Trade

CONFLATE_ABOVE = 32
"""Waiting events from which on superseded books are skipped: below it every book is used."""

_PASSING = frozenset({Book, Trade, Timer})


@dataclass(slots=True)
class _Waiting:
    arrived_ns: int
    event: Event | None
    """None: a book that a newer one has superseded."""


class Inbox:
    """``post`` from anywhere in the loop, ``get`` from the engine's task only."""

    def __init__(self, max_length: int) -> None:
        self._items: deque[_Waiting] = deque()
        self._books: dict[str, deque[_Waiting]] = {}
        """The waiting books of each instrument."""
        self._length = 0
        self.news = 0
        """Waiting events that are not the market and not the clock: what the broker and people said."""
        self._arrived = asyncio.Event()
        self._max_length = max_length
        """Of market data, and beyond it the second waiting book of an instrument."""
        self.posted = 0
        self.conflated = 0
        self.dropped = 0
        self.longest = 0

    def __len__(self) -> int:
        return self._length

    def post(self, event: Event) -> bool:
        """Queues the event. False: a market event was dropped because the queue is full."""
        kind = type(event)
        waiting = _Waiting(time.monotonic_ns(), event)
        if isinstance(event, Book):
            books = self._books.setdefault(event.ticker, deque())
            if books and self._length > CONFLATE_ABOVE:
                self._supersede(books)
            elif self._length >= self._max_length:
                self.dropped += 1
                return False
            books.append(waiting)
        elif kind is Trade and self._length >= self._max_length:
            self.dropped += 1
            return False
        elif kind not in _PASSING:
            self.news += 1
        if len(self._items) > 2 * self._length + CONFLATE_ABOVE:
            self._items = deque(item for item in self._items if item.event is not None)
        self._items.append(waiting)
        self._length += 1
        self.posted += 1
        self.longest = max(self.longest, self._length)
        self._arrived.set()
        return True

    def _supersede(self, books: deque[_Waiting]) -> None:
        kept = 1 if len(books) < self._length else 0  # alone in the queue, it comes next in any case
        while len(books) > kept:
            books.pop().event = None
            self._length -= 1
            self.conflated += 1

    async def get(self) -> tuple[int, Event]:
        """(monotonic ns of arrival, event), oldest first."""
        while True:
            while self._items:
                waiting = self._items.popleft()
                event = waiting.event
                if event is None:
                    continue
                self._length -= 1
                if isinstance(event, Book):
                    self._books[event.ticker].popleft()
                elif type(event) not in _PASSING:
                    self.news -= 1
                return waiting.arrived_ns, event
            self._arrived.clear()
            await self._arrived.wait()
