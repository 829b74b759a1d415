"""Disaster recovery: time-stamped copies of the runtime folder, and the way back from one.

A copy is a folder of its own, ``snapshot-<UTC time>``, written beside its name and renamed when it is whole,
with the size and SHA-256 of every file. SQLite databases are copied through SQLite's backup API, so a copy
taken in the middle of a transaction is one state of the database. Files that have not changed since the
copy before (old journals, bundles) are linked to it and cost nothing. The pulled bundles come along, because
without its model a session cannot be replayed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from market.errors import ScalperError
from market.types import SECOND_NS

FORMAT = 1
MANIFEST = "snapshot.json"
PREFIX, PART = "snapshot-", ".part-"
DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
FIRST = "checkpoint.json"
"""Copied before anything else: the journal, copied later, then reaches at least as far as the checkpoint."""
WHOLE = "models"
"""Folder of the pulled bundles: copied as it is, whatever the masks say."""
LEFT_OUT = ("paper",)
"""The embedded exchange's own folder: its account and its certificates end with its process."""
CHUNK = 1 << 20


class RecoveryError(ScalperError):
    """A copy cannot be made, or is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class Copied:
    """One file of a copy; ``path`` is relative to the runtime folder."""

    path: str
    size: int
    sha256: str
    mtime_ns: int
    """Of the original, to see whether it changed since; 0 for a database, which is always copied."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One whole copy."""

    path: Path
    taken_wall_ns: int
    files: tuple[Copied, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def describe(self) -> str:
        when = datetime.fromtimestamp(self.taken_wall_ns / SECOND_NS, UTC)
        return (
            f"{self.path.name}: {when:%Y-%m-%d %H:%M:%S} UTC, {len(self.files)} files, "
            f"{self.size / 1e6:.1f} MB"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Where from, where to, what. ``database``: copied even if it lies outside ``source``."""

    source: Path
    target: Path
    patterns: tuple[str, ...]
    max_snapshots: int
    database: Path | None = None


def take(plan: Plan, *, between: Callable[[], None] = lambda: None) -> Snapshot:
    """Makes a copy and removes the oldest beyond ``max_snapshots``. Raises RecoveryError.

    ``between`` is called when the checkpoint and the databases are copied and before the journals are: a
    running session flushes its journal there.
    """
    now_ns = time.time_ns()
    stamp = datetime.fromtimestamp(now_ns / SECOND_NS, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    part, final = plan.target / f"{PART}{stamp}", plan.target / f"{PREFIX}{stamp}"
    try:
        part.mkdir(parents=True)
        before = _latest_or_none(plan.target)
        known = {file.path: file for file in before.files} if before else {}
        copied: list[Copied] = []
        told = False
        for name, path in _wanted(plan):
            if not told and name != FIRST and not _is_database(path):
                between()
                told = True
            one = _copy_one(path, part / name, name, known.get(name), before)
            if one is not None:
                copied.append(one)
        _write_manifest(part, now_ns, plan.source, copied)
        part.replace(final)
        _sync(plan.target)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RecoveryError(
            f"no copy of {plan.source} could be made in {plan.target}: {error}; look at the disk and the "
            "rights, or set disaster_recovery.replication_path"
        ) from None
    _prune(plan.target, plan.max_snapshots)
    return Snapshot(final, now_ns, tuple(copied))


def snapshots(target: Path) -> list[Path]:
    """The whole copies in ``target``, oldest first."""
    if not target.is_dir():
        return []
    return sorted(p for p in target.iterdir() if p.name.startswith(PREFIX) and (p / MANIFEST).is_file())


def load(path: Path) -> Snapshot:
    """The copy in ``path`` by its manifest; its files are not looked at. Raises RecoveryError."""
    try:
        document = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        body = document["body"]
        if document["format"] != FORMAT or _digest(body) != document["sha256"]:
            raise ValueError("its checksum does not fit")
        files = tuple(Copied(**file) for file in body["files"])
        return Snapshot(path, int(body["taken_wall_ns"]), files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecoveryError(f"{path / MANIFEST} cannot be trusted: {error}; take an older copy") from None


def check(snapshot: Snapshot) -> None:
    """Every file is there with the size and SHA-256 of the manifest. Raises RecoveryError naming the first
    that is not.
    """
    for file in snapshot.files:
        path = snapshot.path / _safe(file.path)
        try:
            size, sha256 = path.stat().st_size, _sha256(path)
        except OSError as error:
            raise RecoveryError(f"{snapshot.path.name} lacks {file.path}: {error.strerror}") from None
        if (size, sha256) != (file.size, file.sha256):
            raise RecoveryError(
                f"{snapshot.path.name}: {file.path} is not what was copied (SHA-256 {sha256[:12]}, the "
                f"manifest says {file.sha256[:12]}); take an older copy"
            )


def restore(snapshot: Snapshot, into: Path) -> None:
    """Puts the copy into an empty folder, every file checked on the way. Raises RecoveryError."""
    if into.exists() and any(into.iterdir()):
        raise RecoveryError(f"{into} is not empty; restore into a new folder, look at it, then exchange them")
    check(snapshot)
    for file in snapshot.files:
        source, target = snapshot.path / _safe(file.path), into / _safe(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        if _sha256(target) != file.sha256:
            raise RecoveryError(f"{target} could not be written as it is in the copy; look at the disk")


# ---- what is copied


def _wanted(plan: Plan) -> Iterable[tuple[str, Path]]:
    """(name in the copy, file): the checkpoint, then databases, then the rest."""
    found: dict[str, Path] = {}
    target = plan.target.resolve()
    for folder, names, files in os.walk(plan.source):
        here = Path(folder)
        relative = here.relative_to(plan.source)
        names[:] = sorted(
            n for n in names
            if not n.startswith(".") and str(relative / n) not in LEFT_OUT and (here / n).resolve() != target
        )  # fmt: skip
        whole = relative.parts[:1] == (WHOLE,)
        for name in sorted(files):
            if name.endswith(".part") or (here / name).is_symlink():
                continue
            if whole or any(fnmatch(name, mask) for mask in plan.patterns):
                found[(relative / name).as_posix()] = here / name
    if plan.database is not None and plan.database.exists():
        resolved = {path.resolve() for path in found.values()}
        if plan.database.resolve() not in resolved:
            found.setdefault(plan.database.name, plan.database)
    order = sorted(found, key=lambda n: (n != FIRST, not _is_database(found[n]), n))
    return [(name, found[name]) for name in order]


def _is_database(path: Path) -> bool:
    return path.suffix in DATABASE_SUFFIXES


def _copy_one(
    source: Path, target: Path, name: str, known: Copied | None, before: Snapshot | None
) -> Copied | None:
    """None for a file that went meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_database(source):
        _copy_database(source, target)
        return Copied(name, target.stat().st_size, _sha256(target), 0)
    try:
        stat = source.stat()
        if known is not None and before is not None and (known.size, known.mtime_ns) == (
            stat.st_size, stat.st_mtime_ns,
        ):  # fmt: skip
            try:
                os.link(before.path / name, target)
                return known
            except OSError:
                pass  # another file system, or one without links: copied like the others
        sha256, size = _copy_file(source, target)
    except FileNotFoundError:
        return None
    return Copied(name, size, sha256, stat.st_mtime_ns)


def _copy_file(source: Path, target: Path) -> tuple[str, int]:
    """(SHA-256, size) of what was copied; a file that grows meanwhile is copied up to some point."""
    digest, size = hashlib.sha256(), 0
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while block := reading.read(CHUNK):
            digest.update(block)
            writing.write(block)
            size += len(block)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest(), size


def _copy_database(source: Path, target: Path) -> None:
    reading = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=10)
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")
    finally:
        writing.close()
        reading.close()


# ---- the target folder


def _write_manifest(folder: Path, now_ns: int, source: Path, copied: Sequence[Copied]) -> None:
    body = {"taken_wall_ns": now_ns, "source": source.name, "files": [asdict(file) for file in copied]}
    document = {"format": FORMAT, "sha256": _digest(body), "body": body}
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _prune(target: Path, keep: int) -> None:
    """The oldest whole copies go, and what killed processes left."""
    for old in snapshots(target)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for left in target.glob(f"{PART}*"):
        shutil.rmtree(left, ignore_errors=True)


def _latest_or_none(target: Path) -> Snapshot | None:
    found = snapshots(target)
    try:
        return load(found[-1]) if found else None
    except RecoveryError:
        return None


def _safe(name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise RecoveryError(f"the manifest names {name!r}, which leaves the folder; this is not our copy")
    return Path(path)


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
