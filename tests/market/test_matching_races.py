"""Orders, cancels and the market racing each other: the simulated broker against a plain one; delays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_streams import FEE_PPM, INSTRUMENT, LOTS, SIDES, TIFS, Event, only_market, queues
from reference_broker import ReferenceBroker
from reference_matching import ReferenceMatching

from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.simbroker import SimBroker
from market.latency import MAX_LATENCY_NS, Latency
from market.matching import FILL_MODELS, QUEUE_MODELS
from market.types import BUY, MILLISECOND_NS, SELL

DELAYS = st.integers(0, 5)
LATENCIES = st.builds(
    Latency, feed_ns=st.just(0), entry_ns=DELAYS, response_ns=DELAYS, cancel_ns=DELAYS,
    jitter_ns=st.integers(0, 3), seed=st.integers(0, 5),
)  # fmt: skip
NAMES = st.integers(0, 6)
PRICES = st.one_of(st.none(), st.sampled_from((99, 100, 102, 103)))
STEPS = st.one_of(
    queues().map(lambda event: (only_market([event]) or [("wait",)])[0]),
    st.tuples(st.just("place"), NAMES, SIDES, LOTS, PRICES, TIFS),
    st.tuples(st.just("cancel"), NAMES),
    st.tuples(st.just("query"), NAMES),
    st.just(("wait",)),
)
TICKER = INSTRUMENT.ticker


def told(updates: list[Any]) -> list[tuple]:
    return [
        (u.now_ns, u.client_order_id, u.status, u.lots_executed, [(f.price_ticks, f.lots) for f in u.fills])
        for u in updates
    ]


def play(broker: SimBroker, plain: ReferenceBroker, step: Event, now: int) -> None:
    match step:
        case ("book", bids, asks):
            sides = [tuple(level[j] for level in side) for side in (bids, asks) for j in (0, 1)]
            broker.on_book(TICKER, *sides, now)
            plain.book(bids, asks, now)
        case ("trade", px, qty, side):
            broker.on_trade(TICKER, px, qty, side, now)
            plain.trade(px, qty, side, now)
        case ("place", n, side, lots, price, tif):
            kind, tif = ("limit", tif) if price else ("market", "fak")
            broker.send(PlaceOrder("", f"{n}", TICKER, side, lots, kind, price, tif, False, ""), now)
            plain.place(f"{n}", (side, lots, price, tif), now)
        case ("cancel", n):
            broker.send(CancelOrder(f"{n}", ""), now)
            plain.cancel(f"{n}", now)
        case ("query", n):
            broker.send(QueryOrder(f"{n}", 1), now)
            plain.query(f"{n}", now)


@pytest.mark.parametrize("fills", FILL_MODELS)
@settings(max_examples=150, deadline=None)
@given(
    queue=st.sampled_from(QUEUE_MODELS), latency=LATENCIES,
    steps=st.lists(st.tuples(st.integers(0, 3), STEPS), max_size=40),
)  # fmt: skip
def test_every_race_ends_as_the_plain_rules_say(
    fills: Any, queue: Any, latency: Latency, steps: list[tuple[int, Event]]
) -> None:
    broker = SimBroker({TICKER: INSTRUMENT}, {TICKER: FEE_PPM}, latency, fills=fills, queue=queue)
    plain = ReferenceBroker(ReferenceMatching(fills, queue), latency)
    now = 0
    for wait, step in steps:
        now += wait
        play(broker, plain, step, now)
        assert told(broker.poll(now)) == plain.heard(now), step
    assert told(broker.poll(now + 1_000)) == plain.heard(now + 1_000)
    assert broker.next_ns() is None
    assert broker.positions[TICKER] == sum(known.side * known.executed for known in plain.known.values())


BID, ASK = ((100,), (5,)), ((102,), (5,))


def resting(latency: Latency) -> SimBroker:
    """A buy of 2 at 100 behind 5 lots, sent at 0."""
    broker = SimBroker({TICKER: INSTRUMENT}, {TICKER: FEE_PPM}, latency)
    broker.on_book(TICKER, *BID, *ASK, 0)
    broker.send(PlaceOrder("", "a", TICKER, BUY, 2, "limit", 100, "day", False, ""), 0)
    return broker


def test_a_deal_before_the_cancel_arrives_stands() -> None:
    broker = resting(Latency(entry_ns=10, response_ns=1, cancel_ns=20))
    broker.send(CancelOrder("a", ""), 15)  # reaches the exchange at 35
    broker.on_trade(TICKER, 100, 6, SELL, 34)
    broker.on_trade(TICKER, 100, 6, SELL, 36)
    assert told(broker.poll(100)) == [
        (11, "a", "NEW", 0, []), (35, "a", "PARTIAL", 1, [(100, 1)]), (36, "a", "CANCELLED", 1, []),
    ]  # fmt: skip


def test_a_cancel_waits_until_its_order_was_answered_as_the_executor_does() -> None:
    broker = resting(Latency(entry_ns=50, response_ns=10, cancel_ns=5))
    broker.send(CancelOrder("a", ""), 1)
    assert told(broker.poll(1_000)) == [(60, "a", "NEW", 0, []), (75, "a", "CANCELLED", 0, [])]


def test_an_order_that_arrives_with_a_book_meets_it() -> None:
    broker = SimBroker({TICKER: INSTRUMENT}, {TICKER: FEE_PPM}, Latency(entry_ns=10))
    broker.on_book(TICKER, *BID, *ASK, 0)
    broker.send(PlaceOrder("", "a", TICKER, BUY, 1, "market", None, "fak", False, ""), 0)
    broker.send(PlaceOrder("", "b", TICKER, BUY, 1, "market", None, "fak", False, ""), 1)
    broker.on_book(TICKER, *BID, (103,), (5,), 11)
    assert [update[-1] for update in told(broker.poll(11))] == [[(102, 1)], [(103, 1)]]


def test_no_answer_overtakes_another() -> None:
    """They come through one stream: executed lots are never told out of order, however long one takes."""
    broker = SimBroker({TICKER: INSTRUMENT}, {TICKER: FEE_PPM}, Latency(jitter_ns=1_000, seed=3))
    broker.on_book(TICKER, (100,), (1,), *ASK, 0)
    broker.send(PlaceOrder("", "a", TICKER, BUY, 30, "limit", 100, "day", False, ""), 0)
    for k in range(30):
        broker.on_trade(TICKER, 100, 2, SELL, 5_000 + k)
    executed = [update[3] for update in told(broker.poll(20_000))]
    assert executed == sorted(executed) and executed[0] == 0 and executed[-1] == 30


def test_jitter_is_a_hash_within_its_bounds() -> None:
    latency = Latency(feed_ns=5, entry_ns=100, response_ns=7, jitter_ns=50, seed=1)
    delays = [latency.entry(k) for k in range(2_000)]
    assert delays == [latency.entry(k) for k in range(2_000)]
    assert min(delays) == 100 and max(delays) == 150
    assert 120 < sum(delays) / len(delays) < 130
    assert delays != [latency.cancel(k) for k in range(2_000)]
    assert delays != [Latency(entry_ns=100, jitter_ns=50, seed=2).entry(k) for k in range(2_000)]
    assert [Latency(entry_ns=9).entry(k) for k in range(3)] == [9, 9, 9]


def test_delays_in_milliseconds_and_a_slower_way() -> None:
    latency = Latency.of_ms(100, feed=0.5, response=20)
    assert (latency.feed_ns, latency.entry_ns, latency.response_ns, latency.cancel_ns) == (
        500_000, 100 * MILLISECOND_NS, 20 * MILLISECOND_NS, 100 * MILLISECOND_NS,
    )  # fmt: skip
    assert Latency.of_ms(100, cancel=0).cancel_ns == 0
    slower = latency.slower(250 * MILLISECOND_NS)
    assert (slower.entry_ns, slower.cancel_ns) == (350 * MILLISECOND_NS, 350 * MILLISECOND_NS)
    assert (slower.feed_ns, slower.response_ns) == (latency.feed_ns, latency.response_ns)


@pytest.mark.parametrize("name", ["feed_ns", "entry_ns", "response_ns", "cancel_ns", "jitter_ns"])
@pytest.mark.parametrize("value", [-2, MAX_LATENCY_NS + 1])
def test_an_impossible_delay_is_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Latency(**{name: value})
