"""The one order in which a recording is replayed, whoever replays it."""

from __future__ import annotations

import numpy as np

from market.types import I8, I64, Books, Trades

TRADE = 0
BOOK = 1


def merge(books: Books, trades: Trades) -> tuple[I8, I64]:
    """Order the events of one instrument by receive time.

    Returns ``kind`` int8 [m] (TRADE or BOOK) and ``row`` int64 [m] (row of that table), m = both lengths. At
    equal receive times trades come first: a snapshot shows the book after the deals that it arrived with.
    Events of one table with equal times keep their order.
    """
    recv_ns = np.concatenate([trades.recv_ns, books.recv_ns])
    order = np.argsort(recv_ns, kind="stable")
    is_book = order >= len(trades)
    return is_book.astype(np.int8), np.where(is_book, order - len(trades), order).astype(np.int64)
