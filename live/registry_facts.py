"""What a registry says of a model version, and what it says wrong; the same for databases and servers."""

from __future__ import annotations

import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from market.errors import RegistryError

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an alias points at. ``manifest_sha256`` is the registry's claim, ``run`` the id of the MLflow run
    that made it; both empty where the registry says nothing.
    """

    version: str
    location: str
    manifest_sha256: str
    run: str = ""


def resolved(
    model: str, alias: str, version: str, status: str, location: str, digest: Any, run: Any
) -> Resolved:
    """The version, if it may be fetched. Raises RegistryError."""
    if status != "READY":
        raise RegistryError(
            f"alias {alias} of {model} points at version {version} with status {status}; wait or move it"
        )
    if not location:
        raise RegistryError(f"{model} version {version} has no files; publish the bundle again")
    return Resolved(version, location, str(digest or ""), str(run or ""))


def unknown_alias(model: str, alias: str, known: dict[str, str], where: str) -> RegistryError:
    """The refusal, with the aliases that there are."""
    if known:
        listing = ", ".join(f"{name} (version {version})" for name, version in known.items())
        return RegistryError(
            f"{model} has no alias {alias!r} in {where}; it has: {listing}. Promote with `scalper promote`"
        )
    return RegistryError(
        f"{model} has no alias at all in {where}, so not {alias!r}; publish with `scalper publish`, then "
        "`scalper promote`"
    )


def folder_of(uri: str) -> Path:
    """The folder of a file: address (file:relative/path is taken as relative)."""
    parts = urllib.parse.urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        # file://relative/folder: what people write, although RFC 8089 calls "relative" a host
        return Path(urllib.request.url2pathname(parts.netloc + parts.path))
    return Path(urllib.request.url2pathname(parts.path))
