"""`live-runner replay --compare`: the session beside a simulation of the same hours, differences explained.

Two questions, two answers. *Would this code decide the same?* The journal is replayed: same events, same
orders, or the first difference. *Did the market give what the simulator promises?* The books and prints of
the journal become a recording, the backtest trades it with the session's own configuration and measured
delay, and the round trips of both are put side by side; one that only one side has is explained by what held
or occupied the other at that moment.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live import backtest, replay
from live.core.events import Book, Connection, Trade, TradingStatus
from live.journal import JournalReader
from live.record_run import RunRecorder
from live.storage import reader
from market.errors import ScalperError
from market.latency import Latency
from market.recording import Recording
from market.types import MILLISECOND_NS, NANO, SECOND_NS
from models.bundle import Bundle

NEAR_NS = 3 * SECOND_NS
"""Entries of one side in one instrument within so long are the same round trip."""
DEFAULT_DELAY_NS = 100 * MILLISECOND_NS


@dataclass(frozen=True, slots=True)
class Trip:
    """A round trip of either side."""

    ticker: str
    side: int
    lots: int
    entry_ns: int
    exit_ns: int
    gross_nano: int
    fees_nano: int
    net_nano: int
    exit_reason: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The same round trip on both sides, or one side only; ``why`` explains."""

    live: Trip | None
    simulated: Trip | None
    why: str


def compare(
    folder: Path, database: Path, bundle: Bundle, others: Mapping[str, Bundle], *, tariff: str
) -> dict[str, Any]:
    """Both answers for the session in ``folder``, JSON-able. Raises ScalperError."""
    header = JournalReader(folder).header
    decided = replay.run(folder, bundle, other_bundles=others)
    with reader(database) as connection:
        facts = _session(connection, header.session_id)
    delay_ns = _delay_ns(facts["latency"])
    with tempfile.TemporaryDirectory(prefix="scalper-compare-") as scratch:
        recording = _recording(folder, Path(scratch) / "recording", header.watermark, tariff)
        result = backtest.run(
            recording, bundle, header.config, tickers=list(header.instruments),
            latency=Latency(entry_ns=delay_ns),
        )  # fmt: skip
    simulated = [Trip(*(t[name] for name in Trip.__dataclass_fields__)) for t in result.trips]
    pairs = match(facts["trips"], simulated, facts["holds"], facts["refused"])
    return {
        "session_id": header.session_id, "watermark": header.watermark,
        "decisions": decided.to_dict(), "delay_ms": delay_ns / MILLISECOND_NS,
        "live": facts["totals"],
        "simulated": {
            "orders": result.orders, "fills": result.fills, "gross_nano": result.gross_nano,
            "fees_nano": result.fees_nano, "net_nano": result.net_nano, "round_trips": len(simulated),
        },
        "pairs": [{"live": p.live and asdict(p.live), "simulated": p.simulated and asdict(p.simulated),
                   "why": p.why} for p in pairs],
        "notes": _notes(header.restored is not None, facts, decided),
    }  # fmt: skip


def match(
    live: list[Trip],
    simulated: list[Trip],
    holds: list[dict[str, Any]],
    refused: list[dict[str, Any]],
) -> list[Pair]:
    """Nearest entries of one instrument and side belong together, each at most once; in order of time."""
    free = list(simulated)
    pairs: list[Pair] = []
    for trip in live:
        near = [
            s for s in free
            if (s.ticker, s.side) == (trip.ticker, trip.side) and abs(s.entry_ns - trip.entry_ns) <= NEAR_NS
        ]  # fmt: skip
        best = min(near, key=lambda s: abs(s.entry_ns - trip.entry_ns), default=None)
        if best is None:
            pairs.append(Pair(trip, None, _busy(trip, simulated, "the simulation")))
        else:
            free.remove(best)
            pairs.append(Pair(trip, best, _both(trip, best)))
    for trip in free:
        held = [
            h for h in holds
            if h["scope"] in ("*", trip.ticker)
            and h["raised_ns"] <= trip.entry_ns < (h["lifted_ns"] or 1 << 62)
        ]  # fmt: skip
        why = f"live was held by {held[0]['name']}: {held[0]['reason']}" if held else ""
        no = [
            r
            for r in refused
            if (r["ticker"], r["side"]) == (trip.ticker, trip.side)
            and abs(r["now_ns"] - trip.entry_ns) <= NEAR_NS
        ]
        if not why and no:
            why = f"live refused the signal: {no[0]['outcome']}"
        pairs.append(Pair(None, trip, why or _busy(trip, live, "live")))
    return sorted(pairs, key=lambda p: (p.live or p.simulated).entry_ns)  # type: ignore[union-attr]


def _both(live: Trip, simulated: Trip) -> str:
    parts = []
    late_ms = (live.entry_ns - simulated.entry_ns) / MILLISECOND_NS
    if abs(late_ms) >= 1:
        parts.append(f"entered {abs(late_ms):.0f} ms {'later' if late_ms > 0 else 'earlier'}")
    if live.lots != simulated.lots:
        parts.append(f"{live.lots} lots, simulated {simulated.lots}")
    if live.exit_reason != simulated.exit_reason:
        parts.append(f"left by {live.exit_reason}, simulated {simulated.exit_reason}")
    if live.gross_nano != simulated.gross_nano and not parts:
        parts.append("other prices")
    if live.fees_nano != simulated.fees_nano and live.lots == simulated.lots:
        parts.append(f"fees {(live.fees_nano - simulated.fees_nano) / NANO:+.2f} RUB")
    return "; ".join(parts) or "the same"


