"""The platform on real servers: what a quant leaves running, what it does when things die, and what it never
does (talk to the outside)."""

from __future__ import annotations

import contextlib
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
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import own_network
import psutil
import pytest
import test_drift_report
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
from flows.supervisor import answers
from market.recording import Recording
from models import registry

LOCAL = ("127.0.0.1", "::1", "localhost", "unix", "None", "0.0.0.0", "::", "")
SHOWS = "text => document.body.innerText.includes(text)"
"""Asked of a page: whether a person can see the text there."""
BUSY_S = 600.0
"""What anything may take on a machine that does other things as well."""


@dataclass(frozen=True, slots=True)
class Running:
    """The platform of ``folder``, a tiny line that is built; in ``slow`` lies another line, whose only stage
    takes as long as it is let. ``open``: why the servers share this machine's network, empty where they have
    one of their own."""

    folder: Path
    slow: Path
    state: dict[str, Any]
    connects: Path
    open: str

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

    def up(ports: list[int]) -> list[str]:
        argv = [sys.executable, "-m", "flows.cli", "-C", str(folder), "up"]
        return [*argv, "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]

    refusal = own_network.refusal()
    with contextlib.ExitStack() as stack:
        if refusal:
            done = subprocess.run(
                up([_free_port(), _free_port()]), cwd=workspace.PROJECT, env=env, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            status, said = done.returncode, done.stdout
        else:
            inside = own_network.own_network(2, up, cwd=workspace.PROJECT, env=env)
            status, said = stack.enter_context(inside)
        assert status == 0, said
        try:
            yield Running(folder, slow, servers.running(folder), connects, refusal)
        finally:
            servers.down(folder)


ASKED: dict[str, dict[str, Any]] = {
    "backup": {},
    "retrain": {"promote_to": "challenger", "reason": "a test"},
    "calibrate": {},
    "ingest": {},
    "drift-report": {"workdir": "drifted"},
    "performance-report": {"database": "nowhere.db"},
    "science": {"data": "foreign", "only": "amzn"},
}


@pytest.fixture(scope="module")
def asked(running: Running) -> dict[str, str]:
    """One run of each of ``ASKED``, all asked for at once: most of a run's time is its start."""
    wish = json.dumps({"ticker": "SIMP", "reason": "win rate 0.31 below 0.35", "manifest_sha256": "0" * 64})
    (running.folder / "runtime" / "calibration_queue.jsonl").write_text(f"{wish}\n{wish}\n")
    drifted = test_drift_report.build_bundle(running.folder / "drifted")
    test_drift_report.keep_rows(running.folder / "drifted", drifted.sha256, 400, shift=1.5)
    _foreign_day(running.folder / "foreign", Recording.open(running.folder / "data" / "recording"))
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

    def test_the_drift_report_judges_draws_and_raises_the_alarm(
        self, running: Running, asked: dict[str, str]
    ) -> None:
        left = running.artifacts(running.completed(asked["drift-report"])["id"])
        rows = json.loads(left["drift"]["data"])
        assert {row["instrument"] for row in rows} == {"SIMP"} and {row["drifted"] for row in rows} == {"YES"}
        assert "# CRITICAL drift: 10 of 10 columns" in left["drift-report"]["data"]
        folder = running.folder / "drifted" / "artifacts" / "drift_report"
        assert (folder / "drift.html").as_uri() in left["drift-page"]["data"]
        assert len(list(folder.glob("evidently-SIMP-*.html"))) == 1
        wanted = {"filter": {"event": {"name": ["scalper.drift.alert"]}}}
        _wait(lambda: bool(prefect_api.post(running.api, "events/filter", wanted)["events"]), "the alarm")

    def test_science_measures_a_recording_and_leaves_its_report(
        self, running: Running, asked: dict[str, str]
    ) -> None:
        left = running.artifacts(running.completed(asked["science"])["id"])
        report = left["science"]["data"]
        assert "LOBSTER AMZN" in report and "| ensemble |" in report and "L1 imbalance" in report
        assert (running.folder / "artifacts" / "science" / "science.html").is_file()

    def test_a_failure_is_told_with_what_to_do(self, running: Running, asked: dict[str, str]) -> None:
        found = running.until(asked["performance-report"], "FAILED", "COMPLETED", "CRASHED")
        assert found["state"]["type"] == "FAILED"
        _wait(lambda: bool(_told(running, found["name"])), "the notice about it")
        (told,) = _told(running, found["name"])
        assert told.kind == "FAILED" and "trading is not affected" in told.todo

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

    def test_all_of_it_works_without_a_network(self, running: Running) -> None:
        """What is tested above ran where nothing but loopback exists."""
        if running.open:
            pytest.skip(f"no network of its own can be made here ({running.open})")
        for pid in servers.running(running.folder)["services"].values():
            assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            assert [text.split(":")[0].strip() for text in interfaces] == ["lo"]

    def test_down_ends_all_of_it(self, running: Running) -> None:
        state = servers.running(running.folder)
        assert servers.down(running.folder)
        assert not [pid for pid in state["services"].values() if psutil.pid_exists(pid)]
        assert servers.state_of(running.folder) is None
        assert not answers(state["prefect_url"]) and not answers(state["mlflow_url"])


def _foreign_day(folder: Path, recording: Recording) -> None:
    """SIMP's books as the archive of somebody else, where `scalper science` looks for one of its days."""
    books = recording.read("SIMP", recording.info.days["SIMP"][0]).books
    start_s = 34_200 + (books.recv_ns - books.recv_ns[0]) / 1e9  # of New York's day
    sides = (books.ask_px * 100, books.ask_qty, books.bid_px * 100, books.bid_qty)  # 1/10000 dollar
    rows = np.stack([side[:, level] for level in range(5) for side in sides], axis=1)
    table = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    messages = "\n".join(f"{at:.9f},1,{i},1,{rows[i, 0]},1" for i, at in enumerate(start_s))
    stem = "AMZN_2012-06-21_34200000_57600000_"
    path = folder / "lobster" / "LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{stem}message_5.csv", messages + "\n")
        archive.writestr(f"{stem}orderbook_5.csv", table + "\n")


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
