"""What the trials prove: a search that only fits noise is not believed, and near twins are not many tries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import evidence
from models.significance import deflated_sharpe, independent_trials


def noise(seed: int, bins: int = 64, trials: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((bins, trials))


def test_the_best_of_noise_is_rarely_believed_and_never_deflates_to_skill() -> None:
    believed, skilled = 0, 0
    for seed in range(12):
        x = noise(seed)
        best = x[:, np.argmax(x.mean(axis=0))]
        believed += evidence.believed(evidence.overfitting(x))[0]
        skilled += evidence.deflated(best, x, 40)["probability"] >= 0.95
    assert believed <= 4  # one PBO is a noisy figure: 8.5 % of sets of pure noise are below the limit
    assert skilled == 0


def test_one_real_winner_is_believed() -> None:
    x = noise(3, trials=20)
    x[:, 7] += 1.2
    found = evidence.overfitting(x)
    assert evidence.believed(found) == (True, pytest.approx(evidence.believed(found)[1]))
    assert evidence.deflated(x[:, 7], x, 20)["probability"] > 0.99


def test_equally_good_trials_leave_nothing_to_choose() -> None:
    # Twins of one good policy: the best of one half is any of them in the other.
    rng = np.random.default_rng(1)
    good = 0.6 + rng.standard_normal(64)
    x = good[:, None] + 0.2 * rng.standard_normal((64, 40))
    found = evidence.overfitting(x)
    trusted, why = evidence.believed(found)
    assert not trusted and "the plain policy is kept" in why and found["loss"] < 0.05
    assert evidence.deflated(x[:, 0], x, 40)["probability"] > 0.95


def test_too_few_bins_are_said_and_not_believed() -> None:
    found = evidence.overfitting(noise(0, bins=10))
    assert "10 bins of time, 16 are needed" in found["missing"]
    assert evidence.believed(found)[0] is False


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200), st.floats(0.0, 1.0))
def test_the_stricter_reading_counts(seed: int, choices: int, lift: float) -> None:
    x = noise(seed, bins=32, trials=12)
    kept = x[:, 0] + lift
    got = evidence.deflated(kept, x, choices)["probability"]
    sharpes = [r.mean() / r.std(ddof=1) for r in x.T]
    as_found = deflated_sharpe(kept, sharpes, trials=choices).probability
    as_noise = deflated_sharpe(
        kept, sharpes, trials=independent_trials(x), least_scatter=1 / np.sqrt(31)
    ).probability
    assert got == pytest.approx(min(as_found, as_noise))


def test_nothing_traded_is_no_evidence() -> None:
    assert evidence.deflated(np.zeros(40), noise(0, 40, 5), 5) == {"missing": "no instrument is traded"}
