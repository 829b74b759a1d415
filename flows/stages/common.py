"""What every stage shares: progress lines with their time, outputs that appear whole or not at all,
metrics."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.interrupt import interruptible
from market.errors import ScalperError

RAW = Path("data/raw")
RECORDING = Path("data/recording")
FEATURES = Path("data/features")
LABELS = Path("data/labels")
BLOCKS = LABELS / "blocks.json"
MODELS = Path("artifacts/models")
ENSEMBLE = Path("artifacts/ensemble")
EXPORTED = Path("artifacts/exported")
CALIBRATION = Path("artifacts/calibration")
LOGP = CALIBRATION / "logp.npz"
BACKTEST = Path("artifacts/backtest")
DRIFT = Path("artifacts/drift")
BUNDLE = Path("artifacts/bundle")
CARD = Path("artifacts/card")
METRICS = Path("artifacts/metrics")
LEARNERS = ("gbdt", "svm", "lstm", "transformer")

Say = Callable[[str], None]


def run(name: str, work: Callable[[Say], None]) -> None:
    """Run a stage as a program: timed progress lines, one line and status 2 for an expected failure."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"    [{name} {time.monotonic() - begun:5.1f} s] {text}", flush=True)

    with interruptible():
        try:
            work(say)
        except ScalperError as error:
            print(f"    [{name}] {error}", file=sys.stderr, flush=True)
            raise SystemExit(error.exit_code) from None
        except OSError as error:
            # A full disk is an expected failure; the half-made folder is gone already (see `whole`).
            print(
                f"    [{name}] {error.strerror or error} ({error.filename or 'no file named'})",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
    say("done")


@contextmanager
def whole(final: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of ``final`` only when the block ends without an error.

    It lies beside ``final`` so that the rename stays on one file system, and ``final`` steps aside by a
    rename, too: a process that is killed leaves no part of it under its name.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    draft, aside = _beside(final)
    tidy(final)
    draft.mkdir()
    try:
        yield draft
        if final.exists():
            final.rename(aside)
        draft.rename(final)
    finally:
        tidy(final)


def tidy(final: Path) -> None:
    """Remove what a killed ``whole`` left beside ``final``, which comes back where nothing took its place."""
    draft, aside = _beside(final)
    if aside.exists() and not final.exists():
        aside.rename(final)
    for left in (draft, aside):
        shutil.rmtree(left, ignore_errors=True)


def _beside(final: Path) -> tuple[Path, Path]:
    return final.with_name(f".{final.name}.draft"), final.with_name(f".{final.name}.old")


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON, written to a temporary name and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """The JSON of an earlier stage; raises ScalperError when that stage has not been run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScalperError(
            f"{path} is missing: run dvc repro (the stage that writes it has not run)"
        ) from None


def write_metrics(stage: str, metrics: dict[str, Any]) -> None:
    """``artifacts/metrics/<stage>.json``: results only, no times, so that the same inputs give the same
    file."""
    write_json(METRICS / f"{stage}.json", metrics)


def blocks() -> dict[str, tuple[int, int]]:
    """The time blocks of the split: name to (from_ns, to_ns)."""
    return {name: (int(start), int(end)) for name, start, end in read_json(BLOCKS)["blocks"]}
