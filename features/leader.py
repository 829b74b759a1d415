"""Another instrument that moves first: what its quotes do to a follower's state, and which quotes count.

A quote is seen by books that come strictly later by receive time. So the order of events of equal time, which
differs between a live feed and a recording, changes no row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.layout import (
    C_LEADER,
    C_MOMENTUM,
    F32,
    F64,
    I64,
    LEADER_BEFORE,
    LEADER_FROM,
    LEADER_MEAN,
    LEADER_MID2,
    LEADER_NS,
    LEADER_VARIANCE,
    N_LEADER,
    NONE,
    ROOT_LEADER,
    jit,
)
from features.schema import GAP_NS, INCONSISTENT
from market.types import BOOK_CONSISTENT, SECOND_NS, Books

VARIANCE_S = 60.0
FEWEST_NS = 20 * SECOND_NS
"""Below this the longest window is not known."""


def quote(bid_px: int, bid_qty: int, ask_px: int, ask_qty: int, flags: int) -> int | None:
    """Twice the mid of a leader's book, in its ticks; None when the book says nothing about it."""
    clean = flags & BOOK_CONSISTENT and bid_qty > 0 and ask_qty > 0 and 0 < bid_px < ask_px
    return bid_px + ask_px if clean else None


def quotes(books: Books) -> tuple[I64, I64]:
    """``quote`` of every book that has one: receive times and twice the mids, int64 [k] each."""
    bid, ask = books.bid_px[:, 0].astype(np.int64), books.ask_px[:, 0].astype(np.int64)
    clean: NDArray[np.bool_] = (
        ((books.flags & BOOK_CONSISTENT) != 0) & (books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0)
        & (bid > 0) & (bid < ask)
    )  # fmt: skip
    return books.recv_ns[clean].astype(np.int64), (bid + ask)[clean]


@jit
def _kept(dt_ns: int) -> tuple[float, float, float, float]:
    e60 = math.exp(-dt_ns * (1e-9 / VARIANCE_S))
    e20 = e60 * e60 * e60
    e5 = e20 * e20 * e20 * e20
    return e5 * e5 * e5 * e5 * e5, e5, e20, e60


@jit
def take_quote(fs: F64, st: I64, now_ns: int, mid2: int) -> int:
    """The leader's mid from now on. Returns 0, or INCONSISTENT (and changes nothing) when it goes back.

    Means and variance are those of the time before ``LEADER_NS``; ``LEADER_BEFORE`` was in force until then.
    """
    last = st[LEADER_NS]
    if last != NONE and now_ns < last:
        return INCONSISTENT
    if last == NONE or now_ns - last > GAP_NS:
        st[LEADER_FROM] = now_ns
        st[LEADER_BEFORE] = mid2
        for w in range(N_LEADER):
            fs[LEADER_MEAN + w] = mid2 * 0.5
        fs[LEADER_VARIANCE] = 0.0
    elif now_ns > last:
        e1, e5, e20, e60 = _kept(now_ns - last)
        mid, jump = st[LEADER_MID2] * 0.5, (st[LEADER_MID2] - st[LEADER_BEFORE]) * 0.5
        fs[LEADER_MEAN] = fs[LEADER_MEAN] * e1 + mid * (1.0 - e1)
        fs[LEADER_MEAN + 1] = fs[LEADER_MEAN + 1] * e5 + mid * (1.0 - e5)
        fs[LEADER_MEAN + 2] = fs[LEADER_MEAN + 2] * e20 + mid * (1.0 - e20)
        fs[LEADER_VARIANCE] = (fs[LEADER_VARIANCE] + jump * jump) * e60
        st[LEADER_BEFORE] = st[LEADER_MID2]
    st[LEADER_NS], st[LEADER_MID2] = now_ns, mid2
    return 0


@jit
def write_leader(fs: F64, st: I64, now_ns: int, out: F32) -> None:
    """The leader's columns, after momentum's."""
    age_ns = now_ns - st[LEADER_NS]
    if st[LEADER_NS] == NONE or age_ns < 0 or age_ns > GAP_NS or now_ns - st[LEADER_FROM] < FEWEST_NS:
        return
    if age_ns > 0:
        e1, e5, e20, e60 = _kept(age_ns)
        mid, jump = st[LEADER_MID2] * 0.5, (st[LEADER_MID2] - st[LEADER_BEFORE]) * 0.5
        a = fs[LEADER_MEAN] * e1 + mid * (1.0 - e1)
        b = fs[LEADER_MEAN + 1] * e5 + mid * (1.0 - e5)
        c = fs[LEADER_MEAN + 2] * e20 + mid * (1.0 - e20)
        variance = (fs[LEADER_VARIANCE] + jump * jump) * e60
    else:  # its quote of this very moment is not seen yet
        mid, variance = st[LEADER_BEFORE] * 0.5, fs[LEADER_VARIANCE]
        a, b, c = fs[LEADER_MEAN], fs[LEADER_MEAN + 1], fs[LEADER_MEAN + 2]
    sigma = math.sqrt(variance / VARIANCE_S)
    out[C_LEADER] = (mid - a) / max(1.0, sigma * ROOT_LEADER[0])
    out[C_LEADER + 1] = (mid - b) / max(1.0, sigma * ROOT_LEADER[1])
    out[C_LEADER + 2] = (mid - c) / max(1.0, sigma * ROOT_LEADER[2])
    for w in range(N_LEADER):  # momentum has a window of 250 ms before these
        out[C_LEADER + N_LEADER + w] = out[C_LEADER + w] - out[C_MOMENTUM + 1 + w]
