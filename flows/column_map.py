"""The YAML files of ``scalper ingest`` as plain dictionaries, which the importers check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from market.errors import ConfigError


def read(path: Path, flag: str) -> dict[str, Any]:
    """The mapping in ``path``, all values as text; ConfigError, which names ``flag``, when it is none."""
    try:
        # The base loader reads every value as text: 0.01 must not become a float, nor "n" a truth value.
        raw = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{flag} {path} has to be a mapping of keys; see docs/importers.md")
    return raw
