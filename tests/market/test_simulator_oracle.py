"""The oracle stays out: no place for it in the data, and a file that carries it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.batch import FeatureTable, compute
from features.schema import NAMES
from market.errors import RecordingError
from market.importers import ingest
from market.recording import Recording
from market.simulator import SimSpec, simulate_market, simulate_recording

PLANTED = [SimSpec("SIMP", planted=True)]


def test_books_and_trades_have_no_room_for_it() -> None:
    days, oracle = simulate_market(PLANTED, hours=0.05)
    for table in (days[0].books, days[0].trades, days[0]):
        with pytest.raises(AttributeError):
            table.oracle = oracle["SIMP"]  # type: ignore[union-attr]


def test_features_do_not_depend_on_it() -> None:
    """No feature is a copy of the planted state, though they are allowed to learn of it from the book."""
    days, oracle = simulate_market(PLANTED, hours=0.5)
    table = compute(days[0])
    usable = table.usable
    assert not [name for name in NAMES if "oracle" in name or "latent" in name]
    for column in table.X[usable].T:
        known = np.isfinite(column)
        if not known.any() or np.ptp(column[known]) == 0:
            continue  # of an instrument without a leader, or without a session's open
        assert abs(np.corrcoef(column[known], oracle["SIMP"][usable][known])[0, 1]) < 0.9


@pytest.mark.parametrize("file", ["book.parquet", "trades.parquet"])
def test_a_recording_with_a_leaked_column_is_refused(tmp_path: Path, file: str) -> None:
    recording, oracle = simulate_recording(tmp_path / "r", PLANTED, hours=0.05)
    path = recording.path / "SIMP" / "2026-01-15" / file
    table = pq.read_table(path, partitioning=None)
    leaked = pa.array(np.resize(oracle["SIMP"], table.num_rows))
    pq.write_table(table.append_column("oracle", leaked), path)
    with pytest.raises(RecordingError, match="other columns"):
        Recording.open(tmp_path / "r").read("SIMP", "2026-01-15")
    with pytest.raises(RecordingError, match="other columns"):
        ingest(tmp_path / "r", tmp_path / "out")


def test_a_feature_file_with_a_leaked_column_is_refused(tmp_path: Path) -> None:
    days, oracle = simulate_market(PLANTED, hours=0.05)
    table, path = compute(days[0]), tmp_path / "2026-01-15.npz"
    table.save(path)
    assert FeatureTable.load(path).X.shape == table.X.shape
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays, oracle=oracle["SIMP"])
    with pytest.raises(RecordingError, match="holds oracle, which is no part of the features"):
        FeatureTable.load(path)
    arrays["X"] = np.column_stack([arrays["X"], oracle["SIMP"]])
    np.savez(path, **arrays)
    with pytest.raises(RecordingError, match=f"{len(NAMES)} features"):
        FeatureTable.load(path)
