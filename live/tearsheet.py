"""`live-runner report`: the figures of a day, collected from the database, the journals and the audit.

The day is the exchange's, by market time. Several sessions of a day are added up: a session's equity starts
at nothing, so the curve goes on where the one before ended.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from live import markouts
from live.audit import read_all
from live.config_schema import RunnerConfig
from live.journal import JournalError, JournalReader
from live.storage import reader
from market.errors import ConfigError
from market.types import SECOND_NS, Instrument

MAX_REFUSALS = 8


def collect(config: RunnerConfig, day: str | None = None) -> dict[str, Any]:
    """The figures of ``day`` (YYYY-MM-DD, default: the last one traded), JSON-able. Raises ScalperError."""
    zone = ZoneInfo(config.session.timezone)
    runtime = Path(config.system.runtime_dir)
    with reader(Path(config.storage.path)) as connection:
        chosen = _day(connection, day, zone)
        from_ns, to_ns = _bounds(chosen, zone)
        span = (from_ns, to_ns)
        sessions = _rows(
            connection,
            "SELECT * FROM sessions WHERE session_id IN (SELECT session_id FROM equity WHERE now_ns>=? AND "
            "now_ns<? UNION SELECT session_id FROM fills WHERE now_ns>=? AND now_ns<?) "
            "ORDER BY started_wall_ns",
            *span, *span,
        )  # fmt: skip
        if not sessions:
            raise ConfigError(f"nothing was done on {chosen}; {_known_days(connection, zone)}")
        tables = {
            name: _rows(connection, f"SELECT * FROM {name} WHERE {at}>=? AND {at}<? ORDER BY {at}", *span)
            for name, at in (("equity", "now_ns"), ("fills", "now_ns"), ("trips", "exit_ns"),
                             ("orders", "created_ns"), ("signals", "now_ns"))
        }  # fmt: skip
        holds = _rows(
            connection,
            "SELECT * FROM holds WHERE raised_ns<? AND COALESCE(lifted_ns, ?)>=? ORDER BY raised_ns",
            to_ns, to_ns, from_ns,
        )  # fmt: skip
    notes: list[str] = []
    told = [_session(s) for s in sessions]
    sheet: dict[str, Any] = {
        "day": chosen.isoformat(), "timezone": config.session.timezone,
        "watermark": "SIMULATED" if any(s["watermark"] == "SIMULATED" for s in sessions) else "REAL",
        "sessions": told,
        "capital": config.risk.capital_base,
        "equity": _equity(tables["equity"], [s["session_id"] for s in sessions]),
        "counts": {name: len(tables[name]) for name in ("signals", "orders", "fills", "trips")},
        "result": _result(tables),
        "trips": _hit_ratio(tables["trips"]),
        "holds": holds,
        "latency": _latency(sessions),
        "refusals": _refusals(sessions),
        "drift": drift_looks(runtime, chosen, from_ns, to_ns),
        "notes": notes,
    }  # fmt: skip
    sheet |= _fill_quality(runtime, tables, told, notes)
    return sheet


# ---- the day


def _day(connection: sqlite3.Connection, wanted: str | None, zone: ZoneInfo) -> date:
    if wanted is not None:
        try:
            return date.fromisoformat(wanted)
        except ValueError:
            raise ConfigError(f"--day {wanted!r}: write it as YYYY-MM-DD") from None
    last = connection.execute("SELECT max(now_ns) FROM equity").fetchone()[0]
    if last is None:
        raise ConfigError("there is nothing to report: no session has written its equity yet")
    return datetime.fromtimestamp(last / SECOND_NS, zone).date()


def _bounds(day: date, zone: ZoneInfo) -> tuple[int, int]:
    start = datetime(day.year, day.month, day.day, tzinfo=zone)
    end = start.replace(tzinfo=None) + timedelta(days=1)
    return int(start.timestamp()) * SECOND_NS, int(end.replace(tzinfo=zone).timestamp()) * SECOND_NS


def _known_days(connection: sqlite3.Connection, zone: ZoneInfo) -> str:
    first, last = connection.execute("SELECT min(now_ns), max(now_ns) FROM equity").fetchone()
    if first is None:
        return "no session has written its equity yet"
    days = [datetime.fromtimestamp(ns / SECOND_NS, zone).date().isoformat() for ns in (first, last)]
    return f"the database goes from {days[0]} to {days[1]}"


def _rows(connection: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql, values)]


# ---- parts


def _session(row: dict[str, Any]) -> dict[str, Any]:
    names = ("session_id", "mode", "account", "alias", "model_version", "manifest_sha256", "watermark",
             "code_commit", "started_wall_ns", "ended_wall_ns")  # fmt: skip
    return {name: row[name] for name in names}


def _equity(rows: list[dict[str, Any]], sessions: list[str]) -> list[dict[str, int]]:
    """Gross, fees and net over the day, session after session."""
    curve: list[dict[str, int]] = []
    carried = {"gross_nano": 0, "fees_nano": 0, "net_nano": 0}
    for session in sessions:
        for row in (r for r in rows if r["session_id"] == session):
            curve.append({"now_ns": row["now_ns"]} | {name: carried[name] + row[name] for name in carried})
        if curve:
            carried = {name: curve[-1][name] for name in carried}
    return curve


def _result(tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    realised = sum(fill["realised_nano"] for fill in tables["fills"])
    fees = sum(fill["fee_nano"] for fill in tables["fills"])
    lots = sum(fill["lots"] for fill in tables["fills"])
    return {"realised_nano": realised, "fees_nano": fees, "net_nano": realised - fees, "lots": lots}


def _hit_ratio(trips: list[dict[str, Any]]) -> dict[str, Any]:
    """Won against what would have to be won at this mean win and mean loss, all net of fees."""
    wins = [t["net_nano"] for t in trips if t["net_nano"] > 0]
    losses = [-t["net_nano"] for t in trips if t["net_nano"] <= 0]
    win = sum(wins) / len(wins) if wins else 0.0
    loss = sum(losses) / len(losses) if losses else 0.0
    exits: dict[str, int] = {}
    for trip in trips:
        exits[trip["exit_reason"]] = exits.get(trip["exit_reason"], 0) + 1
    return {
        "count": len(trips), "won": len(wins),
        "hit_ratio": len(wins) / len(trips) if trips else None,
        "break_even": loss / (win + loss) if wins and losses else None,
        "mean_win_nano": round(win), "mean_loss_nano": round(loss), "exits": exits,
        "mean_holding_s": (
            sum(t["exit_ns"] - t["entry_ns"] for t in trips) / len(trips) / SECOND_NS if trips else None
        ),
    }  # fmt: skip


def _latency(sessions: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Per stage over the sessions: how many, and the worst of their percentiles."""
    found: dict[str, dict[str, int]] = {}
    for summary in (json.loads(s["summary"]) for s in sessions if s["summary"]):
        for stage, h in summary.get("latency", {}).items():
            of = found.setdefault(stage, {"n": 0, "p50_us": 0, "p99_us": 0, "max_us": 0})
            of["n"] += h["n"]
            for name in ("p50_us", "p99_us", "max_us"):
                of[name] = max(of[name], h[name])
    return found


