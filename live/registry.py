"""Fetching the bundle behind a registry alias with nothing but the standard library.

Three kinds of address: ``sqlite:///path`` (an MLflow database, read-only SQL), ``http(s)://server`` (MLflow's
REST interface) and ``file:///folder`` (a bundle folder, no registry). The registry is a pointer, never the
trust root: what arrives is copied into ``<dest>/<manifest_sha256>/`` and then verified by ``models.bundle``
(signature, hashes, schema, expiry). Names are checked and sizes bounded before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.registry_database import beside_database, resolve_sqlite, sqlite_path
from live.registry_facts import Resolved, folder_of
from live.registry_server import MAX_REPLY_BYTES, get, get_json, resolve_http
from market.errors import RegistryError

MAX_FILES = 32
MAX_FILE_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 128 << 20
CHUNK = 1 << 16
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA = re.compile(r"[0-9a-f]{64}")


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
        return resolve_sqlite(sqlite_path(uri), model, role, version)
    if scheme in ("http", "https"):
        return resolve_http(uri, model, role, version)
    if scheme == "file":
        folder = folder_of(uri)
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
        return _local(beside_database(sqlite_path(uri), location), location)
    if scheme == "file":
        folder = folder_of(location)
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
            files = get_json(base + listing, uri).get("files", [])
            if any(entry.get("is_dir") for entry in files):
                raise RegistryError(
                    f"{uri}: the model version holds folders; a bundle is a flat folder of files"
                )
            return [str(entry["path"]) for entry in files]
        with get(base + url_of(MANIFEST), uri) as reply:
            manifest = json.loads(reply.read(MAX_REPLY_BYTES))
        return sorted({MANIFEST, SIGNATURE, *manifest.get("files", {})})

    return _Source(names, lambda name: get(base + url_of(name), uri))


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
