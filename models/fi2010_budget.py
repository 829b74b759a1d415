"""A benchmark that ends in time: every step gets some of what is left, and is stopped when it is used up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

RESERVE_SHARE = 0.04
"""Of the whole, kept for scoring and for writing the report."""

AGAIN_S = 2.0
"""How soon the bell rings again where nobody heard it: a library's callback may swallow what it raises."""


class OutOfTime(Exception):
    """The step's part of the budget is used up."""


@dataclass(slots=True)
class Budget:
    """``seconds`` from now on. ``cut``: what was stopped before its end."""

    seconds: float
    say: Callable[[str], None]
    begun: float = field(default_factory=time.monotonic)
    cut: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)

    @property
    def usable(self) -> float:
        return max(0.0, self.left - RESERVE_SHARE * self.seconds)

    @contextmanager
    def step(self, name: str, seconds: float) -> Iterator[float]:
        """Run the block for at most ``seconds``, and never longer than what is left; yields how long that is.

        A block that takes longer is stopped where Python next looks (an iteration of a learner, a batch), and
        counts as not done. Nothing is stopped outside the main thread: there the limit is only advice.
        """
        limit = min(seconds, self.usable)
        at = time.monotonic()
        if limit < 0.05:
            self.cut.append(name)
            self.say(f"{name}: left out, the time is used up")
            yield 0.0
            return
        self.say(f"{name}: at most {_minutes(limit)} of the {_minutes(self.left)} that are left")
        try:
            with _alarm(limit):
                yield limit
        except OutOfTime:
            self.cut.append(name)
            self.say(f"{name}: stopped after {_minutes(limit)}, out of time")
        finally:
            self.spent[name] = time.monotonic() - at


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    over = False

    def ring(number: int, frame: FrameType | None) -> None:
        if not over:  # it may ring once more while it is being put away
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        try:
            yield
        finally:
            over = True
    finally:  # also when it rang just before it was told
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
