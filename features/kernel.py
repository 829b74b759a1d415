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
from features.columns import (
    measure,
    write_levels,
    write_logs,
    write_moves,
    write_shape,
    write_states,
    write_tape,
)
from features.layout import (
    ACTIVITY,
    CLOCK,
    DEPTH_NOW,
    EMA,
    F32,
    F64,
    F_KEPT,
    F_SIZE,
    HAS_PREV,
    I32,
    I64,
    I_SIZE,
    JIT,
    KEPT,
    KINDS,
    MEAN_DEPTH,
    MICRO_NS,
    MID2,
    MID_EMA,
    MID_NS,
    N_ACTIVITY,
    N_COLUMNS,
    N_DECAY,
    N_EMA,
    N_MOMENTUM,
    N_NEAR,
    N_QUOTE,
    N_SIGNAL,
    NONE,
    PREV,
    QUOTE,
    SIGNAL,
    SPREAD,
    SPREAD_NS,
    VALID_NS,
    VENUE,
    WARM_FROM,
    jit,
)
from features.leader import take_quote, write_leader
from features.learnt import learn_micro_price, see_loss, see_refill, see_state
from features.moves import (
    add_flow,
    clear,
    count_levels,
    is_duplicate,
    keep_book,
    pass_time,
    remember_mids,
)
from features.schema import CROSSED, DUPLICATE, GAP, GAP_NS, INCONSISTENT, ONE_SIDED, WARMUP, WARMUP_NS
from features.tape import add_trade, pass_tape
from market.types import BOOK_CONSISTENT, DEPTH
from market.venues import VENUES

PARTS: Final = (
    "layout.py", "moves.py", "tape.py", "learnt.py", "leader.py", "logs.py", "columns.py",
)  # fmt: skip
FROZEN: Final = (
    schema.schema_hash(), repr(VENUES), GAP_NS, WARMUP_NS, DEPTH, BOOK_CONSISTENT,
    *(hashlib.sha256(Path(__file__).with_name(part).read_bytes()).hexdigest() for part in PARTS),
)  # fmt: skip
"""What the machine code takes from other files."""
FROZEN_TAG: Final = int(hashlib.sha256(repr(FROZEN).encode()).hexdigest()[:15], 16)


def new_state(kind: str | None = None) -> tuple[F64, I64]:
    """State before the first event of an instrument of ``kind``: float64 [F_SIZE] and int64 [I_SIZE].

    A kind without a usual day (None too) has no session columns.
    """
    fstate, istate = np.empty(F_SIZE), np.empty(I_SIZE, np.int64)
    clear.py_func(fstate, istate)
    fstate[:F_KEPT], istate[:KEPT] = 0.0, NONE
    if kind in KINDS:
        istate[VENUE] = KINDS.index(kind)
    return fstate, istate


WRONG_SHAPE: Final = -1
_TOUCH = SIGNAL + N_DECAY + N_NEAR
_BOOK = "float64[::1], int64[::1], int64, int32[::1], int32[::1], int32[::1], int32[::1], int64, float32[::1]"


@jit
def _see_moves(fs: F64, st: I64, now_ns: int, bid: int, ask: int, fresh: bool) -> None:
    """What the new best prices are to the old ones: spread, mid, path and quote moves."""
    mid2, spread = bid + ask, ask - bid
    if fresh or spread != st[SPREAD]:
        st[SPREAD], st[SPREAD_NS] = spread, now_ns
    if not fresh and mid2 != st[MID2]:
        path = abs(mid2 - st[MID2]) * 0.5
        for w in range(N_ACTIVITY):
            fs[ACTIVITY + w] += path
    if fresh or mid2 != st[MID2]:
        st[MID2], st[MID_NS] = mid2, now_ns
    if st[HAS_PREV]:
        was_bid, was_ask = st[PREV], st[PREV + 2 * DEPTH]
        for w in range(N_QUOTE):
            if bid != was_bid:
                fs[QUOTE + 4 * w + (0 if bid > was_bid else 1)] += 1.0
            if ask != was_ask:
                fs[QUOTE + 4 * w + (2 if ask > was_ask else 3)] += 1.0


