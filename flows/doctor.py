"""``scalper doctor``: not what is configured but what works, each with the way out.

The scheduler is proven by runs that it has made for the future, the pages by being fetched, the registry by a
round trip (write a version, move an alias, read it back the way the trading box does, remove it).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import calibration_queue, prefect_api, publishing, servers
from flows.backup import FOLDER as BACKUPS
from flows.backup import KEY as BACKUP_KEY
from flows.deployments import ALL
from flows.identity import PROJECT
from market.errors import ScalperError

PINNED = ("prefect", "mlflow", "dvc", "evidently", "optuna", "fastapi", "sqlalchemy", "pandas")
SCHEDULER_S = 60.0
"""How long the scheduler may take to make its first runs after the start."""
MIN_FREE_GB = 2.0
MAX_BACKUP_AGE_H = 36.0
MAX_QUEUE_AGE_H = 24.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``sound`` False: something does not work, and ``text`` says what to do."""

    name: str
    sound: bool
    text: str
    warning: bool = False

    def line(self) -> str:
        mark = ("warn" if self.warning else "ok  ") if self.sound else "FAIL"
        return f"{mark}  {self.name}: {self.text}"


def examine(workdir: Path) -> Iterator[Finding]:
    """All checks in turn; one that fails does not stop the others."""
    checks: list[tuple[str, Callable[[Path], str]]] = [
        ("versions", _versions),
        ("disk", _disk),
        ("line", _line),
        ("registry round trip", _round_trip),
        ("promotions", _promotions),
    ]
    state = servers.state_of(workdir)
    if state is None or not state["ready"]:
        yield Finding("servers", False, "the platform is not running: start it with `scalper up`")
    else:
        api = f"{state['prefect_url']}/api"
        checks += [
            ("Prefect page", lambda _: _page(state["prefect_url"], "Prefect")),
            ("Prefect page's server", lambda _: _page_asks(state["prefect_url"])),
            ("MLflow page", lambda _: _page(state["mlflow_url"], "MLflow")),
            ("deployments", lambda _: _deployments(api)),
            ("scheduler", lambda _: _scheduler(api)),
            ("registry over HTTP", lambda _: _http_round_trip(state["mlflow_url"])),
            ("memory", lambda _: _memory(state)),
        ]
    for name, check in checks:
        try:
            yield Finding(name, True, check(workdir))
        except ScalperError as error:
            yield Finding(name, False, str(error))
    yield _backups(workdir)
    yield _queue(workdir)


def _versions(workdir: Path) -> str:
    """The pins of the lock are what is installed, and each of them can be imported."""
    lock = PROJECT / "requirements" / "platform.lock"
    pins = {
        name: version.split()[0]
        for name, _, version in (
            text.partition("==") for text in lock.read_text(encoding="utf-8").splitlines() if "==" in text
        )
    }
    wrong = [
        f"{name} is {importlib.metadata.version(name)}, the lock says {pins[name]}"
        for name in PINNED
        if name in pins and importlib.metadata.version(name) != pins[name]
    ]
    if wrong:
        raise ScalperError(f"{'; '.join(wrong)}: install the lock again (`make setup`)")
    return ", ".join(f"{name} {pins[name]}" for name in PINNED if name in pins)


def _disk(workdir: Path) -> str:
    free_gb = shutil.disk_usage(workdir).free / 1e9
    if free_gb < MIN_FREE_GB:
        raise ScalperError(f"only {free_gb:.1f} GB free in {workdir}: a training needs more; see `dvc gc -w`")
    return f"{free_gb:.0f} GB free"


def _line(workdir: Path) -> str:
    from flows import params

    if not (workdir / params.PARAMS).is_file():
        return "this folder has no line (no params.yaml)"
    params.load(workdir / params.PARAMS)
    return "params.yaml reads"


def _round_trip(workdir: Path) -> str:
    """Write, move an alias, read back as the box does, remove."""
    uri = publishing.store(workdir)
    return _registered(uri)


def _http_round_trip(url: str) -> str:
    return _registered(url)


def _registered(uri: str) -> str:
    from live.registry import resolve
    from models import registry

    name = f"scalper-doctor-{uuid.uuid4().hex[:8]}"
    begun = time.monotonic()
    with registry.probe(uri, name) as (alias, number):
        found = resolve(uri, name, alias)
        if found.version != str(number):
            raise ScalperError(
                f"alias {alias} was moved to version {number} and reads back as {found.version}"
            )
    return f"a version written, found behind its alias and removed in {time.monotonic() - begun:.1f} s"


