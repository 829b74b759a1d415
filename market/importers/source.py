"""What an importer hands on: days in the product's units, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from market.recording import Watermark
from market.types import InstrumentDay


@dataclass(frozen=True, slots=True)
class Imported:
    """The answer of ``Importer.load``. ``days`` is read lazily, one day in memory at a time, once."""

    days: Iterable[InstrumentDay]
    source: str
    watermark: Watermark
    tariff: str
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Importer:
    """One kind of source. ``accepts`` only looks; ``load`` raises RecordingError with what is wrong."""

    kind: str
    wants: str
    """What this kind looks like on disk, for messages."""
    accepts: Callable[[Path], bool]
    load: Callable[[Path], Imported]
