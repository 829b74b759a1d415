"""A timer that is on time: asyncio's own rounds every wait up to the next whole millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

_MONOTONIC = 1
_NANO = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Calls ``ring`` once, a given time after ``set``; setting it again replaces what was set.

    Linux's timerfd where there is one (Python has it from 3.13 on), the loop's timer elsewhere.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._descriptor = -1
        if self._libc is not None:
            self._descriptor = self._libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    def set(self, wait_s: float) -> None:
        """``wait_s`` above 0."""
        if self._descriptor < 0 or self._libc is None:
            self.cancel()
            self._handle = self._loop.call_later(wait_s, self._ring)
            return
        self._settime(max(1, int(wait_s * _NANO)))

    def cancel(self) -> None:
        if self._descriptor >= 0:
            self._settime(0)
        elif self._handle is not None:
            self._handle.cancel()

    def close(self) -> None:
        self.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _settime(self, wait_ns: int) -> None:
        assert self._libc is not None
        timer = _Timer(_Timespec(0, 0), _Timespec(*divmod(wait_ns, _NANO)))
        self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(timer), None)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was set anew since
            os.read(self._descriptor, 8)
            self._ring()
