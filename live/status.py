"""`live-runner status`: what a running (or the last) runner says about itself, for people."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live.verdict import judge
from market.errors import ScalperError
from market.types import SECOND_NS

STALE_S = 10.0


class NoStatus(ScalperError):
    """No runner has worked here yet."""


def read(runtime: Path) -> dict[str, Any]:
    """``runtime/status.json`` with ``alive`` added: the process exists and wrote it moments ago."""
    path = runtime / "status.json"
    try:
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoStatus(
            f"no runner has worked in {runtime} yet; start one with `live-runner --model prod`"
        ) from None
    except (OSError, ValueError) as error:
        raise NoStatus(f"{path} cannot be read: {error}") from None
    age_s = time.time() - status["wall_ns"] / SECOND_NS
    status["age_s"] = age_s
    status["alive"] = age_s < STALE_S and _exists(int(status["pid"]))
    return status


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _streams(connection: dict[str, Any]) -> list[str]:
    """What the watchdogs saw; nothing in the files of earlier versions."""
    if "silence" not in connection:
        return []
    market, silence = connection["streams"]["market"], connection["silence"]
    return [
        f"streams     market life {market['generation']}, found mute {market['mute']} times; silent "
        f"instruments asked for {silence['probes']} times: {silence['quiet']} quiet, "
        f"{silence['resubscribed']} subscribed again, {silence['reconnected']} streams made again"
    ]


def lines(status: dict[str, Any], flag: str | None) -> list[str]:
    """The status as text."""
    model, connection, counts = status["model"], status["connection"], status["counts"]
    market = datetime.fromtimestamp(status["market_ns"] / SECOND_NS, UTC)
    state = "running" if status["alive"] else f"NOT RUNNING (last sign of life {status['age_s']:.0f} s ago)"
    mark = f"  [{status['watermark']}]" if status["watermark"] == "SIMULATED" else ""
    age = connection["book_age_s"]
    verdict = judge({**status, "halt_flag": flag})
    why = " ".join(part for part in (verdict.why, verdict.what_to_do) if part)
    text = [
        f"verdict     {verdict.level.upper()}: {verdict.headline}" + (f". {why}" if why else ""),
        f"runner      {state}, session {status['session_id']}, mode {status['mode']}, pid {status['pid']}",
        f"model       {model['alias']} version {model['version']} ({model['manifest_sha256'][:12]}){mark}",
        f"market      {market:%Y-%m-%d %H:%M:%S} UTC, last book "
        + ("never" if age is None else f"{age:.1f} s ago")
        + f", {'connected' if connection['up'] else 'DISCONNECTED'} ({connection['channel']}), "
        f"{connection['reconnects']} reconnects",
        *_streams(connection),
        f"trading     signals {counts.get('signals', 0)}, orders {counts.get('orders', 0)}, fills "
        f"{counts.get('fills', 0)}",
        f"result      gross {status['gross_nano'] / 1e9:+.2f}, fees {status['fees_nano'] / 1e9:.2f}, "
        f"net {status['net_nano'] / 1e9:+.2f} RUB{mark}",
    ]
    positions = status["positions"]
    text.append(
        "positions   " + (", ".join(f"{t} {p['lots']:+d} lots" for t, p in positions.items()) or "flat")
    )
    if flag is not None:
        text.append(f"HALTED      by the flag file: {flag}")
    for hold in status["holds"]:
        scope = "" if hold["scope"] == "*" else f" {hold['scope']}"
        text.append(
            f"hold        {hold['name']}{scope} ({hold['severity']}): {hold['reason']}; until "
            f"{hold['lifts_when']}"
        )
    if not status["holds"]:
        text.append("holds       none")
    if status["storage"]["degraded"]:
        text.append(f"storage     DEGRADED: {status['storage']['degraded']}")
    for stage in ("features", "ml", "risk", "recv_to_decision", "intent_commit", "rpc", "tick_to_order"):
        if stage in status["latency"]:
            h = status["latency"][stage]
            text.append(f"latency     {stage}: p50 {h['p50_us']} us, p99 {h['p99_us']} us (n {h['n']})")
    if connection["last_error"] and not connection["up"]:
        text.append(f"last error  {connection['last_error']}")
    return text
