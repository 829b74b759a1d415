"""What the runner's databases say about each model version, and champion against challenger.

Read-only: SQLite files that a trading runner writes to are opened as such and never locked for long. A result
of a few sessions is a fact about these sessions; every mean comes with its interval, and where there is too
little to say, that is said.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from market.errors import ScalperError
from models.bootstrap import interval

NANO = 1e9
DAY_NS = 86_400_000_000_000
SLICE_NS = 60_000_000_000
CHAMPION, CHALLENGERS = "prod", ("canary", "shadow", "challenger")
SAME_NS = 1_000_000_000
"""Signals of two versions on one instrument within this time are about the same moment."""
MIN_TRIPS = 30
"""Fewer round trips than this and an interval would only look like knowledge."""


@dataclass(slots=True)
class VersionResult:
    """What one version did under one alias. Money in roubles, net of fees."""

    alias: str
    version: str
    mode: str
    watermark: str
    sessions: int = 0
    signals: list[tuple[str, int, int]] = field(default_factory=list)
    """(ticker, time ns, side)."""
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    trips: list[tuple[int, float, float]] = field(default_factory=list)
    """(exit ns, net RUB, fees RUB), by exit."""
    fills: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Market time (from ns, to ns) of each session."""

    @property
    def name(self) -> str:
        return f"{self.alias} v{self.version} ({self.mode})"

    @property
    def net_rub(self) -> float:
        return sum(net for _, net, _ in self.trips)

    @property
    def minutes(self) -> float:
        return sum(to - since for since, to in self.spans) / 6e10


@dataclass(frozen=True, slots=True)
class Duel:
    """Champion and challenger on the market time that both saw: net RUB a minute, challenger minus
    champion."""

    champion: str
    challenger: str
    minutes: int
    mean_rub: float
    low_rub: float
    high_rub: float
    agreement: float
    """Share of the champion's signals that the challenger gave too; NaN where it gave none."""

    def line(self) -> str:
        said = (
            f"{self.challenger} against {self.champion} on {self.minutes} common minutes: "
            f"{self.mean_rub:+.2f} RUB a minute, 95 % [{self.low_rub:+.2f}, {self.high_rub:+.2f}]"
        )
        if np.isfinite(self.agreement):
            said += f"; it gave {self.agreement:.0%} of the champion's signals"
        if self.low_rub > 0:
            return f"{said}: better"
        return f"{said}: worse" if self.high_rub < 0 else f"{said}: no difference shown"


@dataclass(frozen=True, slots=True)
class Performance:
    versions: tuple[VersionResult, ...]
    duels: tuple[Duel, ...]
    days: int
    databases: tuple[str, ...]

    @property
    def mark(self) -> str:
        return " [SIMULATED]" if any(v.watermark == "SIMULATED" for v in self.versions) else ""

    def headline(self) -> str:
        if not self.versions:
            return f"no session in the last {self.days} days"
        best = "; ".join(f"{v.name} {v.net_rub:+,.2f} RUB" for v in self.versions)
        return f"{sum(v.sessions for v in self.versions)} sessions: {best}{self.mark}"

    def rows(self) -> list[dict[str, str]]:
        return [_row(v) for v in self.versions]

    def markdown(self) -> str:
        lines = [f"# Performance, the last {self.days} days{self.mark}", ""]
        if not self.versions:
            return "\n".join([*lines, self.headline()])
        columns = list(self.rows()[0])
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(row.values()) + " |" for row in self.rows()]
        lines += ["", "## Champion and challenger", ""]
        lines += [f"- {duel.line()}{self.mark}" for duel in self.duels] or [
            "Nothing to compare: no challenger ran on the same market time as the champion."
        ]
        return "\n".join(lines)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Net RUB so far by version, over seconds of market time."""
        out = {}
        for v in self.versions:
            at = sorted(v.trips)
            total = np.cumsum([net for _, net, _ in at])
            out[v.name] = [(ns / NANO, float(net)) for (ns, _, _), net in zip(at, total, strict=True)]
        return out


def collect(
    workdir: Path, databases: Sequence[Path] | None = None, *, days: int = 7, now: datetime | None = None
) -> Performance:
    """Read the runner's databases below ``runtime/`` (or the named ones) and compare what ran."""
    since_ns = int(((now or datetime.now(UTC)) - timedelta(days=days)).timestamp() * NANO)
    paths = list(databases) if databases is not None else found_databases(workdir)
    results: dict[tuple[str, str, str], VersionResult] = {}
    for path in paths:
        _read(workdir / path, since_ns, results)
    versions = tuple(sorted(results.values(), key=lambda v: (v.alias != CHAMPION, v.alias, v.version)))
    return Performance(versions, tuple(_duels(versions)), days, tuple(str(p.name) for p in paths))


def found_databases(workdir: Path) -> list[Path]:
    """Every ``scalper.db`` below ``runtime/`` that is not another workspace's or a backup."""
    root = workdir / "runtime"
    skipped = ("workspaces", "backups", "prefect", "mlflow")
    return [
        path.relative_to(workdir)
        for path in sorted(root.rglob("scalper.db"))
        if path.relative_to(root).parts[0] not in skipped
    ]


def _read(path: Path, since_ns: int, results: dict[tuple[str, str, str], VersionResult]) -> None:
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
                _add(database, session, results)
    except sqlite3.Error as error:
        raise ScalperError(f"{path} cannot be read as a runner's database: {error}") from None


