"""Intervals of series that remember, against closed forms of AR(1) and of independent days."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import ConfigError
from models import bootstrap


def ar1(n: int, r: float, seed: int) -> np.ndarray:
    shocks = np.random.default_rng(seed).standard_normal(n + 500)
    out = np.zeros(n + 500)
    for t in range(1, n + 500):
        out[t] = r * out[t - 1] + shocks[t]
    return out[500:]


@given(n=st.integers(1, 80), block=st.floats(1, 90), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_resamples_are_runs_of_neighbours(n: int, block: float, seed: int) -> None:
    for method in ("moving", "stationary"):
        for rows in bootstrap.resampled_rows(n, block=block, method=method, resamples=3, seed=seed):
            assert len(rows) == n and rows.min() >= 0 and rows.max() < n
            if method == "moving":
                length = min(round(block), n)
                inner = np.arange(1, n) % length != 0
                assert (np.diff(rows)[inner] == 1).all()


def test_stationary_blocks_have_their_mean_length_and_favour_no_row() -> None:
    rows = np.stack(
        list(bootstrap.resampled_rows(400, block=10, method="stationary", resamples=2000, seed=1))
    )
    jumps = (np.diff(rows, axis=1) % 400 != 1).mean()
    assert 1 / jumps == pytest.approx(10, rel=0.05)
    assert np.bincount(rows.ravel(), minlength=400).std() / 2000 < 0.15


def test_one_row_blocks_of_independent_values_are_the_textbook_interval() -> None:
    x = np.random.default_rng(2).standard_normal(1500)
    half = 1.96 * x.std() / math.sqrt(1500)
    for method in ("moving", "stationary"):
        got = bootstrap.interval(x, block=1, method=method, resamples=2000)
        assert (got.low, got.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.12 * half)


@pytest.mark.parametrize("method", ["moving", "stationary"])
def test_the_interval_of_an_ar1_has_its_long_run_width(method: str) -> None:
    # The mean of an AR(1) of r = .8 scatters by 1 / (1 - r) / sqrt(n): sqrt(9) times the naive width.
    widths = []
    for seed in range(6):
        got = bootstrap.interval(ar1(5000, 0.8, seed), block=80, method=method, resamples=400)
        widths.append((got.high - got.low) / 2)
    assert np.mean(widths) == pytest.approx(1.96 * 5 / math.sqrt(5000), rel=0.15)


def test_a_block_of_the_right_length_is_found() -> None:
    r, n = 0.7, 8000
    expected = (2 * r / (1 - r * r)) ** (2 / 3) * n ** (1 / 3)
    got = np.mean([bootstrap.block_length(ar1(n, r, seed)) for seed in range(8)])
    assert got == pytest.approx(expected, rel=0.25)
    ratio = bootstrap.block_length(ar1(n, r, 1), "moving") / bootstrap.block_length(ar1(n, r, 1))
    assert ratio == pytest.approx(1.5 ** (1 / 3))
    assert bootstrap.block_length(np.random.default_rng(3).standard_normal(4000)) < 6
    assert bootstrap.block_length(np.ones(50)) == 1.0


def test_any_statistic_may_be_asked_for() -> None:
    x = np.random.default_rng(4).standard_normal(600)
    got = bootstrap.interval(x, block=1, statistic=lambda v: float(np.median(v)), resamples=500)
    assert got.low < np.median(x) < got.high and got.value == np.median(x)
    empty = bootstrap.interval([])
    assert math.isnan(empty.low) and empty.blocks == 0
    assert bootstrap.interval([3.0]).low == 3.0
    with pytest.raises(ConfigError, match="1 at least"):
        next(bootstrap.resampled_rows(0, block=1, method="moving", resamples=1))


# --- days


def test_days_as_blocks_see_what_differs_between_days() -> None:
    rng = np.random.default_rng(5)
    day = np.repeat(np.arange(60), 40)
    x = rng.standard_normal(60)[day] + rng.standard_normal(2400) * 0.5
    got = bootstrap.day_interval(x, day)
    within = bootstrap.interval(x, block=1)
    daily = x.reshape(60, 40).mean(axis=1)
    half = 1.96 * daily.std() / math.sqrt(60)
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.12)
    assert got.high - got.low > 4 * (within.high - within.low)
    assert got.value == pytest.approx(x.mean()) and got.blocks == 60


def test_a_day_without_a_trade_is_a_result() -> None:
    got = bootstrap.day_interval([10.0, 10.0], [0, 1], total=True, traded_days=4)
    assert got.value == 5.0 and got.blocks == 4
    # The mean per trade is 10 whatever days are drawn; days without one say nothing about it.
    mean = bootstrap.day_interval([10.0, 10.0], [0, 1], traded_days=4)
    assert (mean.low, mean.high) == (10.0, 10.0)


def test_few_days_fall_back_and_say_so() -> None:
    x = np.random.default_rng(6).standard_normal(300)
    assert bootstrap.net_interval(x, np.arange(300) // 100, resamples=50).method == "stationary"
    assert bootstrap.net_interval(x, np.arange(300) // 30, resamples=50).method == "days"


# --- memory


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_ar1(r: float) -> None:
    n = 20_000
    got = np.mean([bootstrap.effective_sample_size(ar1(n, r, seed)) for seed in range(4)])
    assert got == pytest.approx(n * (1 - r) / (1 + r), rel=0.12)


def test_effective_sample_size_of_repeated_values_is_that_of_the_values() -> None:
    series = (np.repeat(np.random.default_rng(seed).standard_normal(2000), 10) for seed in range(10))
    got = np.mean([bootstrap.effective_sample_size(x) for x in series])
    assert got == pytest.approx(2000, rel=0.08)
    assert bootstrap.effective_sample_size(np.ones(9)) == 1.0
    assert bootstrap.effective_sample_size([]) == 0.0


def test_effective_count_by_hand() -> None:
    assert bootstrap.effective_count(3600, horizon_ns=10) == 360
    assert bootstrap.effective_count(3600, horizon_ns=10, decorrelation_ns=30) == 60
