"""How fast the matching is, and what the fill models make of one and the same policy.

Run from the project's root: ``python bench/run.py matching``. Two measurements in one process:

* ``Matching`` with one resting order against the naive engine of the tests, the same books for both;
* the stream and the policy of ``peer_stream`` through the simulated broker of the backtest, a message being
  one snapshot or one print, in messages per second of CPU time. What other engines made of the same stream is
  printed beside it as it was measured once, elsewhere: the counts can be compared, the speeds only roughly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "market")]

import peer_stream  # noqa: E402
from peer_stream import ENTRY, FEE_PPM, INSTRUMENT, THERE_AND_BACK, messages, replay  # noqa: E402
from reference_matching import ReferenceMatching  # noqa: E402

from market.latency import Latency  # noqa: E402
from market.matching import FillModel, Matching  # noqa: E402
from market.types import BUY  # noqa: E402

REPETITIONS = 3
NAIVE_BOOKS = 20_000
PEERS = (
    ("plain Python loop, risk-averse queue", 1_458_121, 11_858, 1_878),
    ("plain Python loop, fills only across", None, None, 1_463),
    ("plain Python loop, any print at my price", None, None, 9_423),
    ("hftbacktest 2.4.4, Numba, diffs", 2_235_438, 11_765, 1_666),
    ("hftbacktest 2.4.4, Numba, full snapshots", 447_328, 11_765, 1_666),
    ("hftbacktest 2.4.4, interpreted, diffs", 38_985, 11_765, 1_666),
    ("nautilus_trader 1.221, ten levels", 33_529, 11_449, 1_413),
)
"""Name, messages per CPU second, orders, fills: measured once by others' runners on this stream and policy
(CPython 3.11, two shared cores, medians of three)."""


def best_cpu_s(work: Callable[[], object]) -> float:
    """Shortest of REPETITIONS runs, seconds of CPU time."""
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def resting(books: list[Any], *, naive: bool) -> Callable[[], None]:
    """Every book passes one buy order that waits where the best bid was; a new one follows a fill."""

    def fast() -> None:
        matching = Matching(INSTRUMENT, FEE_PPM)
        matching.on_book(*books[0], 0)
        matching.submit("a", BUY, 1, books[0][0][0], "day", 0)
        for book in books:
            if matching.on_book(*book, 0):
                matching.submit("a", BUY, 1, book[0][0], "day", 0)

    def plain() -> None:
        reference = ReferenceMatching()
        pairs = [(list(zip(b[0], b[1], strict=True)), list(zip(b[2], b[3], strict=True))) for b in books]
        reference.on_book(*pairs[0])
        reference.submit("a", BUY, 1, books[0][0][0], "day")
        for (bids, asks), book in zip(pairs, books, strict=True):
            if reference.on_book(bids, asks):
                reference.submit("a", BUY, 1, book[0][0], "day")

    return plain if naive else fast


def main() -> None:
    stream = peer_stream.generate()
    assert peer_stream.fingerprint(stream) == peer_stream.FINGERPRINT, "the stream is not the peers' stream"
    feed = messages(stream)
    books = [content for kind, _, _, content in feed if kind == peer_stream.BOOK]
    fast_s = best_cpu_s(resting(books, naive=False))
    short = books[:NAIVE_BOOKS]
    short_s, naive_s = best_cpu_s(resting(short, naive=False)), best_cpu_s(resting(short, naive=True))
    print(f"Matching, one resting order   {len(books) / fast_s:12,.0f} books/s of CPU (ten levels a side)")
    print(f"naive engine of the tests     {len(short) / naive_s:12,.0f} books/s of CPU, the same rules")
    print(f"ratio  Matching : naive       {naive_s / short_s:12,.0f} x")
    print(f"\n{len(feed):,} messages, the same policy   messages/CPU-s    orders     fills")
    ours: tuple[tuple[str, FillModel, Latency, bool], ...] = (
        ("queue", "queue", ENTRY, False), ("as hftbacktest was set up", "queue", THERE_AND_BACK, True),
        ("pessimistic", "pessimistic", ENTRY, False), ("optimistic", "optimistic", ENTRY, False),
    )  # fmt: skip
    for name, fills, latency, alike in ours:
        start = time.process_time()
        quoter = replay(feed, fills, latency, as_hftbacktest=alike)
        per_s = len(feed) / (time.process_time() - start)
        print(f"ours, {name:<36}{per_s:14,.0f}{quoter.orders:10,}{quoter.fills:10,}")
    print("measured once elsewhere:")
    for name, speed, orders, fills_n in PEERS:
        shown = [f"{value:,}" if value is not None else "-" for value in (speed, orders, fills_n)]
        print(f"{name:<42}{shown[0]:>14}{shown[1]:>10}{shown[2]:>10}")


if __name__ == "__main__":
    main()
