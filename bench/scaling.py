"""What a Dask cluster costs and gives: partitions of features a second on 1, 2 and 4 workers, the overhead of
a part, memory, and what a killed worker costs. The digests of all runs must agree (docs/scaling.md).

Run from the project's root: ``python bench/scaling.py``. It starts Prefect and clusters, so ``bench/run.py``
leaves it out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from flows import compute, compute_features
from flows.compute import Here, Pool
from flows.compute_features import Part
from flows.params import ComputeParams
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording

DAYS = [f"2026-01-{day:02d}" for day in (12, 13, 14, 15, 16, 19)]
EMPTY = 32


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.npz")):
        total.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return total.hexdigest()


def nothing(number: int) -> int:
    return number


def workers_of_this_machine() -> list[psutil.Process]:
    """Dask's worker processes: children of the nannies, which live in this process."""
    spawned = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    return sorted(spawned, key=lambda p: p.memory_info().rss)


def kill_one(folder: Path) -> None:
    """Kill a worker as soon as the first partition is there."""
    while not list(folder.rglob("*.npz")):
        time.sleep(0.05)
    os.kill(workers_of_this_machine()[-1].pid, signal.SIGKILL)


def measured(name: str, parts: Callable[[str], list[Part]], workers: int, *, kill: bool = False) -> str:
    begun = time.perf_counter()
    asked = parts(name)
    into = Path(asked[0].into)

    def body(pool: Pool) -> str:
        up = time.perf_counter()
        list(pool.map(nothing, range(workers), "first"))
        ready = time.perf_counter()
        list(pool.map(nothing, range(EMPTY), "empty"))
        empty_s = (time.perf_counter() - ready) / EMPTY
        killer = threading.Thread(target=kill_one, args=(into,), daemon=True)
        if kill:
            killer.start()
        at = time.perf_counter()
        list(pool.map(compute_features.build, asked))
        took = time.perf_counter() - at
        memory = workers_of_this_machine()[-1].memory_info().rss / 1e6
        return (
            f"{took:6.1f} s, {len(asked) / took:5.2f} parts/s; start {up - begun:.1f} s, first parts "
            f"{ready - up:.1f} s, {1000 * empty_s:.0f} ms an empty part, {memory:.0f} MB the largest worker"
        )

    return compute.run("bench", ComputeParams("dask", "", workers), body)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--hours", type=float, default=1.0, help="of each instrument's day (default 1)")
    asked.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        root = Path(name)
        specs = (SimSpec("SIMP", "SMALL", planted=True), SimSpec("SIMA", "SMALL"))
        recording, _ = simulate_recording(root / "recording", specs, hours=given.hours, day=DAYS)

        def parts(into: str) -> list[Part]:
            return compute_features.parts(Recording.open(recording.path), {}, root / "none", root / into)

        compute_features.build(parts("warm")[0])
        at, busy = time.perf_counter(), time.process_time()
        made = [m for m, _ in Here().map(compute_features.build, parts("local"))]
        took, worked = time.perf_counter() - at, time.process_time() - busy
        rows, wanted = sum(m.rows for m in made), digest(root / "local")
        print(
            f"local    {took:6.1f} s, {len(made) / took:5.2f} parts/s; {rows:,} rows in {len(made)} parts, "
            f"{worked / len(made):.2f} CPU seconds each; {psutil.Process().memory_info().rss / 1e6:.0f} MB",
            flush=True,
        )
        runs = [(f"dask x{n}", n, False) for n in given.workers] + [("dask x2, one killed", 2, True)]
        for title, workers, kill in runs:
            into = title.replace(" ", "-")
            said = measured(into, parts, workers, kill=kill)
            same = "the same bytes" if digest(root / into) == wanted else "OTHER BYTES"
            print(f"{title:<8} {said}; {same}", flush=True)


if __name__ == "__main__":
    main()
