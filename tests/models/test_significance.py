"""Luck and skill: closed forms, the tables of the reference, noise and planted winners."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import ConfigError
from models import evaluate, significance
from models.significance import EvidenceError

# --- Sharpe ratios


def test_psr_is_that_of_the_pipelines_reports() -> None:
    rng = np.random.default_rng(1)
    r = rng.standard_t(5, 300) * 0.7 + 0.05
    d = (r - r.mean()) / r.std()
    got = significance.psr(
        evaluate.sharpe(r), 300, skew=float(np.mean(d**3)), kurtosis=float(np.mean(d**4)), benchmark=0.02
    )
    assert got == pytest.approx(evaluate.probabilistic_sharpe(r, 0.02), abs=1e-12)


def test_psr_by_hand() -> None:
    # Normal returns, SR 0.1, 101 periods: z = .1 * 10 / sqrt(1 + .005) = .9975.
    assert significance.psr(0.1, 101) == pytest.approx(0.8407, abs=1e-4)
    # Bad skew and fat tails: variance 1 + .3 + 2.25 * .01... costs confidence.
    assert significance.psr(0.1, 101, skew=-3, kurtosis=10) == pytest.approx(0.8086, abs=1e-3)
    assert significance.psr(0.1, 101, benchmark=0.1) == pytest.approx(0.5)
    assert significance.psr(5.0, 2) == 0.0


@given(
    sr=st.floats(0.01, 1), skew=st.floats(-1, 1), kurtosis=st.floats(2.5, 20),
    confidence=st.floats(0.6, 0.99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_minimum_track_record_is_where_psr_reaches_its_confidence(
    sr: float, skew: float, kurtosis: float, confidence: float
) -> None:
    n = significance.minimum_periods(sr, skew=skew, kurtosis=kurtosis, confidence=confidence)
    z = (n - 1) ** 0.5 * sr / math.sqrt(max(1 - skew * sr + (kurtosis - 1) / 4 * sr * sr, 1e-12))
    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(confidence, abs=1e-9)
    if n > 3:
        assert significance.psr(sr, math.ceil(n) + 1, skew=skew, kurtosis=kurtosis) >= confidence


def test_no_track_record_is_long_enough_for_less_than_the_benchmark() -> None:
    assert significance.minimum_periods(0.1, benchmark=0.1) == math.inf


def test_zero_skill_best_of_n_is_the_reference_table() -> None:
    got = {int(row["trials"]): row["annual_sharpe"] for row in significance.luck_table()}
    for trials, annual in ((10, 3.2), (50, 4.7), (100, 5.2), (500, 6.3)):
        assert got[trials] == pytest.approx(annual, abs=0.06)


def test_best_of_unskilled_is_what_simulated_trials_show() -> None:
    rng = np.random.default_rng(2)
    best = rng.standard_normal((4000, 50)).max(axis=1).mean()
    assert significance.best_of_unskilled(50, 1.0) == pytest.approx(best, abs=0.04)
    assert significance.best_of_unskilled(1, 1.0) == 0.0


def test_independent_trials_at_both_ends_and_between() -> None:
    rng = np.random.default_rng(3)
    own, common = rng.standard_normal((5000, 20)), rng.standard_normal((5000, 1))
    assert significance.independent_trials(own) == pytest.approx(20, abs=0.4)
    assert significance.independent_trials(np.repeat(common, 20, axis=1)) == pytest.approx(1)
    # Correlation .5: .5 + .5 * 20.
    assert significance.independent_trials(own + common) == pytest.approx(10.5, abs=0.7)
    assert significance.independent_trials(np.zeros((9, 4))) == 1.0


def test_deflated_sharpe_is_that_of_the_pipelines_reports_and_shows_its_parts() -> None:
    rng = np.random.default_rng(4)
    r, trials = rng.standard_normal(250) + 0.15, rng.standard_normal(40) * 0.08
    got = significance.deflated_sharpe(r, trials)
    assert got.probability == pytest.approx(evaluate.deflated_sharpe(r, trials), abs=1e-12)
    assert got.benchmark == pytest.approx(evaluate.luckiest_sharpe(trials), abs=1e-12)
    assert got.psr == pytest.approx(evaluate.probabilistic_sharpe(r), abs=1e-12)
    assert (got.periods, got.trials) == (250, 40.0)
    assert significance.deflated_sharpe(r, trials, trials=5).probability > got.probability
    assert significance.deflated_sharpe(np.ones(9), trials).probability == 0.0
    with pytest.raises(EvidenceError, match="none were logged"):
        significance.deflated_sharpe(r, [])


def test_the_best_of_a_hundred_noises_is_rarely_believed() -> None:
    rng = np.random.default_rng(5)
    believed, plain = 0, 0
    for _ in range(100):
        x = rng.standard_normal((60, 100))
        sharpes = x.mean(axis=0) / x.std(axis=0, ddof=1)
        got = significance.deflated_sharpe(x[:, np.argmax(sharpes)], sharpes)
        believed += got.probability >= significance.DSR_LIMIT
        plain += got.psr >= significance.DSR_LIMIT
    assert plain >= 95  # without counting the trials nearly every noise looks proven
    assert believed <= 5


def test_the_sharpe_distribution_of_paths_by_hand() -> None:
    paths = np.array([[1.0, 3.0], [-1.0, -3.0], [0.0, 0.0]])
    got = significance.sharpe_distribution(paths)
    assert (got["paths"], got["periods"], got["median"]) == (3, 2, 0.0)
    assert got["worst"] == pytest.approx(-math.sqrt(2)) and got["below_zero"] == pytest.approx(1 / 3)
    assert got["low5"] == pytest.approx(-0.9 * math.sqrt(2)) and got["high95"] == pytest.approx(-got["low5"])
    with pytest.raises(EvidenceError, match="finite"):
        significance.sharpe_distribution([[1.0, math.nan]])


# --- PBO


def brute_force_pbo(x: np.ndarray, blocks: int) -> tuple[float, float]:
    """The paper's procedure, one split after another."""
    parts = np.array_split(np.arange(len(x)), blocks)
    overfit, loss = [], []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[b] for b in half])
        outside = np.concatenate([parts[b] for b in range(blocks) if b not in half])
        ins = [evaluate.sharpe(x[inside, j]) for j in range(x.shape[1])]
        oos = [evaluate.sharpe(x[outside, j]) for j in range(x.shape[1])]
        best = int(np.argmax(ins))
        w = sum(o <= oos[best] for o in oos) / (x.shape[1] + 1)
        overfit.append(math.log(w / (1 - w)) <= 0)
        loss.append(oos[best] < 0)
    return float(np.mean(overfit)), float(np.mean(loss))


