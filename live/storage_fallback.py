"""The file that takes records while SQLite does not: JSON lines, flushed to disk one batch at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from live.storage_schema import Record, statement


def line(record: Record) -> str:
    """Raises ValueError for a record that no table and no text can hold."""
    try:
        statement(record)
        content = {"table": record.table, "fields": dict(record.fields)}
        if record.must_be_new:
            content["must_be_new"] = True
        return json.dumps(content, separators=(",", ":"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def append(path: Path, lines: Iterable[str]) -> None:
    """On the disk when this returns. Raises OSError, and then nothing was added: half a line would swallow
    the next one, and who was refused must not come back with the merge.
    """
    rest = memoryview("".join(one + "\n" for one in lines).encode())
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def parse(content: bytes) -> tuple[list[Record], list[bytes]]:
    """(records, lines that are none: a crash tore them)."""
    records, damaged = [], []
    for one in content.splitlines():
        try:
            told = json.loads(one.decode())
            record = Record(told["table"], told["fields"], must_be_new=told.get("must_be_new") is True)
            statement(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(one)
        else:
            records.append(record)
    return records, damaged


def keep_damaged(path: Path, lines: Iterable[bytes]) -> None:
    """What cannot be merged is kept beside the file for a person to look at."""
    with open(path.with_name(path.name + ".damaged"), "ab") as file:
        file.writelines(one + b"\n" for one in lines)
