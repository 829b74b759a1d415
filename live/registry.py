"""Fetching the bundle behind a registry alias with nothing but the standard library.

Three kinds of address: ``sqlite:///path`` (an MLflow database, read-only SQL), ``http(s)://server`` (MLflow's
REST interface) and ``file:///folder`` (a bundle folder, no registry). The registry is a pointer, never the
trust root: what arrives is copied into ``<dest>/<manifest_sha256>/`` and then verified by ``models.bundle``
(signature, hashes, schema, expiry). Names are checked and sizes bounded before anything is written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from market.errors import RegistryError

TIMEOUT_S = 10.0
MAX_FILES = 32
MAX_FILE_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 128 << 20
MAX_REPLY_BYTES = 4 * 1024 * 1024
CHUNK = 1 << 16
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an alias points at. ``manifest_sha256`` is the registry's claim, ``run`` the id of the MLflow run
    that made it; both empty where the registry says nothing.
    """

    version: str
    location: str
    manifest_sha256: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class PulledBundle:
    """A local copy, not verified yet: that is ``models.bundle.Bundle.load``. ``kept``: of an earlier pull."""

    path: Path
    version: str
    manifest_sha256: str
    kept: bool = False
    run: str = ""


def pinned(alias: str) -> tuple[str, str]:
    """(role, version) of ``prod@17``; the version is empty for an alias that is followed.

    Raises RegistryError for something that is neither.
    """
    role, at, version = alias.partition("@")
    if not role or (at and not version.isdecimal()):
        raise RegistryError(f"{alias!r} is no alias; write prod to follow one, prod@17 to pin version 17")
    return role, version


def resolve(uri: str, model: str, alias: str) -> Resolved:
    """Where the alias points now (cheap: the poll of the hot reload), or the version that ``prod@17`` pins.

    Raises RegistryError.
    """
    scheme = uri.partition(":")[0]
    role, version = pinned(alias)
    if scheme == "file" and version:
        raise RegistryError(f"{uri} is a bundle folder and has no version {version}; drop @{version}")
    if scheme == "sqlite":
        return _resolve_sqlite(_sqlite_path(uri), model, role, version)
    if scheme in ("http", "https"):
        return _resolve_http(uri, model, role, version)
    if scheme == "file":
        folder = _folder(uri)
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise RegistryError(
                f"{uri} is not a bundle folder: it holds no {MANIFEST}; build one with `dvc repro bundle`"
            )
        return Resolved("folder", uri, hashlib.sha256(manifest.read_bytes()).hexdigest())
    raise RegistryError(
        f"model.registry is {uri!r}; write sqlite:///path/mlflow.db, http://server:port or "
        "file:///bundle-folder"
    )


def pull(uri: str, model: str, alias: str, dest: Path, *, again: bool = False) -> PulledBundle:
    """Copies the bundle behind ``alias`` into ``dest/<manifest_sha256>/`` (once: a copy that is there is
    kept, unless ``again`` asks for a fresh one in its place).

    Raises RegistryError: registry unreachable, alias unknown (the existing ones are named), files missing,
    unsafe names, too large, or a manifest that is not the one the registry claims.
    """
    found = resolve(uri, model, alias)
    kept = dest / found.manifest_sha256 if _SHA.fullmatch(found.manifest_sha256) else None
    if kept is not None and kept.is_dir() and not again:
        return PulledBundle(kept, found.version, found.manifest_sha256, kept=True, run=found.run)
    dest.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".pull-", dir=dest))
    try:
        source = _source(uri, model, found)
        _copy(source, part)
        digest = hashlib.sha256((part / MANIFEST).read_bytes()).hexdigest()
        if found.manifest_sha256 and digest != found.manifest_sha256:
            raise RegistryError(
                f"{model} version {found.version}: the registry promises manifest "
                f"{found.manifest_sha256[:12]}, its files "
                f"hold {digest[:12]}; the artifacts were overwritten: publish the bundle again"
            )
        target = dest / digest
        was_there = target.is_dir()
        if was_there and again:
            shutil.rmtree(target)
        if again or not was_there:
            part.chmod(0o755)
            part.replace(target)
            _sync_folder(dest)
        return PulledBundle(target, found.version, digest, kept=was_there and not again, run=found.run)
    finally:
        shutil.rmtree(part, ignore_errors=True)


# ---- where the files are ----


@dataclass(frozen=True, slots=True)
class _Source:
    names: Callable[[], list[str]]
    open: Callable[[str], Any]


