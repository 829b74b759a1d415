"""What several simulated instruments have in common: a fair value that reaches each at its own time.

Instrument ``i`` is pulled towards ``sigma * (sqrt(rho) * C(t - lag_i) + sqrt(1 - rho) * O_i(t))``: ``C`` is
one random walk for all, ``O_i`` one of its own. Orders lean to the side of that value (the kernel's
``pull``), so the mid follows it within seconds. Over long spans two mids correlate by about ``rho`` times
what of their variance the value explains; over short ones the instrument with the smaller lag leads. Measure
both with ``market.stylised.lead_lag``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError
from market.types import SECOND_NS

STEP_NS = 50_000_000
"""The value's own grid, the same whatever the books' one is; lags are resolved to it."""
MAX_LAG_S = 60.0
_DAY_STEPS = 86_400 * SECOND_NS // STEP_NS
_LAG_STEPS = round(MAX_LAG_S * SECOND_NS) // STEP_NS


@dataclass(frozen=True, slots=True)
class Common:
    """The shared fair value and how strongly it pulls."""

    rho: float = 0.8
    """Correlation of two instruments' fair values, at the difference of their lags."""
    sigma: float = 1.5
    """Ticks that a fair value moves in a second (standard deviation)."""
    flow: float = 0.8
    book: float = 0.8
    """Tilt of market and of limit orders per tick between the fair value and the mid."""
    cap_ticks: float = 6.0
    """A larger distance pulls no stronger."""

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ConfigError(f"the correlation rho of fair values is between 0 and 1, not {self.rho!r}")
        if not (self.sigma >= 0 and self.cap_ticks > 0):
            raise ConfigError(
                f"a fair value's sigma is at least 0 and its cap_ticks above 0, not {self.sigma!r} and "
                f"{self.cap_ticks!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def value(
        self, of_day_ns: NDArray[np.int64], lag_s: float, common_seed: int, own_seed: int
    ) -> NDArray[np.float64]:
        """One instrument's fair value at these moments (nanoseconds after midnight), ticks from the first
        one, float64 [n]."""
        if not 0 <= lag_s <= MAX_LAG_S:
            raise ConfigError(f"a lag behind the others is 0 to {MAX_LAG_S:g} s, not {lag_s!r}")
        at = of_day_ns // STEP_NS + _LAG_STEPS
        lag = round(lag_s * SECOND_NS) // STEP_NS
        walk = np.sqrt(self.rho) * _walk(common_seed)[at - lag] + np.sqrt(1 - self.rho) * _walk(own_seed)[at]
        return np.asarray(self.sigma * (walk - walk[0]))


def _walk(seed: int) -> NDArray[np.float64]:
    """A random walk of unit variance per second, over the day and the longest lag before it."""
    steps = np.random.default_rng(seed).standard_normal(_DAY_STEPS + _LAG_STEPS)
    return np.cumsum(steps * np.sqrt(STEP_NS / SECOND_NS))
