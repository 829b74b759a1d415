"""Drift on the box: metrics on disk, triggers in the calibration queue once each, a stop when critical."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from small_bundle import make_bundle, make_recording

from features.schema import NAMES
from live import tearsheet, tearsheet_page
from live.config_schema import Monitoring
from live.core.events import Drift
from live.drift import BREAK_NS, COLUMNS, DriftMonitor, reference_of, thresholds_of
from live.drift_samples import KEEP_DAYS, SampleWriter, files, read
from market.errors import ScalperError
from market.types import SECOND_NS
from models import drift_scores
from models.drift import EVERY_ROWS, LEAST_ROWS, SCORES, THIN_NS, Reference
from models.drift_reference import Rows, build
from models.drift_rule import IN_A_ROW

DAY_NS = 1_768_460_400 * SECOND_NS  # 2026-01-15 in UTC
SHA = "ab" * 32
WATCHED = (*NAMES[:10], *SCORES)
WARNED = LEAST_ROWS + (IN_A_ROW - 1) * EVERY_ROWS
"""Rows after which a market that was other from the beginning is a warning."""


@dataclass
class Answer:
    p: np.ndarray
    expected_move_millibps: int


def answer(rng: np.random.Generator, lean: float = 0.0) -> Answer:
    logits = np.array([-lean, 0.0, lean]) + rng.normal(0, 0.5, 3)
    p = np.exp(logits) / np.exp(logits).sum()
    return Answer(p, round(8000 * (p[2] - p[0])))


@cache
def reference() -> Reference:
    """Ten features and the scores of an ordinary market; the first feature carries half of the importance."""
    rng = np.random.default_rng(3)
    answers = [answer(rng) for _ in range(2_000)]
    of_scores = drift_scores.columns(
        [a.p for a in answers], [a.expected_move_millibps for a in answers], 2000
    )
    x = np.concatenate([rng.standard_normal((len(answers), 10)), of_scores], axis=1)
    rows = Rows(DAY_NS - len(x) * THIN_NS + np.arange(len(x)) * THIN_NS, x)
    importance = {NAMES[0]: 9.0} | dict.fromkeys(NAMES[1:10], 1.0)
    return build(WATCHED, {"SIMP": rows}, importance)[0]


class Box:
    """The monitor of one session, fed with a market that may lean."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Drift] = []
        self.audit: list[str] = []
        self.monitor = DriftMonitor(
            reference(), {"SIMP": 2000}, Monitoring(), SHA, folder, self.events.append,  # type: ignore[arg-type]
            lambda tag, event, **fields: self.audit.append(event),
        )  # fmt: skip
        self.rng = np.random.default_rng(5)
        self.now_ns = DAY_NS

    def feed(self, rows: int, *, features: float = 0.0, only: int | None = None, lean: float = 0.0) -> None:
        """``features``: standard deviations that the features moved; ``only`` the first so many of them."""
        for _ in range(rows):
            self.now_ns += THIN_NS
            row = self.rng.normal(0, 1, len(NAMES)).astype(np.float32)
            row[:only] += features
            if self.monitor.take(self.now_ns, "SIMP", row, answer(self.rng, lean)):
                self.monitor.tell(self.now_ns, "SIMP", self.monitor.look("SIMP"))

    def metrics(self) -> list[dict[str, Any]]:
        path = self.folder / "drift_metrics" / "drift_metrics_20260115.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def queue(self) -> list[dict[str, Any]]:
        path = self.folder / "calibration_queue.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_drift_metrics_are_written_to_a_file_of_the_day(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(LEAST_ROWS + 5 * EVERY_ROWS)
    lines = box.metrics()
    assert len(lines) == 6 and {line["ticker"] for line in lines} == {"SIMP"}
    assert all(line["columns"] == len(WATCHED) - 1 and not line["warning"] for line in lines)
    assert all(line["manifest_sha256"] == SHA and line["rows"] <= 360 for line in lines)
    assert box.queue() == [] and box.events == []
    report = box.monitor.report()
    assert report["psi_SIMP"] == lines[-1]["psi"] and not report["warning"] and "reason" not in report


