"""The one stopwatch of the measurements."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_s(
    work: Callable[[], object],
    repetitions: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Shortest of ``repetitions`` runs, seconds: the others were disturbed.

    ``clock``: ``time.process_time`` counts only what this process computed.
    """
    times = []
    for _ in range(repetitions):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)
