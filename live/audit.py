"""The audit trail: W3C Extended Log Format, one line per decision that touched money or safety.

Fields are separated by spaces, so values are percent-encoded where they contain one; ``-`` is an absent
value. ``#Fields`` never changes inside a file; extra facts of an event are ``key=value`` pairs joined by
``;``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

TAGS = ("ORDER", "RISK", "RESOURCE", "SESSION", "CONNECTIVITY", "MODEL")
FIELDS = "date time x-market-ns x-session x-tag x-event x-fields"
SOFTWARE = "Scalper live-runner"
_SAFE = "!#$&'()*+,-./:<>?@[]^_`{|}~"  # what a value may hold unescaped: no space, '%', ';', '=' or quote


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One parsed line."""

    wall: str
    market_ns: int
    session: str
    tag: str
    event: str
    fields: dict[str, str]


class AuditLog:
    """Appends lines and flushes each; ``sync`` also waits for the disk (orders, halts)."""

    def __init__(self, path: Path, session_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._session = session_id
        self._file: IO[str] = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        if self._file.tell() == 0:
            start = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
            self._file.write(
                f"#Version: 1.0\n#Software: {SOFTWARE}\n#Start-Date: {start}\n#Fields: {FIELDS}\n"
            )
            self._file.flush()

    def write(
        self, market_ns: int, tag: str, event: str, fields: Mapping[str, Any], *, sync: bool = False
    ) -> None:
        """One line. ``tag`` must be one of TAGS (an unknown one is a defect in the caller)."""
        if tag not in TAGS:
            raise ValueError(f"audit tag {tag!r} is not one of {', '.join(TAGS)}")
        wall = datetime.now(UTC)
        pairs = ";".join(f"{_escape(k)}={_escape(v)}" for k, v in fields.items()) or "-"
        self._file.write(
            f"{wall:%Y-%m-%d} {wall:%H:%M:%S}.{wall.microsecond // 1000:03d} {market_ns} {self._session} "
            f"{tag} {_escape(event)} {pairs}\n"
        )
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _escape(value: Any) -> str:
    if value is None:
        return "-"
    return quote(str(value), safe=_SAFE) or "-"


def read(path: Path) -> Iterator[AuditLine]:
    """The lines of an audit file, values decoded; directives (#...) are skipped."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#") or not line.strip():
                continue
            date, time, market_ns, session, tag, event, packed = line.rstrip("\n").split(" ")
            pairs = (pair.split("=", 1) for pair in packed.split(";")) if packed != "-" else ()
            fields = {unquote(k): unquote(v) for k, v in pairs}
            yield AuditLine(f"{date}T{time}Z", int(market_ns), session, tag, unquote(event), fields)
