"""Workspaces: the same line on other data, without touching the project's own parameters or results.

A workspace is a folder laid out like the project: its own ``params.yaml``, ``dvc.lock``, ``data/``,
``artifacts/`` and ``runtime/``; the code folders and ``keys/`` are links to the project's. It shares the
project's DVC cache, so that models and all that follows from them are not trained twice from the same inputs.
Recordings, features and labels are: their stages keep their outputs to add a day to (``persist``), and for
those DVC looks up no earlier run. Each folder computes them once; the bytes are the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flows import params as params_file
from flows.identity import PROJECT
from flows.line import environment
from market.errors import ConfigError, RecordingError, ScalperError

WORKSPACES = Path("runtime/workspaces")
LINKED = ("market", "features", "models", "live", "flows", "requirements")
KEYS = "keys"
SOURCE = "source"
"""The link through which a workspace sees its recording: DVC hashes what lies behind it, and no path of this
machine gets into the parameters."""

FOR_RECORDINGS: Mapping[str, Any] = {"labels.horizon_s": 60.0, "gate": {}}
"""What differs by default from the simulated market's parameters: at a broker's commission hardly any move of
ten seconds earns its costs (2 in 10,000 in the MOEX RTS sample), and what the project relaxes in the gate for
its simulated market is not relaxed for a real one."""


def create(
    folder: Path,
    *,
    source: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    project: Path = PROJECT,
    params: Path | None = None,
    share_cache: bool = True,
    share_keys: bool = True,
    dvc: bool = True,
) -> Path:
    """Make (or bring up to date) the workspace ``folder``; returns its absolute path.

    ``source`` is a recording in any form that the importers know; without it the workspace uses the simulated
    market. ``overrides`` are dotted keys of ``params.yaml``: ``{"labels.horizon_s": 30}``. What an earlier
    call computed in the folder stays, and ``dvc repro`` finds out what of it is stale. ``params``: start from
    this file instead of the project's (its values stand, and nothing is assumed about recordings). ``dvc``
    False: only parameters, source and keys, for a line that runs without DVC (``flows.plain_line``).
    """
    folder = folder.resolve()
    if folder == project:
        raise ConfigError(f"{folder} is the project itself, not a place for a workspace")
    values = dict(overrides or {})
    if source is not None:
        source = _existing(source)
        assumed = FOR_RECORDINGS if params is None else {}
        values = {"data.source": params_file.RECORDED, "data.path": SOURCE, **assumed, **values}
    text = with_overrides(params or project / params_file.PARAMS, values)

    folder.mkdir(parents=True, exist_ok=True)
    _link_source(folder / SOURCE, source)
    for name in LINKED if dvc else ():
        _link(folder / name, project / name)
    if share_keys:
        (project / KEYS).mkdir(mode=0o700, exist_ok=True)
        _link(folder / KEYS, project / KEYS)
    (folder / params_file.PARAMS).write_text(text, encoding="utf-8")
    if not dvc:
        return folder
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copyfile(project / name, folder / name)
    _init_dvc(folder, project / ".dvc" / "cache" if share_cache else None, project)
    return folder


def name_for(source: Path) -> str:
    """A workspace's name from the recording's: letters, digits and dashes."""
    stem = source.resolve().name.split(".")[0] if source.is_file() else source.resolve().name
    return "".join(c if c.isalnum() else "-" for c in stem).strip("-").lower() or "recording"


def _existing(source: Path) -> Path:
    absolute = source.expanduser().resolve()
    if not absolute.exists():
        raise RecordingError(f"no recording at {source} (looked at {absolute}): check the path")
    return absolute


def _link_source(link: Path, source: Path | None) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)  # a folder of links, made below
    if source is None:
        return
    if source.is_dir():
        link.symlink_to(source)
        return
    # One file of several that belong together (books and trades): all that share its name up to two suffixes.
    stem = source.name.rsplit(".", 2)[0]
    link.mkdir()
    for part in sorted(p for p in source.parent.iterdir() if p.is_file() and p.name.startswith(f"{stem}.")):
        (link / part.name).symlink_to(part)


def with_overrides(path: Path, overrides: Mapping[str, Any]) -> str:
    """The text of ``params.yaml`` with dotted keys replaced, checked. ConfigError names an unknown key."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                raise ConfigError(
                    f"params.yaml has no section {parent!r} (from the override {dotted}={value})"
                )
            node = node[parent]
        if last not in node:
            known = ", ".join(sorted(node))
            raise ConfigError(f"params.yaml has no key {dotted!r}; known there: {known}")
        node[last] = value
    params_file.parse(tree, where="params.yaml with the overrides")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise ConfigError(f"{link} exists and is not a link: choose another folder for the workspace")
    link.symlink_to(target)


def _init_dvc(folder: Path, cache: Path | None, project: Path) -> None:
    if not (folder / ".dvc").is_dir():
        made = subprocess.run(
            [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet", "--force"],
            cwd=folder, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            raise ScalperError(f"dvc init failed in {folder}: {made.stderr.strip() or made.stdout.strip()}")
    config = (project / ".dvc" / "config").read_text(encoding="utf-8")
    config = config.replace("[core]\n", "[core]\n    no_scm = true\n", 1)
    if cache is not None:
        config += f"[cache]\n    dir = {cache}\n"
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")
