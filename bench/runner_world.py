"""What ``bench_runner`` needs before it can measure: a market with three paces, a bundle with four models,
and a checkpoint of a runner that has watched the market for minutes, so that the first book is decided on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from features.schema import NAMES, schema_hash
from live import checkpoint
from live import config as configuration
from live.broker.channel import read_paper_endpoint
from live.config_schema import RunnerConfig
from live.core.engine import Engine
from live.core.events import Book
from live.pipeline import SignalPipeline, model_params
from market.fees import tariff
from market.types import DEPTH, MILLISECOND_NS, SECOND_NS, Books, Instrument, InstrumentDay, Trades
from models.bundle import MEMBER_FILES, Bundle, generate_keys, write_bundle
from models.inference import Ensemble, make_golden
from models.scaling import Scaler

SHARE = Instrument(
    "11111111-aaaa-4000-8000-000000000001", "SIMP", "TQBR", "FIGI0SIMP", "share", 10, 10_000_000, 100_000_000
)
START_NS = 1_768_460_400 * SECOND_NS
WATCHED_S, WATCHED_RATE = 400, 2
"""Before the measuring begins: enough for features, bars and the Transformer's window."""
LIVE_NS = START_NS + WATCHED_S * SECOND_NS
PACES = ((10, 30), (100, 15), (1_000, 12))
"""Books a second, and for how many seconds."""
TAIL_S = 15
HOLD_NS = 500 * MILLISECOND_NS
"""The horizon of the bundle: positions live so long, so that orders are many, and fewer than a minute's."""
KEY = "0b5e55ed-0000-4000-8000-000000000001"
SETTINGS = (
    "session.enabled=false", "model.registry=file:artifacts/bundle", "risk.loss_cooldown_minutes=0",
    "risk.max_consecutive_losses=1000", "risk.max_orders_per_minute=300", "risk.max_position_lots=1",
    "system.latency_violation_limit=100000", "monitoring.max_cpu_pct=100", "monitoring.max_memory_pct=100",
    "paper.exit_at_end=true", "dashboard.enabled=false",
)  # fmt: skip


def paces() -> Iterator[tuple[int, int, int]]:
    """(books a second, first market time, time after the last) of each pace."""
    begin_ns = LIVE_NS
    for rate, seconds in PACES:
        yield rate, begin_ns, begin_ns + seconds * SECOND_NS
        begin_ns += seconds * SECOND_NS


