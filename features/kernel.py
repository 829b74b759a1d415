"""The one feature kernel: ``step_book`` and ``step_trade`` move the state by one event; ``run`` is a loop
over them.

The whole state of one instrument is two flat arrays (``new_state``), so that saving it is copying them.
Nothing is allocated in a step. Batch and live call the same machine code, so their rows are equal to the bit.
``layout`` says what lies where, ``moves`` what an event does to the state, ``columns`` what a row says.

Time is ``recv_ns``: what we could have known. Windows are exponential, decayed by true elapsed time, never by
the number of events. Rejected books (crossed, one-sided, inconsistent) leave no trace but the passing of
time.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features import schema
from features.columns import write_flows, write_shape, write_times
from features.layout import (
    CLOCK,
    DEPTH_NOW,
    F32,
    F64,
    F_SIZE,
    HAS_PREV,
    I32,
    I64,
    I_SIZE,
    INTENSITY,
    JIT,
    LAST_TRADE,
    MEAN_DEPTH,
    MID2,
    MID_NS,
    N_COLUMNS,
    N_TRADE,
    NONE,
    SPREAD,
    SPREAD_NS,
    TRADE,
    VALID_NS,
    WARM_FROM,
)
from features.moves import add_flow, advance, clear, count_levels, is_duplicate, keep_book, remember_mids
from features.schema import CROSSED, DUPLICATE, GAP, GAP_NS, INCONSISTENT, ONE_SIDED, WARMUP, WARMUP_NS
from market.types import BOOK_CONSISTENT, DEPTH

PARTS: Final = ("layout.py", "moves.py", "columns.py")
FROZEN: Final = (
    schema.schema_hash(), GAP_NS, WARMUP_NS, DEPTH, BOOK_CONSISTENT,
    *(hashlib.sha256(Path(__file__).with_name(part).read_bytes()).hexdigest() for part in PARTS),
)  # fmt: skip
"""What the machine code takes from other files."""
FROZEN_TAG: Final = int(hashlib.sha256(repr(FROZEN).encode()).hexdigest()[:15], 16)


def new_state() -> tuple[F64, I64]:
    """State before the first event: float64 [F_SIZE] and int64 [I_SIZE]."""
    fstate, istate = np.empty(F_SIZE), np.empty(I_SIZE, np.int64)
    clear.py_func(fstate, istate)
    istate[CLOCK] = NONE
    return fstate, istate


_BOOK = "float64[::1], int64[::1], int64, int32[::1], int32[::1], int32[::1], int32[::1], int64, float32[::1]"


@njit(f"int64({_BOOK})", cache=True, **JIT)
def step_book(
    fs: F64,
    st: I64,
    recv_ns: int,
    bid_px: I32,
    bid_qty: I32,
    ask_px: I32,
    ask_qty: I32,
    flags: int,
    out: F32,
) -> int:
    """Take one snapshot, write one row.

    ``fs``, ``st``: the state, changed in place. ``bid_px`` .. ``ask_qty``: int32 [DEPTH], best first, absent
    = size 0. ``flags``: ``Books.flags``. ``out``: float32 [F], all NaN when the book is rejected. Returns the
    status bits of ``features.schema``. A row that goes back in time is INCONSISTENT and changes nothing.
    """
    for k in range(N_COLUMNS):
        out[k] = math.nan
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    status = 0
    if st[VALID_NS] != NONE and recv_ns - st[VALID_NS] > GAP_NS:
        clear(fs, st)
        status = GAP
    advance(fs, st, recv_ns)
    if st[WARM_FROM] == NONE or recv_ns - st[WARM_FROM] < WARMUP_NS:
        status |= WARMUP
    n_bid, n_ask = count_levels(bid_px, bid_qty, -1), count_levels(ask_px, ask_qty, 1)
    if not flags & BOOK_CONSISTENT or n_bid < 0 or n_ask < 0:
        st[HAS_PREV] = 0  # what was missed is unknown, so the next snapshot has nothing to be compared with
        return status | INCONSISTENT
    if n_bid == 0 or n_ask == 0:
        return status | ONE_SIDED
    if bid_px[0] >= ask_px[0]:
        return status | CROSSED

    mid2, spread = bid_px[0] + ask_px[0], ask_px[0] - bid_px[0]
    remember_mids(fs, st, recv_ns)
    fresh = st[VALID_NS] == NONE
    if fresh:
        st[WARM_FROM] = recv_ns
    if fresh or spread != st[SPREAD]:
        st[SPREAD], st[SPREAD_NS] = spread, recv_ns
    if fresh or mid2 != st[MID2]:
        st[MID2], st[MID_NS] = mid2, recv_ns
    st[VALID_NS] = recv_ns
    if st[HAS_PREV] and is_duplicate(st, bid_px, bid_qty, ask_px, ask_qty):
        status |= DUPLICATE
    else:
        if st[HAS_PREV]:
            add_flow(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2)
        keep_book(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask)
        if fresh:
            fs[MEAN_DEPTH] = fs[DEPTH_NOW]
    write_flows(fs, min(n_bid, n_ask), out)
    write_shape(fs, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2, out)
    write_times(fs, st, recv_ns, out)
    return status


@njit("int64(float64[::1], int64[::1], int64, int64, int64, int64)", cache=True, **JIT)
def step_trade(fs: F64, st: I64, recv_ns: int, px: int, qty: int, side: int) -> int:
    """Take one trade: ``px`` ticks, ``qty`` lots, ``side`` of the aggressor (+1, -1, 0 unknown).

    Returns 0, or INCONSISTENT (and changes nothing) when it goes back in time.
    """
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    advance(fs, st, recv_ns)
    st[LAST_TRADE] = px
    if side != 0:
        s = 0 if side > 0 else 1
        for w in range(N_TRADE):
            fs[TRADE + 2 * w + s] += qty
        fs[INTENSITY + s] += 1.0
        fs[INTENSITY + 2 + s] += 1.0
    return 0


@njit(
    "void(float64[::1], int64[::1], int8[::1], int64[::1],"
    " int64[::1], int32[:,::1], int32[:,::1], int32[:,::1], int32[:,::1], uint8[::1],"
    " int64[::1], int32[::1], int32[::1], int8[::1], float32[:,::1], uint8[::1])",
    cache=True,
    **JIT,
)
def run(
    fs: F64,
    st: I64,
    kind: NDArray[np.int8],
    row: I64,
    book_ns: I64,
    bid_px: I32,
    bid_qty: I32,
    ask_px: I32,
    ask_qty: I32,
    flags: NDArray[np.uint8],
    trade_ns: I64,
    trade_px: I32,
    trade_qty: I32,
    trade_side: NDArray[np.int8],
    out: F32,
    status: NDArray[np.uint8],
) -> None:
    """The steps over merged events: ``kind`` [m] 0 = trade, 1 = book; ``row`` [m]; ``out`` [n, F]."""
    for k in range(len(kind)):
        r = row[k]
        if kind[k] == 0:
            step_trade(fs, st, trade_ns[r], trade_px[r], trade_qty[r], trade_side[r])
        else:
            status[r] = step_book(
                fs, st, book_ns[r], bid_px[r], bid_qty[r], ask_px[r], ask_qty[r], flags[r], out[r]
            )


@njit("int64()", cache=True, **JIT)
def _compiled_tag() -> int:
    return FROZEN_TAG


# Numba's cache watches this file only, while the column numbers come from schema.py and the formulas from
# PARTS: cached machine code of another schema would write into other columns. The tag frozen into it tells.
if _compiled_tag() != FROZEN_TAG:
    for _function in (_compiled_tag, step_trade, step_book, run):
        _any: Any = _function
        _any.recompile()
