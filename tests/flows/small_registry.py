"""A folder like a workspace after its line has run, without running it: a small recording, its blocks, and a
real signed bundle whose manifest holds figures that pass the gate."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flows import workspace
from market.recording import Recording
from models.bundle import Bundle, write_bundle

GOOD: dict[str, Any] = {
    "calibration": {"ece": 0.01, "log_loss": 1.0, "climatology_log_loss": 1.05},
    "edge": {"block": "score", "trades": 400, "net_bps_ci": [0.4, 1.2], "net_bps": 300.0},
    "statistics": {"dsr": {"probability": 0.99}, "pbo": {"pbo": 0.1}, "searched": True, "choices": 60},
}
PARITY = {"passed": True, "members": {"gbdt": {"passed": True, "accuracy_lost_points": 0.0, "gates": []}}}


def _small_bundle() -> ModuleType:
    path = workspace.PROJECT / "tests" / "live" / "small_bundle.py"
    name = "small_bundle"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def make(folder: Path) -> Path:
    """The folder, with ``params.yaml``, ``data/recording``, ``data/labels/blocks.json`` and
    ``artifacts/bundle``."""
    folder.mkdir(parents=True)
    params = (workspace.PROJECT / "params.yaml").read_text()
    # Deals worse than the touch, which no model reckons with: who trades here loses, and doing nothing is
    # better.
    (folder / "params.yaml").write_text(params.replace("slippage_ticks: 0", "slippage_ticks: 8"))
    recording = _small_bundle().make_recording(folder / "data" / "recording")
    day = recording.read("SIMP", recording.info.days["SIMP"][0])
    first, last = int(day.books.recv_ns[0]), int(day.books.recv_ns[-1])
    middle = (first + last) // 2
    blocks = [["fit", first, middle], ["score", middle, last]]
    (folder / "data" / "labels").mkdir()
    (folder / "data" / "labels" / "blocks.json").write_text(json.dumps({"blocks": blocks, "purge_ns": 0}))
    rebuild(folder, rounds=30)
    return folder


def rebuild(folder: Path, *, threshold_bps: float = 0.0, rounds: int = 30, **metrics: Any) -> Bundle:
    """Another bundle in ``artifacts/bundle``, with these figures instead of the good ones."""
    target = folder / "artifacts" / "bundle"
    for leftover in (target, target.with_name("raw"), target.with_name("raw-parts")):
        shutil.rmtree(leftover, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    recording = Recording.open(folder / "data" / "recording")
    raw = _small_bundle().make_bundle(
        target.with_name("raw"), recording, folder / "keys", threshold_bps=threshold_bps, rounds=rounds
    )
    fields = {k: v for k, v in raw.manifest.items() if k not in ("format", "files")}
    changed = {**fields, "metrics": {**GOOD, **metrics}, "quantisation": PARITY}
    files: dict[str, Path | bytes] = {name: raw.read(name) for name in raw.manifest["files"]}
    return write_bundle(target, files, changed, folder / "keys" / "signing.key")
