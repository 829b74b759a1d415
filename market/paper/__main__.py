"""``python -m market.paper``: serve a recording, or a simulated market, as if it were the broker."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from market.errors import ConfigError, ScalperError
from market.matching import FillModel, QueueModel
from market.paper import fault_command
from market.paper.calendar import Calendar
from market.paper.faults import FaultPlan
from market.paper.hints import pointing, write_roots
from market.paper.server import STATS_FILE, PaperServer
from market.paper.tape import PaperMarket
from market.recording import Recording
from market.types import NANO, SECOND_NS

_DESCRIPTION = """\
Serves the T-Invest API (gRPC over TLS, loopback only) from a recording or from a market simulated on the
spot, so that the very same client code that trades with the broker can trade with the past. Market time
stands still until the first client subscribes to market data, then runs --speed times as fast as the wall.
At the end of the recording every instrument stops trading and the exchange keeps answering until Ctrl-C.
"""
_EPILOG = """\
The endpoint file tells clients where and how: target, ca_path (give it as the root certificate), token (send
it as `authorization: Bearer TOKEN`), account_id. For the official SDK set GRPC_DEFAULT_SSL_ROOTS_FILE_PATH to
ca_path before it connects.

examples:
  python -m market.paper --recording data/recording --speed 60
  python -m market.paper --recording data/recording --tickers SIMP --cash-rub 300000 --port 50051
  python -m market.paper --simulate --hours 2 --seed 5 --conflate-ms 100 --enforce-limits
  python -m market.paper --simulate --faults faults.json --wire-faults --write-roots roots.pem
  python -m market.paper fault delay --ms 300 --seconds 20     (a running one; see `fault --help`)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m market.paper", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--recording", type=Path, metavar="DIR", help="folder with recording.json")
    source.add_argument("--simulate", action="store_true", help="a simulated market instead of a recording")
    add("--preset", default="", metavar="NAME", help="with --simulate: preset of every instrument")
    add("--hours", type=float, default=1.0, metavar="H", help="with --simulate: length (default 1)")
    add("--seed", type=int, default=1, metavar="N", help="with --simulate: another seed, another market")
    add("--from-ns", type=int, metavar="N", help="first market time, nanoseconds UTC (default: all)")
    add("--to-ns", type=int, metavar="N", help="market time to end before, nanoseconds UTC (default: all)")
    add("--speed", type=float, default=1.0, metavar="X", help="market seconds per wall second (default 1)")
    add("--tickers", default="", metavar="A,B", help="only these instruments (default: all)")
    add(
        "--endpoint", type=Path, default=Path("runtime/paper/endpoint.json"), metavar="FILE",
        help="file for clients, certificate and statistics beside it (default runtime/paper/endpoint.json)",
    )  # fmt: skip
    add("--host", default="localhost", help="localhost or 127.0.0.1 (default localhost)")
    add("--port", type=int, default=0, help="0 takes any free port (default)")
    add("--cash-rub", type=int, default=1_000_000, metavar="N", help="starting cash (default 1000000)")
    add(
        "--entry-latency-ms", type=int, default=20, metavar="N",
        help="market milliseconds between an order's arrival and its execution (default 20)",
    )  # fmt: skip
    add(
        "--conflate-ms", type=int, default=0, metavar="N",
        help="at most one book per subscription in N market ms; the broker sends one in 100 (default 0: all)",
    )  # fmt: skip
    add(
        "--enforce-limits", action="store_true",
        help="refuse what is beyond the broker's limits: requests, streams, subscriptions, empty streams",
    )  # fmt: skip
    add(
        "--margin-confirmation", action="store_true",
        help="uncovered positions need confirm_margin_trade (else 30240), as for some of the broker's shares",
    )  # fmt: skip
    add("--fills", choices=get_args(FillModel), default="queue", help="fill model (default queue)")
    add("--queue", choices=get_args(QueueModel), default="risk_averse", help="default risk_averse")
    add(
        "--calendar", type=Path, metavar="FILE",
        help="JSON: days that are closed or open against the plain rule (weekends and fixed holidays rest)",
    )  # fmt: skip
    add("--faults", type=Path, metavar="FILE", help="JSON: what to do wrong from the start")
    add("--wire-faults", action="store_true", help="a relay in front of the port, for the fault half_open")
    add(
        "--write-roots", type=Path, metavar="FILE",
        help="write the public root certificates and the exchange's own into FILE",
    )  # fmt: skip
    return parser


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _rub(nano: int) -> str:
    kopecks = abs(nano) * 100 // NANO
    return f"{'-' if nano < 0 else ''}{kopecks // 100}.{kopecks % 100:02d} RUB"


