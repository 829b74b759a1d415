"""An optional leader: what it tells, that it tells it the same in batch and live, and what masks it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import leader as leading
from features.batch import compute
from features.leakcheck import check_day, stream_rows
from features.schema import NAMES, F
from features.stream import FeatureStream
from market.simulator import LEAD_LAG_SPECS, simulate_market
from market.types import SECOND_NS, InstrumentDay

LEADER = [k for k, name in enumerate(NAMES) if name.startswith("leader_")]


@pytest.fixture(scope="module")
def pair() -> tuple[InstrumentDay, InstrumentDay]:
    """A share that leads and one that follows it by a second."""
    leader, follower = simulate_market(LEAD_LAG_SPECS, hours=0.4, seed=3)[0]
    return leader, follower


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32))


def test_a_planted_lead_is_seen_and_goes_one_way(pair: tuple[InstrumentDay, InstrumentDay]) -> None:
    leader, follower = pair

    def skill(day: InstrumentDay, other: InstrumentDay, name: str) -> float:
        """Correlation of a column with the move of mid over the next two seconds."""
        table = compute(day, other)
        mid, x = table.mid2 / 2, table.X[:, NAMES.index(name)]
        good = table.usable[:-8] & np.isfinite(x[:-8])
        return float(np.corrcoef(x[:-8][good], (mid[8:] - mid[:-8])[good])[0, 1])

    forward, backward = skill(follower, leader, "leader_gap_1s"), skill(leader, follower, "leader_gap_1s")
    assert forward > 0.15 and forward > backward + 0.1
    assert skill(follower, leader, "leader_move_1s") > 0.15


def test_batch_equals_live_to_the_bit_with_a_leader(pair: tuple[InstrumentDay, InstrumentDay]) -> None:
    leader, follower = pair
    table = compute(follower, leader)
    X, status = stream_rows(follower, leader=leader)
    assert same_bits(X, table.X) and np.array_equal(status, table.status)
    assert np.isfinite(table.X[table.usable][:, LEADER]).all()
    alone = compute(follower)
    assert np.isnan(alone.X[:, LEADER]).all()
    others = [k for k in range(F) if k not in LEADER]
    assert same_bits(alone.X[:, others], table.X[:, others])


def test_the_leaders_future_is_not_seen(pair: tuple[InstrumentDay, InstrumentDay]) -> None:
    leader, follower = pair
    found = check_day(follower, cuts=8, leader=leader)
    assert found.differences == () and found.cuts > 4


def test_a_restart_with_a_leader_changes_no_bit(pair: tuple[InstrumentDay, InstrumentDay]) -> None:
    leader, follower = pair
    at_ns = int(follower.books.recv_ns[2500])
    parts = [
        tuple(
            InstrumentDay(
                day.instrument, day.day, day.books.rows((day.books.recv_ns >= at_ns) == late),
                day.trades.rows((day.trades.recv_ns >= at_ns) == late),
            )
            for day in (follower, leader)
        )
        for late in (False, True)
    ]  # fmt: skip
    before, after = FeatureStream(follower.instrument.kind), FeatureStream()
    first, _ = stream_rows(parts[0][0], before, leader=parts[0][1])
    after.restore(before.state())
    rest, _ = stream_rows(parts[1][0], after, leader=parts[1][1])
    assert same_bits(np.concatenate([first, rest]), compute(follower, leader).X)


@settings(max_examples=25, deadline=None)
@given(
    moves=st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3), st.booleans()), min_size=30, max_size=60)
)
def test_the_order_of_events_of_one_moment_changes_no_row(
    clean_day: InstrumentDay, moves: list[tuple[int, int, bool]]
) -> None:
    """Books and quotes on a coarse clock: often at the same nanosecond, in either order."""
    b = clean_day.books
    rows = []
    for first in ("quote", "book"):
        stream, out, now_ns, mid2 = FeatureStream(), np.empty(F, np.float32), int(b.recv_ns[0]), 20_000
        got = []
        for k, (seconds, move, both) in enumerate([(1, 0, True)] * 25 + moves):
            now_ns, mid2 = now_ns + seconds * SECOND_NS, mid2 + move
            if first == "quote" and both:
                stream.on_leader(now_ns, mid2)
            stream.on_book(now_ns, b.bid_px[k], b.bid_qty[k], b.ask_px[k], b.ask_qty[k], 1, out)
            got.append(out[LEADER].copy())
            if first == "book" and both:
                stream.on_leader(now_ns, mid2)
        rows.append(np.array(got))
    assert same_bits(rows[0], rows[1])
    assert np.isfinite(rows[0][24:25]).all()


def test_a_leader_is_masked_while_new_and_when_silent(clean_day: InstrumentDay) -> None:
    b, stream, out = clean_day.books, FeatureStream(), np.empty(F, np.float32)
    start_ns = int(b.recv_ns[0])

    def known(second: float) -> bool:
        at = start_ns + round(second * SECOND_NS)
        stream.on_book(at, b.bid_px[0], b.bid_qty[0], b.ask_px[0], b.ask_qty[0], 1, out)
        return bool(np.isfinite(out[LEADER]).all())

    for second in range(20):
        stream.on_leader(start_ns + second * SECOND_NS, 2000 + second)
    assert not known(19.9)
    assert known(20.0) and known(29.0)
    assert not known(29.1), "silent for more than ten seconds"
    stream.on_leader(start_ns + 40 * SECOND_NS, 2000)
    assert not known(40.5), "after a silence it is new again"
    before = stream.state()
    stream.on_leader(start_ns, 5000)
    assert np.array_equal(before["istate"], stream.state()["istate"]), "a quote from the past is left out"


def test_a_quote_is_taken_from_sound_books_only(dirty_day: InstrumentDay) -> None:
    b = dirty_day.books
    ns, mid2 = leading.quotes(b)
    one_by_one = [
        (
            int(b.recv_ns[k]),
            leading.quote(
                int(b.bid_px[k, 0]), int(b.bid_qty[k, 0]), int(b.ask_px[k, 0]), int(b.ask_qty[k, 0]),
                int(b.flags[k]),
            ),
        )
        for k in range(len(b))
    ]  # fmt: skip
    assert [(t, m) for t, m in one_by_one if m is not None] == list(
        zip(ns.tolist(), mid2.tolist(), strict=True)
    )
    assert 0 < len(ns) < len(b)
