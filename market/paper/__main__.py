"""``python -m market.paper``: serve a recording as if it were the broker."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from market.errors import ScalperError
from market.paper.server import STATS_FILE, PaperServer
from market.recording import Recording
from market.types import NANO, SECOND_NS

_DESCRIPTION = """\
Serves the T-Invest API (gRPC over TLS, loopback only) from a recording, so that the very same client code
that trades with the broker can trade with the past. Market time stands still until the first client
subscribes to market data, then runs --speed times as fast as the wall. At the end of the recording every
instrument stops trading and the exchange keeps answering until Ctrl-C.
"""
_EPILOG = """\
The endpoint file tells clients where and how: target, ca_path (give it as the root certificate), token (send
it as `authorization: Bearer TOKEN`), account_id. For the official SDK set GRPC_DEFAULT_SSL_ROOTS_FILE_PATH to
ca_path before it connects.

examples:
  python -m market.paper --recording data/recording --speed 60
  python -m market.paper --recording data/recording --tickers SIMP --cash-rub 300000 --port 50051
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m market.paper", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--recording", type=Path, required=True, metavar="DIR", help="folder with recording.json")
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
    add("--enforce-limits", action="store_true", help="refuse requests beyond the broker's limits per minute")
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


async def serve(arguments: argparse.Namespace) -> None:
    recording = Recording.open(arguments.recording)
    server = PaperServer(
        recording,
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
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    endpoint = await server.start()
    tickers = ", ".join(i.ticker for i in server.tape.instruments)
    print(
        f"paper exchange ready at {endpoint.target}: {arguments.recording} "
        f"({endpoint.watermark}; {tickers}), "
        f"{_time(endpoint.market_start_ns)} to {_time(endpoint.market_end_ns)}, speed x{endpoint.speed:g}; "
        f"clients read {arguments.endpoint}",
        flush=True,
    )
    try:
        await server.run_until(stop)
    finally:
        await server.stop()
        print(summary(server.stats()), flush=True)
        print(f"  statistics: {arguments.endpoint.with_name(STATS_FILE)}", flush=True)


def main() -> int:
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
