"""Markets for the tests of recordings: any numbers at all, and the writer fed with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from market.days import moscow_day
from market.recording import Recording, write_recording
from market.recording.log import UNFINISHED
from market.types import DEPTH, OWN_KINDS, SECOND_NS, Books, Instrument, InstrumentDay, OwnEvents, Trades
from market.writer import RecordingWriter

SHARE = Instrument("u-1", "AAAA", "TQBR", "F000000000AA", "share", 10, 10_000_000, 100_000_000, name="Имя")
FUTURE = Instrument("u-2", "RTS-3.26", "SPBFUT", "F000000000BB", "future", 1, 10**10, 6_550_000_000)
DAY = "2026-01-15"
T0 = 1_768_460_400 * SECOND_NS
"""10:00 in Moscow on DAY."""
FACTS: dict[str, Any] = {
    "source": "test", "watermark": "SIMULATED", "tariff": "simulated", "provenance": {"seed": 1},
}  # fmt: skip


def market(
    seed: int, *, books: int = 50, trades: int = 30, own: int = 0, instrument: Instrument = SHARE,
    start_ns: int = T0, step_ns: int = 100_000_000,
) -> InstrumentDay:  # fmt: skip
    """Any numbers, at growing times from ``start_ns``."""
    rng = np.random.default_rng(seed)
    i32 = np.iinfo(np.int32)

    def wide(*shape: int) -> Any:
        return rng.integers(i32.min, i32.max, shape, np.int32, endpoint=True)

    def times(n: int) -> Any:
        return start_ns + np.arange(n) * step_ns

    levels = [wide(books, DEPTH) for _ in range(4)]
    events = None
    if own:
        ids = np.array([f"id-{k}" for k in range(own)], np.object_)
        events = OwnEvents(
            times(own), rng.integers(0, len(OWN_KINDS), own).astype(np.uint8), ids,
            rng.choice([-1, 1], own).astype(np.int8), wide(own), wide(own), rng.integers(0, 1 << 60, own),
        )  # fmt: skip
    return InstrumentDay(
        instrument,
        moscow_day(start_ns).name,
        Books(times(books) - 7, times(books), *levels, rng.integers(0, 256, books).astype(np.uint8)),
        Trades(
            times(trades) - 9, times(trades), wide(trades), wide(trades),
            rng.integers(-1, 2, trades).astype(np.int8),
        ),
        events,
    )  # fmt: skip


def feed(writer: RecordingWriter, day: InstrumentDay) -> None:
    """Row by row."""
    b, t, o = day.books, day.trades, day.own
    for k in range(len(b)):
        levels = [side[k].tolist() for side in (b.bid_px, b.bid_qty, b.ask_px, b.ask_qty)]
        writer.book(day.instrument, int(b.exch_ns[k]), int(b.recv_ns[k]), *levels, int(b.flags[k]))
    for k in range(len(t)):
        numbers = (int(column[k]) for column in (t.exch_ns, t.recv_ns, t.px, t.qty, t.side))
        writer.trade(day.instrument, *numbers)
    for k in range(len(o) if o is not None else 0):
        assert o is not None
        numbers = (int(column[k]) for column in (o.side, o.px, o.qty, o.fee_nano))
        writer.own(
            day.instrument, int(o.event_ns[k]), OWN_KINDS[o.kind[k]], str(o.client_order_id[k]), *numbers
        )


def writer(path: Path, **changes: Any) -> RecordingWriter:
    return RecordingWriter(path, **{**FACTS, **changes})


def whole(path: Path, *days: InstrumentDay) -> Recording:
    return write_recording(path, days, **FACTS)


def killed(work: RecordingWriter, at: Path) -> Path:
    """What a kill of the process would leave now, as another folder."""
    work.flush()
    shutil.copytree(work.path, at)
    return at


def only_log(path: Path) -> Path:
    (log,) = (path / UNFINISHED).glob("*.log")
    return log


def assert_same(a: InstrumentDay, b: InstrumentDay) -> None:
    """Bit for bit."""
    assert a.instrument == b.instrument
    assert a.day == b.day
    assert (a.own is None) == (b.own is None)
    for one, other in ((a.books, b.books), (a.trades, b.trades), (a.own, b.own)):
        for name in one.__slots__ if one is not None else ():
            x, y = getattr(one, name), getattr(other, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
