"""The rows of one small committed recording: a faster kernel must give the very same bits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from features import schema
from features.batch import FeatureTable, compute
from features.leakcheck import stream_rows
from features.schema import NAMES, schema_hash
from market.recording import Recording
from market.types import InstrumentDay

GOLDEN = Path(__file__).parent / "golden"
"""A simulated future of 864 books with every fault that a status names; ``columns.json`` was written by the
kernel before it was made faster. The recording is committed, so that only the features can differ."""


@pytest.fixture(scope="module")
def day() -> InstrumentDay:
    recording = Recording.open(GOLDEN / "recording")
    return recording.read("SIMF", recording.info.days["SIMF"][0])


def column_hashes(table: FeatureTable) -> dict[str, str]:
    columns = {name: np.ascontiguousarray(table.X[:, k]) for k, name in enumerate(NAMES)}
    columns |= {name: getattr(table, name) for name in ("status", "mid2", "spread")}
    return {name: hashlib.sha256(column.tobytes()).hexdigest()[:16] for name, column in columns.items()}


def test_the_bits_are_those_of_the_first_kernel(day: InstrumentDay) -> None:
    golden = json.loads((GOLDEN / "columns.json").read_text())
    assert golden["schema"] == schema_hash(), "another schema needs golden rows of its own"
    table = compute(day)
    assert len(table) == golden["rows"] and set(golden["columns"]) == {*NAMES, "status", "mid2", "spread"}
    got = column_hashes(table)
    assert [name for name, known in golden["columns"].items() if got[name] != known] == []


def test_the_golden_day_shows_every_status_and_usable_rows(day: InstrumentDay) -> None:
    table = compute(day)
    assert np.bitwise_or.reduce(table.status) == sum(schema.STATUS_NAMES)
    assert table.usable.sum() > 200


def test_the_live_stream_gives_the_golden_bits(day: InstrumentDay) -> None:
    X, status = stream_rows(day)
    table = compute(day)
    assert column_hashes(FeatureTable(table.recv_ns, X, status, table.mid2, table.spread)) == column_hashes(
        table
    )
