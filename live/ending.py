"""The end of a session: cancel, flatten if wanted, wait a bounded time, save, tell."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

from live import day_end, standing
from live.core import clock
from live.core.events import StopRequested
from live.reporting import closing_lines, write_json
from live.session import Session
from live.storage import Record
from live.tasks import END_OF_RECORDING

STOP_TIMEOUT_S = 10.0
STOP_POLL_S = 0.05
COMPARE_TIMEOUT_S = 10.0
STOP_QUIET_S = 0.25
"""Nothing may happen for so long before a stopping runner believes that it is done."""


async def wind_down(session: Session, reason: str) -> None:
    """Cancels what rests, flattens if wanted, waits a bounded time for the broker's last words."""
    flatten = session.config.system.flatten_on_stop or reason == END_OF_RECORDING
    session.audit_line("SESSION", "STOPPING", reason=reason, flatten=int(flatten))
    session.say(f"stopping: {reason}" + (", closing positions" if flatten else ""))
    session.post(StopRequested(session.clock.now_ns(), reason, flatten))
    deadline, quiet_since = time.monotonic() + STOP_TIMEOUT_S, 0.0
    while time.monotonic() < deadline:
        await asyncio.sleep(STOP_POLL_S)
        # Once nobody trades there is nobody to sell to: the summary marks what is left.
        done = session.loop.at_rest and (not flatten or session.loop.flat or session.loop.closed)
        quiet_since = (quiet_since or time.monotonic()) if done else 0.0
        if quiet_since and time.monotonic() - quiet_since >= STOP_QUIET_S:
            await _compare_the_day(session)
            return
    working = len(session.loop.engine.orders.all_working())
    session.audit_line("SESSION", "STOP_INCOMPLETE", working_orders=working, flat=int(session.loop.flat))


async def _compare_the_day(session: Session) -> None:
    """Our deals against the broker's, as long as there is a broker to ask."""
    if session.options.shadow or not session.link.up:
        return
    now_ns, settings = session.clock.now_ns(), session.loop.engine.config.session
    day = clock.exchange_day(now_ns, settings.utc_offset_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(COMPARE_TIMEOUT_S):
            await day_end.check_or_tell(session, day)
            while session.inbox.news:
                await asyncio.sleep(STOP_POLL_S)


async def close(session: Session, reason: str, failure: BaseException | None) -> None:
    session.group = None
    await session.save_checkpoint()
    summary = session.reporter.summary(reason, failure)
    session.reporter.record_equity()
    ended = {"reason": reason, "failure": summary["failure"]}
    write_json(session.runtime / "status.json", {**session.reporter.status(), "ended": ended})
    await session.disconnect()
    session.loop.journal.close()
    if session.loop.beside is not None:
        summary["shadow"] = session.loop.beside.report()
        session.loop.beside.close()
    write_json(session.folder / "summary.json", summary)
    fields = {
        "session_id": session.id,
        "ended_wall_ns": time.time_ns(),
        "summary": json.dumps(summary),
    }
    session.storage.put(Record("sessions", fields))
    session.audit_line("SESSION", "SESSION_ENDED", reason=reason or "failure", net_nano=summary["net_nano"])
    await standing.at_end(session)
    session.say(closing_lines(summary, session.folder))