def books() -> Books:
    """Books of 20 levels a side; from one to the next a few sizes change, now and then the price."""
    steps = [np.full(WATCHED_S * WATCHED_RATE, SECOND_NS // WATCHED_RATE)]
    steps += [np.full(rate * seconds, SECOND_NS // rate) for rate, seconds in (*PACES, (10, TAIL_S))]
    gaps = np.concatenate(steps).astype(np.int64)
    n = len(gaps)
    random = np.random.default_rng(1)
    made = Books.empty(n)
    made.exch_ns[:] = made.recv_ns[:] = START_NS + np.cumsum(gaps) - gaps
    mid = 30_000 + np.cumsum(random.integers(-1, 2, n) * (random.random(n) < 0.1))
    level = np.arange(DEPTH)
    made.bid_px[:], made.ask_px[:] = mid[:, None] - level, mid[:, None] + 1 + level
    for sizes in (made.bid_qty, made.ask_qty):
        sizes[0] = random.integers(1, 500, DEPTH)
        for row in range(1, n):
            sizes[row] = sizes[row - 1]
            sizes[row, random.integers(0, DEPTH, 3)] = random.integers(1, 500, 3)
    return made


def market() -> Any:
    """A ``PaperMarket``; the exchange is the exchange's process's business."""
    from market.paper import PaperMarket

    return PaperMarket((InstrumentDay(SHARE, "2026-01-15", books(), Trades.empty()),))


def events(made: Books, rows: range) -> Iterator[Book]:
    """The books as the engine sees them."""
    for row in rows:
        sides = (made.bid_px, made.bid_qty, made.ask_px, made.ask_qty)
        levels = [tuple(side[row].tolist()) for side in sides]
        yield Book(int(made.recv_ns[row]), SHARE.ticker, int(made.exch_ns[row]), *levels)


# ---------------------------------------------------------------- the bundle


def make_bundle(workspace: Path) -> Bundle:
    """Four models in their product size, trained for a moment; any score is a signal, no position lasts."""
    import bench_inference  # the trainers' libraries, which the runner's process must not load

    parts = workspace / "parts"
    parts.mkdir(parents=True)
    series = bench_inference.market()
    scaler = Scaler.fit(series.X)
    bench_inference.trained(parts, series)
    bench_inference.exported(parts, series, scaler)
    scaler.save(parts / "scaler.npz")
    for name in bench_inference.NETWORKS:
        (parts / MEMBER_FILES[name]).write_bytes((parts / f"{name}.int8.tflite").read_bytes())
    settings = {
        "members": dict.fromkeys(MEMBER_FILES, 1 / len(MEMBER_FILES)), "temperature": 1.0,
        "instruments": {SHARE.ticker: {"move_bps_per_score": 10_000.0, "threshold_bps": 0.0}},
        "exit_move_bps": 10_000.0, "stop_multiplier": 1.0,
    }  # fmt: skip
    (parts / "ensemble.json").write_text(json.dumps(settings))
    (parts / "model_card.md").write_text("# a model of no use\n")
    make_golden(parts, series.X[:100], SHARE.ticker, parts / "golden.npz")
    names = [*MEMBER_FILES.values(), "scaler.npz", "ensemble.json", "golden.npz", "model_card.md"]
    manifest = {
        "watermark": "SIMULATED", "feature_schema_hash": schema_hash(), "features": list(NAMES),
        "horizon_ns": HOLD_NS, "latency_ns": 0, "tariff": "simulated", "fee_ppm": {SHARE.ticker: 50},
        "instruments": [SHARE.to_dict()], "data_hash": "0" * 64, "code_hash": "0" * 64, "params": {},
        "seeds": {}, "versions": {}, "trained_from_ns": START_NS - 2, "trained_to_ns": START_NS - 1,
        "live_from_ns": START_NS, "valid_until_ns": START_NS + 86_400 * SECOND_NS, "metrics": {},
        "quantisation": {},
    }  # fmt: skip
    private, _ = generate_keys(workspace / "keys")
    return write_bundle(
        workspace / "artifacts" / "bundle", {name: parts / name for name in names}, manifest, private
    )


# ---------------------------------------------------------------- the checkpoint


def runner_config(workspace: Path) -> RunnerConfig:
    return configuration.load(None, [*SETTINGS, f"paper.endpoint={workspace / 'endpoint.json'}"])


def write_checkpoint(workspace: Path, bundle: Bundle, made: Books) -> None:
    """What a runner would have left that watched the market up to ``LIVE_NS`` and did nothing."""
    config, endpoint = runner_config(workspace), read_paper_endpoint(workspace / "endpoint.json")
    fee_ppm = {SHARE.ticker: tariff(endpoint.tariff).ppm(SHARE)}
    ensemble = Ensemble(bundle, (SHARE.ticker,))
    engine = Engine(
        configuration.engine_config(config, fee_ppm), {SHARE.ticker: SHARE}, model_params(ensemble), KEY
    )
    pipeline = SignalPipeline((SHARE.ticker,), ensemble, KEY)
    for book in events(made, range(WATCHED_S * WATCHED_RATE)):
        engine.on(book)
        pipeline.on_book(book)
    body = {
        "session_id": "watched", "account": account(workspace), "engine": engine.snapshot(),
        "pipeline": pipeline.state(),
    }  # fmt: skip
    checkpoint.save(workspace / "runtime" / "checkpoint.json", body)


def account(workspace: Path) -> str:
    """As ``Session.account_ref`` has it."""
    endpoint = read_paper_endpoint(workspace / "endpoint.json")
    return f"paper:{endpoint.access.account_id}:{endpoint.pid}-{endpoint.access.token[:8]}"