@pytest.mark.parametrize("blocks", [2, 4, 6])
def test_pbo_is_the_papers_procedure(blocks: int) -> None:
    x = np.random.default_rng(blocks).standard_normal((53, 7))  # blocks of unequal length
    got = significance.pbo(x, blocks=blocks)
    assert (got.pbo, got.loss) == brute_force_pbo(x, blocks)
    assert got.splits == math.comb(blocks, blocks // 2)


def test_pbo_of_noise_is_a_half_and_of_a_winner_near_zero() -> None:
    rng = np.random.default_rng(6)
    noise = [significance.pbo(rng.standard_normal((128, 20)), blocks=8).pbo for _ in range(200)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.06)
    planted = rng.standard_normal((128, 20))
    planted[:, 7] += 0.6
    got = significance.pbo(planted)
    assert got.splits == 12_870 and got.pbo < 0.02 and got.loss < 0.02
    assert got.pbo < significance.PBO_LIMIT


def test_pbo_of_trials_that_only_trade_places_is_one() -> None:
    # Every trial's good half is another's bad half: the winner in sample loses out of sample.
    days = np.repeat(np.array([[1.0, -1.0], [-1.0, 1.0]]), 16, axis=0)
    x = days + np.random.default_rng(7).standard_normal(days.shape) * 0.01
    got = significance.pbo(x, blocks=2)
    assert (got.pbo, got.loss) == (1.0, 1.0)


@given(st.integers(0, 10_000), st.floats(0.1, 50))
@settings(deadline=None, max_examples=15)
def test_pbo_knows_no_unit_and_no_order_of_trials(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 6))
    got, other = significance.pbo(x, blocks=8), significance.pbo(unit * x[:, ::-1], blocks=8)
    assert other.pbo == got.pbo
    np.testing.assert_allclose(np.sort(other.logits), np.sort(got.logits), atol=1e-9)


def test_idle_trials_do_not_win_by_rounding() -> None:
    # A constant result has no Sharpe ratio: it scores 0, not the reciprocal of a rounding error.
    rng = np.random.default_rng(8)
    idle = np.tile(np.linspace(0.1, 0.9, 7), (64, 1))
    got = significance.pbo(np.column_stack([idle, rng.standard_normal((64, 3)) - 2.0]), blocks=8)
    assert (got.slope, got.loss) == (0.0, 0.0)
    np.testing.assert_allclose(got.logits, math.log(7 / 4))  # the middle of the seven that share the top
    assert significance.pbo(np.column_stack([idle, idle]), blocks=8, score="mean").splits == 70


def test_too_little_for_pbo_is_named() -> None:
    with pytest.raises(EvidenceError, match="needs 32 periods and there are 31"):
        significance.pbo(np.zeros((31, 3)))
    with pytest.raises(EvidenceError, match="two trials"):
        significance.pbo(np.zeros((99, 1)))
    with pytest.raises(ConfigError, match="even number"):
        significance.pbo(np.zeros((99, 3)), blocks=7)


def test_the_verdict_needs_both() -> None:
    assert significance.verdict(0.96, 0.1).startswith("evidence of edge")
    assert significance.verdict(0.96, 0.3).startswith("no evidence of edge")
    assert significance.verdict(0.9, 0.1).startswith("no evidence of edge")


# --- power


def test_sample_sizes_are_the_reference_table() -> None:
    got = {row["edge_bps"]: row["trades"] for row in significance.power_table()}
    assert got == {0.2: 9893, 0.5: 1583, 1.0: 396, 2.0: 99}


@given(edge=st.floats(0.05, 5), sd=st.floats(0.5, 30), power=st.floats(0.3, 0.99))
@settings(deadline=None)
def test_power_and_sample_size_are_each_others_inverse(edge: float, sd: float, power: float) -> None:
    n = significance.trades_needed(edge, sd, power=power)
    assert significance.power_of(n, edge, sd) >= power - 1e-9
    if n > 1:
        assert significance.power_of(n - 1, edge, sd) < power + 1e-9
    assert significance.detectable_bps(n, sd, power=power) <= edge * (1 + 1e-9)


def test_power_is_what_simulated_trades_show() -> None:
    rng = np.random.default_rng(9)
    n = significance.trades_needed(1.0, 8.0)
    t = rng.normal(1.0, 8.0, (4000, n)).mean(axis=1) / (8.0 / math.sqrt(n))
    assert np.mean(t > 1.6449) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(ConfigError, match="above zero"):
        significance.trades_needed(0.0, 8.0)
