"""What the runner tells while it works and at the end: status file, progress line, summary."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live import snapshot
from live.broker.link import Link
from live.clock import MarketClock
from live.loop import EngineLoop
from live.model import SIMULATED
from live.notify import Notifier
from live.reload import AliasFollower
from live.secrets import redacted
from live.storage import Record, Storage
from live.why import SignalReasons
from market.types import NANO, SECOND_NS

_WRITING = threading.Lock()


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    text = redacted(json.dumps(content, indent=1)) + "\n"
    with _WRITING:  # the thread of a cancelled task may still write the same file
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def roubles(nano: int, *, signed: bool = True) -> str:
    return f"{nano / NANO:+.2f}" if signed else f"{nano / NANO:.2f}"


@dataclass(slots=True)
class Reporter:
    """Reads the parts of a running session; changes nothing but the equity table."""

    session_id: str
    mode: str
    watermark: str
    loop: EngineLoop
    link: Link
    clock: MarketClock
    storage: Storage
    notifier: Notifier
    follower: AliasFollower
    reasons: SignalReasons
    timezone: str
    started_wall_ns: int = field(default_factory=time.time_ns)
    more: Callable[[], dict[str, Any]] = dict
    """Further parts of the status."""
    _last: dict[str, Any] = field(default_factory=dict)
    _books: int = 0
    _at: float = 0.0

    @property
    def mark(self) -> str:
        return f"  [{SIMULATED}]" if self.watermark == SIMULATED else ""

    def headline(self) -> str:
        model = self.follower.model
        return (
            f"session {self.session_id}: {self.mode}, model {model.alias} version {model.version} "
            f"({model.sha256[:12]}), {', '.join(self.loop.engine.instruments)}{self.mark}"
        )

    def progress(self) -> str:
        """The line of the terminal."""
        ledger, now = self.loop.ledger, time.monotonic()
        books = ledger.counts["books"]
        rate = (books - self._books) / (now - self._at) if self._at else 0.0
        self._books, self._at = books, now
        lots = ", ".join(f"{t} {n:+d}" for t, n in ledger.positions.items() if n) or "flat"
        holds = sorted({h.name + ("" if h.scope == "*" else f"({h.scope})") for h in self.loop.engine.holds})
        stamp = datetime.fromtimestamp(self.clock.now_ns() / SECOND_NS, UTC).strftime("%H:%M:%S")
        return (
            f"{stamp} UTC  {rate:6.1f} books/s  signals {self.loop.signals}  "
            f"orders {ledger.counts['orders']}  fills {ledger.counts['fills']}  {lots}  "
            f"net {roubles(ledger.result()[2])} RUB  holds: {', '.join(holds) or 'none'}{self.mark}"
        )

    def status(self) -> dict[str, Any]:
        """``runtime/status.json``: for `live-runner status`, the dashboard and an outside watchdog."""
        gross, fees, net = self.loop.ledger.result()
        book_ns, link, inbox = self.loop.last_book_mono_ns, self.link, self.loop.inbox
        self._last = {
            "session_id": self.session_id,
            "pid": os.getpid(),
            "wall_ns": time.time_ns(),
            "market_ns": self.clock.now_ns(),
            "mode": self.mode,
            "model": self.follower.model.describe(),
            "watermark": self.watermark,
            "connection": {
                "up": link.up,
                "channel": link.channel,
                "reconnects": link.reconnects,
                "last_error": link.last_error,
                "clock_skew_ns": link.market.clock_skew_ns,
                "book_age_s": (time.monotonic_ns() - book_ns) / SECOND_NS if book_ns else None,
                **link.report(),
            },
            "queue": {"length": len(inbox), "conflated": inbox.conflated, "dropped": inbox.dropped},
            "storage": {"degraded": self.storage.degraded, "lost": self.storage.lost},
            "notifier": self.notifier.report(),
            "counts": {**self.loop.ledger.counts, "signals": self.loop.signals},
            "started_wall_ns": self.started_wall_ns,
            "timezone": self.timezone,
            **snapshot.view(self.loop, self.clock),
            **self.more(),
            "signals": self.reasons.rows(),
            "gross_nano": gross,
            "fees_nano": fees,
            "net_nano": net,
            "holds": [hold.to_dict() for hold in self.loop.engine.holds],
            "latency": self.loop.latencies.summary(),
        }
        return self._last

    def last(self) -> dict[str, Any]:
        """The status made last, for other threads; empty before the first."""
        return self._last

    def record_equity(self) -> None:
        if not self.clock.anchored:
            return
        gross, fees, net = self.loop.ledger.result()
        fields = {
            "session_id": self.session_id,
            "now_ns": self.clock.now_ns(),
            "gross_nano": gross,
            "fees_nano": fees,
            "net_nano": net,
        }
        self.storage.put(Record("equity", fields))

    def summary(self, stop_reason: str, failure: BaseException | None) -> dict[str, Any]:
        """``runtime/session/<id>/summary.json``."""
        counted = self.loop.ledger.summary(self.clock.now_ns())
        counted |= {"signals": self.loop.signals, "refusals": self.loop.refusals}
        inbox, journal = self.loop.inbox, self.loop.journal
        return {
            "session_id": self.session_id,
            "mode": self.mode,
            "model": self.follower.model.describe(),
            "watermark": self.watermark,
            "stop_reason": stop_reason,
            "failure": f"{type(failure).__name__}: {failure}" if failure else None,
            **counted,
            "latency": self.loop.latencies.summary(),
            "conflated": inbox.conflated,
            "dropped": inbox.dropped,
            "queue_longest": inbox.longest,
            "reconnects": self.link.reconnects,
            "journal_lines_not_written": journal.not_written,
            "storage": {"degraded": self.storage.degraded, "lost": self.storage.lost},
        }


def closing_lines(summary: dict[str, Any], folder: Path) -> str:
    """The last words of a session."""
    mark = "  (SIMULATED data: not evidence of an edge)" if summary["watermark"] == SIMULATED else ""
    return (
        f"books {summary['books']}, signals {summary['signals']}, orders {summary['orders']}, "
        f"fills {summary['fills']}; gross {roubles(summary['gross_nano'])}, "
        f"fees {roubles(summary['fees_nano'], signed=False)}, net {roubles(summary['net_nano'])} RUB{mark}\n"
        f"summary: {folder / 'summary.json'}"
    )
