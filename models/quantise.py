"""The files that ship: TFLite in the mode that the plan asks for, proven against the trained models.

Conversion runs in one subprocess (``models.export``). Each file is then replayed by the engine that trades
(ai-edge-litert), the LSTM with carried state, on held-out rows, and compared with the log-probabilities that
training left. A member whose INT8 fails ships as FLOAT16, and the report says so. Reports hold no latency:
times differ from run to run, and the report is part of hashed outputs; they go to a file of their own.
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
from models import learner
from models.bundle import MEMBER_FILES, SCALER
from models.learner import F32, I64, Mask, Progress
from models.members import Members, load_interpreter
from models.scaling import Scaler

MODES = {"INT8": "int8", "FLOAT16": "fp16", "FLOAT32": "float32"}
SHIPPED_MODES = ("INT8", "FLOAT16")
EXPORT_LIMIT_S = 600
LATENCY_ROWS = 400
PARITY_FILE = "parity.json"

LIMITS: dict[str, float] = {
    "float32_max_abs_dlogp": 1e-4,
    "fp16_max_abs_dp": 1e-2,
    "fp16_agreement": 0.999,
    "int8_agreement": 0.995,
    "svm_int8_agreement": 0.99,
    "text_max_abs_dlogp": 1e-5,
    "accuracy_lost_points": 0.5,
}
"""Defaults of the gates (measured: clamped LSTM step .996-.998, Transformer .999, RFF machine .994)."""


class QuantiseError(ScalperError):
    """The exporter failed, or what training left cannot be compared."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Rows of one instrument to replay: everything up to the last chosen row, for the LSTM carries its state.

    ``X`` float32 [n, F] raw; ``usable``, ``reset``, ``chosen`` bool [n]; of the m chosen rows: ``y`` int64
    [m] (-1: no label) and ``expected`` float32 [m, 3], the log-probabilities that training left.
    """

    ticker: str
    X: F32
    usable: Mask
    reset: Mask
    chosen: Mask
    y: I64
    expected: F32


def run(
    models_dir: Path, plan: Mapping[str, Any], scaler: Scaler, out_dir: Path, dataset: Any, *,
    max_rows: int = 6000, limits: Mapping[str, float] | None = None, latency_path: Path | None = None,
    progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """Export, prove and write ``<member file>``, ``scaler.npz`` and ``parity.json`` to ``out_dir``; the
    report.

    ``plan`` is ``quantization_plan.json``; ``dataset`` a Dataset or a sequence of ``learner.Series``; at most
    ``max_rows`` rows of block ``calibrate`` are compared. ``latency_path`` gets microseconds per step as
    JSON.
    """
    limits = {**LIMITS, **(limits or {})}
    modes: dict[str, str] = dict(plan["members"])
    _check_plan(modes)
    models_dir, out_dir = Path(models_dir), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    scaler.save(out_dir / SCALER)
    report: dict[str, Any] = {"members": {}, "limits": dict(sorted(limits.items()))}
    latency: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch)
        networks = {name: mode for name, mode in modes.items() if mode != "TEXT"}
        if networks:
            progress(f"quantise: converting {', '.join(sorted(networks))}")
            convert(models_dir, exported, _wanted(networks))
        for name, mode in sorted(modes.items()):
            bench = _Bench(name, models_dir, exported, scaler, dataset, max_rows, limits)
            entry, shipped = bench.ship(mode)
            shutil.copyfile(shipped, out_dir / MEMBER_FILES[name])
            report["members"][name] = entry
            progress(f"quantise: {_line(name, entry)}")
            if latency_path is not None:
                latency[name] = bench.latency(entry["mode"])
    report["passed"] = all(entry["passed"] for entry in report["members"].values())
    report = _rounded(report)
    learner.save_json(out_dir / PARITY_FILE, report)
    if latency_path is not None:
        latency_path.parent.mkdir(parents=True, exist_ok=True)
        learner.save_json(latency_path, {"unit": "microseconds per step", "members": latency})
    return report


def convert(models_dir: Path, out_dir: Path, wanted: Sequence[str]) -> None:
    """Run the exporter once for all of ``wanted`` ("lstm:int8", ...); QuantiseError with its last words."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "models.export", "--models", str(Path(models_dir).resolve())]
    command += ["--out", str(Path(out_dir).resolve()), *wanted]
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


def _check_plan(modes: Mapping[str, str]) -> None:
    for name, mode in modes.items():
        allowed = ("TEXT",) if name == "gbdt" else SHIPPED_MODES
        if name not in MEMBER_FILES or mode not in allowed:
            raise QuantiseError(
                f"the plan has {name}: {mode}; {', '.join(MEMBER_FILES)} with {', '.join(allowed)}"
            )


