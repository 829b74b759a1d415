"""The files that ship: TFLite in the mode that the plan asks for, proven against the trained models.

Conversion runs in one subprocess (``models.export``). Every form of every network (float32, float16, int8
weights, full integer) is then replayed by the engine that trades (ai-edge-litert), the LSTM with carried
state from the first row on, and compared on held-out rows with the log-probabilities that training left. A
member whose INT8 fails ships as FLOAT16, and the report says so. Reports hold no latency: times differ from
run to run, and the report is part of hashed outputs; they go to a file of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from market.errors import ScalperError
from models import learner, parity
from models.bundle import MEMBER_FILES, SCALER
from models.learner import F32, I64, Mask, Progress
from models.members import Members
from models.scaling import Scaler

MODES = {"INT8": "int8", "INT8_FULL": "int8_full", "FLOAT16": "fp16", "FLOAT32": "float32"}
"""By the plan's word for it. INT8: int8 weights, float inputs and outputs; INT8_FULL: integers throughout."""
SHIPPED_MODES = ("INT8", "INT8_FULL", "FLOAT16")
CALIBRATION_ROWS = 2_000
"""Of each instrument, at the end of block ``fit``: what ``INT8_FULL`` is calibrated on."""
EXPORT_LIMIT_S = 600
LATENCY_ROWS = 400
PARITY_FILE = "parity.json"
FORM_FIGURES = (
    "kib", "agreement", "max_abs_dlogp", "max_abs_dp", "mean_abs_dp", "accuracy_lost_points", "macro_f1",
    "macro_f1_lost_points", "passed",
)  # fmt: skip
"""What the report says of the forms that are not shipped."""


class QuantiseError(ScalperError):
    """The exporter failed, or what training left cannot be compared."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Rows of one instrument to replay: everything up to the last chosen row, for the LSTM carries its state.

    ``X`` float32 [n, F] raw; ``usable``, ``reset``, ``chosen`` bool [n]; of the m chosen rows: ``rows`` int64
    [m], their numbers in the series, ``y`` int64 [m] (-1: no label) and ``expected`` float32 [m, 3], the
    log-probabilities that training left.
    """

    ticker: str
    X: F32
    usable: Mask
    reset: Mask
    chosen: Mask
    rows: I64
    y: I64
    expected: F32


def run(
    models_dir: Path, plan: Mapping[str, Any], scaler: Scaler, out_dir: Path, dataset: Any, *,
    max_rows: int = 6000, limits: Mapping[str, float] | None = None, latency_path: Path | None = None,
    weights: Mapping[str, float] | None = None, progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """Export, prove and write ``<member file>``, ``scaler.npz`` and ``parity.json`` to ``out_dir``; the
    report.

    ``plan`` is ``quantization_plan.json``; ``dataset`` a Dataset or a sequence of ``learner.Series``; at most
    ``max_rows`` rows of block ``calibrate`` are compared. ``latency_path`` gets microseconds per step of
    every form as JSON. With the ensemble's ``weights`` and a Dataset, the profit of the shipped ensemble on
    the compared rows is set against that of the trained one.
    """
    full = _limits(limits)
    modes: dict[str, str] = dict(plan["members"])
    _check_plan(modes)
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch)
        networks = sorted(name for name, mode in modes.items() if mode != "TEXT")
        if networks:
            progress(f"quantise: converting {', '.join(networks)}")
            wanted = [f"{name}:{mode}" for name in networks for mode in MODES.values()]
            rows = exported / "rows.npz"
            learner.save_npz(rows, _calibration_rows(dataset, scaler))
            convert(models_dir, exported, wanted, rows)
        return prove(
            models_dir, plan, scaler, exported, out_dir, dataset, max_rows=max_rows, limits=full,
            latency_path=latency_path, weights=weights, progress=progress,
        )  # fmt: skip