def _add(
    database: sqlite3.Connection, session: sqlite3.Row, results: dict[tuple[str, str, str], VersionResult]
) -> None:
    alias, version = str(session["alias"] or "none"), str(session["model_version"] or "?")
    key = (alias, version, str(session["mode"]))
    result = results.setdefault(
        key, VersionResult(alias, version, str(session["mode"]), str(session["watermark"] or ""))
    )
    which = (session["session_id"],)
    signals = database.execute(
        "SELECT ticker, now_ns, side, outcome FROM signals WHERE session_id=? ORDER BY now_ns", which
    ).fetchall()
    trips = database.execute(
        "SELECT exit_ns, net_nano, fees_nano FROM trips WHERE session_id=? ORDER BY exit_ns", which
    ).fetchall()
    (fills,) = database.execute("SELECT COUNT(*) FROM fills WHERE session_id=?", which).fetchone()
    result.sessions += 1
    result.fills += fills
    result.signals += [(str(s["ticker"]), int(s["now_ns"]), int(s["side"])) for s in signals]
    for s in signals:
        result.outcomes[str(s["outcome"])] += 1
    result.trips += [(int(t["exit_ns"]), t["net_nano"] / NANO, t["fees_nano"] / NANO) for t in trips]
    span = _span(database, session)
    if span is not None:
        result.spans.append(span)


def _span(database: sqlite3.Connection, session: sqlite3.Row) -> tuple[int, int] | None:
    """The market time of a session: from its summary, else from what it wrote."""
    summary: dict[str, Any] = json.loads(session["summary"] or "{}")
    if summary.get("from_ns") and summary.get("to_ns"):
        return int(summary["from_ns"]), int(summary["to_ns"])
    low, high = database.execute(
        "SELECT MIN(now_ns), MAX(now_ns) FROM equity WHERE session_id=?", (session["session_id"],)
    ).fetchone()
    return None if low is None else (int(low), int(high))


def _duels(versions: Sequence[VersionResult]) -> Iterator[Duel]:
    champions = [v for v in versions if v.alias == CHAMPION]
    for champion in champions:
        for challenger in (v for v in versions if v.alias in CHALLENGERS):
            common = _common(champion.spans, challenger.spans)
            if common:
                yield _duel(champion, challenger, common)


def _common(ours: Sequence[tuple[int, int]], theirs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    overlaps = [(max(a, c), min(b, d)) for a, b in ours for c, d in theirs]
    return sorted((since, to) for since, to in overlaps if to > since)


def _duel(champion: VersionResult, challenger: VersionResult, common: list[tuple[int, int]]) -> Duel:
    difference = np.concatenate([
        _by_slice(challenger, since, to) - _by_slice(champion, since, to) for since, to in common
    ])  # fmt: skip
    found = interval(difference, seed=1)
    enough = min(len(champion.trips), len(challenger.trips)) >= MIN_TRIPS
    low, high = (found.low, found.high) if enough else (-np.inf, np.inf)
    return Duel(
        champion.name, challenger.name, len(difference), float(difference.mean()), low, high,
        _agreement(champion, challenger, common),
    )  # fmt: skip


def _by_slice(result: VersionResult, since: int, to: int) -> np.ndarray:
    net = np.zeros(max(1, -(-(to - since) // SLICE_NS)))
    for at, value, _ in result.trips:
        if since <= at < to:
            net[(at - since) // SLICE_NS] += value
    return net


def _agreement(champion: VersionResult, challenger: VersionResult, common: list[tuple[int, int]]) -> float:
    def within(result: VersionResult) -> list[tuple[str, int, int]]:
        return [s for s in result.signals if any(a <= s[1] < b for a, b in common)]

    ours, theirs = within(champion), within(challenger)
    if not ours:
        return float("nan")
    times: dict[tuple[str, int], np.ndarray] = {
        key: np.sort([at for ticker, at, side in theirs if (ticker, side) == key])
        for key in {(ticker, side) for ticker, _, side in theirs}
    }
    same = 0
    for ticker, at, side in ours:
        near = times.get((ticker, side))
        if near is not None:
            i = int(np.searchsorted(near, at))
            same += bool(np.min(np.abs(near[max(0, i - 1) : i + 1] - at)) <= SAME_NS)
    return same / len(ours)


def _row(v: VersionResult) -> dict[str, str]:
    net = [value for _, value, _ in v.trips]
    mean, shown = "", "too few round trips to say" if net else "no round trip"
    if len(net) >= MIN_TRIPS:
        found = interval(net, seed=1)
        shown = f"[{found.low:+.2f}, {found.high:+.2f}]"
    if net:
        mean = f"{np.mean(net):+.2f}"
    return {
        "version": v.name, "watermark": v.watermark, "sessions": str(v.sessions),
        "market minutes": f"{v.minutes:,.0f}", "signals": f"{len(v.signals):,}", "fills": f"{v.fills:,}",
        "round trips": f"{len(net):,}", "won": f"{np.mean([x > 0 for x in net]):.0%}" if net else "",
        "fees RUB": f"{sum(fee for _, _, fee in v.trips):,.2f}", "net RUB": f"{v.net_rub:+,.2f}",
        "net RUB a trip": mean, "95 %": shown,
    }  # fmt: skip
