"""The kernel's own logarithm against the library's."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.logs import ln


@given(st.floats(1e-300, 1e300))
def test_ln_is_the_logarithm(x: float) -> None:
    assert abs(ln(x) - math.log(x)) <= 5e-16 + 3e-16 * abs(math.log(x))


def test_ln_around_one_and_at_powers_of_two() -> None:
    near = 1.0 + np.linspace(-1e-3, 1e-3, 2001)
    np.testing.assert_allclose([ln(x) for x in near], np.log(near), rtol=1e-14, atol=1e-18)
    assert ln(1.0) == 0.0
    assert all(abs(ln(2.0**k) - k * math.log(2)) <= 3e-16 * abs(k) for k in range(-900, 900))
