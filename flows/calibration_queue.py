"""The runner's requests for calibration, read by the platform: deduplicated, acknowledged, never lost.

The runner appends lines to ``runtime/calibration_queue.jsonl``; nothing here ever writes to that file, so the
two need no lock. What has been dealt with stands in a file of our own beside it, one line each, written only
after the new version is registered. A crash in between means that a request is dealt with twice, which the
registry makes harmless (one version for each bundle hash); it never means that one is forgotten.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

QUEUE = Path("runtime/calibration_queue.jsonl")
ACKS = Path("runtime/calibration_queue.acks.jsonl")
SAME = ("ticker", "reason", "manifest_sha256")
"""Two requests that agree in these are the same request, unless the runner gives them a ``key`` of its
own."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the queue. ``lines``: the hashes of all lines that ask for the same."""

    key: str
    fields: dict[str, Any]
    lines: tuple[str, ...]
    readable: bool = True

    def row(self) -> dict[str, str]:
        """For a table in the UI."""
        said = {
            name: str(value) for name, value in self.fields.items() if not isinstance(value, (dict, list))
        }
        return {"asked": f"{len(self.lines)} times", **said} if self.readable else {"unreadable": self.key}


def pending(workdir: Path, *, acks: Path = ACKS, queue: Path = QUEUE) -> list[Request]:
    """What has not been acknowledged yet, oldest first, each request once.

    A line that is still being written (no line end yet) waits for the next call. A line that is not JSON is a
    request too: a person has to see it before it goes away.
    """
    done = {entry["line"] for entry in _read_acks(workdir / acks)}
    try:
        text = (workdir / queue).read_bytes()
    except FileNotFoundError:
        return []
    found: dict[str, Request] = {}
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        digest = hashlib.sha256(line).hexdigest()
        if digest in done or not line.strip():
            continue
        request = _parsed(line, digest)
        before = found.get(request.key)
        lines = dict.fromkeys((*before.lines, digest)) if before else {digest: None}
        found[request.key] = Request(request.key, request.fields, tuple(lines), request.readable)
    return list(found.values())


def acknowledge(workdir: Path, requests: Sequence[Request], outcome: str, *, acks: Path = ACKS) -> None:
    """Write down that ``requests`` are dealt with, durably, all in one write."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps({"line": digest, "key": request.key, "outcome": outcome, "at": at}, ensure_ascii=False)
        for request in requests
        for digest in request.lines
    ]
    if not lines:
        return
    path = workdir / acks
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        # A crash may have left a torn line: what comes now must not grow onto it.
        torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        file.write((("\n" if torn else "") + "\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _parsed(line: bytes, digest: str) -> Request:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("not a mapping")
    except ValueError:
        return Request(line.decode("utf-8", "replace")[:200], {}, (digest,), readable=False)
    parts = [str(fields.get(name, "")) for name in SAME]
    # Without any of them two different requests would look alike: then only equal lines are the same.
    return Request(str(fields.get("key") or ("/".join(parts) if any(parts) else digest)), fields, (digest,))


def _read_acks(path: Path) -> list[dict[str, Any]]:
    """Acknowledgements; a line that a crash cut off acknowledges nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    out = []
    for line in lines:
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out
