"""The audit trail: W3C Extended Log Format, one line per decision that touched money or safety.

Fields are separated by spaces, so values are percent-encoded where they contain one; ``-`` is an absent
value. ``#Fields`` never changes inside a file; extra facts of an event are ``key=value`` pairs joined by
``;``. Milliseconds have a column of their own, because most log tools know whole seconds only.

Every line is chained: ``x-chain`` is the SHA-256 of the chain so far and the line itself, directives
included, so nothing can be altered, left out or put in without breaking every line after it. ``audit.head``
beside the log holds the number and chain of the last line, so a tail that was cut off shows as well. The
log is rotated at midnight UTC; the new file names the old one and goes on from its chain
(``live.audit_verify`` checks all of it).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from live.secrets import redacted

TAGS = ("ORDER", "RISK", "RESOURCE", "SESSION", "CONNECTIVITY", "MODEL")
FIELDS = "date time x-ms x-market-ns x-session x-seq x-tag x-event x-trace x-fields x-chain"
SOFTWARE = "Scalper live-runner"
GENESIS = "0" * 64
"""The chain before the first line."""
TAIL_BYTES = 1 << 18
"""Enough of a file's end to hold its last line."""
MAX_TRACES = 20_000
_SAFE = "!#$&'()*+,-./:<>?@[]^_`{|}~"  # what a value may hold unescaped: no space, '%', ';', '=' or quote
_COLUMNS = len(FIELDS.split())
_REMARK = re.compile(r"#Remark: chain part=(\d+) previous=(\S+) seq=(\d+) state=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One parsed line. ``trace`` is empty where the event belongs to no signal."""

    wall: str
    market_ns: int
    session: str
    tag: str
    event: str
    fields: dict[str, str]
    seq: int = 0
    trace: str = ""
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """How a file goes on from the one before: its place in the sequence, and the chain it starts with."""

    part: int
    previous: str
    seq: int
    state: str

    def remark(self) -> str:
        return f"#Remark: chain part={self.part} previous={self.previous} seq={self.seq} state={self.state}"


FIRST = Start(1, "-", 0, GENESIS)


def advance(state: str, text: str) -> str:
    """The chain after one more line (an entry without its ``x-chain``, or a directive)."""
    return hashlib.sha256(f"{state}\n{text}".encode()).hexdigest()


def head_path(path: Path) -> Path:
    """Where the number and chain of the last line are kept."""
    return path.with_suffix(".head")


class AuditLog:
    """Appends lines; ``sync`` also waits for the disk (orders, halts). Any thread may write."""

    def __init__(
        self, path: Path, session_id: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._session, self._now = session_id, now
        self._lock = threading.RLock()
        self._traces: OrderedDict[str, str] = OrderedDict()
        self._start, self._seq, self._state = FIRST, 0, GENESIS
        self._chain = GENESIS
        """Of the last entry; ``_state`` has gone on over directives since."""
        wall = now()
        self._day = f"{wall:%Y-%m-%d}"
        torn = self._take_over()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._head = os.open(head_path(path), os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(self._file).st_size == 0:
            self._write_header(wall)
        elif f"{wall:%Y-%m-%d}" > self._day:
            self._rotate(wall)
        self._look_at_head()
        if torn:
            self.write(0, "RESOURCE", "AUDIT_LINE_TORN", {"text": torn})

    @property
    def head(self) -> tuple[int, str]:
        """(number, chain) of the last line: written down elsewhere, it pins everything up to there."""
        return self._seq, self._chain

    def write(
        self, market_ns: int, tag: str, event: str, fields: Mapping[str, Any], *, sync: bool = False
    ) -> None:
        """One line. ``tag`` must be one of TAGS (an unknown one is a defect in the caller).

        ``trace_id`` gets a column of its own; lines about an order have that of the line that placed it.
        """
        if tag not in TAGS:
            raise ValueError(f"audit tag {tag!r} is not one of {', '.join(TAGS)}")
        with self._lock:
            wall = self._now()
            if f"{wall:%Y-%m-%d}" > self._day:
                self._rotate(wall)
            trace = self._trace_of(fields)
            pairs = ";".join(f"{_escape(k)}={_escape(v)}" for k, v in fields.items() if k != "trace_id")
            body = (
                f"{wall:%Y-%m-%d} {wall:%H:%M:%S} {wall.microsecond // 1000:03d} {market_ns} {self._session} "
                f"{self._seq + 1} {tag} {_escape(event)} {_escape(trace)} {pairs or '-'}"
            )
            chain = advance(self._state, body)
            self._append(f"{body} {chain}\n")
            self._seq, self._state, self._chain = self._seq + 1, chain, chain
            os.pwrite(self._head, _head_record(self._seq, chain), 0)
            if sync:
                os.fsync(self._file)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                os.close(self._head)
                self._file = -1

    # ---- the chain over files

    def _take_over(self) -> str:
        """Goes on where an earlier process stopped; returns what it left of a torn last line."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._go_on_from(_newest_rotated(self.path))
            return ""
        with open(self.path, "rb") as file:
            opening = file.read(4096).decode("utf-8", "replace").splitlines()
        if f"#Fields: {FIELDS}" not in opening:
            # A log of an earlier format, or of another program: kept, and no part of the chain.
            self.path.replace(_free(self.path, f"unchained-{self._now():%Y%m%d}"))
            self._go_on_from(_newest_rotated(self.path))
            return ""
        torn = _cut_torn(self.path)
        self._go_on_from(self.path)
        started = next((line for line in opening if line.startswith("#Start-Date: ")), "")
        self._day = started.removeprefix("#Start-Date: ")[:10] or self._day
        return torn

    def _go_on_from(self, path: Path | None) -> None:
        if path is None:
            return
        start, self._seq, self._chain, self._state = end_of(path)
        self._start = start
        if path != self.path:
            self._start = Start(start.part + 1, path.name, self._seq, self._state)

    def _write_header(self, wall: datetime) -> None:
        self._day = f"{wall:%Y-%m-%d}"
        lines = (
            "#Version: 1.0",
            f"#Software: {SOFTWARE}",
            f"#Start-Date: {wall:%Y-%m-%d %H:%M:%S}",
            self._start.remark(),
            f"#Fields: {FIELDS}",
        )
        self._append("".join(line + "\n" for line in lines))
        for line in lines:
            self._state = advance(self._state, line)

    def _rotate(self, wall: datetime) -> None:
        """Closes the day's file under its date; the next one goes on from its chain."""
        last = f"#End-Date: {wall:%Y-%m-%d %H:%M:%S}"
        self._append(last + "\n")
        self._state = advance(self._state, last)
        os.fsync(self._file)
        os.close(self._file)
        kept = _free(self.path, self._day.replace("-", ""))
        self.path.replace(kept)
        self._start = Start(self._start.part + 1, kept.name, self._seq, self._state)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._write_header(wall)

    def _look_at_head(self) -> None:
        """Lines that were there when the head was written and are not now: said in the log itself."""
        known = read_head(self.path)
        if known is not None and known[0] > self._seq:
            fields = {"last_seq": known[0], "last_chain": known[1], "found_seq": self._seq}
            self.write(0, "RESOURCE", "AUDIT_TAIL_MISSING", fields, sync=True)
        else:
            os.pwrite(self._head, _head_record(self._seq, self._chain), 0)

    def _append(self, text: str) -> None:
        """Whole or not at all: half a line would break the chain for every line after it."""
        data = text.encode()
        before = os.fstat(self._file).st_size
        try:
            done = os.write(self._file, data)
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _trace_of(self, fields: Mapping[str, Any]) -> str:
        trace, order = fields.get("trace_id"), fields.get("client_order_id")
        if trace is None:
            return self._traces.get(str(order), "") if order is not None else ""
        if order is not None:
            self._traces[str(order)] = str(trace)
            if len(self._traces) > MAX_TRACES:
                self._traces.popitem(last=False)
        return str(trace)


def _escape(value: Any) -> str:
    if value is None:
        return "-"
    return quote(redacted(str(value)), safe=_SAFE) or "-"


def _head_record(seq: int, chain: str) -> bytes:
    return f"{seq:012d} {chain}\n".encode()


def read_head(path: Path) -> tuple[int, str] | None:
    """What ``audit.head`` says of the last line; None where there is none or it cannot be read."""
    try:
        seq, chain = head_path(path).read_text(encoding="ascii").split()
        return int(seq), chain
    except (OSError, ValueError):
        return None


def _free(path: Path, label: str) -> Path:
    """A name that is not taken: audit-20260115.log, then audit-20260115-2.log."""
    for n in range(1, 10_000):
        target = path.with_name(f"{path.stem}-{label}{f'-{n}' if n > 1 else ''}{path.suffix}")
        if not target.exists():
            return target
    raise OSError(f"ten thousand audit files named {label} lie in {path.parent}; move them away")


def _cut_torn(path: Path) -> str:
    """Removes a last line without its newline (a power cut in mid-write) and returns it."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole == len(tail):
            return ""
        file.truncate(size - len(tail) + whole)
        return tail[whole:].decode("utf-8", "replace")


# ---- reading


def start_of(path: Path) -> Start | None:
    """How the file begins; None for one that is not chained."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            if not text.startswith("#"):
                return None
            if (found := _REMARK.match(text)) is not None:
                part, previous, seq, state = found.groups()
                return Start(int(part), previous, int(seq), state)
    return None


def end_of(path: Path) -> tuple[Start, int, str, str]:
    """(start, number and chain of the last entry, the chain after what follows it) of a chained file.

    Takes the file at its word; ``live.audit_verify`` does not.
    """
    start = start_of(path) or FIRST
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]
    last = next((n for n in range(len(lines) - 1, -1, -1) if parse(lines[n]) is not None), None)
    seq, chain, state, rest = start.seq, start.state, start.state, lines
    if last is not None:
        entry = parse(lines[last])
        assert entry is not None
        seq, chain, state, rest = entry.seq, entry.chain, entry.chain, lines[last + 1 :]
    for text in rest:
        state = advance(state, text)
    return start, seq, chain, state


def files(path: Path) -> list[Path]:
    """The chained files of a log, oldest first, the current one last."""
    found = [
        (start.part, p)
        for p in path.parent.glob(f"{path.stem}*{path.suffix}")
        if (p == path or p.name.startswith(path.stem + "-")) and (start := start_of(p)) is not None
    ]
    return [p for _, p in sorted(found)]


def _newest_rotated(path: Path) -> Path | None:
    rotated = [p for p in files(path) if p != path]
    return rotated[-1] if rotated else None


def parse(line: str) -> AuditLine | None:
    """One line, values decoded; None for a directive, an empty or a torn line."""
    parts = line.rstrip("\n").split(" ")
    if line.startswith("#") or len(parts) != _COLUMNS:
        return None
    date, time, ms, market_ns, session, seq, tag, event, trace, packed, chain = parts
    if not (market_ns.lstrip("-").isdigit() and seq.isdigit()):
        return None
    pairs = (pair.partition("=") for pair in packed.split(";")) if packed != "-" else ()
    fields = {unquote(k): unquote(v) for k, _, v in pairs}
    if trace != "-":
        fields["trace_id"] = trace = unquote(trace)
    else:
        trace = ""
    return AuditLine(
        f"{date}T{time}.{ms}Z", int(market_ns), session, tag, unquote(event), fields, int(seq), trace, chain
    )


def read(path: Path) -> Iterator[AuditLine]:
    """The lines of one audit file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            line = parse(text)
            if line is not None:
                yield line


def read_all(path: Path) -> Iterator[AuditLine]:
    """The lines of a log over all its files, oldest first."""
    for part in files(path):
        yield from read(part)
