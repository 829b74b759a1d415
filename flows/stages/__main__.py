"""``python -m flows.stages NAME...``: these stages one after another in one process.

Half the time of a small line is the start of a process a stage. DVC needs them apart, the line without DVC
does not; that one stage leaves nothing for the next is a test (tests/flows/test_the_line.py).
"""

from __future__ import annotations

import importlib
import sys

from flows.plain_line import MARK
from flows.stages.common import run


def main(names: list[str]) -> None:
    for name in names:
        print(f"{MARK}{name}", flush=True)
        run(name, importlib.import_module(f"flows.stages.{name}").main)


if __name__ == "__main__":
    main(sys.argv[1:])
