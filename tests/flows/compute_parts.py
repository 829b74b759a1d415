"""Work that ends its worker, for tests of what becomes of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flows.compute_features import Made, Part, build


def build_after_a_death(asked: tuple[Part, str]) -> tuple[Made, int]:
    """``build``; but the first process that comes to it with this note is killed before it has begun."""
    part, note = asked
    try:
        Path(note).touch(exist_ok=False)
    except FileExistsError:
        return build(part)[0], os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def always_die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number
