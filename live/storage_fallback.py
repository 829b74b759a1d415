"""The file that takes records while SQLite does not: JSON lines, flushed to disk one batch at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from live.storage_schema import Record, statement


def append(path: Path, records: Iterable[Record]) -> None:
    """On the disk when this returns. Raises OSError."""
    lines = "".join(
        json.dumps({"table": r.table, "fields": dict(r.fields)}, separators=(",", ":")) + "\n"
        for r in records
    )
    with open(path, "a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def parse(text: str) -> tuple[list[Record], list[str]]:
    """(records, lines that are none: a crash tore them)."""
    records, damaged = [], []
    for line in text.splitlines():
        try:
            content = json.loads(line)
            record = Record(content["table"], content["fields"])
            statement(record)
        except (ValueError, KeyError, TypeError):
            damaged.append(line)
        else:
            records.append(record)
    return records, damaged


def keep_damaged(path: Path, lines: Iterable[str]) -> None:
    """Torn lines are kept beside the file for a person to look at."""
    with open(path.with_name(path.name + ".damaged"), "a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
