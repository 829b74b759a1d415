"""``scalper platform``: the Prefect and MLflow servers on loopback, lean and silent, with the flows deployed.

Everything lies under ``runtime/`` of the folder that it is started in. Both servers are only for looking and
for asking: publishing, promoting and trading work without them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import yaml

from flows import line
from flows.identity import PROJECT
from flows.interrupt import interruptible
from market.errors import ConfigError, ScalperError

HOST = "127.0.0.1"
READY_S = 180.0
"""How long a server may take to answer: the first start creates its database."""
LOGS = Path("runtime/platform")


def run(workdir: Path, *, prefect_port: int = 4200, mlflow_port: int = 5000) -> int:
    """Start everything, print where it is, and wait; every way out stops all of it."""
    for name, port in (("Prefect", prefect_port), ("MLflow", mlflow_port)):
        _check_free(name, port)
    prefect_url, mlflow_url = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    env = prefect_environment(workdir) | {"PREFECT_API_URL": f"{prefect_url}/api"}
    (workdir / LOGS).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(interruptible())

        def start(name: str, argv: list[str], extra: dict[str, str]) -> subprocess.Popen[str]:
            log = stack.enter_context((workdir / LOGS / f"{name}.log").open("w", encoding="utf-8"))
            return stack.enter_context(line.started(argv, cwd=workdir, env=extra, stdout=log))

        python = sys.executable
        servers = {
            "prefect": start(
                "prefect",
                [python, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)],
                env | {"PREFECT_API_URL": ""},
            ),
            "mlflow": start("mlflow", mlflow_command(workdir, mlflow_port), server_settings()),
        }
        print(f"starting (logs in {LOGS}/) ...", flush=True)
        _wait(servers["prefect"], f"{prefect_url}/api/health", "prefect")
        _wait(servers["mlflow"], f"{mlflow_url}/health", "mlflow")
        servers["flows"] = start("flows", [python, "-m", "flows.serve"], env)
        print(f"Prefect  {prefect_url}   flows: retrain, promote")
        print(f"MLflow   {mlflow_url}   registered model: {registry_settings()['model']}")
        print("Ctrl-C stops all of it", flush=True)
        return _watch(servers)


def prefect_environment(workdir: Path) -> dict[str, str]:
    """Prefect's settings: its data beside everything else that servers write, no calls to the outside."""
    return {
        "PREFECT_HOME": str((workdir / "runtime" / "prefect").resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }


def mlflow_command(workdir: Path, port: int) -> list[str]:
    """``mlflow server`` over the store of ``mlflow/registry.yaml``, one worker."""
    settings = registry_settings()
    (workdir / settings["artifacts"]).mkdir(parents=True, exist_ok=True)
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings["store"],
        "--artifacts-destination", str((workdir / settings["artifacts"]).resolve()),
        "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def registry_settings(project: Path = PROJECT) -> dict[str, str]:
    """``mlflow/registry.yaml``."""
    settings: dict[str, str] = yaml.safe_load(
        (project / "mlflow" / "registry.yaml").read_text(encoding="utf-8")
    )
    return settings


def server_settings(project: Path = PROJECT) -> dict[str, str]:
    """``mlflow/server.env`` as a dictionary; raises ConfigError for a line that is not NAME=value."""
    out = {}
    for number, text in enumerate(
        (project / "mlflow" / "server.env").read_text(encoding="utf-8").splitlines(), 1
    ):
        if not text.strip() or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"mlflow/server.env line {number}: {text!r} is not NAME=value")
        out[name] = value
    return out


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} for {name} cannot be used ({os.strerror(error.errno or 0)}): stop what "
                f"holds it or choose another one with --{name.lower()}-port"
            ) from None


def _wait(server: subprocess.Popen[str], url: str, name: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ScalperError(
                f"{name} ended with status {server.returncode} at its start: see {LOGS}/{name}.log"
            )
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise ScalperError(f"{name} did not answer at {url} within {READY_S:.0f} s: see {LOGS}/{name}.log")


def _watch(servers: dict[str, subprocess.Popen[str]]) -> int:
    while True:
        for name, process in servers.items():
            if process.poll() is not None:
                raise ScalperError(f"{name} ended with status {process.returncode}: see {LOGS}/{name}.log")
        time.sleep(0.5)
