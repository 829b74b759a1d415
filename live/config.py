"""Reading the runner's YAML (or JSON) file: one clear error for anything unknown, mistyped or impossible.

The file is read as a tree of nodes, not as Python values, because a node knows its line and how the value was
written: ``start_time: 10:00`` is the text "10:00" here, not the 600 that YAML 1.1 makes of it.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import yaml

from live.config_core import backtest_latency, capped, engine_config, seconds_of_day, seconds_until
from live.config_schema import RunnerConfig
from live.secrets import HIDDEN, PREFIX, KeyManager, Secret, remember
from market.errors import ConfigError

__all__ = ["backtest_latency", "capped", "engine_config", "is_loopback", "load", "seconds_until", "to_dict"]

MAX_FILE_BYTES = 1_000_000
COMMAND_LINE = "--set"

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_INT = re.compile(r"[-+]?\d[\d_]*")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def load(path: Path | None, overrides: Iterable[str] = (), *, decrypt: bool = True) -> RunnerConfig:
    """The configuration in ``path`` (None: all defaults) with ``section.key=value`` overrides on top.

    ``enc:...`` secrets are decrypted with ``security.key_path`` unless ``decrypt`` is False. Raises
    ConfigError.
    """
    tree: dict[str, Any] = {}
    origin = "the defaults"
    if path is not None:
        origin = str(path)
        tree = _read(path)
    for text in overrides:
        _set(tree, text)
    config = _build(RunnerConfig, tree, "", origin)
    _check_together(config, origin)
    return _decrypted(config) if decrypt else config


def to_dict(config: RunnerConfig, *, mask_secrets: bool = True) -> dict[str, Any]:
    """JSON-able; secrets are replaced by ``***`` so that the result may be written to a journal."""
    return _plain(config, mask_secrets)


# ---- the tree: {key: (line, value)}, a value being a scalar node, a list of them or another such dict ----


def _read(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration file {path}; write one with `live-runner init-config --env paper --output "
            f"{path}`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    if size > MAX_FILE_BYTES:
        raise ConfigError(
            f"{path} has {size} bytes; a configuration of more than {MAX_FILE_BYTES} is a mistake"
        )
    try:
        # JSON is YAML but for tabs, which YAML forbids as indentation.
        node = yaml.compose(text.expandtabs() if path.suffix == ".json" else text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}, line 1: the file must be sections with keys, found {_shown(node)}")
    return _mapping(node, "", str(path))


def _mapping(node: yaml.MappingNode, prefix: str, origin: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = str(name_node.value), name_node.start_mark.line + 1
        if name in found:
            raise ConfigError(
                f"{origin}, line {line}: {prefix}{name} is given twice (first in line {found[name][0]}); "
                "keep one"
            )
        if isinstance(value_node, yaml.MappingNode):
            found[name] = (line, _mapping(value_node, f"{prefix}{name}.", origin))
        else:
            found[name] = (line, value_node)
    return found


def _set(tree: dict[str, Any], text: str) -> None:
    """Puts ``section.key=value`` from the command line into the tree; line 0 stands for the command line."""
    dotted, sign, value = text.partition("=")
    parts = dotted.strip().split(".")
    if not sign or len(parts) < 2 or not all(parts):
        raise ConfigError(f"{COMMAND_LINE} {text!r}: write it as section.key=value, e.g. paper.speed=20")
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if node is None or isinstance(node, yaml.MappingNode):
        node = yaml.ScalarNode("tag:yaml.org,2002:str", value, style='"')
    for part in parts[:-1]:
        _, branch = tree.setdefault(part, (0, {}))
        if not isinstance(branch, dict):
            branch = {}
            tree[part] = (0, branch)
        tree = branch
    tree[parts[-1]] = (0, node)


# ---- dataclasses from the tree ----


def _build(cls: type[Any], tree: Mapping[str, Any], prefix: str, origin: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, (line, value) in tree.items():
        where = _where(origin, line)
        if name not in fields:
            raise ConfigError(_unknown(name, prefix, fields, where))
        annotation = hints[name]
        if dataclasses.is_dataclass(annotation):
            values[name] = _section(annotation, name, value, prefix, line, origin)
        elif isinstance(value, dict):
            raise ConfigError(f"{where}: {prefix}{name} is one value, found keys {', '.join(value)} under it")
        else:
            values[name] = _value(f"{prefix}{name}", annotation, fields[name].metadata, value, where)
    return cls(**values)


def _section(annotation: Any, name: str, value: Any, prefix: str, line: int, origin: str) -> Any:
    if not isinstance(value, dict):
        if isinstance(value, yaml.ScalarNode) and _is_null(value):
            return annotation()
        known = ", ".join(f.name for f in dataclasses.fields(annotation))
        raise ConfigError(
            f"{_where(origin, line)}: {prefix}{name} is a section with keys ({known}), found {_shown(value)}"
        )
    return _build(annotation, value, f"{prefix}{name}.", origin)


def _where(origin: str, line: int) -> str:
    return f"{origin}, line {line}" if line else "command line"


def _unknown(name: str, prefix: str, fields: Mapping[str, Any], where: str) -> str:
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    what = "key" if prefix else "section"
    hint = f"; did you mean {prefix}{near[0]}?" if near else "."
    return f"{where}: unknown {what} {prefix}{name}{hint} Known here: {', '.join(sorted(fields))}"


def _value(name: str, annotation: Any, allowed: Mapping[str, Any], node: yaml.Node, where: str) -> Any:
    """One setting from its node, checked against type, bounds, choices and pattern."""

    def refuse(expected: str) -> NoReturn:
        shown = "a secret" if allowed.get("secret") else _shown(node)
        raise ConfigError(f"{where}: {name} is {shown}; allowed: {expected}")

    optional = isinstance(annotation, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        if isinstance(node, yaml.ScalarNode) and _is_null(node):
            return None
    many = typing.get_origin(annotation) is tuple
    kind = typing.get_args(annotation)[0] if many else annotation
    expected = _allowed(kind, allowed, many, optional)
    if not many:
        item = _scalar(kind, node)
        if item is None or not _fits(item, allowed):
            refuse(expected)
        return item
    if not isinstance(node, yaml.SequenceNode):
        refuse(expected)
    items = [_scalar(kind, child) for child in node.value]
    if any(item is None or not _fits(item, allowed) for item in items) or len(set(items)) != len(items):
        refuse(expected)
    return tuple(items)


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _scalar(kind: type, node: yaml.Node) -> Any:
    """The node as ``kind``, or None if it was not written as one."""
    if not isinstance(node, yaml.ScalarNode) or _is_null(node):
        return None
    text, quoted = node.value, node.style in ('"', "'")
    if kind is str:
        return None if node.tag == "tag:yaml.org,2002:bool" else text
    if quoted:
        return None
    if kind is bool:
        lowered = text.lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else None
    if kind is int:
        return int(text.replace("_", "")) if _INT.fullmatch(text) else None
    return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else None


def _fits(value: Any, allowed: Mapping[str, Any]) -> bool:
    if isinstance(value, float) and not math.isfinite(value):  # 1e999 is written like a number
        return False
    if allowed.get("one_of") and value not in allowed["one_of"]:
        return False
    if allowed.get("pattern") and not re.fullmatch(allowed["pattern"][1], value):
        return False
    if allowed.get("low") is not None and value < allowed["low"]:
        return False
    if allowed.get("above") is not None and value <= allowed["above"]:
        return False
    return allowed.get("high") is None or value <= allowed["high"]


def _allowed(kind: type, allowed: Mapping[str, Any], many: bool, optional: bool) -> str:
    """The sentence that says what would have been accepted."""
    if allowed.get("one_of"):
        text = "one of " + ", ".join(allowed["one_of"])
    else:
        text = _TYPE_NAMES[kind]
        bounds = [
            f"{word} {allowed[bound]:,}".replace(",", "_")
            for bound, word in (("low", "at least"), ("above", "more than"), ("high", "at most"))
            if allowed.get(bound) is not None
        ]
        text += f" ({' and '.join(bounds)})" if bounds else ""
        text += f" like {allowed['pattern'][0]}" if allowed.get("pattern") else ""
    if many:
        text = f"a list without repeats, each {text}"
    return text + (" or nothing" if optional else "") + f" ({allowed['about']})"


def _shown(node: Any) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if _is_null(node) and not node.value else repr(node.value)
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(_shown(child) for child in node.value) + "]"
    return "a group of keys"


# ---- rules over several keys ----


def _check_together(config: RunnerConfig, origin: str) -> None:
    def refuse(name: str, value: Any, why: str) -> NoReturn:
        raise ConfigError(f"{origin}: {name} is {value!r}; {why}")

    session = config.session
    try:
        ZoneInfo(session.timezone)
    except (KeyError, ValueError, OSError):
        refuse("session.timezone", session.timezone, "it must be an IANA name such as Europe/Moscow")
    if session.enabled and session.start_time >= session.end_time:
        refuse("session.end_time", session.end_time, f"it must be later than start_time {session.start_time}")
    if session.enabled and not session.allowed_weekdays:
        refuse(
            "session.allowed_weekdays", [], "name at least one day (0 = Monday) or set session.enabled: false"
        )
    if config.data.depth not in (20, 30, 40, 50):
        refuse("data.depth", config.data.depth, "the exchange serves depths 20, 30, 40 or 50")
    if config.data.keep_instruments and not config.data.rotation_interval_seconds:
        refuse("data.keep_instruments", config.data.keep_instruments, "set rotation_interval_seconds as well")
    if config.model.shadow_alias and config.model.shadow_alias == config.model.alias:
        refuse("model.shadow_alias", config.model.shadow_alias, "a model beside itself shows nothing")
    window = {
        "pre_open_minutes": session.pre_open_minutes * 60 > seconds_of_day(session.start_time),
        "post_close_minutes": seconds_of_day(session.end_time) + session.post_close_minutes * 60 > 86_400,
    }
    for name, leaves in window.items():
        if leaves:
            refuse(f"session.{name}", getattr(session, name), "the trading window must not leave the day")
    paper = config.paper
    if paper.from_ns is not None and paper.to_ns is not None and paper.from_ns >= paper.to_ns:
        refuse("paper.to_ns", paper.to_ns, f"it must be later than from_ns {paper.from_ns}")
    if bool(config.notifications.token) != bool(config.notifications.chat_id):
        refuse("notifications.chat_id", config.notifications.chat_id, "Telegram needs both token and chat_id")
    if config.notifications.commands and not config.notifications.token:
        refuse("notifications.commands", True, "commands come through the bot: set token and chat_id")
    api = urlsplit(config.notifications.api_url)
    if api.scheme != "https" and not is_loopback(api.hostname or ""):
        refuse("notifications.api_url", config.notifications.api_url, "only https may carry the bot's token")
    if config.disaster_recovery.enabled and not config.disaster_recovery.replication_path:
        refuse(
            "disaster_recovery.replication_path", "", "name a folder or set disaster_recovery.enabled: false"
        )
    board = config.dashboard
    if board.enabled and not is_loopback(board.host) and not board.token:
        refuse(
            "dashboard.token", "", f"the host {board.host} is not loopback: set a token or host: 127.0.0.1"
        )
    for name in ("primary", "backup"):
        channel = getattr(config.connectivity, name)
        if (channel.bind or channel.interface) and config.broker.transport == "sdk":
            why = "the SDK's transport cannot be bound; set broker.transport: native"
            refuse(f"connectivity.{name}", channel.bind or channel.interface, why)
        try:
            ipaddress.ip_address(channel.bind or "127.0.0.1")
        except ValueError:
            refuse(f"connectivity.{name}.bind", channel.bind, "it must be an IP address of this machine")
    if config.system.mode != "paper":
        if not config.broker.token:
            refuse(
                "broker.token", "", f"mode {config.system.mode} needs the account's token (enc:... is best)"
            )
        if not config.model.verification_key:
            refuse("model.verification_key", "", f"mode {config.system.mode} runs only signed bundles")
    if config.monitoring.drift_psi_critical < config.monitoring.drift_psi_warning:
        refuse(
            "monitoring.drift_psi_critical", config.monitoring.drift_psi_critical,
            f"it must not be under drift_psi_warning {config.monitoring.drift_psi_warning}",
        )  # fmt: skip


def is_loopback(host: str) -> bool:
    """An address of this machine, or its name. ``127.0.0.1.example.org`` is somebody else's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ---- secrets and plain values ----


