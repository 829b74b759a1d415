"""What no fill may ever exceed, and which model may never fill before which."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_streams import FEE_PPM, INSTRUMENT, LOTS, PRICES, SIDES, STREAMS, Event, only_market, play
from reference_matching import thinned

from market.matching import FILL_MODELS, QUEUE_MODELS, Matching
from market.queue import PARTS, after_cancels, whole_lots
from market.types import BUY, SELL

MODELS = [(fills, queue) for fills in FILL_MODELS for queue in QUEUE_MODELS]


def made(fills: Any, queue: Any) -> Matching:
    return Matching(INSTRUMENT, FEE_PPM, fills=fills, queue=queue)


class Liquidity:
    """What the recording offered: prints, and levels counted anew whenever their size changes."""

    def __init__(self) -> None:
        self.sizes: dict[tuple[int, int], int] = {}
        self.epoch: Counter[tuple[int, int]] = Counter()
        self.shown: dict[tuple[int, int, int], int] = {}
        self.offered = {BUY: 0, SELL: 0}  # to buyers, to sellers

    def see(self, event: Event) -> None:
        if event[0] == "trade":
            self.offered[BUY] += event[2]
            self.offered[SELL] += event[2]
        if event[0] != "book":
            return
        now = {(side, px): q for side, levels in ((BUY, event[1]), (SELL, event[2])) for px, q in levels}
        for key in set(self.sizes) | set(now):
            if self.sizes.get(key, 0) != now.get(key, 0):
                self.epoch[key] += 1
                self.shown[(*key, self.epoch[key])] = now.get(key, 0)
                self.offered[-key[0]] += now.get(key, 0)
        self.sizes = now


@pytest.mark.parametrize(("fills", "queue"), MODELS)
@settings(max_examples=60, deadline=None)
@given(events=STREAMS)
def test_own_fills_never_exceed_prints_and_recorded_liquidity(
    fills: Any, queue: Any, events: list[Event]
) -> None:
    matching, market = made(fills, queue), Liquidity()
    asked: dict[str, tuple[int, int | None]] = {}
    got: Counter[str] = Counter()
    side_got: Counter[int] = Counter()
    level_got: Counter[tuple[int, int, int]] = Counter()
    trade_ids = set()
    for k, event in enumerate(events):
        market.see(event)
        if event[0] in ("order", "replace"):
            asked[f"o{k}"] = (event[2], event[3])
        executions = play(matching, k, event)
        if event[0] == "trade":
            assert all(sum(e.lots for e in executions if e.side == s) <= event[2] for s in (BUY, SELL))
        if event[0] == "order" and event[4] == "fok":
            assert sum(e.lots for e in executions) in (0, event[2])
        for e in executions:
            lots, limit = asked[e.order_id]
            got[e.order_id] += e.lots
            side_got[e.side] += e.lots
            assert e.lots > 0 and got[e.order_id] <= lots
            assert limit is None or (limit - e.price_ticks) * e.side >= 0
            assert e.trade_id not in trade_ids
            trade_ids.add(e.trade_id)
            if not e.maker:
                level = (-e.side, e.price_ticks, market.epoch[(-e.side, e.price_ticks)])
                level_got[level] += e.lots
                assert level_got[level] <= market.shown[level]
        assert all(side_got[s] <= market.offered[s] for s in (BUY, SELL))
        for order in matching.open_orders:
            shown = market.sizes.get((order.side, order.price_ticks))
            assert shown is None or order.ahead_lots <= shown


@settings(max_examples=300, deadline=None)
@given(
    before=STREAMS.map(only_market), side=SIDES, lots=LOTS,
    price=st.one_of(PRICES, st.sampled_from((100, 102))), after=STREAMS.map(only_market),
    power=st.integers(1, 4),
)  # fmt: skip
def test_a_kinder_model_never_fills_later(
    before: list[Event], side: int, lots: int, price: int, after: list[Event], power: int
) -> None:
    """Pessimistic, then the risk-averse queue, then the probabilistic one, then optimistic."""
    ladder = [
        Matching(INSTRUMENT, FEE_PPM, fills=fills, queue=queue, queue_power=power)  # type: ignore[arg-type]
        for fills, queue in (
            ("pessimistic", "risk_averse"), ("queue", "risk_averse"), ("queue", "probabilistic"),
            ("optimistic", "risk_averse"),
        )
    ]  # fmt: skip
    events = [*before, ("order", side, lots, price, "day"), *after]
    for k, event in enumerate(events):
        for matching in ladder:
            play(matching, k, event)
        if k >= len(before):
            left = [matching.remaining(f"o{len(before)}") for matching in ladder]
            assert left == sorted(left, reverse=True), (event, left)


@given(
    ahead=st.integers(0, 50 * PARTS),
    left=st.integers(0, 50),
    shown=st.integers(0, 60),
    power=st.integers(1, 8),
)
def test_a_queue_stays_between_nothing_and_what_is_shown(
    ahead: int, left: int, shown: int, power: int
) -> None:
    after = after_cancels(ahead, left, shown, power)
    assert Fraction(after, PARTS) == thinned(Fraction(ahead, PARTS), left, shown, power)
    assert 0 <= after <= min(ahead, shown * PARTS)
    front, gone = min(ahead, left * PARTS), max(left - shown, 0) * PARTS
    assert front - after <= gone or after == shown * PARTS  # nobody leaves who did not cancel
    assert whole_lots(after) <= shown


@given(front=st.integers(0, 40), behind=st.integers(0, 40), gone=st.integers(0, 80))
def test_with_power_one_a_queue_thins_evenly(front: int, behind: int, gone: int) -> None:
    left = front + behind
    gone = min(gone, left)
    after = after_cancels(front * PARTS, left, left - gone, 1)
    exact = front * (left - gone) / left if left else 0.0
    assert exact * PARTS <= after + 1 and after <= exact * PARTS + 1
