"""A model bundle: a folder of plain data files, a manifest with the hash of each, one signature. LEAN.

The trust root is the public key that ships with the runner. The manifest is canonical JSON, the signature
covers its bytes, the manifest covers every other file by SHA-256 and size, and a file that it does not name
is refused. Nothing is ever unpickled here. ``Bundle.read`` hashes again each time it hands bytes out, so a
file that changes after it was verified is not used either.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from market.types import Instrument
from models.bundle_files import (
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    BundleFault,
    canonical_json,
    check_content,
    check_name,
    content_of,
    parse_json,
    read_bounded,
    replace_folder,
    sha256_hex,
    write_synced,
)
from models.bundle_keys import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    generate_keys,
    load_private_key,
    sign,
    verify_signature,
)

__all__ = (
    "ENSEMBLE", "FORMAT", "GOLDEN", "MANIFEST", "MANIFEST_FIELDS", "MEMBER_FILES", "PRIVATE_KEY",
    "PUBLIC_KEY", "SCALER", "SIGNATURE", "Bundle", "BundleFault", "canonical_json", "generate_keys",
    "load_private_key", "sha256_hex", "write_bundle",
)  # fmt: skip
"""Files (``bundle_files``) and keys (``bundle_keys``) have their own modules; this one is the front door."""

FORMAT = "scalper-bundle/1"

MEMBER_FILES = {
    "gbdt": "gbdt.txt",
    "lstm": "lstm.tflite",
    "svm": "svm.tflite",
    "transformer": "transformer.tflite",
}
ENSEMBLE, SCALER, GOLDEN = "ensemble.json", "scaler.npz", "golden.npz"

MANIFEST_FIELDS = (
    "watermark", "feature_schema_hash", "features", "horizon_ns", "latency_ns", "tariff", "fee_ppm",
    "instruments", "data_hash", "code_hash", "params", "seeds", "versions", "trained_from_ns",
    "trained_to_ns", "live_from_ns", "valid_until_ns", "metrics", "quantisation",
)  # fmt: skip
"""What the caller of ``write_bundle`` supplies; ``format`` and ``files`` are added here."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle (``load``), or one in the making that nobody signed (``draft``).

    ``sha256`` is the hash of the manifest's bytes: the identity of a bundle everywhere else (audit,
    registry tag, folder name). ``signed`` is true only if the signature was checked against a public key.
    """

    path: Path
    manifest: dict[str, Any]
    sha256: str
    signed: bool
    _sources: Mapping[str, Path | bytes] = field(repr=False)

    @classmethod
    def load(
        cls,
        path: Path,
        public_key_path: Path | None,
        *,
        now_ns: int | None = None,
        expect_schema: str | None = None,
    ) -> Self:
        """Verify the folder ``path`` and return it; raises BundleFault, whose ``code`` names the failed
        check.

        ``public_key_path`` None skips the signature (for a look at a foreign bundle; the result says
        ``signed=False``). ``now_ns`` is MARKET time, compared with ``valid_until_ns``; None skips expiry.
        ``expect_schema`` is ``features.schema.schema_hash()``. Golden rows: ``inference.check_golden``.
        """
        path = Path(path)
        if not path.is_dir():
            raise BundleFault("missing_file", f"there is no bundle folder {path}; build one with `dvc repro`")
        manifest_bytes = read_bounded(path / MANIFEST, MAX_MANIFEST_BYTES)
        if public_key_path is not None:
            verify_signature(path, manifest_bytes, Path(public_key_path))
        manifest = _parse_manifest(manifest_bytes)
        _check_files(path, manifest["files"])
        _check_schema(manifest, expect_schema)
        _check_expiry(manifest, now_ns)
        sources = {name: path / name for name in manifest["files"]}
        return cls(path, manifest, sha256_hex(manifest_bytes), public_key_path is not None, sources)

    @classmethod
    def draft(cls, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any]) -> Self:
        """An unsigned bundle over loose files, for the stages of the pipeline that run before the bundle
        exists.

        ``files`` as for ``write_bundle``; of ``manifest`` any subset will do. Nothing is written. ``path``
        is the folder of the first file that has one.
        """
        contents = {name: content_of(name, source) for name, source in sorted(files.items())}
        listed = {n: {"sha256": sha256_hex(c), "bytes": len(c)} for n, c in contents.items()}
        full = {**manifest, "format": FORMAT, "files": listed}
        folder = next((Path(s).parent for s in files.values() if not isinstance(s, bytes)), Path())
        return cls(folder, full, sha256_hex(canonical_json(full)), False, contents)

    def read(self, name: str) -> bytes:
        """The bytes of one file, hashed again; BundleFault ``missing_file`` or ``altered_file``."""
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise BundleFault("missing_file", f"bundle {self.sha256[:12]} has no file {name}")
        source = self._sources[name]
        data = source if isinstance(source, bytes) else read_bounded(source, MAX_FILE_BYTES)
        check_content(name, data, entry)
        return data

    @property
    def ensemble(self) -> dict[str, Any]:
        """The parsed ``ensemble.json``; its shape is checked where it is used (``inference.Ensemble``)."""
        return cast("dict[str, Any]", parse_json(self.read(ENSEMBLE), ENSEMBLE))

    @property
    def instruments(self) -> dict[str, Instrument]:
        return {fields["ticker"]: Instrument.from_dict(fields) for fields in self.manifest["instruments"]}

    @property
    def watermark(self) -> str:
        return str(self.manifest["watermark"])


def write_bundle(
    target: Path, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any], key_path: Path
) -> Bundle:
    """Write and sign the bundle folder ``target``, replacing an older one, by renaming a finished folder.

    ``files`` maps bundle names to sources. ``manifest`` must hold every name of MANIFEST_FIELDS and nothing
    that depends on when or where it is made: the same inputs give the same bytes, signature included
    (Ed25519 is deterministic). Raises BundleFault; nothing is left behind when it does.
    """
    target = Path(target)
    key = load_private_key(Path(key_path))
    _check_manifest_fields(manifest)
    contents = {name: content_of(name, source) for name, source in sorted(files.items())}
    _check_limits({name: len(data) for name, data in contents.items()})
    listed = {n: {"sha256": sha256_hex(c), "bytes": len(c)} for n, c in contents.items()}
    manifest_bytes = canonical_json({**manifest, "format": FORMAT, "files": listed})
    if len(manifest_bytes) > MAX_MANIFEST_BYTES:
        raise BundleFault(
            "oversize", f"the manifest has {len(manifest_bytes)} bytes, the limit is {MAX_MANIFEST_BYTES}"
        )

    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        for name, data in contents.items():
            write_synced(staging / name, data)
        write_synced(staging / MANIFEST, manifest_bytes)
        write_synced(staging / SIGNATURE, sign(manifest_bytes, key))
        replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sources = {name: target / name for name in contents}
    return Bundle(target, json.loads(manifest_bytes), sha256_hex(manifest_bytes), True, sources)


# --- checks -----------------------------------------------------------------------------------------------


def _parse_manifest(data: bytes) -> dict[str, Any]:
    manifest = parse_json(data, MANIFEST)
    if not isinstance(manifest, dict):
        raise BundleFault("bad_manifest", f"{MANIFEST} is not a JSON object")
    if manifest.get("format") != FORMAT:
        raise BundleFault(
            "unknown_format",
            f"the bundle has format {manifest.get('format')!r}; this version reads {FORMAT!r}",
        )
    missing = [name for name in (*MANIFEST_FIELDS, "files") if name not in manifest]
    if missing:
        raise BundleFault("bad_manifest", f"{MANIFEST} lacks {', '.join(missing)}")
    files = manifest["files"]
    if not isinstance(files, dict) or not all(_is_entry(e) for e in files.values()):
        raise BundleFault("bad_manifest", f"'files' in {MANIFEST} must map names to sha256 and bytes")
    return manifest


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and type(entry.get("bytes")) is int
        and entry["bytes"] >= 0
    )


def _check_limits(sizes: Mapping[str, int]) -> None:
    for name in sizes:
        check_name(name)
    if len(sizes) > MAX_FILES:
        raise BundleFault("oversize", f"{len(sizes)} files in the bundle, the limit is {MAX_FILES}")
    for name, size in sizes.items():
        if size > MAX_FILE_BYTES:
            raise BundleFault(
                "oversize", f"{name} has {size} bytes, the limit for a file is {MAX_FILE_BYTES}"
            )
    if sum(sizes.values()) > MAX_BUNDLE_BYTES:
        raise BundleFault("oversize", f"{sum(sizes.values())} bytes in all, the limit is {MAX_BUNDLE_BYTES}")


def _check_files(path: Path, listed: Mapping[str, Any]) -> None:
    """Names, limits, presence and hashes of the listed files; then that there is nothing else."""
    _check_limits({name: entry["bytes"] for name, entry in listed.items()})
    for name, entry in listed.items():
        check_content(name, read_bounded(path / name, MAX_FILE_BYTES), entry)
    expected = {*listed, MANIFEST, SIGNATURE}
    for found in sorted(p.name for p in path.iterdir()):
        if found not in expected:
            raise BundleFault("extra_file", f"{found!r} lies in bundle {path} but not in its manifest")


def _check_schema(manifest: Mapping[str, Any], expected: str | None) -> None:
    if expected is not None and manifest["feature_schema_hash"] != expected:
        raise BundleFault(
            "other_schema",
            f"the bundle was trained on feature schema {str(manifest['feature_schema_hash'])[:12]}, this "
            f"version computes {expected[:12]}; retrain, or run the version that made the bundle",
        )


def _check_expiry(manifest: Mapping[str, Any], now_ns: int | None) -> None:
    until_ns = manifest["valid_until_ns"]
    if type(until_ns) is not int:
        raise BundleFault("bad_manifest", f"valid_until_ns is {until_ns!r}, a whole number is needed")
    if now_ns is not None and now_ns >= until_ns:
        late_h = (now_ns - until_ns) / 3.6e12
        raise BundleFault("expired", f"the bundle expired {late_h:.1f} hours ago by market time; retrain")


def _check_manifest_fields(manifest: Mapping[str, Any]) -> None:
    missing = [name for name in MANIFEST_FIELDS if name not in manifest]
    if missing:
        raise BundleFault("bad_manifest", f"the manifest lacks {', '.join(missing)}")
    taken = [name for name in ("format", "files") if name in manifest]
    if taken:
        raise BundleFault("bad_manifest", f"{', '.join(taken)} in the manifest is filled in by write_bundle")
    if manifest["watermark"] not in ("SIMULATED", "REAL"):
        raise BundleFault("bad_manifest", f"watermark is {manifest['watermark']!r}: SIMULATED or REAL")
    for where, text in _strings(manifest, "manifest"):
        # A machine's path in the manifest would make equal inputs give unequal bundles.
        if text.startswith("/") or re.match(r"[A-Za-z]:\\|file:", text):
            raise BundleFault(
                "bad_manifest", f"{where} is the absolute path {text!r}; a manifest names no places"
            )
    try:
        canonical_json(dict(manifest))
    except (ValueError, TypeError) as e:
        raise BundleFault("bad_manifest", f"the manifest cannot be written as plain JSON: {e}") from e


def _strings(value: Any, where: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(where, value)]
    if isinstance(value, Mapping):
        return [pair for k, v in value.items() for pair in _strings(v, f"{where}.{k}")]
    if isinstance(value, (list, tuple)):
        return [pair for i, v in enumerate(value) for pair in _strings(v, f"{where}[{i}]")]
    return []
