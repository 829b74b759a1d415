"""A line of minutes for tests: half an hour of market, models too small to know anything, and one thread,
since two tests run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import line, workspace
from models.bundle import Bundle

LEARNERS: dict[str, Any] = {
    "gbdt": {"rounds": 8},
    "svm": {"features": 32, "epochs": 1},
    "lstm": {"hidden": 8, "epochs": 1, "streams": 32, "yardstick_epochs": 0},
    "transformer": {"window": 8, "width": 8, "layers": 1, "heads": 2, "ff": 8, "epochs": 1,
                    "windows_per_epoch": 512, "yardstick_epochs": 0},
    "calibrate.trials": 4,
    "threads": 1,
}  # fmt: skip
PARAMS: dict[str, Any] = {**LEARNERS, "data.hours": 0.4, "data.dt_s": 0.5}


def make(folder: Path) -> Path:
    """A workspace of the tiny line with a cache and keys of its own; nothing has run in it."""
    return workspace.create(folder, overrides=PARAMS, share_cache=False, share_keys=False)


def once(factory: pytest.TempPathFactory) -> Path:
    """A workspace after its first ``dvc repro``, built by whoever needs it first and never written to: use a
    copy. The test processes of one run share it."""
    shared = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    folder, built = shared / "tiny-line", shared / "tiny-line.built"
    with (shared / "tiny-line.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)
            line.repro(make(folder))
            built.touch()
    return folder


def copy(source: Path, folder: Path) -> Path:
    """A copy to write to: links stay links, and times stay, so that nothing is stale in it."""
    shutil.copytree(source, folder, symlinks=True)
    return folder


def bundle(folder: Path) -> Bundle:
    return Bundle.load(folder / "artifacts" / "bundle", folder / "keys" / "signing.pub")


def dvc(folder: Path, *argv: str) -> str:
    """What ``dvc`` prints; it must succeed. In this process, for the command's start is most of its time."""
    from dvc.cli import main

    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        status = main(list(argv))
    assert status == 0, f"dvc {' '.join(argv)}: {said.getvalue()}"
    return said.getvalue()