def test_a_trigger_is_appended_to_the_calibration_queue_deduplicated_over_a_restart(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    box.feed(WARNED + 2 * EVERY_ROWS, features=2.0, lean=2.0)
    (request,) = box.queue()
    assert request["reason"] == "critical drift" and request["manifest_sha256"] == SHA
    assert box.audit.count("CALIBRATION_ASKED") == 1
    again = Box(tmp_path)
    again.feed(WARNED, features=2.0, lean=2.0)
    assert len(again.queue()) == 1 and again.metrics()[-1]["critical"]


def test_a_critical_drift_reaches_the_engine(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(WARNED - EVERY_ROWS, lean=1.0)
    assert box.metrics()[-1]["alarm"] and box.events == []  # two looks are no warning yet
    box.feed(EVERY_ROWS, lean=1.0)
    assert box.events[-1].critical and box.events[-1].metric.startswith("psi SIMP/")
    report = box.monitor.report()
    assert report["warning"] and report["critical"] and "SIMP" in report["reason"]
    assert "score" in box.metrics()[-1]["names"]


def test_a_drift_is_stamped_when_it_is_told_not_when_its_last_row_came(tmp_path: Path) -> None:
    # Books go on while a thread judges: the engine refuses an event from before the last one.
    box = Box(tmp_path)
    box.feed(WARNED, lean=1.0)
    box.monitor.tell(box.now_ns + 250, "SIMP", box.monitor.look("SIMP"))
    assert [event.now_ns for event in box.events] == [box.now_ns, box.now_ns + 250]
    assert box.metrics()[-1]["now_ns"] == box.now_ns


def test_features_that_drift_without_the_score_are_a_warning_not_a_stop(tmp_path: Path) -> None:
    box = Box(tmp_path)
    for _ in range(WARNED):
        box.now_ns += THIN_NS
        row = box.rng.normal(0, 1, len(NAMES)).astype(np.float32)
        row[5:8] += 1
        if box.monitor.take(box.now_ns, "SIMP", row, answer(box.rng)):
            box.monitor.tell(box.now_ns, "SIMP", box.monitor.look("SIMP"))
    last = box.monitor.last["SIMP"]
    assert sorted(last.names) == sorted(NAMES[5:8]) and last.warning and not last.critical
    assert not box.events[-1].critical and box.queue()[0]["reason"] == "drift"


def test_one_light_feature_is_nothing_and_a_heavy_one_is_critical(tmp_path: Path) -> None:
    light, heavy = Box(tmp_path / "light"), Box(tmp_path / "heavy")
    for box, column in ((light, 4), (heavy, 0)):
        for _ in range(WARNED):
            box.now_ns += THIN_NS
            row = box.rng.normal(0, 1, len(NAMES)).astype(np.float32)
            row[column] += 2
            if box.monitor.take(box.now_ns, "SIMP", row, answer(box.rng)):
                box.monitor.tell(box.now_ns, "SIMP", box.monitor.look("SIMP"))
    assert light.metrics()[-1]["drifted"] == 1 and not light.metrics()[-1]["warning"] and not light.events
    assert heavy.metrics()[-1]["share"] == pytest.approx(0.5) and heavy.events[-1].critical


def test_a_model_that_trades_ten_times_as_often_is_noticed(tmp_path: Path) -> None:
    box = Box(tmp_path)
    rates = []
    for _ in range(WARNED):
        box.now_ns += THIN_NS
        chosen = answer(box.rng)
        chosen.expected_move_millibps = 3000  # over the threshold on every row
        row = box.rng.normal(0, 1, len(NAMES)).astype(np.float32)
        if box.monitor.take(box.now_ns, "SIMP", row, chosen):
            rates.append(box.monitor.tell(box.now_ns, "SIMP", box.monitor.look("SIMP")))
    assert rates[-1].trade_rate == 1.0 and 0.0 < (rates[-1].trade_rate_trained or 0) < 0.3
    assert "trade" in rates[-1].names and rates[-1].warning


def test_masked_values_and_unknown_instruments_are_left_out(tmp_path: Path) -> None:
    box = Box(tmp_path)
    row = np.zeros(len(NAMES), np.float32)
    assert not box.monitor.take(DAY_NS, "OTHER", row, answer(box.rng))
    assert not box.monitor.take(DAY_NS, "SIMP", row, Answer(np.full(3, np.nan), 0))
    box.feed(LEAST_ROWS, features=np.nan)
    assert box.monitor.last["SIMP"].columns == len(SCORES) - 1


def test_rows_closer_than_the_step_count_once_and_a_break_starts_afresh(tmp_path: Path) -> None:
    box = Box(tmp_path)
    row = np.zeros(len(NAMES), np.float32)
    for _ in range(3):
        box.monitor.take(DAY_NS + 1, "SIMP", row, answer(box.rng))
    box.feed(LEAST_ROWS - 2)
    assert "SIMP" not in box.monitor.last  # one row short
    box.now_ns += BREAK_NS + THIN_NS
    box.feed(LEAST_ROWS - 1)
    assert "SIMP" not in box.monitor.last
    box.feed(1)
    assert box.monitor.last["SIMP"].rows == LEAST_ROWS


def test_the_tearsheet_tells_the_looks_of_the_day(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(WARNED, lean=1.0)
    with open(tmp_path / "drift_metrics" / "drift_metrics_20260115.jsonl", "a") as file:
        file.write('{"torn')
    zone = ZoneInfo("Europe/Moscow")
    looks = tearsheet.drift_looks(tmp_path, date(2026, 1, 15), DAY_NS, DAY_NS + 3600 * SECOND_NS)
    assert looks == box.metrics()[: len(looks)] and len(looks) == IN_A_ROW
    told = tearsheet_page.drift_part(looks, zone)
    last = looks[-1]
    for figure in ("SIMP", f"{last['drifted']} of {last['columns']}", last["column"], f"{last['psi']:.3f}"):
        assert figure in told
    assert "said nothing" in tearsheet_page.drift_part([], zone)


# ---- the rows on disk


def test_the_rows_are_kept_for_the_report_and_a_torn_one_is_not(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.feed(5, features=3.0)
    (path,) = files(tmp_path)
    assert path.parent.name == "20260115"
    with open(path, "ab") as file:
        file.write(b"torn")
    found = read(path)
    assert (found.ticker, found.manifest_sha256, found.names) == ("SIMP", SHA, COLUMNS)
    assert len(found.recv_ns) == 5 and found.x.shape == (5, len(COLUMNS))
    assert found.x[:, : len(NAMES)].mean() == pytest.approx(3.0, abs=0.2)
    again = Box(tmp_path)
    again.now_ns = box.now_ns
    again.feed(2)
    assert np.diff(read(path).recv_ns).tolist() == [THIN_NS] * 6


def test_only_the_newest_days_of_rows_stay(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path, ("a",), SHA)
    for day in range(KEEP_DAYS + 3):
        writer.write(DAY_NS + day * 86_400 * SECOND_NS, "SIMP", np.zeros(1, np.float32))
    days = [path.parent.name for path in files(tmp_path)]
    assert len(days) == KEEP_DAYS and days[-1] == "20260124"


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "drift_samples" / "20260115" / "SIMP-0.rows"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"format":"another"}\n')
    with pytest.raises(ScalperError, match=r"SIMP-0\.rows.*another"):
        read(path)


def test_a_disk_that_takes_nothing_is_told_once_and_the_watch_goes_on(tmp_path: Path) -> None:
    for name in ("drift_metrics", "drift_samples"):
        (tmp_path / name).write_text("a file where a folder should be")
    box = Box(tmp_path)
    box.feed(WARNED, lean=1.0)
    assert box.audit.count("DRIFT_NOT_WRITTEN") == 2  # rows, and lines
    assert box.events[-1].critical and len(box.queue()) == 1


# ---- the bundle


def test_a_bundle_without_a_reference_is_not_watched(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("drift")
    bundle = make_bundle(folder / "bundle", make_recording(folder / "recording"), folder / "keys")
    assert reference_of(bundle) == {}
    assert thresholds_of(bundle) == {"SIMP": 0, "SIMA": 0}
