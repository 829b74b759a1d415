"""The whole runner as a process against the paper exchange: trades, stops, crashes, shadows, reloads."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_bundle import make_bundle, make_recording

from flows import performance
from live import replay
from live.audit import read as read_audit
from live.storage import Record, Storage, StorageError, reader
from market.recording import Recording
from market.types import OWN_KINDS
from models.bundle import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WAIT_S = 240.0
SPEED = 8
"""Ten seconds of market without a book start the features' two minutes of warm-up anew. At this speed a busy
machine may stop for more than a second before that happens, and the warm-up is over in fifteen.
"""
HOURS, TRAINED_SHARE = 0.6, 1 / 3
"""What is left to play, 24 minutes, outlasts two starts of the runner on a busy machine."""
WHOLE_FROM_SHARE = 0.86
"""A session that must see the end of the recording gets its last five minutes."""
SETTINGS = [
    "session.enabled=false", "model.registry=file:artifacts/bundle", f"paper.speed={SPEED}",
    "risk.loss_cooldown_minutes=0", "risk.atr_min_bars=1", "manual_override.poll_interval_seconds=0.1",
    "model.poll_interval_seconds=0.5",
    # Latency of a shared test machine is not what is tested here.
    "system.latency_violation_limit=100000", "monitoring.max_cpu_pct=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A workspace with recording, keys and bundle; tests work on copies."""
    folder = tmp_path_factory.mktemp("template")
    recording = make_recording(folder / "data" / "recording", HOURS)
    make_bundle(folder / "artifacts" / "bundle", recording, folder / "keys", trained_share=TRAINED_SHARE)
    return folder


@pytest.fixture
def workspace(template, tmp_path) -> Path:
    shutil.copytree(template, tmp_path / "ws")
    return tmp_path / "ws"


def start(
    workspace: Path, *settings: str, alias: str = "prod", options: tuple[str, ...] = ()
) -> subprocess.Popen:
    overrides = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "live.cli", "--model", alias, *options, *overrides],
        cwd=workspace, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"the runner did not end:\n{output}")
    assert process.returncode == code, output
    return output


def until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it never happened; the runner said:\n{process.communicate()[0]}")
        time.sleep(0.05)


def query(workspace: Path, sql: str) -> list[tuple]:
    """Rows; none while the database is still being made."""
    try:
        with reader(workspace / "runtime" / "scalper.db") as connection:
            return [tuple(row) for row in connection.execute(sql)]
    except StorageError:
        return []


def placed(workspace: Path) -> int:
    return len(query(workspace, "SELECT 1 FROM orders"))


def summary(workspace: Path) -> dict:
    files = sorted(
        (workspace / "runtime" / "session").glob("*/summary.json"), key=lambda p: p.stat().st_mtime
    )
    return json.loads(files[-1].read_text())


def counted(workspace: Path, name: str) -> int:
    """A count of the status file; 0 while there is none."""
    path = workspace / "runtime" / "status.json"
    return json.loads(path.read_text())["counts"].get(name, 0) if path.exists() else 0


def read_status(workspace: Path) -> dict:
    return json.loads((workspace / "runtime" / "status.json").read_text())


def stop(process: subprocess.Popen) -> str:
    """What a session must do is done: it need not go on to the end of the recording."""
    process.send_signal(signal.SIGTERM)
    return finish(process)


def audited(workspace: Path) -> list[str]:
    path = workspace / "runtime" / "audit.log"
    return [line.event for line in read_audit(path)] if path.exists() else []


def paper_stats(workspace: Path) -> dict:
    return json.loads((workspace / "runtime" / "paper" / "paper-stats.json").read_text())


