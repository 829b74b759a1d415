"""Drift limits know how little an autocorrelated sample holds: quiet without drift, loud with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from models import drift

STEP_NS = drift.THIN_NS
ROWS = 2_000


def _series(
    seed: int, half_life_s: float, shift: float = 0.0, rows: int = ROWS
) -> tuple[np.ndarray, np.ndarray]:
    """A unit AR(1), one row per thinning step: (recv_ns [n], values float32 [n])."""
    noise = np.random.default_rng(seed).standard_normal(rows)
    keep = 0.5 ** (STEP_NS / 1e9 / half_life_s) if half_life_s else 0.0
    scale = np.sqrt(1 - keep * keep)
    x, _ = lfilter([scale], [1.0, -keep], noise, zi=[noise[0] * keep])
    return np.arange(rows, dtype=np.int64) * STEP_NS, (x + shift).astype(np.float32)


def _reference(seed: int, half_life_s: float) -> drift.Reference:
    recv_ns, x = _series(seed, half_life_s)
    return drift.reference_of(["f"], {"T": (recv_ns, x[:, None], x)})


def _drifted(seed: int, half_life_s: float, shift: float, rows: int) -> bool:
    recv_ns, x = _series(seed + 10_000, half_life_s, shift, rows)
    (found,) = drift.compare(_reference(seed, half_life_s), "T", recv_ns, {"f": x})
    return found.drifted


@pytest.mark.parametrize("half_life_s", [0.0, 20.0, 120.0])
def test_no_alarm_without_drift_however_slow_the_feature(half_life_s: float) -> None:
    # Folklore limits (PSI over 0.1, KS at 5 %) alarm on up to every one of these windows.
    alarms = sum(_drifted(seed, half_life_s, 0.0, rows=700) for seed in range(40))
    assert alarms <= 2


@pytest.mark.parametrize(("half_life_s", "shift"), [(0.0, 0.5), (20.0, 1.0)])
def test_a_shift_is_found(half_life_s: float, shift: float) -> None:
    assert sum(_drifted(seed, half_life_s, shift, rows=700) for seed in range(20)) >= 18


def test_effective_size_of_a_known_process() -> None:
    # An AR(1) with coefficient a holds n (1 - a) / (1 + a) independent values.
    recv_ns, x = _series(3, half_life_s=15.0, rows=20_000)
    a = 0.5 ** (STEP_NS / 1e9 / 15.0)
    expected = len(recv_ns) * (1 - a) / (1 + a)
    assert drift.effective_size(x.astype(np.float64)) == pytest.approx(expected, rel=0.25)
    assert drift.effective_size(np.ones(100)) == 100.0


def test_thinning_keeps_the_first_row_of_each_step_and_a_bound() -> None:
    recv_ns = np.sort(np.random.default_rng(0).integers(0, 1000 * STEP_NS, 30_000))
    kept = drift.thin(recv_ns)
    buckets = recv_ns[kept] // STEP_NS
    assert len(np.unique(buckets)) == len(kept) == len(np.unique(recv_ns // STEP_NS))
    assert len(drift.thin(recv_ns, max_rows=50)) == 50


def test_the_reference_survives_the_disk_and_is_the_same_bytes(tmp_path: Path) -> None:
    reference = _reference(1, 20.0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        drift.save(reference, tmp_path / name)
    for file in ("reference.npz", "reference.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    recv_ns, x = _series(9, 20.0, shift=0.7)
    before = drift.compare(reference, "T", recv_ns, {"f": x, drift.SCORE: x})
    after = drift.compare(drift.load(tmp_path / "a"), "T", recv_ns, {"f": x, drift.SCORE: x})
    assert [c.name for c in after] == ["f", drift.SCORE]
    assert [c.psi for c in after] == [c.psi for c in before]


def test_missing_values_and_discrete_columns_are_no_trouble() -> None:
    rng = np.random.default_rng(4)
    recv_ns = np.arange(ROWS, dtype=np.int64) * STEP_NS
    spread = rng.choice([1.0, 2.0], ROWS, p=[0.9, 0.1]).astype(np.float32)
    spread[::4] = np.nan
    empty = np.full(ROWS, np.nan, np.float32)
    reference = drift.reference_of(
        ["spread", "empty"], {"T": (recv_ns, np.stack([spread, empty], 1), spread)}
    )
    (same,) = drift.compare(reference, "T", recv_ns, {"spread": spread, "empty": empty})
    assert not same.drifted and same.missing == pytest.approx(0.25)
    (wider,) = drift.compare(reference, "T", recv_ns, {"spread": 3.0 - spread})
    assert wider.drifted
