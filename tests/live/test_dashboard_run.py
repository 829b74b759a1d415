"""A whole runner with everything that looks in from outside: page, metrics, chat. What the other tests build
by hand is held against what a real runner writes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from board_state import status as imagined
from browser import chromium
from fake_bot import TOKEN, FakeBot
from small_bundle import make_bundle, make_recording

from live.audit import read as read_audit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 240.0
WORD = "a-long-word"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Running:
    """The runner as a process; its output is kept."""

    def __init__(self, workspace: Path, *settings: str) -> None:
        self.runtime, self.lines = workspace / "runtime", []
        overrides = [part for setting in settings for part in ("--set", setting)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "live.cli", "--model", "prod", *overrides], cwd=workspace,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def until(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.1)
        return found

    def said(self, pattern: str):
        return next((m for line in self.lines if (m := re.search(pattern, line))), None)

    def status(self) -> dict:
        path = self.runtime / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def audited(self) -> list[str]:
        return [line.event for line in read_audit(self.runtime / "audit.log")]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, "".join(self.lines)
        self._reader.join(10)


@pytest.fixture
def bot():
    found = FakeBot()
    yield found
    found.close()


@pytest.fixture
def runner(tmp_path, bot):
    recording = make_recording(tmp_path / "data" / "recording")
    make_bundle(tmp_path / "artifacts" / "bundle", recording, tmp_path / "keys")
    one = Running(
        tmp_path, "session.enabled=false", "model.registry=file:artifacts/bundle", "paper.speed=8",
        "risk.loss_cooldown_minutes=0", "risk.atr_min_bars=1", "manual_override.poll_interval_seconds=0.1",
        "system.latency_violation_limit=100000", "system.flatten_on_stop=true",
        "dashboard.enabled=true", "dashboard.port=0", f"dashboard.token={WORD}",
        f"monitoring.metrics_port={free_port()}", f"notifications.token={TOKEN}", "notifications.chat_id=42",
        f"notifications.api_url={bot.url}", "notifications.commands=true", "paper.exit_at_end=false",
    )  # fmt: skip
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.wait()


def keys(fields: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in fields.items():
        found.add(prefix + name)
        if isinstance(value, dict) and name not in ("counts", "latency", "refusals", "limits", "streams"):
            found |= keys(value, f"{prefix}{name}.")
    return found


def test_everything_that_looks_in_from_outside(runner, bot):
    url = runner.until(lambda: runner.said(r"dashboard on (http://\S+)"))[1]
    metrics = runner.until(lambda: runner.said(r"metrics on (http://\S+)"))[1]
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 380, "height": 800})
        page.set_default_timeout(WAIT_S * 1000)
        page.goto(url)
        page.fill("#token", WORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("#tiles div")
        page.wait_for_selector("#signals .vote i")
        runner.until(lambda: runner.status().get("counts", {}).get("fills", 0) >= 1)
        page.wait_for_selector("#curve svg")
        assert page.evaluate("document.documentElement.scrollWidth") == 380
        assert "SIMULATED" in page.inner_text("#mark")

        # Halt on the page, resume in the chat.
        page.click("#halt")
        page.fill("#halt-why", "a look at the news")
        page.click("#ask-halt button:has-text('Halt now')")
        page.wait_for_selector("#verdict[data-level=bad] #headline:has-text('alted by hand')")
        runner.until(lambda: "MANUAL_OVERRIDE" in runner.audited())
        said = runner.until(lambda: next((m for m in bot.messages if "MANUAL_OVERRIDE" in m["text"]), None))
        assert "a look at the news (dashboard, 127.0.0.1)" in said["text"]
        bot.say("/resume")
        question = runner.until(
            lambda: next((m["text"] for m in bot.messages if "send /resume" in m["text"]), None)
        )
        bot.say(f"/resume {re.search(r'/resume (.{4})', question)[1]}")
        runner.until(lambda: "MANUAL_OVERRIDE_LIFTED" in runner.audited())
        page.wait_for_selector("#verdict:not([data-level=bad])")
    runner.until(lambda: "TELEGRAM_RESUME" in runner.audited())
    bot.say("/halt", chat=7)
    runner.until(lambda: "TELEGRAM_REFUSED" in runner.audited())

    with urllib.request.urlopen(metrics, timeout=30) as answer:
        text = answer.read().decode()
    assert re.search(r"^scalper_fills_total [1-9]", text, re.M)
    assert re.search(r'^scalper_stage_seconds_count\{stage="recv_to_decision"\} [1-9]', text, re.M)

    real, made = runner.status(), imagined()
    for part in ("positions", "books", "instruments", "working", "signals"):
        real[part], made[part] = {}, {}
    assert keys(made) <= keys(real), "tests/live/board_state.py imagines what no runner writes"
    real, made = runner.status(), imagined()
    assert keys(made["instruments"]["SBER"]) == keys(real["instruments"]["SIMP"])
    assert keys(made["books"]["SBER"]) == keys(real["books"]["SIMP"])
    assert keys(made["signals"][0]) - {"votes.lstm"} >= keys(real["signals"][0]) - {"votes.lstm"}
    assert set(made["connection"]) <= set(real["connection"])
    runner.stop()
    assert TOKEN.split(":")[1] not in "".join(runner.lines)
    for file in runner.runtime.rglob("*.*"):
        if file.is_file() and file.suffix in (".log", ".json", ".jsonl"):
            assert TOKEN.split(":")[1] not in file.read_text(errors="replace"), file.name
            assert WORD not in file.read_text(errors="replace"), file.name