def summary(stats: dict[str, Any]) -> str:
    """What happened, in three lines for a person."""
    positions = ", ".join(f"{t} {lots:+d} lots" for t, lots in stats["positions_lots"].items()) or "none"
    return (
        f"paper exchange stopped at {_time(stats['market_reached_ns'])}: "
        f"{stats['events_played']} of {stats['events_total']} events played, worst lag "
        f"{stats['worst_lag_market_ms']} ms of market time\n"
        f"  sent {stats['books_sent']} books ({stats['books_conflated']} more conflated) "
        f"and {stats['trades_sent']} trades\n"
        f"  {stats['orders']} orders, {stats['fills']} fills, fees {_rub(stats['fees_nano'])}, "
        f"result {_rub(stats['result_nano'])}, positions left: {positions}"
    )


def _source(arguments: argparse.Namespace) -> Recording | PaperMarket:
    if arguments.recording:
        return Recording.open(arguments.recording)
    from market.simulator import DEFAULT_SPECS, simulate_market  # compiles: only where it is asked for

    specs = [replace(spec, preset=arguments.preset or spec.preset) for spec in DEFAULT_SPECS]
    wanted = [ticker for ticker in arguments.tickers.split(",") if ticker]
    unknown = set(wanted) - {spec.ticker for spec in specs}
    if unknown:
        known = ", ".join(spec.ticker for spec in specs)
        raise ConfigError(f"--tickers {sorted(unknown)[0]}: the simulated market has {known}")
    days, _ = simulate_market(
        [spec for spec in specs if not wanted or spec.ticker in wanted],
        hours=arguments.hours,
        seed=arguments.seed,
    )
    return PaperMarket(tuple(days), source="simulator")


async def serve(arguments: argparse.Namespace) -> None:
    faults = FaultPlan.read(arguments.faults) if arguments.faults else None
    server = PaperServer(
        _source(arguments),
        endpoint_path=arguments.endpoint,
        speed=arguments.speed,
        tickers=[ticker for ticker in arguments.tickers.split(",") if ticker],
        from_ns=arguments.from_ns,
        to_ns=arguments.to_ns,
        host=arguments.host,
        port=arguments.port,
        cash_rub=arguments.cash_rub,
        entry_latency_ms=arguments.entry_latency_ms,
        conflate_ms=arguments.conflate_ms,
        enforce_limits=arguments.enforce_limits,
        faults=faults,
        fills=arguments.fills,
        queue=arguments.queue,
        wire_faults=arguments.wire_faults,
        margin_confirmation=arguments.margin_confirmation,
        calendar=Calendar.read(arguments.calendar) if arguments.calendar else None,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    endpoint = await server.start()
    # The market lies in memory for good: without this the collector walks through all of it now and then,
    # and books wait meanwhile.
    gc.collect()
    gc.freeze()
    if arguments.write_roots:
        write_roots(arguments.write_roots, Path(endpoint.ca_path))
    tickers = ", ".join(i.ticker for i in server.tape.instruments)
    print(
        f"paper exchange ready at {endpoint.target}: {arguments.recording or 'a simulated market'} "
        f"({endpoint.watermark}; {tickers}), "
        f"{_time(endpoint.market_start_ns)} to {_time(endpoint.market_end_ns)}, speed x{endpoint.speed:g}; "
        f"clients read {arguments.endpoint}\n"
        + pointing(endpoint, arguments.endpoint, arguments.write_roots),
        flush=True,
    )
    try:
        await server.run_until(stop)
    finally:
        await server.stop()
        print(summary(server.stats()), flush=True)
        print(f"  statistics: {arguments.endpoint.with_name(STATS_FILE)}", flush=True)


def main() -> int:
    if sys.argv[1:2] == ["fault"]:
        try:
            return fault_command.run(sys.argv[2:])
        except ScalperError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    arguments = _parser().parse_args()
    if arguments.speed <= 0:
        print(f"--speed {arguments.speed:g}: give a number above 0", file=sys.stderr)
        return ScalperError.exit_code
    try:
        asyncio.run(serve(arguments))
    except ScalperError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
