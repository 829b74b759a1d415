"""A whole runner on an exchange that misbehaves: stopped in mid-position, started again, held to the account.

One market, two sessions of one account. In the first the exchange loses answers, breaks streams and sends
crossed and doubled books, and SIGTERM comes while a position is open with its stop at the broker. The second
takes both over and closes the position when it is stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from small_bundle import SPECS, make_bundle

from live import config as configuration
from live import replay
from live.audit import read as read_audit
from live.broker.channel import read_paper_endpoint
from live.broker.client import AccountState, BrokerClient
from live.core.orders import NEW
from live.runner import Options, Runner
from live.storage import reader
from market.contract import invest_pb2 as pb
from market.paper.faults import Fault
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import simulate_recording
from market.types import SECOND_NS
from models.bundle import Bundle, write_bundle
from models.inference import make_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPEED = 10
"""A machine that stops for a second is no gap in the market yet (see test_runner_paper.py)."""
HOURS = 0.8
HORIZON_NS = 120 * SECOND_NS
"""Of the bundle: so that no position is too old before the test has looked at it."""
WAIT_S = 240.0
TRIES = 5
"""Sessions until SIGTERM meets an open position: its stop may be hit just then."""
FAULTS = (
    Fault("crossed_book", probability=0.01), Fault("duplicate", probability=0.01),
    Fault("not_consistent_flag", probability=0.01), Fault("lost_reply_70002", count=2),
)  # fmt: skip


@dataclass
class Seen:
    """What the test looks at when both sessions are over. ``stops``: at the broker, after each session."""

    workspace: Path
    bundle: Bundle
    codes: list[int] = field(default_factory=list)
    states: list[AccountState] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    ours: list[dict[str, int]] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)

    def audited(self) -> list[str]:
        return [line.event for line in read_audit(self.workspace / "runtime" / "audit.log")]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with reader(self.workspace / "runtime" / "scalper.db") as connection:
            return [tuple(row) for row in connection.execute(sql)]


def always_long(workspace: Path) -> Bundle:
    """A bundle that sees every price rise: no position ends by a change of mind."""
    recording, _ = simulate_recording(workspace / "data" / "recording", SPECS, hours=HOURS)
    plain = make_bundle(workspace / "plain", recording, workspace / "keys", rounds=1)
    parts = workspace / "plain-parts"
    rows = np.random.default_rng(1).standard_normal((400, len(plain.manifest["features"])))
    answers = np.where(np.arange(400) < 390, 2, np.arange(400) % 3)
    params = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, answers), num_boost_round=20)
    (parts / "gbdt.txt").write_text(booster.model_to_string())
    make_golden(parts, rows.astype(np.float32), SPECS[0].ticker, parts / "golden.npz")
    manifest = {k: v for k, v in plain.manifest.items() if k not in ("files", "format")}
    manifest["horizon_ns"] = HORIZON_NS
    files = {path.name: path for path in parts.iterdir()}
    private = workspace / "keys" / "signing.key"
    return write_bundle(workspace / "artifacts" / "bundle", files, manifest, private)


def settings(*more: str) -> list[str]:
    return [
        "model.registry=file:artifacts/bundle", "session.enabled=false", "risk.atr_min_bars=1",
        "execution.exchange_stop=true", "system.latency_violation_limit=100000",
        "monitoring.max_cpu_pct=100", "monitoring.max_memory_pct=100", "monitoring.heartbeat_enabled=false",
        "dashboard.enabled=false", "paper.exit_at_end=false", *more,
    ]  # fmt: skip


async def until(condition: Callable[[], object], running: asyncio.Task[int]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            assert not running.done(), running.exception() or running.result()
            await asyncio.sleep(0.02)


async def trade(seen: Seen, when: Callable[[Runner], object], *more: str) -> Runner:
    """A session until ``when`` holds; then SIGTERM, as the system sends it."""
    runner = Runner(configuration.load(None, settings(*more)), Options("prod", quiet=True))
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.session is not None and hasattr(runner.session, "follower"), running)
    await until(lambda: when(runner), running)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        seen.codes.append(await running)
    engine = runner.session.loop.engine  # type: ignore[union-attr]
    seen.ours.append({t: p.lots for t, p in engine.positions.items() if p.lots})
    return runner


def protected(runner: Runner) -> object:
    """A position whose stop rests at the broker, after some trouble."""
    loop = runner.session.loop  # type: ignore[union-attr]
    resting = [o for o in loop.engine.orders.all_working() if o.role == "STOP" and o.state == NEW]
    return resting and loop.at_rest and loop.ledger.counts["orders"] >= 4 and not loop.flat


def taken_over(runner: Runner) -> object:
    """The account has been read, and what was open is known for what it is."""
    loop = runner.session.loop  # type: ignore[union-attr]
    return loop.ledger.counts["books"] > 20 and loop.engine.holds.get("NOT_RECONCILED") is None


async def look(seen: Seen) -> None:
    """The account as the broker has it, nobody trading."""
    client = BrokerClient(
        read_paper_endpoint(seen.workspace / "runtime" / "paper" / "endpoint.json").access, {}
    )
    try:
        for spec in SPECS:
            await client.instrument(spec.ticker)
        seen.states.append(await client.state())
        request = pb.GetStopOrdersRequest(account_id=client.account_id)
        reply = await client.call("StopOrdersService/GetStopOrders", request, wait_s=5.0)
        seen.stops.append(len(reply.stop_orders))
    finally:
        await client.close()


class Breaking:
    """Breaks the stream of market data off once, as soon as books come."""

    def __init__(self, server: PaperServer) -> None:
        self._server = server
        self._done = False

    def broken(self, runner: Runner) -> bool:
        session = runner.session
        assert session is not None
        if not self._done and session.link.up and session.loop.ledger.counts["books"]:
            self._done = True
            self._server.faults.add(Fault("cancelled", count=1))
        return self._done


async def two_sessions(seen: Seen, recording: Recording) -> None:
    endpoint = seen.workspace / "runtime" / "paper" / "endpoint.json"
    server = PaperServer(recording, endpoint_path=endpoint, speed=SPEED)
    for fault in FAULTS:
        server.faults.add(fault)
    await server.start()
    try:
        breaking = Breaking(server)
        for _ in range(TRIES):
            await trade(seen, lambda runner: breaking.broken(runner) and protected(runner))
            await look(seen)
            if seen.ours[-1] and seen.stops[-1]:  # not hit between the session's end and the look
                break
        seen.faults = server.faults.struck()
        server.faults.clear()
        await trade(seen, taken_over, "system.flatten_on_stop=true")
        await look(seen)
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    workspace = tmp_path_factory.mktemp("faults")
    seen = Seen(workspace, always_long(workspace))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        asyncio.run(two_sessions(seen, Recording.open(workspace / "data" / "recording")))
    return seen


def test_sigterm_with_a_resting_stop_leaves_the_position_and_its_one_stop_at_the_broker(seen: Seen) -> None:
    assert set(seen.codes) == {0}
    *_, before, _ = seen.states
    assert before.positions == seen.ours[-2] != {}
    assert before.open_orders == ()
    assert seen.stops[-2] == len(before.positions)
    for status, lots, executed in seen.query("SELECT status, lots, lots_executed FROM orders"):
        assert status in ("FILLED", "CANCELLED", "REJECTED") and executed <= lots


def test_the_next_session_takes_both_over_and_leaves_nothing_when_asked_to_flatten(seen: Seen) -> None:
    assert seen.states[-1].positions == seen.ours[-1] == {}
    assert seen.states[-1].open_orders == () and seen.stops[-1] == 0
    assert "CHECKPOINT_FOUND" in seen.audited()
    sessions = [row[0] for row in seen.query("SELECT session_id FROM sessions ORDER BY started_wall_ns")]
    exits = seen.query(f"SELECT reason FROM orders WHERE session_id='{sessions[-1]}' AND order_type='market'")
    assert ("HOLD_STOP_REQUESTED",) in exits


def test_what_went_wrong_is_met_and_no_lie_is_believed(seen: Seen) -> None:
    """The faults struck, an order's fate was unknown for a while, and nothing of it is left."""
    assert set(seen.faults) == {fault.name for fault in FAULTS} | {"cancelled"}
    events = set(seen.audited())
    assert events >= {"BOOK_QUARANTINED", "ORDER_UNKNOWN", "ORDER_KNOWN", "CONNECTION_LOST"}
    assert not {"ORDER_MOVE_ILLEGAL", "POSITION_MISMATCH", "COMPONENT_FAILED"} & events


def test_end_of_day_our_deals_equal_the_brokers_operations_to_the_nano_rouble(seen: Seen) -> None:
    """Each time a session stops: the day so far, whatever sessions it had."""
    events = seen.audited()
    assert events.count("DAY_EQUALS_BROKER") == len(seen.codes) >= 2
    assert not {"DAY_DIFFERS_FROM_BROKER", "DAY_NOT_COMPARED"} & set(events)
    report = json.loads((seen.workspace / "runtime" / "day_end" / "2026-01-15.json").read_text())
    assert report["equal"] and report["fee_difference_nano"] == 0
    assert report["deals"] == report["broker_deals"] == len(seen.query("SELECT 1 FROM fills")) >= 4


def test_sessions_with_faults_replay_to_the_same_orders(seen: Seen) -> None:
    """Replay = live: what was decided on a broken market is decided again, from the journal alone."""
    folders = sorted((seen.workspace / "runtime" / "session").iterdir())
    assert len(folders) == len(seen.codes)
    for folder in folders:
        again = replay.run(folder, seen.bundle)
        assert again.equal, again.first_difference
        assert again.score_differences == 0, again.first_score_difference
