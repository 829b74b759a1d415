"""``scalper status``: what runs, what is due, what failed, which version is where, what a person must
know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from flows import calibration_queue, notices, prefect_api, servers
from market.errors import ScalperError
from models import promotions

MOSCOW = ZoneInfo("Europe/Moscow")
SHOWN = 5


def lines(workdir: Path) -> Iterator[str]:
    yield from servers.status_lines(workdir)
    state = servers.state_of(workdir)
    if state is not None and state["ready"]:
        try:
            yield from _runs(f"{state['prefect_url']}/api")
        except ScalperError as error:
            yield str(error)
    yield from _registry(workdir)
    waiting = calibration_queue.pending(workdir)
    if waiting:
        yield f"calibration queue: {len(waiting)} requests wait"
    told = notices.recent(workdir, SHOWN)
    if told:
        yield "notices (newest last):"
        yield from (f"  {notice.line()}" for notice in told)


def _runs(api: str) -> Iterator[str]:
    running = prefect_api.runs(api, ["RUNNING", "CANCELLING"])
    for run in running:
        yield f"running: {run['name']}"
    due = []
    for name, found in sorted(prefect_api.deployments(api).items()):
        following = prefect_api.due(api, found["id"])
        at = prefect_api.when(following["expected_start_time"]) if following else None
        if at is not None:
            due.append(f"{name} {at.astimezone(MOSCOW):%d.%m. %H:%M}")
    yield "due next (Moscow): " + (", ".join(due) or "nothing is scheduled")
    bad = prefect_api.runs(api, ["FAILED", "CRASHED"], limit=SHOWN)
    for run in bad:
        yield f"{str(run['state']['type']).lower()}: {run['name']}: {(run['state']['message'] or '')[:160]}"


def _registry(workdir: Path) -> Iterator[str]:
    """From the journal alone: the registry need not answer for this."""
    from flows import publishing

    try:
        standing = promotions.aliases_at(promotions.read_journal(publishing.journal(workdir)))
    except ScalperError as error:
        yield str(error)
        return
    for alias, entry in standing.items():
        override = f"  OVERRIDE: {entry['override']}" if entry.get("override") else ""
        yield f"alias {alias}: version {entry['version']} since {entry['at']} ({entry['reason']}){override}"
