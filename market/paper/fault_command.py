"""``python -m market.paper fault``: a running exchange told to misbehave, or to stop it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc

from market.errors import BrokerError
from market.paper.control import CONTROL_PATH
from market.paper.endpoint import Endpoint
from market.paper.faults import KINDS, Fault, FaultPlan

TIMEOUT_S = 10.0
_EPILOG = """\
examples:
  python -m market.paper fault mute_stream --count 1
  python -m market.paper fault delay --ms 300 --seconds 20 --payload orderbook
  python -m market.paper fault crossed_book --instrument SIMP --probability 0.1
  python -m market.paper fault lost_reply_70002 --count 1
  python -m market.paper fault list
  python -m market.paper fault clear delay
"""


def control(endpoint: Endpoint, request: dict[str, Any]) -> dict[str, Any]:
    """Sends ``request`` to the running exchange. BrokerError with its own words when it refuses."""
    credentials = grpc.ssl_channel_credentials(Path(endpoint.ca_path).read_bytes())
    with grpc.secure_channel(endpoint.target, credentials) as channel:
        try:
            answer = channel.unary_unary(CONTROL_PATH)(
                json.dumps(request).encode(),
                metadata=(("authorization", f"Bearer {endpoint.token}"),),
                timeout=TIMEOUT_S,
            )
        except grpc.RpcError as error:
            raise BrokerError(f"the paper exchange at {endpoint.target}: {error.details()}") from error
    reply: dict[str, Any] = json.loads(answer)
    return reply


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m market.paper fault", description="Switches faults of a running paper exchange.",
        epilog="faults:\n" + "".join(f"  {name:<20} {kind.text}\n" for name, kind in KINDS.items())
        + "\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add(
        "name", choices=("list", "clear", "file", *KINDS), metavar="NAME", help="list, clear, file or a fault"
    )
    add(
        "what",
        nargs="?",
        default="",
        metavar="WHAT",
        help="clear: which fault (default all); file: which file",
    )
    add("--endpoint", type=Path, default=Path("runtime/paper/endpoint.json"), metavar="FILE")
    kinds = {
        "probability": float,
        "count": int,
        "after_s": float,
        "seconds": float,
        "ms": int,
        "percent": int,
    }
    for field in fields(Fault):
        if field.name != "name":
            add(f"--{field.name.replace('_', '-')}", type=kinds.get(field.name, str), dest=field.name)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Prints what is set now. Raises ScalperError."""
    given = _parser().parse_args(arguments)
    endpoint = Endpoint.read(given.endpoint)
    request: dict[str, Any] = {}
    if given.name == "clear":
        request["clear"] = [given.what] if given.what else True
    elif given.name == "file":
        request["set"] = [fault.to_dict() for fault in FaultPlan.read(Path(given.what)).faults]
    elif given.name != "list":
        told = {f.name: getattr(given, f.name) for f in fields(Fault) if f.name != "name"}
        named = {key: value for key, value in told.items() if value is not None}
        request["set"] = [Fault.from_dict({"name": given.name} | named).to_dict()]
    answer = control(endpoint, request)
    for entry in answer["set"]:
        print("set:", json.dumps(entry))
    print("struck so far:", ", ".join(f"{name} {n}" for name, n in answer["struck"].items()) or "nothing")
    return 0