def test_a_session_to_the_end_of_the_recording(workspace):
    """Trades, ends flat, agrees with the exchange to the nano-rouble, replays to the same orders, records."""
    bundle = workspace / "artifacts" / "bundle"
    shutil.rmtree(bundle)
    make_bundle(
        bundle, Recording.open(workspace / "data" / "recording"), workspace / "keys",
        trained_share=TRAINED_SHARE, live_share=WHOLE_FROM_SHARE,
    )  # fmt: skip
    # Every decision is too slow: what the engine hears of that must not come between it and its orders.
    output = finish(
        start(workspace, "system.latency_thresholds.risk=0.001", options=("--record", "recorded"))
    )
    result, exchange = summary(workspace), paper_stats(workspace)
    assert result["stop_reason"] == "the recording ends"
    assert result["orders"] == exchange["orders"] > 0
    assert result["fills"] == exchange["fills"] > 0
    assert result["fees_nano"] == exchange["fees_nano"]
    assert result["open_positions"] == exchange["positions_lots"] == {}
    assert result["net_nano"] == exchange["result_nano"]
    assert "[SIMULATED]" in output
    assert "not evidence of an edge" in output
    assert {"features", "ml", "risk", "intent_commit", "rpc", "tick_to_order"} <= set(result["latency"])
    # SQLite says the same as the summary and the audit log.
    assert query(workspace, "SELECT count(*) FROM fills") == [(result["fills"],)]
    assert query(workspace, "SELECT count(*) FROM orders WHERE status IN ('FILLED', 'CANCELLED')") == [
        (result["orders"],)
    ]
    assert audited(workspace).count("ORDER_PLACED") == result["orders"]
    session = workspace / "runtime" / "session" / result["session_id"]
    again = replay.run(session, Bundle.load(bundle, None))
    assert again.equal, again.first_difference
    assert again.orders == result["orders"]
    check_the_recording(workspace, result)


def check_the_recording(workspace: Path, result: dict) -> None:
    """Every fill and order is among the own events, beside the market in which it happened."""
    recorded = Recording.open(workspace / "recorded")
    (session,) = recorded.info.provenance["sessions"]
    assert recorded.info.provenance["session_id"] == result["session_id"]
    assert session["end"] == "closed"
    fills, orders = [], 0
    for ticker, (day,) in recorded.info.own.items():
        events = recorded.read(ticker, day)
        assert len(events.books) > 100
        own = events.own.rows(events.own.kind == OWN_KINDS.index("fill"))
        columns = (own.client_order_id, own.side, own.px, own.qty, own.fee_nano)
        fills += zip(*(column.tolist() for column in columns), strict=True)
        orders += (events.own.kind == OWN_KINDS.index("placed")).sum()
    wanted = query(workspace, "SELECT client_order_id, side, price_ticks, lots, fee_nano FROM fills")
    assert sorted(fills) == sorted(wanted)
    assert orders == result["orders"]


def test_shadow_sends_nothing(workspace):
    process = start(workspace, alias="shadow")
    until(lambda: counted(workspace, "fills") >= 1, process)
    stop(process)
    result = summary(workspace)
    assert result["mode"] == "shadow"
    assert result["orders"] > 0
    assert result["fills"] > 0
    assert paper_stats(workspace)["orders"] == 0
    assert {row[0] for row in query(workspace, "SELECT DISTINCT status FROM orders")} == {"SHADOW"}


