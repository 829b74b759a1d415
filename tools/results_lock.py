"""Write ``requirements/results.lock``: the pins of what computes results, out of ``platform.lock``.

It is a dependency of the stages in ``dvc.yaml``. The whole lock would be the wrong one: a new version of a
test tool is no reason to train again. Run by ``make lock``.
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.identity import LIBRARIES, PROJECT

LOCK, RESULTS = Path("requirements/platform.lock"), Path("requirements/results.lock")
HEAD = """\
# What computes the results, out of platform.lock (`make lock` writes this): a dependency of the stages in
# dvc.yaml, so that an upgrade of one of them trains again instead of passing for what another one computed.
"""


def results(lock: str) -> str:
    """The text of ``results.lock`` for the text of ``platform.lock``."""
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\n]+)", lock, re.MULTILINE))
    return HEAD + "".join(f"{name}=={pins[name]}\n" for name in LIBRARIES)


if __name__ == "__main__":
    (PROJECT / RESULTS).write_text(results((PROJECT / LOCK).read_text(encoding="utf-8")), encoding="utf-8")
