"""One symbol of a raw Binance capture: snapshot and differences in, a checked sequence of book changes out.

The rule of the exchange's documentation: differences that arrive before the snapshot are kept; those with
``u <= lastUpdateId`` are dropped; the first one left has to span the snapshot's id; then each has to continue
the one before (``pu`` equals its ``u`` on the futures venues, ``U`` = ``u`` + 1 on the spot venue). After a
gap the book is unknown until the next snapshot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from market.importers.fixed import TextColumn
from market.importers.levels import CLEAR
from market.types import BOOK_CONSISTENT, BUY, I8, SELL
from market.validate import GAP_NS

PENDING_DIFFS = 100_000
"""Most differences kept while no snapshot has come; older ones are older than any snapshot to come."""


def whole(value: Any) -> int:
    """``value`` as a number that fits 64 bits; ValueError, TypeError or OverflowError when it is none."""
    number = int(value)
    if not 0 <= number < 1 << 62:
        raise ValueError(f"{number} is no id and no time")
    return number


@dataclass(slots=True)
class Diff:
    recv_ns: int
    exch_ms: int
    first: int
    last: int
    previous: int | None
    bids: list[list[str]]
    asks: list[list[str]]


@dataclass(slots=True)
class Feed:
    """Everything of one symbol. Growing lists of plain integers; prices and sizes in TextColumns."""

    symbol: str
    coin_margined: bool = False
    futures: bool = False
    changes: TextColumn = field(default_factory=TextColumn)
    """Price, size, price, size ... of the changes that are no CLEAR."""
    runs: list[tuple[int, int]] = field(default_factory=list)
    """(side code, how many) of the changes in their order."""
    count: int = 0
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """Books: recv_ns, exch_ms, changes so far, update id, flags."""
    trades: list[tuple[int, int, int]] = field(default_factory=list)
    """recv_ns, exch_ms, side."""
    trade_numbers: TextColumn = field(default_factory=TextColumn)
    tops: list[tuple[int, int]] = field(default_factory=list)
    """Best-price messages: recv_ns, update id."""
    top_numbers: TextColumn = field(default_factory=TextColumn)
    aggregated: list[tuple[int, int, int]] = field(default_factory=list)
    aggregated_numbers: TextColumn = field(default_factory=TextColumn)
    last: int | None = None
    """Update id that the book stands at; None while it is unknown."""
    fresh: bool = False
    """The next difference is the first one after a snapshot."""
    pending: deque[Diff] = field(default_factory=lambda: deque(maxlen=PENDING_DIFFS))
    told: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("depth_messages", "depth_applied", "depth_applied_with_snapshot", "depth_older_than_snapshot",
             "id_gaps", "snapshots", "snapshots_not_needed", "depth_without_book"), 0
        )
    )  # fmt: skip

    def snapshot(self, recv_ns: int, data: dict[str, Any]) -> None:
        if self.last is not None:
            self.told["snapshots_not_needed"] += 1
            return
        self.told["snapshots"] += 1
        self.runs.append((CLEAR, 1))
        self.count += 1
        self._set(data["bids"], data["asks"])
        self.last, self.fresh = whole(data["lastUpdateId"]), True
        exch_ms = whole(data.get("T") or data.get("E") or 0)
        waiting, self.pending = self.pending, deque(maxlen=PENDING_DIFFS)
        for diff in waiting:
            if not self._apply(diff, "depth_applied_with_snapshot"):
                break
            exch_ms = max(exch_ms, diff.exch_ms)
        if self.last is not None:
            self._row(recv_ns, exch_ms, BOOK_CONSISTENT)

    def diff(self, recv_ns: int, data: dict[str, Any]) -> None:
        self.told["depth_messages"] += 1
        previous = data.get("pu")
        self.futures |= previous is not None
        diff = Diff(
            recv_ns, whole(data.get("T") or data["E"]), whole(data["U"]), whole(data["u"]),
            None if previous is None else whole(previous), data["b"], data["a"],
        )  # fmt: skip
        if self.last is None:
            if len(self.pending) == PENDING_DIFFS:
                self.told["depth_without_book"] += 1
            self.pending.append(diff)
        elif diff.last > self.last:
            if self._apply(diff, "depth_applied"):
                self._row(recv_ns, diff.exch_ms, BOOK_CONSISTENT)
            else:
                self.pending.append(diff)
        else:
            self.told["depth_older_than_snapshot"] += 1

    def _apply(self, diff: Diff, counter: str) -> bool:
        """False when the difference does not continue the book, which is then unknown."""
        assert self.last is not None
        if diff.last <= self.last:
            self.told["depth_older_than_snapshot"] += 1
            return True
        if self.fresh:
            continues = diff.first <= self.last + 1
        elif diff.previous is not None:
            continues = diff.previous == self.last
        else:
            continues = diff.first == self.last + 1
        if not continues:
            self.told["id_gaps"] += 1
            # The last known book, marked incomplete: who replays this learns that it is worth nothing now.
            # After a silence (another session, perhaps) nobody takes it for the market any more.
            if self.rows and diff.recv_ns - self.rows[-1][0] <= GAP_NS:
                self._row(diff.recv_ns, diff.exch_ms, 0)
            self.last = None
            return False
        self._set(diff.bids, diff.asks)
        self.last, self.fresh = diff.last, False
        self.told[counter] += 1
        return True

    def _set(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        for code, levels in ((BUY, bids), (SELL, asks)):
            if levels:
                texts = [text for level in levels for text in level]
                if len(texts) != 2 * len(levels):
                    raise ValueError("a level is not a price with a size")
                self.changes.extend(texts)
                self.runs.append((code, len(levels)))
                self.count += len(levels)

    def _row(self, recv_ns: int, exch_ms: int, flags: int) -> None:
        self.rows.append((recv_ns, exch_ms, self.count, self.last or 0, flags))

    def side_codes(self) -> I8:
        codes, counts = np.array(self.runs, np.int64).reshape(-1, 2).T
        return np.repeat(codes, counts).astype(np.int8)
