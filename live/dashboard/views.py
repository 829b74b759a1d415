"""What the page shows, as JSON-able sections. Everything comes from files: nothing here touches a running
part.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

from live import audit, status
from live.control import Control, liftable
from live.dashboard.curve import Curve
from live.storage import StorageError, reader
from live.verdict import Verdict, judge

MAX_ROWS = 30
MAX_AUDIT_LINES = 40
TAIL_BYTES = 48_000
MAX_FIELD_CHARS = 200
MARKS = {"sandbox": "the broker's sandbox", "shadow": "imagined orders", "paper": "the paper exchange"}

STATE = (
    "alive", "age_s", "session_id", "pid", "mode", "model", "watermark", "started_wall_ns", "wall_ns",
    "market_ns", "speed", "timezone", "counts", "gross_nano", "fees_nano", "net_nano", "day", "halt_flag",
    "valid_until_ns", "ended", "refusals",
)  # fmt: skip
HEALTH = (
    "connection", "queue", "storage", "notifier", "latency", "limits", "resources", "restrictions",
)  # fmt: skip
TABLES = {
    "orders": "SELECT * FROM orders WHERE session_id = ? ORDER BY created_ns DESC, rowid DESC LIMIT ?",
    "fills": "SELECT * FROM fills WHERE session_id = ? ORDER BY now_ns DESC, rowid DESC LIMIT ?",
    "trips": "SELECT * FROM trips WHERE session_id = ? ORDER BY exit_ns DESC, rowid DESC LIMIT ?",
    "past_holds": "SELECT * FROM holds WHERE session_id = ? ORDER BY raised_ns DESC LIMIT ?",
}


class Views:
    """``fast`` is cheap and made every second, ``slow`` reads the database."""

    def __init__(self, database: Path, control: Control) -> None:
        self._database, self._control = database, control
        self._curve = Curve()

    def fast(self) -> dict[str, Any]:
        """Sections verdict, state, holds, market, signals and health."""
        try:
            found = self._control.status()
        except status.NoStatus as error:
            verdict = Verdict("idle", "No runner has worked here yet", str(error))
            return {
                "verdict": asdict(verdict),
                "state": {"alive": False, "halt_flag": self._control.halted()},
            }
        state = {name: found[name] for name in STATE if name in found}
        state["simulated"] = _simulated(found)
        return {
            "verdict": asdict(judge(found)),
            "state": state,
            "holds": {"list": found["holds"], "liftable": liftable(found)},
            "market": {
                "positions": found["positions"],
                "working": found.get("working", []),
                "instruments": found.get("instruments", {}),
                "books": found.get("books", {}),
            },
            "signals": found.get("signals", []),
            "health": {name: found[name] for name in HEALTH if name in found},
            "drift": found.get("drift") or self._drift(),
        }

    def slow(self) -> dict[str, Any]:
        """Sections equity, orders, fills, trips, past_holds (of the latest session), audit and sessions."""
        sections: dict[str, Any] = {"audit": self._audit()}
        try:
            with reader(self._database) as connection:
                session = _latest(connection)
                sections["equity"] = self._curve.read(connection, session)
                for name, sql in TABLES.items():
                    rows = connection.execute(sql, (session, MAX_ROWS)).fetchall()
                    sections[name] = [dict(row) for row in rows]
                sections["sessions"] = _sessions(connection)
            sections["database"] = ""
        except StorageError as error:
            sections["database"] = str(error)
        return sections

    def _audit(self) -> list[dict[str, Any]]:
        """The last lines, newest first."""
        lines = []
        for text in reversed(_tail(self._control.runtime / "audit.log")):
            line = audit.parse(text)
            if line is not None:
                fields = " ".join(f"{k}={v}" for k, v in line.fields.items())
                lines.append(
                    {
                        "wall": line.wall, "market_ns": line.market_ns, "tag": line.tag, "event": line.event,
                        "fields": fields[:MAX_FIELD_CHARS],
                    }
                )  # fmt: skip
            if len(lines) == MAX_AUDIT_LINES:
                break
        return lines

    def _drift(self) -> dict[str, Any]:
        """The last line of the newest file of drift metrics."""
        files = sorted((self._control.runtime / "drift_metrics").glob("drift_metrics_*.jsonl"))
        for text in reversed(_tail(files[-1]) if files else []):
            try:
                found = json.loads(text)
            except ValueError:
                continue  # the writer is in the middle of it
            if isinstance(found, dict):
                return {"last": {k: v for k, v in found.items() if isinstance(v, int | float | str)}}
        return {}


def _simulated(found: dict[str, Any]) -> str:
    """Why the money is not real; empty when it is."""
    if found["watermark"] == "SIMULATED":
        return "a simulated market"
    return MARKS.get(found["mode"], "")


def _latest(connection: sqlite3.Connection) -> str:
    row = connection.execute(
        "SELECT session_id FROM sessions ORDER BY started_wall_ns DESC LIMIT 1"
    ).fetchone()
    return str(row[0]) if row else ""


def _sessions(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT s.session_id, s.mode, s.alias, s.model_version, s.watermark, s.started_wall_ns, "
        "s.ended_wall_ns, (SELECT e.net_nano FROM equity e WHERE e.session_id = s.session_id "
        "ORDER BY e.now_ns DESC LIMIT 1) AS net_nano FROM sessions s ORDER BY s.started_wall_ns DESC LIMIT 10"
    ).fetchall()
    return [dict(row) for row in rows]


def _tail(path: Path) -> list[str]:
    """The last whole lines of a file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines if size <= TAIL_BYTES else lines[1:]
