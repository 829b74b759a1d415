"""A model bundle: a folder of plain data files, a manifest with the hash of each, one signature. LEAN.

The trust root is the public key that ships with the runner. The manifest is canonical JSON, the signature
covers its bytes, the manifest covers every other file by SHA-256 and size, and a file that it does not name
is refused. Nothing is ever unpickled here. ``Bundle.read`` hashes again each time it hands bytes out, so a
file that changes after it was verified is not used either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from market.errors import BundleError
from market.types import Instrument

FORMAT = "scalper-bundle/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
PRIVATE_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a file in a bundle may be called: one path component, no leading dot, no separators."""
MAX_FILES = 32
MAX_FILE_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 128 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 4096

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
        manifest_bytes = _read_bounded(path / MANIFEST, MAX_MANIFEST_BYTES)
        if public_key_path is not None:
            _verify_signature(path, manifest_bytes, Path(public_key_path))
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
        contents = {name: _content(name, source) for name, source in sorted(files.items())}
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
        data = source if isinstance(source, bytes) else _read_bounded(source, MAX_FILE_BYTES)
        _check_content(name, data, entry)
        return data

    @property
    def ensemble(self) -> dict[str, Any]:
        """The parsed ``ensemble.json``; its shape is checked where it is used (``inference.Ensemble``)."""
        return cast("dict[str, Any]", _parse_json(self.read(ENSEMBLE), ENSEMBLE))

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
    contents = {name: _content(name, source) for name, source in sorted(files.items())}
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
            _write_synced(staging / name, data)
        _write_synced(staging / MANIFEST, manifest_bytes)
        _write_synced(staging / SIGNATURE, _sign(manifest_bytes, key))
        _replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sources = {name: target / name for name in contents}
    return Bundle(target, json.loads(manifest_bytes), sha256_hex(manifest_bytes), True, sources)


# --- keys and signatures ----------------------------------------------------------------------------------


def generate_keys(folder: Path) -> tuple[Path, Path]:
    """Make an Ed25519 pair in ``folder``: (``signing.key`` with mode 0600, ``signing.pub``).

    Refuses to overwrite either (BundleFault ``exists``): losing a key silently would orphan every runner.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_path, public_path = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    for path in (private_path, public_path):
        if path.exists():
            raise BundleFault(
                "exists", f"{path} exists and is not overwritten; move it away to make a new pair"
            )
    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create_exclusively(private_path, private_pem, 0o600)
    _create_exclusively(public_path, public_pem, 0o644)
    return private_path, public_path


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key; refuses one that others on this machine may read."""
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as e:
        raise BundleFault(
            "bad_key", f"cannot read the signing key {path} ({e.strerror}); `scalper keys` makes one"
        ) from e
    if stat.S_IMODE(mode) & 0o077:
        raise BundleFault(
            "bad_key", f"{path} has mode {stat.S_IMODE(mode):04o}: others can read it; run chmod 600"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise BundleFault("bad_key", f"{path} is not a PEM private key: {e}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleFault("bad_key", f"{path} holds a {type(key).__name__}; an Ed25519 key is needed")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as e:
        raise BundleFault("bad_key", f"cannot read the public key {path}: {e.strerror}") from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise BundleFault("bad_key", f"{path} is not a PEM public key: {e}") from e
    if not isinstance(key, Ed25519PublicKey):
        raise BundleFault("bad_key", f"{path} holds a {type(key).__name__}; an Ed25519 key is needed")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hex digits of SHA-256 over the raw public key: only tells "other key" from "altered" in
    messages.
    """
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return sha256_hex(raw)[:16]


def _sign(manifest_bytes: bytes, key: Ed25519PrivateKey) -> bytes:
    signature = base64.b64encode(key.sign(manifest_bytes)).decode()
    return canonical_json(
        {"algorithm": "ed25519", "key_id": key_id(key.public_key()), "signature": signature}
    )


def _verify_signature(path: Path, manifest_bytes: bytes, public_key_path: Path) -> None:
    public_key = load_public_key(public_key_path)
    if not (path / SIGNATURE).is_file():
        raise BundleFault("missing_signature", f"bundle {path} has no {SIGNATURE}: it was never signed")
    try:
        envelope = json.loads(_read_bounded(path / SIGNATURE, MAX_SIGNATURE_BYTES))
        signer, signature = envelope["key_id"], base64.b64decode(envelope["signature"], validate=True)
        known = envelope["algorithm"] == "ed25519"
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as e:
        raise BundleFault(
            "bad_signature", f"{path / SIGNATURE} is not a signature of this product: {e}"
        ) from e
    if not known:
        raise BundleFault("bad_signature", f"{path / SIGNATURE} is not an ed25519 signature")
    if signer != key_id(public_key):
        raise BundleFault(
            "wrong_key",
            f"bundle {path} is signed with key {str(signer)[:16]!r}, but {public_key_path} is the key "
            f"{key_id(public_key)!r}",
        )
    try:
        public_key.verify(signature, manifest_bytes)
    except InvalidSignature:
        raise BundleFault(
            "bad_signature",
            f"the signature of bundle {path} does not fit its manifest: one of them was altered",
        ) from None


# --- checks -----------------------------------------------------------------------------------------------


def _parse_json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise BundleFault("bad_manifest", f"{what} is not JSON: {e}") from e


def _parse_manifest(data: bytes) -> dict[str, Any]:
    manifest = _parse_json(data, MANIFEST)
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


def _check_name(name: str) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None or name in (MANIFEST, SIGNATURE):
        raise BundleFault("unsafe_name", f"{name!r} is not a name that a file of a bundle may have")


def _check_limits(sizes: Mapping[str, int]) -> None:
    for name in sizes:
        _check_name(name)
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
        _check_content(name, _read_bounded(path / name, MAX_FILE_BYTES), entry)
    expected = {*listed, MANIFEST, SIGNATURE}
    for found in sorted(p.name for p in path.iterdir()):
        if found not in expected:
            raise BundleFault("extra_file", f"{found!r} lies in bundle {path} but not in its manifest")


def _check_content(name: str, data: bytes, entry: Mapping[str, Any]) -> None:
    if len(data) != entry["bytes"] or sha256_hex(data) != entry["sha256"]:
        raise BundleFault(
            "altered_file", f"{name} differs from what the manifest was signed over: it was altered"
        )


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


# --- files ------------------------------------------------------------------------------------------------


def _read_bounded(path: Path, limit_bytes: int) -> bytes:
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


def _content(name: str, source: Path | bytes) -> bytes:
    _check_name(name)
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as e:
        raise BundleFault("missing_file", f"cannot read {source} for the bundle ({e.strerror})") from e


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create_exclusively(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _replace_folder(staging: Path, target: Path) -> None:
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
