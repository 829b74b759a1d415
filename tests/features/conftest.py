"""Simulated days: a clean one, and one with everything that a real feed does wrong."""

from __future__ import annotations

import numpy as np
import pytest

from market.simulator import SimSpec, simulate_market
from market.types import SECOND_NS, Books, InstrumentDay, Trades


@pytest.fixture(scope="session")
def clean_day() -> InstrumentDay:
    """Six minutes at 0.25 s, 20 levels."""
    return simulate_market([SimSpec("SIMA")], hours=0.1, seed=7)[0][0]


@pytest.fixture(scope="session")
def dirty_day() -> InstrumentDay:
    """Half an hour with two gaps and crossed, one-sided, inconsistent, shallow and repeated books."""
    day = simulate_market([SimSpec("SIMF", "LARGE", kind="future")], hours=0.5, seed=8)[0][0]
    books = day.books.rows(np.arange(len(day.books)))
    rng = np.random.default_rng(3)
    kinds = rng.choice(7, len(books), p=[0.9, 0.02, 0.01, 0.02, 0.02, 0.01, 0.02])
    books.bid_px[kinds == 1, 0] = books.ask_px[kinds == 1, 0] + 1
    books.bid_px[kinds == 2, 0] = books.ask_px[kinds == 2, 0]
    books.ask_qty[kinds == 3] = 0
    books.flags[kinds == 4] = 0
    books.bid_qty[kinds == 5, 4:] = 0
    for n in np.flatnonzero(kinds == 6):
        _repeat(books, int(n))
    late = books.recv_ns >= books.recv_ns[3000]
    books.recv_ns[late] += 45 * SECOND_NS
    later = books.recv_ns >= books.recv_ns[6000]
    books.recv_ns[later] += 11 * SECOND_NS
    return InstrumentDay(day.instrument, day.day, books, day.trades)


def _repeat(books: Books, n: int) -> None:
    for name in ("bid_px", "bid_qty", "ask_px", "ask_qty"):
        column = getattr(books, name)
        column[n] = column[n - 1]


@pytest.fixture
def still_day(clean_day: InstrumentDay) -> InstrumentDay:
    """Five minutes of one and the same book, 0.5 s apart, without trades."""
    books = clean_day.books.rows(np.zeros(600, int))
    books.recv_ns[:] = clean_day.books.recv_ns[0] + np.arange(600) * (SECOND_NS // 2)
    return InstrumentDay(clean_day.instrument, clean_day.day, books, Trades.empty())
