"""From the log to the Parquet tables: all or nothing, whenever the process or the power goes.

The new tables are made in ``_unfinished/compacting`` and flushed; renaming that folder to ``compacted`` is
the moment from which they count. After it, moving them to their places and removing their logs can be
repeated as often as needed; before it, the logs are all there is. Rows are therefore never lost and never
there twice.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from market.days import Day
from market.recording.info import INFO_FILE, RecordingInfo, read_info
from market.recording.log import UNFINISHED, sync_folder
from market.recording.tables import BOOKS, OWN, TRADES, TableKind, row_groups, write_table
from market.recording.unfinished import COMMITTED, Unfinished, log_files

BUILDING = "compacting"
CONSUMED_FILE = "logs.json"


def finish(recording: Path, logs: list[Path] | None = None, *, last: bool = True) -> Unfinished | None:
    """Makes ``logs`` (default: all there are) part of the recording. Only for the owner of its lock.

    ``last``: no recorder is at work any more. Returns what was taken over, None where there was nothing; on
    OSError or RecordingError (a full disk) the logs stay as they are and may be finished later.
    """
    work = recording / UNFINISHED
    _move_into_place(recording)
    shutil.rmtree(work / BUILDING, ignore_errors=True)
    logs = log_files(recording) if logs is None else logs
    taken = Unfinished(logs)
    if not taken.rows and not (recording / INFO_FILE).exists():
        for log in logs:
            _remove(log, recording, damaged=log in taken.damaged)
        return None
    if not logs:
        return None
    try:
        _build(recording, work / BUILDING, taken, logs, last)
    except BaseException:
        shutil.rmtree(work / BUILDING, ignore_errors=True)
        raise
    (work / BUILDING).rename(work / COMMITTED)
    sync_folder(work)
    _move_into_place(recording)
    return taken


def _build(recording: Path, building: Path, taken: Unfinished, logs: list[Path], last: bool) -> None:
    info = read_info(recording) if (recording / INFO_FILE).exists() else None
    after = taken.info_after(info, finished=last)
    building.mkdir()
    for ticker, days in taken.days().items():
        for day in days.values():
            at = building / ticker / day.name
            at.mkdir(parents=True)
            for kind in (BOOKS, TRADES, OWN):
                if f"{ticker}/{day.name}/{kind.file}" in after.files(ticker, day.name):
                    write_table(at / kind.file, kind, _pieces(recording, info, taken, kind, ticker, day))
            sync_folder(at)
        sync_folder(building / ticker)
    after.write(building)
    consumed = {"logs": [log.name for log in logs], "damaged": [log.name for log in taken.damaged]}
    with (building / CONSUMED_FILE).open("w", encoding="utf-8") as file:
        json.dump(consumed, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(building)


def _pieces(
    recording: Path, info: RecordingInfo | None, taken: Unfinished, kind: TableKind, ticker: str, day: Day
) -> Iterator[pa.Table]:
    """What the recording has of that table already, then what the log adds."""
    name = f"{ticker}/{day.name}/{kind.file}"
    if info is not None and day.name in info.days.get(ticker, ()) and name in info.files(ticker, day.name):
        yield from row_groups(recording / name, kind)
    for rows in taken.pieces(kind, ticker, day):
        yield kind.to_arrow(rows, f"{ticker} {day.name}")


def _move_into_place(recording: Path) -> None:
    """The second half, which may have been begun before."""
    work = recording / UNFINISHED
    committed = work / COMMITTED
    if not committed.exists():
        return
    if not (committed / CONSUMED_FILE).exists():
        committed.rmdir()  # all but this was done
        return
    for day in sorted(committed.glob("*/*")):
        at = recording / day.relative_to(committed)
        at.mkdir(parents=True, exist_ok=True)
        for table in sorted(day.iterdir()):
            table.replace(at / table.name)
        sync_folder(at)
        sync_folder(at.parent)
    if (committed / INFO_FILE).exists():
        (committed / INFO_FILE).replace(recording / INFO_FILE)
    sync_folder(recording)
    consumed = json.loads((committed / CONSUMED_FILE).read_text("utf-8"))
    for name in consumed["logs"]:
        _remove(work / name, recording, damaged=name in consumed["damaged"])
    # The list goes last: without it nobody could finish this.
    for left in sorted(committed.rglob("*"), reverse=True):
        if left.is_dir():
            left.rmdir()
    (committed / CONSUMED_FILE).unlink()
    committed.rmdir()
    sync_folder(work)


def _remove(log: Path, recording: Path, *, damaged: bool) -> None:
    """Takes a log away; one that no kill can explain is kept beside the tables for a person to look at."""
    if damaged and log.exists():
        log.rename(recording / f"damaged-{log.stat().st_mtime_ns}-{log.name}")
    log.unlink(missing_ok=True)
