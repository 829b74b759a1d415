"""Takes the pictures of docs/dashboard.md: `python tools/dashboard_shots.py` (about two minutes).

A real runner trades a small simulated market on the paper exchange; a headless Chromium looks at it on a desk
and on a phone, halts it, and sees it die. The pictures are reduced to 96 colours.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "live"))

from browser import chromium  # noqa: E402
from small_bundle import make_bundle, make_recording  # noqa: E402

WORD = "a-word-for-pictures"
PHONE, DESK = (380, 780), (1200, 1640)
WAIT_S = 600.0
COLOURS = 96
SETTINGS = (
    "session.enabled=false", "model.registry=file:artifacts/bundle", "paper.speed=5",
    "risk.loss_cooldown_minutes=0", "system.latency_violation_limit=100000",
    "monitoring.resource_interval_seconds=0", "system.flatten_on_stop=true", "dashboard.enabled=true",
    "dashboard.port=0", f"dashboard.token={WORD}", "manual_override.poll_interval_seconds=0.2",
    "notifications.spread_alert_bps=1000", "data.ttl_seconds=60",
)  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "live.cli", "--model", "prod", *overrides], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def address(runner: subprocess.Popen[str]) -> str:
    assert runner.stdout is not None
    for line in runner.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"dashboard on (http://\S+)", line):
            return found[1]
    raise SystemExit("the runner ended before its dashboard was there")


def until(folder: Path, condition: Any) -> None:
    path, deadline = folder / "runtime" / "status.json", time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if path.exists() and condition(json.loads(path.read_text())):
            return
        time.sleep(0.3)
    raise SystemExit("what was to be photographed never happened")


def save(page: Any, name: str, out: Path) -> None:
    page.wait_for_timeout(1500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = image.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(out / name, optimize=True)
    print(f"{name}: {image.size[0]} x {image.size[1]}, {(out / name).stat().st_size // 1024} KB")


def visit(browser: Any, url: str, size: tuple[int, int], scheme: str) -> Any:
    view = {"width": size[0], "height": size[1]}
    page = browser.new_context(viewport=view, color_scheme=scheme, reduced_motion="reduce").new_page()
    page.goto(url)
    page.fill("#token", WORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#tiles div")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        recording = make_recording(folder / "data" / "recording")
        make_bundle(folder / "artifacts" / "bundle", recording, folder / "keys")
        runner = start(folder)
        try:
            shoot(browser, address(runner), folder, runner, out)
        finally:
            runner.kill()
            runner.wait()


def shoot(browser: Any, url: str, folder: Path, runner: subprocess.Popen[str], out: Path) -> None:
    desk, phone = visit(browser, url, DESK, "light"), visit(browser, url, PHONE, "dark")
    until(folder, lambda s: s["counts"].get("fills", 0) >= 20 and s["positions"])
    save(phone, "dashboard-phone.png", out)
    save(desk, "dashboard-desk.png", out)
    until(folder, lambda s: s["positions"])
    phone.click("#halt")
    phone.fill("#halt-why", "the central bank speaks at 13:30")
    save(phone, "dashboard-halt.png", out)
    phone.click("#ask-halt button:has-text('Halt now')")
    phone.wait_for_selector("#verdict[data-level=bad]")
    phone.wait_for_timeout(16_000)  # the confirmation goes away
    save(phone, "dashboard-halted.png", out)
    runner.send_signal(signal.SIGKILL)
    phone.wait_for_selector("#verdict[data-level=lost]")
    save(phone, "dashboard-lost.png", out)


if __name__ == "__main__":
    main()
