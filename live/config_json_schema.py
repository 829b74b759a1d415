"""The JSON Schema of the configuration file, from the same dataclasses that check it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from live.config_schema import RunnerConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ENC = r"enc:.+"
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema() -> dict[str, Any]:
    """For editors (YAML language servers read it): names, types, bounds, choices, what each key is for."""
    return {"$schema": DRAFT, "title": "Scalper runner configuration", **_section(RunnerConfig)}


def _section(cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {
        "type": ["object", "null"] if cls is not RunnerConfig else "object",
        "description": (cls.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {f.name: _key(hints[f.name], f) for f in dataclasses.fields(cls)},
    }


def _key(hint: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast("type[Any]", hint))
    allowed = field.metadata
    optional = isinstance(hint, types.UnionType)
    if optional:
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    many = typing.get_origin(hint) is tuple
    one = _value(typing.get_args(hint)[0] if many else hint, allowed)
    found: dict[str, Any] = {"type": "array", "items": one, "uniqueItems": True} if many else one
    if optional:
        found = {"anyOf": [found, {"type": "null"}]}
    found["description"] = allowed["about"]
    default: Any = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    found["default"] = list(default) if isinstance(default, tuple) else default
    return found


def _value(kind: type, allowed: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES[kind]}
    if allowed["one_of"]:
        found["enum"] = list(allowed["one_of"])
    for name, word in (("low", "minimum"), ("high", "maximum"), ("above", "exclusiveMinimum")):
        if allowed[name] is not None:
            found[word] = allowed[name]
    if allowed["pattern"]:
        found["pattern"] = f"^(?:{allowed['pattern'][1]}|{ENC})$"
    return found
