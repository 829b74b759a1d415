"""The platform on real servers: what a quant leaves running, what it does when things die, and what it never
does (talk to the outside)."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml

from flows import deployments, doctor, notices, platform, prefect_api, servers, workspace
from flows.cli import main
from market.errors import ConfigError, ScalperError

LOCAL = ("127.0.0.1", "::1", "localhost", "unix", "None", "0.0.0.0", "::", "")
SHOWS = "text => document.body.innerText.includes(text)"
"""Asked of a page: whether a person can see the text there."""
BUSY_S = 240.0
"""What anything may take on a machine that does other things as well."""


def test_a_taken_port_is_one_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind((platform.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["up", "--prefect-port", str(port)]) == 2
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


def test_addresses_move_the_data_elsewhere_and_hide_their_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in platform.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "sqlite:///runtime/mlflow/mlflow.db"
    (tmp_path / ".env").write_text(
        "MLFLOW_BACKEND_STORE_URI=postgresql://me:secret@db/mlflow\nMLFLOW_ARTIFACTS_DESTINATION=s3://b/a\nOTHER=1\n"
    )
    command = platform.mlflow_command(tmp_path, 5000)
    assert "postgresql://me:secret@db/mlflow" in command and "s3://b/a" in command
    # Clients then go through the server: only it has the database's and the bucket's keys.
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "http://127.0.0.1:5000"
    monkeypatch.setenv("SCALPER_REGISTRY", "http://registry:5000")
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "http://registry:5000"
    assert platform.secrets_hidden("postgresql://me:secret@db/mlflow") == "postgresql://me@db/mlflow"
    assert "OTHER" not in platform.addresses(tmp_path)


def test_without_servers_each_command_says_how_to_start_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["down"]) == 0 and main(["status"]) == 0
    said = capsys.readouterr().out
    assert "was not running" in said and "scalper up starts it" in said
    with pytest.raises(ConfigError, match="start it with `scalper up`"):
        servers.running(tmp_path)


def test_a_server_that_is_down_is_one_sentence() -> None:
    with pytest.raises(ScalperError, match=r"does not answer .*: start it with `scalper up`"):
        prefect_api.start("http://127.0.0.1:9/api", "retrain")


def test_every_deployment_explains_itself() -> None:
    pytest.importorskip("prefect")
    from flows import serve

    for one, made in zip(deployments.ALL, serve.deployments(Path.cwd()), strict=True):
        assert made.description == one.text and made.entrypoint == one.entrypoint
        properties = made._parameter_openapi_schema.properties
        assert properties["workdir"]["description"]
        lacking = [name for name, field in properties.items() if not field.get("description")]
        assert not lacking, f"{one.name}: the form does not explain {lacking}"
        assert made.concurrency_limit == 1 and "scalper" in made.tags


# --- real servers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    folder: Path
    state: dict[str, Any]
    connects: Path

    @property
    def api(self) -> str:
        return f"{self.state['prefect_url']}/api"

    def run(self, run_id: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.api}/flow_runs/{run_id}", timeout=60) as reply:
            return dict(json.load(reply))

    def until(self, run_id: str, *states: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.run(run_id))
            return found["state"]["type"] in states

        _wait(there, f"run {run_id} to become {states}, it is {found.get('state')}")
        return found


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BUSY_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((platform.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """``scalper up`` in a folder whose only stage takes as long as it is let; every process tells whom it
    talks to."""
    folder = tmp_path_factory.mktemp("platform")
    (folder / "train.py").write_text(
        "import os, time\nopen('training.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    stage = f"{sys.executable} train.py"
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": stage, "outs": ["model"]}}}))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True, timeout=120
    )
    connects = folder / "connects.log"
    watched = Path(__file__).parent / "connects"
    env = {**os.environ, "PYTHONPATH": str(watched), "CONNECTS_LOG": str(connects)}
    argv = [sys.executable, "-m", "flows.cli", "-C", str(folder), "up"]
    argv += ["--prefect-port", str(_free_port()), "--mlflow-port", str(_free_port())]
    done = subprocess.run(
        argv, cwd=workspace.PROJECT, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        yield Running(folder, servers.running(folder), connects)
    finally:
        servers.down(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestRunning:
    def test_doctor_proves_that_it_works(self, running: Running) -> None:
        findings = list(doctor.examine(running.folder))
        assert all(f.sound for f in findings), "\n".join(f.line() for f in findings)
        names = {f.name for f in findings}
        assert {
            "scheduler",
            "registry round trip",
            "registry over HTTP",
            "Prefect page",
            "MLflow page",
        } <= names

    def test_the_servers_are_lean(self, running: Running) -> None:
        pids = running.state["services"]
        assert servers.memory_mb(pids["prefect"]) <= 300
        assert servers.memory_mb(pids["mlflow"]) <= 500

    def test_a_second_up_finds_the_first(self, running: Running) -> None:
        assert servers.up(running.folder, platform.Ports())["pid"] == running.state["pid"]

    def test_a_run_has_a_name_tags_and_artifacts(self, running: Running) -> None:
        (running.folder / "params.yaml").write_text("seed: 1\n")
        found = running.until(prefect_api.start(running.api, "backup"), "COMPLETED", "FAILED", "CRASHED")
        assert found["state"]["type"] == "COMPLETED", found["state"]["message"]
        assert found["name"].startswith("backup 20") and {"scalper", "safety"} <= set(found["tags"])
        artifacts = prefect_api.post(running.api, "artifacts/filter", {})
        (table,) = [a for a in artifacts if a["flow_run_id"] == found["id"]]
        assert table["key"] == "backups" and table["type"] == "table"
        assert list((running.folder / "runtime" / "backups" / "snapshots").iterdir())

    def test_the_page_in_a_real_browser(self, running: Running) -> None:
        """Deployments listed, a run completed, its artifact visible, and no other server asked."""
        base = running.state["prefect_url"]
        done = prefect_api.runs(running.api, ["COMPLETED"])
        run = next(found for found in done if found["name"].startswith("backup"))
        asked: list[str] = []
        with _browser().chromium() as browser:
            page = browser.new_page()
            page.set_default_timeout(BUSY_S * 1000)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{base}/deployments")
            for one in deployments.ALL:
                page.wait_for_function(SHOWS, arg=one.name)
            page.goto(f"{base}/runs/flow-run/{run['id']}")
            page.wait_for_function(SHOWS, arg="Completed")
            page.get_by_text("Artifacts", exact=True).last.click()
            page.wait_for_function(SHOWS, arg="backups")
        assert [url for url in asked if not url.startswith((base, "data:", "blob:"))] == []

    def test_a_stale_scheduled_run_skips_itself(self, running: Running) -> None:
        deployment = prefect_api.deployments(running.api)["calibrate"]["id"]
        due = prefect_api.due(running.api, deployment)
        assert due is not None
        # What an outage of two hours looks like afterwards: a run that was due while nobody ran it.
        with closing(sqlite3.connect(running.folder / "runtime/prefect/prefect.db", timeout=60)) as database:
            database.execute(
                "UPDATE flow_run SET next_scheduled_start_time = datetime('now', '-2 hours'), "
                "expected_start_time = datetime('now', '-2 hours') WHERE id = ?",
                (due["id"],),
            )
            # The state remembers its time, too, and becoming "Late" would read it from there.
            database.execute(
                "UPDATE flow_run_state SET state_details = json_set(state_details, '$.scheduled_time', "
                "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-2 hours')) "
                "WHERE id = (SELECT state_id FROM flow_run WHERE id = ?)",
                (due["id"],),
            )
            database.commit()
        found = running.until(due["id"], "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        assert found["state"]["name"] == "Skipped" and "stale: due 1" in found["state"]["message"]

    def test_one_at_a_time_and_cancelling_leaves_no_training(self, running: Running) -> None:
        first = prefect_api.start(running.api, "retrain")
        training = _training(running)
        second = running.until(prefect_api.start(running.api, "retrain"), "CANCELLED", "COMPLETED")
        assert second["state"]["type"] == "CANCELLED"
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        prefect_api.post(running.api, f"flow_runs/{first}/set_state", body)
        running.until(first, "CANCELLED")
        _wait(lambda: not psutil.pid_exists(training), "the training to end with its run")

    def test_a_killed_run_is_swept_and_its_training_with_it(self, running: Running) -> None:
        run_id = prefect_api.start(running.api, "retrain")
        training = _training(running)
        record = json.loads((running.folder / "runtime/platform/runs" / f"{run_id}.json").read_text())
        os.kill(record["process"]["pid"], signal.SIGKILL)
        found = running.until(run_id, "CRASHED")
        assert found["state"]["message"]
        _wait(lambda: not psutil.pid_exists(training), "the orphaned training to be ended")

    def test_a_failure_is_told_with_what_to_do(self, running: Running) -> None:
        found = running.until(
            prefect_api.start(running.api, "performance-report", {"database": "nowhere.db"}), "FAILED"
        )
        _wait(lambda: any(n.run == found["name"] for n in notices.recent(running.folder, 50)), "the notice")
        (told,) = [n for n in notices.recent(running.folder, 50) if n.run == found["name"]]
        assert told.kind == "FAILED" and "trading is not affected" in told.todo

    def test_a_dead_server_comes_back(self, running: Running) -> None:
        before = servers.running(running.folder)["services"]["flows"]
        os.kill(before, signal.SIGKILL)
        _wait(
            lambda: servers.running(running.folder)["services"]["flows"] != before, "the flows to come back"
        )

    def test_nothing_talked_to_the_outside(self, running: Running) -> None:
        lines = running.connects.read_text().splitlines()
        assert any("prefect" in text for text in lines) and any("mlflow" in text for text in lines)
        assert [text for text in lines if text.split()[1] not in LOCAL] == []

    def test_down_ends_all_of_it(self, running: Running) -> None:
        state = servers.running(running.folder)
        assert servers.down(running.folder)
        assert not [pid for pid in state["services"].values() if psutil.pid_exists(pid)]
        assert servers.state_of(running.folder) is None
        for url in (state["prefect_url"], state["mlflow_url"]):
            with socket.socket() as probe:
                assert probe.connect_ex((platform.HOST, int(url.rpartition(":")[2]))) != 0


def _browser() -> ModuleType:
    """The runner's tests know how to find a browser."""
    path = Path(__file__).parents[1] / "live" / "browser.py"
    spec = importlib.util.spec_from_file_location("browser", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _training(running: Running) -> int:
    """The pid of the stage's process, once it runs."""
    path = running.folder / "training.pid"
    path.unlink(missing_ok=True)
    _wait(lambda: path.is_file() and bool(path.read_text()), "the stage to run")
    return int(path.read_text())
