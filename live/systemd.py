"""Word to systemd: ready, stopping, and a watchdog that is fed by progress, not by being alive.

A process whose event loop turns may still be doing nothing of use. So the watchdog's sign of life goes out
only while every mark of progress moves: events the engine has worked through, status files written, records
on the disk. What stands still for longer than ``WatchdogSec`` has the unit restarted; the new process goes on
from the checkpoint. A quiet market moves the marks too (the timer is an event), and a dead connection is the
heartbeat's business: a restart would not cure it.

Without ``NOTIFY_SOCKET`` (no systemd, or ``Type=`` other than ``notify``) nothing here does anything.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

Marks = Mapping[str, int]
"""Counters by name; each is expected to grow from one look to the next."""
LOOKS_PER_PERIOD = 3
MAX_STATUS_CHARS = 200


class Systemd:
    """``tell`` never raises: nobody may stop trading because a socket is gone."""

    def __init__(self, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        meant_for = environment.get("WATCHDOG_PID", "")
        ours = not meant_for or meant_for == str(os.getpid() if pid is None else pid)
        period_us = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(period_us) / 1e6 if ours and path and period_us.isdigit() else 0.0
        """The period of the unit's watchdog, seconds; 0: there is none."""
        self._over = False

    def tell(self, *lines: str) -> None:
        """Sends assignments such as ``READY=1``."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.setblocking(False)
                way.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # systemd is told again in a moment; if it never hears, it restarts us, as it should

    def ready(self, status: str) -> None:
        """The start is over: from now on the watchdog counts."""
        self.tell("READY=1", f"STATUS={_one_line(status)}")

    def stopping(self, status: str) -> None:
        """From now on only the unit's ``TimeoutStopSec`` counts."""
        self._over = True
        self.tell("STOPPING=1", f"STATUS={_one_line(status)}")

    async def watch(self, marks: Callable[[], Marks], status: Callable[[], str] = str) -> None:
        """Feeds the watchdog while every mark moves between two looks; a task of the session."""
        if not self.watchdog_s:
            return
        before = marks()
        while True:
            await asyncio.sleep(self.watchdog_s / LOOKS_PER_PERIOD)
            if self._over:
                return
            now = marks()
            still = [name for name, value in now.items() if value == before.get(name)]
            before = now
            if still:
                self.tell(f"STATUS=no progress: {', '.join(still)}")
            else:
                self.tell("WATCHDOG=1", f"STATUS={_one_line(status())}")

    async def wait(self) -> None:
        """Feeds the watchdog while there is nothing to do but wait (``system.startup_time``)."""
        while self.watchdog_s:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / LOOKS_PER_PERIOD)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_STATUS_CHARS]
