"""One sentence that tells whether all is well: right for every hold, alone and together."""

from __future__ import annotations

import pytest
from board_state import HOLD, status
from hypothesis import given
from hypothesis import strategies as st

from live.core.holds import KINDS, Severity
from live.verdict import LEVELS, WORDS, judge
from market.types import NANO, SECOND_NS


def seen(**changes):
    return judge({"alive": True, "age_s": 0.5, "halt_flag": None, **status(**changes)})


def hold(name, scope="*", severity=None):
    severity = severity or KINDS[name].severity.name
    return {**HOLD, "name": name, "scope": scope, "severity": severity, "reason": "why"}


def test_every_hold_has_words():
    assert set(WORDS) == set(KINDS)


def test_all_is_well_names_what_is_traded_and_held():
    verdict = seen()
    assert (verdict.level, verdict.headline) == ("ok", "All is well")
    assert verdict.why == "Trading SBER, GAZP; +3 lots of SBER."


@pytest.mark.parametrize(
    ("changes", "level", "headline"),
    [
        ({"holds": [hold("SESSION")], "positions": {}}, "idle", "Not trading: outside trading hours"),
        ({"holds": [hold("LOSS_COOLDOWN")]}, "watch", "A pause after losses"),
        ({"holds": [hold("BOOK_QUARANTINE", "GAZP")]}, "watch", "A book is not believed (GAZP)"),
        ({"holds": [hold("ROTATED_OUT", "GAZP")]}, "ok", "All is well"),
        ({"holds": [hold("TRADING_STATUS", "GAZP")]}, "ok", "All is well"),
        ({"holds": [hold("TRADING_STATUS", "GAZP"), hold("TRADING_STATUS", "SBER")], "positions": {}}, "idle",
         "Not trading: the exchange does not trade it"),
        ({"holds": [hold("ORDER_UNKNOWN", "GAZP")]}, "watch", "Nobody knows what became of an order (GAZP)"),
        ({"holds": [hold("CONNECTION")]}, "bad",
         "No connection to the broker, and +3 lots of SBER cannot be closed from here"),
        ({"holds": [hold("CONNECTION")], "positions": {}}, "bad", "Not trading: no connection to the broker"),
        ({"holds": [hold("POSITION_MISMATCH", "GAZP")]}, "watch", "The broker's position is not ours (GAZP)"),
        ({"holds": [hold("POSITION_MISMATCH", "SBER")]}, "bad",
         "The broker's position is not ours (SBER), and +3 lots of SBER cannot be closed from here"),
        ({"holds": [hold("NOT_RECONCILED")]}, "bad",
         "Not compared with the broker yet, and +3 lots of SBER cannot be closed from here"),
        ({"storage": {"degraded": "disk full", "lost": 0}}, "watch", "The database does not take writes"),
        ({"day": {"realised_nano": -1_900 * NANO, "loss_limit_nano": 2_000 * NANO}}, "watch",
         "Close to the day's loss limit"),
        ({"queue": {"length": 0, "conflated": 0, "dropped": 9}}, "watch", "Market data was dropped"),
    ],
)  # fmt: skip
def test_what_is_said(changes, level, headline):
    verdict = seen(**changes)
    assert (verdict.level, verdict.headline) == (level, headline)


def test_the_start_is_not_a_fault_for_half_a_minute():
    young = status(holds=[hold("NOT_RECONCILED")], positions={})
    young["started_wall_ns"] = young["wall_ns"] - 5 * SECOND_NS
    verdict = judge({"alive": True, "age_s": 0.0, "halt_flag": None, **young})
    assert (verdict.level, verdict.headline) == ("idle", "Not trading: starting")


def test_old_data_is_named_with_its_age():
    instruments = status()["instruments"]
    instruments["GAZP"]["book_age_s"] = 75.0
    verdict = seen(instruments=instruments)
    assert (verdict.level, verdict.headline) == ("watch", "Old data for GAZP")
    assert verdict.why == "The last book is 75 s old."


@pytest.mark.parametrize(
    ("ended", "positions", "level"),
    [
        ({"reason": "SIGTERM received", "failure": None}, {}, "idle"),
        ({"reason": "SIGTERM received", "failure": None}, {"SBER": {"lots": 3}}, "bad"),
        ({"reason": "", "failure": "BrokerError: gone"}, {}, "bad"),
        (None, {}, "bad"),
    ],
)
def test_a_runner_that_does_not_run(ended, positions, level):
    found = {"alive": False, "age_s": 90.0, "halt_flag": None, **status(positions=positions, ended=ended)}
    verdict = judge(found)
    assert verdict.level == level
    assert ("SBER" in verdict.why) is bool(positions)


HOLDS = st.lists(
    st.builds(
        hold, st.sampled_from(sorted(KINDS)), st.sampled_from(["*", "SBER", "GAZP"]),
        st.sampled_from([s.name for s in Severity]),
    ),
    max_size=6,
)  # fmt: skip


@given(HOLDS)
def test_a_position_that_cannot_be_closed_is_always_bad(holds):
    verdict = seen(holds=holds)
    assert verdict.level in LEVELS
    stuck = [h for h in holds if h["severity"] == "NO_ORDERS" and h["scope"] in ("*", "SBER")]
    if stuck:
        assert verdict.level == "bad"
        assert "+3 lots of SBER cannot be closed from here" in verdict.headline


@given(HOLDS, HOLDS)
def test_more_holds_never_look_better(some, more):
    assert LEVELS.index(seen(holds=some + more).level) >= LEVELS.index(seen(holds=some).level)
