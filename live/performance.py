"""The periodic report: what was earned, how sure the signals are, what the risk engine flags.

One JSON line per period in ``reporting.report_path`` (lines older than ``max_history_days`` are dropped) and
the same in a few words for the chat. Each line carries the head of the audit's chain, so that the report in
the chat pins the log on the box.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live.config_schema import Reporting
from live.secrets import redacted
from live.storage import StorageError, reader
from market.types import NANO, SECOND_NS

DAY_NS = 86_400 * SECOND_NS
TREND_E6 = 10_000
"""A change of the mean confidence by less than one per cent is called steady."""
MAX_REFUSALS = 5


class PerformanceReports:
    """``make`` appends a line about the time since the last one; call it from one thread at a time."""

    def __init__(self, settings: Reporting, session_id: str) -> None:
        self._path, self._keep_days = Path(settings.report_path), settings.max_history_days
        self._session_id = session_id
        self._from_ns = 0
        self._confidence: int | None = None

    def make(self, database: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Writes and returns the line. ``facts``: mode, watermark, market_ns, audit_head, status.

        OSError if the file cannot be written.
        """
        until_ns = int(facts["market_ns"])
        status: Mapping[str, Any] = facts["status"]
        line: dict[str, Any] = {
            "wall_ns": time.time_ns(), "session_id": self._session_id, "mode": facts["mode"],
            "watermark": facts["watermark"], "from_ns": self._from_ns, "to_ns": until_ns,
        }  # fmt: skip
        try:
            with reader(database) as connection:
                line |= self._period(connection, until_ns)
        except StorageError as error:
            line["problem"] = str(error)
        line |= {
            "session": {name: status[name] for name in ("gross_nano", "fees_nano", "net_nano")},
            "positions": {t: p["lots"] for t, p in status.get("positions", {}).items()},
            "risk": _flags(status),
            "audit_head": facts["audit_head"],
        }
        self._append(line)
        self._from_ns = until_ns
        return line

    def _period(self, connection: sqlite3.Connection, until_ns: int) -> dict[str, Any]:
        span = (self._session_id, self._from_ns, until_ns)
        fills = connection.execute(
            "SELECT count(*), COALESCE(sum(realised_nano), 0), COALESCE(sum(fee_nano), 0) FROM fills "
            "WHERE session_id=? AND now_ns>=? AND now_ns<?",
            span,
        ).fetchone()
        trips = connection.execute(
            "SELECT count(*), COALESCE(sum(net_nano>0), 0) FROM trips "
            "WHERE session_id=? AND exit_ns>=? AND exit_ns<?",
            span,
        ).fetchone()
        signals = connection.execute(
            "SELECT count(*), avg(confidence_e6), COALESCE(sum(source='fallback'), 0) FROM signals "
            "WHERE session_id=? AND now_ns>=? AND now_ns<?",
            span,
        ).fetchone()
        confidence = None if signals[1] is None else round(signals[1])
        before, self._confidence = self._confidence, confidence
        return {
            "fills": fills[0], "realised_nano": fills[1], "fees_nano": fills[2],
            "realised_net_nano": fills[1] - fills[2],
            "round_trips": trips[0], "round_trips_won": trips[1],
            "signals": {
                "count": signals[0], "fallback": signals[2], "confidence_e6": confidence,
                "trend": _trend(before, confidence),
            },
        }  # fmt: skip

    def _append(self, line: Mapping[str, Any]) -> None:
        """Appends, and drops lines that are too old; the file is replaced only when there are any."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = redacted(json.dumps(line, separators=(",", ":"), ensure_ascii=False)) + "\n"
        limit_ns = time.time_ns() - self._keep_days * DAY_NS
        kept, dropped = _split(self._path, limit_ns)
        if dropped:
            part = self._path.with_name(self._path.name + ".part")
            part.write_text("".join(kept) + text, encoding="utf-8")
            part.replace(self._path)
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def digest(line: Mapping[str, Any]) -> str:
        """The line in a few words, for the chat."""
        signals, risk = line.get("signals"), line["risk"]
        mark = " [SIMULATED]" if line["watermark"] == "SIMULATED" else ""
        at = datetime.fromtimestamp(line["to_ns"] / SECOND_NS, UTC)
        parts = [f"REPORT {at:%H:%M} UTC{mark}: session net {line['session']['net_nano'] / NANO:+.2f} RUB"]
        if signals is not None:
            sure = signals["confidence_e6"]
            parts.append(
                f"realised {line['realised_nano'] / NANO:+.2f}, fees {line['fees_nano'] / NANO:.2f}, "
                f"{line['fills']} fills, {line['round_trips_won']} of {line['round_trips']} round trips won"
            )
            parts.append(
                f"{signals['count']} signals"
                + (f", confidence {sure / 1e6:.3f} {signals['trend']}" if sure is not None else "")
            )
        else:
            parts.append(f"no figures: {line['problem']}")
        held = ", ".join(f"{t} {lots:+d}" for t, lots in line["positions"].items()) or "flat"
        parts.append(f"{held}; holds {', '.join(risk['holds']) or 'none'}")
        head = line["audit_head"]
        parts.append(f"audit {head['seq']}:{head['chain']}")
        return "\n".join(parts)


def _trend(before: int | None, now: int | None) -> str:
    if before is None or now is None:
        return "unknown"
    if abs(now - before) < TREND_E6:
        return "steady"
    return "rising" if now > before else "falling"


def _flags(status: Mapping[str, Any]) -> dict[str, Any]:
    """What a person who watches the risk looks at."""
    day, refusals = status.get("day", {}), status.get("refusals", {})
    limit = day.get("loss_limit_nano") or 0
    return {
        "holds": sorted(
            h["name"] + ("" if h["scope"] == "*" else f"({h['scope']})") for h in status["holds"]
        ),
        "day_realised_nano": day.get("realised_nano"),
        "day_loss_used_pct": round(max(0.0, -100 * day.get("realised_nano", 0) / limit), 1)
        if limit
        else None,
        "consecutive_losses": day.get("consecutive_losses"),
        "refusals": dict(sorted(refusals.items(), key=lambda pair: -pair[1])[:MAX_REFUSALS]),
        "storage": status["storage"]["degraded"],
        "connected": status["connection"]["up"],
    }


def _split(path: Path, limit_ns: int) -> tuple[list[str], int]:
    """(lines that stay, how many go). A line that cannot be read stays: it is not ours to judge."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return [], 0
    kept = [line if line.endswith("\n") else line + "\n" for line in lines if not _older(line, limit_ns)]
    return kept, len(lines) - len(kept)


def _older(line: str, limit_ns: int) -> bool:
    try:
        return int(json.loads(line)["wall_ns"]) < limit_ns
    except (ValueError, KeyError, TypeError):
        return False