def _wanted(networks: Mapping[str, str]) -> list[str]:
    """Float32 for the comparison, the planned mode, and FLOAT16 to fall back on."""
    wanted = []
    for name, mode in sorted(networks.items()):
        wanted += [f"{name}:{m}" for m in dict.fromkeys(("float32", MODES[mode], "fp16"))]
    return wanted


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

    def ship(self, mode: str) -> tuple[dict[str, Any], Path]:
        """The report of the member in the mode that passes, and its file."""
        if mode == "TEXT":
            return self._entry(mode, {}), self.files[mode]
        float32 = compare(self.expected, self._replayed("FLOAT32"), self.y)
        entry = self._entry(mode, float32)
        if mode == "INT8" and not entry["passed"]:
            failed = [g for g in entry["gates"] if not g["passed"]]
            entry = self._entry("FLOAT16", float32)
            entry["fallback"] = f"INT8 failed: {'; '.join(g['reason'] for g in failed)}"
            entry["failed_gates"] = failed
        return {**entry, "planned": mode}, self.files[entry["mode"]]

    def latency(self, mode: str) -> dict[str, Any]:
        """Microseconds per step, p50 and p99, of the shipped file and of the float32 one."""
        modes = {"shipped": mode} if mode == "TEXT" else {"float32": "FLOAT32", "shipped": mode}
        return {"mode": mode, **{key: self._timed(m) for key, m in modes.items()}}

    def _entry(self, mode: str, float32: Mapping[str, float]) -> dict[str, Any]:
        figures = compare(self.expected, self._replayed(mode), self.y)
        gates = _gates(self.name, mode, figures, float32, foreign_operations(self.files[mode]), self.limits)
        sizes = {"kib": self.files[mode].stat().st_size / 1024}
        if float32:
            sizes["float32_kib"] = self.files["FLOAT32"].stat().st_size / 1024
        return {
            "mode": mode, "planned": mode, "fallback": None, "rows": len(self.y), **figures, **sizes,
            "float32": dict(float32), "gates": gates, "passed": all(g["passed"] for g in gates),
        }  # fmt: skip

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
                s.ticker, s.X[span], s.usable[span], s.reset[span], chosen[span], s.y[rows],
                reference[s.ticker][rows],
            )
        )  # fmt: skip
    if not replays:
        raise QuantiseError(f"{logits_path} scores no row of block 'calibrate': nothing to compare {name} on")
    return replays


def compare(expected: F32, got: F32, y: I64) -> dict[str, float]:
    """How far log-probabilities ``got`` float32 [n, 3] are from ``expected``; accuracy over the labelled
    rows.
    """
    p, q = np.exp(expected.astype(np.float64)), np.exp(got.astype(np.float64))
    labelled = y >= 0
    hits = [
        float(np.mean(v.argmax(axis=1)[labelled] == y[labelled])) if labelled.any() else 0.0 for v in (p, q)
    ]
    return {
        "max_abs_dlogp": float(np.abs(expected - got).max()),
        "max_abs_dp": float(np.abs(p - q).max()),
        "mean_abs_dp": float(np.abs(p - q).mean()),
        "agreement": float(np.mean(p.argmax(axis=1) == q.argmax(axis=1))),
        "accuracy_trained": hits[0],
        "accuracy": hits[1],
        "accuracy_lost_points": 100 * (hits[0] - hits[1]),
    }


def foreign_operations(path: Path) -> list[str]:
    """Operations of a TFLite file that the interpreter of the box does not have built in (empty for text)."""
    if path.suffix != ".tflite":
        return []
    names = {d["op_name"] for d in load_interpreter(path)._get_ops_details()}  # type: ignore[attr-defined]
    return sorted(n for n in names if n.startswith("Flex") or n.upper() == "CUSTOM")


def _gates(
    name: str, mode: str, figures: Mapping[str, float], float32: Mapping[str, float], foreign: Sequence[str],
    limits: Mapping[str, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Section by section what must hold for this mode; each gate with value, limit and, if it fails, a
    reason.
    """

    def gate(key: str, value: float, *, at_least: bool = False) -> dict[str, Any]:
        limit = limits[key]
        passed = value >= limit if at_least else value <= limit
        relation = "under" if at_least else "over"
        reason = "" if passed else f"{key} of {name} is {value:.4g}, {relation} its limit {limit:g}"
        return {"name": key, "value": value, "limit": limit, "passed": bool(passed), "reason": reason}

    gates = []
    if float32:
        gates.append(gate("float32_max_abs_dlogp", float32["max_abs_dlogp"]))
    if mode == "TEXT":
        gates.append(gate("text_max_abs_dlogp", figures["max_abs_dlogp"]))
    if mode == "FLOAT16":
        gates.append(gate("fp16_max_abs_dp", figures["max_abs_dp"]))
        gates.append(gate("fp16_agreement", figures["agreement"], at_least=True))
    if mode == "INT8":
        key = "svm_int8_agreement" if name == "svm" else "int8_agreement"
        gates.append(gate(key, figures["agreement"], at_least=True))
    gates.append(gate("accuracy_lost_points", figures["accuracy_lost_points"]))
    reason = f"{name} needs operations that the box lacks: {', '.join(foreign)}" if foreign else ""
    gates.append(
        {
            "name": "builtin_operations",
            "value": len(foreign),
            "limit": 0,
            "passed": not foreign,
            "reason": reason,
        }
    )
    return gates


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