def _refusals(sessions: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for summary in (json.loads(s["summary"]) for s in sessions if s["summary"]):
        for reason, n in summary.get("refusals", {}).items():
            found[reason] = found.get(reason, 0) + n
    return dict(sorted(found.items(), key=lambda pair: -pair[1])[:MAX_REFUSALS])


def drift_looks(runtime: Path, day: date, from_ns: int, to_ns: int) -> list[dict[str, Any]]:
    """The lines of the drift monitor between two times; its files are named by the day in UTC."""
    found = []
    for name in {day, day - timedelta(days=1), day + timedelta(days=1)}:
        path = runtime / "drift_metrics" / f"drift_metrics_{name:%Y%m%d}.jsonl"
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                row = json.loads(text)
            except ValueError:
                continue
            if isinstance(row, dict) and from_ns <= int(row.get("now_ns", 0)) < to_ns:
                found.append(row)
    return sorted(found, key=lambda row: int(row["now_ns"]))


# ---- how good the fills were


def _fill_quality(
    runtime: Path, tables: dict[str, list[dict[str, Any]]], sessions: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    """Fills against the mid (markouts, by side of the order's life) and against the plan."""
    orders = {order["client_order_id"]: order for order in tables["orders"]}
    plans = _plans(runtime, {order["trace_id"] for order in tables["orders"]})
    entries: list[tuple[dict[str, Any], dict[str, float | None]]] = []
    marks: dict[str, list[tuple[int, dict[str, float | None]]]] = {"entries": [], "exits": []}
    instruments: dict[str, Instrument] = {}
    for session in sessions:
        folder = runtime / "session" / session["session_id"]
        try:
            market = markouts.mids(folder)
            instruments |= JournalReader(folder).header.instruments
        except JournalError as error:
            notes.append(f"no markouts for session {session['session_id']}: {error}")
            continue
        for fill in (f for f in tables["fills"] if f["session_id"] == session["session_id"]):
            order = orders.get(fill["client_order_id"], {})
            kind = "exits" if order.get("reduce_only") else "entries"
            found = markouts.of_fill(fill, market)
            marks[kind].append((fill["lots"], found))
            entries.append((fill, found))
    return {
        "markouts": {kind: _mean(found) for kind, found in marks.items()},
        "slippage": _slippage(tables["fills"], orders, plans, instruments),
        "spread_paid_nano": _spread_paid(entries, instruments),
    }


def _mean(found: list[tuple[int, dict[str, float | None]]]) -> dict[str, dict[str, Any]]:
    names = ("at", *(f"{s}s" for s in markouts.HORIZONS_S))
    out: dict[str, dict[str, Any]] = {}
    for name in names:
        known = [(lots, bps) for lots, marks in found if (bps := marks[name]) is not None]
        lots = sum(n for n, _ in known)
        mean = sum(n * bps for n, bps in known) / lots if lots else None
        out[name] = {"bps": mean, "fills": len(known)}
    return out


def _spread_paid(
    fills: list[tuple[dict[str, Any], dict[str, float | None]]], instruments: dict[str, Instrument]
) -> int:
    """What the fills cost against the mid of their moment, nano-roubles."""
    total = 0.0
    for fill, marks in fills:
        if marks["at"] is not None and fill["ticker"] in instruments:
            value = instruments[fill["ticker"]].notional_nano(fill["price_ticks"], fill["lots"])
            total -= value * marks["at"] / markouts.BPS
    return round(total)


def _plans(runtime: Path, traces: set[str]) -> dict[str, int]:
    """Planned entry price by trace, from the audit."""
    return {
        line.trace: int(line.fields["entry_ticks"])
        for line in read_all(runtime / "audit.log")
        if line.event == "ORDER_PLAN" and line.trace in traces
    }


def _slippage(
    fills: list[dict[str, Any]], orders: dict[str, dict[str, Any]], plans: dict[str, int],
    instruments: dict[str, Instrument],
) -> dict[str, Any]:  # fmt: skip
    """Entries against the price that their plan counted with; positive is against us."""
    ticks = lots = 0
    nano = 0
    by_type: dict[str, list[int]] = {}
    for fill in fills:
        order = orders.get(fill["client_order_id"])
        if order is None or order["reduce_only"] or order["trace_id"] not in plans:
            continue
        worse = fill["side"] * (fill["price_ticks"] - plans[order["trace_id"]]) * fill["lots"]
        ticks, lots = ticks + worse, lots + fill["lots"]
        if fill["ticker"] in instruments:
            nano += worse * instruments[fill["ticker"]].tick_value_nano
        kind = by_type.setdefault(order["order_type"], [0, 0])
        kind[0] += worse
        kind[1] += fill["lots"]
    return {
        "lots": lots, "ticks_per_lot": ticks / lots if lots else None, "nano": nano,
        "by_order_type": {name: worse / n for name, (worse, n) in by_type.items() if n},
    }  # fmt: skip


def days(config: RunnerConfig) -> list[str]:
    """The days that a report can be made of, oldest first."""
    zone = ZoneInfo(config.session.timezone)
    with reader(Path(config.storage.path)) as connection:
        rows = connection.execute("SELECT DISTINCT now_ns / 3600000000000 FROM equity").fetchall()
    found = {datetime.fromtimestamp(row[0] * 3600, UTC).astimezone(zone).date().isoformat() for row in rows}
    return sorted(found)
