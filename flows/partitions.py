"""Partitions: files of one instrument's day that are taken over as they are while nothing that made them has
changed.

Beside ``<day>.npz`` lies ``<day>.json``: the hash of what went in (recorded days, code, libraries, settings),
the hash of what came out, and what the stage tells of it. A new day of a recording so costs one day, and a
stage that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from market.recording import Recording

PROJECT = Path(__file__).resolve().parents[1]
DRAFT = ".part"
"""How the name of a file ends that is being written."""
T = TypeVar("T")


def maker(code: Sequence[str], libraries: Sequence[str], *more: str) -> str:
    """SHA-256 (hex) of Python files (or all of a folder's), of versions of libraries, and of ``more``."""
    total = hashlib.sha256()
    for text in more:
        total.update(f"{text}\n".encode())
    for name in code:
        found = PROJECT / name
        for path in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
            total.update(f"{path.relative_to(PROJECT).as_posix()}\0{sha256(path)}\n".encode())
    for name in libraries:
        total.update(f"{name}=={importlib.metadata.version(name)}\n".encode())
    return total.hexdigest()


def inputs(made_by: str, recording: Recording, day: str, *tickers: str, **more: Any) -> str:
    """SHA-256 (hex) of what a partition is made of: ``maker``, the recorded files of ``day``, what is said of
    the instruments, and ``more`` as JSON."""
    total = hashlib.sha256(made_by.encode())
    for ticker in tickers:
        said = json.dumps(recording.info.instrument(ticker).to_dict(), sort_keys=True)
        total.update(f"{ticker}\0{said}\n".encode())
        for name in sorted(recording.info.files(ticker, day)):
            total.update(f"{Path(name).name}\0{sha256(recording.path / name)}\n".encode())
    if more:
        total.update(json.dumps(more, sort_keys=True).encode())
    return total.hexdigest()


def intact(path: Path, made_of: str) -> dict[str, Any] | None:
    """What was told of the partition ``path``, if both are what they were and it came of ``made_of``."""
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        same = told.pop("inputs") == made_of and told.pop("sha256") == sha256(path)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return told if same else None


def kept(target: Path, made_of: str, earlier: Iterable[Path], as_told: Callable[..., T]) -> T | None:
    """``as_told`` of what was told of the partition ``target``, which is there already or is taken over from
    the first intact one of ``earlier``; None where it has to be made."""
    for found in (target, *earlier):
        told = intact(found, made_of)
        if told is None:
            continue
        try:
            made = as_told(**told)
        except TypeError:  # other facts than are told today
            continue
        if found != target:
            take_over(found, target)
            note(target, made_of, told)
        return made
    return None


def note(target: Path, made_of: str, told: dict[str, Any]) -> None:
    """Say beside ``target``, which is complete, what it came of."""
    path = target.with_suffix(".json")
    said = {**told, "inputs": made_of, "sha256": sha256(target)}
    with draft_of(path) as draft:
        draft.write_text(json.dumps(said, sort_keys=True) + "\n", encoding="utf-8")


def take_over(found: Path, target: Path) -> None:
    """A second name for the same file; where the file system has none, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(target) as draft:
        try:
            os.link(found.resolve(), draft)
        except OSError:
            shutil.copyfile(found, draft)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A name of its own to write ``path`` under, for two workers may come to one part."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}{DRAFT}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def growing(final: Path) -> Iterator[Path]:
    """A folder that takes the place of ``final`` when the block ends without an error, and that otherwise
    stays beside it for the next run to go on with: each partition in it is whole or not there."""
    draft = final.with_name(f".{final.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    yield draft
    for left in draft.rglob(f"*{DRAFT}"):  # of a worker that died
        left.unlink(missing_ok=True)
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)


def forget_others(folder: Path, wanted: Iterable[tuple[str, str]]) -> None:
    """Remove what an earlier run left in ``folder`` for other days or instruments than (ticker, day)."""
    stay = {folder / ticker / f"{day}{suffix}" for ticker, day in wanted for suffix in (".npz", ".json")}
    for path in [p for p in folder.rglob("*") if p.is_file() and p not in stay]:
        path.unlink()
    for path in [p for p in folder.iterdir() if p.is_dir() and not any(p.iterdir())]:
        path.rmdir()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
