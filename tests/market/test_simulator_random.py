"""The simulator's random numbers are NumPy's, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from market.simulator_random import READY, generator, normal, top_up, uniform


@njit
def _draw(seed: int, kinds: Any) -> Any:
    words, store = generator(seed)
    out = np.empty(len(kinds))
    for i in range(len(kinds)):
        top_up(words, store)
        out[i] = normal(store) if kinds[i] else uniform(store)
    return out


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1])
def test_the_stream_is_that_of_numpy(seed: int) -> None:
    kinds = np.random.default_rng(seed).random(3 * READY) < 0.4
    numpy = np.random.RandomState(seed)
    expected = [numpy.randn() if kind else numpy.random_sample() for kind in kinds]
    np.testing.assert_array_equal(_draw(seed, kinds), expected)
