"""The features, numbered: the order of ``FEATURES`` is the order of columns everywhere.

The kernel derives its column numbers from it, the learners train on it, and ``schema_hash`` travels in the
model bundle so that a runner with another list refuses to load. A masked feature is NaN in its row, never
zero: a missing level is unknown, not empty. What each column is stands in ``declaration``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.declaration import EVEN, ODD, FeatureSpec, declared

FORMULA_VERSION: Final = 1
"""Raise it whenever the kernel computes another number under an unchanged name."""

WARMUP_NS: Final = 120_000_000_000
"""After a start, a reset or a gap, rows carry the WARMUP bit for this long."""
GAP_NS: Final = 10_000_000_000
"""Without a valid book for longer than this, the state is thrown away."""

# Bits of a row's status. A row may be fed to a model when nothing but DUPLICATE is set (``usable``).
WARMUP: Final = 1
CROSSED: Final = 2
ONE_SIDED: Final = 4
GAP: Final = 8
INCONSISTENT: Final = 16
DUPLICATE: Final = 32
STATUS_NAMES: Final[dict[int, str]] = {
    WARMUP: "WARMUP",
    CROSSED: "CROSSED",
    ONE_SIDED: "ONE_SIDED",
    GAP: "GAP",
    INCONSISTENT: "INCONSISTENT",
    DUPLICATE: "DUPLICATE",
}

FEATURES: Final[tuple[FeatureSpec, ...]] = declared()
NAMES: Final[tuple[str, ...]] = tuple(f.name for f in FEATURES)
F: Final = len(FEATURES)
SEASONAL: Final[tuple[int, ...]] = tuple(k for k, f in enumerate(FEATURES) if f.seasonal)
"""Columns of the clock features."""
FEED: Final[tuple[int, ...]] = tuple(k for k, f in enumerate(FEATURES) if f.feed)
"""Columns that measure the pace of the feed."""


def _mirror() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    sign = np.array([-1.0 if f.mirror == ODD else 1.0 for f in FEATURES], np.float32)
    partner = np.array(
        [k if f.mirror in (ODD, EVEN) else NAMES.index(f.mirror) for k, f in enumerate(FEATURES)], np.int64
    )
    return sign, partner


MIRROR_SIGN, MIRROR_PARTNER = _mirror()
"""A row X of a market whose mirror image has the row ``MIRROR_SIGN * X[MIRROR_PARTNER]``: float32 [F], +1 or
-1, and int64 [F], the column that takes the place (itself where none)."""


def schema_hash() -> str:
    """SHA-256 hex over names, windows and formula version: equal when rows mean the same."""
    said = [FORMULA_VERSION, [[f.name, float(f.window_s)] for f in FEATURES]]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


def usable(status: int) -> bool:
    """May a row with this status be fed to a model?"""
    return status & ~DUPLICATE == 0


def reasons(status: int) -> tuple[str, ...]:
    """The names of the bits set in ``status``."""
    return tuple(name for bit, name in STATUS_NAMES.items() if status & bit)
