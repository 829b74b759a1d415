"""The registry as a database of MLflow's: read-only SQL, and where its artifacts lie on this disk."""

from __future__ import annotations

import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live.registry_facts import TIMEOUT_S, Resolved, folder_of, resolved, unknown_alias
from market.errors import RegistryError


def sqlite_path(uri: str) -> Path:
    """The file of a ``sqlite:///`` address."""
    if not uri.startswith("sqlite:///"):
        raise RegistryError(
            f"model.registry is {uri!r}; a database is written sqlite:///relative or sqlite:////absolute"
        )
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise RegistryError(
            f"no registry database {path}; publish a bundle first (`scalper publish`) or set model.registry"
        )
    quoted = urllib.parse.quote(str(path.absolute()))
    connection = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=TIMEOUT_S)
    try:
        yield connection
    except sqlite3.Error as error:
        raise RegistryError(f"cannot read the registry database {path}: {error}") from None
    finally:
        connection.close()


_VERSION_SQL = """
SELECT v.version, v.status, COALESCE(NULLIF(v.storage_location, ''), v.source), v.current_stage, {run},
       (SELECT t.value FROM model_version_tags t WHERE {tags} AND t.name=v.name AND t.version=v.version
        AND t.key='manifest.sha256')
FROM model_versions v WHERE {workspace} AND v.name=? AND v.version=?
"""
_ALIAS_SQL = """
SELECT a.version, v.status, COALESCE(NULLIF(v.storage_location, ''), v.source), v.current_stage, {run},
       (SELECT t.value FROM model_version_tags t WHERE {tags} AND t.name=v.name AND t.version=v.version
        AND t.key='manifest.sha256')
FROM registered_model_aliases a JOIN model_versions v ON {join} AND v.name=a.name AND v.version=a.version
WHERE {where} AND a.name=? AND a.alias=?
"""


def resolve_sqlite(path: Path, model: str, alias: str, version: str) -> Resolved:
    """Where ``alias`` of ``model`` points, or its ``version`` where one is wanted. Raises RegistryError."""
    with _database(path) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(registered_model_aliases)")}
        if "workspace" in columns:  # MLflow 3.10 and later keep one more key column
            parts = {
                "tags": "t.workspace=v.workspace",
                "join": "v.workspace=a.workspace",
                "where": "a.workspace='default'",
                "workspace": "v.workspace='default'",
            }
        else:
            parts = {"tags": "1=1", "join": "1=1", "where": "1=1", "workspace": "1=1"}
        versions = {row[1] for row in connection.execute("PRAGMA table_info(model_versions)")}
        parts["run"] = "v.run_id" if "run_id" in versions else "''"
        if version:
            row = connection.execute(_VERSION_SQL.format(**parts), (model, int(version))).fetchone()
            if row is None or row[3] == "Deleted_Internal":
                raise RegistryError(f"{model} has no version {version} in {path}; follow the alias {alias}")
            return resolved(model, f"@{version}", version, str(row[1]), str(row[2] or ""), row[5], row[4])
        row = connection.execute(_ALIAS_SQL.format(**parts), (model, alias)).fetchone()
        if row is None:
            known = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name=? ORDER BY alias", (model,)
            ).fetchall()
            raise unknown_alias(model, alias, {str(a): str(v) for a, v in known}, str(path))
    version, status, location, stage, run, digest = row
    if stage == "Deleted_Internal":
        raise RegistryError(
            f"alias {alias} of {model} points at version {version}, which was deleted; move the alias"
        )
    return resolved(model, alias, str(version), str(status), str(location or ""), digest, run)


def beside_database(database: Path, location: str) -> Path:
    """The local folder of an artifact location recorded in ``database``."""
    parts = urllib.parse.urlsplit(location)
    artifacts = database.absolute().parent / "artifacts"
    if parts.scheme == "mlflow-artifacts":
        return _inside(artifacts, parts.path)
    if parts.scheme not in ("file", ""):
        raise RegistryError(
            f"the registry points at {location!r}; with a database only file: places can be read"
        )
    folder = folder_of(location)
    if folder.is_dir():
        return folder
    # The workspace was moved or restored elsewhere: the same artifact beside the database.
    _, found, tail = location.partition("/artifacts/models/")
    return _inside(artifacts, "models/" + tail) if found else folder


def _inside(root: Path, tail: str) -> Path:
    folder = (root / urllib.parse.unquote(tail).lstrip("/")).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise RegistryError(f"the registry points at {tail!r}, which leaves {root}; refused")
    return folder
