"""Critical drift in a whole session on the paper exchange: the market is not the one that the bundle knows.

The bundle's reference is of another market, so the drift monitor finds the scores and features changed after
the three looks that its rule wants. Rows are taken four times a second here, not every five seconds; what is
judged, and how often in a row, is as it ships.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundle import SPECS, make_bundle, make_recording

import live.drift
import live.tasks
from features.schema import NAMES
from live import config as configuration
from live import replay
from live.audit import read as read_audit
from live.core.holds import Severity
from live.runner import Options, Runner
from live.storage import reader
from live.watch import request_resume
from market.paper.server import PaperServer
from market.recording import Recording
from market.types import SECOND_NS
from models import drift
from models.bundle import Bundle, write_bundle
from models.drift_reference import Rows, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPEED = 10
"""As in test_runner_faults.py: a machine that stops for a second is no gap in the market yet."""
WAIT_S = 240.0
ROW_NS = SECOND_NS // 4
WATCHED = (*NAMES[:10], *drift.SCORES)
SETTINGS = [
    "model.registry=file:artifacts/bundle", "session.enabled=false", "risk.atr_min_bars=1",
    "risk.loss_cooldown_minutes=0", "system.latency_violation_limit=100000", "monitoring.max_cpu_pct=100",
    "monitoring.max_memory_pct=100", "monitoring.heartbeat_enabled=false", "dashboard.enabled=false",
    "paper.exit_at_end=false", "model.poll_interval_seconds=0.2", "manual_override.poll_interval_seconds=0.1",
    "system.flatten_on_stop=true",
]  # fmt: skip


@dataclass
class Seen:
    workspace: Path
    first: Bundle
    second: Bundle
    severity: Severity | None = None
    reason: str = ""
    kept_after_resume: bool = False
    refused: int = 0
    code: int = -1
    status: dict[str, Any] = field(default_factory=dict)

    def audited(self) -> list[str]:
        return [line.event for line in read_audit(self.workspace / "runtime" / "audit.log")]

    def entries(self) -> list[int]:
        """When each order that may open a position was made."""
        with reader(self.workspace / "runtime" / "scalper.db") as connection:
            rows = connection.execute("SELECT created_ns FROM orders WHERE NOT reduce_only ORDER BY 1")
            return [row[0] for row in rows]


def bundles(workspace: Path) -> tuple[Bundle, Bundle]:
    """One whose reference is of another market, in place; one without a reference, not yet."""
    recording = make_recording(workspace / "data" / "recording")
    second = make_bundle(workspace / "second", recording, workspace / "keys", rounds=10)
    plain = make_bundle(workspace / "first", recording, workspace / "keys")
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [rng.normal(50, 1, (2_000, 10)), rng.uniform(5, 6, (2_000, len(drift.SCORES)))], axis=1
    )
    reference, _ = build(WATCHED, {SPECS[0].ticker: Rows(np.arange(2_000) * drift.THIN_NS, x)})
    parts = workspace / "first-parts"
    drift.save(reference, parts / drift.FILE)
    manifest = {k: v for k, v in plain.manifest.items() if k not in ("files", "format")}
    files = {path.name: path for path in parts.iterdir()}
    private = workspace / "keys" / "signing.key"
    return write_bundle(workspace / "artifacts" / "bundle", files, manifest, private), second


async def until(condition: Callable[[], object], running: asyncio.Task[int]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            assert not running.done(), running.exception() or running.result()
            await asyncio.sleep(0.02)


async def session(seen: Seen) -> None:
    runner = Runner(configuration.load(None, SETTINGS), Options("prod", quiet=True))
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.session is not None and hasattr(runner.session, "reporter"), running)
    assert runner.session is not None
    engine = runner.session.loop.engine
    await until(lambda: engine.holds.get("CRITICAL_DRIFT"), running)
    hold = engine.holds.get("CRITICAL_DRIFT")
    assert hold is not None
    seen.severity, seen.reason = hold.severity, hold.reason
    await until(lambda: engine.refusals.get("HOLD_CRITICAL_DRIFT", 0) > 0, running)
    request_resume(Path("runtime"), ("CRITICAL_DRIFT",), "I know better")
    await until(lambda: "RESUME_REFUSED" in seen.audited(), running)
    seen.kept_after_resume = engine.holds.get("CRITICAL_DRIFT") is hold
    seen.status = runner.session.reporter.status()
    seen.refused = engine.refusals["HOLD_CRITICAL_DRIFT"]
    shutil.rmtree("artifacts/bundle")
    Path("second").rename("artifacts/bundle")
    await until(lambda: engine.holds.get("CRITICAL_DRIFT") is None, running)
    lifted_ns = runner.session.clock.now_ns()
    await until(lambda: any(at > lifted_ns for at in seen.entries()), running)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        seen.code = await running


async def play(seen: Seen) -> None:
    recording = Recording.open(seen.workspace / "data" / "recording")
    endpoint = seen.workspace / "runtime" / "paper" / "endpoint.json"
    server = PaperServer(recording, endpoint_path=endpoint, speed=SPEED)
    await server.start()
    try:
        await session(seen)
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    workspace = tmp_path_factory.mktemp("drift")
    seen = Seen(workspace, *bundles(workspace))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setattr(live.drift, "THIN_NS", ROW_NS)
        patch.setattr(live.tasks, "DRIFT_STEP_S", ROW_NS / SECOND_NS)
        patch.setattr(live.tasks, "MIN_PERIOD_S", 0.02)
        asyncio.run(play(seen))
    return seen


def test_critical_drift_holds_entries_and_only_a_model_reload_lifts_it(seen: Seen) -> None:
    assert seen.severity is Severity.REDUCE_ONLY and "SIMP/" in seen.reason
    assert seen.refused > 0 and seen.kept_after_resume
    events = seen.audited()
    lines = read_audit(seen.workspace / "runtime" / "audit.log")
    held = list(lines)[events.index("CRITICAL_DRIFT") : events.index("CRITICAL_DRIFT_LIFTED")]
    assert [one for one in held if one.event == "ORDER_PLACED" and one.fields["role"] == "ENTRY"] == []
    for name in ("CRITICAL_DRIFT", "RESUME_REFUSED", "MODEL_SWAPPED", "CRITICAL_DRIFT_LIFTED"):
        assert name in events
    assert events.index("MODEL_SWAPPED") < events.index("CRITICAL_DRIFT_LIFTED")
    assert seen.code == 0


def test_the_request_for_calibration_and_the_metrics_are_on_disk(seen: Seen) -> None:
    runtime = seen.workspace / "runtime"
    asked = [json.loads(line) for line in (runtime / "calibration_queue.jsonl").read_text().splitlines()]
    assert ("critical drift", "SIMP") in [(a["reason"], a["ticker"]) for a in asked]
    assert {a["manifest_sha256"] for a in asked} == {seen.first.sha256}
    (metrics,) = (runtime / "drift_metrics").iterdir()
    looks = [json.loads(line) for line in metrics.read_text().splitlines()]
    first = next(i for i, look in enumerate(looks) if look["critical"])
    assert first >= 2 and all(look["alarm"] for look in looks[: first + 1])  # three in a row
    assert seen.status["drift"]["critical"]
    assert [h["name"] for h in seen.status["holds"]].count("CRITICAL_DRIFT") == 1


def test_the_session_replays_to_the_same_orders_with_its_hold_and_both_models(seen: Seen) -> None:
    (folder,) = (seen.workspace / "runtime" / "session").iterdir()
    first, second = (
        Bundle.load(seen.workspace / "runtime" / "models" / bundle.sha256, None)
        for bundle in (seen.first, seen.second)
    )
    again = replay.run(folder, first, other_bundles={second.sha256: second})
    assert again.equal, again.first_difference