def _source(uri: str, model: str, found: Resolved) -> _Source:
    location = found.location
    scheme = location.partition(":")[0]
    if uri.startswith("sqlite:"):
        return _local(_beside_database(_sqlite_path(uri), location), location)
    if scheme == "file":
        folder = _folder(location)
        if uri.startswith("file:") or folder.is_dir():
            return _local(folder, location)
        return _remote(uri, lambda name: (
            "/model-versions/get-artifact?" + urllib.parse.urlencode(
                {"name": model, "version": found.version, "path": name})
        ), None)  # fmt: skip
    if scheme == "mlflow-artifacts":
        root = urllib.parse.urlsplit(location).path.strip("/")
        quoted = urllib.parse.quote(root)
        return _remote(
            uri,
            lambda name: f"/api/2.0/mlflow-artifacts/artifacts/{quoted}/{urllib.parse.quote(name)}",
            "/api/2.0/mlflow-artifacts/artifacts?" + urllib.parse.urlencode({"path": root}),
        )
    raise RegistryError(
        f"{model} version {found.version} lies at {location!r}; this runner reads file: and "
        "mlflow-artifacts: places only"
    )


def _local(folder: Path, location: str) -> _Source:
    if not folder.is_dir():
        raise RegistryError(
            f"the registry points at {location}, which is not there (looked in {folder}); publish again"
        )

    def names() -> list[str]:
        found = sorted(folder.iterdir())
        for path in found:
            if path.is_symlink() or not path.is_file():
                raise RegistryError(f"{path} is not a plain file; a bundle holds plain files only")
        return [path.name for path in found]

    return _Source(names, lambda name: open(folder / name, "rb"))


def _remote(uri: str, url_of: Callable[[str], str], listing: str | None) -> _Source:
    base = uri.rstrip("/")

    def names() -> list[str]:
        if listing is not None:
            files = _get_json(base + listing, uri).get("files", [])
            if any(entry.get("is_dir") for entry in files):
                raise RegistryError(
                    f"{uri}: the model version holds folders; a bundle is a flat folder of files"
                )
            return [str(entry["path"]) for entry in files]
        with _get(base + url_of(MANIFEST), uri) as reply:
            manifest = json.loads(reply.read(MAX_REPLY_BYTES))
        return sorted({MANIFEST, SIGNATURE, *manifest.get("files", {})})

    return _Source(names, lambda name: _get(base + url_of(name), uri))


def _copy(source: _Source, target: Path) -> None:
    names = source.names()
    if MANIFEST not in names:
        raise RegistryError(
            f"the model version holds no {MANIFEST} (found: {', '.join(names[:10]) or 'nothing'})"
        )
    if len(names) > MAX_FILES:
        raise RegistryError(f"the model version holds {len(names)} files; a bundle has at most {MAX_FILES}")
    total = 0
    for name in names:
        if not _NAME.fullmatch(name):
            raise RegistryError(f"the model version holds a file called {name!r}; such a name is refused")
        size = 0
        with source.open(name) as reply, open(target / name, "xb") as file:
            while chunk := reply.read(CHUNK):
                size += len(chunk)
                if size > MAX_FILE_BYTES or total + size > MAX_BUNDLE_BYTES:
                    raise RegistryError(
                        f"{name} makes the bundle too large (limits: {MAX_FILE_BYTES} bytes a file, "
                        f"{MAX_BUNDLE_BYTES} in all)"
                    )
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        total += size


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(uri: str) -> Path:
    """The folder of a file: address (file:relative/path is taken as relative)."""
    parts = urllib.parse.urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        # file://relative/folder: what people write, although RFC 8089 calls "relative" a host
        return Path(urllib.request.url2pathname(parts.netloc + parts.path))
    return Path(urllib.request.url2pathname(parts.path))


# ---- MLflow database ----


def _sqlite_path(uri: str) -> Path:
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


def _resolve_sqlite(path: Path, model: str, alias: str, version: str) -> Resolved:
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
            return _resolved(model, f"@{version}", version, str(row[1]), str(row[2] or ""), row[5], row[4])
        row = connection.execute(_ALIAS_SQL.format(**parts), (model, alias)).fetchone()
        if row is None:
            known = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name=? ORDER BY alias", (model,)
            ).fetchall()
            raise _unknown_alias(model, alias, {str(a): str(v) for a, v in known}, str(path))
    version, status, location, stage, run, digest = row
    if stage == "Deleted_Internal":
        raise RegistryError(
            f"alias {alias} of {model} points at version {version}, which was deleted; move the alias"
        )
    return _resolved(model, alias, str(version), str(status), str(location or ""), digest, run)


