"""What a failed call means for an order: refused, or nobody knows.

The broker puts a five-digit code into the status details. Only a code of a known family is a refusal;
everything else (time-outs, 7000x, a lost connection, an empty message from a gateway) leaves the outcome
UNKNOWN, because the request may have been carried out before the answer was lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from market.errors import BrokerError

DUPLICATE_KEY = "30057"
CANCEL_FAILED = "30059"
ORDER_NOT_FOUND = "50005"
RATE_LIMITED = "80002"
TOO_MANY_STREAMS = "80001"
STREAM_TOO_OLD = "80005"
_CODE = re.compile(r"\s*(\d{5})(?!\d)")
"""The broker's details begin with its code; elsewhere five digits may be a port ("connect to ...:50051")."""
_DOUBTFUL = (
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN,
)  # fmt: skip
"""Whatever the text says, these do not prove that the request was not carried out."""


class Verdict(Enum):
    """REFUSED: certainly not done. DUPLICATE: it got there before, go and find it. UNKNOWN: ask later."""

    REFUSED = "refused"
    DUPLICATE = "duplicate"
    NOT_FOUND = "not found"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call. ``code`` is the broker's five digits or gRPC's status name."""

    verdict: Verdict
    code: str
    text: str
    retry_after_s: float = 0.0
    goaway: bool = False
    """The server ended the connection in good order (a planned restart): come back at once."""

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()


class CallFailed(BrokerError):
    """A unary call failed; ``failure`` says how."""

    def __init__(self, method: str, failure: Failure) -> None:
        super().__init__(f"{method} failed: {failure}{_HINTS.get(failure.code, '')}")
        self.failure = failure


_HINTS = {
    "40003": "; the token is missing, wrong or expired (broker.token)",
    "40002": "; the token may only read, or the account is not its own",
    "UNAVAILABLE": "; the broker cannot be reached (network, broker.target, certificates: broker.ca_path)",
    "12001": "; this server does not know the method",
}


def classify(error: grpc.aio.AioRpcError) -> Failure:
    """The meaning of a gRPC error."""
    details = error.details() or ""
    found = _CODE.match(details)
    metadata = headers_of(error)
    text = metadata.get("message", "") or details
    if found is None:
        return Failure(Verdict.UNKNOWN, error.code().name, text[:200], goaway="goaway" in text.lower())
    code = found.group(1)
    retry_after = (
        _seconds(metadata.get("x-ratelimit-reset", "")) if code in (RATE_LIMITED, TOO_MANY_STREAMS) else 0.0
    )
    verdict = Verdict.UNKNOWN if error.code() in _DOUBTFUL else _verdict(code)
    return Failure(verdict, code, text[:200], retry_after)


def _verdict(code: str) -> Verdict:
    if code == DUPLICATE_KEY:
        return Verdict.DUPLICATE
    if code == ORDER_NOT_FOUND:
        return Verdict.NOT_FOUND
    # 1: not implemented, 3: bad or impossible request, 4: rights, 5: no such thing, 8: limits, 9:
    # preconditions
    return Verdict.REFUSED if code[0] in "134589" else Verdict.UNKNOWN


def headers_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Initial and trailing metadata of a failed call, as text."""
    return as_text(error.initial_metadata(), error.trailing_metadata())


def as_text(*metadata: Any) -> dict[str, str]:
    """gRPC metadata as a dictionary of text; of a key given twice the last."""
    pairs: dict[str, str] = {}
    for source in metadata:
        for key, value in source or ():
            pairs[str(key)] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return pairs


def _seconds(text: str) -> float:
    try:
        return min(60.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
