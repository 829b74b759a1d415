"""One seeded stream and one policy for comparing engines: what a liquid share looks like, and a small quoter.

The stream: full ten-level snapshots with anonymous prints between them, in whole ticks and lots, each with an
exchange time and a receive time. The draws are made in a fixed order from one seed, so that every engine that
is given ``SNAPSHOTS`` and ``SEED`` sees the same 249 922 messages (``FINGERPRINT``).

The policy: at most one order of one lot. Buy at the best bid when the sizes lean by more than 0.3, sell at
the best ask when long, withdraw when the wanted price moved, never act while a request is on its way.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live.core.commands import CancelOrder, PlaceOrder
from live.simbroker import SimBroker
from market.latency import Latency
from market.matching import FillModel
from market.types import BUY, MILLISECOND_NS, SELL, Instrument

SNAPSHOTS, SEED, DEPTH = 200_000, 7, 10
BOOK, TRADE = 0, 1
FINGERPRINT = "6af32afb2ac7c393"
"""SHA-256 over the stream's arrays, first 16 digits."""

Stream = dict[str, NDArray[Any]]
TICKER = "TEST"
INSTRUMENT = Instrument("uid", TICKER, "TQBR", "FIGI", "share", 1, 10_000_000, 10_000_000)
ENTRY = Latency(entry_ns=20 * MILLISECOND_NS)
THERE_AND_BACK = Latency(entry_ns=20 * MILLISECOND_NS, response_ns=20 * MILLISECOND_NS)
FEE_PPM = 500
Message = tuple[int, int, int, Any]


def generate(snapshots: int = SNAPSHOTS, seed: int = SEED) -> Stream:
    """kind uint8 [m], exch_ns and recv_ns int64 [m], books int64 [n, 4, DEPTH] (bid px, bid qty, ask px, ask
    qty), trades int64 [k, 3] (price, lots, aggressor).
    """
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 400, 40_000)  # lots standing at each absolute tick
    u_move, u_spread, u_trade = (rng.random(snapshots) for _ in range(3))
    direction = rng.choice((-1, 1), snapshots)
    touched = rng.integers(-DEPTH, DEPTH + 1, (snapshots, 3))
    new_size = rng.integers(1, 400, (snapshots, 3))
    printed = rng.integers(1, 60, snapshots)
    gap_ns = (rng.exponential(120e6, snapshots) + 1e6).astype(np.int64)
    delay_ns = rng.integers(3_000_000, 9_000_000, 2 * snapshots)

    bid, spread, now_ns, last_ns = 30_000, 1, 1_700_000_000_000_000_000, 0
    kind: list[int] = []
    exch_ns: list[int] = []
    recv_ns: list[int] = []
    trades: list[tuple[int, int, int]] = []
    books = np.empty((snapshots, 4, DEPTH), np.int64)
    levels = np.arange(DEPTH)

    def stamp(what: int) -> None:
        nonlocal last_ns
        last_ns = max(last_ns + 1, now_ns + int(delay_ns[len(kind)]))
        kind.append(what)
        exch_ns.append(now_ns)
        recv_ns.append(last_ns)

    for i in range(snapshots):
        now_ns += int(gap_ns[i])
        if i and u_trade[i] < 0.25:
            sells = direction[i] < 0
            px = bid if sells else bid + spread
            lots = int(min(printed[i], size[px]))
            size[px] = max(1, size[px] - lots)
            trades.append((px, lots, -1 if sells else 1))
            stamp(TRADE)
            now_ns += 500_000
        if u_move[i] < 0.06:
            bid += int(direction[i])
            size[bid], size[bid + spread] = new_size[i, 0], new_size[i, 1]
        if u_spread[i] < 0.02:
            spread = 3 - spread
        size[bid + touched[i]] = new_size[i]
        bid_px, ask_px = bid - levels, bid + spread + levels
        books[i] = bid_px, size[bid_px], ask_px, size[ask_px]
        stamp(BOOK)
    return {
        "kind": np.array(kind, np.uint8), "exch_ns": np.array(exch_ns, np.int64),
        "recv_ns": np.array(recv_ns, np.int64), "books": books, "trades": np.array(trades, np.int64),
    }  # fmt: skip


