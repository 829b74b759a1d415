"""One TLS channel to the Invest API: targets, root certificates, metadata, HTTP/2 options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from live.config_schema import RunnerConfig
from market.contract.methods import MAX_MESSAGE_BYTES
from market.errors import BrokerError

OFFICIAL_TARGETS = {
    "production": "invest-public-api.tinkoff.ru:443",
    "sandbox": "sandbox-invest-public-api.tinkoff.ru:443",
}
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 5_000
MAX_RECONNECT_MS = 3_000
MAX_CA_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one account. ``private_ca``: trust only ``ca_path``, not the public roots (paper
    exchange).
    """

    target: str
    token: str
    account_id: str
    ca_path: str = ""
    private_ca: bool = False
    app_name: str = "scalper.live-runner"
    confirm_margin_trade: bool = False
    server_name: str = ""
    """Whose certificate is expected, where ``target`` is only a way there (``live.broker.route``)."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"), ("x-app-name", self.app_name))


@dataclass(frozen=True, slots=True)
class PaperEndpoint:
    """What a running paper exchange says about itself in its endpoint file."""

    access: Access
    speed: float
    market_start_ns: int
    market_end_ns: int
    tariff: str
    watermark: str
    pid: int


def read_paper_endpoint(path: Path) -> PaperEndpoint:
    """The endpoint file written by ``python -m market.paper``; BrokerError if it is missing or damaged."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        access = Access(
            target=str(fields["target"]), token=str(fields["token"]), account_id=str(fields["account_id"]),
            ca_path=str(fields["ca_path"]), private_ca=True,
        )  # fmt: skip
        return PaperEndpoint(
            access=access, speed=float(fields["speed"]), market_start_ns=int(fields["market_start_ns"]),
            market_end_ns=int(fields["market_end_ns"]), tariff=str(fields["tariff"]),
            watermark=str(fields["watermark"]), pid=int(fields["pid"]),
        )  # fmt: skip
    except FileNotFoundError:
        raise BrokerError(f"no paper exchange: {path} is missing; start `python -m market.paper`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokerError(
            f"the paper endpoint {path} cannot be read ({error}); start the exchange again"
        ) from None


def broker_access(config: RunnerConfig) -> Access:
    """The account that the configuration names, in the modes sandbox and production."""
    broker = config.broker
    return Access(
        config.connectivity.primary.target or broker.target or OFFICIAL_TARGETS[config.system.mode],
        broker.token, broker.account_id, broker.ca_path, app_name=broker.app_name,
        confirm_margin_trade=broker.confirm_margin_trade,
    )  # fmt: skip


def root_certificates(access: Access) -> bytes | None:
    """PEM roots to trust; None means gRPC's own list (public roots)."""
    if not access.ca_path:
        return None
    path = Path(access.ca_path)
    try:
        extra = path.read_bytes()
    except OSError as error:
        raise BrokerError(
            f"cannot read the root certificates broker.ca_path {path}: {error.strerror}"
        ) from None
    if b"BEGIN CERTIFICATE" not in extra or len(extra) > MAX_CA_BYTES:
        raise BrokerError(f"broker.ca_path {path} is not a PEM file with certificates")
    if access.private_ca:
        return extra
    # Given roots REPLACE the built-in ones, so a bank's extra CA must come with the public list.
    public = resources.files("grpc._cython").joinpath("_credentials", "roots.pem").read_bytes()
    return public + b"\n" + extra


def open_channel(access: Access, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()) -> grpc.aio.Channel:
    """A channel with a connection of its own: a fail-over must be a real one."""
    credentials = grpc.ssl_channel_credentials(root_certificates(access))
    named = [
        ("grpc.ssl_target_name_override", access.server_name),
        ("grpc.default_authority", access.server_name),
    ]
    return grpc.aio.secure_channel(
        access.target,
        credentials,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Nothing is ever sent twice behind our back; retries are decided in client.py.
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
            *(named if access.server_name else ()),
        ],
        interceptors=list(interceptors),
    )
