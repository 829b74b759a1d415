"""Who leads whom: the estimator against its definition, a planted lead, and markets without one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.leadlag import chosen, lagged, leads
from flows.cli import main
from market.errors import RecordingError
from market.recording import write_recording
from market.simulator import LEAD_LAG_SPECS, SimSpec, simulate_market
from market.types import InstrumentDay


def by_definition(x_ns: list[int], x: list[float], y_ns: list[int], y: list[float], lag: int) -> float:
    """The double sum over increments whose half-open intervals meet."""
    total = 0.0
    for i in range(1, len(x_ns)):
        for j in range(1, len(y_ns)):
            if max(x_ns[i - 1], y_ns[j - 1] - lag) < min(x_ns[i], y_ns[j] - lag):
                total += (x[i] - x[i - 1]) * (y[j] - y[j - 1])
    return total


PATH = st.lists(st.tuples(st.integers(1, 9), st.integers(-3, 3)), min_size=2, max_size=12)


@given(x=PATH, y=PATH, lag=st.integers(-12, 12))
def test_the_sum_is_that_of_the_definition(
    x: list[tuple[int, int]], y: list[tuple[int, int]], lag: int
) -> None:
    (x_ns, x_at), (y_ns, y_at) = (
        (np.cumsum([dt for dt, _ in path]), np.cumsum([float(step) for _, step in path])) for path in (x, y)
    )
    got = lagged(x_ns, x_at, y_ns, y_at, lag).sum()
    assert got == pytest.approx(
        by_definition(x_ns.tolist(), x_at.tolist(), y_ns.tolist(), y_at.tolist(), lag)
    )


@pytest.fixture(scope="module")
def led() -> list[InstrumentDay]:
    """SIMG follows SIML by a second."""
    return simulate_market(LEAD_LAG_SPECS, hours=0.4, seed=3)[0]


def test_a_planted_lead_is_found_with_its_lag_and_one_way(led: list[InstrumentDay]) -> None:
    found = leads(led)
    assert chosen(found) == {"SIMG": "SIML"}
    assert (found[0].leader, found[0].lag_s) == ("SIML", 1.0) and found[0].ratio > 3
    assert not found[1].believed and found[1].ratio == pytest.approx(1 / found[0].ratio, rel=1e-6)


def test_who_is_named_first_does_not_matter(led: list[InstrumentDay]) -> None:
    assert leads(led[::-1]) == leads(led)


def test_nobody_leads_in_independent_markets() -> None:
    for seed in (5, 6, 7):
        days = simulate_market([SimSpec("AAA"), SimSpec("BBB")], hours=0.4, seed=seed)[0]
        assert chosen(leads(days)) == {}


def test_only_the_share_that_was_asked_for_is_looked_at(led: list[InstrumentDay]) -> None:
    whole = leads(led, 0.9)
    cut_ns = led[0].books.recv_ns[0] + round(0.95 * np.ptp(led[0].books.recv_ns))
    later = [  # may say anything
        InstrumentDay(d.instrument, d.day, d.books.rows(np.arange(len(d.books))), d.trades) for d in led
    ]
    for day in later:
        day.books.bid_px[day.books.recv_ns > cut_ns] -= 50
    assert leads(later, 0.9) == whole and leads(later) != leads(led)


def test_too_little_is_refused(led: list[InstrumentDay]) -> None:
    with pytest.raises(RecordingError, match="a leader takes two"):
        leads(led[:1])
    with pytest.raises(RecordingError, match="minutes in common, 20 are needed"):
        leads(led, 0.1)


def test_the_command_says_what_to_write_into_the_parameters(
    led: list[InstrumentDay], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recording"
    write_recording(path, led, source="simulator", watermark="SIMULATED", tariff="simulated", provenance={})
    assert main(["features", "leaders", str(path), "--share", "1"]) == 0
    assert "params.yaml: features: {leader: {SIMG: SIML}}" in capsys.readouterr().out
    assert main(["features", "leaders", str(path), "--share", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["leader"] == {"SIMG": "SIML"} and [p["believed"] for p in said["pairs"]] == [True, False]
    assert main(["features", "leaders", str(path), "--share", "1.5"]) != 0
    assert "at most 1" in capsys.readouterr().err
