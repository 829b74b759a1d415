"""``scalper backup``: everything that cannot be computed again, consistent while work goes on.

A snapshot is a list of files with their hashes; the contents lie once in ``objects/``, however many snapshots
name them, so a nightly backup costs what changed. Contents and lists are encrypted and authenticated with a
Fernet key that never lies beside them.

What is in it: the registry (database by SQLite's backup API, ``promotions.jsonl`` under its own lock, so that
both tell the same story; then the artifacts, which are only ever added), Prefect's database, the DVC remote
(or, without one, DVC's cache), the runner's databases, checkpoints and journals, configuration, public keys.
What is not: private keys, tokens, ``.env``.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from cryptography.fernet import Fernet, InvalidToken

from flows.held import held
from live.secrets import KeyManager
from market.errors import ConfigError, ScalperError

FOLDER = Path("runtime/backups")
KEY = Path("keys/backup.key")
CHUNK = 1 << 20
"""Plain bytes in one encrypted piece: what a backup holds in memory."""
CONFIG = ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", "mlflow/*", "*.yaml", "config/*.yaml")
RUNNER = ("*.db", "*.json", "*.jsonl", "*.flag", "*.log")
"""Below ``runtime/``: what the runner needs to go on, and its audit."""
NOT_RUNNER = ("backups", "mlflow", "prefect", "platform", "workspaces", "models")
"""Folders of ``runtime/`` that are taken elsewhere or can be fetched again."""
FORMAT = 1


class BackupError(ScalperError):
    """A backup cannot be written or read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its place relative to the folder that was backed up, hash and size of its plain content."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        size = sum(entry.bytes for entry in self.entries) / 1e6
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.name}: {len(self.entries)} files, {size:.1f} MB{notes}"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of backups and the key that opens them."""

    folder: Path
    key: bytes

    @classmethod
    def of(cls, workdir: Path, folder: Path | None, key: Path | None, *, make_key: bool = True) -> Place:
        """The place that a command means. The key is made once, and only for writing."""
        path = key or workdir / KEY
        if not path.exists() and key is None and make_key:
            KeyManager.generate(path)
        KeyManager.load(path)  # one clear error for a missing key, or one that others can read
        return cls(folder or workdir / FOLDER, path.read_bytes().strip())

    @property
    def fernet(self) -> Fernet:
        return Fernet(self.key)

    def object(self, sha256: str) -> Path:
        """Where a content lies. The name is keyed too: a hash alone would tell which files are in here."""
        name = hmac.new(self.key, sha256.encode(), "sha256").hexdigest()
        return self.folder / "objects" / name[:2] / name

    def snapshot(self, name: str) -> Path:
        return self.folder / "snapshots" / f"{name}.snapshot"


def create(workdir: Path, place: Place, *, keep: int = 14, now: datetime | None = None) -> Snapshot:
    """Make a snapshot of ``workdir`` and drop the oldest beyond ``keep``. Nothing half-made is listed."""
    if keep < 1:
        raise ConfigError(f"--keep {keep}: at least one snapshot stays")
    workdir = workdir.resolve()
    entries: list[Entry] = []
    notes: list[str] = []
    try:
        with _locked(place), tempfile.TemporaryDirectory(dir=place.folder, prefix=".work-") as scratch:
            for path, source in _databases(workdir, Path(scratch)):
                entries.append(_store(place, path, source))
            for path, source in _files(workdir, notes):
                try:
                    entries.append(_store(place, path, source))
                except FileNotFoundError:
                    continue  # removed since it was listed: it was not to be kept
            if not entries:
                raise BackupError(f"{workdir} holds nothing to back up: is it the project or a workspace?")
            name = f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            snapshot = Snapshot(name, tuple(entries), tuple(notes))
            _write_snapshot(place, snapshot)
            _prune(place, keep)
            return snapshot
    except OSError as error:
        raise BackupError(
            f"the backup in {place.folder} stopped: {error.strerror or error}; the snapshots before it are "
            "whole"
        ) from None


def snapshots(place: Place) -> list[Snapshot]:
    """All of them, oldest first."""
    return [
        read_snapshot(place, path.stem) for path in sorted((place.folder / "snapshots").glob("*.snapshot"))
    ]


def read_snapshot(place: Place, name: str) -> Snapshot:
    """A snapshot by name, or ``latest``. BackupError where there is none, or the key is another one."""
    there = sorted(path.stem for path in (place.folder / "snapshots").glob("*.snapshot"))
    if name == "latest" and there:
        name = there[-1]
    if name not in there:
        raise BackupError(f"no snapshot {name!r} in {place.folder}; there: {', '.join(there[-5:]) or 'none'}")
    try:
        body = json.loads(place.fernet.decrypt(place.snapshot(name).read_bytes()))
    except InvalidToken:
        raise BackupError(
            f"snapshot {name} cannot be opened: it was altered, or made with another key"
        ) from None
    return Snapshot(name, tuple(Entry(**entry) for entry in body["entries"]), tuple(body["notes"]))


def read_object(place: Place, entry: Entry, into: IO[bytes]) -> None:
    """Decrypt one content into ``into``; BackupError when it is missing or not what the snapshot promises."""
    digest, size = hashlib.sha256(), 0
    try:
        with place.object(entry.sha256).open("rb") as file:
            for token in file:
                piece = place.fernet.decrypt(token.strip())
                digest.update(piece)
                size += len(piece)
                into.write(piece)
    except FileNotFoundError:
        raise BackupError(f"{entry.path}: its content is missing from {place.folder}") from None
    except InvalidToken:
        raise BackupError(f"{entry.path}: its content was altered in {place.folder}") from None
    if digest.hexdigest() != entry.sha256 or size != entry.bytes:
        raise BackupError(f"{entry.path}: its content is not what was backed up (cut off or exchanged)")


