"""The real matching against the plain one, on random markets and random orders."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_streams import EVENTS, FEE_PPM, INSTRUMENT, STREAMS, Event, play
from reference_matching import ReferenceMatching

from market.fees import fee_nano
from market.matching import FILL_MODELS, QUEUE_MODELS, UNKNOWN_AHEAD, Execution, Matching


def plainly(reference: ReferenceMatching, k: int, event: Event) -> list[tuple]:
    match event:
        case ("book", bids, asks):
            return reference.on_book(bids, asks)
        case ("trade", px, qty, side):
            return reference.on_trade(px, qty, side)
        case ("order", side, lots, price, tif):
            return reference.submit(f"o{k}", side, lots, price, tif)
        case ("cancel", number):
            reference.cancel(f"o{number}")
            return []
        case ("replace", number, lots, price):
            sides = [order.side for order in reference.orders if order.name == f"o{number}"]
            reference.cancel(f"o{number}")
            return reference.submit(f"o{k}", sides[0], lots, price, "day") if sides else []
    raise AssertionError(event)


def words(executions: list[Execution], k: int) -> list[tuple]:
    """The executions as the reference says them."""
    for e in executions:
        assert e.now_ns == k
        assert e.fee_nano == fee_nano(INSTRUMENT.notional_nano(e.price_ticks, e.lots), FEE_PPM)
    return [(e.order_id, e.side, e.price_ticks, e.lots, e.maker) for e in executions]


def opened(reference: ReferenceMatching) -> list[tuple]:
    return [(*order[:4], UNKNOWN_AHEAD if order[4] is None else order[4]) for order in reference.open()]


@pytest.mark.parametrize("queue", QUEUE_MODELS)
@pytest.mark.parametrize("fills", FILL_MODELS)
@settings(max_examples=150, deadline=None)
@given(events=STREAMS, power=st.integers(1, 3))
def test_every_stream_gives_the_fills_of_the_plain_rules(
    fills: Any, queue: Any, power: int, events: list[Event]
) -> None:
    matching = Matching(INSTRUMENT, FEE_PPM, fills=fills, queue=queue, queue_power=power)
    reference = ReferenceMatching(fills, queue, power)
    for k, event in enumerate(events):
        assert words(play(matching, k, event), k) == plainly(reference, k, event), event
        assert [tuple(order) for order in matching.open_orders] == opened(reference)
        for order in matching.open_orders:
            assert matching.remaining(order.order_id) == order.lots


@settings(max_examples=50, deadline=None)
@given(events=st.lists(EVENTS, max_size=25))
def test_arrays_and_tuples_are_the_same_market(events: list[Event]) -> None:
    by_array, by_tuple = Matching(INSTRUMENT, FEE_PPM), Matching(INSTRUMENT, FEE_PPM)
    for k, event in enumerate(events):
        if event[0] == "book":
            sides = [tuple(level[j] for level in side) for side in event[1:] for j in (0, 1)]
            again = by_tuple.on_book(*sides, k)
        else:
            again = play(by_tuple, k, event)
        assert play(by_array, k, event) == again
