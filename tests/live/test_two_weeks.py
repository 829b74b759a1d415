"""Simulated time: two weeks of sessions with weekends, a holiday, clearing and auctions, in seconds."""

from __future__ import annotations

from collections import Counter

import pytest
from core_bench import MID, SECOND_NS, Bench, audits, config, of

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import MonitoringConfig, RiskConfig, SessionConfig

MINUTE_NS = 60 * SECOND_NS
DAY_NS = 24 * 60 * MINUTE_NS
MONDAY_NS = 1_768_165_200 * SECOND_NS  # 2026-01-12 00:00 in Moscow
MOSCOW_S = 3 * 3600
HOLIDAY = 3  # the first Thursday
EXCHANGE = range(9 * 60 + 50, 18 * 60 + 50)
"""Minutes of the day in which the exchange sends books."""
CLEARING = range(14 * 60, 14 * 60 + 5)
AUCTION = range(18 * 60 + 40, 18 * 60 + 50)
WINDOW = range(10 * 60, 18 * 60 + 40)


def minute_of(now_ns: int) -> tuple[int, int]:
    """(day since the first Monday, minute of the day) in Moscow."""
    day, rest = divmod(now_ns - MONDAY_NS, DAY_NS)
    return day, rest // MINUTE_NS


def exchange_trades(day: int, minute: int) -> bool:
    closed = day % 7 > 4 or day == HOLIDAY
    return not closed and minute in EXCHANGE and minute not in CLEARING and minute not in AUCTION


@pytest.fixture(scope="module")
def weeks() -> tuple[Bench, list[tuple[int, cmd.Command]]]:
    """Fourteen days, a book and a score every minute of trading, every order filled at once."""
    bench = Bench.make(
        config(
            session=SessionConfig(enabled=True, utc_offset_s=MOSCOW_S),
            monitoring=MonitoringConfig(heartbeat_interval_ns=MINUTE_NS, heartbeat_miss_threshold=3),
            risk=RiskConfig(atr_min_bars=1, max_consecutive_losses=1000),
        ),
        tickers=("AAA",),
    )
    bench.now_ns = MONDAY_NS
    told: list[tuple[int, cmd.Command]] = []

    def tell(commands: list[cmd.Command]) -> None:
        told.extend((bench.now_ns, c) for c in commands)
        for order in of(commands, cmd.PlaceOrder):
            tell(bench.fill(order))

    tell(bench.tell(ev.Reconciled, {}, after_ns=0))
    tell(bench.tell(ev.Connection, True, after_ns=0))
    open_now = True
    for step in range(14 * 24 * 60):
        bench.now_ns = MONDAY_NS + step * MINUTE_NS
        day, minute = minute_of(bench.now_ns)
        tell(bench.tell(ev.Timer, after_ns=0))
        trades = exchange_trades(day, minute)
        if trades != open_now:
            open_now = trades
            tell(bench.tell(ev.TradingStatus, "AAA", trades, "", after_ns=0))
        if trades:
            tell(bench.book("AAA", bid=MID - 1 + (step % 5), after_ns=0))
            tell(bench.score(50_000 if step // 7 % 2 else -50_000, "AAA", after_ns=0))
    return bench, told


def test_orders_leave_only_inside_the_window_of_open_days(
    weeks: tuple[Bench, list[tuple[int, cmd.Command]]],
) -> None:
    entries = [minute_of(at) for at, c in weeks[1] if isinstance(c, cmd.PlaceOrder) and not c.reduce_only]
    assert len(entries) > 500
    assert all(minute in WINDOW and exchange_trades(day, minute) for day, minute in entries)
    days = Counter(day for day, _ in entries)
    assert set(days) == {0, 1, 2, 4, 7, 8, 9, 10, 11}  # no weekend, no holiday


def test_every_day_rolls_once_and_every_session_is_suspended_and_resumed_once(
    weeks: tuple[Bench, list[tuple[int, cmd.Command]]],
) -> None:
    events = Counter(c.event for _, c in weeks[1] if isinstance(c, cmd.Audit))
    assert events["DAY_ROLLED"] == 13
    assert events["SESSION_RESUMED"] == 10  # the schedule knows weekends; the holiday is the exchange's word
    assert events["SESSION_SUSPENDED"] == 11


def test_nights_weekends_the_holiday_clearing_and_auctions_are_no_missed_heartbeats(
    weeks: tuple[Bench, list[tuple[int, cmd.Command]]],
) -> None:
    assert "HEARTBEAT_MISSED" not in audits([c for _, c in weeks[1]])


def test_the_position_is_closed_when_the_window_closes(
    weeks: tuple[Bench, list[tuple[int, cmd.Command]]],
) -> None:
    bench, told = weeks
    assert bench.lots() == 0
    held = {c.hold.name for _, c in told if isinstance(c, cmd.HoldChanged)}
    assert {"SESSION", "TRADING_STATUS"} <= held
    trips = of([c for _, c in told], cmd.TripClosed)
    assert all(trip.exit_ns - trip.entry_ns < DAY_NS for trip in trips)


def test_the_money_of_two_weeks_adds_up(weeks: tuple[Bench, list[tuple[int, cmd.Command]]]) -> None:
    bench, told = weeks
    trips = of([c for _, c in told], cmd.TripClosed)
    position = bench.engine.positions["AAA"]
    assert sum(t.gross_nano for t in trips) == position.realised_nano
    assert sum(t.fees_nano for t in trips) == position.fees_nano
