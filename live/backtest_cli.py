"""`live-runner backtest` and `live-runner replay`: the engine's two other drivers on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from features.schema import schema_hash
from live import backtest, replay
from live.config import engine_config
from live.config_schema import RunnerConfig
from live.journal import JournalReader
from live.reporting import roubles, write_json
from live.simbroker import FILL_MODELS
from market.errors import BundleError
from market.fees import tariff
from market.recording import Recording
from market.types import MILLISECOND_NS
from models.bundle import Bundle


def _key(config: RunnerConfig) -> Path | None:
    """The verification key, None (a look at an unsigned bundle) where there is none."""
    path = Path(config.model.verification_key) if config.model.verification_key else None
    return path if path is not None and path.exists() else None


def run(config: RunnerConfig, args: argparse.Namespace) -> int:
    """Backtests a bundle under all three fill models and prints what a person compares."""
    settings = config.backtest
    recording = Recording.open(args.recording or Path(settings.dataset_path))
    bundle = Bundle.load(args.bundle, _key(config), expect_schema=schema_hash())
    if settings.commission_bps is not None:
        fee_ppm = {i.ticker: round(settings.commission_bps * 100) for i in recording.info.instruments}
    else:
        rates = tariff(recording.info.tariff)
        fee_ppm = {i.ticker: rates.ppm(i) for i in recording.info.instruments}
    wanted = {name.partition("_")[0] for name in config.data.instruments}
    tickers = [t for t in bundle.instruments if t in recording.info.days and (not wanted or t in wanted)]
    if not tickers:
        raise BundleError(
            "the recording holds none of the instruments the bundle was made for "
            f"({', '.join(bundle.instruments)})"
        )
    from_ns = args.from_ns if args.from_ns is not None else int(bundle.manifest["live_from_ns"])
    result = backtest.run(
        recording, bundle, engine_config(config, fee_ppm), from_ns=from_ns, to_ns=args.to_ns,
        fill_models=("queue", *(m for m in FILL_MODELS if m != "queue")), tickers=tickers,
        latency_ns=round(settings.latency_ms * MILLISECOND_NS), slippage_ticks=settings.slippage_ticks,
        max_orders=settings.max_orders,
    )  # fmt: skip
    for name, one in {result.fill_model: result, **result.other_fill_models}.items():
        print(_line(name, one))
    print(f"order list {result.order_list_hash[:16]}, data watermark {recording.info.watermark}")
    if recording.info.watermark == "SIMULATED" or bundle.watermark == "SIMULATED":
        print("SIMULATED data: not evidence of an edge")
    if args.output is not None:
        write_json(args.output, result.to_dict())
        print(f"wrote {args.output}")
    return 0


def _line(name: str, result: Any) -> str:
    trips = len(result.trips)
    share = f"{100 * result.wins / trips:.0f} %" if trips else "-"
    return (
        f"{name:<12} books {result.books}  signals {result.signals}  orders {result.orders}  fills "
        f"{result.fills}  "
        f"trips {trips} (won {share})  gross {roubles(result.gross_nano)}  fees "
        f"{roubles(result.fees_nano, signed=False)}  "
        f"net {roubles(result.net_nano)} RUB  drawdown {roubles(result.max_drawdown_nano, signed=False)}"
    )


def run_replay(config: RunnerConfig, args: argparse.Namespace) -> int:
    """Replays a session; exit code 1 when it decides otherwise than it did."""
    header = JournalReader(args.session_dir).header
    # A session lies in its runner's runtime folder, and so do the bundles that it pulled.
    pulled = args.session_dir.resolve().parents[1] / "models"
    folder = args.bundle or pulled / header.manifest_sha256
    bundle = Bundle.load(folder, _key(config), expect_schema=schema_hash())
    others = {
        path.name: Bundle.load(path, _key(config), expect_schema=schema_hash())
        for path in (pulled.iterdir() if pulled.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".") and path.name != bundle.sha256
    }
    result = replay.run(args.session_dir, bundle, other_bundles=others)
    print(
        f"session {result.session_id}: {result.events} events, {result.orders} orders, hash "
        f"{result.order_list_hash[:16]}"
    )
    if result.score_differences:
        print(f"{result.score_differences} scores differ; first: {result.first_score_difference}")
    if result.failures_not_repeated:
        print(f"{result.failures_not_repeated} inference failures of the session did not happen again")
    if result.torn:
        print("the last line is torn: the session ended abruptly")
    if not result.equal:
        print(f"DIFFERENT: {result.first_difference}")
        return 1
    print("equal: the same orders, cancels and queries in the same sequence")
    return 0
