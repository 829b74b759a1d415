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


class Box:
    """The clocks of a machine: ``sleep`` is a suspended one, whose monotonic clock stood still."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.mono_ns, self.wall_ns = 50 * SECOND_NS, START_NS
        patch.setattr(time, "monotonic_ns", lambda: self.mono_ns)
        patch.setattr(time, "time_ns", lambda: self.wall_ns)

    def work(self, for_ns: int) -> None:
        self.mono_ns += for_ns
        self.wall_ns += for_ns

    def sleep(self, for_ns: int) -> None:
        self.wall_ns += for_ns


START_NS = 1_768_460_400 * SECOND_NS
HOUR_NS = 3600 * SECOND_NS


def test_a_machine_that_slept_catches_up_when_broker_and_wall_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(monkeypatch)
    clock = MarketClock.wall()
    box.work(SECOND_NS)
    box.sleep(HOUR_NS)
    assert clock.now_ns() == START_NS + SECOND_NS  # an hour behind the exchange
    clock.anchor(box.wall_ns - SECOND_NS // 10)  # a ping, a tenth of a second on its way
    assert box.wall_ns - clock.now_ns() == SECOND_NS // 10
    assert clock.caught_up_ns == HOUR_NS - SECOND_NS // 10
    box.work(SECOND_NS)
    assert clock.now_ns() == clock.at(box.mono_ns) == box.wall_ns - SECOND_NS // 10


@given(st.lists(st.tuples(st.integers(0, HOUR_NS), st.integers(-HOUR_NS, HOUR_NS)), max_size=20))
def test_neither_late_pings_nor_a_wrong_wall_clock_nor_a_wrong_broker_move_market_time(
    pings: list[tuple[int, int]],
) -> None:
    """One witness alone: the broker's time wrong while the wall's is right, or the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        box = Box(patch)
        clock = MarketClock.wall()
        for after_ns, wrong_ns in pings:
            box.work(after_ns)
            true_ns = START_NS + box.mono_ns - 50 * SECOND_NS
            clock.anchor(true_ns + wrong_ns)  # a broker whose clock is wrong, or a ping that was delayed
            box.sleep(wrong_ns)  # somebody sets the date
            clock.anchor(true_ns - abs(after_ns) // 1000)
            box.sleep(-wrong_ns)
            assert clock.now_ns() == true_ns
        assert clock.caught_up_ns == 0


def test_the_clock_of_a_paper_market_follows_its_first_ping_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(monkeypatch)
    clock = MarketClock(START_NS, 10.0)
    clock.anchor(START_NS)
    box.sleep(HOUR_NS)
    clock.anchor(box.wall_ns)
    assert clock.now_ns() == START_NS and clock.caught_up_ns == 0


def test_a_restored_session_is_never_earlier_than_it_was() -> None:
    clock = MarketClock(5)
    clock.not_before(77)
    assert clock.now_ns() == 77
