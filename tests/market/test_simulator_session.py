"""Sessions: nothing happens in a break, the opening is busy, days follow one another, gaps are seen."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from features.batch import compute
from features.schema import GAP
from market.errors import ConfigError
from market.simulator import MOSCOW, OVERNIGHT_TICKS, SimSpec, simulate_market, simulate_recording
from market.simulator_session import SESSIONS, Session
from market.types import SECOND_NS, InstrumentDay
from market.validate import clean_day

SHORT = Session("13:50", "14:20", (("14:00", "14:05"), ("14:10", "14:11")))


def moscow(ns: int) -> str:
    return datetime.fromtimestamp(ns / SECOND_NS, MOSCOW).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


@pytest.fixture(scope="module")
def short() -> InstrumentDay:
    days, _ = simulate_market([SimSpec("SIMF", "LARGE", kind="future", session=SHORT)], dt_s=0.5, seed=2)
    return days[0]


def test_the_named_sessions_are_those_of_the_exchange() -> None:
    periods = {
        name: [f"{a // 3600:02}:{a // 60 % 60:02}-{b // 3600:02}:{b // 60 % 60:02}" for a, b in s.periods_s()]
        for name, s in SESSIONS.items()
    }
    assert periods == {
        "shares": ["10:00-18:40"],
        "shares-evening": ["10:00-18:40", "19:05-23:50"],
        "futures": ["10:00-14:00", "14:05-18:45", "19:05-23:50"],
        "futures-2026": ["08:50-23:50"],
    }


def test_nothing_happens_in_a_break(short: InstrumentDay) -> None:
    for table in (short.books, short.trades):
        clock = (table.exch_ns // SECOND_NS + 3 * 3600) % 86_400
        for start, end in SHORT.breaks:
            a, b = (int(t[:2]) * 3600 + int(t[3:]) * 60 for t in (start, end))
            inside = (table.exch_ns % SECOND_NS > 0) & (clock >= a) & (clock < b)
            assert not inside.any() and not ((clock > a) & (clock < b)).any()
        assert (np.diff(table.exch_ns) >= 0).all()
    assert len(short.books) == SHORT.trading_s() * 2 == 24 * 60 * 2
    edges = np.flatnonzero(np.diff(short.books.exch_ns) > SECOND_NS)
    seen = [
        (moscow(int(short.books.exch_ns[i]))[11:], moscow(int(short.books.exch_ns[i + 1]))[11:])
        for i in edges
    ]
    assert seen == [("14:00:00.000", "14:05:00.500"), ("14:10:00.000", "14:11:00.500")]
    assert moscow(int(short.books.exch_ns[0])) == "2026-01-15 13:50:00.500"
    assert moscow(int(short.books.exch_ns[-1])) == "2026-01-15 14:20:00.000"


def test_the_validator_and_the_features_see_the_gaps(short: InstrumentDay) -> None:
    _, report = clean_day(short)
    assert (report.gaps, report.longest_gap_ns // SECOND_NS, report.books_dropped) == (2, 300, 0)
    table = compute(short)
    first_after = np.flatnonzero(np.diff(short.books.recv_ns) > 10 * SECOND_NS) + 1
    assert np.flatnonzero(table.status & GAP).tolist() == first_after.tolist()


def test_the_opening_and_the_edges_are_busy_and_the_evening_is_quiet() -> None:
    session = SESSIONS["shares-evening"]
    level = session.activity(session.trading_s(), SECOND_NS, 2.0)
    main = 8 * 3600 + 40 * 60
    assert level[0] == pytest.approx(3 * (1 + session.burst), rel=0.01)
    assert level[main // 2] == pytest.approx(1.0, abs=0.01)
    assert level[main - 1] == pytest.approx(3.0, rel=0.01)
    assert level[main] == pytest.approx(session.evening_activity * (1 + session.burst), rel=0.01)
    assert level[-1] == pytest.approx(session.evening_activity, rel=0.01)
    assert (level > 0).all()


def test_the_burst_is_in_the_trades() -> None:
    calm = {"vv": 0.0, "ushape": 0.0}
    session = Session("10:00", "10:40", (("10:20", "10:25"),), burst=4.0, burst_s=60.0)
    days, _ = simulate_market([SimSpec("SIMA", session=session, overrides=calm)], seed=4)
    minute = days[0].trades.exch_ns // (60 * SECOND_NS) % (24 * 60) - 7 * 60  # since 10:00 Moscow
    count = np.bincount(minute, minlength=40)
    opening, reopening = count[:2].mean(), count[25:27].mean()
    assert opening > 1.7 * count[8:20].mean() and reopening > 1.7 * count[32:40].mean()
    assert count[21:25].sum() == 0


def test_several_days_follow_one_another(tmp_path: Any) -> None:
    days = ["2026-01-15", "2026-01-16", "2026-01-19"]
    spec = SimSpec("SIMA", session=Session("10:00", "10:10"))
    recording, oracle = simulate_recording(tmp_path / "r", [spec], day=days, seed=3)
    assert recording.info.days == {"SIMA": tuple(days)}
    read = [recording.read("SIMA", day) for day in days]
    assert len(oracle["SIMA"]) == sum(len(day.books) for day in read)
    assert [moscow(int(day.books.exch_ns[-1])) for day in read] == [f"{day} 10:10:00.000" for day in days]
    jumps = [
        abs(int(later.books.bid_px[0, 0]) - int(earlier.books.bid_px[-1, 0]))
        for earlier, later in pairwise(read)
    ]
    assert 0 < max(jumps) < 5 * OVERNIGHT_TICKS
    assert len({day.books.bid_qty.tobytes() for day in read}) == 3
    assert recording.info.provenance["specs"][0]["session"]["close"] == "10:10"


def test_hours_cut_a_session_short() -> None:
    days, _ = simulate_market([SimSpec("SIMA", session=SHORT)], hours=0.25, dt_s=1.0)
    assert len(days[0].books) == 900
    assert moscow(int(days[0].books.exch_ns[-1]))[11:] == "14:10:00.000"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"open": "10:00", "close": "9:00"}, "HH:MM"),
        ({"open": "10:00", "close": "09:00"}, "not in order"),
        ({"open": "10:00", "close": "18:00", "breaks": (("14:05", "14:00"),)}, "not in order"),
        ({"open": "10:00", "close": "18:00", "breaks": (("09:00", "11:00"),)}, "not in order"),
        ({"open": "10:00", "close": "18:00", "evening_from": "19:00"}, "outside the session"),
        ({"open": "10:00", "close": "18:00", "burst": -1.0}, "burst at least 0"),
    ],
)
def test_an_impossible_session_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Session(**arguments)
