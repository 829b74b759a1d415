"""How often the state cache is flushed: every second when there is little to do, every five under load."""

from __future__ import annotations

import time
from collections.abc import Callable

from live.inbox import CONFLATE_ABOVE

SHORTEST_S = 1.0
LONGEST_S = 5.0
FULL_LOAD = 0.8
"""Share of the time spent on events from which on flushing is as seldom as it gets."""


class AdaptiveFlush:
    """``interval_s`` before each flush, from the time that events took since the one before."""

    def __init__(self, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._mono_ns = mono_ns
        self._at_ns, self._busy_ns = mono_ns(), 0

    def interval_s(self, busy_ns: int, waiting: int) -> float:
        """``busy_ns``: time spent on events since the start; ``waiting``: events in the queue."""
        now_ns = self._mono_ns()
        elapsed_ns, worked_ns = now_ns - self._at_ns, busy_ns - self._busy_ns
        self._at_ns, self._busy_ns = now_ns, busy_ns
        load = worked_ns / elapsed_ns if elapsed_ns > 0 else 0.0
        if waiting > CONFLATE_ABOVE:
            load = FULL_LOAD
        return SHORTEST_S + (LONGEST_S - SHORTEST_S) * min(1.0, load / FULL_LOAD)
