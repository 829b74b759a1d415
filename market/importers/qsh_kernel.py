"""The byte decoder of QSH version 4: frames of quotes, deals, auxiliary data and order-log records.

It stops when an output is full and goes on where it stopped, so that the memory needed does not depend on
the file. Layouts: see ``qsh_format``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from market.types import I64, U8

DONE, FULL, CUT, LONG, NO_STREAM, NO_COUNT = range(6)
"""Answers of ``decode``. CUT: the bytes end inside a frame. LONG: a number of more than ten bytes. NO_STREAM:
a frame of a stream that the header does not list. NO_COUNT: more level changes than bytes are left."""

QUOTES, DEALS, AUX_INFO, ORDER_LOG = 0x10, 0x20, 0x60, 0x70
GROWING_ESCAPE = 268_435_455

STATE_COLUMNS = 10
"""What a stream carries from frame to frame, in the order in which the kernel names it."""
FRAME_COLUMNS, CHANGE_COLUMNS, DEAL_COLUMNS, AUX_COLUMNS, ORDER_COLUMNS = 3, 2, 9, 11, 11


@njit(cache=True)
def _uleb(data: U8, at: Any) -> tuple[Any, Any]:
    """An unsigned LEB128 number and where the next byte is; -CUT or -LONG there when it is damaged."""
    value, shift = np.int64(0), 0
    while True:
        if at >= len(data):
            return 0, -2
        if shift > 63:
            return 0, -3
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


@njit(cache=True)
def _sleb(data: U8, at: Any) -> tuple[Any, Any]:
    start = at
    value, at = _uleb(data, at)
    if at > 0:
        shift = 7 * (at - start)
        if shift < 64 and data[at - 1] & 64:
            value -= np.int64(1) << shift
    return value, at


@njit(cache=True)
def _grown(data: U8, at: Any, last: Any) -> tuple[Any, Any]:
    """A growing number: an unsigned increment, or after the escape a signed one."""
    step, at = _uleb(data, at)
    if step == GROWING_ESCAPE and at > 0:
        step, at = _sleb(data, at)
    return last + step, at


@njit(cache=True)
def _fixed(data: U8, at: Any) -> tuple[Any, Any]:
    """Eight bytes, least significant first."""
    if at + 8 > len(data):
        return 0, -2
    value = np.int64(0)
    for i in range(8):
        value |= np.int64(data[at + i]) << (8 * i)
    return value, at + 8


@njit(cache=True)
def decode(
    data: U8, place: I64, kinds: U8, states: I64,
    frames: I64, changes: I64, deals: I64, aux: I64, orders: I64, filled: I64,
) -> int:  # fmt: skip
    """Decode frames into the outputs (int64 [columns, capacity]) and count them in ``filled`` int64 [5], in
    the order of the arguments. ``place`` = [byte, frame time in .NET ms, changes that the next frame needs].

    On anything but DONE and FULL ``place[0]`` is the first byte of the frame that is damaged. Columns:
    frames: stream, ms, end of its changes; changes: price, size; deals: stream, ms, exchange ms, side, id,
    order id, price, volume, open interest; aux: stream, ms, exchange ms, ask total, bid total, open interest,
    price, high limit, low limit, deposit, rate (the last two are the bits of a float64); orders: stream, ms,
    exchange ms, flags, order id, price, amount, rest, deal id, deal price, open interest.
    """
    nf, nc, nd, na, no = 0, 0, 0, 0, 0
    status = DONE
    at: Any = place[0]
    ms: Any = place[1]
    while at < len(data):
        if nf == frames.shape[1] or nd == deals.shape[1] or na == aux.shape[1] or no == orders.shape[1]:
            status = FULL
            break
        start: Any = at
        now: Any = ms
        stream: Any = 0
        now, at = _grown(data, at, now)
        if at < 0:
            break
        if len(kinds) > 1:
            if at >= len(data):
                at = -2
                break
            stream = np.int64(data[at])
            at += 1
            if stream >= len(kinds):
                at = -4
                break
        kind, s = kinds[stream], states[stream]
        if kind == QUOTES:
            count, at = _sleb(data, at)
            if at < 0:
                break
            if count < 0 or count > (len(data) - at) // 2:
                at = -5
                break
            if nc + count > changes.shape[1]:
                place[2] = count
                status = FULL
                at = start
                break
            for _ in range(count):
                step, at = _sleb(data, at)
                if at < 0:
                    break
                s[0] += step
                size, at = _sleb(data, at)
                if at < 0:
                    break
                changes[0, nc] = s[0]
                changes[1, nc] = size
                nc += 1
            if at < 0:
                break
            frames[0, nf] = stream
            frames[1, nf] = now
            frames[2, nf] = nc
            nf += 1
        elif kind == DEALS:
            if at >= len(data):
                at = -2
                break
            mask = data[at]
            at += 1
            if mask & 4:
                s[0], at = _grown(data, at, s[0])
            if mask & 8 and at > 0:
                s[1], at = _grown(data, at, s[1])
            for bit in range(4):
                if mask & (16 << bit) and at > 0:
                    step, at = _sleb(data, at)
                    s[2 + bit] = step if bit == 2 else s[2 + bit] + step
            if at < 0:
                break
            deals[0, nd] = stream
            deals[1, nd] = now
            deals[2, nd] = s[0]
            deals[3, nd] = mask & 3
            for column in range(5):
                deals[4 + column, nd] = s[1 + column]
            nd += 1
        elif kind == AUX_INFO:
            if at >= len(data):
                at = -2
                break
            mask = data[at]
            at += 1
            if mask & 1:
                s[0], at = _grown(data, at, s[0])
            for bit in range(4):
                if mask & (2 << bit) and at > 0:
                    step, at = _sleb(data, at)
                    s[1 + bit] += step
            if mask & 32 and at > 0:
                s[5], at = _sleb(data, at)
                if at > 0:
                    s[6], at = _sleb(data, at)
                if at > 0:
                    s[7], at = _fixed(data, at)
            if mask & 64 and at > 0:
                s[8], at = _fixed(data, at)
            if mask & 128 and at > 0:
                length, at = _uleb(data, at)
                if at > 0:
                    at = -2 if length < 0 or length > len(data) - at else at + length
            if at < 0:
                break
            aux[0, na] = stream
            aux[1, na] = now
            for column in range(9):
                aux[2 + column, na] = s[column]
            na += 1
        else:
            if at + 3 > len(data):
                at = -2
                break
            mask = data[at]
            flags = np.int64(data[at + 1]) | np.int64(data[at + 2]) << 8
            at += 3
            if mask & 1:
                s[0], at = _grown(data, at, s[0])
            order = s[1]
            if mask & 2 and at > 0:
                if flags & 4:
                    s[1], at = _grown(data, at, s[1])
                    order = s[1]
                else:
                    step, at = _sleb(data, at)
                    order = s[1] + step
            if mask & 4 and at > 0:
                step, at = _sleb(data, at)
                s[2] += step
            if mask & 8 and at > 0:
                s[3], at = _sleb(data, at)
            if flags & 8:
                if mask & 16 and at > 0:
                    s[4], at = _sleb(data, at)
                if mask & 32 and at > 0:
                    s[5], at = _grown(data, at, s[5])
                if mask & 64 and at > 0:
                    step, at = _sleb(data, at)
                    s[6] += step
                if mask & 128 and at > 0:
                    step, at = _sleb(data, at)
                    s[7] += step
            if at < 0:
                break
            orders[0, no] = stream
            orders[1, no] = now
            orders[2, no] = s[0]
            orders[3, no] = flags
            orders[4, no] = order
            orders[5, no] = s[2]
            orders[6, no] = s[3]
            fill = flags & 8
            for column in range(4):
                orders[7 + column, no] = s[4 + column] if fill else 0
            no += 1
        ms = now
    if at < 0:
        status = -at
        at = start
    place[0], place[1] = at, ms
    filled[0], filled[1], filled[2], filled[3], filled[4] = nf, nc, nd, na, no
    return status
