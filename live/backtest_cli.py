"""`live-runner backtest` and `live-runner replay`: the engine's two other drivers on the command line."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from features.schema import schema_hash
from live import backtest, backtest_page, replay
from live import model as models_
from live.backtest_assumptions import Assumptions, sensitivity
from live.backtest_result import BacktestResult
from live.config import backtest_latency, engine_config
from live.config_schema import RunnerConfig
from live.journal import JournalReader
from live.reporting import roubles, write_json
from market.errors import BundleError
from market.fees import tariff
from market.importers import ingest
from market.matching import FILL_MODELS, QueueModel
from market.recording import Recording
from market.types import MILLISECOND_NS, NANO
from models.bundle import Bundle


def _key(config: RunnerConfig) -> Path | None:
    """The verification key, None (a look at an unsigned bundle) where there is none."""
    path = Path(config.model.verification_key) if config.model.verification_key else None
    return path if path is not None and path.exists() else None


def run(config: RunnerConfig, args: argparse.Namespace) -> int:
    """Backtests a bundle under all three fill models, prints what a person compares, writes the report."""
    settings = config.backtest
    bundle = _bundle(config, args.bundle)
    with tempfile.TemporaryDirectory(prefix="scalper-backtest-") as scratch:
        recording = dataset(args.dataset or Path(settings.dataset_path), Path(scratch) / "recording")
        fee_ppm = _fees(settings.commission_bps, recording)
        wanted = {name.partition("_")[0] for name in config.data.instruments}
        tickers = [t for t in bundle.instruments if t in recording.info.days and (not wanted or t in wanted)]
        if not tickers:
            raise BundleError(
                f"the dataset holds {', '.join(recording.info.days)}, none of the instruments the bundle was "
                f"made for ({', '.join(bundle.instruments)})"
            )
        from_ns, notes = unseen(recording, bundle, args.from_ns)
        if recording.info.watermark == "SIMULATED" or bundle.watermark == "SIMULATED":
            notes.append("SIMULATED data: not evidence of an edge")
        queue: QueueModel = "probabilistic" if settings.queue_model == "probabilistic" else "risk_averse"
        result = backtest.run(
            recording, bundle, engine_config(config, fee_ppm), from_ns=from_ns, to_ns=args.to_ns,
            fill_models=("queue", *(m for m in FILL_MODELS if m != "queue")), queue=queue, tickers=tickers,
            latency=backtest_latency(settings), slippage_ticks=settings.slippage_ticks,
            max_orders=settings.max_orders, vary=sensitivity if args.sensitivity else None,
            progress=None if args.quiet or args.json else Progress(),
        )  # fmt: skip
    if args.output is not None:
        write_report(args.output, result, config, notes)
    if args.json:
        print(json.dumps(report(result, config, notes), indent=1))
        return 0
    print("\n".join(lines(result)))
    print(f"order list {result.order_list_hash[:16]}, data watermark {result.watermark}")
    for note in notes:
        print(note)
    if args.output is not None:
        print(f"wrote {args.output} and {args.output.with_suffix('.html')}")
    return 0


def dataset(path: Path, scratch: Path) -> Recording:
    """A recording, or anything that can be imported (JSON lines, Parquet tables, captures): converted into
    ``scratch``. Raises RecordingError.
    """
    if (path / "recording.json").is_file():
        return Recording.open(path)
    return ingest(path, scratch)[0]


def unseen(recording: Recording, bundle: Bundle, from_ns: int | None) -> tuple[int | None, list[str]]:
    """(where to begin, what the reader must know). By default what the model never saw."""
    if from_ns is not None:
        return from_ns, []
    trained_from_ns = int(bundle.manifest["trained_from_ns"])
    live_from_ns = int(bundle.manifest["live_from_ns"])
    first_ns, last_ns = _span(recording)
    if first_ns < live_from_ns <= last_ns:
        return live_from_ns, []
    if last_ns < live_from_ns and first_ns >= trained_from_ns:
        return None, [
            "IN SAMPLE: the model was made from this time; the result says nothing about the future"
        ]
    return None, []


def _span(recording: Recording) -> tuple[int, int]:
    """Receive times of the first and the last book."""
    first, last = [], []
    for ticker, days in recording.info.days.items():
        first.append(int(recording.read(ticker, days[0]).books.recv_ns[0]))
        last.append(int(recording.read(ticker, days[-1]).books.recv_ns[-1]))
    return min(first), max(last)


def _bundle(config: RunnerConfig, folder: Path | None) -> Bundle:
    """The bundle in ``folder``, else the one behind ``model.alias``."""
    if folder is None:
        return models_.fetch(config, config.model.alias).bundle
    return Bundle.load(folder, _key(config), expect_schema=schema_hash())


def _fees(commission_bps: float | None, recording: Recording) -> dict[str, int]:
    if commission_bps is not None:
        return {i.ticker: round(commission_bps * 100) for i in recording.info.instruments}
    rates = tariff(recording.info.tariff)
    return {i.ticker: rates.ppm(i) for i in recording.info.instruments}


def report(result: BacktestResult, config: RunnerConfig, notes: list[str]) -> dict[str, Any]:
    """The JSON report: what people look for first, then everything."""
    settings = config.backtest
    return {
        "initial_capital": settings.initial_capital,
        "gross_rub": result.gross_nano / NANO,
        "fees_rub": result.fees_nano / NANO,
        "net_rub": result.net_nano / NANO,
        "net_pct_of_capital": 100 * result.net_nano / NANO / settings.initial_capital,
        "profitable_share": backtest_page.profitable_share(result),
        "max_orders": settings.max_orders,
        "fill_models": {name: one.figures() for name, one in result.by_fill_model.items()},
        "notes": notes,
        **result.to_dict(),
    }


def write_report(path: Path, result: BacktestResult, config: RunnerConfig, notes: list[str]) -> None:
    """``path`` as JSON, and a page with plots beside it."""
    write_json(path, report(result, config, notes))
    title = f"Backtest of bundle {result.manifest_sha256[:12]} on {', '.join(result.tickers)}"
    if result.truncated:
        notes = [*notes, f"TRUNCATED: backtest.max_orders = {config.backtest.max_orders} ended it early"]
    page = backtest_page.render(
        result, title=title, initial_capital=config.backtest.initial_capital, notes=notes
    )
    backtest_page.write(path.with_suffix(".html"), page)


class Progress:
    """A line on the terminal, rewritten at most twice a second; silent where nobody looks."""

    def __init__(self) -> None:
        self._told = 0.0
        self._visible = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._visible and now - self._told >= 0.5:
            self._told = now
            print(f"\r{100 * done // max(1, total):3d} % of {total:,} events", end="\r", file=sys.stderr)


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
    if args.compare:
        return run_compare(config, args, bundle, others)
    result = replay.run(args.session_dir, bundle, other_bundles=others)
    if args.json:
        print(json.dumps(result.to_dict(), indent=1))
        return 0 if result.equal else 1
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


def run_compare(
    config: RunnerConfig, args: argparse.Namespace, bundle: Bundle, others: dict[str, Bundle]
) -> int:
    """The session beside a simulation of the same hours; exit code 1 when it decides otherwise than it
    did.
    """
    from live import compare

    found = compare.compare(
        args.session_dir, Path(config.storage.path), bundle, others, tariff=config.broker.tariff
    )
    print(json.dumps(found, indent=1) if args.json else "\n".join(compare.lines(found)))
    return 0 if found["decisions"]["equal"] else 1
