"""The exchange's own service: faults are switched on and off while it runs.

One method, ``/scalper.paper.Control/Set``, JSON in and JSON out, on the same port and with the same token:
``{"clear": ["delay"], "set": [{"name": "delay", "ms": 300}]}``; ``"clear": true`` takes everything back. The
answer lists what is set and how often each fault has struck. An empty object only asks.
"""

from __future__ import annotations

import json
from typing import Any

import grpc

from market.errors import ConfigError
from market.paper.calls import Guard
from market.paper.faults import NAMES, Fault, Faults

CONTROL_SERVICE = "scalper.paper.Control"
CONTROL_PATH = f"/{CONTROL_SERVICE}/Set"


class Control:
    """``wire_faults``: whether half_open can work here."""

    def __init__(self, faults: Faults, *, wire_faults: bool) -> None:
        self._faults = faults
        self._wire_faults = wire_faults

    def handler(self, guard: Guard) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            CONTROL_SERVICE, {"Set": grpc.unary_unary_rpc_method_handler(guard.control(self.set))}
        )

    def set(self, request: bytes) -> bytes:
        """Clears, then sets; nothing happens when anything is wrong. ValueError says what."""
        try:
            asked = json.loads(request or b"{}")
            faults, cleared = self._read(asked)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        for name in cleared:
            self._faults.clear(name)
        try:
            for fault in faults:
                self._faults.add(fault)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return json.dumps(
            {"set": [f.to_dict() for f in self._faults.active()], "struck": self._faults.struck()}
        ).encode()

    def _read(self, asked: Any) -> tuple[list[Fault], list[str]]:
        if not isinstance(asked, dict) or set(asked) - {"set", "clear"}:
            raise ConfigError('send {"clear": [names] or true, "set": [faults]}')
        wanted, cleared = asked.get("set", []), asked.get("clear", [])
        if not isinstance(wanted, list):
            raise ConfigError("set is a list of faults")
        if cleared is True:
            cleared = [""]
        if not isinstance(cleared, list) or any(name not in ("", *NAMES) for name in cleared):
            raise ConfigError(f"clear is true or a list of names out of {', '.join(NAMES)}")
        faults = [Fault.from_dict(entry) for entry in wanted]
        check_wire(faults, wire_faults=self._wire_faults)
        return faults, cleared


def check_wire(faults: list[Fault], *, wire_faults: bool) -> None:
    """Raises ConfigError for half_open on an exchange without a relay."""
    if not wire_faults and any(fault.name == "half_open" for fault in faults):
        raise ConfigError("half_open needs an exchange that was started with --wire-faults")
