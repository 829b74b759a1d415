"""Fetching a bundle in a short-lived child process: ``python -m live.fetch_child`` reads a request on stdin.

Network, decompression and a foreign model file happen there. A registry that hangs, a download that eats
memory or a model that crashes its interpreter ends the child, and the runner goes on with what it has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from market.errors import RegistryError, ScalperError

TIMEOUT_S = 300.0
MAX_SAID = 2_000


@dataclass(frozen=True, slots=True)
class Request:
    """``try_models``: also load every model there and replay the golden rows."""

    uri: str
    model: str
    alias: str
    dest: str
    again: bool = False
    try_models: bool = False


def pull_in_child(request: Request, *, timeout_s: float = TIMEOUT_S) -> Any:
    """``live.registry.pull`` in a child. Blocking: call it in a thread. Raises RegistryError."""
    from live.registry import PulledBundle

    command = [sys.executable, "-m", "live.fetch_child"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(request)), capture_output=True, text=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RegistryError(
            f"fetching {request.model} {request.alias} from the registry took over {timeout_s:g} s"
        ) from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip()[-MAX_SAID:] or "nothing"
        raise RegistryError(
            f"the child that fetched {request.model} {request.alias} ended with status {done.returncode}; "
            f"it said: {said}"
        ) from None
    if "error" in answer:
        raise RegistryError(answer["error"])
    return PulledBundle(**{**answer, "path": Path(answer["path"])})


def main() -> int:
    from live.registry import pull

    request = Request(**json.load(sys.stdin))
    try:
        found = pull(request.uri, request.model, request.alias, Path(request.dest), again=request.again)
        if request.try_models:
            from models.bundle import Bundle
            from models.inference import check_golden

            check_golden(Bundle.load(found.path, None))
        answer: dict[str, Any] = {**asdict(found), "path": str(found.path)}
    except ScalperError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
