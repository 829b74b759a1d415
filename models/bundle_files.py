"""The files of a bundle: what they may be called, how large they may be, and how they are read and written so
that nobody meets half of one. LEAN.

A bundle comes from elsewhere, so nothing of it is read without a bound, followed as a link, or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from market.errors import BundleError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a file in a bundle may be called: one path component, no leading dot, no separators."""
MAX_FILES = 32
MAX_FILE_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 128 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 4096

FaultCode = Literal[
    "missing_file", "altered_file", "extra_file", "unsafe_name", "oversize", "missing_signature",
    "bad_signature", "wrong_key", "bad_key", "bad_manifest", "unknown_format", "other_schema", "expired",
    "bad_model", "golden_mismatch", "no_backend", "exists",
]  # fmt: skip


class BundleFault(BundleError):
    """A bundle that must not be used. ``code`` says which check refused it, for audits and tests."""

    def __init__(self, code: FaultCode, text: str) -> None:
        super().__init__(text)
        self.code: FaultCode = code


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN, a newline at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise BundleFault("bad_manifest", f"{what} is not JSON: {e}") from e


def check_name(name: str) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None or name in (MANIFEST, SIGNATURE):
        raise BundleFault("unsafe_name", f"{name!r} is not a name that a file of a bundle may have")


def check_content(name: str, data: bytes, entry: Mapping[str, Any]) -> None:
    if len(data) != entry["bytes"] or sha256_hex(data) != entry["sha256"]:
        raise BundleFault(
            "altered_file", f"{name} differs from what the manifest was signed over: it was altered"
        )


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file (links are not followed), never more than ``limit_bytes``."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise BundleFault("missing_file", f"{path.name} is missing from bundle {path.parent}") from None
    except OSError as e:
        raise BundleFault("unsafe_name", f"{path} cannot be read as a plain file ({e.strerror})") from e
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BundleFault("unsafe_name", f"{path} is not a plain file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BundleFault("oversize", f"{path.name} has more than {limit_bytes} bytes, the limit for it")
    return data


def content_of(name: str, source: Path | bytes) -> bytes:
    check_name(name)
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as e:
        raise BundleFault("missing_file", f"cannot read {source} for the bundle ({e.strerror})") from e


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def create_exclusively(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def replace_folder(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``: a reader sees the old folder, none, or the new one, never
    a mix.
    """
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
