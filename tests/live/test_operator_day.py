"""One real session with everything that an operator relies on switched on, looked at from every side."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_bot import TOKEN, FakeBot
from small_bundle import make_bundle, make_recording
from transcripts import blocks, type_again

from live import cli
from live.secrets import KeyManager

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD_TOKEN = "dashboard-secret-0815"
CHAT = "-100200300400"


class Day(NamedTuple):
    """A workspace after a session, and what was heard of it: terminal, chat, systemd."""

    folder: Path
    printed: str
    errors: str
    bot: FakeBot
    systemd: list[str]


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("day")
    recording = make_recording(folder / "data" / "recording")
    # The last five minutes, slowly: a machine that stops for a second is no gap in the market then.
    make_bundle(folder / "artifacts" / "bundle", recording, folder / "keys", live_share=0.8)
    keys, bot = KeyManager.generate(folder / "keys" / "fernet.key"), FakeBot()
    secret = {name: keys.encrypt(value) for name, value in
              {"bot": TOKEN, "chat": CHAT, "dashboard": DASHBOARD_TOKEN}.items()}  # fmt: skip
    (folder / "live.yaml").write_text(f"""
session: {{enabled: false}}
system: {{latency_violation_limit: 100000, language: ru}}
risk: {{loss_cooldown_minutes: 0, atr_min_bars: 1}}
model: {{registry: "file:artifacts/bundle"}}
paper: {{speed: 10}}
dashboard: {{enabled: true, port: 0, token: "{secret["dashboard"]}"}}
notifications: {{token: "{secret["bot"]}", chat_id: "{secret["chat"]}", api_url: "{bot.url}"}}
reporting: {{interval_minutes: 0.1}}
disaster_recovery: {{enabled: true, replication_path: backup, interval_minutes: 0.1, max_snapshots: 2}}
""")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(folder / "notify"))
    heard: list[str] = []
    threading.Thread(target=_listen, args=(systemd, heard), daemon=True).start()
    watched = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "18000000"}
    done = subprocess.run(
        [sys.executable, "-m", "live.cli", "--model", "prod", "--json"], cwd=folder, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), **watched}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 60
    while not (heard and heard[-1].startswith("STOPPING=1")):
        assert time.monotonic() < deadline, heard
        time.sleep(0.01)
    yield Day(folder, done.stdout, done.stderr, bot, heard)
    systemd.close()
    bot.close()


def _listen(systemd: socket.socket, heard: list[str]) -> None:
    with contextlib.suppress(OSError):
        while True:
            heard.append(systemd.recv(4096).decode())


@pytest.fixture
def run(day, monkeypatch, capsys):
    """A command in the workspace: (exit code, what it said)."""
    monkeypatch.chdir(day[0])

    def command(*words: str) -> tuple[int, str]:
        code = cli.main(list(words))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return command


def orders(folder: Path) -> list[dict]:
    import sqlite3

    connection = sqlite3.connect(folder / "runtime" / "scalper.db")
    connection.row_factory = sqlite3.Row
    found = [dict(r) for r in connection.execute("SELECT * FROM orders ORDER BY created_ns")]
    connection.close()
    return found


def test_an_order_is_explained_down_to_the_data_and_the_code(day, run):
    entry = next(o for o in orders(day[0]) if not o["reduce_only"] and o["lots_executed"])
    code, text = run("explain", entry["client_order_id"], "--json")
    story = json.loads(text)
    assert code == 0 and story["order"]["exchange_order_id"] == entry["exchange_order_id"]
    moment, model = story["moment"], story["model"]
    assert len(moment["features"]) > 100 and moment["votes"]["gbdt"]["weight"] == 1.0
    assert moment["scores"]["p_e6"] == [story["signal"][f"p_{n}_e6"] for n in ("down", "flat", "up")]
    assert moment["book"]["bids"] and moment["decided_ns"] == moment["scores"]["now_ns"]
    assert model["data_hash"] and model["code_hash"] and story["code_commit"]
    assert story["plan"]["lots"] >= entry["lots"] and story["costs"]["fee_nano"] > 0
    assert {"ORDER_PLAN", "ORDER_PLACED", "FILL"} <= {line["event"] for line in story["audit"]}
    assert story["config"]["dashboard"]["token"] == "***"
    assert story["missing"] == ["the model came from a folder, not from a registry: it has no run"]
    for name in (entry["exchange_order_id"], entry["client_order_id"][:13]):
        code, text = run("explain", name)
        assert code == 0 and entry["client_order_id"] in text and model["manifest_sha256"] in text


def test_an_exit_and_an_unknown_order_are_explained_too(day, run):
    leaving = next(o for o in orders(day[0]) if o["reduce_only"] and o["lots_executed"])
    code, text = run("explain", leaving["client_order_id"])
    assert code == 0 and leaving["reason"] in text
    code, text = run("explain", "no-such-order")
    assert code == 2 and "no order has the id" in text


def test_the_audit_is_whole_and_the_reports_pin_it(day, run):
    code, text = run("audit", "verify", "--json")
    verdict = json.loads(text)
    assert code == 0 and verdict["lines"] > 50
    reports = (day[0] / "runtime" / "reports" / "performance.jsonl").read_text().splitlines()
    assert verdict["anchors"] == len(reports) >= 2


def test_a_copy_restores_to_the_same_state(day, run):
    assert len(list((day[0] / "backup").glob("snapshot-*"))) == 2
    code, text = run("restore", "--verify", "--json")
    proof = json.loads(text)["proof"]
    assert code == 0 and proof["ok"] and proof["engine_equal"] and proof["pipeline_equal"]
    assert proof["orders"] == len(orders(day[0]))


def test_the_tearsheet_adds_up_and_needs_nothing_from_elsewhere(day, run):
    code, text = run("report", "--json")
    sheet = json.loads(text)
    summary = json.loads(next((day[0] / "runtime" / "session").glob("*/summary.json")).read_text())
    assert code == 0 and sheet["equity"][-1]["net_nano"] == summary["net_nano"]
    assert sheet["result"]["fees_nano"] == summary["fees_nano"]
    marked = sum(sheet["markouts"][kind]["at"]["fills"] for kind in ("entries", "exits"))
    # A fill whose last book is too old has no mid to be compared with: not counted, never invented.
    assert summary["fills"] / 2 < marked <= sheet["counts"]["fills"] == summary["fills"]
    assert sheet["trips"]["count"] >= 1 and sheet["slippage"]["lots"] > 0
    code, text = run("report")
    page = (day[0] / "runtime" / "reports" / f"tearsheet-{sheet['day']}.html").read_text()
    assert code == 0 and 'class="mark"' in page and page.count("<svg") >= 4
    assert "<script" not in page and "http" not in page


def test_live_beside_a_simulation_of_the_same_hours(day, run):
    session = next((day[0] / "runtime" / "session").iterdir())
    code, text = run("replay", str(session), "--compare", "--json")
    found = json.loads(text)
    assert code == 0 and found["decisions"]["equal"]
    assert found["live"]["orders"] == len(orders(day[0])) and found["simulated"]["orders"] > 0
    assert all(pair["why"] for pair in found["pairs"])


def test_the_chat_heard_of_copies_and_reports_in_the_language_of_the_setting(day):
    text = "\n".join(message["text"] for message in day.bot.messages)
    assert "SNAPSHOT_TAKEN" in text and "REPORT" in text and "[SIMULATED]" in text
    for words in ("куплено", "файлов", "за сессию чистыми", "заявки и позиции прочитаны у брокера"):
        assert words in text
    # What the catalogue lacks stays English: in a day like this nothing does.
    bare = re.sub(r"`[^`]*`|\S*[/_=.\d]\S*|\bв backup\b|аудит.*", "", text)
    assert set(re.findall(r"\b[a-z]{3,}\b", bare)) <= {"paper", "primary", "features", "risk"}


def test_the_result_as_json_is_the_summary(day):
    summary = json.loads(next((day.folder / "runtime" / "session").glob("*/summary.json")).read_text())
    assert json.loads(day.printed) == summary and day.errors == ""


def test_systemd_was_told_and_its_watchdog_fed(day):
    first, *between, last = [text.split("\n")[0] for text in day.systemd]
    assert (first, last) == ("READY=1", "STOPPING=1")
    assert "WATCHDOG=1" in between, day.systemd


def test_no_secret_is_anywhere_in_what_the_session_wrote(day, run):
    folder, printed, bot = day.folder, day.printed + day.errors, day.bot
    run("report")
    for command in (["status"], ["status", "--json"], ["audit", "show"], ["report", "--json"]):
        printed += run(*command)[1]
    printed += "\n".join(message["text"] for message in bot.messages)
    files = [p for name in ("runtime", "backup") for p in (folder / name).rglob("*") if p.is_file()]
    assert len(files) > 20
    for secret in (TOKEN, DASHBOARD_TOKEN, CHAT):
        assert secret not in printed
        assert not [p for p in files if secret.encode() in p.read_bytes()], secret


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("day")}))
def test_the_terminals_that_the_documentation_shows(day, page):
    for block in blocks("day"):
        if block.page == page:
            type_again(block, day.folder)


def test_health_check_asks_the_broker_for_all_that_a_start_needs(day, run):
    """Against an exchange that is up, over TLS: token, limits, instruments, schedule, certificate."""
    path = day[0] / "runtime" / "paper" / "endpoint.json"
    exchange = subprocess.Popen(
        [sys.executable, "-m", "market.paper", "--recording", "data/recording", "--endpoint", str(path)],
        cwd=day[0], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert time.monotonic() < deadline and exchange.poll() is None
            time.sleep(0.1)
        code, text = run("health-check", "--json", "--set", "data.instruments=[SIMP_TQBR]")
    finally:
        exchange.terminate()
        exchange.wait(60)
    found = {check["name"]: check for check in json.loads(text)}
    assert code == 0, text
    for name in ("bundle", "signing key", "token", "limits", "instruments", "certificate"):
        assert found[name]["ok"], found[name]
    assert "may trade" in found["token"]["text"] and found["schedule"]["ok"] is not False
    assert any(words in found["schedule"]["text"] for words in ("trades from", "no trading on"))