def test_sigterm_stops_gracefully_and_keeps_a_checkpoint(workspace):
    process = start(workspace, "system.flatten_on_stop=true")
    until(lambda: placed(workspace) >= 1, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert "SIGTERM received" in output
    result = summary(workspace)
    assert result["open_positions"] == {}
    assert paper_stats(workspace)["positions_lots"] == {}
    body = json.loads((workspace / "runtime" / "checkpoint.json").read_text())["body"]
    assert body["session_id"] == result["session_id"]
    assert not (workspace / "runtime" / "paper" / "endpoint.json").exists()


def test_the_flag_file_stops_orders_and_lets_them_go_on(workspace):
    (workspace / "runtime").mkdir()
    flag = workspace / "runtime" / "manual_override.flag"
    flag.write_text("lunch")
    process = start(workspace)
    until(lambda: (workspace / "runtime" / "status.json").exists(), process)
    status = json.loads((workspace / "runtime" / "status.json").read_text())
    assert [h["reason"] for h in status["holds"] if h["name"] == "MANUAL_OVERRIDE"] == ["lunch"]
    # It watches the market and has reasons to trade, and sends nothing.
    until(lambda: counted(workspace, "books") >= 500 and counted(workspace, "signals") >= 1, process)
    assert placed(workspace) == 0
    flag.unlink()
    until(lambda: "MANUAL_OVERRIDE_LIFTED" in audited(workspace), process)
    until(lambda: placed(workspace) >= 1, process)
    stop(process)


def test_stops_at_the_broker_rotation_a_shadow_and_a_canary_in_one_session(workspace):
    """What a session does beside trading, on the real exchange: every part of it, and it still replays."""
    process = start(
        workspace, "execution.exchange_stop=true", "model.shadow_alias=shadow",
        "data.rotation_interval_seconds=5", "data.keep_instruments=1", "system.reconcile_interval_seconds=20",
        "system.flatten_on_stop=true", alias="canary",
    )  # fmt: skip

    def stops() -> list[tuple]:
        return query(workspace, "SELECT lots, status FROM orders WHERE order_type='stop'")

    until(lambda: any(status in ("NEW", "CANCELLED", "FILLED") for _, status in stops()), process)
    until(lambda: "INSTRUMENT_ROTATED_OUT" in audited(workspace), process)
    until(lambda: audited(workspace).count("RECONCILED_WITH_BROKER") >= 3, process)
    until(lambda: read_status(workspace)["shadow"]["orders"] > 0, process)
    status = read_status(workspace)
    assert status["rotated_out"] and status["data"]["SIMP"]["books"] > 0
    assert status["resources"]["memory_pct"] > 0
    stop(process)
    result = summary(workspace)
    assert {lots for lots, _ in stops()} == {1}  # a canary's whole position
    assert result["open_positions"] == paper_stats(workspace)["positions_lots"] == {}
    assert result["shadow"]["orders"] > 0 and not result["shadow"]["over"]
    session = workspace / "runtime" / "session" / result["session_id"]
    assert (session / "shadow-shadow.jsonl").read_text().count('"order"') == result["shadow"]["orders"]
    again = replay.run(session, Bundle.load(workspace / "artifacts" / "bundle", None))
    assert again.equal, again.first_difference
    # What both did comes back to the platform.
    found = performance.collect(workspace)
    (duel,) = found.duels
    (beside,) = [v for v in found.versions if v.mode == "beside"]
    assert (beside.alias, beside.fills) == ("shadow", result["shadow"]["fills"])
    assert duel.challenger == beside.name and "(beside canary v" in duel.line()
    assert duel.moments.champion > 0 and duel.moments.challenger > 0


def test_an_altered_bundle_is_refused_in_one_line(workspace):
    file = workspace / "artifacts" / "bundle" / "ensemble.json"
    file.write_bytes(file.read_bytes() + b" ")
    output = finish(start(workspace), 2)
    assert output.count("\n") == 1
    assert "ensemble.json differs" in output


def test_a_simulated_bundle_may_not_trade_real_money(workspace):
    output = finish(start(workspace, "system.mode=production", "broker.token=t.x"), 2)
    assert "simulated data" in output


@pytest.mark.skipif(find_spec("tinkoff") is not None or find_spec("t_tech") is not None, reason="it is there")
def test_an_sdk_that_is_not_there_is_one_sentence(workspace):
    output = finish(start(workspace, "broker.transport=sdk"), 2)
    assert output.count("\n") == 1
    assert "t-tech-investments" in output
    assert not (workspace / "runtime" / "paper" / "endpoint.json").exists()


def test_a_second_runner_is_refused(workspace):
    process = start(workspace)
    until(lambda: (workspace / "runtime" / "status.json").exists(), process)
    assert "a runner already works" in finish(start(workspace), 2)
    process.send_signal(signal.SIGINT)
    finish(process)


def test_the_alias_is_followed_when_flat(workspace):
    before = Bundle.load(workspace / "artifacts" / "bundle", None).sha256
    recording = Recording.open(workspace / "data" / "recording")
    # Made before the market runs: training must not race against the end of the recording.
    after = make_bundle(workspace / "next", recording, workspace / "keys", rounds=10).sha256
    process = start(workspace)
    until(lambda: "RECONCILED_WITH_BROKER" in audited(workspace), process)
    shutil.rmtree(workspace / "artifacts" / "bundle")
    (workspace / "next").rename(workspace / "artifacts" / "bundle")
    until(lambda: "MODEL_SWAPPED" in audited(workspace), process)
    stop(process)
    result = summary(workspace)
    assert result["model"]["manifest_sha256"] == after != before
    pulled = workspace / "runtime" / "models"
    again = replay.run(
        workspace / "runtime" / "session" / result["session_id"], Bundle.load(pulled / before, None),
        other_bundles={after: Bundle.load(pulled / after, None)},
    )  # fmt: skip
    assert again.equal, again.first_difference


def test_a_bundle_that_is_refused_leaves_the_old_one_trading(workspace):
    """An altered file behind the alias: told once, the old bundle goes on."""
    bundle = workspace / "artifacts" / "bundle"
    before = Bundle.load(bundle, None).sha256
    process = start(workspace)
    until(lambda: "RECONCILED_WITH_BROKER" in audited(workspace), process)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "horizon_ns": 1}))
    until(lambda: "MODEL_RELOAD_REFUSED" in audited(workspace), process)
    books = counted(workspace, "books")
    until(lambda: counted(workspace, "books") > books, process)
    stop(process)
    assert audited(workspace).count("MODEL_RELOAD_REFUSED") == 1
    assert summary(workspace)["model"]["manifest_sha256"] == before


