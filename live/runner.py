"""The runner: one process, one event loop, one queue, one engine.

Producers post events into the inbox; the engine loop takes them in order of arrival. Every task is
supervised: one that fails stops trading with an audit line, a notice, the halt flag for the next start, and
a non-zero exit.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from live import config as configuration
from live import ending, outside
from live.config_schema import RunnerConfig
from live.notify import Notifier
from live.session import Options, Session
from live.systemd import Systemd
from live.tasks import Tasks
from live.watch import RunnerLock
from market.errors import ScalperError

__all__ = ["ComponentFailed", "Options", "Runner"]


CLOCK_LOOK_S = 30.0
"""So often a start that waits for the clock says so, and looks whether that was set."""


class ComponentFailed(ScalperError):
    """A part of the runner died; trading was stopped and the process ends."""

    exit_code = 1


class Runner:
    """``await run()`` once; the result is the exit code. ``session`` holds the parts."""

    def __init__(self, config: RunnerConfig, options: Options) -> None:
        self.config, self.options = config, options
        self._stop_reason = ""
        self._signals = 0
        self._stopping = asyncio.Event()
        self._systemd = Systemd()
        self.session: Session | None = None

    async def run(self) -> int:
        """Trades until asked to stop or the recording ends. Raises ScalperError for expected failures."""
        with ExitStack() as stack:
            stack.callback(RunnerLock.of_folder(Path(self.config.system.runtime_dir)).release)
            mode = "shadow" if self.options.shadow else self.config.system.mode
            notifier = Notifier(
                self.config.notifications, prefix=f"[{mode}] ", timezone=self.config.session.timezone,
                language=self.config.system.language,
            )  # fmt: skip
            stack.callback(notifier.close)
            session = self.session = Session(self.config, self.options, notifier)
            stack.callback(session.audit.close)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal, number)
            try:
                await self._wait_for_start(session)
                if self._stop_reason:
                    return 0
                if not await session.prepare(stack, self._wait_for_clock):
                    return 0
                return await self._trade(session, stack)
            finally:
                if session.child is not None:
                    await session.child.stop()

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            # Asked twice: leave at once. Orders and positions stay at the broker; the next start takes them
            # over.
            if self.session is not None and self.session.child is not None:
                self.session.child.kill()
            os._exit(128 + number)
        self.request_stop(f"{signal.Signals(number).name} received")

    def request_stop(self, reason: str) -> None:
        """Graceful stop: cancel orders, flatten if configured, save, close."""
        if not self._stop_reason:
            self._stop_reason = reason
            self._stopping.set()

    async def _wait_for_start(self, session: Session) -> None:
        wanted = self.config.system.startup_time
        if wanted is None:
            return
        wait = configuration.seconds_until(wanted, self.config.session.timezone)
        if not wait:
            return
        words = f"waiting until {wanted} {self.config.session.timezone} ({wait:.0f} s)"
        session.audit_line("SESSION", "STARTUP_PLANNED", startup_time=wanted, seconds=round(wait))
        session.notifier.send(f"STARTUP_PLANNED: {words}")
        session.say(words)
        await self._pause(wait, words)
        event = "STARTUP_CANCELLED" if self._stop_reason else "STARTUP_TIME_REACHED"
        session.audit_line("SESSION", event, startup_time=wanted, reason=self._stop_reason or "-")
        session.notifier.send(f"{event}: {self._stop_reason or wanted}")

    async def _wait_for_clock(self, session: Session) -> bool:
        """Until the checkpoint is no longer from ahead of the clock; False when asked to stop meanwhile.

        A clock that ran ahead and was set back mends itself: a refusal would leave a position to nobody.
        """
        seconds = session.clock_behind_s()
        if not seconds:
            return True
        words = (
            f"the checkpoint is from ahead of the clock: waiting until that has caught up ({seconds:.0f} s)"
        )
        session.audit_line("SESSION", "CLOCK_WAIT", seconds=round(seconds))
        session.notifier.send(f"CLOCK_WAIT: {words}")
        while seconds and not self._stop_reason:
            session.say(f"waiting for the clock to reach the checkpoint ({seconds:.0f} s)")
            await self._pause(min(seconds, CLOCK_LOOK_S), words)
            seconds = session.clock_behind_s()
        event = "STARTUP_CANCELLED" if self._stop_reason else "CLOCK_WAIT_OVER"
        session.audit_line("SESSION", event, reason=self._stop_reason or "-")
        session.notifier.send(f"{event}: {self._stop_reason or 'going on from the checkpoint'}")
        return not self._stop_reason

    async def _pause(self, seconds: float, words: str) -> None:
        """Waits, or until asked to stop. For systemd the start is over: that has its time-out."""
        self._systemd.ready(words)
        alive = asyncio.create_task(self._systemd.wait())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        alive.cancel()

    async def _trade(self, session: Session, stack: ExitStack) -> int:
        failure: BaseException | None = None
        gc.collect()
        gc.freeze()  # what lives for ever is never looked at again by the collector
        session.announce()
        self._systemd.ready(session.reporter.headline())
        outside.open_to(session, stack)
        try:
            async with asyncio.TaskGroup() as group:
                session.group = group
                bodies = Tasks(session, self.request_stop).bodies()
                bodies["systemd"] = self._systemd.watch(session.progress_marks, session.reporter.progress)
                tasks = [group.create_task(body, name=name) for name, body in bodies.items()]
                await self._stopping.wait()
                self._systemd.stopping(self._stop_reason)
                await ending.wind_down(session, self._stop_reason)
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            failure = _first(errors)
            self._systemd.stopping(f"failed: {failure}")
            _component_failed(session, failure)
        await ending.close(session, self._stop_reason, failure)
        if failure is None:
            return 0
        if isinstance(failure, ScalperError):
            raise ComponentFailed(
                f"{failure} (trading stopped; see {session.runtime / 'audit.log'})"
            ) from failure
        raise failure


def _component_failed(session: Session, failure: BaseException) -> None:
    reason = f"{type(failure).__name__}: {failure}"
    session.audit_line("RISK", "COMPONENT_FAILED", reason=reason)
    session.notifier.send(f"COMPONENT_FAILED: {reason}; trading stopped", 2500)
    # The next start must not go on as if nothing had happened.
    session.halt(f"the runner failed ({reason}); look at positions, then `live-runner resume`")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of the group: the failure that brought the others down."""
    leaf: BaseException = errors
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf
