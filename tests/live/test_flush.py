"""State cache flushed every 1-5 s, adapting to load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from live.flush import LONGEST_S, SHORTEST_S, AdaptiveFlush
from market.types import SECOND_NS


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def interval(load: float, waiting: int = 0) -> float:
    clock = Clock()
    flush = AdaptiveFlush(clock)
    clock.now_ns = SECOND_NS
    return flush.interval_s(int(load * SECOND_NS), waiting)


def test_an_idle_runner_flushes_its_state_cache_every_second_and_a_busy_one_every_five() -> None:
    assert interval(0.0) == SHORTEST_S == 1.0
    assert interval(1.0) == LONGEST_S == 5.0
    assert interval(0.0, waiting=1000) == LONGEST_S


@given(st.floats(0, 2), st.floats(0, 2))
def test_state_cache_is_flushed_every_1_to_5_s_and_more_load_never_flushes_it_sooner(
    a: float, b: float
) -> None:
    assert 1.0 <= interval(a) <= 5.0
    assert (interval(a) <= interval(b)) or a > b


def test_only_the_time_since_the_last_flush_counts() -> None:
    clock = Clock()
    flush = AdaptiveFlush(clock)
    clock.now_ns = SECOND_NS
    assert flush.interval_s(SECOND_NS, 0) == LONGEST_S
    clock.now_ns = 2 * SECOND_NS
    assert flush.interval_s(SECOND_NS, 0) == SHORTEST_S