def _decrypted(config: RunnerConfig) -> RunnerConfig:
    """The same with every ``enc:...`` value in the clear, wherever it stands; the key is read only if there
    is one.
    """
    keys: list[KeyManager] = []

    def opened(value: Any, name: str, secret: bool) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {}
            for f in dataclasses.fields(value):
                old = getattr(value, f.name)
                new = opened(old, f"{name}.{f.name}".lstrip("."), bool(f.metadata.get("secret")))
                if new is not old:
                    changed[f.name] = new
            return dataclasses.replace(value, **changed) if changed else value
        if isinstance(value, tuple):
            items = tuple(opened(item, name, secret) for item in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if not isinstance(value, str):
            return value
        if value.startswith(PREFIX):
            if not keys:
                keys.append(KeyManager.load(Path(config.security.key_path)))
            return keys[0].decrypt(value, name)
        return remember(value) if secret and value else value

    return typing.cast("RunnerConfig", opened(config, "", False))


def _plain(value: Any, mask: bool) -> Any:
    if isinstance(value, tuple):
        return [_plain(item, mask) for item in value]
    if not dataclasses.is_dataclass(value):
        return HIDDEN if mask and isinstance(value, Secret) else value
    plain = {}
    for f in dataclasses.fields(value):
        item = getattr(value, f.name)
        plain[f.name] = HIDDEN if mask and f.metadata.get("secret") and item else _plain(item, mask)
    return plain
