"""``scalper up --foreground``: start the servers and the flows, keep them running, end all of it on any
way out.

A process that dies is started again after a pause that grows; one that keeps dying ends the platform with its
name and its log. Runs whose process is gone are swept (``flows.sweep``), so that nothing stays "Running".
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows import deployments, line, prefect_api, sweep
from flows.held import held
from flows.interrupt import interruptible
from flows.platform import (
    HOST,
    LOGS,
    STATE,
    Ports,
    addresses,
    client_environment,
    mlflow_command,
    prefect_environment,
    registry_settings,
    secrets_hidden,
    server_settings,
)
from market.errors import ConfigError, ScalperError

READY_S = 240.0
"""How long a server may take to answer: the first start creates its database."""
LOOK_S = 0.5
SWEEP_S = 10.0
RESTARTS, WITHIN_S = 5, 600.0
"""A process that ends more often than this within this time is not started again."""
MAX_PAUSE_S = 30.0
LOG_BYTES = 8 << 20
"""A log that is longer when its process starts is moved to ``<name>.log.1``."""


@dataclass(slots=True)
class Service:
    """One child: how it is started, where it answers, and when it last died."""

    name: str
    argv: list[str]
    env: dict[str, str]
    url: str | None = None
    process: subprocess.Popen[str] | None = None
    started: ExitStack = field(default_factory=ExitStack)
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=RESTARTS + 1))
    due_s: float = 0.0


def run(workdir: Path, ports: Ports) -> int:
    """Start everything, say where it is, and look after it until SIGINT or SIGTERM."""
    workdir = workdir.resolve()
    for name, port in (("Prefect", ports.prefect), ("MLflow", ports.mlflow)):
        check_free(name, port)
    (workdir / LOGS).mkdir(parents=True, exist_ok=True)
    runs = ConfigError(
        f"the platform of {workdir} runs already: `scalper status` shows it, `scalper down` stops it"
    )
    with held(workdir / LOGS / "lock", runs), ExitStack() as stack:
        stack.enter_context(interruptible())
        stack.callback(lambda: (workdir / STATE).unlink(missing_ok=True))
        services = _services(workdir, ports)
        for service in services:
            stack.callback(service.started.close)
        print(f"starting (logs in {LOGS}/) ...", flush=True)
        servers = [service for service in services if service.url is not None]
        for service in servers:
            _start(workdir, service)
        _write_state(workdir, ports, services, ready=False)
        for service in servers:
            _wait(service)
        for service in services:
            if service.process is None:
                _start(workdir, service)
        _wait_for_deployments(workdir, ports, services)
        _write_state(workdir, ports, services, ready=True)
        print(f"Prefect  {ports.prefect_url}")
        print(f"MLflow   {ports.mlflow_url}   registered model: {registry_settings()['model']}")
        for name, address in addresses(workdir).items():
            print(f"{name} = {secrets_hidden(address)}")
        print("Ctrl-C stops all of it", flush=True)
        return _look_after(workdir, ports, services)


def _services(workdir: Path, ports: Ports) -> list[Service]:
    python = sys.executable
    server = prefect_environment(workdir) | {
        name: value for name, value in addresses(workdir).items() if name.startswith("PREFECT_SERVER_")
    }
    return [
        Service(
            "prefect",
            [python, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect)],
            # The page asks port 4200 unless it is told where its server is.
            server | {"PREFECT_API_URL": "", "PREFECT_SERVER_UI_API_URL": f"{ports.prefect_url}/api"},
            f"{ports.prefect_url}/api/health",
        ),
        Service(
            "mlflow", mlflow_command(workdir, ports.mlflow), server_settings(), f"{ports.mlflow_url}/health"
        ),
        Service(
            "flows",
            [python, "-m", "flows.serve"],
            client_environment(workdir, {"prefect_url": ports.prefect_url})
            | {"SCALPER_MLFLOW_UI": ports.mlflow_url},
        ),
    ]


def _start(workdir: Path, service: Service) -> None:
    path = workdir / LOGS / f"{service.name}.log"
    if path.is_file() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    service.started.close()
    log = service.started.enter_context(path.open("a", encoding="utf-8"))
    service.process = service.started.enter_context(
        line.started(service.argv, cwd=workdir, env=service.env, stdout=log)
    )


def _wait(service: Service) -> None:
    assert service.process is not None and service.url is not None
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise ScalperError(
                f"{service.name} ended with status {service.process.returncode} at its start: "
                f"see {LOGS}/{service.name}.log"
            )
        if answers(service.url):
            return
        time.sleep(0.3)
    raise ScalperError(
        f"{service.name} did not answer at {service.url} within {READY_S:.0f} s: see "
        f"{LOGS}/{service.name}.log"
    )


def _wait_for_deployments(workdir: Path, ports: Ports, services: list[Service]) -> None:
    """Until all of them are registered: "ready" means that a run can be asked for."""
    flows = next(service for service in services if service.name == "flows")
    assert flows.process is not None
    deadline = time.monotonic() + READY_S
    wanted = {one.name for one in deployments.ALL}
    while time.monotonic() < deadline:
        if flows.process.poll() is not None:
            raise ScalperError(
                f"the flows ended with status {flows.process.returncode} at their start: see {LOGS}/flows.log"
            )
        try:
            if wanted <= set(prefect_api.deployments(f"{ports.prefect_url}/api")):
                return
        except ScalperError:
            pass  # still starting, or busy: asked again
        time.sleep(1.0)
    raise ScalperError(f"the deployments were not registered within {READY_S:.0f} s: see {LOGS}/flows.log")


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether a GET of ``url`` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _look_after(workdir: Path, ports: Ports, services: list[Service]) -> int:
    sweep_at = time.monotonic() + SWEEP_S
    while True:
        for service in services:
            _revive(workdir, ports, services, service)
        if time.monotonic() >= sweep_at:
            sweep_at = time.monotonic() + SWEEP_S
            _say_swept(sweep.sweep(workdir, f"{ports.prefect_url}/api"))
        time.sleep(LOOK_S)


def _revive(workdir: Path, ports: Ports, services: list[Service], service: Service) -> None:
    assert service.process is not None
    now = time.monotonic()
    if service.due_s:
        if now >= service.due_s:
            service.due_s = 0.0
            _start(workdir, service)
            _write_state(workdir, ports, services, ready=True)
        return
    status = service.process.poll()
    if status is None:
        return
    service.deaths.append(now)
    recent = sum(now - at < WITHIN_S for at in service.deaths)
    if recent > RESTARTS:
        raise ScalperError(
            f"{service.name} ended {recent} times within {WITHIN_S / 60:.0f} minutes, last with status "
            f"{status}: "
            f"see {LOGS}/{service.name}.log"
        )
    pause = min(2.0 ** (recent - 1), MAX_PAUSE_S)
    print(f"{service.name} ended with status {status}: again in {pause:.0f} s", flush=True)
    service.due_s = now + pause


def _say_swept(names: list[str]) -> None:
    for name in names:
        print(f"swept: {name} was not running any more", flush=True)


def _write_state(workdir: Path, ports: Ports, services: list[Service], *, ready: bool) -> None:
    me = psutil.Process()
    state = {
        "pid": me.pid,
        "created": me.create_time(),
        "ready": ready,
        "prefect_url": ports.prefect_url,
        "mlflow_url": ports.mlflow_url,
        "services": {s.name: s.process.pid for s in services if s.process is not None},
    }
    draft = (workdir / STATE).with_suffix(".draft")
    draft.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    draft.replace(workdir / STATE)


def check_free(name: str, port: int) -> None:
    """ConfigError when ``port`` cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} for {name} cannot be used ({os.strerror(error.errno or 0)}): stop what "
                f"holds it or choose another one with --{name.lower()}-port"
            ) from None
