"""The database across versions of the runner: whole, and of the version that this code writes.

A database of an earlier version is copied (SQLite's backup API) and then taken up step by step in one
transaction; one of a later version is refused, because an older runner cannot know what it would lose.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from live.storage_schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION, StorageError

MAX_FAULTS_TOLD = 3


def open_for_writing(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    """The database whole and of this version, made where there is none."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_ms / 1000)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a power cut must not lose an intention
        connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type='table'").fetchone()[0]
        if tables == 0:
            connection.execute("BEGIN IMMEDIATE")
            for sql in SCHEMA.split(";\n"):
                if sql.strip():
                    connection.execute(sql)
            connection.execute("INSERT INTO meta VALUES('schema_version', ?)", (str(SCHEMA_VERSION),))
            connection.execute("COMMIT")
        else:
            check_integrity(connection, path)
            bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(connection: sqlite3.Connection) -> str:
    """The schema's version as it is written in the database; ``none`` for one that is not ours."""
    try:
        row = connection.execute("SELECT value FROM meta WHERE key='schema_version'").fetchone()
    except sqlite3.OperationalError:
        row = None
    return str(row[0]) if row else "none"


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StorageError for a damaged database: intentions in it may be unreadable, so nothing starts."""
    try:
        faults = [row[0] for row in connection.execute(f"PRAGMA quick_check({MAX_FAULTS_TOLD})")]
    except sqlite3.DatabaseError as error:
        faults = [str(error)]
    if faults != ["ok"]:
        told = " ".join("; ".join(faults).split())
        raise StorageError(
            f"the database {path} is damaged: {told}. Restore it (`live-runner restore --verify`), or move "
            "it away; the account is then reconciled with the broker alone"
        )


def bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Migrates in place, a copy of the old state kept beside it. Raises StorageError."""
    found = version_of(connection)
    if found == str(SCHEMA_VERSION):
        return
    if not found.isdigit() or int(found) not in MIGRATIONS:
        raise _other_version(path, found)
    kept = path.with_name(f"{path.name}.v{found}")
    _copy(connection, kept)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(int(found), SCHEMA_VERSION):
            for sql in MIGRATIONS[version]:
                connection.execute(sql)
        connection.execute("UPDATE meta SET value=? WHERE key='schema_version'", (str(SCHEMA_VERSION),))
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        connection.execute("ROLLBACK")
        raise StorageError(
            f"{path} could not be taken from schema version {found} to {SCHEMA_VERSION} ({error}); it is as "
            f"it was, and {kept.name} is a copy"
        ) from None


def require_current(connection: sqlite3.Connection, path: Path) -> None:
    """For readers, who may not change anything. Raises StorageError."""
    found = version_of(connection)
    if found.isdigit() and int(found) in MIGRATIONS:
        raise StorageError(
            f"{path} has schema version {found}, this program reads {SCHEMA_VERSION}; the next start of the "
            "runner migrates it"
        )
    if found != str(SCHEMA_VERSION):
        raise _other_version(path, found)


def _other_version(path: Path, found: str) -> StorageError:
    return StorageError(
        f"{path} has schema version {found}, this runner writes {SCHEMA_VERSION}; move the file away "
        "or set storage.path"
    )


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    target.unlink(missing_ok=True)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()
