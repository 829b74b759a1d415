"""The few tests that the last run failed, once more with nothing beside them.

Tests of real servers and processes live on clocks, and a machine that stands still for seconds can fail one
of them. A fault fails again; what fails in company and passes alone passes here, and is named, so that
somebody looks at it. More than ``FEW`` failures are no stall and are not tried again. The exit code is that
of the second run, or 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FEW = 4
FAILED = Path(__file__).resolve().parents[1] / ".pytest_cache" / "v" / "cache" / "lastfailed"


def main() -> int:
    try:
        names = sorted(json.loads(FAILED.read_text()))
    except (OSError, ValueError) as error:
        print(f"what failed is not known ({error})", file=sys.stderr)
        return 1
    if not 0 < len(names) <= FEW:
        print(f"{len(names)} tests failed: not tried again (at most {FEW} are)", file=sys.stderr)
        return 1
    print(f"\n==> a second look at {len(names)} failed test(s), with nothing beside them", flush=True)
    code = subprocess.call([sys.executable, "-m", "pytest", "-q", *names], cwd=FAILED.parents[3])
    if code == 0:
        print("==> FAILED IN COMPANY, PASSED ALONE (a race of the test or of the product: look at it):")
        print(*(f"    {name}" for name in names), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
