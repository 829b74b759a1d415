"""Recordings in the product's own layout: from ``live-runner record``, the simulator or an earlier ingest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from market.importers.source import Imported, Importer
from market.recording import INFO_FILE, Recording
from market.types import InstrumentDay


def accepts(path: Path) -> bool:
    return (path / INFO_FILE).is_file()


def load(path: Path) -> Imported:
    recording = Recording.open(path)
    info = recording.info
    return Imported(
        _days(recording),
        info.source,
        info.watermark,
        info.tariff,
        {**info.provenance, "ingested_data_hash": recording.data_hash()},
    )


def _days(recording: Recording) -> Iterator[InstrumentDay]:
    for ticker, days in recording.info.days.items():
        for day in days:
            yield recording.read(ticker, day)


OWN = Importer("own", f"a folder with {INFO_FILE}", accepts, load)
