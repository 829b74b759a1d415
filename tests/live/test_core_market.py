"""Bars, the exchange's clock and the window of books: the arithmetic under the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from core_bench import MINUTE_NS, SECOND_NS, START_NS, Bench, config, of
from hypothesis import given
from hypothesis import strategies as st

from live.core import clock
from live.core import commands as cmd
from live.core import events as ev
from live.core.bars import MinuteBars
from live.core.config import FallbackConfig, MonitoringConfig, SessionConfig

MOSCOW_S = 3 * 3600


def test_the_true_range_counts_the_jump_from_the_bar_before() -> None:
    bars = MinuteBars()
    for minute, mids in enumerate([(100, 104), (110, 112), (90, 90), (91, 91)]):
        for mid2 in mids:
            bars.on_mid(minute * MINUTE_NS, mid2)
    # 100..104, then 110..112 from a close of 104, then 90 from a close of 112; the fourth bar is still open
    assert bars.true_ranges(3 * MINUTE_NS) == (4 + 8 + 22, 3)


def test_only_the_last_five_closed_bars_count_and_old_ones_are_forgotten() -> None:
    bars = MinuteBars()
    for minute in range(9):
        bars.on_mid(minute * MINUTE_NS, 1_000)
        bars.on_mid(minute * MINUTE_NS, 1_000 + minute)
    assert bars.true_ranges(8 * MINUTE_NS)[1] == 5
    assert bars.true_ranges(60 * MINUTE_NS) == (0, 0)
    assert MinuteBars.from_dict(bars.to_dict()).to_dict() == bars.to_dict()


@given(st.integers(0, 4 * 10**18), st.integers(-12 * 3600, 14 * 3600))
def test_days_weekdays_and_times_equal_the_calendars(now_ns: int, offset_s: int) -> None:
    local = datetime.fromtimestamp(now_ns // SECOND_NS, UTC).astimezone(timezone(timedelta(seconds=offset_s)))
    day = clock.exchange_day(now_ns, offset_s)
    assert clock.weekday(day) == local.weekday()
    assert clock.iso_time(now_ns, offset_s) == local.strftime("%Y-%m-%d %H:%M")
    assert clock.day_start_ns(day, offset_s) <= now_ns < clock.day_start_ns(day + 1, offset_s)


@given(
    st.integers(0, 4 * 10**18),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 86_398),
    st.integers(1, 86_400),
)
def test_the_window_changes_exactly_at_its_next_edge(
    now_ns: int, days: set[int], start_s: int, length_s: int
) -> None:
    session = SessionConfig(
        start_s=start_s,
        end_s=min(86_400, start_s + length_s),
        allowed_weekdays=tuple(days),
        utc_offset_s=MOSCOW_S,
    )
    edge_ns = clock.next_edge_ns(now_ns, session)
    is_open = clock.window_open(now_ns, session)
    assert edge_ns > now_ns
    assert clock.window_open(edge_ns - 1, session) == is_open
    if not is_open:
        assert edge_ns == clock.next_open_ns(now_ns, session) and clock.window_open(edge_ns, session)


def test_the_night_is_no_missed_heartbeat() -> None:
    session = SessionConfig(start_s=10 * 3600, end_s=18 * 3600)
    bench = Bench.ready(config(session=session, monitoring=MonitoringConfig()))
    bench.now_ns = START_NS + 9 * 3600 * SECOND_NS
    bench.tell(ev.Timer)
    bench.now_ns = START_NS + 24 * 3600 * SECOND_NS
    bench.tell(ev.Timer, after_ns=0)
    bench.tell(ev.Timer, after_ns=14 * SECOND_NS)
    assert not list(bench.engine.holds)
    bench.tell(ev.Timer, after_ns=SECOND_NS)
    assert bench.engine.holds.get("HEARTBEAT") is not None


def test_an_illegal_order_state_stays_a_hold_while_positions_disagree() -> None:
    bench = Bench.ready()
    order = bench.enter()[0]
    bench.update(order, "REJECTED")
    bench.tell(ev.Reconciled, {"AAA": bench.lots() + 1}, after_ns=20 * SECOND_NS)
    for placed in bench.orders():
        if placed.reduce_only:
            bench.update(placed, "CANCELLED")
    bench.tell(ev.Reconciled, {"AAA": bench.lots() + 1}, after_ns=20 * SECOND_NS)
    assert bench.engine.holds.get("ORDER_STATE", "AAA") is not None
    assert bench.engine.holds.get("POSITION_MISMATCH", "AAA") is not None


def test_the_windows_figures_are_the_mean_imbalance_and_the_realised_volatility() -> None:
    bench = Bench.ready(config(fallback=FallbackConfig(window_ns=10 * SECOND_NS)))
    bench.now_ns += 20 * SECOND_NS
    for bid, bids in ((29_999, 100), (30_002, 300), (29_999, 100)):
        bench.book(bid=bid, bid_qty=(bids, bids, bids))
    market = bench.engine._markets["AAA"]
    moves = [6 * 10_000_000 // 60_000, -6 * 10_000_000 // 60_006]
    assert market.window(bench.now_ns) == (3, 500_000 // 3, int(sum(m * m for m in moves) ** 0.5))
    assert market.window(bench.now_ns + 60 * SECOND_NS)[0] == 0
    assert not of(bench.log, cmd.Refuse)