def fingerprint(stream: Stream) -> str:
    digest = hashlib.sha256()
    for name in ("kind", "exch_ns", "recv_ns", "books", "trades"):
        digest.update(np.ascontiguousarray(stream[name]).tobytes())
    return digest.hexdigest()[:16]


def messages(stream: Stream) -> list[Message]:
    """(kind, exchange time, receive time, four tuples of levels or a print), as plain Python."""
    books: Iterator[Any] = iter(stream["books"].tolist())
    trades: Iterator[Any] = iter(stream["trades"].tolist())
    return [
        (
            kind,
            exch,
            recv,
            tuple(map(tuple, next(books))) if kind == BOOK else tuple(next(trades)),
        )
        for kind, exch, recv in zip(
            *(stream[k].tolist() for k in ("kind", "exch_ns", "recv_ns")), strict=True
        )
    ]


class Quoter:
    """The policy of ``peer_stream``, on the simulated broker."""

    def __init__(self, broker: SimBroker, *, on_prints: bool) -> None:
        self.broker = broker
        self.on_prints = on_prints
        self.book: Any = None
        self.orders = self.fills = self.position = 0
        self.live: PlaceOrder | None = None
        self.in_flight = False

    def see(self, message: Message) -> None:
        """A message has been received, and before it what the broker had to say."""
        kind, _, now_ns, content = message
        self.hear(now_ns)
        if kind == BOOK:
            self.book = content
        if kind == BOOK or (self.on_prints and self.book is not None):
            self.decide(self.book, now_ns)

    def hear(self, now_ns: int) -> None:
        for update in self.broker.poll(now_ns):
            if self.live is None or update.client_order_id != self.live.client_order_id:
                continue  # the answer to a cancel that came too late
            self.fills += len(update.fills)
            self.position += self.live.side * sum(fill.lots for fill in update.fills)
            self.in_flight = False
            if update.status in ("FILLED", "CANCELLED"):
                self.live = None

    def decide(self, book: Any, now_ns: int) -> None:
        bid_px, bid_qty, ask_px, ask_qty = book
        side = price = 0
        if self.position > 0:
            side, price = SELL, ask_px[0]
        elif bid_qty[0] - ask_qty[0] > 0.3 * (bid_qty[0] + ask_qty[0]):
            side, price = BUY, bid_px[0]
        if self.live is None:
            if side:
                self.orders += 1
                self.live = PlaceOrder(
                    "", str(self.orders), TICKER, side, 1, "limit", price, "day", False, ""
                )
                self.broker.send(self.live, now_ns)
                self.in_flight = True
        elif not self.in_flight and price != self.live.price_ticks:
            self.broker.send(CancelOrder(self.live.client_order_id, ""), now_ns)
            self.in_flight = True


def replay(
    feed: list[Message], fills: FillModel, latency: Latency, *, as_hftbacktest: bool = False
) -> Quoter:
    """``as_hftbacktest``: the exchange has the market at the exchange's time, we when we receive it, and the
    policy decides on prints too, as that engine's runner was set up. Else it is one time for both, and books
    only.
    """
    broker = SimBroker({TICKER: INSTRUMENT}, {TICKER: FEE_PPM}, latency, fills=fills)
    quoter = Quoter(broker, on_prints=as_hftbacktest)
    on_the_way: deque[Message] = deque()
    for message in feed:
        kind, exch_ns, recv_ns, content = message
        while on_the_way and on_the_way[0][2] <= exch_ns:
            quoter.see(on_the_way.popleft())
        now_ns = exch_ns if as_hftbacktest else recv_ns
        if kind == BOOK:
            broker.on_book(TICKER, *content, now_ns)
        else:
            broker.on_trade(TICKER, *content, now_ns)
        if as_hftbacktest:
            on_the_way.append(message)
        else:
            quoter.see(message)
    for message in on_the_way:
        quoter.see(message)
    return quoter
