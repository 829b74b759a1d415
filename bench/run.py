"""``make bench``: run every ``bench/bench_*.py`` in a process of its own and pass its lines on.

One process each, so that the imports and caches of one measurement do not colour the next one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    """Run all benchmarks, or those whose file names contain one of ``names``; 1 if any of them failed."""
    files = sorted(p for p in HERE.glob("bench_*.py") if not names or any(name in p.name for name in names))
    if not files:
        print(f"no benchmark matches {' '.join(names) or 'bench_*.py'} in {HERE.name}/", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    failed = [path.name for path in files if not _run(path)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(path: Path) -> bool:
    print(f"\n{path.stem.removeprefix('bench_')}", flush=True)
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run([sys.executable, str(path)], env=env, cwd=HERE.parent, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