@jit
def _begin(fs: F64, st: I64, now_ns: int) -> None:
    """The first valid book is its own mean."""
    st[WARM_FROM] = st[MICRO_NS] = now_ns
    fs[MEAN_DEPTH] = fs[DEPTH_NOW]
    for w in range(N_MOMENTUM):
        fs[MID_EMA + w] = st[MID2] * 0.5
    for w in range(N_EMA):
        for k in range(N_SIGNAL):
            fs[EMA + N_SIGNAL * w + k] = fs[SIGNAL + k]


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
    WRONG_SHAPE, and nothing else, where an array is too short.
    """
    shortest = min(min(len(bid_px), len(bid_qty)), min(len(ask_px), len(ask_qty)))
    if shortest < DEPTH or len(out) < N_COLUMNS:
        return WRONG_SHAPE
    for k in range(N_COLUMNS):
        out[k] = math.nan
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    status = 0
    if st[VALID_NS] != NONE and recv_ns - st[VALID_NS] > GAP_NS:
        clear(fs, st)
        status = GAP
    st[CLOCK] = recv_ns
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
    fresh = st[VALID_NS] == NONE
    since_ns = -1 if fresh else recv_ns - st[VALID_NS]
    pass_tape(fs, st, recv_ns)
    if not fresh:
        pass_time(fs, st, recv_ns)
    remember_mids(fs, st, recv_ns)
    st[VALID_NS] = recv_ns
    duplicate = st[HAS_PREV] != 0 and is_duplicate(st, bid_px, bid_qty, ask_px, ask_qty)
    see_refill(fs, st, recv_ns, 0, bid_px, bid_qty, n_bid)
    see_refill(fs, st, recv_ns, 1, ask_px, ask_qty, n_ask)
    if duplicate:
        status |= DUPLICATE
    else:
        measure(fs, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2)
        imbalance = fs[_TOUCH]
        if not fresh and mid2 != st[MID2]:
            learn_micro_price(fs, st, recv_ns, imbalance, spread, mid2)
        see_state(fs, imbalance, spread)
        _see_moves(fs, st, recv_ns, bid_px[0], ask_px[0], fresh)
        if st[HAS_PREV]:
            see_loss(st, recv_ns, 0, bid_px, bid_qty)
            see_loss(st, recv_ns, 1, ask_px, ask_qty)
            add_flow(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2)
        keep_book(fs, st, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask)
        if fresh:
            _begin(fs, st, recv_ns)
    write_logs(fs, st, min(n_bid, n_ask), recv_ns, out)
    write_levels(fs, out)
    write_shape(fs, bid_px, bid_qty, ask_px, ask_qty, n_bid, n_ask, mid2, out)
    write_tape(fs, st, mid2, out)
    write_moves(fs, st, out)
    write_leader(fs, st, recv_ns, out)
    write_states(fs, st, since_ns, recv_ns, out)
    return status


@njit("int64(float64[::1], int64[::1], int64, int64, int64, int64)", cache=True, **JIT)
def step_trade(fs: F64, st: I64, recv_ns: int, px: int, qty: int, side: int) -> int:
    """Take one trade: ``px`` ticks, ``qty`` lots, ``side`` of the aggressor (+1, -1, 0 unknown).

    Returns 0, or INCONSISTENT (and changes nothing) when it goes back in time.
    """
    if st[CLOCK] != NONE and recv_ns < st[CLOCK]:
        return INCONSISTENT
    st[CLOCK] = recv_ns
    pass_tape(fs, st, recv_ns)
    add_trade(fs, st, px, qty, side)
    return 0


@njit("int64(float64[::1], int64[::1], int64, int64)", cache=True, **JIT)
def step_leader(fs: F64, st: I64, recv_ns: int, mid2: int) -> int:
    """Take a quote of the leader: twice its mid in its own ticks, seen by later books only.

    Returns 0, or INCONSISTENT (and changes nothing) when it is older than the leader's last one.
    """
    return take_quote(fs, st, recv_ns, mid2)


@njit(
    "void(float64[::1], int64[::1], int8[::1], int64[::1],"
    " int64[::1], int32[:,::1], int32[:,::1], int32[:,::1], int32[:,::1], uint8[::1],"
    " int64[::1], int32[::1], int32[::1], int8[::1], int64[::1], int64[::1], float32[:,::1], uint8[::1])",
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
    leader_ns: I64,
    leader_mid2: I64,
    out: F32,
    status: NDArray[np.uint8],
) -> None:
    """The steps over merged events: ``kind`` [m] 0 = trade, 1 = book; ``row`` [m]; ``out`` [n, F].

    Quotes of the leader come before the first event that is later.
    """
    quote = 0
    for k in range(len(kind)):
        r = row[k]
        now_ns = trade_ns[r] if kind[k] == 0 else book_ns[r]
        while quote < len(leader_ns) and leader_ns[quote] < now_ns:
            step_leader(fs, st, leader_ns[quote], leader_mid2[quote])
            quote += 1
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
    for _function in (_compiled_tag, step_trade, step_leader, step_book, run):
        _any: Any = _function
        _any.recompile()
