"""Instruments with one fair value: the planted lag is where their returns correlate, and only if planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market.errors import ConfigError
from market.simulator import LEAD_LAG_SPECS, SimSpec, simulate_market
from market.simulator_factor import Common
from market.stylised import lead_lag, measure

LEADER, FOLLOWER = LEAD_LAG_SPECS


@pytest.mark.parametrize("lag_s", [0.5, 1.0, 2.0])
def test_returns_correlate_most_at_the_planted_lag(lag_s: float) -> None:
    days, _ = simulate_market([LEADER, replace(FOLLOWER, lag_s=lag_s)], hours=1.0, seed=1)
    seen = lead_lag(*days)
    assert seen.peak_lag_s == pytest.approx(lag_s, abs=0.25), "further away than one step"
    assert seen.peak > 4 / len(days[0].books) ** 0.5, "under the noise of a correlation"
    assert lead_lag(days[1], days[0]).peak_lag_s == -seen.peak_lag_s
    assert 0.4 < seen.same_time_10s < 0.95


def test_prices_that_share_nothing_do_not_correlate() -> None:
    days, _ = simulate_market(LEAD_LAG_SPECS, hours=1.0, seed=1, common=Common(rho=0.0))
    seen = lead_lag(*days)
    noise = 1 / len(days[0].books) ** 0.5
    assert np.abs(seen.correlation).max() < 4.5 * noise
    assert abs(seen.same_time_10s) < 0.25


def test_the_more_is_shared_the_more_they_correlate() -> None:
    seen = [
        lead_lag(*simulate_market(LEAD_LAG_SPECS, hours=0.5, seed=2, common=Common(rho=rho))[0]).same_time_10s
        for rho in (0.2, 0.6, 1.0)
    ]
    assert seen[0] < seen[1] < seen[2]


def test_a_fair_value_leaves_a_market_that_looks_like_one() -> None:
    days, _ = simulate_market(LEAD_LAG_SPECS, hours=2.0, seed=3)
    for day in days:
        seen = measure(day)
        assert 0.5 < seen.ofi_r2 < 0.9 and seen.trade_r2 < seen.ofi_r2
        assert -0.25 < seen.acf_1s < 0 and 0.7 < seen.variance_ratio < 1.3


def test_an_instrument_is_the_same_whoever_shares_its_value() -> None:
    both, _ = simulate_market(LEAD_LAG_SPECS, hours=0.05, seed=5)
    alone, _ = simulate_market([FOLLOWER], hours=0.05, seed=5)
    np.testing.assert_array_equal(both[1].books.bid_px, alone[0].books.bid_px)
    apart, _ = simulate_market([replace(FOLLOWER, lag_s=None)], hours=0.05, seed=5)
    assert both[1].books.bid_px.tobytes() != apart[0].books.bid_px.tobytes()


@pytest.mark.parametrize(
    ("common", "lag_s", "text"),
    [
        ({"rho": 1.2}, 0.0, "between 0 and 1"),
        ({"sigma": -1.0}, 0.0, "sigma is at least 0"),
        ({}, -1.0, "0 to 60 s"),
        ({}, 61.0, "0 to 60 s"),
    ],
)
def test_an_impossible_link_is_refused(common: dict[str, float], lag_s: float, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        simulate_market([SimSpec("SIMA", lag_s=lag_s)], hours=0.01, common=Common(**common))
