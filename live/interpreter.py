"""How the interpreter is set while the engine trades: garbage is collected between events and not in the
middle of one, and a thread that the engine let in gives the interpreter back soon.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SWITCH_S = 0.0005
"""For so long a thread (checkpoint, database, status) may keep the engine waiting; Python's own is ten times
that.
"""
YOUNG, MIDDLE, OLD = 2_000, 10, 20
"""Objects made since the last look, looks since the last at the middle generation, those since the last at
all that is not frozen: from so many on there is a look when nothing waits.
"""
HURRY = 20
"""So many times as much garbage is not put off any longer."""


@contextmanager
def trading() -> Iterator[Callable[[bool], None]]:
    """Gives ``tidy(idle)``, to be called after every event. Everything is as it was when this is left."""
    was_enabled, interval_s = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield tidy
    finally:
        sys.setswitchinterval(interval_s)
        if was_enabled:
            gc.enable()


def tidy(idle: bool) -> None:
    """Collects what is due. ``idle``: no event waits."""
    young, middle, old = gc.get_count()
    if young < YOUNG or not (idle or young > HURRY * YOUNG):
        return
    gc.collect(2 if old >= OLD else 1 if middle >= MIDDLE else 0)
