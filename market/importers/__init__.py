"""From foreign files to a clean recording: find out what they are, read, check, clean, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from market.errors import RecordingError
from market.importers.moex_rts import MOEX_RTS
from market.importers.own import OWN
from market.importers.source import Importer
from market.recording import Recording, write_recording
from market.types import InstrumentDay
from market.validate import BookReport, clean_day

IMPORTERS: dict[str, Importer] = {importer.kind: importer for importer in (OWN, MOEX_RTS)}

Progress = Callable[[str], None]


def detect(path: Path) -> str:
    """The kind of source at ``path``, a key of ``IMPORTERS``; RecordingError if missing or unknown."""
    path = Path(path)
    if not path.exists():
        raise RecordingError(f"there is nothing at {path} to ingest")
    for importer in IMPORTERS.values():
        if importer.accepts(path):
            return importer.kind
    wanted = "; ".join(f"{i.kind}: {i.wants}" for i in IMPORTERS.values())
    raise RecordingError(f"{path} is no source that can be ingested. Known kinds: {wanted}")


def ingest(
    path: Path, out: Path, *, kind: str | None = None, progress: Progress | None = None
) -> tuple[Recording, dict[str, BookReport]]:
    """Read, check and clean the source at ``path``; write it as the recording ``out``, whole or not at all.

    ``kind`` is detected when None. ``progress`` receives lines for people. Returns the recording and the
    reports by ``"<ticker>/<day>"``. RecordingError when the source is missing, unknown, damaged or has a day
    without one sound book.
    """
    path, out = Path(path), Path(out)
    if kind is None:
        kind = detect(path)
    elif kind not in IMPORTERS:
        raise RecordingError(f"unknown kind of source {kind!r}; known kinds: {', '.join(IMPORTERS)}")
    elif not path.exists():
        raise RecordingError(f"there is nothing at {path} to ingest")
    if path.resolve() == out.resolve():
        raise RecordingError(f"{path} would be replaced by its own cleaned copy; give another output path")
    imported = IMPORTERS[kind].load(path)
    reports: dict[str, BookReport] = {}
    recording = write_recording(
        out,
        _cleaned(imported.days, reports, progress),
        source=imported.source,
        watermark=imported.watermark,
        tariff=imported.tariff,
        provenance=imported.provenance,
    )
    return recording, reports


def _cleaned(
    days: Iterable[InstrumentDay], reports: dict[str, BookReport], progress: Progress | None
) -> Iterator[InstrumentDay]:
    for raw in days:
        day, report = clean_day(raw)
        if not len(day.books):
            raise RecordingError(
                f"{raw.instrument.ticker} {raw.day}: none of its {len(raw.books):,} books is sound"
            )
        reports[f"{day.instrument.ticker}/{day.day}"] = report
        if progress is not None:
            for line in report.lines():
                progress(line)
        yield day
