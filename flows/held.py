"""One process at a time in a folder, by a lock of the system: a holder that dies holds nothing."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, busy: Exception) -> Iterator[None]:
    """Hold the lock file ``path`` (made if absent, with its folder) inside the block; raises ``busy`` while
    another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
