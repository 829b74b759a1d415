"""``scalper restore``: a snapshot back into an empty folder, and proof that what came back works."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from flows.backup import BackupError, Place, Snapshot, read_object, read_snapshot
from market.errors import ScalperError


def restore(place: Place, name: str, into: Path) -> Snapshot:
    """Write the files of snapshot ``name`` below ``into``, each checked against its hash. On any error
    nothing is left there."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise BackupError(f"{into} is not empty: restore into a new folder, then move what you need")
    snapshot = read_snapshot(place, name)
    draft = into.with_name(f".{into.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for entry in snapshot.entries:
            target = draft / entry.path
            if not target.resolve().is_relative_to(draft.resolve()):
                raise BackupError(f"{entry.path} leaves the folder: refused")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                read_object(place, entry, file)
        if into.exists():
            into.rmdir()
        draft.rename(into)
    except OSError as error:
        raise BackupError(f"{into} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return snapshot


def verify(folder: Path, snapshot: Snapshot) -> Iterator[str]:
    """Open what was restored and say what was found; BackupError for the first thing that does not work."""
    yield f"{len(snapshot.entries)} files, every hash as backed up"
    databases = [entry.path for entry in snapshot.entries if entry.path.endswith(".db")]
    for path in databases:
        _check_database(folder / path)
    yield f"{len(databases)} databases open and are whole"
    if (folder / "runtime" / "mlflow" / "mlflow.db").is_file():
        yield from _verify_registry(folder)


def _check_database(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (said,) = database.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        raise BackupError(f"{path} is damaged: {said}")


def _verify_registry(folder: Path) -> Iterator[str]:
    from models import promotions, registry
    from models.bundle import Bundle

    uri = f"sqlite:///{(folder / 'runtime' / 'mlflow' / 'mlflow.db').resolve()}"
    entries = promotions.read_journal(registry.journal_path(uri))
    found = promotions.differences(entries, registry.aliases(uri))
    if found:
        raise BackupError(f"registry and promotions disagree after the restore: {'; '.join(found)}")
    yield f"{len(entries)} promotions, their chain holds and the registry agrees"
    public = folder / "keys" / "signing.pub"
    held = registry.versions(uri)
    for version in held:
        try:
            bundle = Bundle.load(
                registry.local_path(uri, version.number), public if public.is_file() else None
            )
        except ScalperError as error:
            raise BackupError(f"version {version.number} did not come back: {error}") from None
        if bundle.sha256 != version.manifest_sha256:
            raise BackupError(f"version {version.number} came back as another bundle ({bundle.sha256[:12]})")
    signed = (
        "with its signature" if public.is_file() else "(no public key was backed up: signatures not checked)"
    )
    yield f"{len(held)} registered versions, each bundle verified {signed}"
