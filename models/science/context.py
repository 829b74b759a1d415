"""The kernel's columns as the study takes them: what is *odd* in a mirror that swaps buyers and sellers, and
what is *even*.

That is a fact about markets that a learner need not be taught: direction is an odd function of a book,
activity an even one. ``features.schema`` declares it of every column; pairs that change places in the mirror
enter as difference and sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.batch import compute
from features.schema import FEATURES, MIRROR_PARTNER, MIRROR_SIGN, NAMES
from market.types import InstrumentDay

F32 = NDArray[np.float32]

LEFT_OUT = frozenset(
    {
        *(spec.name for spec in FEATURES if spec.seasonal or spec.name.startswith("leader_")),
        *("vol_300s", "bipower_300s"),
        *("slope_bid", "slope_ask", "cost_buy", "cost_sell"),
    }
)
"""Within one day the time of day and the slow volatilities only say which hour it is; these recordings have
no leader; of slopes and costs the kernel has difference and sum, or what comes near it, already."""


@dataclass(frozen=True, slots=True)
class Columns:
    """``odd`` float32 [n, k], ``even`` float32 [n, m] (NaN = masked) and their names."""

    odd: F32
    even: F32
    odd_names: tuple[str, ...]
    even_names: tuple[str, ...]

    def rows(self, selection: NDArray[np.bool_] | slice) -> Columns:
        return Columns(self.odd[selection], self.even[selection], self.odd_names, self.even_names)


def columns(day: InstrumentDay) -> Columns:
    """The features of every book of ``day``, odd and even."""
    X = compute(day).X
    odd: dict[str, F32] = {}
    even: dict[str, F32] = {}
    for k, name in enumerate(NAMES):
        partner = int(MIRROR_PARTNER[k])
        if name in LEFT_OUT or partner < k:
            continue
        if partner == k:
            (odd if MIRROR_SIGN[k] < 0 else even)[name] = X[:, k]
        else:
            odd[f"{name}-{NAMES[partner]}"] = X[:, k] - X[:, partner]
            even[f"{name}+{NAMES[partner]}"] = X[:, k] + X[:, partner]
    return Columns(
        np.stack(list(odd.values()), axis=1), np.stack(list(even.values()), axis=1), tuple(odd), tuple(even)
    )
