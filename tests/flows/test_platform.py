"""The platform on real servers: what a quant leaves running, what it does when things die, and what it never
does (talk to the outside)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
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
import tiny_line
import yaml

from flows import (
    calibration_queue,
    deployments,
    doctor,
    notices,
    platform,
    prefect_api,
    publishing,
    servers,
    workspace,
)
from flows.cli import main
from market.errors import ConfigError, ScalperError
from models import registry

LOCAL = ("127.0.0.1", "::1", "localhost", "unix", "None", "0.0.0.0", "::", "")
SHOWS = "text => document.body.innerText.includes(text)"
"""Asked of a page: whether a person can see the text there."""
BUSY_S = 600.0
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


def test_the_compose_file_holds_together() -> None:
    """Docker itself is asked where it can be; here: what names what, and what is open to whom."""
    text = (workspace.PROJECT / "mlflow" / "compose.yaml").read_text()
    tree = yaml.safe_load(text)
    services = tree["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in tree["volumes"], f"{name}: {volume} is declared nowhere"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to other machines"
        for file in service.get("env_file", []):
            assert (workspace.PROJECT / "mlflow" / file).is_file()
        image = service.get("image", "")
        assert "build" in service or image.partition(":")[2] not in ("", "latest"), f"{name} is not pinned"
    assert services["db"]["configs"][0]["source"] in tree["configs"]
    # Passwords come from the environment, each is needed, and the head of the file names it.
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(re.findall(r"\$\{(\w+):\?\}", text)) and all(text.count(n) > 1 for n in asked)
    assert all(name in text.partition("services:")[0] for name in asked)
    # The same servers as the lock's, which the tests run.
    lock = (workspace.PROJECT / "requirements" / "platform.lock").read_text()
    for name, pattern in (("mlflow", r"mlflow==([\d.]+)"), ("prefect", r"prefecthq/prefect:([\d.]+)-")):
        assert f"\n{name}=={re.findall(pattern, text)[0]}" in lock
    assert "--workers 1" in services["mlflow"]["command"]


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
    """The platform of ``folder``, a tiny line that is built; in ``slow`` lies another line, whose only stage
    takes as long as it is let."""

    folder: Path
    slow: Path
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

    def completed(self, run_id: str) -> dict[str, Any]:
        found = self.until(run_id, "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        assert found["state"]["type"] == "COMPLETED", found["state"]["message"]
        return found

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """What a run left, by key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        return {found["key"]: found for found in prefect_api.post(self.api, "artifacts/filter", body)}


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
def running(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """``scalper up`` in the folder of a line; every process tells whom it talks to."""
    folder, slow = built, tmp_path_factory.mktemp("slow")
    (slow / "train.py").write_text(
        "import os, time\nopen('training.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    stage = f"{sys.executable} train.py"
    (slow / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": stage, "outs": ["model"]}}}))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=slow, check=True, timeout=120
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
        yield Running(folder, slow, servers.running(folder), connects)
    finally:
        servers.down(folder)


ASKED: dict[str, dict[str, Any]] = {
    "backup": {},
    "retrain": {"promote_to": "challenger", "reason": "a test"},
    "calibrate": {},
    "ingest": {},
    "performance-report": {"database": "nowhere.db"},
    "science": {"data": "nowhere"},
}


@pytest.fixture(scope="module")
def asked(running: Running) -> dict[str, str]:
    """One run of each of ``ASKED``, all asked for at once: most of a run's time is its start."""
    wish = json.dumps({"ticker": "SIMP", "reason": "win rate 0.31 below 0.35", "manifest_sha256": "0" * 64})
    (running.folder / "runtime" / "calibration_queue.jsonl").write_text(f"{wish}\n{wish}\n")
    return {name: prefect_api.start(running.api, name, given) for name, given in ASKED.items()}


@pytest.mark.slow
@pytest.mark.timeout(1500)
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

    def test_a_run_has_a_name_tags_and_artifacts(self, running: Running, asked: dict[str, str]) -> None:
        found = running.completed(asked["backup"])
        assert found["name"].startswith("backup 20") and {"scalper", "safety"} <= set(found["tags"])
        (table,) = running.artifacts(found["id"]).values()
        assert table["key"] == "backups" and table["type"] == "table"
        assert list((running.folder / "runtime" / "backups" / "snapshots").iterdir())

    def test_retrain_registers_the_line_and_leaves_readable_artifacts(
        self, running: Running, asked: dict[str, str]
    ) -> None:
        run_id = running.completed(asked["retrain"])["id"]
        version = registry.version(publishing.store(running.folder), "challenger")
        assert version.manifest_sha256 == tiny_line.bundle(running.folder).sha256
        # One line, one version: it names the run that came first, and calibration runs beside this one.
        assert version.tags["prefect.flow_run"] in (run_id, asked["calibrate"])
        left = running.artifacts(run_id)
        assert sorted(left) == [
            "backtest-equity", "gate-checks", "model-version", "retrain-progress", "retrain-verdict",
        ]  # fmt: skip
        assert left["retrain-progress"]["data"] == 100.0
        assert "| edge_trades |" in left["retrain-verdict"]["data"]
        address = f"{running.state['mlflow_url']}/#/models/scalper/versions/{version.number}"
        assert address in left["model-version"]["data"]

    def test_calibrate_answers_each_request_once(self, running: Running, asked: dict[str, str]) -> None:
        run_id = running.completed(asked["calibrate"])["id"]
        left = running.artifacts(run_id)
        (row,) = json.loads(left["calibration-requests"]["data"])
        assert row["reason"] == "win rate 0.31 below 0.35"
        assert "as version 1; challenger" in left["calibration"]["data"]
        assert calibration_queue.pending(running.folder) == []
        assert len(registry.versions(publishing.store(running.folder))) == 1

    def test_ingest_tells_of_each_day(self, running: Running, asked: dict[str, str]) -> None:
        left = running.artifacts(running.completed(asked["ingest"])["id"])
        days = [row["day"] for row in json.loads(left["ingested-days"]["data"])]
        assert days == [f"{ticker}/2026-01-15" for ticker in ("SIMA", "SIMF", "SIMP")]
        assert "SIMULATED recording" in left["ingest"]["data"]

    def test_failures_are_told_with_what_to_do(self, running: Running, asked: dict[str, str]) -> None:
        for name, todo in (("performance-report", "trading is not affected"), ("science", "SCALPER_DATA")):
            found = running.until(asked[name], "FAILED", "COMPLETED", "CRASHED")
            assert found["state"]["type"] == "FAILED"
            _wait(lambda run=found["name"]: _told(running, run), f"the notice about {name}")  # type: ignore[misc]
            (told,) = _told(running, found["name"])
            assert told.kind == "FAILED" and todo in told.todo

    def test_the_page_in_a_real_browser(self, running: Running, asked: dict[str, str]) -> None:
        """Deployments listed, a run completed, its artifacts visible, and no other server asked."""
        base, run_id = running.state["prefect_url"], running.completed(asked["retrain"])["id"]
        requested: list[str] = []
        with _browser().chromium() as browser:
            page = browser.new_page()
            page.set_default_timeout(BUSY_S * 1000)
            page.on("request", lambda request: requested.append(request.url))
            page.goto(f"{base}/deployments")
            for one in deployments.ALL:
                page.wait_for_function(SHOWS, arg=one.name)
            page.goto(f"{base}/runs/flow-run/{run_id}")
            page.wait_for_function(SHOWS, arg="Completed")
            page.get_by_text("Artifacts", exact=True).last.click()
            page.wait_for_function(SHOWS, arg="retrain-verdict")
        assert [url for url in requested if not url.startswith((base, "data:", "blob:"))] == []

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
        slow = {"workdir": str(running.slow)}
        first = prefect_api.start(running.api, "retrain", slow)
        training = _training(running)
        second = running.until(prefect_api.start(running.api, "retrain", slow), "CANCELLED", "COMPLETED")
        assert second["state"]["type"] == "CANCELLED"
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        prefect_api.post(running.api, f"flow_runs/{first}/set_state", body)
        running.until(first, "CANCELLED")
        _wait(lambda: not psutil.pid_exists(training), "the training to end with its run")

    def test_a_killed_run_is_swept_and_its_training_with_it(self, running: Running) -> None:
        # It works in another folder than the platform's own, and is looked after all the same.
        run_id = prefect_api.start(running.api, "retrain", {"workdir": str(running.slow)})
        training = _training(running)
        record = json.loads((running.folder / "runtime/platform/runs" / f"{run_id}.json").read_text())
        os.kill(record["process"]["pid"], signal.SIGKILL)
        found = running.until(run_id, "CRASHED")
        assert found["state"]["message"]
        _wait(lambda: not psutil.pid_exists(training), "the orphaned training to be ended")

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


def _told(running: Running, run: str) -> list[notices.Notice]:
    return [notice for notice in notices.recent(running.folder, 50) if notice.run == run]


def _training(running: Running) -> int:
    """The pid of the stage's process, once it runs."""
    path = running.slow / "training.pid"
    path.unlink(missing_ok=True)
    _wait(lambda: path.is_file() and bool(path.read_text()), "the stage to run")
    return int(path.read_text())