# --- what is in it ----------------------------------------------------------------------------------------


def _databases(workdir: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Databases as consistent copies; the registry's together with its journal."""
    registry = workdir / "runtime" / "mlflow"
    journal = registry / "promotions.jsonl"
    with contextlib.ExitStack() as stack:
        if journal.is_file():
            # A move is a line and a pointer: with the journal locked neither can change without the other.
            file = stack.enter_context(journal.open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX)
            yield "runtime/mlflow/promotions.jsonl", _copied(journal, scratch / "journal")
        if (registry / "mlflow.db").is_file():
            yield "runtime/mlflow/mlflow.db", _sqlite_copy(registry / "mlflow.db", scratch / "mlflow.db")
    others = [workdir / "runtime" / "prefect" / "prefect.db", *_runner_files(workdir, ("*.db",))]
    for number, path in enumerate(path for path in others if path.is_file()):
        yield path.relative_to(workdir).as_posix(), _sqlite_copy(path, scratch / f"{number}.db")


def _files(workdir: Path, notes: list[str]) -> Iterator[tuple[str, Path]]:
    yield from _below(workdir, workdir / "runtime" / "mlflow" / "artifacts")
    remote, note = dvc_storage(workdir)
    if note:
        notes.append(note)
    if remote is not None:
        for _, path in _below(remote, remote):
            yield f"dvc-remote/{path.relative_to(remote).as_posix()}", path
    for path in _runner_files(workdir, tuple(mask for mask in RUNNER if mask != "*.db")):
        yield path.relative_to(workdir).as_posix(), path
    for path in sorted({p for mask in CONFIG for p in workdir.glob(mask) if p.is_file()}):
        yield path.relative_to(workdir).as_posix(), path
    for path in sorted((workdir / "keys").glob("*.pub")):
        yield f"keys/{path.name}", path


def _runner_files(workdir: Path, masks: Sequence[str]) -> list[Path]:
    root = workdir / "runtime"
    return sorted(
        path
        for mask in masks
        for path in root.rglob(mask)
        if path.is_file() and path.relative_to(root).parts[0] not in NOT_RUNNER
    )


def _below(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(root).as_posix(), path


def dvc_storage(workdir: Path) -> tuple[Path | None, str]:
    """The folder that holds DVC's files (the default remote, else the cache), and what a reader should
    know."""
    config = configparser.ConfigParser()
    base = workdir / ".dvc"
    config.read([base / "config", base / "config.local"])
    name = config.get("core", "remote", fallback="")
    if name:
        url = config.get(f"'remote \"{name}\"'", "url", fallback="")
        if "://" in url:
            return None, f"the DVC remote {name} is at {url} and keeps itself"
        folder = (base / url).resolve()
        return (
            (folder, "") if folder.is_dir() else (None, f"the DVC remote {name} is empty (dvc push fills it)")
        )
    cache = Path(config.get("cache", "dir", fallback=str(base / "cache")))
    cache = cache if cache.is_absolute() else base / cache
    note = "no DVC remote is set: DVC's cache was taken instead"
    return (cache, note) if cache.is_dir() else (None, "there is neither a DVC remote nor a cache yet")


def _sqlite_copy(source: Path, target: Path) -> Path:
    """A consistent copy of a database that others write to, by SQLite's backup API."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as reading,
            contextlib.closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied: {error}") from None
    return target


def _copied(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


# --- how it is kept ---------------------------------------------------------------------------------------


def _store(place: Place, path: str, source: Path) -> Entry:
    """Put a file's content under its hash, once. A line that is being written is left to the next
    snapshot."""
    with source.open("rb") as file:
        limit = _whole_lines(file) if path.endswith(".jsonl") else None
        return _store_stream(place, path, file, limit)


def _whole_lines(file: IO[bytes]) -> int:
    """How many bytes of the file end with a whole line; the file is at its start again afterwards."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - CHUNK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            file.seek(0)
            return start + found + 1
        end = start
    file.seek(0)
    return 0


def _store_stream(place: Place, path: str, file: IO[bytes], limit: int | None) -> Entry:
    draft = place.folder / "objects" / f".draft-{os.getpid()}"
    draft.parent.mkdir(parents=True, exist_ok=True)
    digest, size, fernet = hashlib.sha256(), 0, place.fernet
    try:
        with draft.open("wb") as out:
            while piece := file.read(CHUNK if limit is None else min(CHUNK, limit - size)):
                digest.update(piece)
                size += len(piece)
                out.write(fernet.encrypt(piece) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        entry = Entry(path, digest.hexdigest(), size)
        target = place.object(entry.sha256)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(target)
        return entry
    finally:
        draft.unlink(missing_ok=True)


def _write_snapshot(place: Place, snapshot: Snapshot) -> None:
    path = place.snapshot(snapshot.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {
        "format": FORMAT, "entries": [asdict(entry) for entry in snapshot.entries], "notes": snapshot.notes,
    }  # fmt: skip
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(place.fernet.encrypt(json.dumps(body).encode()))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _prune(place: Place, keep: int) -> None:
    """Remove the oldest snapshots beyond ``keep``, then contents that no snapshot names."""
    names = sorted(path.stem for path in (place.folder / "snapshots").glob("*.snapshot"))
    for name in names[:-keep]:
        place.snapshot(name).unlink()
    needed = {place.object(entry.sha256) for kept in snapshots(place) for entry in kept.entries}
    for path in (place.folder / "objects").glob("??/*"):
        if path not in needed:
            path.unlink()


def _locked(place: Place) -> AbstractContextManager[None]:
    busy = BackupError(f"another backup into {place.folder} is being made: wait for it")
    return held(place.folder / "lock", busy)
