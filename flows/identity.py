"""Who made this: hashes of code, lock, data and parameters, versions of what computed them, the state of git.

What goes into the manifest depends on inputs alone; what depends on this checkout (git, ``dvc.lock``) goes to
the registry as tags.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
LINE_CODE = ("market", "features", "models", "flows/stages")
"""The folders whose Python shapes a bundle."""
LIBRARIES = (
    "numpy", "numba", "lightgbm", "scikit-learn", "torch", "tensorflow", "optuna", "ai-edge-litert",
)  # fmt: skip
GIT_TIMEOUT_S = 30


def code_hash(project: Path = PROJECT) -> str:
    """SHA-256 (hex) over names and contents of the Python files of the line, wherever the project lies."""
    total = hashlib.sha256()
    for folder in LINE_CODE:
        for path in sorted((project / folder).rglob("*.py")):
            name = path.relative_to(project).as_posix()
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Python's and the computing libraries' versions; a build's local suffix (``+cpu``) is left out."""
    out = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in LIBRARIES:
        out[name] = importlib.metadata.version(name).split("+")[0]
    return out


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def value_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def git_state(project: Path = PROJECT) -> dict[str, str]:
    """``git.commit`` and ``git.dirty`` (``true``, ``false`` or ``unknown`` outside git).

    ``dvc.lock`` does not count as dirt: the line writes it, and its hash is a tag of its own.
    """
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return {"git.commit": "", "git.dirty": "unknown"}
    changed = _git(project, "status", "--porcelain", "--", ".", ":!dvc.lock")
    return {"git.commit": commit, "git.dirty": "unknown" if changed is None else str(bool(changed)).lower()}


def _git(project: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *args], cwd=project, capture_output=True, text=True, check=False, timeout=GIT_TIMEOUT_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
