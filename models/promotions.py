"""``promotions.jsonl``: which version an alias named at which moment, who moved it, and why.

MLflow keeps no history of aliases. Each line holds the hash of the line before, so a line that is altered,
removed or put in between is found; a cut-off end is found by comparing the last lines with the registry
(``differences``), and by any copy of the journal (each backup holds one).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from market.errors import RegistryError
from models.bundle import canonical_json, sha256_hex

JOURNAL = "promotions.jsonl"
FIRST_LINK = "0" * 64
PREVIOUS = "previous"
MOVES = ("promote", "rollback")


def aliases_at(entries: Sequence[Mapping[str, Any]], at: datetime | None = None) -> dict[str, dict[str, Any]]:
    """By alias the move that was in force at ``at`` (with a time zone; None: now), ``previous`` included.

    A move that failed after its line was written is followed by a line that says so, and does not count.
    """
    failed = {(e["alias"], e["version"], e["number"] - 1) for e in entries if e["kind"] == "failed"}
    standing: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if at is not None and datetime.fromisoformat(entry["at"]) > at:
            continue
        if entry["kind"] not in MOVES or (entry["alias"], entry["version"], entry["number"]) in failed:
            continue
        if entry["alias"] == "prod" and "prod" in standing:
            standing[PREVIOUS] = standing["prod"]
        standing[entry["alias"]] = dict(entry)
    return standing


def differences(entries: Sequence[Mapping[str, Any]], held: Mapping[str, int]) -> list[str]:
    """What the registry's aliases and the journal disagree about, one sentence each: an alias that was moved
    by hand, or a journal that was cut or put back."""
    standing = {alias: int(entry["version"]) for alias, entry in aliases_at(entries).items()}
    said = []
    for alias in sorted({*standing, *held}):
        ours, theirs = standing.get(alias), held.get(alias)
        if ours != theirs:
            said.append(
                f"alias {alias}: the journal says {_version(ours)}, the registry says {_version(theirs)}"
            )
    return said


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All entries, oldest first; RegistryError names the first line that breaks the chain."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    entries: list[dict[str, Any]] = []
    link = FIRST_LINK
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            body = {k: v for k, v in entry.items() if k != "sha256"}
            sound = entry["sha256"] == sha256_hex(canonical_json(body)) and entry["previous"] == link
        except (ValueError, KeyError, AttributeError, TypeError):
            sound = False
        if not sound:
            raise RegistryError(
                f"line {number} of {path} does not continue the chain: the journal was altered or cut"
            )
        entries.append(entry)
        link = entry["sha256"]
    return entries


class Journal:
    """The journal under an exclusive lock, so that two promotions cannot fork the chain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self.entries = read_journal(self.path)
        except RegistryError:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        link = self.entries[-1]["sha256"] if self.entries else FIRST_LINK
        at = datetime.now(UTC).isoformat(timespec="seconds")
        body = {**fields, "at": at, "number": len(self.entries) + 1, "previous": link}
        entry = {**body, "sha256": sha256_hex(canonical_json(body))}
        self._file.write(canonical_json(entry))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries.append(entry)
        return entry
