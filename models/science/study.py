"""All recordings one after the other, each printed as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from market.errors import ConfigError
from models.science import report, run
from models.science.datasets import Say, Source, load


def study(
    sources: Iterable[Source], folder: Path, *, quick: bool, seed: int, say: Say
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The result so far as plain data, after each recording. ConfigError when none is in ``folder``."""
    began = time.monotonic()
    plan = run.quick(seed) if quick else run.Plan(seed=seed)
    say(f"protocol: {report.PROTOCOL}")
    told: list[dict[str, Any]] = []
    for source in sources:
        at = time.monotonic()
        say(f"{source.name}: reading {source.title}")
        one = load(source, folder, say)
        if one is None:
            continue
        told.append(run.study_result(one, plan, say))
        say(f"{source.name}: done in {time.monotonic() - at:.0f} s")
        for line in report.lines(told[-1]):
            say(line)
        names = " ".join(f"--only {each['name']}" for each in told)
        yield {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"), "seed": seed, "quick": quick,
            "command": f"scalper science {'--quick ' if quick else ''}{names}",
            "seconds": time.monotonic() - began, "protocol": report.PROTOCOL,
            "published": run.PUBLISHED, "bar": run.BAR, "datasets": list(told),
        }  # fmt: skip
    if not told:
        raise ConfigError(f"none of the recordings is in {folder}: nothing was studied")
