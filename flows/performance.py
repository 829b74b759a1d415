"""Model versions by what the runner's sessions say of them, and champion against challenger.

A challenger is another session on the same market time, or a shadow that scored beside the champion's own. A
result of a few sessions is a fact about these sessions; every mean comes with its interval, and where there
is too little to say, that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from flows.performance_sessions import BESIDE, NANO, VersionResult, found_databases, read
from models.bootstrap import interval

SLICE_NS = 60_000_000_000
CHAMPION, CHALLENGERS = "prod", ("canary", "shadow", "challenger")
SAME_NS = 1_000_000_000
"""Signals of two versions on one instrument within this time are about the same moment."""
MIN_TRIPS = 30
"""Fewer round trips than this and an interval would only look like knowledge."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Signals of both in the common time. ``moves_bps``: what each expected where both gave the same signal,
    the champion's first."""

    champion: int
    challenger: int
    moves_bps: list[tuple[float, float]]

    @property
    def agreement(self) -> float:
        """Share of the champion's signals that the challenger gave too; NaN where the champion gave none."""
        return len(self.moves_bps) / self.champion if self.champion else float("nan")


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
    moments: Moments

    def line(self) -> str:
        known = np.isfinite(self.low_rub)
        span = f"95 % [{self.low_rub:+.2f}, {self.high_rub:+.2f}]" if known else "too few round trips to say"
        said = (
            f"{self.challenger} against {self.champion} on {self.minutes} common minutes: "
            f"{self.mean_rub:+.2f} RUB a minute, {span}"
        )
        seen = self.moments
        if seen.champion:
            said += f"; it gave {seen.agreement:.0%} of the champion's {seen.champion:,} signals"
            said += f" and {seen.challenger:,} in all"
        if seen.moves_bps:
            ours, theirs = np.abs(np.array(seen.moves_bps)).mean(axis=0)
            said += f", expecting {theirs:.2f} bp where the champion expected {ours:.2f}"
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
        if self.notes():
            lines += ["", "Compared only on the time that each record tells of:", ""]
            lines += [f"- {note}" for note in self.notes()]
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """Which records are shorter than their sessions, and why."""
        return [
            f"{v.name}: {said} (sessions: {count})"
            for v in self.versions
            for said, count in sorted(v.notes.items())
        ]

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
    found = read(workdir, paths, since_ns)
    versions = tuple(sorted(found, key=lambda v: (v.alias != CHAMPION, v.alias, v.version, v.mode)))
    return Performance(versions, tuple(_duels(versions)), days, tuple(str(p.name) for p in paths))


def _duels(versions: Sequence[VersionResult]) -> Iterator[Duel]:
    for champion in versions:
        for challenger in versions:
            beside = champion.key == challenger.host
            # Beside one of the champion's sessions it is compared with that one alone.
            free = challenger.alias in CHALLENGERS and challenger.host[:1] != (CHAMPION,)
            if (beside or (champion.alias == CHAMPION and free)) and champion.mode != BESIDE:
                common = _common(champion.spans, challenger.spans)
                if common:
                    yield _duel(champion, challenger, common)


def _common(ours: Sequence[tuple[int, int]], theirs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The time that both saw, as intervals that neither overlap nor touch."""
    common: list[tuple[int, int]] = []
    for since, to in sorted((max(a, c), min(b, d)) for a, b in ours for c, d in theirs):
        if common and since <= common[-1][1]:
            common[-1] = (common[-1][0], max(common[-1][1], to))
        elif to > since:
            common.append((since, to))
    return common


def _duel(champion: VersionResult, challenger: VersionResult, common: list[tuple[int, int]]) -> Duel:
    difference = np.concatenate([
        _by_slice(challenger, since, to) - _by_slice(champion, since, to) for since, to in common
    ])  # fmt: skip
    found = interval(difference, seed=1)
    compared = [sum(_within(at, common) for at, _, _ in v.trips) for v in (champion, challenger)]
    enough = min(compared) >= MIN_TRIPS
    low, high = (found.low, found.high) if enough else (-np.inf, np.inf)
    return Duel(
        champion.name, challenger.name, len(difference), float(difference.mean()), low, high,
        _moments(champion, challenger, common),
    )  # fmt: skip


def _by_slice(result: VersionResult, since: int, to: int) -> np.ndarray:
    net = np.zeros(max(1, -(-(to - since) // SLICE_NS)))
    for at, value, _ in result.trips:
        if since <= at <= to:
            net[min((at - since) // SLICE_NS, len(net) - 1)] += value
    return net


def _within(at: int, common: Sequence[tuple[int, int]]) -> bool:
    return any(since <= at <= to for since, to in common)


def _moments(champion: VersionResult, challenger: VersionResult, common: list[tuple[int, int]]) -> Moments:
    """The champion's signals in the common time, and what the challenger made of the same moments."""

    def within(result: VersionResult) -> list[tuple[str, int, int, float]]:
        return [s for s in result.signals if _within(s[1], common)]

    ours, theirs = within(champion), within(challenger)
    by_ticker: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for ticker, at, side, move_bps in sorted(theirs, key=lambda s: s[1]):
        by_ticker.setdefault((ticker, side), []).append((at, move_bps))
    times = {key: np.array([at for at, _ in found]) for key, found in by_ticker.items()}
    pairs = []
    for ticker, at, side, move_bps in ours:
        near = times.get((ticker, side))
        if near is not None:
            i = int(np.argmin(np.abs(near - at)))
            if abs(int(near[i]) - at) <= SAME_NS:
                pairs.append((move_bps, by_ticker[ticker, side][i][1]))
    return Moments(len(ours), len(theirs), pairs)


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
