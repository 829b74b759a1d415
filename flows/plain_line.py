"""The line without DVC: the very stages of ``dvc.yaml``, in the order of their files, all in one process.

There is no second pipeline: a stage that is added to ``dvc.yaml`` runs here, too, and a bundle made here has
the hash that ``dvc repro`` gives it on the same data and parameters.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.identity import PROJECT
from flows.line import NOISE, LineError, run
from market.errors import ConfigError

TAIL_LINES = 5
MARK = "==> "
"""Begins the line with which a stage begins."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as ``dvc.yaml`` has it: files in, files out, and the parameters that shape it."""

    name: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...]


def stages(project: Path = PROJECT) -> list[Stage]:
    """All stages, each after those whose files it reads."""
    tree = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found = [
        Stage(
            name,
            tuple(spec.get("deps", ())),
            tuple(_names(spec.get("outs", ())) + _names(spec.get("metrics", ()))),
            tuple(str(key) for key in spec.get("params", ())),
        )
        for name, spec in tree.items()
    ]
    ordered: list[Stage] = []
    while found:
        ready = [s for s in found if not any(reads(s, other) for other in found if other is not s)]
        if not ready:
            raise ConfigError(f"dvc.yaml: {', '.join(s.name for s in found)} wait for each other")
        ordered += ready
        found = [s for s in found if s not in ready]
    return ordered


def _names(entries: Sequence[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries]


def reads(stage: Stage, other: Stage) -> bool:
    """Whether ``stage`` reads something that ``other`` writes: the same path, or one inside the other."""
    return any(
        dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
        for dep in stage.deps
        for out in other.outs
    )


def needed_from(ordered: Sequence[Stage], first: str) -> list[Stage]:
    """The stage ``first`` and everything that reads what it leaves, directly or not."""
    chosen = [stage for stage in ordered if stage.name == first]
    for stage in ordered:
        if stage not in chosen and any(reads(stage, before) for before in chosen):
            chosen.append(stage)
    return chosen


def run_stages(
    workdir: Path, chosen: Sequence[Stage], say: Callable[[str], None], *, project: Path = PROJECT
) -> None:
    """Run the stages in ``workdir``, one after another in one process of their own; LineError with a stage's
    last words when it fails."""
    begun = time.monotonic()
    # Through PYTHONPATH, since the folder has no link to the code: the code of this very checkout.
    paths = [str(project), *filter(None, [os.environ.get("PYTHONPATH")])]
    names = [stage.name for stage in chosen]
    at_work = ""
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def pass_on(text: str) -> None:
        nonlocal at_work
        if text.startswith(MARK):
            at_work = text.removeprefix(MARK).strip()
            tail.clear()
            number, seconds = names.index(at_work) + 1, time.monotonic() - begun
            say(f"{number} of {len(names)}  {at_work}  ({seconds:.0f} s so far)")
        elif text.strip() and not text.startswith(NOISE):
            tail.append(text.strip())
            say(text)

    status = run(
        [sys.executable, "-m", "flows.stages", *names],
        cwd=workdir, env={"PYTHONPATH": os.pathsep.join(paths)}, on_line=pass_on,
    )  # fmt: skip
    if status != 0:
        why = tail[-1] if tail else "it said nothing"
        raise LineError(f"stage {at_work or names[0]} failed with status {status}: {why}")


def at(params: Mapping[str, Any], dotted: str) -> Any:
    """The value of a dotted key; None where there is none."""
    node: Any = params
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], kept: Sequence[Stage]
) -> list[tuple[str, str, Any, Any]]:
    """Parameters of the stages in ``kept`` that are no longer what they were, section by section down to the
    key: (stage, key, before, now)."""
    return [
        (stage.name, *found)
        for stage in kept
        for key in stage.params
        for found in _unequal(key, at(before, key), at(now, key))
    ]


def _unequal(key: str, before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    if before == now:
        return []
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        inner = sorted({*before, *now})
        return [found for k in inner for found in _unequal(f"{key}.{k}", before.get(k), now.get(k))]
    return [(key, before, now)]
