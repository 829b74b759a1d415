"""Sets with a guarantee: the guarantee by enumeration, sequences made by an adversary, curves by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import ConfigError
from models import conformal
from models.conformal import AdaptiveConformal, SplitConformal, finite_sample_quantile, run_adaptive

ALPHAS = st.floats(0.01, 0.99)


def forecast(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and what happened."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1.0, 2.0, 1.0], n)
    return p, (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1)


# --- split conformal


@given(scores=st.lists(st.integers(0, 30), min_size=2, max_size=40), alpha=ALPHAS)
@settings(deadline=None, max_examples=200)
def test_coverage_is_guaranteed_whatever_the_scores_are(scores: list[int], alpha: float) -> None:
    # Exchangeable: each of the n + 1 rows is as likely to be the test row. Enumerated, this is the theorem.
    s = np.array(scores, float)
    covered = [s[i] <= finite_sample_quantile(np.sort(np.delete(s, i)), alpha) for i in range(len(s))]
    assert np.mean(covered) >= 1 - alpha - 1e-9


@given(n=st.integers(1, 60), alpha=ALPHAS)
@settings(deadline=None, max_examples=200)
def test_without_ties_coverage_is_exact_to_one_rank(n: int, alpha: float) -> None:
    s = np.arange(n + 1, dtype=float)
    covered = np.mean([s[i] <= finite_sample_quantile(np.delete(s, i), alpha) for i in range(n + 1)])
    exact = min(1.0, math.ceil((n + 1) * (1 - alpha) - 1e-9) / (n + 1))
    assert covered == pytest.approx(exact)
    assert covered <= 1 - alpha + 1 / (n + 1) + 1e-9


def test_the_quantile_by_hand() -> None:
    ordered = np.arange(1.0, 10.0)  # nine scores: rank ceil(10 * (1 - alpha))
    assert finite_sample_quantile(ordered, 0.1) == 9.0
    assert finite_sample_quantile(ordered, 0.5) == 5.0
    assert finite_sample_quantile(ordered, 0.05) == math.inf
    assert finite_sample_quantile(ordered, 1.0) == -math.inf
    assert finite_sample_quantile(np.empty(0), 0.3) == math.inf


def test_sets_and_the_singleton_rule_by_hand() -> None:
    c = SplitConformal(0.1, np.full(3, 0.6), np.full(3, 9))
    p = np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.45, 0.1, 0.45], [0.35, 0.35, 0.3]])
    assert c.sets(p).tolist() == [
        [False, False, True], [True, False, False], [False, True, False], [True, False, True], [False] * 3
    ]  # fmt: skip
    # Up, down; flat alone, both sides and nothing at all are no trade.
    assert c.sides(p).tolist() == [1, -1, 0, 0, 0]


def test_coverage_and_what_it_costs_on_other_rows() -> None:
    p, y = forecast(4000, 1)
    other, truth = forecast(20_000, 2)
    acted = []
    for alpha in (0.05, 0.2, 0.5):
        report = SplitConformal.fit(p, y, alpha=alpha).report(other, truth)
        assert report["coverage"] == pytest.approx(1 - alpha, abs=0.02)
        acted.append(report["acted"])
    assert acted[0] < acted[1] < acted[2]


def test_by_class_coverage_holds_in_each_class() -> None:
    p, y = forecast(6000, 3)
    other, truth = forecast(20_000, 4)
    plain, by_class = (SplitConformal.fit(p, y, alpha=0.2, by_class=b) for b in (False, True))
    worst = {}
    for name, fitted in (("plain", plain), ("by_class", by_class)):
        sets = fitted.sets(other)
        worst[name] = min(sets[truth == c, c].mean() for c in range(3))
    assert worst["by_class"] == pytest.approx(0.8, abs=0.03)
    assert worst["plain"] < worst["by_class"] - 0.02
    assert by_class.rows.sum() == 6000


def test_too_little_to_calibrate_covers_everything() -> None:
    p, y = forecast(5, 5)
    assert SplitConformal.fit(p, y, alpha=0.1).sets(p).all()
    assert SplitConformal.fit(p[:0], y[:0], alpha=0.1).sides(p).tolist() == [0] * 5
    with pytest.raises(ConfigError, match="share of misses"):
        SplitConformal.fit(p, y, alpha=0.0)


# --- adaptive


@given(
    worst=st.lists(st.booleans(), min_size=30, max_size=300), alpha=st.floats(0.05, 0.5),
    gamma=st.floats(0.005, 0.5),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_misses_come_out_right_against_any_adversary(
    worst: list[bool], alpha: float, gamma: float
) -> None:  # fmt: skip
    # The adversary picks the worst or the best class for the set that it sees.
    state = AdaptiveConformal(np.linspace(0, 1, 50), alpha=alpha, gamma=gamma)
    misses = 0
    for bad in worst:
        found = state.set([0.2, 0.3, 0.5])
        miss = bool((~found).any()) if bad else not found.any()
        state.learn(miss)
        misses += miss
        assert -gamma <= state.alpha[0] <= 1 + gamma
    assert abs(misses / len(worst) - alpha) <= state.bound(len(worst)) + 1e-9


@given(delay=st.integers(0, 40), seed=st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_with_labels_that_come_late_the_bound_is_wider_by_the_delay(delay: int, seed: int) -> None:
    p, y = forecast(400, seed)
    calibration = np.random.default_rng(seed).random(100)
    sets, used = run_adaptive(p, y, calibration, alpha=0.2, gamma=0.05, delay=delay)
    learnt = 400 - delay
    misses = 1 - sets[np.arange(learnt), y[:learnt]].mean()
    state = AdaptiveConformal(calibration, alpha=0.2, gamma=0.05)
    assert abs(misses - 0.2) <= state.bound(learnt, delay) + 1e-9
    assert used[: delay + 1].tolist() == [0.2] * (delay + 1)  # nothing is known before


def test_after_a_shift_the_adaptive_sets_recover_and_the_split_ones_do_not() -> None:
    p, y = forecast(2000, 6)
    scores = conformal.scores(p, y)
    shifted, truth = forecast(6000, 7)
    overconfident = shifted**4 / (shifted**4).sum(axis=1, keepdims=True)
    fixed = 1 - SplitConformal.fit(p, y, alpha=0.2).sets(overconfident)[np.arange(6000), truth].mean()
    sets, _ = run_adaptive(overconfident, truth, scores, alpha=0.2, gamma=0.02)
    adapted = 1 - sets[3000:][np.arange(3000), truth[3000:]].mean()
    assert fixed > 0.27
    assert adapted == pytest.approx(0.2, abs=0.02)


def test_each_regime_has_its_own_alpha() -> None:
    p, y = forecast(1000, 8)
    regime = np.arange(1000) % 2
    wrong = np.where(regime == 1, np.argmin(p, axis=1), y)  # regime 1 is a disaster
    _, used = run_adaptive(p, wrong, conformal.scores(p, y), alpha=0.2, gamma=0.02, regime=regime)
    assert used[-1] < 0.05 < used[-2]
    with pytest.raises(ConfigError, match="gamma"):
        AdaptiveConformal([0.1], alpha=0.2, gamma=0.0)


# --- risk and coverage


def test_risk_coverage_by_hand() -> None:
    got = conformal.risk_coverage([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    assert got.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert got.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert got.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert got.excess == pytest.approx(got.aurc - (0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert (got.at(0.5), got.at(0.6), got.at(1.0)) == pytest.approx((1 / 2, 1 / 3, 1 / 2))
    assert math.isnan(conformal.risk_coverage([], []).aurc)


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.floats(-5, 5)), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_the_curve_ends_at_the_mean_and_knows_no_order_of_rows(
    rows: list[tuple[int, float]], seed: int
) -> None:
    c, x = (np.array(v, float) for v in zip(*rows, strict=True))
    got = conformal.risk_coverage(c, x)
    assert got.coverage[-1] == 1.0 and got.risk[-1] == pytest.approx(x.mean(), abs=1e-9)
    for point, threshold in zip(got.risk, got.threshold, strict=True):
        assert point == pytest.approx(x[c >= threshold].mean(), abs=1e-9)
    shuffled = np.random.default_rng(seed).permutation(len(c))
    again = conformal.risk_coverage(c[shuffled], x[shuffled])
    np.testing.assert_allclose(again.risk, got.risk, atol=1e-9)


def test_a_perfect_order_has_no_excess_and_a_random_one_the_mean_risk() -> None:
    rng = np.random.default_rng(9)
    loss = (rng.random(20_000) < 0.3).astype(float)
    assert conformal.risk_coverage(-loss + rng.random(20_000) * 0.5, loss).excess == pytest.approx(
        0, abs=1e-9
    )
    luck = conformal.risk_coverage(rng.random(20_000), loss)
    assert luck.aurc == pytest.approx(0.3, abs=0.01)
    # Closed form of a perfect order: r + (1 - r) ln(1 - r), r the error rate.
    assert luck.aurc - luck.excess == pytest.approx(loss.mean() + 0.7 * math.log(0.7), abs=0.01)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_one_row_and_many_agree_on_the_side(down: float, up: float, q_down: float, q_up: float) -> None:
    many = conformal.one_sided(np.array([down]), np.array([up]), q_down, q_up)[0]
    assert conformal.side_of(down, up, q_down, q_up) == many
    if 1.0 - down <= q_down:  # down is in the set: nothing is bought
        assert many <= 0


def test_at_most_alpha_of_the_falls_is_bought() -> None:
    # Split conformal by class: over exchangeable rows the share holds whatever the forecast is worth.
    alpha, rng, shares = 0.2, np.random.default_rng(0), []
    for _ in range(200):
        y = rng.integers(0, 3, 400)
        z = rng.standard_normal((400, 3)) + 1.5 * rng.random() * np.eye(3)[y]
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        fit = conformal.SplitConformal.fit(p[:200], y[:200], alpha=alpha, by_class=True)
        side = conformal.one_sided(p[200:, 0], p[200:, 2], fit.quantile[0], fit.quantile[2])
        falls = y[200:] == 0
        shares.append(np.mean(side[falls] > 0))
    assert np.mean(shares) <= alpha
