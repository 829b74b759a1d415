"""Walk-forward and combinatorial cross-validation: nothing that is trained on looks at what is tested."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from market.errors import ConfigError
from market.types import SECOND_NS
from models import cross_validation as cv
from models.cross_validation import Cpcv, Session
from models.splits import NO_BLOCK

HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS


def sessions(n: int, hours: float = 8) -> tuple[Session, ...]:
    return tuple(Session(f"d{d:02d}", d * DAY_NS, d * DAY_NS + round(hours * HOUR_NS)) for d in range(n))


def rows(parts: tuple[Session, ...], step_ns: int = 60 * SECOND_NS) -> np.ndarray:
    return np.concatenate([np.arange(s.from_ns, s.to_ns, step_ns) for s in parts])


# --- sessions and embargo


def test_the_embargo_is_the_longest_of_three() -> None:
    s = SECOND_NS
    assert (
        cv.shortest_embargo_ns(horizon_ns=10 * s, feature_window_ns=300 * s, decorrelation_ns=20 * s)
        == 300 * s
    )
    assert (
        cv.shortest_embargo_ns(horizon_ns=10 * s, feature_window_ns=60 * s, decorrelation_ns=20 * s)
        == 200 * s
    )
    assert cv.shortest_embargo_ns(horizon_ns=900 * s, feature_window_ns=60 * s, decorrelation_ns=s) == 900 * s


def test_decorrelation_of_an_ar1_is_where_its_correlation_is_one_over_e() -> None:
    rng, r, n = np.random.default_rng(1), 0.95, 100_000
    shocks, x = rng.standard_normal(n), np.zeros(n)
    for t in range(1, n):
        x[t] = r * x[t - 1] + shocks[t]
    lag = cv.decorrelation_ns(x, SECOND_NS) / SECOND_NS
    assert lag == pytest.approx(-1 / math.log(r), rel=0.15)
    assert cv.decorrelation_ns(np.ones(9), SECOND_NS) == 0
    assert cv.decorrelation_ns(shocks, SECOND_NS) == SECOND_NS


def test_a_day_of_several_instruments_is_one_session() -> None:
    parts = [("b", 30, 40), ("a", 5, 9), ("a", 3, 7), ("b", 31, 44)]
    assert cv.by_day(parts) == (Session("a", 3, 9), Session("b", 30, 44))
    with pytest.raises(ConfigError, match="session b begins before session a has ended"):
        cv.by_day([("a", 0, 9), ("b", 8, 20)])


# --- walk-forward


def test_walk_forward_by_hand() -> None:
    folds = cv.walk_forward(sessions(8), train_days=4, gap_days=1, purge_ns=SECOND_NS, embargo_ns=SECOND_NS)
    assert [f.days for f in folds] == [
        {"fit": ("d00", "d01", "d02"), "calibrate": ("d03",), "threshold": ("d05",), "score": ("d06",)},
        {"fit": ("d01", "d02", "d03"), "calibrate": ("d04",), "threshold": ("d06",), "score": ("d07",)},
    ]
    assert folds[1].blocks.span("score") == (7 * DAY_NS, 7 * DAY_NS + 8 * HOUR_NS)
    assert json.loads(json.dumps(folds[0].to_dict()))["days"]["score"] == ["d06"]
    growing = cv.walk_forward(sessions(8), train_days=4, purge_ns=0, embargo_ns=0, expanding=True)
    assert [len(f.days["fit"]) for f in growing] == [3, 4, 5]


@given(
    days=st.integers(4, 16), train=st.integers(2, 6), calibrate=st.integers(1, 3), gap=st.integers(0, 2),
    validate=st.integers(1, 2), test=st.integers(1, 3), step=st.one_of(st.none(), st.integers(1, 3)),
    purge_s=st.integers(1, 900), embargo_s=st.integers(0, 1800), expanding=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_each_block_of_a_fold_is_later_and_no_label_looks_into_another(
    days: int, train: int, calibrate: int, gap: int, validate: int, test: int, step: int | None,
    purge_s: int, embargo_s: int, expanding: bool,
) -> None:  # fmt: skip
    assume(calibrate < train and train + gap + validate + test <= days)
    parts = sessions(days)
    purge_ns, embargo_ns = purge_s * SECOND_NS, embargo_s * SECOND_NS
    folds = cv.walk_forward(
        parts, train_days=train, calibrate_days=calibrate, gap_days=gap, validate_days=validate,
        test_days=test, step_days=step, purge_ns=purge_ns, embargo_ns=embargo_ns, expanding=expanding,
    )  # fmt: skip
    t = rows(parts)
    names = np.array([s.day for s in parts])[t // DAY_NS]
    scored = np.zeros(len(t), int)
    for fold in folds:
        code = fold.code(t)
        assert fold.blocks.names == cv.FOLD_BLOCKS
        windows = [(t[code == k].min(), t[code == k].max() + purge_ns) for k in range(4)]
        for before, after in pairwise(windows):
            assert before[1] + embargo_ns < after[0]
        for k, name in enumerate(cv.FOLD_BLOCKS):
            assert windows[k][0] >= fold.blocks.span(name)[0] + (embargo_ns if k else 0)
            assert windows[k][1] < fold.blocks.span(name)[1]  # the label ends before the session does
            assert set(names[code == k]) <= set(fold.days[name])
            # Whole sessions: what is missing was purged at the end or embargoed at the start, no more.
            whole = np.isin(names, fold.days[name])
            lost = np.count_nonzero(whole & (code == NO_BLOCK))
            assert lost <= (purge_s + embargo_s) / 60 + 2
        scored += code == 3
    if step is None:
        assert scored.max() == 1  # each test row is scored once
        ends = [fold.days["score"][-1] for fold in folds]
        assert ends == sorted(set(ends))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"train_days": 1}, "one more than calibration"),
        ({"gap_days": -1}, "every block needs a day"),
        ({"test_days": 0}, "every block needs a day"),
        ({"train_days": 9}, "needs 11 sessions for one fold and there are 8"),
        ({"purge_ns": 9 * HOUR_NS}, "no longer than what is purged"),
    ],
)
def test_an_impossible_walk_is_named(change: dict[str, int], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        cv.walk_forward(sessions(8), **({"train_days": 3, "purge_ns": 0, "embargo_ns": 0} | change))


# --- CPCV


def test_eight_groups_two_tested_are_28_splits_and_7_paths() -> None:
    cpcv = Cpcv(cv.session_groups(sessions(16), 8), 2, 0)
    assert len(cpcv.splits) == 28 and cpcv.paths.shape == (7, 8)


@given(n=st.integers(2, 9), k=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_each_tested_group_of_each_split_is_in_one_path(n: int, k: int) -> None:
    assume(k < n)
    cpcv = Cpcv(tuple((g, g + 1) for g in range(n)), k, 0)
    assert len(cpcv.splits) == math.comb(n, k)
    assert cpcv.paths.shape == (math.comb(n, k) * k // n, n)
    used = [(int(split), g) for path in cpcv.paths for g, split in enumerate(path)]
    assert sorted(used) == sorted((s, g) for s, tested in enumerate(cpcv.splits) for g in tested)


@given(
    n=st.integers(3, 7), k=st.integers(1, 3), embargo_s=st.integers(0, 3000), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_no_train_window_comes_near_a_test_window_and_no_more_is_lost(
    n: int, k: int, embargo_s: int, seed: int
) -> None:
    assume(k < n)
    rng = np.random.default_rng(seed)
    parts = sessions(n)
    cpcv = Cpcv(cv.session_groups(parts, n), k, embargo_s * SECOND_NS)
    whole = Cpcv(cv.time_groups(parts[:1], n), k, embargo_s * SECOND_NS)  # groups that meet, in one day
    for case, t in ((cpcv, rows(parts, 600 * SECOND_NS)), (whole, rows(parts[:1]))):
        from_ns = np.sort(t)
        to_ns = from_ns + rng.integers(1, 1200, len(t)) * SECOND_NS
        split = int(rng.integers(len(case.splits)))
        train, test = case.masks(split, from_ns, to_ns)
        assert not (train & test).any() and test.any()
        assert set(case.group(from_ns)[test]) == set(case.splits[split])
        for i in np.flatnonzero(train):
            apart = (to_ns[i] + case.embargo_ns < from_ns[test]) | (
                from_ns[i] - case.embargo_ns > to_ns[test]
            )
            assert apart.all()
        # Rows that are left out lie in the way: nearer than the embargo to a tested group or its labels.
        for i in np.flatnonzero(~train & ~test):
            near = False
            for g in case.splits[split]:
                mine = case.group(from_ns) == g
                last = max(case.groups[g][1], to_ns[mine].max())
                first = min(case.groups[g][0], from_ns[mine].min())
                near |= to_ns[i] + case.embargo_ns >= first and from_ns[i] - case.embargo_ns <= last
            assert near


def test_paths_hold_each_row_once_from_a_split_that_tests_it() -> None:
    parts = sessions(8)
    cpcv, t = Cpcv(cv.session_groups(parts, 8), 2, 0), rows(parts, HOUR_NS)
    stamp = np.repeat(np.arange(28.0)[:, None], len(t), axis=1)
    for split in range(28):
        _, test = cpcv.masks(split, t, t)
        stamp[split, ~test] = np.nan  # what was not tested has no result
    paths = cpcv.assemble(stamp, t)
    assert paths.shape == (7, len(t)) and np.isfinite(paths).all()
    # A row of one path is never of another path's split: seven different splits tested it.
    assert all(len(set(paths[:, i])) == 7 for i in range(len(t)))
    outside = cpcv.assemble(stamp[:, :1], np.array([20 * HOUR_NS]))
    assert np.isnan(outside).all()


def test_groups_of_sessions_and_of_time() -> None:
    assert cv.session_groups(sessions(5), 2) == (
        (0, 2 * DAY_NS + 8 * HOUR_NS), (3 * DAY_NS, 4 * DAY_NS + 8 * HOUR_NS)
    )  # fmt: skip
    assert cv.time_groups(sessions(1), 4) == tuple((2 * g * HOUR_NS, 2 * (g + 1) * HOUR_NS) for g in range(4))
    with pytest.raises(ConfigError, match="cannot be made of 3"):
        cv.session_groups(sessions(3), 4)
    with pytest.raises(ConfigError, match="needs two at least"):
        cv.time_groups(sessions(3), 1)


@pytest.mark.parametrize(
    ("groups", "k", "why"),
    [
        (((0, 1), (1, 2)), 2, "1 to N - 1"),
        (((0, 1), (1, 2)), 0, "1 to N - 1"),
        (((0, 2), (1, 3)), 1, "do not overlap"),
        (((2, 2), (3, 4)), 1, "do not overlap"),
        (tuple((g, g + 1) for g in range(30)), 15, "at most"),
    ],
)
def test_impossible_groups_are_named(groups: tuple[tuple[int, int], ...], k: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Cpcv(groups, k, 0)


# --- uniqueness


def test_uniqueness_by_hand() -> None:
    # [0, 4] alone for 2, then shared with [2, 6] for 2: (2 + 1) / 4. [10, 12] has its time for itself.
    got = cv.average_uniqueness(np.array([0, 2, 10, 7]), np.array([4, 6, 12, 7]))
    assert got.tolist() == [0.75, 0.75, 1.0, 1.0]
    known = np.array([True, False, True, True])
    assert cv.average_uniqueness(np.array([0, 2, 10, 7]), np.array([4, 6, 12, 7]), known).tolist() == [
        1.0, 0.0, 1.0, 1.0
    ]  # fmt: skip
    assert cv.average_uniqueness(np.empty(0, int), np.empty(0, int)).shape == (0,)
    with pytest.raises(ConfigError, match="ends before"):
        cv.average_uniqueness(np.array([3]), np.array([2]))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_uniqueness_is_the_books_average_second_by_second(windows: list[tuple[int, int]]) -> None:
    a = np.array([w[0] for w in windows])
    b = a + np.array([w[1] for w in windows])
    got = cv.average_uniqueness(a, b)
    count = np.zeros(100)
    for x, y in zip(a, b, strict=True):
        count[x:y] += 1
    slow = [np.mean(1 / count[x:y]) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, slow, rtol=1e-12)
    # Every second of the market has the same say: the weights times the lengths add up to the time covered.
    assert got @ (b - a) == pytest.approx(np.count_nonzero(count))


def test_overlapping_labels_of_a_long_day_weigh_their_overlap() -> None:
    t = np.arange(100_000, dtype=np.int64) * (SECOND_NS // 4)
    got = cv.average_uniqueness(t, t + 10 * SECOND_NS)
    np.testing.assert_allclose(got[100:-100], 1 / 40, rtol=1e-9)
