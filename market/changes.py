"""How much happens in a book: the unit in which the size of a recording on disk is measured."""

from __future__ import annotations

import numpy as np

from market.types import I32, I64, Books

_CHUNK_ROWS = 8192


def changed_levels(books: Books) -> I64:
    """Changed levels per book, int64 [n]; rows are compared with the row before, as they are recorded.

    A changed level is a (side, price) whose size differs between a book and the one before it, where a price
    that is not among the recorded levels of that side has size 0. So a price that enters or leaves the
    recorded window counts once, a price whose size changed counts once, one that only moved to another place
    in the list does not count. Every level of the first book counts.
    """
    return _changed(books.bid_px, books.bid_qty) + _changed(books.ask_px, books.ask_qty)


def _changed(px: I32, qty: I32) -> I64:
    n = len(px)
    changed = np.zeros(n, np.int64)
    changed[:1] = np.count_nonzero(qty[:1], axis=1)
    for start in range(1, n, _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, n)
        now, before = slice(start, stop), slice(start - 1, stop - 1)
        here, there = qty[now] != 0, qty[before] != 0
        same_price = (px[now][:, :, None] == px[before][:, None, :]) & here[:, :, None] & there[:, None, :]
        same_size = same_price & (qty[now][:, :, None] == qty[before][:, None, :])
        new_or_other = here & ~same_size.any(axis=2)
        gone = there & ~same_price.any(axis=1)
        changed[now] = np.count_nonzero(new_or_other, axis=1) + np.count_nonzero(gone, axis=1)
    return changed
