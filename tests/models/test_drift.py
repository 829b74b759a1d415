"""Drift: distances that know how little an autocorrelated sample holds, a rule for many columns, and both
together on weeks of a market that does not change and on one that does."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from market.errors import BundleError
from models import drift, drift_reference, drift_rule, drift_scores
from models.drift import EVERY_ROWS, HOUR_NS, LEAST_ROWS, SCORE, THIN_NS, TRADE, WINDOW_ROWS
from models.drift_reference import Rows, build, play
from models.drift_rule import IN_A_ROW, Persistence, benjamini_hochberg, judge

HOUR_ROWS = HOUR_NS // THIN_NS
OPEN_NS = 10 * HOUR_NS
HALF_LIVES_S = (0, 0, 2, 5, 20, 60, 120, 300)
"""Of the columns: order flow forgets in seconds, moving averages in minutes."""
NAMES = (*(f"{half_life}s_{j}" for j in range(4) for half_life in range(len(HALF_LIVES_S))), SCORE)


def autoregressive(rng: np.random.Generator, rows: int, half_life_s: float) -> np.ndarray:
    """A unit AR(1), one value per thinning step."""
    noise = rng.standard_normal(rows)
    keep = 0.5 ** (THIN_NS / 1e9 / half_life_s) if half_life_s else 0.0
    out, _ = lfilter([np.sqrt(1 - keep * keep)], [1.0, -keep], noise, zi=[noise[0] * keep])
    return out


def day_of(rng: np.random.Generator, day: int, hours: float) -> Rows:
    """Columns as features have them: factors that neighbours share, heavy tails, whole numbers."""
    rows = int(hours * HOUR_ROWS)
    shared = {h: autoregressive(rng, rows, h) for h in set(HALF_LIVES_S)}
    columns = []
    for j in range(4):
        for half_life in HALF_LIVES_S:
            x = 0.7 * shared[half_life] + 0.51**0.5 * autoregressive(rng, rows, half_life)
            columns.append((x, np.exp(x), np.round(x), x)[j])
    columns.append(autoregressive(rng, rows, 10))
    recv_ns = day * 24 * HOUR_NS + OPEN_NS + np.arange(rows, dtype=np.int64) * THIN_NS
    return Rows(recv_ns, np.array(columns).T)


def joined(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([p.recv_ns for p in parts]), np.concatenate([p.x for p in parts]))


@cache
def week() -> tuple[drift.TickerReference, drift_reference.FalseAlarms]:
    """What a training week of five days of nine hours leaves."""
    rng = np.random.default_rng(11)
    reference, alarms = build(NAMES, {"T": joined([day_of(rng, day, 9.0) for day in range(5)])})
    return reference["T"], alarms


# ---- the bar: quiet without drift, loud with it


def test_a_stationary_week_raises_no_alarm_in_95_of_100_days() -> None:
    # Folklore limits (PSI over 0.1, KS at 5 %) alarm in nearly every hour of these days.
    known, measured = week()
    assert measured.days == 5 and measured.days_with_alarm == 0 and measured.looks > 400
    rng = np.random.default_rng(12)
    days = [play(NAMES, known, day_of(rng, 100 + day, 9.0)) for day in range(20)]
    assert sum(any(warning for warning, _ in day) for day in days) <= 1
    assert not any(critical for day in days for _, critical in day)


def test_a_reference_of_one_afternoon_is_as_quiet() -> None:
    rng = np.random.default_rng(13)
    alarmed = 0
    for _ in range(3):
        reference, _ = build(NAMES, {"T": day_of(rng, 0, 2.6)})
        days = [play(NAMES, reference["T"], day_of(rng, 100 + day, 9.0)) for day in range(3)]
        alarmed += sum(any(warning for warning, _ in day) for day in days)
    assert alarmed <= 1


@pytest.mark.parametrize("shift_sd", [0.3, 0.5, 1.0])
def test_a_planted_shift_is_found_within_an_hour_of_market_time(shift_sd: float) -> None:
    known, _ = week()
    begins = 2 * HOUR_ROWS
    for seed in range(3):
        rows = day_of(np.random.default_rng(40 + seed), 200, 4.0)
        moved = rows.x.copy()
        moved[begins:] += shift_sd * rows.x.std(axis=0)
        told = play(NAMES, known, Rows(rows.recv_ns, moved))
        ends = range(LEAST_ROWS, len(moved) + 1, EVERY_ROWS)
        warned = [end for end, (warning, _) in zip(ends, told, strict=True) if warning]
        assert warned and begins < warned[0] <= begins + HOUR_ROWS
        # Critical is for more: a third of a standard deviation does not stop trading in that hour.
        stopped = [end for end, (_, critical) in zip(ends, told, strict=True) if critical]
        assert shift_sd > 0.3 or not stopped or stopped[0] > begins + HOUR_ROWS


def test_a_score_that_moves_far_is_critical_within_the_hour() -> None:
    known, _ = week()
    rows = day_of(np.random.default_rng(50), 200, 3.0)
    rows.x[HOUR_ROWS:, NAMES.index(SCORE)] += 2.0
    told = play(NAMES, known, rows)
    ends = list(range(LEAST_ROWS, len(rows.x) + 1, EVERY_ROWS))
    first = next(end for end, (_, critical) in zip(ends, told, strict=True) if critical)
    assert first <= 2 * HOUR_ROWS


def test_days_that_differ_by_themselves_widen_the_limits() -> None:
    # Each day has a level of its own: two days of one market lie far apart, and that is no drift.
    rng = np.random.default_rng(14)

    def level(day: int) -> Rows:
        rows = day_of(rng, day, 4.0)
        return Rows(rows.recv_ns, rows.x[:, ::3] + 0.5 * rng.standard_normal(len(NAMES[::3])))

    reference, _ = build(NAMES[::3], {"T": joined([level(day) for day in range(8)])})
    assert np.median(reference["T"].inflation[:, 1]) > 2
    days = [play(NAMES[::3], reference["T"], level(100 + day)) for day in range(8)]
    assert sum(any(warning for warning, _ in day) for day in days) <= 1


# ---- distances and what they are worth


def test_a_single_day_is_not_believed_to_be_all_days() -> None:
    one = build(NAMES[:8], {"T": Rows(*_first(day_of(np.random.default_rng(17), 0, 5.0), 8))})[0]["T"]
    assert one.days == 1 and one.blocks == 10
    assert (one.inflation >= np.array(drift_reference.ONE_DAY)).all()
    many, _ = week()
    assert np.median(many.inflation[:, 1]) < 1.5


def _first(rows: Rows, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return rows.recv_ns, rows.x[:, :columns]


def test_windows_are_compared_with_the_same_hour_where_the_days_know_it() -> None:
    # The level climbs through the day, every day: each hour is ordinary for itself, and drift for another.
    rng = np.random.default_rng(15)

    def climbing(day: int) -> Rows:
        rows = day_of(rng, day, 4.0)
        return Rows(rows.recv_ns, rows.x[:, ::3] + 2.0 * ((rows.recv_ns // HOUR_NS) % 24 - 10)[:, None])

    known = build(NAMES[::3], {"T": joined([climbing(day) for day in range(6)])})[0]["T"]
    assert known.phases == (drift.WHOLE_DAY, 10, 11, 12, 13)
    noon = climbing(100).where(np.arange(4 * HOUR_ROWS) >= 2.5 * HOUR_ROWS)
    half_hour = Rows(noon.recv_ns[:WINDOW_ROWS], noon.x[:WINDOW_ROWS])
    end_ns = int(half_hour.recv_ns[-1])
    at_its_hour = drift_rule.look(known, half_hour.x, end_ns, critical_psi=0.25)
    at_another = drift_rule.look(known, half_hour.x, end_ns - 2 * HOUR_NS, critical_psi=0.25)
    assert not at_its_hour.alarm and at_another.alarm


@given(st.floats(0.5, 30.0), st.floats(0.05, 8.0))
def test_tail_probabilities_are_those_of_the_gamma_distribution(shape: float, ratio: float) -> None:
    exact = stats.gamma.sf(ratio * shape, shape)
    found = float(drift.survival(np.array([ratio]), np.array([shape]))[0])
    assert found == pytest.approx(exact, abs=0.02)
    if 1e-6 < exact < 0.01:
        assert 0.4 < found / exact < 2.5


def test_limits_are_where_the_tail_begins() -> None:
    shapes = np.array([0.5, 1.0, 4.5])
    assert drift.survival(drift.upper_quantile(shapes), shapes) == pytest.approx(
        [drift.SIGNIFICANCE] * 3, rel=0.01
    )


@pytest.mark.parametrize("values", [40, 360])
def test_w1_of_two_samples_of_one_market_is_as_expected(values: int) -> None:
    rng = np.random.default_rng(16)
    known = build(("f",), {"T": Rows(np.arange(6_000) * THIN_NS, rng.standard_normal((6_000, 1)))})[0]["T"]
    seen = []
    for _ in range(400):
        rising, finite = drift.ordered(rng.standard_normal((values, 1)))
        seen.append(
            float(drift.w1(known.quantiles[0], drift.grid_quantiles(rising, finite))[0]) / known.sd[0]
        )
    expected = float(drift.expected_distances(known, np.array([float(values)]))[0, 1]) / known.inflation[0, 1]
    assert np.mean(seen) == pytest.approx(expected, rel=0.12)
    assert np.mean(np.array(seen) > expected * drift.upper_quantile(np.array([drift.W1_SHAPE]))) <= 0.005


@given(st.lists(st.floats(-1e3, 1e3, width=32) | st.just(float("nan")), min_size=1, max_size=60))
def test_counts_hold_every_finite_value_once(values: list[float]) -> None:
    x = np.array(values)[:, None]
    edges = np.array([[-10.0, 0.0, 10.0, *[np.inf] * (drift.BINS - 4)]])
    counts = drift.bin_counts(*drift.ordered(x), edges)
    assert counts.shape == (1, drift.BINS) and counts.sum() == np.isfinite(x).sum()
    good = x[np.isfinite(x)]
    assert counts[0, 0] == (good < -10).sum() and counts[0, 3] == (good >= 10).sum()
    shares = drift.smooth_shares(counts, edges)
    assert shares.sum() == pytest.approx(1.0) and (shares[0, 4:] == 0).all()
    assert float(drift.psi(shares, shares)[0]) == 0.0


def test_thinning_keeps_the_first_row_of_each_step() -> None:
    recv_ns = np.sort(np.random.default_rng(0).integers(0, 1000 * THIN_NS, 30_000))
    kept = drift.thin(recv_ns)
    assert len(np.unique(recv_ns[kept] // THIN_NS)) == len(kept) == len(np.unique(recv_ns // THIN_NS))
    assert (drift.thin(recv_ns[kept]) == np.arange(len(kept))).all()


def test_missing_values_discrete_and_constant_columns_are_no_trouble() -> None:
    rng = np.random.default_rng(4)
    recv_ns = np.arange(2_000, dtype=np.int64) * THIN_NS
    spread = rng.choice([1.0, 2.0], len(recv_ns), p=[0.9, 0.1])
    rare = rng.choice([0.0, 1.0], len(recv_ns), p=[0.97, 0.03])
    gaps = np.where(np.arange(len(recv_ns)) % 4 == 0, np.nan, rng.standard_normal(len(recv_ns)))
    empty, constant = np.full(len(recv_ns), np.nan), np.ones(len(recv_ns))
    x = np.stack([spread, rare, gaps, empty, constant], axis=1)
    known = build(("spread", "rare", "gaps", "empty", "constant"), {"T": Rows(recv_ns, x)})[0]["T"]
    assert known.names == ("spread", "rare", "gaps")
    window = x[-WINDOW_ROWS:, :3]
    same = drift.compare(known, window)
    assert not any(c.over for c in same) and same[2].missing == pytest.approx(0.25)
    wider, *_ = drift.compare(known, np.stack([3.0 - window[:, 0], window[:, 1], window[:, 2]], axis=1))
    assert wider.name == "spread" and wider.over and wider.p < 1e-6


def test_too_little_to_remember_is_no_reference() -> None:
    x = np.random.default_rng(5).standard_normal((LEAST_ROWS, 2))
    reference, alarms = build(("a", "b"), {"T": Rows(np.arange(LEAST_ROWS) * THIN_NS, x)})
    assert reference == {} and alarms.looks == 0


# ---- the rule


def column(name: str, p: float, psi: float = 0.3, weight: float = 0.0) -> drift.ColumnDrift:
    return drift.ColumnDrift(name, psi, 0.01, 0.2, 0.1, 0.2, p, 360, 100.0, 0.0, weight)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.5))
def test_discoveries_are_those_of_benjamini_and_hochberg(p: list[float], rate: float) -> None:
    found = benjamini_hochberg(p, rate)
    adjusted = stats.false_discovery_control(p) if p else np.array([])
    # Where an adjusted p equals the rate up to rounding either answer is right.
    certain = {i for i, q in enumerate(adjusted) if q < rate * (1 - 1e-9)}
    possible = {i for i, q in enumerate(adjusted) if q <= rate * (1 + 1e-9)}
    assert certain <= set(found) <= possible


def test_what_makes_an_alarm_and_what_is_critical() -> None:
    quiet = [column(f"q{i}", 0.8, psi=0.01) for i in range(40)]

    def of(*loud: drift.ColumnDrift) -> tuple[bool, bool]:
        found = judge([*loud, *quiet], critical_psi=0.25)
        return found.alarm, found.critical

    assert of() == (False, False)
    assert of(column("a", 1e-9), column("b", 1e-9)) == (False, False)
    assert of(column("a", 1e-9), column("b", 1e-9), column("c", 1e-9)) == (True, False)
    assert of(column("a", 1e-9, psi=0.22, weight=0.3)) == (True, False)
    assert of(column("a", 1e-9, psi=0.9, weight=0.3)) == (True, True)
    assert of(column(SCORE, 1e-9, psi=0.22)) == (True, False)
    assert of(column(SCORE, 1e-9, psi=0.9)) == (True, True)
    assert of(column(drift.ENTROPY, 1e-9, psi=0.9)) == (True, False)


@pytest.mark.parametrize(
    ("now", "before", "rows", "moved"),
    [
        (0.5, 0.1, 300, True), (0.01, 0.1, 300, True), (0.25, 0.1, 300, False), (0.5, 0.1, 4, False),
        (0.5, 0.0, 300, False),
    ],
)  # fmt: skip
def test_the_rate_of_trading_may_change_threefold(
    now: float, before: float, rows: float, moved: bool
) -> None:
    found = judge([], critical_psi=0.25, rates=(now, before), rate_rows=rows)
    assert found.alarm is moved and (TRADE in found.drifted) is moved and not found.critical


def test_a_warning_needs_looks_in_a_row() -> None:
    loud = judge([column(SCORE, 1e-9, psi=0.9)], critical_psi=0.25)
    quiet = judge([], critical_psi=0.25)
    rule = Persistence()
    assert [rule.take(loud) for _ in range(IN_A_ROW)][-2:] == [(False, False), (True, True)]
    assert rule.take(quiet) == (False, False)
    assert [rule.take(loud)[0] for _ in range(IN_A_ROW)] == [False] * (IN_A_ROW - 1) + [True]
    rule.reset()
    assert rule.take(loud) == (False, False)


def test_score_columns() -> None:
    p = [[0.2, 0.5, 0.3], [np.nan] * 3, [0.0, 0.0, 1.0]]
    found = drift_scores.columns(p, [900, 0, -3000], 1000)
    assert found[0] == pytest.approx([0.1, -sum(q * np.log(q) for q in p[0]), 0.0])
    assert np.isnan(found[1]).all() and found[2].tolist() == [1.0, 0.0, 1.0]
    assert drift_scores.columns(p[0], 9e9, None)[2] == 0.0


# ---- on disk


def test_the_reference_survives_the_disk_and_is_the_same_bytes(tmp_path: Path) -> None:
    known, _ = week()
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        drift.save({"T": known}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = drift.load(paths[0].read_bytes())["T"]
    window = day_of(np.random.default_rng(9), 300, 0.5)
    before, after = (drift.compare(r, window.x, int(window.recv_ns[-1])) for r in (known, again))
    assert [c.name for c in after] == list(NAMES)
    assert [c.psi for c in after] == pytest.approx([c.psi for c in before], rel=0.05, abs=0.02)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "absent"])
def test_a_damaged_reference_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reference.npz"
    if damage == "foreign":
        np.savez(path, facts=np.frombuffer(b'{"format": "another"}', np.uint8))
    elif damage == "truncated":
        drift.save({}, path)
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BundleError, match="dvc repro"):
        drift.load(path)
