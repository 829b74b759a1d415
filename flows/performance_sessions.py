"""What the runner's sessions left: its SQLite databases, and what a shadow beside one would have done.

Read-only: files that a trading runner writes to are opened as such and never locked for long.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from market.errors import ScalperError

NANO = 1e9
BESIDE = "beside"
"""The mode of a shadow that scored the market of another version's session, in the same process."""
SKIPPED = ("workspaces", "backups", "prefect", "mlflow")

Key = tuple[str, ...]
"""Alias, version and mode; of a shadow beside a session also those of its host."""
Span = tuple[int, int]
"""Market time: from ns, to ns."""


@dataclass(slots=True)
class VersionResult:
    """What one version did under one alias. Money in roubles, net of fees."""

    alias: str
    version: str
    mode: str
    watermark: str
    sessions: int = 0
    signals: list[tuple[str, int, int, float]] = field(default_factory=list)
    """(ticker, time ns, side, expected move bps), by time within a session."""
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    trips: list[tuple[int, float, float]] = field(default_factory=list)
    """(exit ns, net RUB, fees RUB), by exit."""
    fills: int = 0
    spans: list[Span] = field(default_factory=list)
    """When it was there: each session's time, of a shadow only what it heard and what its file tells."""
    host: Key = ()
    """Whose sessions it scored beside."""
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What cut its record short, and in how many sessions."""

    @property
    def key(self) -> Key:
        return self.alias, self.version, self.mode, *self.host

    @property
    def name(self) -> str:
        if self.host:
            alias, version, mode = self.host
            return f"{self.alias} v{self.version} (beside {alias} v{version}, {mode})"
        return f"{self.alias} v{self.version} ({self.mode})"

    @property
    def net_rub(self) -> float:
        return sum(net for _, net, _ in self.trips)

    @property
    def minutes(self) -> float:
        return sum(to - since for since, to in self.spans) / 6e10


def read(workdir: Path, databases: Sequence[Path], since_ns: int) -> list[VersionResult]:
    """Every version that ran in a session begun at ``since_ns`` (wall clock) or later."""
    results: dict[Key, VersionResult] = {}
    for path in databases:
        _read(workdir / path, since_ns, results)
    return list(results.values())


def found_databases(workdir: Path) -> list[Path]:
    """Every ``scalper.db`` below ``runtime/`` that is not another workspace's or a backup."""
    root = workdir / "runtime"
    return [
        path.relative_to(workdir)
        for path in sorted(root.rglob("scalper.db"))
        if path.relative_to(root).parts[0] not in SKIPPED
    ]


def _read(path: Path, since_ns: int, results: dict[Key, VersionResult]) -> None:
    if not path.is_file():
        raise ScalperError(
            f"there is no runner database {path}: name the file that storage.path of live.yaml says"
        )
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            sessions = database.execute(
                "SELECT * FROM sessions WHERE started_wall_ns >= ? ORDER BY started_wall_ns", (since_ns,)
            ).fetchall()
            for session in sessions:
                summary: dict[str, Any] = json.loads(session["summary"] or "{}")
                span = _span(database, session["session_id"], summary)
                host = _add(database, session, span, results)
                folder = path.parent / "session" / str(session["session_id"])
                for shadow in _shadows(folder, summary):
                    _add_shadow(shadow, host, span, results)
    except sqlite3.Error as error:
        raise ScalperError(f"{path} cannot be read as a runner's database: {error}") from None


