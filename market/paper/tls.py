"""A certificate for the loopback, made on the spot: P-256, self-signed, for localhost and 127.0.0.1 only."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CERT_FILE = "paper-cert.pem"
KEY_FILE = "paper-key.pem"
VALID_DAYS = 365
RENEW_BEFORE_DAYS = 7


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """PEM texts, and the file that a client gives as its root certificates."""

    cert_pem: bytes
    key_pem: bytes
    cert_path: Path


def ensure_certificate(folder: Path) -> ServerCertificate:
    """The certificate kept in ``folder``, made anew when it is missing, unreadable or about to expire.

    It is kept across restarts so that a client which trusted it reconnects without reading the file again.
    """
    cert_path, key_path = folder / CERT_FILE, folder / KEY_FILE
    if cert_path.is_file() and key_path.is_file():
        kept = ServerCertificate(cert_path.read_bytes(), key_path.read_bytes(), cert_path)
        if _usable(kept):
            return kept
    folder.mkdir(parents=True, exist_ok=True)
    cert_pem, key_pem = _make()
    write_private(key_path, key_pem)
    temporary = cert_path.with_suffix(".tmp")
    temporary.write_bytes(cert_pem)
    temporary.replace(cert_path)
    return ServerCertificate(cert_pem, key_pem, cert_path)


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as f:
        f.write(content)
    temporary.replace(path)


def _usable(kept: ServerCertificate) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(kept.cert_pem)
        key = serialization.load_pem_private_key(kept.key_pem, password=None)
    except ValueError:
        return False
    fresh = certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_BEFORE_DAYS)
    return fresh and key.public_key() == certificate.public_key()


def _make() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Scalper paper exchange")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
