"""Where the platform's servers are and with what settings they run: lean, silent, on loopback.

Everything lies under ``runtime/`` of the folder they are started in, until an address says otherwise: each of
``ADDRESSES`` may be set in the environment or in ``.env`` beside ``params.yaml``. ``flows.supervisor`` starts
the servers, ``flows.servers`` talks to it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from flows.identity import PROJECT
from market.errors import ConfigError

HOST = "127.0.0.1"
LOGS = Path("runtime/platform")
STATE = LOGS / "state.json"
"""What runs where: written by the supervisor, read by ``status``, ``down`` and ``doctor``."""
ENV_FILE = Path(".env")
ADDRESSES = {
    "SCALPER_REGISTRY": "the MLflow registry that clients talk to (default: SQLite below runtime/)",
    "MLFLOW_BACKEND_STORE_URI": "the MLflow server's database",
    "MLFLOW_ARTIFACTS_DESTINATION": "where the MLflow server keeps files: a folder or s3://bucket/path",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "Prefect's database: postgresql+asyncpg://user:password@host/name",
    "PREFECT_API_URL": "a Prefect server that runs elsewhere",
    "SCALPER_COMPUTE_ADDRESS": "a Dask scheduler whose workers compute parts of stages (docs/scaling.md)",
}
"""The only switches between one machine and several."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two servers listen on loopback."""

    prefect: int = 4200
    mlflow: int = 5000

    @property
    def prefect_url(self) -> str:
        return f"http://{HOST}:{self.prefect}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.mlflow}"


def prefect_environment(workdir: Path) -> dict[str, str]:
    """Prefect's settings: its data beside everything else that servers write, no calls to the outside, and a
    database that does not grow for ever."""
    return {
        "PREFECT_HOME": str((workdir / "runtime" / "prefect").resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # A first look at a new deployment should not take a minute.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        # One result per run is kept in the artifacts; results on disk would be a second, stale copy.
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }


def mlflow_command(workdir: Path, port: int) -> list[str]:
    """``mlflow server`` over the store of ``mlflow/registry.yaml`` or of the addresses, one worker."""
    settings = registry_settings(workdir=workdir)
    artifacts = settings["artifacts"]
    if "://" not in artifacts:
        (workdir / artifacts).mkdir(parents=True, exist_ok=True)
        artifacts = str((workdir / artifacts).resolve())
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings["store"],
        "--artifacts-destination", artifacts,
        "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def registry_settings(project: Path = PROJECT, *, workdir: Path | None = None) -> dict[str, str]:
    """``mlflow/registry.yaml``, with what the addresses replace: ``store``, ``artifacts``, ``registry`` (what
    clients talk to: a SQLite store itself; for any other store the server, for only that has the keys of the
    database and of the bucket)."""
    settings: dict[str, str] = yaml.safe_load(
        (project / "mlflow" / "registry.yaml").read_text(encoding="utf-8")
    )
    found = addresses(workdir or Path.cwd())
    settings["store"] = found.get("MLFLOW_BACKEND_STORE_URI", settings["store"])
    settings["artifacts"] = found.get("MLFLOW_ARTIFACTS_DESTINATION", settings["artifacts"])
    direct = (
        settings["store"] if settings["store"].startswith("sqlite:") else f"http://{HOST}:{Ports().mlflow}"
    )
    settings["registry"] = found.get("SCALPER_REGISTRY", direct)
    return settings


def addresses(workdir: Path) -> dict[str, str]:
    """Those of ``ADDRESSES`` that are set: in ``<workdir>/.env``, or in the environment, which wins."""
    path = workdir / ENV_FILE
    found = {}
    if path.is_file():
        found = {name: value for name, value in read_env(path, ".env").items() if name in ADDRESSES}
    return {**found, **{name: os.environ[name] for name in ADDRESSES if os.environ.get(name)}}


def server_settings(project: Path = PROJECT) -> dict[str, str]:
    """``mlflow/server.env`` as a dictionary; raises ConfigError for a line that is not NAME=value."""
    return read_env(project / "mlflow" / "server.env", "mlflow/server.env")


def read_env(path: Path, shown: str) -> dict[str, str]:
    """NAME=value lines of ``path``; ConfigError names the first line of another form."""
    out = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip() or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{shown} line {number}: {text!r} is not NAME=value")
        out[name] = value
    return out


def secrets_hidden(address: str) -> str:
    """An address without its password, for people."""
    scheme, found, rest = address.partition("://")
    if not found or "@" not in rest:
        return address
    login, _, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}@{place}"


def client_environment(workdir: Path, state: Mapping[str, object] | None) -> dict[str, str]:
    """What a Prefect client of this folder's platform needs in its environment."""
    env = prefect_environment(workdir) | {
        name: value
        for name, value in addresses(workdir).items()
        if name.startswith(("PREFECT_", "SCALPER_COMPUTE_"))
    }
    if state is not None and "PREFECT_API_URL" not in env:
        env["PREFECT_API_URL"] = f"{state['prefect_url']}/api"
    return env
