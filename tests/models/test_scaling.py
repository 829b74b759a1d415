"""Scaling, and the dataset that the learners read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.batch import compute
from features.schema import FEED, GAP, MIRROR_PARTNER, MIRROR_SIGN, NAMES, SEASONAL, WARMUP, F
from market.errors import RecordingError, ScalperError
from market.simulator import SimSpec, simulate_market
from market.types import SECOND_NS
from models.dataset import Dataset, load, resets, write_blocks, write_schema
from models.labels import VOID, make_labels
from models.learner import with_mirror
from models.scaling import CLIP, Scaler
from models.splits import NO_BLOCK, over_sessions


def test_scaling_is_robust_to_outliers() -> None:
    x = np.random.default_rng(1).normal(3, 2, (10_000, 1)).astype(np.float32)
    x[:500] = 1e6
    scaler = Scaler.fit(x)
    assert scaler.center[0] == pytest.approx(3.1, abs=0.2)
    assert scaler.scale[0] == pytest.approx(2.1, abs=0.2)
    assert np.abs(scaler.apply(x)).max() == CLIP


def test_what_is_masked_becomes_zero_and_nothing_stays_infinite() -> None:
    X = np.array([[1, 5, np.nan], [2, 5, np.nan], [3, 5, np.nan]], np.float32)
    scaler = Scaler.fit(X)
    got = scaler.apply(np.array([[np.nan, np.nan, 7], [np.inf, 6, -np.inf]], np.float32))
    assert got.dtype == np.float32
    assert got.tolist() == [[0, 0, 0], [CLIP, 0, 0]]


def test_a_column_that_is_mostly_one_value_keeps_its_rare_ones() -> None:
    x = np.ones((100, 1), np.float32)
    x[::10] = 2
    scaled = Scaler.fit(x).apply(x)
    assert scaled[1, 0] == 0 and 1 < scaled[0, 0] <= CLIP


def test_a_muted_column_is_zero_everywhere() -> None:
    X = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    scaled = Scaler.fit(X, mute=[1]).apply(X)
    assert not scaled[:, 1].any() and scaled[:, 0].any()


def test_one_row_and_many_rows_scale_alike_and_inputs_stay() -> None:
    X = np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)
    before = X.copy()
    scaler = Scaler.fit(X)
    np.testing.assert_array_equal(scaler.apply(X)[7], scaler.apply(X[7]))
    np.testing.assert_array_equal(X, before)


def test_a_scaler_is_stored_and_read_back(tmp_path: Path) -> None:
    scaler = Scaler.fit(np.random.default_rng(4).normal(size=(20, 4)).astype(np.float32), clip=4.0)
    scaler.save(tmp_path / "scaler.npz")
    back = Scaler.load(tmp_path / "scaler.npz")
    np.testing.assert_array_equal(back.center, scaler.center)
    np.testing.assert_array_equal(back.scale, scaler.scale)
    assert back.clip == 4.0


def test_unreadable_scalers_and_empty_fits_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScalperError, match="no scaler can be read"):
        Scaler.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(ScalperError, match="no scaler can be read"):
        Scaler.load(tmp_path / "bad.npz")
    with pytest.raises(ScalperError, match="no rows"):
        Scaler.fit(np.zeros((0, 4), np.float32))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two instruments, two days of a quarter of an hour, as the stages leave them."""
    root = tmp_path_factory.mktemp("data")
    sessions = []
    for day in ("2026-01-15", "2026-01-16"):
        for one in simulate_market([SimSpec("SIMA"), SimSpec("SIMB")], hours=0.25, seed=5, day=day)[0]:
            if one.instrument.ticker == "SIMB":
                one.books.recv_ns[1200:] += 12 * SECOND_NS
                one.trades.recv_ns[one.trades.recv_ns >= one.books.recv_ns[1200] - 12 * SECOND_NS] += (
                    12 * SECOND_NS
                )
            table = compute(one)
            table.save(root / "features" / one.instrument.ticker / f"{day}.npz")
            labels = make_labels(one, table, horizon_s=10, latency_s=0.1, fee_ppm=50, theta_bps=0)
            labels.save(root / "labels" / one.instrument.ticker / f"{day}.npz")
            sessions.append((int(table.recv_ns[0]), int(table.recv_ns[-1]) + 1))
    write_schema(root / "features")
    fractions = {"fit": 0.5, "calibrate": 0.2, "threshold": 0.1, "score": 0.1, "live": 0.1}
    write_blocks(root / "labels", over_sessions(sessions, fractions, 10_100_000_000))
    return root / "features", root / "labels"


