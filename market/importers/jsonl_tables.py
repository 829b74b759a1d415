"""The lines of an export as tables again, block by block, so that a day needs the memory of its arrays."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.days import moscow_day
from market.recording.info import RecordingInfo
from market.types import DEPTH, Books, InstrumentDay, OwnEvents, Trades

BLOCK = 4_096
"""So many lines are Python objects at once."""
TRADE_KEYS = ("exch_ns", "recv_ns", "px", "qty", "side")
OWN_KEYS = ("event_ns", "kind", "side", "px", "qty", "fee_nano")


class BadLine(ValueError):
    """A line of the file holds something else than it should. ``number``: which line."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


def _whole(values: list[Any], width: int) -> NDArray[np.int64] | None:
    """``values`` as int64 [n, width], None if they are not n rows of so many whole numbers of 64 bits."""
    try:
        if values and set(map(len, values)) != {width}:
            return None
        block = np.array(list(chain.from_iterable(values)) if values else np.empty(0, np.int64))
    except (TypeError, OverflowError):
        return None
    return block.reshape(-1, width) if block.dtype == np.int64 else None


class _Numbers:
    """Rows of ``width`` whole numbers."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._waiting: list[list[int]] = []
        self._lines: list[int] = []
        self._blocks: list[NDArray[np.int64]] = [np.empty((0, width), np.int64)]

    def add(self, number: int, row: list[int]) -> None:
        self._waiting.append(row)
        self._lines.append(number)
        if len(self._waiting) == BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            block = _whole(self._waiting, self._width)
            if block is None:
                bad = next(i for i, row in enumerate(self._waiting) if _whole([row], self._width) is None)
                raise BadLine(self._lines[bad], f"{self._waiting[bad]} are not whole numbers of 64 bits")
            self._blocks.append(block)
            self._waiting, self._lines = [], []

    def table(self) -> NDArray[np.int64]:
        self._flush()
        return np.concatenate(self._blocks)


class _Side:
    """Levels of one side of the books: ``[[price, size], ...]`` of each."""

    def __init__(self) -> None:
        self._waiting: list[list[list[int]]] = []
        self._lines: list[int] = []
        self._px, self._qty = [np.empty((0, DEPTH), np.int32)], [np.empty((0, DEPTH), np.int32)]

    def add(self, number: int, levels: list[list[int]]) -> None:
        if len(levels) > DEPTH:
            raise ValueError(f"{len(levels)} levels; a recording has {DEPTH}")
        self._waiting.append(levels)
        self._lines.append(number)
        if len(self._waiting) == BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        counts = np.array([len(levels) for levels in self._waiting])
        flat = _whole([pair for levels in self._waiting for pair in levels], 2)
        if flat is None:
            bad = next(i for i, levels in enumerate(self._waiting) if _whole(levels, 2) is None)
            raise BadLine(self._lines[bad], "a level is not a price and a size, both whole numbers")
        row = np.repeat(np.arange(len(counts)), counts)
        level = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        px, qty = np.zeros((2, len(counts), DEPTH), np.int32)
        px[row, level], qty[row, level] = _narrow(flat[:, 0], np.int32), _narrow(flat[:, 1], np.int32)
        self._px.append(px)
        self._qty.append(qty)
        self._waiting, self._lines = [], []

    def tables(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        self._flush()
        return np.concatenate(self._px), np.concatenate(self._qty)


def _narrow(values: NDArray[np.int64], kind: Any) -> NDArray[Any]:
    limits = np.iinfo(kind)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError(f"a value is beyond {limits.bits} bits")
    return values.astype(kind)


class _Day:
    """One instrument's day in the making."""

    def __init__(self) -> None:
        self.heads, self.bids, self.asks = _Numbers(3), _Side(), _Side()
        self.trades, self.own, self.own_ids = _Numbers(len(TRADE_KEYS)), _Numbers(len(OWN_KEYS)), list[str]()

    def finished(self, info: RecordingInfo, ticker: str, day: str) -> InstrumentDay:
        exch_ns, recv_ns, flags = (np.ascontiguousarray(c) for c in self.heads.table().T)
        books = Books(exch_ns, recv_ns, *self.bids.tables(), *self.asks.tables(), _narrow(flags, np.uint8))
        exch, recv, px, qty, side = (np.ascontiguousarray(c) for c in self.trades.table().T)
        trades = Trades(exch, recv, _narrow(px, np.int32), _narrow(qty, np.int32), _narrow(side, np.int8))
        own = None
        if day in info.own.get(ticker, ()):
            event_ns, kind, side, px, qty, fee = (np.ascontiguousarray(c) for c in self.own.table().T)
            own = OwnEvents(
                event_ns, _narrow(kind, np.uint8), np.array(self.own_ids, np.object_), _narrow(side, np.int8),
                _narrow(px, np.int32), _narrow(qty, np.int32), fee,
            )  # fmt: skip
        return InstrumentDay(info.instrument(ticker), day, books, trades, own)


class Days:
    """Sorts the lines into days and hands each day on when a later one begins."""

    def __init__(self, info: RecordingInfo) -> None:
        self._info = info
        self._open: dict[str, dict[str, _Day]] = {
            ticker: {day: _Day() for day in days} for ticker, days in info.days.items()
        }
        self._latest = ""
        self._done = ""

    def add(self, number: int, event: dict[str, Any]) -> list[InstrumentDay]:
        """Take one line; returns the days that it shows to be complete. ValueError, KeyError or TypeError
        when it is not one, BadLine when an earlier one was not."""
        kind, ticker = event["type"], event["ticker"]
        name = self._day(ticker, event["event_ns"] if kind == "own" else event["recv_ns"])
        ready: list[InstrumentDay] = []
        if name > self._latest:
            ready = list(self._finish(name))
            self._latest = name
        if name <= self._done:
            raise ValueError(f"an event of {name} after a later day")
        day = self._open[ticker][name]
        if kind == "book":
            day.heads.add(number, [event["exch_ns"], event["recv_ns"], event["flags"]])
            day.bids.add(number, event["bids"])
            day.asks.add(number, event["asks"])
        elif kind == "trade":
            day.trades.add(number, [event[key] for key in TRADE_KEYS])
        elif kind == "own":
            day.own.add(number, [event[key] for key in OWN_KEYS])
            day.own_ids.append(str(event["client_order_id"]))
        else:
            raise ValueError(f"unknown type {kind!r}")
        return ready

    def rest(self) -> Iterator[InstrumentDay]:
        yield from self._finish("~")

    def _day(self, ticker: str, at_ns: int) -> str:
        """The recorded day of an event: the last one that does not lie after its Moscow day, since a session
        may run past midnight."""
        days = self._info.days[ticker]
        if len(days) == 1:
            return days[0]
        name = moscow_day(at_ns).name
        earlier = [day for day in days if day <= name]
        return earlier[-1] if earlier else days[0]

    def _finish(self, before: str) -> Iterator[InstrumentDay]:
        """Everything before the day ``before``."""
        for ticker, days in self._open.items():
            for name in [name for name in days if name < before]:
                self._done = max(self._done, name)
                yield days.pop(name).finished(self._info, ticker, name)
