"""The real matching against the plain one, on random markets and random orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_matching import ReferenceMatching

from market.fees import fee_nano
from market.matching import UNKNOWN_AHEAD, Matching
from market.types import BUY, DEPTH, SELL, Instrument

FEE_PPM = 50
INSTRUMENT = Instrument("uid", "TEST", "TQBR", "FIGI", "share", 10, 10_000_000, 100_000_000)

PRICES = st.integers(95, 105)
SIDES = st.sampled_from((BUY, SELL))


@st.composite
def books(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], list[tuple[int, int]]]:
    """Uncrossed, possibly one-sided or empty, with few sizes so that levels often stay unchanged."""
    middle = draw(st.integers(96, 104))
    bids = draw(st.dictionaries(st.integers(90, middle), st.integers(1, 4), max_size=5))
    asks = draw(st.dictionaries(st.integers(middle + 1, 110), st.integers(1, 4), max_size=5))
    return ("book", sorted(bids.items(), reverse=True), sorted(asks.items()))


EVENTS = st.one_of(
    books(),
    st.tuples(st.just("trade"), PRICES, st.integers(1, 6), st.sampled_from((BUY, SELL, 0))),
    st.tuples(
        st.just("order"),
        SIDES,
        st.integers(1, 8),
        st.one_of(st.none(), PRICES),
        st.sampled_from(("day", "fak", "fok")),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
)


def padded(levels: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    px, qty = np.zeros(DEPTH, np.int32), np.zeros(DEPTH, np.int32)
    for k, (price, size) in enumerate(levels):
        px[k], qty[k] = price, size
    return px, qty


def play(
    matching: Matching, reference: ReferenceMatching, k: int, event: tuple[Any, ...]
) -> tuple[list, list]:
    """One event to both; their fills in the reference's words, in order of sides and prices."""
    match event:
        case ("book", bids, asks):
            executions = matching.on_book(*padded(bids), *padded(asks), k)
            expected = reference.on_book(bids, asks)
        case ("trade", px, qty, side):
            executions, expected = matching.on_trade(px, qty, side, k), reference.on_trade(px, qty, side)
        case ("order", side, lots, price, tif):
            executions = matching.submit(f"o{k}", side, lots, price, tif, k)
            expected = reference.submit(f"o{k}", side, lots, price, tif)
        case ("cancel", number):
            assert matching.cancel(f"o{number}", k) == reference.cancel(f"o{number}")
            return [], []
    for e in executions:
        assert e.now_ns == k
        assert e.fee_nano == fee_nano(INSTRUMENT.notional_nano(e.price_ticks, e.lots), FEE_PPM)
    return [(e.order_id, e.side, e.price_ticks, e.lots, e.maker) for e in executions], expected


@pytest.mark.parametrize("queue", ["risk_averse", "optimistic"])
@settings(max_examples=300, deadline=None)
@given(events=st.lists(EVENTS, max_size=25))
def test_every_stream_gives_the_fills_of_the_plain_rules(queue: Any, events: list[tuple[Any, ...]]) -> None:
    matching = Matching(INSTRUMENT, FEE_PPM, queue=queue)
    reference = ReferenceMatching(optimistic=queue == "optimistic")
    for k, event in enumerate(events):
        fills, expected = play(matching, reference, k, event)
        assert fills == expected, event
        expected_open = [
            (n, s, p, lots, UNKNOWN_AHEAD if a is None else a) for n, s, p, lots, a in reference.open()
        ]
        assert [tuple(order) for order in matching.open_orders] == expected_open
        for order in matching.open_orders:
            assert matching.remaining(order.order_id) == order.lots


@settings(max_examples=200, deadline=None)
@given(events=st.lists(EVENTS, max_size=25))
def test_nobody_gets_more_than_was_asked_or_a_worse_price(events: list[tuple[Any, ...]]) -> None:
    matching = Matching(INSTRUMENT, FEE_PPM)
    asked: dict[str, tuple[int, int | None]] = {}
    got: dict[str, int] = {}
    trade_ids = []
    for k, event in enumerate(events):
        if event[0] == "order":
            asked[f"o{k}"] = (event[2], event[3])
        match event:
            case ("book", bids, asks):
                executions = matching.on_book(*padded(bids), *padded(asks), k)
                assert sum(e.lots for e in executions) <= sum(q for _, q in bids) + sum(q for _, q in asks)
            case ("trade", px, qty, side):
                executions = matching.on_trade(px, qty, side, k)
                assert sum(e.lots for e in executions if e.side == BUY) <= qty
                assert sum(e.lots for e in executions if e.side == SELL) <= qty
            case ("order", side, lots, price, tif):
                executions = matching.submit(f"o{k}", side, lots, price, tif, k)
                assert tif != "fok" or sum(e.lots for e in executions) in (0, lots)
            case _:
                executions = []
                matching.cancel(f"o{event[1]}", k)
        for e in executions:
            lots, limit = asked[e.order_id]
            got[e.order_id] = got.get(e.order_id, 0) + e.lots
            trade_ids.append(e.trade_id)
            assert got[e.order_id] <= lots
            assert limit is None or (limit - e.price_ticks) * e.side >= 0
    assert len(set(trade_ids)) == len(trade_ids)


@settings(max_examples=50, deadline=None)
@given(events=st.lists(EVENTS, max_size=25))
def test_arrays_and_tuples_are_the_same_market(events: list[tuple[Any, ...]]) -> None:
    by_array, by_tuple = Matching(INSTRUMENT, FEE_PPM), Matching(INSTRUMENT, FEE_PPM)
    reference = ReferenceMatching(optimistic=False)
    for k, event in enumerate(events):
        fills, _ = play(by_array, reference, k, event)
        match event:
            case ("book", bids, asks):
                sides = [tuple(x[j] for x in side) for side in (bids, asks) for j in (0, 1)]
                again = by_tuple.on_book(*sides, k)
            case ("trade", px, qty, side):
                again = by_tuple.on_trade(px, qty, side, k)
            case ("order", side, lots, price, tif):
                again = by_tuple.submit(f"o{k}", side, lots, price, tif, k)
            case ("cancel", number):
                by_tuple.cancel(f"o{number}", k)
                again = []
        assert [(e.order_id, e.side, e.price_ticks, e.lots, e.maker) for e in again] == fills