def prove(
    models_dir: Path, plan: Mapping[str, Any], scaler: Scaler, exported: Path, out_dir: Path, dataset: Any, *,
    max_rows: int = 6000, limits: Mapping[str, float] | None = None, latency_path: Path | None = None,
    weights: Mapping[str, float] | None = None, progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """``run`` less its conversion: ``exported`` holds ``<name>.<mode>.tflite`` of each network and mode."""
    limits = _limits(limits)
    modes: dict[str, str] = dict(plan["members"])
    _check_plan(modes)
    models_dir, out_dir = Path(models_dir), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    scaler.save(out_dir / SCALER)
    report: dict[str, Any] = {"members": {}, "limits": dict(sorted(limits.items()))}
    latency: dict[str, Any] = {}
    benches: dict[str, _Bench] = {}
    for name, mode in sorted(modes.items()):
        bench = benches[name] = _Bench(name, models_dir, exported, scaler, dataset, max_rows, limits)
        entry, shipped = bench.ship(mode)
        shutil.copyfile(shipped, out_dir / MEMBER_FILES[name])
        report["members"][name] = entry
        progress(f"quantise: {_line(name, entry)}")
        if latency_path is not None:
            latency[name] = bench.latency(entry["mode"])
    if weights is not None:
        report["profit"] = _profit(benches, report["members"], weights, dataset, limits)
    report["passed"] = all(
        entry["passed"] for entry in [*report["members"].values(), report.get("profit", {"passed": True})]
    )
    report = _rounded(report)
    learner.save_json(out_dir / PARITY_FILE, report)
    if latency_path is not None:
        latency_path.parent.mkdir(parents=True, exist_ok=True)
        learner.save_json(latency_path, {"unit": "microseconds per step", "members": latency})
    return report


def convert(models_dir: Path, out_dir: Path, wanted: Sequence[str], rows: Path | None = None) -> None:
    """Run the exporter once for all of ``wanted`` ("lstm:int8", ...); QuantiseError with its last words.

    ``rows``: ``rows.npz`` to calibrate ``int8_full`` on.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "models.export", "--models", str(Path(models_dir).resolve())]
    command += ["--out", str(Path(out_dir).resolve())]
    command += ["--rows", str(rows.resolve())] if rows else []
    command += wanted
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=EXPORT_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise QuantiseError(
            f"the exporter did not finish within {EXPORT_LIMIT_S} s: {' '.join(wanted)}"
        ) from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise QuantiseError(f"the exporter ended with {done.returncode}: {last[0]}")


def _limits(changes: Mapping[str, float] | None) -> dict[str, float]:
    limits = {**parity.LIMITS, **(changes or {})}
    if unknown := sorted(set(limits) - set(parity.LIMITS)):
        raise QuantiseError(f"no gate is called {', '.join(unknown)}; known: {', '.join(parity.LIMITS)}")
    return limits


def _check_plan(modes: Mapping[str, str]) -> None:
    for name, mode in modes.items():
        allowed = ("TEXT",) if name == "gbdt" else SHIPPED_MODES
        if name not in MEMBER_FILES or mode not in allowed:
            raise QuantiseError(
                f"the plan has {name}: {mode}; {', '.join(MEMBER_FILES)} with {', '.join(allowed)}"
            )


def _calibration_rows(dataset: Any, scaler: Scaler) -> dict[str, Any]:
    """Scaled rows that follow each other, of every instrument, from the end of block ``fit``."""
    xs, starts = [], []
    for s in learner.series_of(dataset):
        rows, fresh = learner.usable_rows(s)
        mine = s.blocks["fit"][rows]
        rows, fresh = rows[mine][-CALIBRATION_ROWS:], fresh[mine][-CALIBRATION_ROWS:].copy()
        fresh[:1] = True
        xs.append(scaler.apply(s.X[rows]))
        starts.append(fresh)
    return {"x": np.concatenate(xs), "fresh": np.concatenate(starts)}


def _profit(
    benches: Mapping[str, _Bench], entries: Mapping[str, Any], weights: Mapping[str, float], dataset: Any,
    limits: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """``parity.profit`` on the rows that every weighing member has, with its gate."""
    names = sorted(n for n, w in weights.items() if w > 0 and n in benches)
    series = getattr(dataset, "series", {})
    long_bps, short_bps = [], []
    trained: dict[str, list[F32]] = {n: [] for n in names}
    shipped: dict[str, list[F32]] = {n: [] for n in names}
    for ticker, s in series.items():
        sets = [set(benches[n].rows_of(ticker).tolist()) for n in names]
        rows = np.array(sorted(set.intersection(*sets)), np.int64)
        long_bps.append(s.long_bps[rows].astype(np.float64))
        short_bps.append(s.short_bps[rows].astype(np.float64))
        for n in names:
            at = np.searchsorted(benches[n].rows_of(ticker), rows)
            part = benches[n].part_of(ticker)
            trained[n].append(benches[n].expected[part][at])
            shipped[n].append(benches[n].answers(entries[n]["mode"])[part][at])
    if not long_bps:
        return {"rows": 0, "lost_bps": 0.0, "gates": [], "passed": True}
    figures = parity.profit(
        {n: np.concatenate(v) for n, v in trained.items()},
        {n: np.concatenate(v) for n, v in shipped.items()},
        {n: weights[n] for n in names}, np.concatenate(long_bps), np.concatenate(short_bps),
    )  # fmt: skip
    gate = parity.gated("the ensemble", "pnl_lost_bps", figures["lost_bps"], limits["pnl_lost_bps"])
    return {**figures, "gates": [gate], "passed": gate["passed"]}


# --- the test bench
# -----------------------------------------------------------------------------------------------


class _Bench:
    """One member: its files by mode, the rows to replay, and what training said about them."""

    def __init__(
        self, name: str, models_dir: Path, exported: Path, scaler: Scaler, dataset: Any, max_rows: int,
        limits: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.name, self.limits, self.scaler = name, limits, scaler
        self.files = {mode: exported / f"{name}.{short}.tflite" for mode, short in MODES.items()}
        self.files["TEXT"] = models_dir / name / "model.txt"
        self.replays = _replays(
            name, dataset, models_dir / name / "logits.npz", max_rows, self._window_rows()
        )
        self.expected = np.concatenate([r.expected for r in self.replays])
        self.y = np.concatenate([r.y for r in self.replays])
        self._answers: dict[str, F32] = {}

    def rows_of(self, ticker: str) -> I64:
        """Row numbers compared of an instrument, ascending."""
        return next((r.rows for r in self.replays if r.ticker == ticker), np.zeros(0, np.int64))

    def part_of(self, ticker: str) -> slice:
        """Where they lie in ``expected`` and ``answers``."""
        first = 0
        for r in self.replays:
            if r.ticker == ticker:
                return slice(first, first + len(r.rows))
            first += len(r.rows)
        return slice(0, 0)

    def ship(self, mode: str) -> tuple[dict[str, Any], Path]:
        """The report of the member in the mode that passes, and its file."""
        if mode == "TEXT":
            return self._entry(mode, {}), self.files[mode]
        float32 = parity.compare(self.expected, self.answers("FLOAT32"), self.y)
        forms = {m: self._entry(m, float32) for m in SHIPPED_MODES}
        entry = dict(forms[mode])
        if mode != "FLOAT16" and not entry["passed"]:
            failed = [g for g in entry["gates"] if not g["passed"]]
            entry = dict(forms["FLOAT16"])
            entry["fallback"] = f"{mode} failed: {'; '.join(g['reason'] for g in failed)}"
            entry["failed_gates"] = failed
        entry["float32"] = float32
        entry["forms"] = {m: {k: form[k] for k in FORM_FIGURES} for m, form in forms.items()}
        return {**entry, "planned": mode}, self.files[entry["mode"]]

    def latency(self, mode: str) -> dict[str, Any]:
        """Microseconds per step, p50 and p99, of every form, and of the shipped one once more by name."""
        timed = {mode: self._timed(mode)} if mode == "TEXT" else {m: self._timed(m) for m in MODES}
        return {"mode": mode, "shipped": timed[mode], **timed}

    def _entry(self, mode: str, float32: Mapping[str, float]) -> dict[str, Any]:
        figures = parity.compare(self.expected, self.answers(mode), self.y)
        foreign = parity.foreign_operations(self.files[mode])
        gates = parity.gates(self.name, mode, figures, float32, foreign, self.limits)
        sizes = {"kib": self.files[mode].stat().st_size / 1024}
        if float32:
            sizes["float32_kib"] = self.files["FLOAT32"].stat().st_size / 1024
        return {
            "mode": mode, "planned": mode, "fallback": None, "rows": len(self.y),
            "steps": int(sum(r.usable.sum() for r in self.replays)), **figures, **sizes, "gates": gates,
            "passed": all(g["passed"] for g in gates),
        }  # fmt: skip

    def answers(self, mode: str) -> F32:
        """What the form says of the chosen rows, float32 [m, 3]."""
        if mode not in self._answers:
            self._answers[mode] = self._replayed(mode)
        return self._answers[mode]

    def _members(self, mode: str) -> Members:
        content = self.files[mode].read_bytes()
        return Members(lambda _: content, self.scaler, names=[self.name])

    def _window_rows(self) -> int:
        return 1 if self.name == "gbdt" else self._members("FLOAT32").window_rows

    def _replayed(self, mode: str) -> F32:
        members = self._members(mode)
        parts = [
            members.run(r.X, r.usable, r.reset, emit=r.chosen, ticker=r.ticker)[self.name][r.chosen]
            for r in self.replays
        ]
        got = np.concatenate(parts)
        if not np.isfinite(got).all():
            raise QuantiseError(f"{self.name} in {mode} gives no score on rows that training scored")
        return got

    def _timed(self, mode: str) -> dict[str, float]:
        members, rows = self._members(mode), self.replays[0]
        X = rows.X[rows.usable][: LATENCY_ROWS + members.window_rows]
        micros = []
        for x in X:
            start = time.perf_counter_ns()
            scored = members.step("", x)
            if scored is not None:
                micros.append((time.perf_counter_ns() - start) / 1e3)
        return {f"p{q}": round(float(np.percentile(micros, q)), 1) for q in (50, 99)} if micros else {}


def _replays(name: str, dataset: Any, logits_path: Path, max_rows: int, window_rows: int) -> list[Replay]:
    try:
        with np.load(logits_path, allow_pickle=False) as stored:
            reference = {ticker: stored[ticker] for ticker in stored.files}
    except (OSError, ValueError) as e:
        raise QuantiseError(f"cannot read {logits_path}: {e}; train {name} first") from e
    series = learner.series_of(dataset)
    replays = []
    for s in series:
        known = np.isfinite(reference[s.ticker]).all(axis=1)
        rows = np.flatnonzero(s.usable & s.blocks["calibrate"] & known)[: max(1, max_rows // len(series))]
        if not len(rows):
            continue
        # The LSTM carries its state from the very start; the others see no further back than their window.
        usable = np.flatnonzero(s.usable[: rows[0]])
        first = 0 if name == "lstm" else [*usable, rows[0]][-min(window_rows, len(usable) + 1)]
        span = slice(int(first), int(rows[-1]) + 1)
        chosen = np.zeros(len(s), bool)
        chosen[rows] = True
        replays.append(
            Replay(
                s.ticker, s.X[span], s.usable[span], s.reset[span], chosen[span], rows, s.y[rows],
                reference[s.ticker][rows],
            )
        )  # fmt: skip
    if not replays:
        raise QuantiseError(f"{logits_path} scores no row of block 'calibrate': nothing to compare {name} on")
    return replays


def _line(name: str, entry: Mapping[str, Any]) -> str:
    text = f"{name} {entry['mode']}, {entry['kib']:.0f} KiB, agreement {entry['agreement']:.4f}"
    if entry["fallback"]:
        text += f" ({entry['fallback']})"
    return (
        text
        if entry["passed"]
        else f"{text}, FAILED: " + "; ".join(g["reason"] for g in entry["gates"] if not g["passed"])
    )


def _rounded(value: Any) -> Any:
    """Floats to six significant digits: the last bits say nothing and differ between builds."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value
