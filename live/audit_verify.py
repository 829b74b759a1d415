"""`live-runner audit verify`: walks the chain of the audit log over all its files and names the first break.

What a chain can and cannot show: an altered, removed or inserted line breaks it. Whoever may write the
folder could compute the whole chain anew, so its head is also written where they would have to reach as
well: ``audit.head``, each periodic report and its Telegram message. Such a note is an *anchor*: the log must
hold exactly that chain at that line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from live.audit import FIELDS, GENESIS, advance, files, parse, read_head, start_of


@dataclass(frozen=True, slots=True)
class Anchor:
    """Somebody else's note of the log: line ``seq`` ended in ``chain`` (or began with it)."""

    seq: int
    chain: str
    where: str


@dataclass(slots=True)
class Verdict:
    """What was found. ``broken`` is empty where everything holds."""

    files: list[str] = field(default_factory=list)
    lines: int = 0
    first_seq: int = 0
    last_seq: int = 0
    chain: str = GENESIS
    broken: str = ""
    warnings: list[str] = field(default_factory=list)
    anchors: int = 0

    @property
    def ok(self) -> bool:
        return not self.broken

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def verify(path: Path, anchors: Iterable[Anchor] = ()) -> Verdict:
    """Checks the log at ``path`` (the current file) and every rotated file beside it."""
    verdict = Verdict()
    wanted: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.seq, []).append(anchor)
    found = files(path)
    if not found:
        verdict.broken = f"there is no chained audit log at {path}"
        return verdict
    state, seq, first_part = "", 0, 1
    for number, file in enumerate(found):
        start = start_of(file)
        assert start is not None
        if number == 0:
            state, seq = start.state, start.seq
            verdict.first_seq = seq + 1
            if start.part != 1:
                verdict.warnings.append(
                    f"the log begins with part {start.part} at line {seq + 1}; the files before "
                    f"{file.name} are not here"
                )
            elif (start.state, start.seq) != (GENESIS, 0):
                verdict.broken = f"{file.name}: its first part does not begin at the beginning"
                return verdict
        elif (start.part, start.seq, start.state) != (number + first_part, seq, state):
            verdict.broken = (
                f"{file.name} does not go on from {found[number - 1].name}: it follows line {start.seq}, "
                f"the file before ends with line {seq}; a file or the end of one is missing, or was altered"
            )
            return verdict
        if number == 0:
            first_part = start.part
        verdict.files.append(file.name)
        state, seq, verdict.broken = _walk(file, state, seq, verdict, wanted)
        if verdict.broken:
            return verdict
    verdict.last_seq = seq
    _check_head(path, verdict)
    beyond = [a for n in sorted(wanted) if n > seq for a in wanted[n]]
    if not verdict.broken and beyond:
        a = beyond[0]
        verdict.broken = f"{a.where} knows line {a.seq}, the log ends with line {seq}: its tail was cut off"
    return verdict


def _walk(
    file: Path, state: str, seq: int, verdict: Verdict, wanted: dict[int, list[Anchor]]
) -> tuple[str, int, str]:
    """(chain, number of the last line, what is broken) after one file."""
    with open(file, encoding="utf-8", errors="replace", newline="\n") as opened:
        for number, text in enumerate(opened, start=1):
            where = f"{file.name}, line {number}"
            if not text.endswith("\n"):
                return state, seq, f"{where} is torn: {text[:60]!r}"
            text = text[:-1]
            if text.startswith("#"):
                if text.startswith("#Fields:") and text != f"#Fields: {FIELDS}":
                    return state, seq, f"{where}: the fields are not those of this log: {text[:80]}"
                state = advance(state, text)
                continue
            line = parse(text)
            if line is None:
                return state, seq, f"{where} is no line of the audit log: {text[:60]!r}"
            if line.seq != seq + 1:
                gap = f"{seq + 1} to {line.seq - 1}" if line.seq > seq + 2 else str(seq + 1)
                what = f"entry {gap} is missing before it" if line.seq > seq else "it was put in"
                return state, seq, f"{where} has number {line.seq} after {seq}: {what}"
            state, seq = advance(state, text.rpartition(" ")[0]), line.seq
            if state != line.chain:
                return (
                    state,
                    seq,
                    (
                        f"{where} (entry {seq}, {line.event} of {line.wall}) does not fit the chain: it, or "
                        "a directive right before it, was altered"
                    ),
                )
            verdict.lines += 1
            verdict.last_seq, verdict.chain = seq, state
            for anchor in wanted.get(seq, ()):
                if anchor.chain != state:
                    return (
                        state,
                        seq,
                        (f"{where} (entry {seq}) is not what {anchor.where} noted: the log was written anew"),
                    )
                verdict.anchors += 1
    return state, seq, ""


def _check_head(path: Path, verdict: Verdict) -> None:
    head = read_head(path)
    if head is None:
        verdict.warnings.append(
            f"{path.stem}.head is missing: lines cut off at the end would show by other anchors only"
        )
    elif head[0] > verdict.last_seq:
        verdict.broken = (
            f"{path.name} ends with entry {verdict.last_seq}, its head knows entry {head[0]}: "
            f"{head[0] - verdict.last_seq} lines were cut off at the end"
        )
    elif head[0] == verdict.last_seq and verdict.lines and head[1] != verdict.chain:
        verdict.broken = (
            f"entry {head[0]} is not the one that {path.stem}.head knows: the log was written anew"
        )


def report_anchors(path: Path) -> list[Anchor]:
    """The heads noted in the periodic reports (JSON lines); none where there is no such file."""
    found = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for number, text in enumerate(texts, start=1):
        try:
            head = json.loads(text)["audit_head"]
            found.append(Anchor(int(head["seq"]), str(head["chain"]), f"{path.name}, line {number}"))
        except (ValueError, KeyError, TypeError):
            continue
    return [anchor for anchor in found if anchor.seq]
