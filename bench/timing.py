"""The one stopwatch of the measurements."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_s(work: Callable[[], object], repetitions: int = 5) -> float:
    """Shortest of ``repetitions`` runs, seconds: the others were disturbed."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
