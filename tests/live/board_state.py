"""A workspace as a runner leaves it: its status file, database and audit, for tests of what people see.

``test_dashboard_run`` holds this status against that of a real runner: the same keys, or it fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from live.audit import AuditLog
from live.config_schema import RunnerConfig
from live.storage import Record, Storage
from market.types import NANO, SECOND_NS

SESSION = "20260115-100000-ab12"
MARKET_NS = 1_768_460_400 * SECOND_NS  # 10:00:00 in Moscow
FRESH_NS = 900 * SECOND_NS
"""The status says that it was written so much later: it must not grow stale on a slow machine."""
HOLD = {
    "name": "VOLATILITY", "scope": "*", "severity": "FLATTEN", "since_ns": MARKET_NS - 60 * SECOND_NS,
    "reason": "volatility index 41 is above 40", "lifts_when": "a person resumes", "until_ns": 0,
}  # fmt: skip


def status(**changes: Any) -> dict[str, Any]:
    """A runner that trades and is well."""
    now_ns = time.time_ns()
    instrument = {
        "name": "Sberbank", "tick_nano": 10_000_000, "tick_value_nano": 100_000_000, "book_age_s": 0.2,
        "spread_millibps": 700, "trusted": True, "threshold_millibps": 1000, "rotated_out": False,
        "warming_up": False,
    }  # fmt: skip
    book = {
        "now_ns": MARKET_NS, "bid": [[30_000 - n, 100 + n] for n in range(10)],
        "ask": [[30_002 + n, 90 + n] for n in range(10)],
    }  # fmt: skip
    position = {
        "lots": 3, "cost_nano": 9_000 * NANO, "mark_ticks": 30_000, "stop_ticks": 29_970,
        "unrealised_nano": -NANO, "entry_ticks": 30_000.0,
    }  # fmt: skip
    order = {
        "client_order_id": "c-1", "ticker": "SBER", "side": -1, "lots": 3, "lots_filled": 1,
        "order_type": "limit", "price_ticks": 30_004, "role": "EXIT", "reason": "TAKE", "state": "PARTIAL",
        "placed_ns": MARKET_NS,
    }  # fmt: skip
    signal = {
        "now_ns": MARKET_NS, "trace_id": "k-SBER-1", "ticker": "SBER", "side": 1, "source": "ensemble",
        "outcome": "ENTRY", "p_e6": [100_000, 300_000, 600_000], "confidence_e6": 600_000,
        "expected_move_millibps": 5_200, "cost_millibps": 2_100, "edge_millibps": 3_100,
        "votes": {"gbdt": {"weight": 0.6, "up_minus_down": 0.5},
                  "lstm": {"weight": 0.4, "up_minus_down": -0.1}},
        "inputs": [{"name": "ofi_l1_5s", "value": 3.0, "z": 4.2}],
    }  # fmt: skip
    stream = {"generation": 1, "messages": 10, "late_messages": 0, "mute": 0}
    base = {
        "session_id": SESSION, "pid": os.getpid(), "wall_ns": now_ns + FRESH_NS, "market_ns": MARKET_NS,
        "mode": "paper", "watermark": "SIMULATED",
        "model": {"alias": "prod", "version": "7", "manifest_sha256": "a" * 64},
        "connection": {
            "up": True, "channel": "primary", "reconnects": 0, "last_error": "", "clock_skew_ns": 4_000_000,
            "book_age_s": 0.2, "streams": {"market": stream, "orders": stream}, "silence": {"probes": 0,
            "quiet": 0, "resubscribed": 0, "reconnected": 0}, "limits": {},
        },
        "queue": {"length": 0, "conflated": 0, "dropped": 0},
        "storage": {"degraded": "", "lost": 0},
        "notifier": {"enabled": True, "sent": 3, "waiting": 0, "dropped": 0, "last_error": "", "sound": None},
        "counts": {"books": 5_000, "trades": 900, "orders": 4, "fills": 3, "signals": 6},
        "started_wall_ns": now_ns - 3_600 * SECOND_NS, "timezone": "Europe/Moscow", "speed": 1.0,
        "instruments": {"SBER": instrument, "GAZP": {**instrument, "name": "Gazprom"}},
        "books": {"SBER": book, "GAZP": {**book, "bid": [[17_000, 5]], "ask": [[17_001, 6]]}},
        "positions": {"SBER": position}, "working": [order],
        "limits": {
            "latency_us": {"features": 5_000, "ml": 50_000, "risk": 5_000}, "book_age_s": 5.0,
            "spread_millibps": 20_000, "max_position_lots": 50,
        },
        "day": {"realised_nano": 12 * NANO, "loss_limit_nano": 2_000 * NANO, "consecutive_losses": 1},
        "valid_until_ns": MARKET_NS + 86_400 * SECOND_NS, "refusals": {"COOLDOWN": 2},
        "resources": {"cpu_pct": 31.0, "memory_pct": 40.0, "gpu_pct": None, "gpu_memory_pct": None,
                      "simplified": False},
        "signals": [signal], "gross_nano": 15 * NANO, "fees_nano": 3 * NANO, "net_nano": 12 * NANO,
        "holds": [],
        "latency": {"ml": {"n": 100, "p50_us": 300, "p99_us": 61_000, "max_us": 70_000}},
    }  # fmt: skip
    return {**base, **changes}


class Board:
    """A folder with everything the dashboard reads. ``tell`` replaces the status."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runtime = folder, folder / "runtime"
        self.runtime.mkdir(parents=True)
        self.flag = self.runtime / "manual_override.flag"
        self.tell()
        storage = Storage.open(self.runtime / "scalper.db", self.runtime / "fallback.jsonl")
        with ThreadPoolExecutor(1) as pool:  # a browser driver keeps a loop running in this thread
            pool.submit(asyncio.run, self._fill(storage)).result()
        storage.close()
        audit = AuditLog(self.runtime / "audit.log", SESSION)
        audit.write(MARKET_NS, "SESSION", "SESSION_STARTED", {"mode": "paper"})
        audit.write(MARKET_NS + 1, "RISK", "EXIT_DECIDED", {"ticker": "SBER", "reason": "<b>STOP</b> & more"})
        audit.close()

    @staticmethod
    async def _fill(storage: Storage) -> None:
        fields = {"session_id": SESSION, "started_wall_ns": 1, "watermark": "SIMULATED", "mode": "paper",
                  "alias": "prod", "model_version": "7"}  # fmt: skip
        storage.put(Record("sessions", fields))
        for n in range(1_000):
            net = (n if n < 500 else 1_000 - n) * NANO // 100
            row = {"session_id": SESSION, "now_ns": MARKET_NS + n * SECOND_NS, "gross_nano": net + 1,
                   "fees_nano": 1, "net_nano": net}  # fmt: skip
            storage.put(Record("equity", row))
        order = {
            "client_order_id": "c-1", "session_id": SESSION, "trace_id": "t", "ticker": "SBER", "side": 1,
            "lots": 3, "order_type": "limit", "price_ticks": 30_000, "tif": "day", "reduce_only": 0,
            "reason": "SIGNAL", "created_ns": MARKET_NS, "updated_ns": MARKET_NS,
        }  # fmt: skip
        await storage.intent(order)
        await storage.commit(
            Record("holds", {"session_id": SESSION, "name": "SESSION", "scope": "*", "raised_ns": 5})
        )

    def tell(self, **changes: Any) -> None:
        part = self.runtime / "status.json.part"
        part.write_text(json.dumps(status(**changes)))
        part.replace(self.runtime / "status.json")

    def config(self, token: str = "") -> RunnerConfig:
        from live import config

        overrides = [
            f"system.runtime_dir={self.runtime}", f"storage.path={self.runtime / 'scalper.db'}",
            f"manual_override.flag_path={self.flag}", f"dashboard.token={token}", "dashboard.port=0",
        ]  # fmt: skip
        return config.load(None, overrides)
