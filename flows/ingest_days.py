"""The recording of the line, day by day: what was cleaned before, and has not changed at its source, is taken
over.

Only a recording of our own says which files a day consists of; of foreign files all are read again. Beside
the clean recording lies a list: for each day the hash of what it was made of, the hashes of its files, and
what is told of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows import partitions
from flows.stages.common import Say, tidy, whole, write_json
from market import importers
from market.errors import RecordingError
from market.fees import tariff as known_tariff
from market.inspect import inspect_day
from market.recording import INFO_FILE, UNFINISHED, Recording, RecordingInfo
from market.verdict import judge

CODE = (
    "flows/ingest_days.py", "flows/partitions.py", "market/days.py", "market/importers", "market/inspect",
    "market/recording", "market/types.py", "market/validate.py", "market/verdict.py",
)  # fmt: skip
"""What decides about a clean day and what is told of it, besides the recorded one."""
LIBRARIES = ("numpy", "pyarrow")

Days = dict[str, dict[str, Any]]
"""By ``"<ticker>/<day>"``: ``report`` and ``verdict`` as plain data; in the list also ``inputs`` and
``files``."""


@dataclass(frozen=True, slots=True)
class Ingested:
    recording: Recording
    days: Days


def ingest(source: Path, out: Path, notes: Path, say: Say) -> Ingested:
    """Make ``out`` the clean recording of ``source``, whole or not at all; ``notes`` is the list beside it.

    RecordingError as ``market.importers.ingest``, and for a day that no market looks like.
    """
    scratch = out.with_name(f".{out.name}.fresh")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    tidy(out)
    asked = _asked(source)
    kept = _kept(asked, out, notes)
    fresh = [name for name in asked or () if name not in kept]
    if not kept:
        _remove_torn(out)
        recording, reports = importers.ingest(source, out, progress=say)
        days = {name: {"report": report.to_dict()} for name, report in reports.items()}
        _judge(recording, days, say)
    else:
        days = dict(kept)
        for name in days:
            say(f"{name.replace('/', ' ')}: {days[name]['report']['books']:,} books, unchanged")
        try:
            recording = _grown(source, out, scratch, fresh, days, say)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if asked:
        listed = {
            name: {**days[name], "inputs": made_of, "files": _hashes(recording, name)}
            for name, made_of in asked.items()
        }
        write_json(notes, listed)
    else:
        notes.unlink(missing_ok=True)
    return Ingested(recording, dict(sorted(days.items())))


def _asked(source: Path) -> dict[str, str] | None:
    """The days of a recording of our own and what each is made of; None where that cannot be said."""
    if not source.is_dir() or importers.detect(source) != "own" or (source / UNFINISHED).exists():
        return None
    recording, made_by = Recording.open(source), partitions.maker(CODE, LIBRARIES)
    return {
        f"{ticker}/{day}": partitions.inputs(made_by, recording, day, ticker)
        for ticker, days in recording.info.days.items()
        for day in days
    }


def _kept(asked: dict[str, str] | None, out: Path, notes: Path) -> Days:
    """What the list tells of the days in ``out`` that would come out the same."""
    try:
        listed: Days = json.loads(notes.read_text(encoding="utf-8"))
        return {
            name: {key: listed[name][key] for key in ("report", "verdict")}
            for name, made_of in (asked or {}).items()
            if name in listed
            and listed[name]["inputs"] == made_of
            and all(partitions.sha256(out / file) == seen for file, seen in listed[name]["files"].items())
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _remove_torn(out: Path) -> None:
    """Part of a recording that no run of this stage can use: DVC leaves it where it is, and the importers
    replace nothing but recordings."""
    if out.is_dir() and not (out / INFO_FILE).exists() and not (out / UNFINISHED).exists():
        shutil.rmtree(out)


def _grown(source: Path, out: Path, scratch: Path, fresh: list[str], days: Days, say: Say) -> Recording:
    """``out`` with the days of ``days``, which it has, and those of ``fresh``; adds what is told of them."""
    given = Recording.open(source).info
    places = dict.fromkeys(days, out)
    if fresh:
        cleaned, reports = importers.ingest(
            _only(source, given, fresh, scratch / "source"), scratch / "clean", progress=say
        )
        told = {name: {"report": report.to_dict()} for name, report in reports.items()}
        _judge(cleaned, told, say)
        days.update(told)
        places |= dict.fromkeys(fresh, scratch / "clean")
    imported = importers.load(source)
    known_tariff(imported.tariff)
    with whole(out) as folder:
        for name, place in places.items():
            for file in given.files(*name.split("/")):
                partitions.take_over(place / file, folder / file)
        RecordingInfo.of(
            imported.source, imported.watermark, imported.tariff,
            {i.ticker: i for i in given.instruments if given.days.get(i.ticker)},
            {ticker: set(found) for ticker, found in given.days.items()},
            {ticker: set(found) for ticker, found in given.own.items()},
            imported.provenance,
        ).write(folder)  # fmt: skip
    return Recording.open(out)


def _only(source: Path, given: RecordingInfo, names: list[str], into: Path) -> Path:
    """A recording of nothing but these days, by links."""
    for name in names:
        for file in given.files(*name.split("/")):
            partitions.take_over(source / file, into / file)

    def some(days: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        chosen = {t: tuple(day for day in found if f"{t}/{day}" in names) for t, found in days.items()}
        return {ticker: found for ticker, found in chosen.items() if found}

    days = some(given.days)
    instruments = tuple(i for i in given.instruments if i.ticker in days)
    replace(given, instruments=instruments, days=days, own=some(given.own)).write(into)
    return into


def _judge(recording: Recording, days: Days, say: Say) -> None:
    """Add each day's verdict; RecordingError for a day that is implausible."""
    for ticker, day in _each(recording):
        verdict = judge(inspect_day(recording.read(ticker, day)))
        if verdict.level == "implausible":
            why = "; ".join(reason.text for reason in verdict.reasons if reason.level == verdict.level)
            raise RecordingError(
                f"{ticker} {day} is implausible: {why}. Look at it with `scalper data plot`; "
                "nothing may be learned from it, so leave that day out"
            )
        for reason in verdict.reasons:
            say(f"{ticker} {day} {verdict.level}: {reason.text}")
        days[f"{ticker}/{day}"]["verdict"] = verdict.to_dict()


def _each(recording: Recording) -> Iterator[tuple[str, str]]:
    for ticker, days in recording.info.days.items():
        for day in days:
            yield ticker, day


def _hashes(recording: Recording, name: str) -> dict[str, str]:
    """SHA-256 (hex) of the files of ``"<ticker>/<day>"``."""
    return {file: partitions.sha256(recording.path / file) for file in recording.info.files(*name.split("/"))}
