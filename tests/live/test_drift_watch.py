"""Drift on the box: metrics on disk, triggers in the calibration queue once each, a stop when critical."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundle import make_bundle, make_recording

from features.schema import NAMES
from live.config_schema import Monitoring
from live.core.events import Drift
from live.drift import EVERY_ROWS, LEAST_ROWS, SCORE, Column, DriftMonitor, effective_size, psi, reference_of
from market.types import SECOND_NS

DAY_NS = 1_768_460_400 * SECOND_NS  # 2026-01-15 in UTC
EDGES = np.array([-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28])


def column(n_eff: float = 5_000.0) -> Column:
    return Column(EDGES, np.full(10, 0.1), n_eff)


class Box:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Drift] = []
        self.audit: list[str] = []
        reference = {"SIMP": {name: column() for name in (*NAMES[:5], SCORE)}}
        self.monitor = DriftMonitor(
            reference, Monitoring(), "ab" * 32, folder, self.events.append,  # type: ignore[arg-type]
            lambda tag, event, **fields: self.audit.append(event),
        )  # fmt: skip
        self.rng = np.random.default_rng(5)

    def feed(self, rows: int, *, features: float = 0.0, score: float = 0.0) -> None:
        for n in range(rows):
            row = self.rng.normal(features, 1, len(NAMES)).astype(np.float32)
            self.monitor.take(DAY_NS + n * SECOND_NS, "SIMP", row, float(self.rng.normal(score, 1)))

    def metrics(self) -> list[dict[str, Any]]:
        path = self.folder / "drift_metrics" / "drift_metrics_20260115.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def queue(self) -> list[dict[str, Any]]:
        path = self.folder / "calibration_queue.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_drift_metrics_are_written_to_a_file_of_the_day(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(LEAST_ROWS + 2 * EVERY_ROWS)
    lines = box.metrics()
    assert len(lines) == 3 and {line["ticker"] for line in lines} == {"SIMP"}
    assert all(line["columns"] == 6 and not line["warning"] for line in lines)
    assert box.queue() == [] and box.events == []


def test_a_trigger_is_appended_to_the_calibration_queue_deduplicated_over_a_restart(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    box.feed(400, features=2.0, score=2.0)
    (request,) = box.queue()
    assert request["reason"] == "critical drift" and request["manifest_sha256"] == "ab" * 32
    assert box.audit.count("CALIBRATION_ASKED") == 1
    again = Box(tmp_path)
    again.feed(400, features=2.0, score=2.0)
    assert len(again.queue()) == 1 and again.metrics()[-1]["critical"]


def test_a_critical_drift_reaches_the_engine(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(400, score=2.0)
    assert box.events and box.events[-1].critical and box.events[-1].metric == "psi SIMP/score"
    assert box.monitor.report()["warning"] and "SIMP/score" in box.monitor.report()["reason"]


def test_one_feature_that_drifts_is_a_warning_not_a_stop(tmp_path: Path) -> None:
    box = Box(tmp_path)
    for n in range(400):
        row = box.rng.normal(0, 1, len(NAMES)).astype(np.float32)
        row[0] += 2
        box.monitor.take(DAY_NS + n * SECOND_NS, "SIMP", row, float(box.rng.normal()))
    assert box.monitor.last["SIMP"].column == NAMES[0]
    assert not box.events[-1].critical and box.queue()[0]["reason"] == "drift"


def test_masked_values_and_unknown_instruments_are_left_out(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.monitor.take(DAY_NS, "OTHER", np.zeros(len(NAMES), np.float32), 0.0) is None
    for n in range(400):
        row = np.full(len(NAMES), np.nan, np.float32)
        box.monitor.take(DAY_NS + n * SECOND_NS, "SIMP", row, float(box.rng.normal()))
    assert box.monitor.last["SIMP"].columns == 1


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.0, 0.98))
def test_without_drift_the_index_stays_under_its_limit_however_much_rows_repeat_each_other(
    seed: int, memory: float
) -> None:
    rng = np.random.default_rng(seed)
    x = np.empty(720)
    x[0] = rng.normal()
    for i in range(1, len(x)):
        x[i] = memory * x[i - 1] + (1 - memory**2) ** 0.5 * rng.normal()
    assert 1 <= effective_size(x) <= len(x)
    value, limit = psi(column(), x)
    assert value < 3 * limit  # 0.999 of one test; the factor covers the estimate of the memory


def test_a_bundle_without_a_reference_is_not_watched(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("drift")
    bundle = make_bundle(folder / "bundle", make_recording(folder / "recording"), folder / "keys")
    assert reference_of(bundle) == {}
