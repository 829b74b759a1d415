"""`live-runner health-check`: everything a start needs, tried one by one without trading."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from live import health_broker, registry
from live import model as models_
from live.broker.channel import Access, broker_access
from live.checkpoint import load as load_checkpoint
from live.config_schema import RunnerConfig
from live.paper_child import running_endpoint
from live.storage import reader
from market.errors import ScalperError

MIN_FREE_BYTES = 1_000_000_000
WARN_MEMORY_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``ok`` None: could not be told, not a failure."""

    name: str
    ok: bool | None
    text: str


def run(config: RunnerConfig, alias: str) -> list[Check]:
    """All checks in the order of a start; each failure says the way out."""
    checks: list[Check] = []

    def attempt(name: str, check: Callable[[], tuple[bool | None, str]]) -> None:
        started = time.monotonic()
        try:
            ok, text = check()
        except ScalperError as error:
            ok, text = False, str(error)
        checks.append(Check(name, ok, f"{text}  ({(time.monotonic() - started) * 1000:.0f} ms)"))

    attempt("runtime folder", lambda: _folder(Path(config.system.runtime_dir)))
    attempt("disk", lambda: _disk(Path(config.system.runtime_dir)))
    attempt("memory", _memory)
    attempt("clock", health_broker.clock)
    attempt("signing key", lambda: health_broker.signature(config))
    attempt("registry", lambda: _registry(config, alias))
    attempt("bundle", lambda: _bundle(config, alias))
    attempt("database", lambda: _database(config))
    attempt("checkpoint", lambda: _checkpoint(config))
    attempt("manual override", lambda: _override(config))
    access: list[Access] = []
    attempt("broker", lambda: _broker(config, access))
    if access:
        attempt("certificate", lambda: health_broker.certificate(access[0]))
        checks += asyncio.run(_ask(access[0], config))
    return checks


def table(checks: list[Check], *, width: int = 110) -> list[str]:
    """For the terminal: a mark, the name, and the words wrapped beside it."""
    out = []
    for check in checks:
        mark = "ok  " if check.ok else "--  " if check.ok is None else "FAIL"
        first, *rest = textwrap.wrap(check.text, width - 22) or [""]
        out.append(f"{mark} {check.name:<16} {first}")
        out += [f"{'':<22}{line}" for line in rest]
    return out


def _folder(path: Path) -> tuple[bool, str]:
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(dir=path) as file:
            started = time.monotonic()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took_ms = (time.monotonic() - started) * 1000
    except OSError as error:
        return False, f"{path} cannot be written: {error.strerror}; check the rights"
    return True, f"{path} takes writes, one flush to disk takes {took_ms:.1f} ms"


def _disk(path: Path) -> tuple[bool, str]:
    free = shutil.disk_usage(path).free
    return free >= MIN_FREE_BYTES, f"{free / 1e9:.1f} GB free" + (
        "" if free >= MIN_FREE_BYTES else "; make room"
    )


def _memory() -> tuple[bool | None, str]:
    import psutil

    available = psutil.virtual_memory().available
    return available >= WARN_MEMORY_BYTES, f"{available / 1e9:.1f} GB available"


def _registry(config: RunnerConfig, alias: str) -> tuple[bool, str]:
    found = registry.resolve(config.model.registry, config.model.name, alias)
    return (
        True,
        f"{config.model.name}@{alias} is version {found.version} "
        f"({found.manifest_sha256[:12] or 'no hash tag'})",
    )


def _bundle(config: RunnerConfig, alias: str) -> tuple[bool, str]:
    loaded = models_.fetch(config, alias)
    names = models_.tickers(config, loaded.bundle)
    signed = "signed" if loaded.bundle.signed else "NOT SIGNED (paper only)"
    return (
        True,
        f"{loaded.sha256[:12]} {signed}, {loaded.watermark}, golden rows agree, instruments "
        f"{', '.join(names)}",
    )


def _database(config: RunnerConfig) -> tuple[bool | None, str]:
    path = Path(config.storage.path)
    if not path.exists():
        return None, f"{path} does not exist yet; the first run makes it"
    with reader(path) as connection:
        sessions = connection.execute("SELECT count(*) FROM sessions").fetchone()[0]
        verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
    return verdict == "ok", f"{path}: {sessions} sessions, integrity {verdict}"


def _checkpoint(config: RunnerConfig) -> tuple[bool | None, str]:
    body = load_checkpoint(Path(config.system.runtime_dir) / "checkpoint.json")
    if body is None:
        return None, "none yet"
    return True, f"of session {body['session_id']}, account {body['account']}"


def _override(config: RunnerConfig) -> tuple[bool, str]:
    path = Path(config.manual_override.flag_path)
    if path.exists():
        return (
            False,
            f"HALTED by {path}: {path.read_text(errors='replace').strip()}; `live-runner resume` lifts it",
        )
    return True, "no halt flag"


def _broker(config: RunnerConfig, found: list[Access]) -> tuple[bool | None, str]:
    """Where the orders would go; ``found`` takes the way there, where somebody answers already."""
    if config.system.mode != "paper":
        found.append(broker_access(config))
        return True, f"{config.system.mode}: {found[0].target} ({config.broker.transport})"
    endpoint = running_endpoint(Path(config.paper.endpoint))
    if endpoint is not None:
        found.append(endpoint.access)
        return True, f"paper: the exchange of process {endpoint.pid} at {endpoint.access.target}"
    recording = Path(config.paper.recording) / "recording.json"
    if recording.exists():
        return True, f"paper: the runner will start the exchange on {config.paper.recording}"
    return False, f"paper: no exchange runs and {recording} does not exist; `dvc repro ingest` makes it"


async def _ask(access: Access, config: RunnerConfig) -> list[Check]:
    checks: list[Check] = []
    try:
        async for name, ok, text in health_broker.ask(access, config):
            checks.append(Check(name, ok, text))
    except ScalperError as error:
        names = ("token", "limits", "instruments", "broker's clock", "schedule")
        checks.append(Check(names[len(checks)], False, str(error)))
    return checks
