"""A MOEX order log (every order, every deal) as 20-level books and trades.

A book is taken where a transaction ends (TxEnd): inside one the log shows an aggressive order beside what it
will hit. An order's amount is added by Add and taken away by every other record; a deal's two Fill records
make one trade, and the aggressor is the order that came later.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from market.errors import RecordingError
from market.importers import qsh_format as qsh
from market.importers.clock import last_of_each
from market.importers.fixed import INT32_MAX, narrow
from market.importers.levels import CLEAR, LevelBook
from market.types import BOOK_CONSISTENT, BUY, SELL, Books, Trades


def counts(log: qsh.OrderLog) -> dict[str, int]:
    """What the log holds, by flag."""
    flags = log.flags

    def having(flag: int) -> int:
        return int(np.count_nonzero(flags & flag))

    fill = flags & qsh.FILL != 0
    return {
        "records": len(flags),
        "flow_starts": having(qsh.FLOW_START),
        "snapshot_records": having(qsh.SNAPSHOT),
        "adds": having(qsh.ADD),
        "fills": having(qsh.FILL),
        "deals": len(np.unique(log.deal_id[fill])),
        "cancels": having(qsh.CANCELED),
        "group_cancels": having(qsh.CANCELED_GROUP),
        "moved": having(qsh.MOVED),
        "non_system": having(qsh.NON_SYSTEM),
        "records_before_flow_start": int(np.argmax(flags & qsh.FLOW_START != 0))
        if having(qsh.FLOW_START)
        else len(flags),
    }


def books(log: qsh.OrderLog, every_ns: int = 0) -> tuple[Books, dict[str, int]]:
    """One book per transaction (the last of each ``every_ns``, if given), and counts of the rebuild.

    A book of the opening snapshot, or before the first FlowStart, is not complete: its flag says so.
    """
    flags = log.flags
    if len(log.lots) and np.abs(log.lots).max() > INT32_MAX:
        raise RecordingError("an order of the log is beyond 32 bits in lots")
    on_book = (flags & qsh.NON_SYSTEM == 0) & (log.px > 0) & (flags & (qsh.IS_BUY | qsh.IS_SELL) != 0)
    start = flags & qsh.FLOW_START != 0
    # Each record becomes one change; a FlowStart puts one more, which empties the book, before its record.
    at = np.arange(len(flags)) + np.cumsum(start)
    total = len(flags) + int(start.sum())
    side = np.full(total, CLEAR, np.int8)
    px, size = np.zeros(total, np.int64), np.zeros(total, np.int64)
    side[at] = np.where(flags & qsh.IS_BUY != 0, BUY, SELL)
    px[at] = log.px
    size[at] = np.where(on_book, np.where(flags & qsh.ADD != 0, log.lots, -log.lots), 0)
    ends = np.flatnonzero((flags & qsh.TX_END != 0) & (flags & qsh.NON_SYSTEM == 0))
    ends = ends[last_of_each(log.recv_ns[ends], every_ns)]
    book = LevelBook(relative=True)
    levels = book.replay(side, px, size, at[ends] + 1)
    complete = (flags[ends] & qsh.SNAPSHOT == 0) & (np.cumsum(start)[ends] > 0)
    out = Books(
        log.exch_ns[ends], log.recv_ns[ends], *levels, np.where(complete, BOOK_CONSISTENT, 0).astype(np.uint8)
    )
    return out, {"books": len(ends), "negative_sizes": book.negative}


def trades(log: qsh.OrderLog) -> tuple[Trades, dict[str, Any]]:
    """The deals of the log in their order. A fill of the snapshot (a deal of an earlier session) is none."""
    fill = (log.flags & qsh.FILL != 0) & (log.flags & (qsh.SNAPSHOT | qsh.NON_SYSTEM) == 0)
    fill &= (log.deal_px > 0) & (log.deal_id != 0)
    rows = np.flatnonzero(fill)
    _, first, group, sizes = np.unique(
        log.deal_id[rows], return_index=True, return_inverse=True, return_counts=True
    )
    # The later order of each deal: sort by deal, then by order number; the last of each group is it.
    ordered = rows[np.lexsort((log.order_id[rows], group))]
    later = ordered[np.cumsum(sizes) - 1] if len(rows) else rows
    side = np.where(log.flags[later] & qsh.IS_BUY != 0, BUY, SELL).astype(np.int8)
    alone = (sizes == 1) & (log.flags[later] & qsh.COUNTER == 0)
    side[alone] = 0
    in_order = np.argsort(first)
    head, side = rows[first][in_order], side[in_order]
    out = Trades(
        log.exch_ns[head], log.recv_ns[head], narrow(log.deal_px[head], "deal prices"),
        narrow(log.lots[head], "deal sizes"), side,
    )  # fmt: skip
    return out, {"trades": len(head), "trades_of_one_side_only": int(np.count_nonzero(sizes == 1))}
