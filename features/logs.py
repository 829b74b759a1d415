"""The natural logarithm as plain arithmetic, so that a loop of it is done several at a time."""

from __future__ import annotations

import numpy as np

from features.layout import jit

LN2 = 0.6931471805599453
ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
EXPONENT_BIAS = 2048
MAGIC_BITS = 0x4330000000000000
MAGIC = 4503599627370496.0
"""2**52: a small whole number in the bits below it is that number added."""


@jit
def ln(x: float) -> float:
    """log(x) of a positive normal number, to within 5e-16 + 3e-16 |log x| (tests compare with ``math.log``).

    x = 2**e m with m in [sqrt(1/2), sqrt(2)); log m by the series of the inverse hyperbolic tangent. No
    library is called: the same bits on every machine.
    """
    bits = np.float64(x).view(np.int64)
    e = (bits - ROOT_HALF_BITS) >> 52
    m = np.int64(bits - (e << 52)).view(np.float64)
    exponent = np.int64((e + EXPONENT_BIAS) | MAGIC_BITS).view(np.float64) - (MAGIC + EXPONENT_BIAS)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1 / 3 + z * (
        1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * (1 / 13 + z * (1 / 15 + z * (1 / 17))))))
    )
    return exponent * LN2 + 2.0 * (s + s * z * p)
