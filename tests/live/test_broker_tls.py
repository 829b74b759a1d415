"""Whom the client trusts: a private CA with an intermediate, the public roots, nobody else; what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from live.broker.api import TinkoffAPI
from live.broker.channel import Access, root_certificates
from market.contract import invest_pb2 as pb
from market.contract.methods import rpc_handlers
from market.errors import BrokerError

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


class Authority:
    """A certificate authority as the broker's: a root, and a sub CA that signs the servers."""

    def __init__(self, folder: Path) -> None:
        self.root_key, self.sub_key, self.leaf_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.root = self._sign("Private Root CA", self.root_key, "Private Root CA", self.root_key, ca=True)
        self.sub = self._sign("Private Sub CA", self.sub_key, "Private Root CA", self.root_key, ca=True)
        self.leaf = self._sign("localhost", self.leaf_key, "Private Sub CA", self.sub_key, ca=False)
        self.path = folder / "private-root.pem"
        self.path.write_bytes(self.root.public_bytes(PEM))

    @staticmethod
    def _sign(name: str, key: Any, issuer: str, issuer_key: Any, *, ca: bool) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name)).issuer_name(named(issuer)).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )  # fmt: skip
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def server_credentials(self) -> grpc.ServerCredentials:
        key = self.leaf_key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return grpc.ssl_server_credentials([(key, self.leaf.public_bytes(PEM) + self.sub.public_bytes(PEM))])


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    yield Authority(tmp_path)


async def _ask(authority: Authority, **access: Any) -> tuple[str, dict[str, str]]:
    """(account found, metadata the server saw) at a server of the authority."""
    seen: dict[str, str] = {}

    async def get_accounts(request: pb.GetAccountsRequest, context: Any) -> pb.GetAccountsResponse:
        seen.update({str(k): str(v) for k, v in context.invocation_metadata()})
        level = pb.ACCOUNT_ACCESS_LEVEL_FULL_ACCESS
        return pb.GetAccountsResponse(accounts=[pb.Account(id="7", access_level=level)])

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(rpc_handlers({"UsersService/GetAccounts": get_accounts})))
    port = server.add_secure_port("127.0.0.1:0", authority.server_credentials())
    await server.start()
    api = TinkoffAPI(Access(f"localhost:{port}", "secret", "", app_name="nick.scalper", **access))
    try:
        return await api.client.choose_account(), seen
    finally:
        await api.close()
        await server.stop(None)


def test_a_private_ca_is_trusted_beside_the_public_roots(authority):
    account, seen = asyncio.run(_ask(authority, ca_path=str(authority.path)))
    assert account == "7"
    assert seen["authorization"] == "Bearer secret"
    assert seen["x-app-name"] == "nick.scalper"


def test_without_it_the_error_names_the_key_to_set(authority):
    with pytest.raises(BrokerError, match=r"broker\.ca_path"):
        asyncio.run(_ask(authority))


def test_another_ca_does_not_help(authority, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    with pytest.raises(BrokerError, match=r"UNAVAILABLE"):
        asyncio.run(_ask(authority, ca_path=str(stranger.path)))


def test_the_file_is_added_to_the_public_roots_not_put_in_their_place(authority):
    both = root_certificates(Access("x:443", "t", "", ca_path=str(authority.path)))
    assert both is not None
    assert both.count(b"BEGIN CERTIFICATE") > 50
    assert authority.path.read_bytes() in both
    assert root_certificates(Access("x:443", "t", "")) is None


def test_a_file_that_is_no_pem_is_one_clear_error(authority, tmp_path):
    der = tmp_path / "root.cer"
    der.write_bytes(authority.root.public_bytes(serialization.Encoding.DER))
    with pytest.raises(BrokerError, match=r"not a PEM file"):
        root_certificates(Access("x:443", "t", "", ca_path=str(der)))
    with pytest.raises(BrokerError, match=r"cannot read the root certificates"):
        root_certificates(Access("x:443", "t", "", ca_path=str(tmp_path / "nowhere.pem")))