@pytest.fixture(scope="module")
def dataset(folders: tuple[Path, Path]) -> Dataset:
    return load(*folders)


def test_the_dataset_joins_days_and_knows_blocks(dataset: Dataset) -> None:
    assert dataset.tickers == ("SIMA", "SIMB")
    for s in dataset.series.values():
        assert s.days == ("2026-01-15", "2026-01-16")
        assert s.day_start.tolist() == [0, 3600] and len(s) == 7200
        assert (np.diff(s.recv_ns) > 0).all()
        known = s.block[s.block != NO_BLOCK]
        assert (np.diff(known.astype(int)) >= 0).all() and set(known.tolist()) == {0, 1, 2, 3, 4}
    X, y = dataset.pooled("fit")
    assert X.shape == (len(y), F) and VOID not in y and len(y) > 3000
    assert len(dataset.pooled("fit", ["X"])[0]) == len(y)


def test_states_restart_at_day_starts_and_gaps(dataset: Dataset) -> None:
    calm, gappy = dataset.series["SIMA"], dataset.series["SIMB"]
    assert np.flatnonzero(calm.reset & calm.usable).shape == (2,)
    assert np.flatnonzero(gappy.reset & gappy.usable).shape == (4,)
    assert gappy.reset[(gappy.status & GAP) != 0].all()
    for s in (calm, gappy):  # the first usable row after every restart says so
        for start in np.flatnonzero(s.reset & ~s.usable):
            following = np.flatnonzero(s.usable & (np.arange(len(s)) > start))
            assert s.reset[following[0]]


def test_resets_without_any_usable_row() -> None:
    status = np.full(4, WARMUP, np.uint8)
    got = resets(status, np.zeros(4, bool), np.array([0, 2, 4]))
    assert got.tolist() == [True, False, True, False]


def test_the_scaler_sees_only_the_fit_block(dataset: Dataset) -> None:
    scaler = dataset.fit_scaler()
    rows = np.concatenate([s.X[dataset.rows(t, "fit", labelled=False)] for t, s in dataset.series.items()])
    mirror, muted = (MIRROR_SIGN, MIRROR_PARTNER), (*SEASONAL, *FEED)
    np.testing.assert_array_equal(scaler.center, Scaler.fit(rows, mute=muted).symmetric(*mirror).center)
    everything = np.concatenate([s.X for s in dataset.series.values()])
    assert not np.array_equal(scaler.scale, Scaler.fit(everything, mute=muted).symmetric(*mirror).scale)


def test_scaling_and_the_mirror_change_places(dataset: Dataset) -> None:
    # Learners mirror scaled rows; that must be the same as scaling the mirrored market.
    scaler, (X, y) = dataset.fit_scaler(), dataset.pooled("fit")
    both, taught = with_mirror(X, y.astype(np.int64))
    again, _ = with_mirror(scaler.apply(X), y.astype(np.int64))
    np.testing.assert_allclose(scaler.apply(both), again, atol=1e-6)
    assert len(taught) == 2 * len(y)
    np.testing.assert_array_equal(taught[len(y) :], 2 - y)
    twice, back = with_mirror(both[len(y) :], taught[len(y) :])
    np.testing.assert_array_equal(twice[len(y) :], X)
    np.testing.assert_array_equal(back[len(y) :], y)


def test_the_clock_is_muted_on_few_days(dataset: Dataset) -> None:
    assert dataset.fit_days == 1 and dataset.muted == SEASONAL
    scaled = dataset.fit_scaler().apply(dataset.pooled("fit")[0])
    assert not scaled[:, list(SEASONAL)].any()


def test_the_scaled_learners_do_not_see_the_pace_of_the_feed(dataset: Dataset) -> None:
    """A feed that is paced otherwise than the recording leaves their rows as they were."""
    assert [NAMES[k] for k in FEED] == ["since_book"]
    X = dataset.pooled("fit")[0]
    hurried = X.copy()
    hurried[:, list(FEED)] *= 20
    assert (hurried[:, list(FEED)] != X[:, list(FEED)]).any()
    scaler = dataset.fit_scaler()
    np.testing.assert_array_equal(scaler.apply(hurried), scaler.apply(X))


def test_what_is_missing_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = folders
    with pytest.raises(RecordingError, match="no feature schema"):
        load(tmp_path, labels)
    with pytest.raises(RecordingError, match="no blocks"):
        load(features, tmp_path)
    write_schema(tmp_path)
    with pytest.raises(RecordingError, match="no features under"):
        load(tmp_path, labels)
    (tmp_path / "schema.json").write_text('{"hash": "0000"}')
    with pytest.raises(RecordingError, match="run the stage 'features' again"):
        load(tmp_path, labels)
