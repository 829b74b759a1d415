"""What waits to be sent to one subscriber."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from market.paper.refusals import Refusal

CONFLATE_FROM = 256
"""Messages waiting for one subscriber from which at most one book of an instrument waits among them."""

MAX_WAITING = 100_000
"""Messages waiting for one subscriber at which the exchange cuts the connection: it does not read."""

Payload = Callable[[], Message | bytes]


@dataclass(slots=True)
class _Item:
    """One message, made when it is sent. ``book``: the instrument's index, -1 for anything but a book."""

    make: Payload
    book: int = -1


class Outbox:
    """Messages for one stream, in order. Books may be conflated, nothing else is ever lost."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._waiting_books: dict[int, int] = {}
        self._held_books: dict[int, _Item] = {}
        self._filled = asyncio.Event()
        self._finished = False
        self.conflated = 0
        self.cut_because = ""
        self.refusal: Refusal | None = None

    def put(self, make: Payload) -> None:
        self._append(_Item(make))

    def put_book(self, index: int, make: Payload) -> None:
        """A book of instrument ``index``. A subscriber who is far behind gets the one that waits already and
        then, at the end of the queue, the newest of those that came meanwhile.

        Were the waiting book replaced and moved to the end instead, a queue that stays long would never send
        one.
        """
        item = _Item(make, index)
        if self._waiting_books.get(index, 0) and len(self._items) >= CONFLATE_FROM:
            self.conflated += index in self._held_books
            self._held_books[index] = item
            return
        if self._held_books.pop(index, None) is not None:
            self.conflated += 1
        self._append(item)

    def release_books(self) -> None:
        """What comes next must not overtake a book."""
        held, self._held_books = list(self._held_books.values()), {}
        for item in held:
            self._append(item)

    def finish(self) -> None:
        """Nothing more will come; what waits is still sent."""
        self._finished = True
        self._filled.set()

    def cut(self, because: str) -> None:
        """The stream is to be broken off; what waits is lost with it."""
        self.cut_because = because
        self._filled.set()

    def refuse(self, refusal: Refusal) -> None:
        """The stream is to end with an error of the API."""
        self.refusal = refusal
        self._filled.set()

    async def next(self) -> Message | bytes | None:
        """The next message; None at the end, or when the stream is to be broken off (``cut_because``,
        ``refusal``).
        """
        while not self.cut_because and self.refusal is None:
            while self._items:
                item = self._items.popleft()
                if item.book >= 0:
                    self._book_leaves(item.book)
                return item.make()
            if self._finished:
                return None
            self._filled.clear()
            await self._filled.wait()
        return None

    def _book_leaves(self, index: int) -> None:
        self._waiting_books[index] -= 1
        held = self._held_books.pop(index, None)
        if held is not None:
            self._append(held)

    def _append(self, item: _Item) -> None:
        self._items.append(item)
        if item.book >= 0:
            self._waiting_books[item.book] = self._waiting_books.get(item.book, 0) + 1
        if len(self._items) > MAX_WAITING:
            self.cut_because = f"the client does not read: {MAX_WAITING} messages are waiting"
        self._filled.set()
