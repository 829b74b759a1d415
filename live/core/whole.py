"""Rows of a checkpoint become objects only whole: a default is no answer to a field that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from live.core.errors import BadSnapshot

T = TypeVar("T")


def whole(kind: type[T], row: Mapping[str, Any]) -> T:
    """``kind(**row)``. Raises BadSnapshot unless ``row`` has exactly the fields of the dataclass."""
    if other := row.keys() ^ {f.name for f in fields(kind)}:  # type: ignore[arg-type]
        raise BadSnapshot(
            f"another version of the program wrote it ({kind.__name__}: {', '.join(sorted(other))})"
        )
    return kind(**row)
