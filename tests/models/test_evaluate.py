"""Scores against scikit-learn, intervals and luck against hand values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import evaluate


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_macro_f1_and_mcc_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef

    y, predicted = map(list, zip(*pairs, strict=True))
    assert evaluate.macro_f1(y, predicted) == pytest.approx(f1_score(y, predicted, average="macro"))
    assert evaluate.mcc(y, predicted) == pytest.approx(matthews_corrcoef(y, predicted), abs=1e-12)


def test_log_loss_and_brier_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    rng = np.random.default_rng(0)
    p, y = rng.dirichlet([1, 2, 1], 200), rng.integers(0, 3, 200)
    assert evaluate.log_loss(np.log(p), y) == pytest.approx(log_loss(y, p, labels=[0, 1, 2]))
    by_class = sum(brier_score_loss(y == c, p[:, c]) for c in range(3))
    assert evaluate.brier(p, y) == pytest.approx(by_class)


def test_a_certain_error_is_floored() -> None:
    assert evaluate.log_loss(np.array([[0.0, -np.inf, -np.inf]]), [2]) == pytest.approx(-evaluate.LOG_FLOOR)


def test_brier_skill_of_climatology_is_zero_and_of_an_oracle_one() -> None:
    y = np.array([0, 1, 1, 2])
    prior = np.array([0.25, 0.5, 0.25])
    assert evaluate.brier_skill(np.tile(prior, (4, 1)), y, prior) == pytest.approx(0)
    assert evaluate.brier_skill(np.eye(3)[y], y, prior) == pytest.approx(1)


def test_classwise_ece_by_hand() -> None:
    # Class 2 is forecast at .8 and happens in half of the cases, class 0 at .2 and happens in the other half.
    p = np.tile([0.2, 0.0, 0.8], (4, 1))
    y = np.array([0, 0, 2, 2])
    assert evaluate.classwise_ece(p, y) == pytest.approx((0.3 + 0.0 + 0.3) / 3)
    assert evaluate.reliability(p, y, 2) == [{"forecast": pytest.approx(0.8), "observed": 0.5, "rows": 4}]


def test_calibrated_forecasts_have_no_calibration_error() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([2, 3, 2], 100_000)
    y = (rng.random((100_000, 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    assert evaluate.classwise_ece(p, y) < 0.005
    sharper = p**2 / (p**2).sum(axis=1, keepdims=True)
    assert evaluate.classwise_ece(sharper, y) > 0.03


def test_wilson_by_hand() -> None:
    low, high = evaluate.wilson(8, 10)  # the textbook example
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert evaluate.wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 50), st.integers(1, 50))
@settings(deadline=None)
def test_wilson_holds_the_share_and_narrows(hits: int, more: int) -> None:
    n = hits + more
    low, high = evaluate.wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    wide = evaluate.wilson(4 * hits, 4 * n)
    assert wide[1] - wide[0] < high - low


def test_block_bootstrap_covers_and_widens_with_dependence() -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(4000)
    slow = np.convolve(noise, np.ones(20) / math.sqrt(20), "same")
    low, high = evaluate.block_bootstrap(slow, block=60, seed=1)
    naive = evaluate.block_bootstrap(slow, block=1, seed=1)
    assert low < slow.mean() < high
    # Twenty-fold averaging makes the mean's variance twenty times that of independent rows.
    assert (high - low) / (naive[1] - naive[0]) == pytest.approx(math.sqrt(20), rel=0.25)
    assert evaluate.block_bootstrap(slow, block=60, seed=1) == (low, high)
    assert evaluate.block_bootstrap([5.0], block=9) == (5.0, 5.0)


def test_block_bootstrap_of_independent_values_is_the_textbook_interval() -> None:
    values = np.random.default_rng(3).standard_normal(2000)
    low, high = evaluate.block_bootstrap(values, block=1, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_lower_bound_by_hand() -> None:
    assert evaluate.lower_bound([1.0, 3.0], z=1.0) == pytest.approx(2 - math.sqrt(2) / math.sqrt(2))
    assert evaluate.lower_bound([1.0]) == -math.inf


def test_probabilistic_sharpe_of_normal_returns_is_the_normal_formula() -> None:
    rng = np.random.default_rng(4)
    returns = rng.standard_normal(200_000)
    returns = (returns - returns.mean()) / returns.std() + 0.002
    # sqrt(n) * SR = .894; skewness and kurtosis of a normal leave it so
    assert evaluate.probabilistic_sharpe(returns) == pytest.approx(0.8144, abs=2e-3)
    assert evaluate.probabilistic_sharpe(returns, benchmark=0.002) == pytest.approx(0.5, abs=1e-3)
    assert evaluate.probabilistic_sharpe(np.ones(10)) == 0.0


def test_luckiest_of_a_hundred_zero_skill_trials_over_sixty_days() -> None:
    """The reference table: 5.2 annualised for 100 trials over 60 days, 3.2 for 10."""
    rng = np.random.default_rng(5)
    for trials, annual in ((100, 5.2), (10, 3.2)):
        best = []
        for _ in range(40):
            sharpes = np.array([evaluate.sharpe(rng.standard_normal(60)) for _ in range(trials)])
            best.append(evaluate.luckiest_sharpe(sharpes) * math.sqrt(252))
        assert np.mean(best) == pytest.approx(annual, abs=0.25)


def test_deflating_costs_confidence() -> None:
    rng = np.random.default_rng(6)
    returns = rng.standard_normal(200) + 0.12
    trials = rng.standard_normal(50) * 0.1
    assert evaluate.deflated_sharpe(returns, trials) < evaluate.probabilistic_sharpe(returns)
    assert evaluate.luckiest_sharpe([0.3]) == 0.0


@pytest.mark.parametrize(
    ("cost", "move", "share"),
    [(1, 5, 0.60), (3, 10, 0.65), (9.5, 10, 0.975), (11, 30, 0.683), (9.5, 5, 1.45)],
)
def test_break_even_precision_is_the_reference_table(cost: float, move: float, share: float) -> None:
    assert evaluate.break_even_precision(cost, move) == pytest.approx(share, abs=5e-4)


def test_break_even_with_a_stop() -> None:
    assert evaluate.break_even_precision(2.0, 12.0, 6.0) == pytest.approx(8 / 18)


def test_trade_summary_by_hand() -> None:
    s = evaluate.trade_summary([2.0, -1.0, 3.0, -2.0], [3.0, 0.5, 4.0, -1.0])
    assert s["trades"] == 4 and s["net_bps"] == 2.0 and s["gross_bps"] == 6.5
    assert s["cost_bps_per_trade"] == pytest.approx(1.125) and s["precision"] == 0.75
    assert s["profit_factor"] == pytest.approx(5 / 3) and s["max_drawdown_bps"] == 2.0
    assert s["break_even_precision"] == pytest.approx(0.5 * (1 + 1.125 / 2.125))
    assert evaluate.trade_summary([], []) == {"trades": 0}


def test_rounded_is_plain_json() -> None:
    value = {
        "a": np.float32(1 / 3),
        "b": [np.int64(2), math.nan, -0.0],
        "c": "x",
        "d": None,
        "e": np.array([True]),
    }
    assert evaluate.rounded(value) == {"a": 0.333333, "b": [2, None, 0.0], "c": "x", "d": None, "e": [True]}


def test_shares_leave_no_class_impossible() -> None:
    p = evaluate.shares([1, 1, 1])
    assert p.sum() == pytest.approx(1) and p.min() > 0
