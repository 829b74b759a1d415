"""The commented configuration file of ``live-runner init-config``, written from the schema itself.

Because comments, defaults and bounds come from ``live.config_schema``, the file can never describe a key that
does not exist, and what it shows loads back to the same configuration.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live.config_json_schema import json_schema
from live.config_schema import RunnerConfig
from live.secrets import PLACEHOLDER
from market.errors import ConfigError

ENVIRONMENTS = ("production", "sandbox", "paper")
WIDTH = 108

_HEAD = {
    "paper": "Paper trading on the embedded exchange: nothing here reaches a broker.",
    "sandbox": "The broker's sandbox: proves the plumbing; its fills say nothing about profit.",
    "production": "REAL MONEY. Every limit below is yours to choose before the first start.",
}

# What an environment sets differently from the schema's defaults.
_SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"system.mode": "paper", "session.enabled": False, "paper.speed": 10.0},
    "sandbox": {
        "system.mode": "sandbox",
        "broker.token": PLACEHOLDER,
        "data.instruments": ["SBER_TQBR"],
    },
    "production": {
        "system.mode": "production",
        "broker.token": PLACEHOLDER,
        "data.instruments": ["SBER_TQBR"],
        "risk.capital_base": 100_000.0,
        "risk.max_daily_loss": 2_000.0,
        "risk.max_gross_exposure": 100_000.0,
        "risk.max_position_lots": 1,
        "disaster_recovery.enabled": True,
        "disaster_recovery.replication_path": "backup",
    },
}


def render(environment: str) -> str:
    """The text of a configuration file for ``environment`` (one of ENVIRONMENTS)."""
    settings = _SETTINGS[environment]
    lines = [
        "# Scalper runner configuration, written by `live-runner init-config --env " + environment + "`.",
        "# " + _HEAD[environment],
        "# An unknown key, a wrong type or an impossible value is refused with its line number.",
        "# Any secret may be written as enc:<token>: `live-runner keygen`, then `live-runner encrypt`.",
    ]
    defaults = RunnerConfig()
    for outer in dataclasses.fields(defaults):
        section = getattr(defaults, outer.name)
        about = (type(section).__doc__ or "").strip()
        lines += ["", f"# {about}", f"{outer.name}:"]
        lines += _keys(section, f"{outer.name}.", "  ", settings)
    return "\n".join(lines) + "\n"


def write(environment: str, path: Path, *, force: bool = False) -> Path:
    """Writes the file, and the JSON Schema for editors beside it (its path is returned); refuses to replace
    an existing file unless ``force``.
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; choose another --output, or --force to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    schema = path.with_suffix(".schema.json")
    schema.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    modeline = f"# yaml-language-server: $schema={schema.name}\n"
    part.write_text(modeline + render(environment), encoding="utf-8")
    part.replace(path)
    return schema


def _keys(section: Any, prefix: str, indent: str, settings: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for f in dataclasses.fields(section):
        value = settings.get(prefix + f.name, getattr(section, f.name))
        if dataclasses.is_dataclass(value):
            about = (type(value).__doc__ or "").strip()
            lines += [
                f"{indent}{f.name}:  # {about}",
                *_keys(value, f"{prefix}{f.name}.", indent + "  ", settings),
            ]
            continue
        setting = f"{indent}{f.name}: {_yaml(value)}".rstrip()
        comment = f"  # {f.metadata['about']}{_range(f.metadata)}"
        if len(setting) + len(comment) <= WIDTH:
            lines.append(setting + comment)
        else:
            lines += textwrap.wrap(comment.strip()[2:], WIDTH - len(indent) - 2, initial_indent=f"{indent}# ",
                                   subsequent_indent=f"{indent}# ")  # fmt: skip
            lines.append(setting)
    return lines


def _range(allowed: Mapping[str, Any]) -> str:
    if allowed["one_of"]:
        return f" [{' | '.join(allowed['one_of'])}]"
    low = allowed["low"] if allowed["low"] is not None else allowed["above"]
    if low is None:
        return ""
    opening = "[" if allowed["low"] is not None else "("
    return (
        f" {opening}{low:g}..{allowed['high']:g}]" if allowed["high"] is not None else f" {opening}{low:g}..)"
    )


def _yaml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
