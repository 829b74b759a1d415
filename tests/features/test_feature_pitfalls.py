"""What the features do when the feed misbehaves (the rules of docs on books, gaps and duplicates)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.layout import MEAN_DEPTH
from features.schema import (
    CROSSED,
    DUPLICATE,
    GAP,
    INCONSISTENT,
    NAMES,
    ONE_SIDED,
    WARMUP,
    WARMUP_NS,
    F,
    reasons,
    usable,
)
from features.stream import FeatureStream
from market.types import BOOK_CONSISTENT, DEPTH, SECOND_NS, InstrumentDay

T0 = 1_768_460_400 * SECOND_NS
Book = list[np.ndarray]


def book(bid: int = 1000, spread: int = 2, qty: int = 50, depth: int = DEPTH) -> Book:
    """A book with a level at every tick and ``depth`` levels a side."""
    steps = np.arange(DEPTH, dtype=np.int32)
    present = steps < depth
    bid_px, ask_px = np.where(present, bid - steps, 0), np.where(present, bid + spread + steps, 0)
    size = np.where(present, qty, 0)
    return [a.astype(np.int32) for a in (bid_px, size, ask_px, size)]


class Feed:
    """A stream with a clock: gives status and row of each snapshot."""

    def __init__(self) -> None:
        self.stream, self.now_ns = FeatureStream("share"), T0

    def send(self, b: Book, dt_s: float = 0.25, flags: int = BOOK_CONSISTENT) -> tuple[int, dict[str, float]]:
        self.now_ns += round(dt_s * SECOND_NS)
        out = np.empty(F, np.float32)
        status = self.stream.on_book(self.now_ns, b[0], b[1], b[2], b[3], flags, out)
        return status, dict(zip(NAMES, out.tolist(), strict=True))

    def warm(self) -> Feed:
        """Past warm-up, with an alternating book so that nothing is a duplicate."""
        for k in range(500):
            self.send(book(qty=50 + k % 2))
        return self


def test_a_usable_row_has_no_reason_but_duplicate() -> None:
    assert usable(0) and usable(DUPLICATE)
    assert not any(usable(bit) for bit in (WARMUP, CROSSED, ONE_SIDED, GAP, INCONSISTENT))
    assert reasons(GAP | WARMUP) == ("WARMUP", "GAP")


def test_warm_up_takes_two_minutes_of_time_not_of_rows() -> None:
    feed = Feed()
    started_ns = None
    while True:
        status, _ = feed.send(book(), dt_s=0.7)
        started_ns = started_ns or feed.now_ns
        if not status & WARMUP:
            break
    assert 0 <= feed.now_ns - started_ns - WARMUP_NS < 0.7 * SECOND_NS


@pytest.mark.parametrize("ask_below_bid", [0, 1, 5])
def test_a_crossed_or_locked_book_has_no_row(ask_below_bid: int) -> None:
    status, row = Feed().warm().send(book(spread=-ask_below_bid))
    assert status == CROSSED
    assert all(math.isnan(x) for x in row.values())


@pytest.mark.parametrize("side", [1, 3])
def test_a_one_sided_book_has_no_row(side: int) -> None:
    empty = book()
    empty[side][:] = 0
    status, row = Feed().warm().send(empty)
    assert status == ONE_SIDED
    assert all(math.isnan(x) for x in row.values())


@pytest.mark.parametrize("bad", [book(spread=-1), book(depth=0)])
def test_a_rejected_book_leaves_nothing_behind(bad: Book) -> None:
    disturbed, calm = Feed().warm(), Feed().warm()
    disturbed.send(bad, dt_s=0.1)
    _, expected = calm.send(book(1003, qty=70), dt_s=0.25)
    status, row = disturbed.send(book(1003, qty=70), dt_s=0.15)
    assert status == 0
    for name in NAMES:  # decay in two steps rounds differently from decay in one
        assert row[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-6, nan_ok=True), name


def test_an_inconsistent_book_voids_the_flow_step_after_it() -> None:
    feed, calm = Feed().warm(), Feed().warm()
    status, row = feed.send(book(1000, qty=500), flags=0)
    assert status == INCONSISTENT and math.isnan(row["ofi_l1_1s"])
    calm.now_ns = feed.now_ns
    _, before = calm.send(book(qty=50), dt_s=0)
    _, after = feed.send(book(1000, qty=900), dt_s=0)
    assert after["ofi_l1_1s"] == pytest.approx(before["ofi_l1_1s"], abs=0.05)  # no flow of 850 lots
    _, next_row = feed.send(book(1001, qty=900), dt_s=0.01)
    assert next_row["ofi_l1_1s"] > 1


def test_unsorted_or_negative_prices_are_inconsistent() -> None:
    unsorted = book()
    unsorted[0][[3, 4]] = unsorted[0][[4, 3]]
    repeated = book()
    repeated[2][5] = repeated[2][4]
    assert Feed().warm().send(unsorted)[0] == INCONSISTENT
    assert Feed().warm().send(repeated)[0] == INCONSISTENT
    assert Feed().warm().send(book(bid=5))[0] == INCONSISTENT


def test_a_gap_starts_from_nothing() -> None:
    feed = Feed().warm()
    status, row = feed.send(book(1005), dt_s=10.001)
    assert status == GAP | WARMUP
    fresh = Feed()
    fresh.now_ns = feed.now_ns
    _, expected = fresh.send(book(1005), dt_s=0)
    np.testing.assert_array_equal(list(row.values()), list(expected.values()))
    assert feed.send(book(1006))[0] == WARMUP


def test_ten_seconds_are_not_yet_a_gap() -> None:
    assert Feed().warm().send(book(), dt_s=10.0)[0] & GAP == 0


def test_ten_seconds_without_a_valid_book_are_a_gap() -> None:
    feed = Feed().warm()
    seen = [feed.send(book(spread=-1), dt_s=1.0)[0] for _ in range(15)]
    assert sum(s & GAP != 0 for s in seen) == 1, "said once"
    assert seen[-1] & WARMUP
    assert feed.send(book())[0] == WARMUP


def test_an_auction_gives_no_rows_and_is_followed_by_a_warm_up() -> None:
    """Indicative books of an auction are crossed: five minutes of them, with trades, leave nothing behind."""
    feed = Feed().warm()
    for k in range(300):
        feed.stream.on_trade(feed.now_ns, 1001, 500, 1)
        status, row = feed.send(book(1010 + k % 3, spread=-(k % 4)), dt_s=1.0)
        assert status & CROSSED and not usable(status)
        assert all(math.isnan(x) for x in row.values())
    status, row = feed.send(book(1005), dt_s=1.0)
    assert not usable(status) and status & WARMUP
    fresh = Feed()
    fresh.now_ns = feed.now_ns
    _, expected = fresh.send(book(1005), dt_s=0)
    for name in NAMES:  # the auction's own trades are the only thing that is remembered of it
        if not name.startswith(("trade_", "intensity_buy", "intensity_sell", "last_trade", "vwap", "vpin")):
            np.testing.assert_equal(row[name], expected[name], err_msg=name)
    for k in range(481):
        status, row = feed.send(book(qty=50 + k % 2))
    assert status == 0
    assert abs(row["intensity_buy_1s"]) < 1e-6 and abs(row["ofi_l1_20s"]) < 0.2


def test_the_clearing_break_forgets_everything_before_it() -> None:
    """Nothing for five minutes at 14:00, nothing for fifteen at 18:45: after each a day of its own begins."""
    feed = Feed().warm()
    feed.stream.on_trade(feed.now_ns, 1000, 10_000, 1)
    for break_s in (300.0, 900.0):
        assert usable(feed.send(book(1020, qty=900))[0])
        status, row = feed.send(book(980), dt_s=break_s)
        assert status == GAP | WARMUP
        fresh = Feed()
        fresh.now_ns = feed.now_ns
        _, expected = fresh.send(book(980), dt_s=0)
        np.testing.assert_array_equal(list(row.values()), list(expected.values()))
        assert math.isnan(row["return_60s"]) and math.isnan(row["last_trade_dev"])
        statuses = [feed.send(book(qty=50 + k % 2))[0] for k in range(481)]
        assert all(s == WARMUP for s in statuses[:479]) and statuses[-1] == 0


def test_a_late_trade_in_the_break_does_not_outlive_it() -> None:
    feed, quiet = Feed().warm(), Feed().warm()
    feed.stream.on_trade(feed.now_ns + 5 * SECOND_NS, 999, 7_000, -1)
    rows = [f.send(book(1001), dt_s=60.0)[1] for f in (feed, quiet)]
    np.testing.assert_array_equal(list(rows[0].values()), list(rows[1].values()))


def test_a_touch_that_moves_is_no_flow_on_every_level() -> None:
    """Levels aligned by index shift together when the touch moves; aligned by price, one level is new."""
    feed = Feed().warm()
    _, before = feed.send(book(1000, spread=3, qty=50))
    higher = book(1001, spread=2, qty=50)  # one new bid of 50 lots; everything else is where it was
    _, row = feed.send(higher, dt_s=0.01)
    for m in (1, 2, 3, 4, 5):
        name = f"ofi_l{m}_1s"
        assert math.sinh(row[name]) - math.sinh(before[name]) > 0.9, "looks like 50 new lots"
    moved = math.sinh(row["aligned_flow_1s"]) - math.sinh(before["aligned_flow_1s"])
    assert moved == pytest.approx(math.exp(-1 / 5) * 50 / 51, rel=0.05)


def test_the_normaliser_of_flows_does_not_know_the_present_book() -> None:
    feed, calm = Feed().warm(), Feed().warm()
    feed.send(book(qty=5_000))
    calm.send(book(qty=50))
    assert feed.stream.state()["fstate"][MEAN_DEPTH] == calm.stream.state()["fstate"][MEAN_DEPTH]


def test_a_duplicate_book_lets_time_pass_without_flow() -> None:
    feed = Feed().warm()
    feed.send(book(1002, qty=90))
    _, before = feed.send(book(1003, qty=90))
    status, after = feed.send(book(1003, qty=90), dt_s=2.0)
    assert status == DUPLICATE
    flow = math.sinh(after["ofi_l1_1s"]) / math.sinh(before["ofi_l1_1s"])
    assert flow == pytest.approx(math.exp(-2), rel=0.05)  # the depth that divides it moved a little
    assert after["since_mid_change"] == pytest.approx(math.log1p(2.0), rel=1e-5)


def test_missing_levels_are_masked_not_zero() -> None:
    feed = Feed()
    for k in range(500):
        status, row = feed.send(book(qty=50 + k % 2, depth=3))
    assert status == 0
    masked = {name for name, x in row.items() if math.isnan(x)}
    deep = {f"ofi_l{m}_{w}s" for m in (4, 5) for w in (1, 5, 20)}
    deep |= {f"integrated_ofi_{w}s" for w in (1, 5, 20)}
    shape = {"imbalance_d5", "slope_bid", "slope_ask", "slope_diff", "slope_sum", "gap_3", "gaps_3"}
    unseen = {"last_trade_dev", "vpin", *(f"vwap_{w}s" for w in (5, 20, 60, 300))}
    unseen |= {"resilience_bid", "resilience_ask", *(n for n in NAMES if n.startswith("leader_"))}
    assert masked == deep | shape | unseen
    _, one_level = feed.send(book(depth=1))
    assert math.isnan(one_level["ofi_l2_1s"]) and math.isnan(one_level["cost_diff"])
    assert math.isfinite(one_level["ofi_l1_1s"])


def test_a_level_that_comes_and_goes_is_no_flow() -> None:
    feed = Feed().warm()
    for k in range(4):
        _, row = feed.send(book(qty=50, depth=20 if k % 2 else 4))
    assert row["ofi_l5_20s"] == pytest.approx(0, abs=0.02)


def test_a_row_that_goes_back_in_time_changes_nothing() -> None:
    feed = Feed().warm()
    before = feed.stream.state()
    status, row = feed.send(book(1100), dt_s=-0.001)
    assert status == INCONSISTENT and all(math.isnan(x) for x in row.values())
    feed.stream.on_trade(feed.now_ns, 1000, 10, 1)
    after = feed.stream.state()
    np.testing.assert_array_equal(before["istate"], after["istate"])
    np.testing.assert_array_equal(before["fstate"], after["fstate"])


def test_trades_of_unknown_side_only_move_the_last_price() -> None:
    feed = Feed().warm()
    feed.stream.on_trade(feed.now_ns, 1005, 1000, 0)
    _, row = feed.send(book(1000, spread=2))
    assert row["last_trade_dev"] == 4
    assert row["trade_flow_5s"] == 0 and row["intensity_buy_10s"] == 0


def test_the_largest_numbers_do_not_overflow() -> None:
    top = np.iinfo(np.int32).max
    feed = Feed()
    for k in range(10):
        feed.stream.on_trade(feed.now_ns, top, top, 1)
        status, row = feed.send(book(bid=top - 60 - k % 2, qty=top))
    assert status == WARMUP
    assert row["trade_flow_5s"] == pytest.approx(1)
    assert abs(row["return_1s"]) <= 1 and abs(row["imbalance_l1"]) < 1e-6


side_px = st.lists(st.integers(-3, 60), min_size=DEPTH, max_size=DEPTH)
side_qty = st.lists(st.integers(-1, 3) | st.integers(0, 2**31 - 1), min_size=DEPTH, max_size=DEPTH)
plain_book = st.builds(
    book, st.integers(1, 60), st.integers(-1, 9), st.integers(0, 99), st.integers(0, DEPTH)
)
any_book = plain_book | st.tuples(side_px, side_qty, side_px, side_qty).map(
    lambda b: [np.array(a, np.int32) for a in b]
)


@settings(max_examples=80, deadline=None)
@given(events=st.lists(st.tuples(any_book, st.floats(-1, 15), st.booleans()), max_size=12))
def test_no_book_breaks_the_kernel(events: list[tuple[Book, float, bool]]) -> None:
    feed = Feed()
    for b, dt_s, consistent in events:
        feed.stream.on_trade(feed.now_ns, int(b[0][0]), abs(int(b[1][0])), 1 if consistent else -1)
        status, row = feed.send(b, dt_s, int(consistent))
        values = np.array(list(row.values()))
        assert not np.isinf(values).any()
        if status & (CROSSED | ONE_SIDED | INCONSISTENT):
            assert np.isnan(values).all()
        else:
            assert math.isfinite(row["imbalance_l1"]) and math.isfinite(row["spread_bps"])


def test_the_clock_is_moscow_time(still_day: InstrumentDay) -> None:
    b = still_day.books
    out = np.empty(F, np.float32)
    noon_moscow_ns = (1_768_460_400 // 86_400 * 86_400 + 9 * 3600) * SECOND_NS
    FeatureStream().on_book(noon_moscow_ns, b.bid_px[0], b.bid_qty[0], b.ask_px[0], b.ask_qty[0], 1, out)
    row = dict(zip(NAMES, out.tolist(), strict=True))
    assert row["day_sin"] == pytest.approx(0, abs=1e-6) and row["day_cos"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("kind", "wall", "since", "to"),
    [
        ("share", "09:59:59", None, None),  # the opening auction
        ("share", "10:00:00", 0, 30),
        ("share", "10:12:30", 12.5, 30),
        ("share", "14:02:00", 30, 30),  # a share has no clearing
        ("share", "18:39:00", 30, 1),
        ("share", "18:40:00", None, None),
        ("share", "19:05:00", 0, 30),
        ("share", "23:49:30", 30, 0.5),
        ("share", "23:50:00", None, None),
        ("future", "08:59:00", None, None),
        ("future", "13:58:00", 30, 2),
        ("future", "14:00:00", None, None),
        ("future", "14:06:00", 1, 30),
        ("future", "18:49:00", 30, 1),
        ("bond", "12:00:00", None, None),  # its venue is not known
        (None, "12:00:00", None, None),
    ],
)
def test_minutes_since_the_open_and_to_the_break(
    still_day: InstrumentDay, kind: str | None, wall: str, since: float | None, to: float | None
) -> None:
    b, out, stream = still_day.books, np.empty(F, np.float32), FeatureStream(kind)
    h, m, s = (int(part) for part in wall.split(":"))
    now_ns = (1_768_460_400 // 86_400 * 86_400 + (h - 3) * 3600 + m * 60 + s) * SECOND_NS
    stream.on_book(now_ns, b.bid_px[0], b.bid_qty[0], b.ask_px[0], b.ask_qty[0], 1, out)
    row = dict(zip(NAMES, out.tolist(), strict=True))
    for name, expected in (("since_open", since), ("to_break", to)):
        assert math.isnan(row[name]) if expected is None else row[name] == pytest.approx(expected)


def test_a_duplicate_book_is_no_event() -> None:
    """Neither a step back, nor a visit of the micro-price's state, nor a quote move."""
    feed, calm = Feed().warm(), Feed().warm()
    for qty in (60, 80, 70):
        for f in (feed, calm):
            f.send(book(1000, spread=3 if qty == 80 else 2, qty=qty), dt_s=0.25)
    status, _ = feed.send(book(1000, qty=70), dt_s=0.1)
    assert status == DUPLICATE
    _, repeated = feed.send(book(1001, qty=70), dt_s=0.15)
    _, expected = calm.send(book(1001, qty=70), dt_s=0.25)
    for name in NAMES:
        if name not in ("since_book", "since_spread_change", "since_mid_change"):
            assert repeated[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6, nan_ok=True), name
    assert repeated["since_book"] == pytest.approx(0.15) and expected["since_book"] == pytest.approx(0.25)


