"""What an importer is, what it may be told, and what it hands on: days in the product's units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from market.importers.files import Look
from market.recording import Watermark
from market.types import InstrumentDay

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person knows and the files do not say. None: take it from the files, or say what is missing.

    ``instrument_kind``: share or future. ``lot``: units in one lot. ``tick_nano``, ``tick_value_nano``: see
    ``Instrument``. ``size_step_nano``: the size of one recorded lot in the source's units, in nano, for
    venues that trade fractions. ``book_every_ns``: keep the last book of each such interval, 0 keeps all.
    ``columns``: the mapping of kind ``columns``. ``instruments``: facts by ticker; they go first.
    """

    ticker: str | None = None
    class_code: str | None = None
    instrument_kind: Literal["share", "future"] | None = None
    lot: int | None = None
    tick_nano: int | None = None
    tick_value_nano: int | None = None
    size_step_nano: int | None = None
    currency: str | None = None
    tariff: str | None = None
    book_every_ns: int = 0
    columns: dict[str, Any] | None = None
    instruments: dict[str, ImportOptions] = field(default_factory=dict)
    listed: bool = False
    """These are facts of one instrument by its name; without it they are meant for the only one there is."""

    def of(self, ticker: str) -> ImportOptions:
        """The options for one instrument of the files."""
        if self.listed or ticker not in self.instruments:
            return self
        given = {name: getattr(self.instruments[ticker], name) for name in FACTS}
        return replace(self, listed=True, **{name: v for name, v in given.items() if v is not None})


FACTS = (
    "ticker", "class_code", "instrument_kind", "lot", "tick_nano", "tick_value_nano", "size_step_nano",
    "currency",
)  # fmt: skip
"""The options that describe an instrument."""

NO_OPTIONS = ImportOptions()


@dataclass(frozen=True, slots=True)
class Imported:
    """The answer of ``Importer.load``. ``days`` is read lazily, one day in memory at a time, once.

    ``provenance`` may grow while ``days`` is read: counts are known only after the files were.
    """

    days: Iterable[InstrumentDay]
    source: str
    watermark: Watermark
    tariff: str
    provenance: dict[str, Any] = field(default_factory=dict)


Read = Callable[[tuple[Path, ...], ImportOptions, Progress], Imported]


def silent(line: str) -> None:
    """A ``Progress`` that tells nobody."""


@dataclass(frozen=True, slots=True)
class Importer:
    """One kind of source. ``accepts`` only looks; ``read`` raises RecordingError with what is wrong."""

    kind: str
    wants: str
    """What this kind looks like on disk, for messages."""
    accepts: Callable[[Look], bool]
    read: Read

    def load(
        self,
        paths: Path | Sequence[Path],
        options: ImportOptions = NO_OPTIONS,
        progress: Progress = silent,
    ) -> Imported:
        """Read ``paths`` (files, or one folder) as this kind."""
        listed = (Path(paths),) if isinstance(paths, str | Path) else tuple(Path(p) for p in paths)
        return self.read(listed, options, progress)
