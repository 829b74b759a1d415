"""`live-runner backtest` and `live-runner replay`: the engine's two other drivers on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from features.schema import schema_hash
from live import backtest, replay
from live.backtest_assumptions import Assumptions, sensitivity
from live.backtest_result import BacktestResult
from live.config import backtest_latency, engine_config
from live.config_schema import RunnerConfig
from live.journal import JournalReader
from live.reporting import roubles, write_json
from market.errors import BundleError
from market.fees import tariff
from market.matching import FILL_MODELS, QueueModel
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
    queue: QueueModel = "probabilistic" if settings.queue_model == "probabilistic" else "risk_averse"
    result = backtest.run(
        recording, bundle, engine_config(config, fee_ppm), from_ns=from_ns, to_ns=args.to_ns,
        fill_models=("queue", *(m for m in FILL_MODELS if m != "queue")), queue=queue, tickers=tickers,
        latency=backtest_latency(settings), slippage_ticks=settings.slippage_ticks,
        max_orders=settings.max_orders, vary=sensitivity if args.sensitivity else None,
    )  # fmt: skip
    print("\n".join(lines(result)))
    print(f"order list {result.order_list_hash[:16]}, data watermark {recording.info.watermark}")
    if recording.info.watermark == "SIMULATED" or bundle.watermark == "SIMULATED":
        print("SIMULATED data: not evidence of an edge")
    if args.output is not None:
        write_json(args.output, result.to_dict())
        print(f"wrote {args.output}")
    return 0


_COLUMN = 15


def lines(result: BacktestResult) -> list[str]:
    """The three fill models in columns, and the variants in rows where there are any."""
    found = result.by_fill_model
    columns = [(f"fills: {name}", found[name]) for name in FILL_MODELS if name in found]
    rows = {
        "signals": [f"{r.signals:,}" for _, r in columns],
        "orders": [f"{r.orders:,}" for _, r in columns],
        "deals": [f"{r.fills:,}" for _, r in columns],
        "lots taken": [f"{r.taken_lots:,}" for _, r in columns],
        "lots rested": [f"{r.rested_lots:,}" for _, r in columns],
        "round trips": [f"{len(r.trips):,}" for _, r in columns],
        "... won": [f"{100 * r.wins / len(r.trips):.0f} %" if r.trips else "-" for _, r in columns],
        "gross, RUB": [roubles(r.gross_nano) for _, r in columns],
        "fees, RUB": [roubles(r.fees_nano, signed=False) for _, r in columns],
        "net, RUB": [roubles(r.net_nano) for _, r in columns],
        "drawdown, RUB": [roubles(r.max_drawdown_nano, signed=False) for _, r in columns],
    }
    width = max(len(title) for title, _ in columns) + 2
    out = [f"{result.books:,} books, {result.prints:,} prints, {_said(result.assumed)}"]
    out.append(" " * _COLUMN + "".join(f"{title:>{width}}" for title, _ in columns))
    out += [
        f"{name:<{_COLUMN}}" + "".join(f"{cell:>{width}}" for cell in cells) for name, cells in rows.items()
    ]
    for name, one in result.variants.items():
        out.append(
            f"{name:<22} orders {one.orders:,}, deals {one.fills:,}, round trips {len(one.trips):,}, "
            f"net {roubles(one.net_nano)} RUB"
        )
    if any(r.truncated for _, r in columns):
        out.append("TRUNCATED: backtest.max_orders ended at least one of them early")
    return out


def _said(assumed: Assumptions) -> str:
    ms = {
        name: getattr(assumed.latency, f"{name}_ns") / MILLISECOND_NS
        for name in ("feed", "entry", "response", "cancel", "jitter")
    }
    delays = ", ".join(f"{name} {value:g}" for name, value in ms.items() if value or name != "jitter")
    return f"delays in ms: {delays}; queue {assumed.queue}, slippage {assumed.slippage_ticks} ticks"


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
