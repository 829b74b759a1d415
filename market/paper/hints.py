"""How any client reaches this exchange: what is printed at the start, and one file with every root."""

from __future__ import annotations

from pathlib import Path

import grpc

from market.errors import ConfigError
from market.paper.endpoint import Endpoint

ROOTS_VARIABLE = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"


def pointing(endpoint: Endpoint, endpoint_path: Path, roots: Path | None) -> str:
    """Lines for a person: target, certificate, token, and what the official SDK needs.

    The token is not printed, logs are kept: it is in the endpoint file, which only its owner may read.
    """
    file = roots or endpoint.ca_path
    return (
        f"  target {endpoint.target}   account {endpoint.account_id}   CA file {endpoint.ca_path}\n"
        f"  token: `authorization: Bearer TOKEN`, TOKEN from {endpoint_path}\n"
        f"  official SDK (set the variable before the process opens its first TLS channel):\n"
        f"    export {ROOTS_VARIABLE}={file}\n"
        f"    AsyncClient(token, target={endpoint.target!r}) or Client(token, target={endpoint.target!r})\n"
        f"  faults: python -m market.paper fault list --endpoint {endpoint_path}"
    )


def write_roots(path: Path, own: Path) -> None:
    """gRPC's public roots and this exchange's certificate in one PEM file, whole or not at all.

    The variable that the SDK reads replaces the built-in roots, so one process that talks to the exchange and
    to the world needs both. Raises ConfigError when the installed gRPC does not show its roots.
    """
    public = Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem"
    if not public.is_file():
        raise ConfigError(f"the installed gRPC has no root certificates at {public}; use {own} alone")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_bytes(public.read_bytes().rstrip() + b"\n\n" + own.read_bytes())
    temporary.replace(path)