def _promotions(workdir: Path) -> str:
    from models import promotions

    entries = promotions.read_journal(publishing.journal(workdir))
    found = promotions.differences(entries, publishing.aliases(workdir))
    if found:
        raise ScalperError(
            f"{'; '.join(found)}. Somebody moved an alias by hand, or the journal was put back: promote the "
            "right "
            "version again, with a reason"
        )
    return f"{len(entries)} moves, the chain holds and the registry agrees"


def _page(url: str, name: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            text = reply.read().decode("utf-8", "replace")
    except (urllib.error.URLError, OSError) as error:
        raise ScalperError(
            f"{url} does not answer ({error}): see runtime/platform/{name.lower()}.log"
        ) from None
    if "<html" not in text.lower():
        raise ScalperError(f"{url} answers, but not with a page: the package was installed without its UI")
    return f"{url} shows its page"


def _page_asks(url: str) -> str:
    """The page is a program in the browser: it must ask this server, not whatever listens on port 4200."""
    try:
        with urllib.request.urlopen(f"{url}/ui-settings", timeout=20) as reply:
            asks = str(json.load(reply)["api_url"])
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        raise ScalperError(
            f"{url}/ui-settings does not answer ({error}): see runtime/platform/prefect.log"
        ) from None
    if asks.rstrip("/") != f"{url}/api":
        raise ScalperError(f"the page at {url} asks {asks}: start it with `scalper up`, not by hand")
    return f"asks {asks}"


def _deployments(api: str) -> str:
    known, wanted = prefect_api.deployments(api), {one.name for one in ALL}
    missing = sorted(wanted - set(known))
    if missing:
        raise ScalperError(f"not deployed: {', '.join(missing)}; see runtime/platform/flows.log")
    return f"{len(wanted)} deployed"


def _scheduler(api: str) -> str:
    """Runs in the future for every deployment with a schedule: SQLAlchemy 2.1 breaks exactly this,
    silently."""
    wanted = {one.name for one in ALL if one.cron}
    deadline = time.monotonic() + SCHEDULER_S
    while True:
        known = prefect_api.deployments(api)
        next_runs = {name: prefect_api.due(api, found["id"]) for name, found in known.items()}
        made = {name for name, run in next_runs.items() if run and run["auto_scheduled"]}
        if wanted <= made:
            return f"has made runs for {len(wanted)} schedules"
        if time.monotonic() > deadline:
            raise ScalperError(
                f"no run is scheduled for {', '.join(sorted(wanted - made))} after {SCHEDULER_S:.0f} s: the "
                "scheduler does not work; see runtime/platform/prefect.log and the pins of "
                "docs/decisions/0002"
            )
        time.sleep(1.0)


def _memory(state: dict[str, Any]) -> str:
    return ", ".join(f"{name} {servers.memory_mb(pid):.0f} MB" for name, pid in state["services"].items())


def _backups(workdir: Path) -> Finding:
    found = sorted((workdir / BACKUPS / "snapshots").glob("*.snapshot"))
    if not found:
        text = f"none yet in {BACKUPS} (scalper backup makes one; elsewhere they are not looked for)"
        return Finding("backups", True, text, warning=True)
    age_h = (time.time() - found[-1].stat().st_mtime) / 3600
    key = (
        "" if (workdir / BACKUP_KEY).is_file() else f"; {BACKUP_KEY} is gone: keep it elsewhere, but keep it"
    )
    return Finding("backups", True, f"{len(found)}, newest {age_h:.0f} h old{key}", age_h > MAX_BACKUP_AGE_H)


def _queue(workdir: Path) -> Finding:
    waiting = calibration_queue.pending(workdir)
    path = workdir / calibration_queue.QUEUE
    if not waiting:
        return Finding("calibration queue", True, "nothing waits")
    age_h = (datetime.now(UTC).timestamp() - path.stat().st_mtime) / 3600
    text = f"{len(waiting)} requests wait, the newest since {age_h:.0f} h"
    return Finding("calibration queue", True, text, age_h > MAX_QUEUE_AGE_H)
