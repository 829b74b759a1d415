"""One answer from a worker's thread to the event loop: waited for on the spot for a moment, else later.

Handing work over and taking its answer in the same turn costs two changes of thread, some 25 us. Through the
loop's own queue it would wait for whatever the loop does meanwhile and for the interpreter's lock, which a
busy loop gives up every few milliseconds only.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Handoff:
    """``done`` is called once, by the worker; ``future`` belongs to the loop that made this."""

    __slots__ = ("_decided", "_error", "_loop", "_ready", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()
        self._error: BaseException | None = None
        self._ready = threading.Lock()
        self._ready.acquire()
        self._decided = threading.Lock()
        """Taken by the worker: the answer is fetched. Taken by the loop: the answer has to be brought."""

    def done(self, error: BaseException | None) -> None:
        """The worker's word: it is done, or what went wrong."""
        self._error = error
        if self._decided.acquire(blocking=False):
            self._ready.release()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle)

    def wait(self, patience_s: float) -> bool:
        """Holds the loop's thread, for at most ``patience_s``, until the answer is in ``future``; False: it
        comes later.
        """
        if patience_s <= 0.0 or not self._ready.acquire(timeout=patience_s):
            if self._decided.acquire(blocking=False):
                return False
            self._ready.acquire()  # the worker was faster by a hair
        self._settle()
        return True

    def _settle(self) -> None:
        if self.future.done():
            return
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self._error)
