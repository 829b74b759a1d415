"""Standing duties of a session: copies for disaster recovery and periodic reports.

They run beside trading and never in its way: files are copied in a thread, and what fails is audited and
told, not raised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from live import recovery
from live.performance import PerformanceReports
from live.session import Session
from live.storage import Record, StorageError

END_COPY_TIMEOUT_S = 60.0


def bodies(session: Session) -> dict[str, Coroutine[Any, Any, None]]:
    """The tasks that the configuration asks for, by name."""
    found: dict[str, Coroutine[Any, Any, None]] = {}
    if session.config.disaster_recovery.enabled:
        found["snapshots"] = _snapshots(session)
    if session.config.reporting.enabled:
        found["reports"] = _reports(session)
    return found


async def at_end(session: Session) -> None:
    """The last report and the last copy; after the storage has what the session did."""
    with suppress(StorageError):
        await session.storage.commit(Record("meta", {"key": "last_session_closed", "value": session.id}))
    if session.config.reporting.enabled:
        await _report(session)
    if session.config.disaster_recovery.enabled:
        try:
            await asyncio.wait_for(copy(session), END_COPY_TIMEOUT_S)
        except TimeoutError:
            _failed(session, f"the last copy took over {END_COPY_TIMEOUT_S:g} s")


async def _snapshots(session: Session) -> None:
    while True:
        await asyncio.sleep(session.config.disaster_recovery.interval_minutes * 60)
        await copy(session)


async def copy(session: Session) -> None:
    """One copy now: checkpoint first, then databases, then the journal, flushed in between."""
    settings = session.config.disaster_recovery
    plan = plan_of(session.config)
    loop, started = asyncio.get_running_loop(), time.monotonic()
    await session.save_checkpoint()

    def flush() -> None:
        """In the copying thread; the journal belongs to the loop's."""
        asyncio.run_coroutine_threadsafe(_flush(session), loop).result(10)

    try:
        made = await asyncio.to_thread(recovery.take, plan, between=flush)
    except (recovery.RecoveryError, TimeoutError) as error:
        _failed(session, str(error))
        return
    took_ms = round((time.monotonic() - started) * 1000)
    session.audit_line(
        "RESOURCE", "SNAPSHOT_TAKEN", name=made.path.name, files=len(made.files), bytes=made.size,
        took_ms=took_ms,
    )  # fmt: skip
    session.notifier.send(f"SNAPSHOT_TAKEN: {made.describe()} in {settings.replication_path}")


async def _flush(session: Session) -> None:
    session.loop.journal.flush()


def plan_of(config: Any) -> recovery.Plan:
    """What ``disaster_recovery`` asks for."""
    settings = config.disaster_recovery
    return recovery.Plan(
        Path(config.system.runtime_dir), Path(settings.replication_path), tuple(settings.include_patterns),
        settings.max_snapshots, Path(config.storage.path),
    )  # fmt: skip


def _failed(session: Session, reason: str) -> None:
    session.audit_line("RESOURCE", "SNAPSHOT_FAILED", reason=reason)
    session.notifier.send(f"SNAPSHOT_FAILED: {reason}", 1500)


async def _reports(session: Session) -> None:
    while True:
        await asyncio.sleep(session.config.reporting.interval_minutes * 60)
        await _report(session)


async def _report(session: Session) -> None:
    if session.performance is None:
        session.performance = PerformanceReports(session.config.reporting, session.id)
    facts = {
        "mode": session.mode,
        "watermark": session.watermark,
        "market_ns": session.clock.now_ns(),
        "audit_head": dict(zip(("seq", "chain"), session.audit.head, strict=True)),
        "status": session.reporter.status(),
    }
    try:
        line = await asyncio.to_thread(session.performance.make, Path(session.config.storage.path), facts)
    except (OSError, ValueError) as error:
        session.audit_line("RESOURCE", "REPORT_NOT_WRITTEN", reason=str(error))
        return
    session.notifier.send(session.performance.digest(line), kind="REPORT")
