"""Kind ``own``: the product's own layout, from ``live-runner record``, the simulator or an earlier ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from market.errors import RecordingError
from market.importers.clock import last_of_each
from market.importers.files import Look
from market.importers.source import FACTS, Imported, Importer, ImportOptions, Progress
from market.recording import INFO_FILE, Recording
from market.recording.log import UNFINISHED
from market.types import InstrumentDay


def described_itself(options: ImportOptions, what: str) -> None:
    """RecordingError when something is given that ``what`` already says."""
    for name in FACTS:
        if getattr(options, name) is not None:
            raise RecordingError(
                f"{what} describes its instruments itself, so {name} cannot be given; leave it out"
            )


def thinned(days: Iterable[InstrumentDay], options: ImportOptions) -> Iterator[InstrumentDay]:
    """The days with the last book of each interval, if that is wanted."""
    for day in days:
        keep = last_of_each(day.books.recv_ns, options.book_every_ns)
        yield day if keep.all() else replace(day, books=day.books.rows(keep))


def accepts(seen: Look) -> bool:
    return seen.is_dir and ((seen.path / INFO_FILE).is_file() or (seen.path / UNFINISHED).is_dir())


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    if len(paths) != 1:
        raise RecordingError(f"{len(paths)} recordings at once: give one folder with {INFO_FILE}")
    described_itself(options, "a recording")
    recording = Recording.open(paths[0])
    info = recording.info
    return Imported(
        thinned(_days(recording), options),
        info.source,
        info.watermark,
        options.tariff or info.tariff,
        {**info.provenance, "ingested_data_hash": recording.data_hash()},
    )


def _days(recording: Recording) -> Iterator[InstrumentDay]:
    for ticker, days in recording.info.days.items():
        for day in days:
            yield recording.read(ticker, day)


OWN = Importer("own", f"a folder with {INFO_FILE}", accepts, load)
