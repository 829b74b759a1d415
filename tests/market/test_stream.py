"""The replay order: by receive time, trades before books, and otherwise as recorded."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market.stream import BOOK, TRADE, merge
from market.types import Books, Trades

times = st.lists(st.integers(0, 12), max_size=30)


def tables(book_ns: list[int], trade_ns: list[int]) -> tuple[Books, Trades]:
    books, trades = Books.empty(len(book_ns)), Trades.empty(len(trade_ns))
    books.recv_ns[:] = book_ns
    trades.recv_ns[:] = trade_ns
    return books, trades


@given(times, times)
def test_the_order_is_by_time_then_trades_then_as_recorded(book_ns: list[int], trade_ns: list[int]) -> None:
    kind, row = merge(*tables(book_ns, trade_ns))
    assert kind.dtype == np.int8 and row.dtype == np.int64
    expected = [(ns, TRADE, i) for i, ns in enumerate(trade_ns)] + [
        (ns, BOOK, i) for i, ns in enumerate(book_ns)
    ]
    assert list(zip(kind.tolist(), row.tolist(), strict=True)) == [(k, i) for _, k, i in sorted(expected)]


def test_a_trade_precedes_the_book_it_arrived_with() -> None:
    kind, row = merge(*tables([5, 5, 7], [5, 6]))
    assert kind.tolist() == [TRADE, BOOK, BOOK, TRADE, BOOK]
    assert row.tolist() == [0, 0, 1, 1, 2]
