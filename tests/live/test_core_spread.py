"""The spread alert: it lasts before it is told, and it does not flap."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from live.core.spread import NORMAL_FOR_NS, WIDE_FOR_NS, Spread, SpreadWatch, in_bps
from market.types import SECOND_NS

LIMIT = 10_000  # thousandths of a bp: 10 bps
MID = 10_000


def ticks_of(millibps: int) -> tuple[int, int]:
    """A touch around 10 000 000 ticks with that spread."""
    half = millibps * MID // 20_000
    return 1_000 * MID - half, 1_000 * MID + half


def told(watch: SpreadWatch, spreads: list[int], step_ns: int) -> list[tuple[int, Spread]]:
    found = []
    for n, millibps in enumerate(spreads):
        news = watch.look("AAA", *ticks_of(millibps), n * step_ns)
        if news is not None:
            found.append((n, news[1]))
    return found


def test_wide_after_a_second_normal_after_five_under_four_fifths():
    spreads = [5_000] * 3 + [12_000] * 20 + [9_000] * 100 + [7_000] * 60
    found = told(SpreadWatch(LIMIT), spreads, SECOND_NS // 10)
    assert found == [(13, Spread.WIDE), (123 + 50, Spread.NORMAL)]


def test_a_flash_is_not_told_and_an_abyss_is_told_at_once():
    assert told(SpreadWatch(LIMIT), [12_000] * 9 + [5_000] * 20, SECOND_NS // 10) == []
    assert told(SpreadWatch(LIMIT), [200_000], SECOND_NS) == [(0, Spread.WIDE)]


def test_zero_means_never():
    assert told(SpreadWatch(0), [900_000] * 50, SECOND_NS) == []


@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=400), st.integers(1, SECOND_NS))
def test_news_alternate_and_keep_their_distance(spreads, step_ns):
    found = told(SpreadWatch(LIMIT), spreads, step_ns)
    assert [news for _, news in found] == [Spread.WIDE, Spread.NORMAL] * (len(found) // 2) + [Spread.WIDE] * (
        len(found) % 2
    )
    for (before, _), (after, news) in itertools.pairwise(found):
        least_ns = NORMAL_FOR_NS if news is Spread.NORMAL else WIDE_FOR_NS
        assert (after - before - 1) * step_ns >= least_ns


def test_words_for_people():
    assert [in_bps(n) for n in (0, 49, 50, 12_345, 20_000)] == ["0.0", "0.0", "0.1", "12.3", "20.0"]
