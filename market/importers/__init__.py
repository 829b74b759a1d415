"""From foreign files to a clean recording: find out what they are, read, check, clean, write.

``docs/importers.md`` says for each kind what its clocks and prices mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from market.errors import RecordingError
from market.importers.binance import BINANCE
from market.importers.columns import COLUMNS
from market.importers.fi2010 import FI2010
from market.importers.files import look
from market.importers.jsonl import JSONL
from market.importers.lobster import LOBSTER
from market.importers.moex_rts import MOEX_RTS
from market.importers.moex_sber import MOEX_SBER
from market.importers.own import OWN
from market.importers.qsh import QSH
from market.importers.source import (
    NO_OPTIONS,
    Imported,
    Importer,
    ImportOptions,
    Progress,
    silent,
)
from market.recording import Recording, write_recording
from market.types import InstrumentDay
from market.validate import BookReport, clean_day

__all__ = [
    "IMPORTERS", "NO_OPTIONS", "ImportOptions", "Imported", "Importer", "Paths", "detect", "ingest", "load",
]  # fmt: skip

IMPORTERS: dict[str, Importer] = {
    importer.kind: importer
    for importer in (OWN, MOEX_RTS, QSH, LOBSTER, BINANCE, FI2010, MOEX_SBER, JSONL, COLUMNS)
}

Paths = Path | Sequence[Path]
"""A file, several files of one kind, or one folder."""


def detect(paths: Paths) -> str:
    """The kind of source at ``paths``, a key of ``IMPORTERS``, by content where content tells.
    RecordingError if something is missing, unknown, or of another kind than the rest."""
    return _sources(paths, None)[0]


def load(
    paths: Paths, *, kind: str | None = None, options: ImportOptions = NO_OPTIONS, progress: Progress = silent
) -> Imported:
    """Read ``paths`` as they are, without cleaning. ``kind`` is detected when None. A folder that is no
    source itself stands for the files in it, at any depth, that are of one known kind."""
    kind, files = _sources(paths, kind)
    return IMPORTERS[kind].load(files, options, progress)


def ingest(
    paths: Paths,
    out: Path,
    *,
    kind: str | None = None,
    options: ImportOptions = NO_OPTIONS,
    progress: Progress | None = None,
) -> tuple[Recording, dict[str, BookReport]]:
    """Read, check and clean what is at ``paths``; write it as the recording ``out``, whole or not at all.

    ``progress`` receives lines for people. Returns the recording and the reports by ``"<ticker>/<day>"``.
    RecordingError when a source is missing, unknown or damaged, lacks a fact that only ``options`` can give,
    or has a day whose books are all unsound, or which has neither a book nor a sound trade.
    """
    say = progress or silent
    out = Path(out)
    for path in _listed(paths):
        if path.resolve() == out.resolve():
            raise RecordingError(
                f"{path} would be replaced by its own cleaned copy; give another output path"
            )
        if out.resolve() in path.resolve().parents:
            raise RecordingError(f"{path} lies inside the output {out}; give another output path")
    imported = load(paths, kind=kind, options=options, progress=say)
    reports: dict[str, BookReport] = {}
    recording = write_recording(
        out,
        _cleaned(imported.days, reports, say),
        source=imported.source,
        watermark=imported.watermark,
        tariff=imported.tariff,
        provenance=imported.provenance,
    )
    return recording, reports


def _listed(paths: Paths) -> tuple[Path, ...]:
    listed = (Path(paths),) if isinstance(paths, str | Path) else tuple(Path(p) for p in paths)
    if not listed:
        raise RecordingError("nothing was given to ingest")
    return tuple(dict.fromkeys(listed))


def _sources(paths: Paths, kind: str | None) -> tuple[str, tuple[Path, ...]]:
    """The kind and the files (or folders that are a source themselves) behind ``paths``."""
    if kind is not None and kind not in IMPORTERS:
        raise RecordingError(f"unknown kind of source {kind!r}; known kinds: {', '.join(IMPORTERS)}")
    found: list[Path] = []
    for path in _listed(paths):
        if not path.exists():
            raise RecordingError(f"there is nothing at {path} to ingest")
        kinds = [kind] if kind else [i.kind for i in IMPORTERS.values()]
        inside = _inside(path, kinds)
        for one, of_kind in inside:
            if kind is not None and of_kind != kind:
                raise RecordingError(
                    f"{found[0]} is of kind {kind}, but {one} of kind {of_kind}; ingest them apart"
                )
            kind = of_kind
            found.append(one)
    assert kind is not None
    return kind, tuple(dict.fromkeys(found))


def _inside(path: Path, kinds: list[str]) -> list[tuple[Path, str]]:
    """``path`` with its kind, or the files in it with theirs."""
    if (of_kind := _kind(path, kinds)) is not None:
        return [(path, of_kind)]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        inside = [(file, of_kind) for file in files if (of_kind := _kind(file, kinds)) is not None]
        if inside:
            return inside
    if len(kinds) == 1 and path.is_file():
        return [(path, kinds[0])]  # the person says so; the importer will say what is wrong with it
    if path.is_file() and (trouble := look(path).trouble):
        raise RecordingError(f"{path} is damaged: {trouble}")
    wanted = "; ".join(f"{k}: {IMPORTERS[k].wants}" for k in kinds)
    raise RecordingError(f"{path} is no source that can be ingested. Known kinds: {wanted}")


def _kind(path: Path, kinds: list[str]) -> str | None:
    seen = look(path)
    return next((kind for kind in kinds if IMPORTERS[kind].accepts(seen)), None)


def _cleaned(
    days: Iterable[InstrumentDay], reports: dict[str, BookReport], progress: Progress
) -> Iterator[InstrumentDay]:
    for raw in days:
        day, report = clean_day(raw)
        if len(raw.books) and not len(day.books):
            raise RecordingError(
                f"{raw.instrument.ticker} {raw.day}: none of its {len(raw.books):,} books is sound"
            )
        if not len(day.books) and not len(day.trades):
            raise RecordingError(
                f"{raw.instrument.ticker} {raw.day}: no book, and no sound trade of {len(raw.trades):,}"
            )
        reports[f"{day.instrument.ticker}/{day.day}"] = report
        for line in report.lines():
            progress(line)
        yield day
