"""Latency histograms of bounded size: eight buckets per doubling, percentiles right within about 9 %."""

from __future__ import annotations

import math
from collections.abc import Mapping

_PER_DOUBLING = 8
_BUCKETS = 8 * 32


class Histogram:
    """Microseconds."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.n = 0
        self.sum_us = 0
        self.worst_us = 0

    def add(self, micros: int) -> None:
        bucket = int(math.log2(micros) * _PER_DOUBLING) if micros > 1 else 0
        self._counts[bucket if bucket < _BUCKETS else -1] += 1
        self.n += 1
        self.sum_us += micros
        if micros > self.worst_us:
            self.worst_us = micros

    def below(self) -> list[tuple[int, int]]:
        """(microseconds, how many took less), for every doubling up to the worst; a snapshot."""
        edges, seen = [], 0
        for doubling in range(0, _BUCKETS, _PER_DOUBLING):
            seen += sum(self._counts[doubling : doubling + _PER_DOUBLING])
            edges.append((2 ** (doubling // _PER_DOUBLING + 1), seen))
        return edges

    def percentile_us(self, fraction: float) -> int:
        """Upper edge of the bucket in which the fraction lies; 0 without measurements."""
        wanted, seen = fraction * self.n, 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(self.worst_us, math.ceil(2 ** ((bucket + 1) / _PER_DOUBLING)))
        return 0


class Latencies:
    """One histogram per stage."""

    def __init__(self) -> None:
        self._stages: dict[str, Histogram] = {}

    def add(self, stage: str, micros: int) -> None:
        histogram = self._stages.get(stage)
        if histogram is None:
            histogram = self._stages[stage] = Histogram()
        histogram.add(micros)

    def add_ns(self, stage: str, nanos: int) -> None:
        self.add(stage, nanos // 1000)

    def stages(self) -> Mapping[str, Histogram]:
        return dict(self._stages)

    def summary(self) -> Mapping[str, dict[str, int]]:
        return {
            stage: {
                "n": h.n,
                "p50_us": h.percentile_us(0.5),
                "p99_us": h.percentile_us(0.99),
                "max_us": h.worst_us,
            }
            for stage, h in sorted(self._stages.items())
        }
