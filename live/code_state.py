"""Which code runs here: the git commit of the checkout, or the version of the installed package."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = "scalper"
GIT_TIMEOUT_S = 5.0


def code_commit(project: Path = PROJECT) -> str:
    """The commit (40 hex digits), with ``-dirty`` where files were changed since; ``scalper 1.2.3`` for an
    installation without git; empty where neither can be told.
    """
    if (project / ".git").exists():
        command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return done.stdout.strip()
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        return ""
