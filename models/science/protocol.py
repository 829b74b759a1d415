"""The fixed protocol: which rows, which labels, which spans. Pure; nothing here looks at a forecast.

Every book frame is a row. Its label at horizon h comes from the last book received at or before t + h:
*up* or *down* if the mid moved by at least half a tick, else *flat*. It is void where the recording is
silent for more than ten seconds inside [t, t + h], where the window leaves the recording, and where
either book is one-sided.

Three spans in the order of time: ``fit`` teaches, ``choose`` is for every choice (rounds, biases, which
variant), ``test`` is looked at once. A row belongs to a span only with its whole label window, so no
label of one span uses a book of the next (purge).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.errors import RecordingError
from market.types import SECOND_NS, Books

HORIZONS_S = (1, 5, 10)
GAP_NS = 10 * SECOND_NS
CHOOSING_SHARE = 0.15
"""Last part of the training span, by rows, on which everything is chosen."""
DOWN, FLAT, UP, VOID = 0, 1, 2, 255
FEWEST_ROWS = 200
"""A span with fewer labelled rows than this says nothing."""

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frames:
    """What the protocol needs of a recording: ``recv_ns`` int64 [n] in order, ``mid2`` int64 [n] = bid + ask
    in ticks, ``bid``, ``ask`` int64 [n] in ticks, ``two_sided`` bool [n]."""

    recv_ns: I64
    mid2: I64
    bid: I64
    ask: I64
    two_sided: Mask

    @classmethod
    def of(cls, books: Books) -> Frames:
        """RecordingError when the books go back in time."""
        if np.any(np.diff(books.recv_ns) < 0):
            raise RecordingError(
                "the books go back in receive time: ingest them first, which drops such rows"
            )
        bid, ask = books.bid_px[:, 0].astype(np.int64), books.ask_px[:, 0].astype(np.int64)
        two_sided = (books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0)
        return cls(books.recv_ns, bid + ask, bid, ask, two_sided)

    def __len__(self) -> int:
        return len(self.recv_ns)

    def later(self, horizon_ns: int) -> I64:
        """Row of the last book received at or before t + horizon, int64 [n]."""
        return np.searchsorted(self.recv_ns, self.recv_ns + horizon_ns, side="right") - 1


def make_labels(frames: Frames, horizon_ns: int) -> U8:
    """DOWN, FLAT, UP or VOID for every frame, uint8 [n]. ``mid2`` counts half ticks, so any change is
    enough."""
    later = frames.later(horizon_ns)
    y = (np.sign(frames.mid2[later] - frames.mid2) + FLAT).astype(np.uint8)
    y[~_known(frames, later, horizon_ns)] = VOID
    return y


def _known(frames: Frames, later: I64, horizon_ns: int) -> Mask:
    recv_ns = frames.recv_ns
    end_ns = recv_ns + horizon_ns
    silent_from = recv_ns[:-1][np.diff(recv_ns) > GAP_NS]
    # The first silence that begins at this row or after it touches the window if it begins before its end.
    at = np.searchsorted(silent_from, recv_ns, side="left")
    begins = np.append(silent_from, np.iinfo(np.int64).max)[at]
    inside = end_ns <= recv_ns[-1] if len(recv_ns) else np.zeros(0, np.bool_)
    return (begins >= end_ns) & inside & frames.two_sided & frames.two_sided[later]


@dataclass(frozen=True, slots=True)
class Spans:
    """Ends of the spans, nanoseconds UTC; each is from (included) to (excluded)."""

    train: tuple[int, int]
    choose_from: int
    test: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.train[0] < self.choose_from < self.train[1] <= self.test[0] < self.test[1]:
            raise RecordingError(
                f"the spans of the protocol are not in order: train {self.train}, choosing from "
                f"{self.choose_from}, test {self.test}; it is too short or of other hours"
            )

    @classmethod
    def by_clock(cls, recv_ns: I64, train: tuple[int, int], test: tuple[int, int]) -> Spans:
        """Training and test by the clock; choosing is the last ``CHOOSING_SHARE`` of the training rows."""
        rows = np.flatnonzero((recv_ns >= train[0]) & (recv_ns < train[1]))
        if len(rows) < FEWEST_ROWS:
            raise RecordingError(f"{len(rows)} books in the training span: this is not that recording's day")
        return cls(train, int(recv_ns[rows[int(len(rows) * (1 - CHOOSING_SHARE))]]), test)

    @classmethod
    def by_share(cls, recv_ns: I64, share: float = 0.6) -> Spans:
        """Training is the first ``share`` of the time that the recording covers, test the rest."""
        first, last = int(recv_ns[0]), int(recv_ns[-1]) + 1
        cut = first + int((last - first) * share)
        return cls.by_clock(recv_ns, (first, cut), (cut, last))

    def masks(self, recv_ns: I64, y: U8, horizon_ns: int) -> dict[str, Mask]:
        """Labelled rows of ``fit``, ``choose``, ``train`` (both, and what lies between) and ``test``."""
        ends = {
            "fit": (self.train[0], self.choose_from),
            "choose": (self.choose_from, self.train[1]),
            "train": self.train,
            "test": self.test,
        }
        return {name: within(recv_ns, y, horizon_ns, *span) for name, span in ends.items()}

    def walk_forward(
        self, recv_ns: I64, folds: int = 4, first: float = 0.45
    ) -> Iterator[tuple[int, int, int]]:
        """Inner folds of the training span: (train from, score from, score to) with the past growing.

        The first fold trains on the share ``first`` of the rows; the scored parts are equally long, in
        rows. What is chosen on them never sees the test span.
        """
        rows = np.flatnonzero((recv_ns >= self.train[0]) & (recv_ns < self.train[1]))
        cuts = [int(len(rows) * (first + (1 - first) * k / folds)) for k in range(folds)]
        ends = [*(int(recv_ns[rows[c]]) for c in cuts), self.train[1]]
        for k in range(folds):
            yield self.train[0], ends[k], ends[k + 1]


def within(recv_ns: I64, y: U8, horizon_ns: int, from_ns: int, to_ns: int) -> Mask:
    """Labelled rows whose window [t, t + h] lies in the span; bool [n]."""
    return (recv_ns >= from_ns) & (recv_ns + horizon_ns < to_ns) & (y != VOID)
