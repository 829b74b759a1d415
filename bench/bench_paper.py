"""How late the paper exchange's books are: 1,000 a second, 20 levels, over TLS, to one client process.

Run from the project's root: ``python bench/run.py paper``. The lateness of a book is the moment at which the
client has it parsed, less the moment at which the schedule has it; both processes read the same monotonic
clock. The server is tied to one core. The peer is the same server with every book built as an ordinary
protobuf message when its moment has come.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from market.contract import invest_pb2 as pb
from market.contract.convert import to_ns
from market.contract.methods import stub
from market.paper import Endpoint, PaperMarket, PaperServer, messages_market, streams
from market.paper.book_bytes import BookEncoder
from market.types import DEPTH, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

RATE = 1_000
SECONDS = 10
WARM_UP_S = 2
ROUNDS = 3
"""In turns, the quieter one counts: on a rented core the host takes tenths of a second for itself, and then
both are late alike."""
START_NS = 1_768_460_400 * SECOND_NS
SHARE = Instrument(
    "11111111-aaaa-4000-8000-000000000001", "SIMP", "TQBR", "FIGI0SIMP", "share", 10, 10_000_000, 100_000_000
)


def market() -> PaperMarket:
    """Books of 20 levels a side; from one to the next a few sizes change, now and then the price."""
    n = RATE * SECONDS
    random = np.random.default_rng(1)
    books = Books.empty(n)
    books.exch_ns[:] = books.recv_ns[:] = START_NS + np.arange(n) * (SECOND_NS // RATE)
    mid = 30_000 + np.cumsum(random.integers(-1, 2, n) * (random.random(n) < 0.1))
    level = np.arange(DEPTH)
    books.bid_px[:], books.ask_px[:] = mid[:, None] - level, mid[:, None] + 1 + level
    for sizes in (books.bid_qty, books.ask_qty):
        sizes[0] = random.integers(1, 500, DEPTH)
        for row in range(1, n):
            sizes[row] = sizes[row - 1]
            sizes[row, random.integers(0, DEPTH, 3)] = random.integers(1, 500, 3)
    return PaperMarket((InstrumentDay(SHARE, "2026-01-15", books, Trades.empty()),))


class Ordinary:
    """Books as anybody would build them."""

    def __init__(self, listing: Any, depth: int) -> None:
        self._listing, self._depth = listing, depth

    def encode(self, row: int) -> bytes:
        book = messages_market.book(self._listing, row, self._depth)
        return pb.MarketDataResponse(orderbook=book).SerializeToString()


# ---------------------------------------------------------------- the server's process


def settle() -> None:
    """What lives for ever is not looked at again by the collector, as in the exchange and the runner. One
    pass over everything that is imported here takes 20 ms and more: twenty books late, one after the other.
    """
    gc.collect()
    gc.freeze()


async def serve(endpoint_path: Path, *, plain: bool) -> None:
    if plain:
        streams.BookEncoder = Ordinary
        streams.MarketHub.prepare = lambda self, index, row: None
    os.sched_setaffinity(0, {0})
    server = PaperServer(market(), endpoint_path=endpoint_path)
    await server.start()
    settle()
    while not server.clock.running:
        await asyncio.sleep(0.05)
    await asyncio.sleep(WARM_UP_S)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(SECONDS - WARM_UP_S - 0.5)
    busy = (time.process_time() - cpu) / (time.monotonic() - wall)
    print(json.dumps({"started_ns": server.clock.started_monotonic_ns, "busy": busy}), flush=True)
    await asyncio.sleep(2)
    await server.stop()


# ---------------------------------------------------------------- the client's process


async def receive(endpoint: Endpoint) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Market times of the books, and the monotonic times at which they were there; int64 nanoseconds."""
    credentials = grpc.ssl_channel_credentials(Path(endpoint.ca_path).read_bytes())
    due, there = [], []
    settle()
    async with grpc.aio.secure_channel(endpoint.target, credentials) as channel:
        stream = stub(channel, "MarketDataStreamService/MarketDataStream")(
            metadata=(("authorization", f"Bearer {endpoint.token}"),)
        )
        await stream.write(
            pb.MarketDataRequest(
                subscribe_order_book_request=pb.SubscribeOrderBookRequest(
                    subscription_action=pb.SUBSCRIPTION_ACTION_SUBSCRIBE,
                    instruments=[pb.OrderBookInstrument(instrument_id=SHARE.uid, depth=20)],
                )
            )
        )
        while (message := await stream.read()).WhichOneof("payload") != "trading_status":
            if message.HasField("orderbook"):
                now = time.monotonic_ns()
                due.append(to_ns(message.orderbook.time))
                there.append(now)
        stream.cancel()
    return np.array(due), np.array(there)


def measure(*, plain: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "endpoint.json"
        command = [sys.executable, __file__, "--serve", str(path), *(["--plain"] if plain else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                while not path.exists():
                    if server.poll() is not None:
                        raise RuntimeError("the server's process ended before it served")
                    time.sleep(0.05)
                due, there = asyncio.run(receive(Endpoint.read(path)))
                assert server.stdout is not None
                told = json.loads(server.stdout.readline())
            finally:
                server.terminate()
    late_ms = (there - told["started_ns"] - (due - START_NS)) / 1e6
    late_ms = late_ms[due >= START_NS + WARM_UP_S * SECOND_NS]
    return {
        "books": len(late_ms),
        "p50": float(np.median(late_ms)),
        "p99": float(np.percentile(late_ms, 99)),
        "worst": float(late_ms.max()),
        "busy": 100 * told["busy"],
    }


def encode_us() -> dict[str, float]:
    """Microseconds of CPU to make one book of 20 levels, best of nine passes over 1,000 of them."""
    with tempfile.TemporaryDirectory() as folder:
        (listing,) = PaperServer(market(), endpoint_path=Path(folder) / "e.json").exchange.listings

    def best(encoder: Any) -> float:
        times = []
        for _ in range(9):
            began = time.process_time()
            for row in range(1_000):
                encoder.encode(row)
            times.append((time.process_time() - began) * 1e3)
        return min(times)

    return {"levels kept": best(BookEncoder(listing, 20)), "ordinary protobuf": best(Ordinary(listing, 20))}


def main() -> None:
    for name, us in encode_us().items():
        print(f"  one book, {name:<18} {us:7.1f} us of CPU")
    ways = (("paper exchange", False), ("ordinary protobuf", True))
    rounds = [{name: measure(plain=plain) for name, plain in ways} for _ in range(ROUNDS)]
    for name, _ in ways:
        got = min((one[name] for one in rounds), key=lambda figures: figures["p99"])
        print(
            f"  {RATE} books/s, {name:<18} p50 {got['p50']:6.2f} ms  p99 {got['p99']:6.2f} ms  "
            f"worst {got['worst']:7.2f} ms behind schedule (best of {ROUNDS}), "
            f"server {got['busy']:3.0f} % of one core "
            f"({got['books']:.0f} books, {SHARE.tick_nano / NANO:g} RUB tick, TLS)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, help="the server's process: endpoint file to write")
    parser.add_argument("--plain", action="store_true", help="with --serve: the peer")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, plain=arguments.plain))
    else:
        main()
