"""Blocks: in order, without a label that looks into the next one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import ConfigError
from market.types import SECOND_NS
from models.splits import BLOCK_NAMES, NO_BLOCK, Blocks, by_sessions, chronological, over_sessions

FRACTIONS = {"fit": 0.5, "calibrate": 0.125, "threshold": 0.125, "score": 0.125, "live": 0.125}
HOUR_NS = 3600 * SECOND_NS
PURGE_NS = 10 * SECOND_NS


def test_blocks_meet_and_cover_the_span() -> None:
    blocks = chronological(0, 8 * HOUR_NS, FRACTIONS, PURGE_NS)
    assert blocks.names == BLOCK_NAMES
    assert blocks.span("fit") == (0, 4 * HOUR_NS)
    assert blocks.span("live") == (7 * HOUR_NS, 8 * HOUR_NS)
    ends = [to_ns for _, _, to_ns in blocks.blocks]
    assert ends[:-1] == [from_ns for _, from_ns, _ in blocks.blocks[1:]]


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 2 * 10**18),
    weights=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    purge_s=st.integers(0, 60),
    embargo_s=st.integers(0, 60),
)
def test_no_label_of_a_block_looks_into_another(
    start: int, weights: list[int], purge_s: int, embargo_s: int
) -> None:
    fractions = {n: w / sum(weights) for n, w in zip(BLOCK_NAMES, weights, strict=True)}
    purge_ns, embargo_ns = purge_s * SECOND_NS, embargo_s * SECOND_NS
    blocks = chronological(start, start + 8 * HOUR_NS, fractions, purge_ns, embargo_ns)
    t = start + np.arange(-600, 8 * 3600 + 600, 1, dtype=np.int64) * SECOND_NS
    code = blocks.code(t)
    assert set(code.tolist()) == {0, 1, 2, 3, 4, NO_BLOCK}
    for k, (_, from_ns, to_ns) in enumerate(blocks.blocks):
        mine = t[code == k]
        assert mine.min() >= from_ns + (embargo_ns if k else 0)
        assert mine.max() + purge_ns < to_ns
        # Nothing more is lost than what was asked for.
        wanted = (t >= from_ns + (embargo_ns if k else 0)) & (t + purge_ns < to_ns)
        assert (code[wanted] == k).all()


def test_a_row_whose_window_ends_on_the_boundary_is_purged() -> None:
    blocks = chronological(0, 100, {"fit": 0.5, "score": 0.5}, 10)
    code = blocks.code(np.array([0, 39, 40, 49, 50, 89, 90, 100]))
    assert code.tolist() == [0, 0, NO_BLOCK, NO_BLOCK, 1, 1, NO_BLOCK, NO_BLOCK]


def test_blocks_survive_json() -> None:
    blocks = chronological(17, 17 + HOUR_NS, FRACTIONS, PURGE_NS, 3 * SECOND_NS)
    assert Blocks.from_dict(json.loads(json.dumps(blocks.to_dict()))) == blocks


def test_a_night_belongs_to_no_share() -> None:
    day_ns = 24 * HOUR_NS
    sessions = [(d * day_ns, d * day_ns + 8 * HOUR_NS) for d in range(2)]
    overlapping = [*sessions, (HOUR_NS, 3 * HOUR_NS), (day_ns + HOUR_NS, day_ns + 8 * HOUR_NS)]
    blocks = over_sessions(overlapping, FRACTIONS, PURGE_NS)
    assert blocks == over_sessions(sessions, FRACTIONS, PURGE_NS)
    t = np.concatenate([np.arange(a, b, SECOND_NS) for a, b in sessions])
    shares = np.bincount(blocks.code(t), minlength=256)[:5] / len(t)
    np.testing.assert_allclose(shares, list(FRACTIONS.values()), atol=0.002)


@pytest.mark.parametrize(
    "fractions",
    [
        {"fit": 0.5},
        {"fit": 0.5, "test": 0.5},
        {"fit": 1.5, "score": -0.5},
        {},
    ],
)
def test_impossible_fractions_are_named(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="split fractions"):
        chronological(0, HOUR_NS, fractions, 0)


def test_a_block_shorter_than_its_purge_is_refused() -> None:
    with pytest.raises(ConfigError, match="record more"):
        chronological(0, 60 * SECOND_NS, FRACTIONS, PURGE_NS)


def test_an_unknown_block_and_an_empty_span_are_named() -> None:
    with pytest.raises(ConfigError, match="no block 'test'"):
        chronological(0, HOUR_NS, FRACTIONS, 0).span("test")
    with pytest.raises(ConfigError, match="no time to split"):
        chronological(5, 5, FRACTIONS, 0)


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(5, 40),
    weights=st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5),
    embargo_s=st.integers(0, 300),
)
def test_whole_sessions_belong_to_one_block(n: int, weights: list[float], embargo_s: int) -> None:
    fractions = dict(zip(BLOCK_NAMES, (w / sum(weights) for w in weights), strict=True))
    day, hour = 86_400 * 10**9, 3_600 * 10**9
    sessions = [(k * day, k * day + 7 * hour) for k in range(n)]
    blocks = by_sessions(sessions, fractions, 10 * 10**9, embargo_s * 10**9)
    assert blocks.names == BLOCK_NAMES
    held = {name: 0 for name in BLOCK_NAMES}
    for start, end in sessions:
        inside = [name for name, a, b in blocks.blocks if a <= start and end <= b]
        assert len(inside) == 1
        held[inside[0]] += 1
    for name, share in fractions.items():  # a session each, then by what is missing
        assert held[name] >= 1
        assert held[name] <= max(1, np.ceil(share * n))


def test_fewer_sessions_than_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 sessions for the blocks fit, calibrate"):
        by_sessions([(0, 10**13), (10**14, 10**14 + 10**13)], dict.fromkeys(BLOCK_NAMES, 0.2), 1, 1)
    with pytest.raises(ConfigError, match="record longer sessions"):
        by_sessions(
            [(k * 10**12, k * 10**12 + 10**9) for k in range(5)], dict.fromkeys(BLOCK_NAMES, 0.2), 10**9, 1
        )