def _busy(trip: Trip, others: list[Trip], who: str) -> str:
    for other in others:
        if other.ticker == trip.ticker and other.entry_ns - NEAR_NS <= trip.entry_ns <= other.exit_ns:
            return f"{who} was in a round trip of its own since {_clock(other.entry_ns)}"
    return f"{who} had no such signal or refused it (features warming up, another state, a limit)"


# ---- the two sides


def _session(connection: sqlite3.Connection, session_id: str) -> dict[str, Any]:
    import json

    names = ", ".join(Trip.__dataclass_fields__)
    rows = connection.execute(
        f"SELECT {names} FROM trips WHERE session_id=? ORDER BY entry_ns", (session_id,)
    ).fetchall()
    holds = connection.execute(
        "SELECT name, scope, reason, raised_ns, lifted_ns FROM holds WHERE session_id=?", (session_id,)
    ).fetchall()
    refused = connection.execute(
        "SELECT ticker, side, now_ns, outcome FROM signals WHERE session_id=? AND outcome NOT IN "
        "('ENTRY', 'EXIT') ORDER BY now_ns",
        (session_id,),
    ).fetchall()
    row = connection.execute("SELECT summary FROM sessions WHERE session_id=?", (session_id,)).fetchone()
    summary = json.loads(row["summary"]) if row is not None and row["summary"] else {}
    fills = connection.execute(
        "SELECT count(*), COALESCE(sum(realised_nano), 0), COALESCE(sum(fee_nano), 0) FROM fills "
        "WHERE session_id=?", (session_id,),
    ).fetchone()  # fmt: skip
    orders = connection.execute("SELECT count(*) FROM orders WHERE session_id=?", (session_id,)).fetchone()
    gross = summary.get("gross_nano", fills[1])
    return {
        "trips": [Trip(*tuple(row)) for row in rows],
        "holds": [dict(row) for row in holds],
        "refused": [dict(row) for row in refused],
        "latency": summary.get("latency", {}),
        "ended": bool(summary),
        "totals": {
            "orders": orders[0], "fills": fills[0], "gross_nano": gross, "fees_nano": fills[2],
            "net_nano": gross - fills[2], "round_trips": len(rows),
        },
    }  # fmt: skip


def _delay_ns(latency: Mapping[str, Mapping[str, int]]) -> int:
    """What this session measured from a book to the exchange's answer, at the median."""
    known = [latency[stage]["p50_us"] for stage in ("tick_to_order", "rpc") if stage in latency]
    return sum(known) * 1000 if known else DEFAULT_DELAY_NS


def _recording(folder: Path, path: Path, watermark: str, tariff: str) -> Recording:
    """The market of the journal as a recording."""
    journal = JournalReader(folder)
    problems: list[str] = []
    recorder = RunRecorder(
        path, journal.header.instruments, mode="journal", watermark=watermark, tariff=tariff,
        facts={"session_id": journal.header.session_id}, now_ns=lambda: 0, failed=problems.append,
    )  # fmt: skip
    for record in journal:
        if isinstance(record, Book | Trade | TradingStatus | Connection):
            recorder.take(record)
    recorder.close()
    if problems:
        raise ScalperError(f"the market of {folder} cannot be simulated: {problems[0]}")
    return Recording.open(path)


def _notes(restored: bool, facts: Mapping[str, Any], decided: replay.ReplayResult) -> list[str]:
    notes = ["the simulation starts flat and warms its features up from the first book"]
    if restored:
        notes.append("the session went on from a checkpoint, which the simulation does not have")
    if not facts["ended"]:
        notes.append("the session did not end in order: its delay is not known, 100 ms are assumed")
    if decided.failures_not_repeated:
        notes.append(f"{decided.failures_not_repeated} inference failures of the session happened live only")
    return notes


def lines(found: Mapping[str, Any]) -> list[str]:
    """The comparison as text."""
    live, simulated, decided = found["live"], found["simulated"], found["decisions"]
    mark = "  [SIMULATED]" if found["watermark"] == "SIMULATED" else ""
    out = [
        f"decisions   {'equal' if decided['equal'] else 'DIFFERENT: ' + str(decided['first_difference'])}: "
        f"{decided['orders']} orders replayed from {decided['events']} events{mark}",
        f"            {'live':>14}{'simulated':>14}   (orders arrive after {found['delay_ms']:.0f} ms)",
    ]
    for name in ("orders", "fills", "round_trips"):
        out.append(f"{name.replace('_', ' '):<12}{live[name]:>14,}{simulated[name]:>14,}")
    for name in ("gross_nano", "fees_nano", "net_nano"):
        out.append(f"{name[:-5] + ', RUB':<12}{live[name] / NANO:>14,.2f}{simulated[name] / NANO:>14,.2f}")
    for pair in found["pairs"]:
        a, b = pair["live"], pair["simulated"]
        one = a or b
        nets = f"{_net(a):>10}{_net(b):>10}"
        side = "long" if one["side"] > 0 else "short"
        out.append(f"{_clock(one['entry_ns'])} {one['ticker']:<6}{side:<6}{nets}  {pair['why']}")
    return out + [f"note        {text}" for text in found["notes"]]


def _net(trip: Mapping[str, Any] | None) -> str:
    return "-" if trip is None else f"{trip['net_nano'] / NANO:+.2f}"


def _clock(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / SECOND_NS, UTC):%H:%M:%S}"
