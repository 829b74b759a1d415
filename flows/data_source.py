"""What ``scalper data`` looks at: a recording, or foreign files that an importer reads, day by day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from market.errors import RecordingError
from market.recording import INFO_FILE, Recording
from market.recording.log import UNFINISHED
from market.types import InstrumentDay


@dataclass(frozen=True, slots=True)
class Source:
    """``recording`` is None for foreign files; ``data_hash`` is then empty.

    ``remark``: what is unusual about the recording (interrupted, or still being made), or empty.
    """

    paths: tuple[Path, ...]
    source: str
    watermark: str
    tariff: str
    data_hash: str
    remark: str
    recording: Recording | None
    foreign: Iterable[InstrumentDay] = ()

    @property
    def name(self) -> str:
        return ", ".join(str(path) for path in self.paths)

    @property
    def title(self) -> str:
        """Without the folders above: for pages that travel."""
        return ", ".join(path.resolve().name for path in self.paths)

    def days(self, ticker: str | None = None, day: str | None = None) -> Iterator[InstrumentDay]:
        """One at a time, as recorded; RecordingError when there is no such ticker or day."""
        found = False
        for item in self.foreign if self.recording is None else _own(self.recording, ticker, day):
            if ticker in (None, item.instrument.ticker) and day in (None, item.day):
                found = True
                yield item
        if not found:
            wanted = " ".join(part for part in (ticker, day) if part) or "any day"
            raise RecordingError(f"{self.name} does not hold {wanted}")


def _own(recording: Recording, ticker: str | None, day: str | None) -> Iterator[InstrumentDay]:
    for name, days in recording.info.days.items():
        for one in days:
            if ticker in (None, name) and day in (None, one):
                yield recording.read(name, one)


def open_source(paths: Sequence[Path]) -> Source:
    """One recording, or foreign files that ``scalper ingest`` would take together.

    RecordingError when nothing is there, or nothing that can be read.
    """
    for path in paths:
        if not path.exists():
            raise RecordingError(f"there is no recording at {path}: no such file or folder")
    paths = tuple(paths)
    if len(paths) == 1 and is_recording(paths[0]):
        recording = Recording.open(paths[0])
        info = recording.info
        # While it is being written there is nothing final to hash, and the remark says so.
        data_hash = recording.data_hash() if recording.final else ""
        return Source(paths, info.source, info.watermark, info.tariff, data_hash, recording.remark, recording)
    from market.importers import load  # compiles kernels that a recording does not need

    loaded = load(paths)
    return Source(paths, loaded.source, loaded.watermark, loaded.tariff, "", "", None, loaded.days)


def is_recording(path: Path) -> bool:
    return (path / INFO_FILE).is_file() or (path / UNFINISHED).is_dir()
