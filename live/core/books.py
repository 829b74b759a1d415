"""What the core keeps of each instrument's market: a believable book, bars, the last window."""

from __future__ import annotations

import itertools
from collections import deque
from math import isqrt

from live.core.bars import MinuteBars
from live.core.config import BookCheckConfig
from live.core.events import Book

MAX_WINDOW_BOOKS = 600
IMBALANCE_LEVELS = 10
LARGEST = 2**31 - 1
"""Ticks and lots fit 32 bits in features and recordings; a book with more of either is no book."""
MILLIBPS = 10_000_000
"""Thousandths of a basis point in a whole."""


def book_fault(book: Book, believed: Book | None = None) -> str | None:
    """Why a book cannot be used whatever came before it, or None: the name of the first check that fails.

    ``believed``: a book that passed. A side with its very prices is sorted, too, and most books have them:
    only the sizes changed.
    """
    bids, asks = book.bid_px, book.ask_px
    if not book.consistent:
        return "INCONSISTENT"
    if not bids or not asks:
        return "ONE_SIDED"
    if len(bids) != len(book.bid_qty) or len(asks) != len(book.ask_qty):
        return "RAGGED"
    if bids[-1] <= 0 or not (_sizes(book.bid_qty) and _sizes(book.ask_qty)):
        return "NOT_POSITIVE" if min(bids[-1], *book.bid_qty, *book.ask_qty) <= 0 else "OUT_OF_RANGE"
    if bids[0] >= asks[0]:
        return "CROSSED"
    if not (believed is not None and asks == believed.ask_px) and not _rising(asks):
        return "UNSORTED"
    if not (believed is not None and bids == believed.bid_px) and not _rising(bids[::-1]):
        return "UNSORTED"
    if asks[-1] > LARGEST:  # the highest price of all
        return "OUT_OF_RANGE"
    return None


# Plain loops: the interpreter compares whole numbers in a loop faster than it calls ``min`` or ``map``.


def _sizes(values: tuple[int, ...]) -> bool:
    for value in values:  # noqa: SIM110
        if not 0 < value <= LARGEST:
            return False
    return True


def _rising(values: tuple[int, ...]) -> bool:
    last = -1
    for value in values:
        if value <= last:
            return False
        last = value
    return True


class Market:
    """The believed market of one instrument. ``mid2`` values are bid + ask in ticks (half-ticks)."""

    def __init__(self, checks: BookCheckConfig, window_ns: int) -> None:
        self._checks = checks
        self._window_ns = window_ns
        self.book: Book | None = None
        """The last believed book; None until there is one, and while the instrument is quarantined."""
        self.previous_mid2 = 0
        self.mid2 = 0
        self.bars = MinuteBars()
        self.quarantined = True
        self._doubted: deque[int] = deque(maxlen=checks.confirm_books)
        self._exch_ns = 0
        self._window: deque[tuple[int, int, int, int]] = deque(maxlen=MAX_WINDOW_BOOKS)
        """now_ns, lots bid, lots asked, mid2: what they say is worked out when somebody asks."""

    def distrust(self) -> None:
        """Forget the book: after a reconnect or a bad one, the next must pass every check."""
        self.refuse()
        self._doubted.clear()

    def refuse(self) -> None:
        """A book was not believed: the one before is no longer the market either."""
        self.quarantined = True
        self.book = None
        self._window.clear()

    def check(self, book: Book) -> str | None:
        """Why ``book`` is not believed, or None. In quarantine it must also be fresh."""
        fault = book_fault(book, self.book)
        if fault is not None:
            self._doubted.clear()
            return fault
        if book.exch_ns < self._exch_ns:
            return "BACKWARD_TIME"
        if self.quarantined and abs(book.now_ns - book.exch_ns) > self._checks.max_age_ns:
            return "STALE"
        return self._implausible(book.bid_px[0] + book.ask_px[0])

    def _implausible(self, mid2: int) -> str | None:
        if mid2 == self.mid2 or not self.mid2 or self._near(mid2, self.mid2):
            return None
        # A move too large for one book is believed once enough books in a row agree with each other.
        if self._doubted and not self._near(mid2, self._doubted[-1]):
            self._doubted.clear()
        self._doubted.append(mid2)
        return None if len(self._doubted) == self._checks.confirm_books else "IMPLAUSIBLE_MOVE"

    def _near(self, a: int, b: int) -> bool:
        return abs(a - b) * 10_000 <= self._checks.max_move_bps * b

    def take(self, book: Book) -> None:
        """Believe ``book``."""
        self.quarantined = False
        self.book = book
        if self._doubted:
            self._doubted.clear()
        self._exch_ns = book.exch_ns
        mid2 = book.bid_px[0] + book.ask_px[0]
        self.previous_mid2, self.mid2 = self.mid2 or mid2, mid2
        self.bars.on_mid(book.now_ns, mid2)
        bids, asks = sum(book.bid_qty[:IMBALANCE_LEVELS]), sum(book.ask_qty[:IMBALANCE_LEVELS])
        self._window.append((book.now_ns, bids, asks, mid2))

    def window(self, now_ns: int) -> tuple[int, int, int]:
        """(books, mean imbalance e6, volatility millibps) of the last window.

        Imbalance is the mean of (bid - ask) / (bid + ask) sizes over ten levels, volatility the root of the
        sum of squared relative mid moves: realised volatility over the window.
        """
        while self._window and self._window[0][0] < now_ns - self._window_ns:
            self._window.popleft()
        rows = list(self._window)
        if len(rows) < 2:
            return len(rows), 0, 0
        imbalance = sum((bids - asks) * 1_000_000 // (bids + asks) for _, bids, asks, _ in rows)
        mean = imbalance // len(rows) if imbalance >= 0 else -(-imbalance // len(rows))
        squares = sum(
            ((after[3] - before[3]) * MILLIBPS // before[3]) ** 2
            for before, after in itertools.pairwise(rows)
        )
        return len(rows), mean, isqrt(squares)
