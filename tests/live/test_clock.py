"""Market time: monotone whatever the wall clock does, anchored once, scaled for a paper market."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.clock import MarketClock
from market.types import SECOND_NS


def test_a_wall_clock_that_jumps_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MarketClock.wall()
    before = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # somebody set the date back to 1970
    after = clock.now_ns()
    assert 0 <= after - before < 60 * SECOND_NS


@given(st.lists(st.integers(0, 10**15), min_size=2), st.floats(0.01, 10_000))
def test_market_time_never_runs_backwards(readings: list[int], speed: float) -> None:
    clock = MarketClock(10**18, speed)
    clock.anchor(10**18)
    answers = []
    for reading in readings:
        clock.not_before(clock.at(reading))
        answers.append(clock.now_ns())
    assert answers == sorted(answers)


def test_only_the_first_ping_anchors() -> None:
    clock = MarketClock(5)
    assert not clock.anchored and clock.now_ns() == 5
    clock.anchor(1_000 * SECOND_NS)
    clock.anchor(9_000 * SECOND_NS)
    assert 1_000 * SECOND_NS <= clock.now_ns() < 2_000 * SECOND_NS


def test_a_restored_session_is_never_earlier_than_it_was() -> None:
    clock = MarketClock(5)
    clock.not_before(77)
    assert clock.now_ns() == 77