def test_an_inconsistent_book_voids_the_quote_moves_after_it() -> None:
    feed = Feed().warm()
    feed.send(book(1000), flags=0)
    _, row = feed.send(book(1004))
    assert row["intensity_bid_up_10s"] == 0 and row["activity_20s"] > 0
    _, row = feed.send(book(1005))
    assert row["intensity_bid_up_10s"] == pytest.approx(math.log(2))


def test_a_gap_forgets_what_was_learnt_but_not_the_leader() -> None:
    feed = Feed().warm()
    for k in range(300):
        feed.stream.on_leader(feed.now_ns, 2000 + k % 4)
        feed.stream.on_trade(feed.now_ns, 1001, 5, 1)
        _, row = feed.send(book(1000 + k // 7 % 2, qty=50 + k % 3))
    assert math.isfinite(row["vpin"]) and math.isfinite(row["leader_move_5s"])
    for _ in range(50):
        feed.now_ns += SECOND_NS // 4
        feed.stream.on_leader(feed.now_ns, 2002)
    status, row = feed.send(book(1000), dt_s=0.1)
    assert status == GAP | WARMUP
    assert math.isnan(row["vpin"]) and math.isnan(row["resilience_bid"])
    assert math.isfinite(row["leader_move_5s"])


def test_a_short_book_is_refused_not_read_beyond_its_end() -> None:
    short = [a[:10].copy() for a in book()]
    with pytest.raises(ValueError, match="20 levels"):
        Feed().send(short)
