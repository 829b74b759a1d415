"""The simulator's own random numbers: the Mersenne Twister of ``numpy.random.RandomState``, to the last bit.

Numba's ``np.random`` looks up the thread's generator at every call, which was a third of the simulator's
time. Here the numbers lie ready in an array: the event loop calls ``top_up`` once an event, and drawing one
is reading one.

Numba's cache of ``simulator_kernel`` does not see a change in this file: touch that one too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_N = 624
_M = 397
READY = 4096
"""Uniform numbers kept ready, at most."""
RESERVE = 1024
"""``top_up`` leaves at least so many. One event draws a few hundred at the very most."""
_POS, _END, _HAS_NORMAL = 0, 1, 2
_NORMAL = READY
_HALF = _N // 2
_TWO_53 = 2.0**53

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
loop: Any = njit(**_OPTIONS)
"""Without Numba's counting of references, whose atomic steps were a fifth of the simulator's time: what is
marked so creates no array and owns none of those that it is given."""


@loop
def faded(x: Any) -> Any:
    """exp(-x), x >= 0. The time between two events is nearly always so short against the times in which
    things fade that ten terms of the series are exact to the last bit or the one before it: a third of the
    time of a call of the library's ``exp``, and the same on every machine."""
    if x > 0.1:
        return np.exp(-x)
    tail = x * (1 / 120 - x * (1 / 720 - x * (1 / 5040 - x * (1 / 40320 - x * (1 / 362880)))))
    return 1 - x * (1 - x * (0.5 - x * (1 / 6 - x * (1 / 24 - tail))))


class Ready(NamedTuple):
    """Numbers in store and how far they are used up: the position is a whole number of its own, since a
    float's way to an index and back is most of the time that drawing takes."""

    store: NDArray[np.float64]
    at: NDArray[np.int64]
    raw: NDArray[np.uint32]


@njit(cache=True)
def generator(seed: int) -> tuple[Any, Any]:
    """The twister's words uint32 [624] and the empty store of ``RandomState(seed)``."""
    words = np.empty(_N, np.uint32)
    words[0] = np.uint32(seed)
    for i in range(1, _N):
        last = np.uint32(words[i - 1])
        words[i] = np.uint32(np.uint32(1812433253) * (last ^ (last >> np.uint32(30))) + np.uint32(i))
    return words, Ready(np.zeros(READY + 1), np.zeros(3, np.int64), np.zeros(_N, np.uint32))


@loop
def _twist(upper: Any, lower: Any, other: Any) -> Any:
    y = np.uint32((upper & np.uint32(0x80000000)) | (lower & np.uint32(0x7FFFFFFF)))
    return other ^ (y >> np.uint32(1)) ^ (np.uint32(0x9908B0DF) if lower & np.uint32(1) else np.uint32(0))


@loop
def _temper(y: Any) -> Any:
    y = np.uint32(y ^ (y >> np.uint32(11)))
    y = np.uint32(y ^ ((y << np.uint32(7)) & np.uint32(0x9D2C5680)))
    y = np.uint32(y ^ ((y << np.uint32(15)) & np.uint32(0xEFC60000)))
    return np.uint32(y ^ (y >> np.uint32(18)))


@loop
def _next_words(words: Any) -> None:
    # Unsigned indices and one simple loop each: so the compiler does several words at a time.
    one, ahead, behind = np.uint64(1), np.uint64(_M), np.uint64(_N - _M)
    for i in range(behind):
        words[i] = np.uint32(_twist(words[i], words[i + one], words[i + ahead]))
    for i in range(ahead - one):
        j = i + behind
        words[j] = np.uint32(_twist(words[j], words[j + one], words[i]))
    words[_N - 1] = np.uint32(_twist(words[_N - 1], words[0], words[_M - 1]))


@loop
def _refill(words: Any, ready: Any) -> None:
    store, at, raw = ready.store, ready.at, ready.raw
    rest = at[_END] - at[_POS]
    for i in range(rest):
        store[i] = store[at[_POS] + i]
    while rest + _HALF <= READY:
        _next_words(words)
        for i in range(np.uint64(_N)):
            raw[i] = _temper(words[i])
        for i in range(np.uint64(_HALF)):
            high = np.int32(raw[np.uint64(2) * i] >> np.uint32(5))
            low = np.int32(raw[np.uint64(2) * i + np.uint64(1)] >> np.uint32(6))
            store[np.uint64(rest) + i] = (high * 67108864.0 + low) / _TWO_53
        rest += _HALF
    at[_POS], at[_END] = 0, rest


@loop
def top_up(words: Any, ready: Any) -> None:
    """Fill the store when less than RESERVE is left of it."""
    if ready.at[_END] - ready.at[_POS] < RESERVE:
        _refill(words, ready)


@loop
def uniform(ready: Any) -> float:
    """A number of [0, 1), as ``random_sample``."""
    pos = ready.at[_POS]
    ready.at[_POS] = pos + 1
    return float(ready.store[np.uint64(pos)])


@loop
def normal(ready: Any) -> float:
    """A standard normal number, as ``randn``: Marsaglia's polar method, every second one for nothing."""
    if ready.at[_HAS_NORMAL] != 0:
        ready.at[_HAS_NORMAL] = 0
        return float(ready.store[_NORMAL])
    while True:
        x = 2.0 * uniform(ready) - 1.0
        y = 2.0 * uniform(ready) - 1.0
        r = x * x + y * y
        if 0.0 < r < 1.0:
            f = np.sqrt(-2.0 * np.log(r) / r)
            ready.store[_NORMAL] = f * x
            ready.at[_HAS_NORMAL] = 1
            return float(f * y)
