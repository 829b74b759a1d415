"""How a client finds a running paper exchange: one small file that exists while the exchange serves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from market.errors import BrokerError
from market.paper.tls import write_private


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``target`` is host:port, ``ca_path`` the root certificate file, ``token`` the bearer token with every
    right, ``read_only_token`` one that may only look.
    """

    target: str
    ca_path: str
    token: str
    account_id: str
    speed: float
    market_start_ns: int
    market_end_ns: int
    tariff: str
    watermark: str
    pid: int
    read_only_token: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        """Whole or not at all, readable by its owner only: it holds the token."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises BrokerError naming the file when it is missing or not an endpoint."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise BrokerError(
                f"no paper exchange is running here: {path} does not exist; "
                "start one with `python -m market.paper --recording DIR`"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise BrokerError(f"{path} is not a paper exchange's endpoint file: {error}") from error
