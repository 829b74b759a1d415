"""How fast the features are: the kernel in batch, one live step, and the same formulas in plain NumPy.

Run from the project's root: ``python bench/run.py features``. Each figure is the best of several
repetitions, so that a busy machine does not count against the code; the ratios are what to compare between
machines.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from timing import best_s

from features import plain
from features.batch import compute
from features.schema import F
from features.stream import FeatureStream
from market.simulator import SimSpec, simulate_market
from market.types import InstrumentDay, Trades

LIVE_REPETITIONS = 7
"""Short runs, many of them: the best one had a core to itself even on a busy machine."""
BATCH_ROWS = 6_000
BATCH_REPETITIONS = 100
"""Some 25 ms each: a core whose other half is busy gives a third less, and a few of them are left alone."""
PLAIN_ROWS = 500
LIVE_ROWS = 5_000
BAR_BOOKS_PER_S, BAR_STEP_US = 250_000, 10.0


def live_us(day: InstrumentDay) -> tuple[float, float]:
    """Median and 99th percentile of one ``FeatureStream.on_book``, microseconds, with the Python call."""
    books, stream, out = day.books, FeatureStream(day.instrument.kind), np.empty(F, np.float32)
    best: list[float] = []
    for _ in range(LIVE_REPETITIONS):
        stream.reset()
        times = []
        for n in range(min(LIVE_ROWS, len(books))):
            args = (
                int(books.recv_ns[n]),
                books.bid_px[n],
                books.bid_qty[n],
                books.ask_px[n],
                books.ask_qty[n],
            )
            start = time.perf_counter_ns()
            stream.on_book(*args, 1, out)
            times.append((time.perf_counter_ns() - start) / 1e3)
        if not best or statistics.median(times) < statistics.median(best):
            best = times
    return statistics.median(best), float(np.percentile(best, 99))


def first_rows(day: InstrumentDay, rows: int) -> InstrumentDay:
    """The first ``rows`` books and the trades until the last of them."""
    books = day.books.rows(slice(0, rows))
    trades = day.trades.rows(day.trades.recv_ns <= books.recv_ns[-1])
    return InstrumentDay(day.instrument, day.day, books, trades)


def bars(books_per_s: float, step_us: float) -> str:
    """The bars of the requirement beside what was just measured."""
    rate, step = books_per_s >= BAR_BOOKS_PER_S, step_us <= BAR_STEP_US
    return (
        f"bars: {BAR_BOOKS_PER_S:,} books/s {'met' if rate else 'NOT met'}, "
        f"{BAR_STEP_US:g} us a step {'met' if step else 'NOT met'}"
    )


def main() -> None:
    start = time.perf_counter()
    day = simulate_market([SimSpec("SIMA")], hours=1.0)[0][0]
    print(f"simulated market        {len(day.books):,} books of 20 levels, {len(day.trades):,} trades "
          f"({time.perf_counter() - start:.1f} s)")  # fmt: skip
    day = first_rows(day, BATCH_ROWS)
    compute(day)
    quiet = InstrumentDay(day.instrument, day.day, day.books, Trades.empty())
    # Of one core's time: who else wants the core does not count against the kernel.
    full_s, books_s = (
        best_s(lambda d=d: compute(d), BATCH_REPETITIONS, time.process_time) for d in (day, quiet)
    )
    n = len(day.books)
    print(f"batch, books only       {n / books_s:12,.0f} books/s per core ({F} features)")
    per_book = len(day.trades) / n
    print(f"batch, books and trades {n / full_s:12,.0f} books/s per core ({per_book:.1f} trades a book)")
    median_us, p99_us = live_us(day)
    print(f"live, one book          {median_us:12.1f} us median, {p99_us:.1f} us p99, with the Python call")
    short = first_rows(day, PLAIN_ROWS)
    plain_s = best_s(lambda: plain.features(short), 1, time.process_time)
    kernel_s = best_s(lambda: compute(short), BATCH_REPETITIONS, time.process_time)
    print(f"plain NumPy             {PLAIN_ROWS / plain_s:12,.0f} books/s, the same {F} features")
    print(bars(n / full_s, median_us))
    print(f"ratio  kernel batch : plain NumPy  {plain_s / kernel_s:8,.0f} x")
    print(f"ratio  kernel live  : plain NumPy  {plain_s / PLAIN_ROWS * 1e6 / median_us:8,.0f} x")


if __name__ == "__main__":
    main()
