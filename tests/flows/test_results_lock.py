"""What ``dvc.yaml`` must say so that nothing stale passes, and a clean clone trains nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LOCK = "requirements/results.lock"
NOT_COMPUTED = {"record", "ingest", "card", "plots"}
"""Simulator and importers end in whole numbers, which no upgrade may change; pages only show results."""


def test_the_results_lock_is_what_the_platform_lock_says() -> None:
    spec = importlib.util.spec_from_file_location("results_lock", ROOT / "tools" / "results_lock.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (ROOT / LOCK).read_text() == tool.results((ROOT / "requirements" / "platform.lock").read_text())


def test_every_stage_that_computes_depends_on_it() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    without = {name for name, stage in stages.items() if LOCK not in stage["deps"]}
    assert without <= NOT_COMPUTED, f"without {LOCK}: {sorted(without - NOT_COMPUTED)}"


def test_every_output_travels_with_dvc_push() -> None:
    # artifacts/ is not in git: an output that DVC does not keep either is missing in a clean clone, and its
    # stage, with everything behind it, runs again there.
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            # `persist` alone says what a stage finds when it begins, nothing about where the output goes.
            kept = isinstance(out, str) or [*out.values()] == [{"persist": True}]
            assert kept, f"stage {name}: {out} is not simply kept by DVC"
