"""What goes on while the session trades: timer, reconciliation, override, checkpoint, status, exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from live import day_end, standing
from live.core.config import TIMER_NS
from live.core.events import Reconciled, Timer, VolatilityIndex
from live.drift import STEP_S as DRIFT_STEP_S
from live.flush import AdaptiveFlush
from live.reporting import write_json
from live.session import Session
from live.watch import take_resume
from market.errors import BrokerError
from market.types import NANO, SECOND_NS

MAX_TIMER_S = 0.1
MIN_TIMER_S = 0.005
PROGRESS_INTERVAL_S = 5.0
FLATTEN_LEAD_S = 1.0
FLATTEN_LEAD_NS = 10 * SECOND_NS
RECONCILE_PAUSE_S = 1.0
MIN_PERIOD_S = 0.2
"""However fast a paper market runs, nothing periodic happens more often."""
CHECKPOINT_PAUSE_S = 0.25
"""Shortest time between two checkpoints written because orders or positions changed."""
END_OF_RECORDING = "the recording ends"


class Tasks:
    """``bodies()`` by name, each to be supervised; ``request_stop`` ends the session in good order."""

    def __init__(self, session: Session, request_stop: Callable[[str], None]) -> None:
        self._session, self._request_stop = session, request_stop

    def bodies(self) -> dict[str, Coroutine[Any, Any, None]]:
        session = self._session
        stops = {} if session.stops is None else {"stops": session.stops.run()}
        days = {} if session.options.shadow else {"day_end": day_end.watch(session)}
        return (
            stops
            | days
            | standing.bodies(session)
            | {
                "engine": session.loop.run(),
                "link": session.link.run(),
                "timer": self._timer(),
                "reconcile": self._reconciliation(),
                "override": self._override(),
                "checkpoint": self._checkpoint(),
                "status": self._status(),
                "rotation": self._rotation(),
                "resources": self._resources(),
                "wish": self._wish_to_reconcile(),
                "drift": self._drift(),
                "volatility": self._volatility_index(),
                "registry": session.follower.run(),
                "exchange": self._exchange(),
            }
        )

    async def _timer(self) -> None:
        session = self._session
        pause_s = min(MAX_TIMER_S, max(MIN_TIMER_S, session.clock.wall_seconds(TIMER_NS / SECOND_NS)))
        caught_up_ns = 0
        while True:
            await asyncio.sleep(pause_s)
            now_ns = session.clock.now_ns()
            if session.clock.caught_up_ns != caught_up_ns:
                by_s = (session.clock.caught_up_ns - caught_up_ns) / SECOND_NS
                caught_up_ns = session.clock.caught_up_ns
                session.audit_line("SESSION", "CLOCK_CAUGHT_UP", seconds=round(by_s, 3))
                session.notifier.send(f"CLOCK_CAUGHT_UP: market time was {by_s:.0f} s behind the broker's")
            session.post(Timer(now_ns))
            self._watch_the_end(now_ns)

    def _watch_the_end(self, now_ns: int) -> None:
        """A recording has an end: get out while the exchange still trades."""
        session = self._session
        if session.endpoint is None or not session.config.paper.exit_at_end or not session.clock.anchored:
            return
        lead_ns = max(FLATTEN_LEAD_NS, int(FLATTEN_LEAD_S * session.clock.speed * SECOND_NS))
        if now_ns >= session.endpoint.market_end_ns - lead_ns or session.loop.closed:
            self._request_stop(END_OF_RECORDING)

    async def _reconciliation(self) -> None:
        """Reads the account when somebody wants it: at the start, after reconnects and disagreements."""
        session = self._session
        while True:
            await session.reconcile_wanted.wait()
            session.reconcile_wanted.clear()
            if session.link.up:
                await self._reconcile()
            await asyncio.sleep(RECONCILE_PAUSE_S / max(1.0, session.clock.speed))

    async def _wish_to_reconcile(self) -> None:
        """Orders, positions and cash are read again every so often, whether or not anything seems wrong."""
        session = self._session
        interval_s = session.config.system.reconcile_interval_seconds
        while interval_s:
            await asyncio.sleep(max(MIN_PERIOD_S, session.clock.wall_seconds(interval_s)))
            session.reconcile_wanted.set()

    async def _rotation(self) -> None:
        session = self._session
        interval_s = session.config.data.rotation_interval_seconds
        while interval_s:
            await asyncio.sleep(max(MIN_PERIOD_S, session.clock.wall_seconds(interval_s)))
            session.capacity.rotate("the most tradable by spread, depth and turnover")

    async def _resources(self) -> None:
        session = self._session
        interval_s = session.config.monitoring.resource_interval_seconds
        while interval_s:
            await asyncio.sleep(interval_s)
            session.capacity.look()

    async def _drift(self) -> None:
        """A row every few seconds of market time; windows are judged beside the trading."""
        session = self._session
        seen: dict[str, Any] = {}
        while True:
            await asyncio.sleep(max(MIN_PERIOD_S, session.clock.wall_seconds(DRIFT_STEP_S / 2)))
            for ticker in session.instruments:
                answer, row = session.loop.pipeline.last(ticker)
                if answer is None or answer is seen.get(ticker):
                    continue
                seen[ticker] = answer
                watch = session.drift
                if not watch.take(session.clock.now_ns(), ticker, row, answer):
                    continue
                found = await asyncio.to_thread(watch.look, ticker)
                if watch is session.drift:  # the model may have been swapped meanwhile
                    watch.tell(session.clock.now_ns(), ticker, found)

    async def _volatility_index(self) -> None:
        """VIXMOEX (RVI): above the threshold it is an emergency stop; an index that is not there is told."""
        session, risk = self._session, self._session.config.risk
        told = False
        while risk.vix_instrument:
            try:
                price = await session.client.last_price_nano(risk.vix_instrument)
                why = "" if price is not None else f"{risk.vix_instrument} has no last price"
            except BrokerError as error:
                price, why = None, str(error)
            if price is not None:
                session.post(VolatilityIndex(session.clock.now_ns(), price * 100 // NANO))
            if why and not told:
                session.audit_line("RISK", "VOLATILITY_INDEX_MISSING", reason=why)
                session.notifier.send(f"VOLATILITY_INDEX_MISSING: {why}; the emergency stop cannot see it")
            told = bool(why)
            await asyncio.sleep(risk.vix_poll_seconds)

    async def _reconcile(self) -> None:
        session = self._session
        asked_ns = session.clock.now_ns()
        try:
            state = await session.desk.state()
        except BrokerError as error:
            session.audit_line("ORDER", "RECONCILE_FAILED", reason=str(error))
            session.reconcile_wanted.set()
            return
        for ticker, units in state.odd_units.items():
            session.audit_line("RISK", "ODD_UNITS", ticker=ticker, units=units)
        for order in state.open_orders:
            session.loop.executor.remember(order.client_order_id, order.exchange_order_id)
        session.post(
            Reconciled(session.clock.now_ns(), state.positions, state.open_orders, state.cash_nano, asked_ns)
        )

    async def _override(self) -> None:
        session = self._session
        while True:
            now_ns = session.clock.now_ns()
            if (override := session.flag.poll(now_ns)) is not None:
                session.post(override)
            if (resume := take_resume(session.runtime, now_ns)) is not None:
                session.post(resume)
            await asyncio.sleep(session.config.manual_override.poll_interval_seconds)

    async def _checkpoint(self) -> None:
        session = self._session
        interval, last = session.config.system.checkpoint_interval_seconds, 0.0
        while True:
            await asyncio.sleep(min(CHECKPOINT_PAUSE_S, interval))
            if session.loop.executor.orders_changed or time.monotonic() - last >= interval:
                session.loop.executor.orders_changed = False
                await session.save_checkpoint()
                last = time.monotonic()

    async def _status(self) -> None:
        """The state cache: status file and equity, every 1 to 5 s by load."""
        session = self._session
        flush = AdaptiveFlush()
        told = time.monotonic()
        session.reporter.progress()
        while True:
            await asyncio.sleep(flush.interval_s(session.loop.busy_ns, len(session.inbox)))
            session.reporter.record_equity()
            await asyncio.to_thread(write_json, session.runtime / "status.json", session.reporter.status())
            if time.monotonic() - told >= PROGRESS_INTERVAL_S:
                told = time.monotonic()
                session.say(session.reporter.progress())

    async def _exchange(self) -> None:
        """The embedded exchange dying is a failure of ours, not a lost connection."""
        session = self._session
        if session.child is not None:
            code = await session.child.wait()
            log = session.runtime / "paper" / "exchange.log"
            raise BrokerError(f"the paper exchange ended with code {code}; see {log}")
