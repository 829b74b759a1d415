"""Keys and signatures of bundles: Ed25519 over the manifest's bytes. LEAN.

The trust root is the public key that ships with the runner; the private one never leaves who trains.
"""

from __future__ import annotations

import base64
import binascii
import json
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models.bundle_files import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    BundleFault,
    canonical_json,
    create_exclusively,
    read_bounded,
    sha256_hex,
)

PRIVATE_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"


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
    create_exclusively(private_path, private_pem, 0o600)
    create_exclusively(public_path, public_pem, 0o644)
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


def sign(manifest_bytes: bytes, key: Ed25519PrivateKey) -> bytes:
    signature = base64.b64encode(key.sign(manifest_bytes)).decode()
    return canonical_json(
        {"algorithm": "ed25519", "key_id": key_id(key.public_key()), "signature": signature}
    )


def verify_signature(path: Path, manifest_bytes: bytes, public_key_path: Path) -> None:
    public_key = load_public_key(public_key_path)
    if not (path / SIGNATURE).is_file():
        raise BundleFault("missing_signature", f"bundle {path} has no {SIGNATURE}: it was never signed")
    try:
        envelope = json.loads(read_bounded(path / SIGNATURE, MAX_SIGNATURE_BYTES))
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