def _add(
    database: sqlite3.Connection, session: sqlite3.Row, span: Span | None,
    results: dict[Key, VersionResult],
) -> VersionResult:  # fmt: skip
    # An alias may be pinned (prod@17); who is compared with whom depends on the alias alone.
    alias, version = str(session["alias"] or "none"), str(session["model_version"] or "?")
    result = VersionResult(
        alias.partition("@")[0], version, str(session["mode"]), str(session["watermark"] or "")
    )
    result = results.setdefault(result.key, result)
    which = (session["session_id"],)
    signals = database.execute(
        "SELECT ticker, now_ns, side, expected_move_millibps, outcome FROM signals WHERE session_id=? "
        "ORDER BY now_ns", which,
    ).fetchall()  # fmt: skip
    trips = database.execute(
        "SELECT exit_ns, net_nano, fees_nano FROM trips WHERE session_id=? ORDER BY exit_ns", which
    ).fetchall()
    (fills,) = database.execute("SELECT COUNT(*) FROM fills WHERE session_id=?", which).fetchone()
    result.sessions += 1
    result.fills += fills
    for s in signals:
        move_bps = (s["expected_move_millibps"] or 0) / 1e3
        result.signals.append((str(s["ticker"]), int(s["now_ns"]), int(s["side"]), move_bps))
        result.outcomes[str(s["outcome"])] += 1
    result.trips += [(int(t["exit_ns"]), t["net_nano"] / NANO, t["fees_nano"] / NANO) for t in trips]
    if span is not None:
        result.spans.append(span)
    return result


def _span(database: sqlite3.Connection, session_id: str, summary: dict[str, Any]) -> Span | None:
    """The market time of a session: from its summary, else from what it wrote."""
    if summary.get("from_ns") and summary.get("to_ns"):
        return int(summary["from_ns"]), int(summary["to_ns"])
    low, high = database.execute(
        "SELECT MIN(now_ns), MAX(now_ns) FROM equity WHERE session_id=?", (session_id,)
    ).fetchone()
    return None if low is None else (int(low), int(high))


# ---- a shadow beside a session


@dataclass(frozen=True, slots=True)
class _Shadow:
    """``path`` holds what it would have done; it is missing where it would have done nothing."""

    alias: str
    version: str
    path: Path
    heard: Span | None = None
    """Its first and its last event; None where nobody told."""
    over: bool = False
    dropped: int = 0
    """Lines that the file lacks at its end."""


def _shadows(folder: Path, summary: dict[str, Any]) -> Iterator[_Shadow]:
    """What scored beside the session in ``folder``; also while it runs and has no summary yet."""
    told = summary.get("shadow")
    if told:
        heard = (told["from_ns"], told["to_ns"]) if told.get("to_ns") else None
        yield _Shadow(
            str(told["alias"]), str(told.get("version") or "?"), folder / str(told["file"]), heard,
            bool(told.get("over")), int(told.get("lines_dropped") or 0),
        )  # fmt: skip
        return
    for path in sorted(folder.glob("shadow-*.jsonl")):
        yield _Shadow(path.stem.removeprefix("shadow-"), "?", path)


def _add_shadow(
    shadow: _Shadow, host: VersionResult, span: Span | None, results: dict[Key, VersionResult]
) -> None:
    result = VersionResult(shadow.alias, shadow.version, BESIDE, host.watermark, host=host.key)
    result = results.setdefault(result.key, result)
    result.sessions += 1
    edges: list[int] = []
    last_ns = 0
    for row in _rows(shadow.path):
        last_ns = max(last_ns, row["now_ns"])
        match row["kind"]:
            case "signal":
                move_bps = row["expected_move_millibps"] / 1e3
                result.signals.append((row["ticker"], row["now_ns"], row["direction"], move_bps))
                result.outcomes[row["outcome"]] += 1
            case "fill":
                result.fills += 1
            case "trip":
                result.trips.append((row["exit_ns"], row["net_nano"] / NANO, row["fees_nano"] / NANO))
            case "pause" | "continue":
                edges.append(row["now_ns"])
    heard = shadow.heard or span
    if heard is not None:
        to = heard[1] if shadow.heard and not shadow.dropped else min(heard[1], last_ns)
        result.spans += _awake(heard[0], to, edges)
    for cut, said in (
        (shadow.over, "it ended by itself before its host"),
        (shadow.dropped, "its record was full before the session's end"),
        (edges, "it rested while the machine had no room"),
    ):
        if cut:
            result.notes[said] += 1


def _awake(since: int, to: int, edges: Sequence[int]) -> list[Span]:
    """The time between, less its rests; ``edges``: when one began, when it ended, and so on."""
    bounds = [since, *(min(edge, to) for edge in edges), to]
    return [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False) if b > a]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole: a runner may be writing the last one, or have died on it."""
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise ScalperError(
                f"{path} line {number} is not JSON: move that file away to go on without it"
            ) from None
        yield row
