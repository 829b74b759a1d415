"""The simulator's own random numbers: the Mersenne Twister of ``numpy.random.RandomState``, to the last bit.

Numba's ``np.random`` looks up the thread's generator at every call, which was a third of the simulator's
time. Here the numbers lie ready in an array: the event loop calls ``top_up`` once an event, and drawing one
is reading one.

Numba's cache of ``simulator_kernel`` does not see a change in this file: touch that one too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_N = 624
_M = 397
READY = 4096
"""Uniform numbers kept ready, at most."""
RESERVE = 1024
"""``top_up`` leaves at least so many. One event draws a few hundred at the very most."""
_POS, _END, _HAS_NORMAL, _NORMAL = READY, READY + 1, READY + 2, READY + 3
_HALF = _N // 2


@njit(cache=True)
def generator(seed: int) -> tuple[Any, Any]:
    """The twister's words uint32 [624] and the empty store float64 [READY + 4] of ``RandomState(seed)``."""
    words = np.empty(_N, np.uint32)
    words[0] = np.uint32(seed)
    for i in range(1, _N):
        last = np.uint32(words[i - 1])
        words[i] = np.uint32(np.uint32(1812433253) * (last ^ (last >> np.uint32(30))) + np.uint32(i))
    return words, np.zeros(READY + 4)


@njit(cache=True)
def _twist(upper: Any, lower: Any, other: Any) -> Any:
    y = (upper & np.uint32(0x80000000)) | (lower & np.uint32(0x7FFFFFFF))
    return other ^ (y >> np.uint32(1)) ^ ((lower & np.uint32(1)) * np.uint32(0x9908B0DF))


@njit(cache=True)
def _temper(y: Any) -> Any:
    y ^= y >> np.uint32(11)
    y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    return y ^ (y >> np.uint32(18))


@njit(cache=True)
def _refill(words: Any, store: Any) -> None:
    pos, end = int(store[_POS]), int(store[_END])
    rest = end - pos
    store[:rest] = store[pos:end]
    while rest + _HALF <= READY:
        for i in range(_N - _M):
            words[i] = _twist(words[i], words[i + 1], words[i + _M])
        for i in range(_N - _M, _N - 1):
            words[i] = _twist(words[i], words[i + 1], words[i + _M - _N])
        words[_N - 1] = _twist(words[_N - 1], words[0], words[_M - 1])
        for i in range(_HALF):
            high = _temper(words[2 * i]) >> np.uint32(5)
            low = _temper(words[2 * i + 1]) >> np.uint32(6)
            store[rest + i] = (high * 67108864.0 + low) / 9007199254740992.0
        rest += _HALF
    store[_POS], store[_END] = 0.0, rest


@njit(cache=True)
def top_up(words: Any, store: Any) -> None:
    """Fill the store when less than RESERVE is left of it."""
    if store[_END] - store[_POS] < RESERVE:
        _refill(words, store)


@njit(cache=True)
def uniform(store: Any) -> float:
    """A number of [0, 1), as ``random_sample``."""
    pos = int(store[_POS])
    store[_POS] = pos + 1
    return float(store[pos])


@njit(cache=True)
def normal(store: Any) -> float:
    """A standard normal number, as ``randn``: Marsaglia's polar method, every second one for nothing."""
    if store[_HAS_NORMAL] != 0.0:
        store[_HAS_NORMAL] = 0.0
        return float(store[_NORMAL])
    while True:
        x = 2.0 * uniform(store) - 1.0
        y = 2.0 * uniform(store) - 1.0
        r = x * x + y * y
        if 0.0 < r < 1.0:
            f = np.sqrt(-2.0 * np.log(r) / r)
            store[_NORMAL] = f * x
            store[_HAS_NORMAL] = 1.0
            return float(f * y)
