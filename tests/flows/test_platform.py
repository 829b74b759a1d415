"""The servers: one clear error for a taken port, lean settings, and nothing left behind after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows import platform, workspace
from flows.cli import main
from market.errors import ConfigError


def test_a_taken_port_is_one_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind((platform.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["platform", "--prefect-port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port} for Prefect cannot be used" in said and "--prefect-port" in said
    assert list(tmp_path.iterdir()) == []


def test_the_registry_server_starts_lean_and_silent() -> None:
    settings = platform.server_settings()
    assert settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_settings_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "server.env").write_text("# fine\nNAME value\n")
    with pytest.raises(ConfigError, match=r"server\.env line 2: 'NAME value' is not NAME=value"):
        platform.server_settings(tmp_path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((platform.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_starts_serves_and_stops(tmp_path: Path) -> None:
    prefect, mlflow = _free_port(), _free_port()
    command = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "-C", str(tmp_path), "platform",
         "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)],
        cwd=workspace.PROJECT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Where the tests run in the background of a shell, SIGINT is ignored and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert command.stdout is not None
    try:
        said = ""
        for text in command.stdout:
            said += text
            if "Ctrl-C" in text:
                break
        assert f"http://127.0.0.1:{prefect}" in said and f"http://127.0.0.1:{mlflow}" in said
        names: set[str] = set()
        deadline = time.monotonic() + 240
        while names != {"retrain", "promote"} and time.monotonic() < deadline:
            names = _deployments(prefect)
            time.sleep(0.5)
        assert names == {"retrain", "promote"}
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=90) == 130
    finally:
        command.terminate()  # ends the servers as well; nothing when it is gone already
        command.wait(timeout=90)
        command.stdout.close()
    for port in (prefect, mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex((platform.HOST, port)) != 0, "a server outlived its command"


def _deployments(port: int) -> set[str]:
    request = urllib.request.Request(
        f"http://{platform.HOST}:{port}/api/deployments/filter", data=b"{}",
        headers={"content-type": "application/json"}, method="POST",
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as reply:
        return {deployment["name"] for deployment in json.load(reply)}
