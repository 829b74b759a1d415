"""A book of price levels, replayed from changes: one kernel for every source that sends changes.

A side's levels are kept in one sorted array with the best level last, so that changes near the touch move
few elements.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from market.errors import RecordingError
from market.importers.fixed import INT32_MAX
from market.types import DEPTH, I8, I32, I64

EITHER = 0
"""A change that removes the price on whichever side holds it."""
CLEAR = 2
"""A change that empties the book."""
_CHUNK = 1 << 16


@njit(cache=True)
def _change(keys: I64, sizes: I64, n: int, key: int, size: int, relative: bool) -> tuple[int, int]:
    """Set or add to one level; returns the count of levels and the level's new size."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    found = low < n and keys[low] == key
    if found and relative:
        size += sizes[low]
    if size > 0:
        if not found:
            for i in range(n, low, -1):
                keys[i] = keys[i - 1]
                sizes[i] = sizes[i - 1]
            keys[low] = key
            n += 1
        sizes[low] = size
    elif found:
        for i in range(low, n - 1):
            keys[i] = keys[i + 1]
            sizes[i] = sizes[i + 1]
        n -= 1
    return n, size


@njit(cache=True)
def _replay(
    keys: I64, sizes: I64, counts: I64, side: I8, px: I64, size: I64, at: int, ends: I64,
    first: int, stop: int, relative: bool, exclusive: bool, out_px: I32, out_size: I32,
) -> tuple[int, int]:  # fmt: skip
    """Apply changes from row ``at`` and write one snapshot at each of ``ends[first:stop]``. ``keys``,
    ``sizes``: [2, c]; ``out_px``, ``out_size``: [2, k, DEPTH]. Returns how many sizes fell below zero, and
    the largest size."""
    negative, largest = 0, 0
    for row in range(first, stop):
        while at < ends[row]:
            code = side[at]
            if code == 2:
                counts[0] = counts[1] = 0
            else:
                for which in range(2):
                    sign = 1 - 2 * which
                    if code == sign:
                        counts[which], left = _change(
                            keys[which], sizes[which], counts[which], sign * px[at], size[at], relative
                        )
                        if left < 0:
                            negative += 1
                        largest = max(largest, left)
                    elif code == 0 or (exclusive and size[at] > 0):
                        counts[which], left = _change(
                            keys[which], sizes[which], counts[which], sign * px[at], 0, False
                        )
            at += 1
        for which in range(2):
            sign = 1 - 2 * which
            for j in range(min(20, counts[which])):
                at_level = counts[which] - 1 - j
                out_px[which, row, j] = sign * keys[which, at_level]
                out_size[which, row, j] = min(sizes[which, at_level], 2_147_483_647)
    return negative, largest


class LevelBook:
    """Both sides of one instrument. ``relative``: sizes are differences, else new totals (0 removes).
    ``exclusive``: a price belongs to one side, so a size on one side removes it from the other."""

    def __init__(self, *, relative: bool = False, exclusive: bool = False) -> None:
        self.relative, self.exclusive = relative, exclusive
        self.negative = 0
        """How many changes would have made a size negative; such a level is removed."""
        self._counts = np.zeros(2, np.int64)
        self._keys = np.zeros((2, 1024), np.int64)
        self._sizes = np.zeros((2, 1024), np.int64)

    def clear(self) -> None:
        self._counts[:] = 0

    def replay(self, side: I8, px: I64, size: I64, ends: I64) -> tuple[I32, I32, I32, I32]:
        """Apply changes and take a snapshot after ``ends[i]`` of them.

        ``side`` int8 [m]: BUY, SELL, EITHER or CLEAR; ``px`` (ticks) and ``size`` (lots) int64 [m]; ``ends``
        int64 [k], growing, at most m. Returns bid_px, bid_qty, ask_px, ask_qty, int32 [k, DEPTH].
        RecordingError when a price or a level's size does not fit 32 bits.
        """
        if len(px) and (px.min() < -INT32_MAX or px.max() > INT32_MAX):
            raise RecordingError("a price is beyond 32 bits in ticks; choose a larger tick (--tick)")
        # One memory layout, whatever the source cut its columns from: one compiled kernel.
        px, size, ends = (np.ascontiguousarray(values, np.int64) for values in (px, size, ends))
        side = np.ascontiguousarray(side, np.int8)
        out_px = np.zeros((2, len(ends), DEPTH), np.int32)
        out_size = np.zeros_like(out_px)
        row = at = 0
        while row < len(ends):
            stop = max(row + 1, int(np.searchsorted(ends, at + _CHUNK, side="right")))
            self._reserve(int(self._counts.max()) + int(ends[stop - 1]) - at + 1)
            negative, largest = _replay(
                self._keys, self._sizes, self._counts, side, px, size, at, ends, row, stop,
                self.relative, self.exclusive, out_px, out_size,
            )  # fmt: skip
            if largest > INT32_MAX:
                raise RecordingError(
                    f"a level of {largest:,} lots does not fit 32 bits; choose a larger lot (--size-step)"
                )
            self.negative += negative
            at, row = int(ends[stop - 1]), stop
        return out_px[0], out_size[0], out_px[1], out_size[1]

    def _reserve(self, levels: int) -> None:
        if levels <= self._keys.shape[1]:
            return
        for name in ("_keys", "_sizes"):
            grown = np.zeros((2, 2 * levels), np.int64)
            old = getattr(self, name)
            grown[:, : old.shape[1]] = old
            setattr(self, name, grown)