def test_the_exchange_dying_is_a_failure_that_halts_the_next_start(workspace):
    process = start(workspace)
    until(lambda: (workspace / "runtime" / "status.json").exists(), process)
    endpoint = json.loads((workspace / "runtime" / "paper" / "endpoint.json").read_text())
    os.kill(endpoint["pid"], signal.SIGKILL)
    output = finish(process, 1)
    assert "the paper exchange ended" in output
    assert "COMPONENT_FAILED" in audited(workspace)
    assert "the runner failed" in (workspace / "runtime" / "manual_override.flag").read_text()


class Exchange:
    """A paper exchange of its own process: it outlives the runner, as a broker does."""

    def __init__(self, workspace: Path) -> None:
        live_from = json.loads((workspace / "artifacts" / "bundle" / "manifest.json").read_text())[
            "live_from_ns"
        ]
        self.path = workspace / "runtime" / "paper" / "endpoint.json"
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "market.paper", "--recording", "data/recording",
                "--from-ns", str(live_from),
                "--speed", str(SPEED), "--endpoint", str(self.path),
            ],
            cwd=workspace, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while not self.path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(WAIT_S)


def test_kill_9_while_trading_then_go_on_with_the_same_account(workspace):
    with Exchange(workspace):
        first = start(workspace)
        until(lambda: placed(workspace) >= 3, first)
        first.kill()
        first.communicate()
        before = {row[0] for row in query(workspace, "SELECT client_order_id FROM orders")}
        second = start(workspace, "system.flatten_on_stop=true")
        until(lambda: audited(workspace).count("RECONCILED_WITH_BROKER") >= 2, second)
        until(lambda: placed(workspace) > len(before), second)
        stop(second)
    exchange = paper_stats(workspace)
    rows = query(workspace, "SELECT client_order_id, status, lots_executed FROM orders")
    assert before <= {row[0] for row in rows}
    assert {row[1] for row in rows} <= {"FILLED", "CANCELLED", "REJECTED"}
    # Never sent twice, and nothing that the exchange did is missing here.
    assert len(rows) >= exchange["orders"]
    assert query(workspace, "SELECT count(*), sum(fee_nano) FROM fills") == [
        (exchange["fills"], exchange["fees_nano"])
    ]
    assert exchange["positions_lots"] == {}


def test_an_intent_that_was_never_sent_is_marked_and_not_sent(workspace):
    """kill -9 between the intention on disk and the request: the next start asks and sends nothing."""
    with Exchange(workspace):
        first = start(workspace)
        until(lambda: "RECONCILED_WITH_BROKER" in audited(workspace), first)
        first.kill()
        first.communicate()
        key, session = str(uuid.uuid4()), query(workspace, "SELECT session_id FROM sessions")[0][0]
        asyncio.run(_write_intent(workspace, key, session))
        second = start(workspace, "system.flatten_on_stop=true")
        until(
            lambda: (
                query(workspace, f"SELECT status FROM orders WHERE client_order_id='{key}'")
                == [("CANCELLED",)]
            ),
            second,
        )
        assert "ORDER_ADOPTED" in audited(workspace)
        assert "ORDER_PRESUMED_GONE" in audited(workspace)
        stop(second)
    rows = query(workspace, "SELECT client_order_id FROM orders")
    assert paper_stats(workspace)["orders"] == len(rows) - 1


async def _write_intent(workspace: Path, key: str, session: str) -> None:
    storage = Storage.open(
        workspace / "runtime" / "scalper.db", workspace / "runtime" / "signals.fallback.jsonl"
    )
    now_ns = json.loads((workspace / "runtime" / "paper" / "endpoint.json").read_text())["market_start_ns"]
    await storage.intent(
        {
            "client_order_id": key, "session_id": session, "trace_id": "t", "ticker": "SIMP", "side": 1,
            "lots": 2,
            "order_type": "market", "price_ticks": None, "tif": "fak", "reduce_only": 0, "reason": "SIGNAL",
            "created_ns": now_ns, "updated_ns": now_ns,
        }
    )  # fmt: skip
    storage.put(Record("meta", {"key": "test", "value": "1"}))
    storage.close()
