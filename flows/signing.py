"""The key pair that signs bundles: made when there is none, used again where a bundle's signature is of
another key."""

from __future__ import annotations

from pathlib import Path

from models.bundle import MANIFEST, MANIFEST_FIELDS, Bundle, BundleFault, generate_keys, write_bundle

KEYS = Path("keys")
PRIVATE = KEYS / "signing.key"
PUBLIC = KEYS / "signing.pub"
RESIGN = {"missing_signature", "wrong_key"}
"""What a new signature may mend. A signature that does not fit its manifest is an alteration, and stays
refused."""


def ensure_keys(folder: Path = KEYS) -> tuple[Path, Path]:
    """The private and the public key of ``folder``, made now if neither is there."""
    private, public = folder / PRIVATE.name, folder / PUBLIC.name
    if not private.exists() and not public.exists():
        return generate_keys(folder)
    return private, public


def signed_bundle(folder: Path, keys: Path = KEYS) -> Bundle:
    """The verified bundle in ``folder``, signed by the key of ``keys``.

    DVC restores a bundle from its cache without a signature, and a key may have been replaced: both are
    signed here, if the private key is on this machine. Raises BundleFault for anything else that is wrong.
    """
    private, public = ensure_keys(keys)
    try:
        return Bundle.load(folder, public)
    except BundleFault as fault:
        if fault.code not in RESIGN:
            raise
    unsigned = Bundle.load(folder, None)
    fields = {name: unsigned.manifest[name] for name in MANIFEST_FIELDS}
    extra = {k: v for k, v in unsigned.manifest.items() if k not in (*MANIFEST_FIELDS, "format", "files")}
    files: dict[str, Path | bytes] = {name: unsigned.read(name) for name in unsigned.manifest["files"]}
    again = write_bundle(folder, files, {**fields, **extra}, private)
    if again.sha256 != unsigned.sha256:
        raise BundleFault(
            "bad_manifest", f"{folder / MANIFEST} was written by another version: run dvc repro bundle"
        )
    return Bundle.load(folder, public)