def _resolved(
    model: str, alias: str, version: str, status: str, location: str, digest: Any, run: Any
) -> Resolved:
    if status != "READY":
        raise RegistryError(
            f"alias {alias} of {model} points at version {version} with status {status}; wait or move it"
        )
    if not location:
        raise RegistryError(f"{model} version {version} has no files; publish the bundle again")
    return Resolved(version, location, str(digest or ""), str(run or ""))


def _unknown_alias(model: str, alias: str, known: dict[str, str], where: str) -> RegistryError:
    if known:
        listing = ", ".join(f"{name} (version {version})" for name, version in known.items())
        return RegistryError(
            f"{model} has no alias {alias!r} in {where}; it has: {listing}. Promote with `scalper promote`"
        )
    return RegistryError(
        f"{model} has no alias at all in {where}, so not {alias!r}; publish with `scalper publish`, then "
        "`scalper promote`"
    )


def _beside_database(database: Path, location: str) -> Path:
    """The local folder of an artifact location recorded in ``database``."""
    parts = urllib.parse.urlsplit(location)
    artifacts = database.absolute().parent / "artifacts"
    if parts.scheme == "mlflow-artifacts":
        return _inside(artifacts, parts.path)
    if parts.scheme not in ("file", ""):
        raise RegistryError(
            f"the registry points at {location!r}; with a database only file: places can be read"
        )
    folder = _folder(location)
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


# ---- MLflow server ----


def _resolve_http(uri: str, model: str, alias: str, wanted: str) -> Resolved:
    base = uri.rstrip("/") + "/api/2.0/mlflow"
    if wanted:
        query = urllib.parse.urlencode({"name": model, "version": wanted})
        path = f"{base}/model-versions/get?{query}"
    else:
        query = urllib.parse.urlencode({"name": model, "alias": alias})
        path = f"{base}/registered-models/alias?{query}"
    try:
        version = _get_json(path, uri)["model_version"]
    except _NotFound:
        if wanted:
            raise RegistryError(
                f"{model} has no version {wanted} in {uri}; follow the alias {alias}"
            ) from None
        raise _unknown_alias(model, alias, _http_aliases(base, uri, model), uri) from None
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    query = urllib.parse.urlencode({"name": model, "version": version["version"]})
    location = _get_json(f"{base}/model-versions/get-download-uri?{query}", uri)["artifact_uri"]
    return _resolved(
        model,
        alias,
        str(version["version"]),
        str(version.get("status")),
        location,
        tags.get("manifest.sha256"),
        version.get("run_id"),
    )


def _http_aliases(base: str, uri: str, model: str) -> dict[str, str]:
    try:
        reply = _get_json(f"{base}/registered-models/get?{urllib.parse.urlencode({'name': model})}", uri)
    except _NotFound:
        return {}
    aliases = reply["registered_model"].get("aliases", [])
    return {str(entry["alias"]): str(entry["version"]) for entry in aliases}


class _NotFound(RegistryError):
    """The server answered that the thing does not exist."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the password to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _get(url: str, uri: str) -> Any:
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    shown = urllib.parse.urlsplit(uri)
    server = shown._replace(netloc=shown.netloc.rpartition("@")[2]).geturl()
    try:
        return urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(MAX_REPLY_BYTES).decode("utf-8", "replace")
        if error.code in (400, 404) and (
            "RESOURCE_DOES_NOT_EXIST" in text or "INVALID_PARAMETER_VALUE" in text
        ):
            raise _NotFound(f"the registry {server} does not know it: {text[:200]}") from None
        if error.code in (401, 403):
            raise RegistryError(
                f"the registry {server} wants a login (HTTP {error.code}); write it as "
                "http://user:password@host:port"
            ) from None
        raise RegistryError(f"the registry {server} answered HTTP {error.code}: {text[:200]}") from None
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"the registry {server} does not answer ({error}); is `mlflow server` running there?"
        ) from None


def _get_json(url: str, uri: str) -> dict[str, Any]:
    with _get(url, uri) as reply:
        text = reply.read(MAX_REPLY_BYTES)
    try:
        return dict(json.loads(text))
    except ValueError:
        raise RegistryError(
            f"the registry {uri} answered something that is not JSON; is it an MLflow server?"
        ) from None
