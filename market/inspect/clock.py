"""Two clocks: when the exchange says that something happened, and when it arrived here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.inspect.stats import Quantiles, slope
from market.types import I64, MILLISECOND_NS, SECOND_NS

BINS = 120
MIN_IN_BIN = 5
MIN_BINS = 8
HOUR_NS = 3_600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Skew:
    """Receive time minus exchange time, ns, over the rows that have both.

    ``rows`` of which ``known`` have an exchange time of their own: not 0 and not a copy of the receive time.
    ``resolution_ns``: of the exchange's stamps (1 s, 1 ms, 1 us or 1 ns). ``negative``: arrived before they
    happened. ``drift_ns_per_hour``: by how much the two clocks move apart, from the lowest delays of each
    bin, with ``drift_error_ns`` as the usual distance from that line; None when the span is too short.
    ``time_ns``, ``low_ns``, ``middle_ns``, ``high_ns``: 5 %, 50 % and 95 % of the delays by bins of time.
    """

    rows: int
    known: int
    resolution_ns: int
    delay_ns: Quantiles | None
    negative: int
    drift_ns_per_hour: float | None
    drift_error_ns: float
    time_ns: tuple[int, ...]
    low_ns: tuple[int, ...]
    middle_ns: tuple[int, ...]
    high_ns: tuple[int, ...]

    @property
    def negative_share(self) -> float:
        return self.negative / self.known if self.known else 0.0


def skew(exch_ns: I64, recv_ns: I64) -> Skew | None:
    """None without rows."""
    if not len(recv_ns):
        return None
    given = exch_ns != 0
    if not (exch_ns[given] != recv_ns[given]).any():  # a copy everywhere: the source knew one time only
        given[:] = False
    if not given.any():
        return Skew(len(recv_ns), 0, 0, None, 0, None, 0.0, (), (), (), ())
    exch_ns, recv_ns = exch_ns[given], recv_ns[given]
    delay = recv_ns - exch_ns
    time_ns, low, middle, high = _by_bins(recv_ns, delay)
    drift, error = None, 0.0
    if len(time_ns) >= MIN_BINS:
        steep, error = slope(np.array(time_ns, np.float64) / HOUR_NS, np.array(low, np.float64))
        drift = steep
    return Skew(
        len(given), len(delay), _resolution(exch_ns), Quantiles.of(delay), int((delay < 0).sum()),
        drift, error, time_ns, low, middle, high,
    )  # fmt: skip


def _resolution(exch_ns: I64) -> int:
    for step in (SECOND_NS, MILLISECOND_NS, 1_000):
        if not (exch_ns % step).any():
            return step
    return 1


def _by_bins(recv_ns: I64, delay: I64) -> tuple[tuple[int, ...], ...]:
    bin_ns = int(recv_ns[-1] - recv_ns[0]) // BINS + 1
    which = (recv_ns - recv_ns[0]) // bin_ns
    rows = []
    for i in range(BINS):
        held = delay[np.searchsorted(which, i) : np.searchsorted(which, i + 1)]
        if len(held) >= MIN_IN_BIN:
            quantiles = np.quantile(held, (0.05, 0.5, 0.95)).astype(np.int64).tolist()
            rows.append((int(recv_ns[0]) + i * bin_ns + bin_ns // 2, *quantiles))
    return tuple(zip(*rows, strict=True)) if rows else ((), (), (), ())
