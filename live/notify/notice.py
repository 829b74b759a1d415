"""One message to people, and how much it matters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import IntEnum

TONE_LIQUIDITY_HZ, TONE_RISK_HZ = 1500, 2500


class Severity(IntEnum):
    """INFO: worth knowing later. WARNING: look when you can. ALERT: look now."""

    INFO = 1
    WARNING = 2
    ALERT = 3


EXPECTED = frozenset({"INSTRUMENT_ROTATED_OUT", "NOT_RECONCILED", "SESSION_SUSPENDED", "STOP_REQUESTED"})
"""Holds of a normal day: the core raises them with the risk tone like every hold; nobody is woken up."""
WARNINGS = frozenset(
    {
        "BOOK_QUARANTINED", "CASH_MOVED", "FALLBACK_UNAVAILABLE", "HALTED", "LATENCY_VIOLATION", "LIQUIDITY",
        "LOSS_COOLDOWN", "MANUAL_OVERRIDE", "MODEL_RELOAD_REFUSED", "ORDER_UNKNOWN", "RECORDING_ENDED",
        "REJECT_STREAK", "SHADOW_ENDED", "SIMPLIFIED_MODE", "TRADING_HALTED", "VOLATILITY_INDEX_MISSING",
    }
)  # fmt: skip
ALERTS = frozenset(
    {
        "CHECKPOINT_NOT_WRITTEN", "COMPONENT_FAILED", "CONNECTIVITY_FAILOVER", "GPU_FAILOVER",
        "GPU_FAILOVER_FAILED", "QUEUE_FULL",
    }
)  # fmt: skip
NEVER_JOINED = frozenset({"FILL", "REPLY"})
"""Two of these that read the same are two events."""


def severity_of(kind: str, tone_hz: int | None) -> Severity:
    """By the name of the event; an unknown one by its tone."""
    if kind in EXPECTED:
        return Severity.INFO
    if kind in ALERTS:
        return Severity.ALERT
    if kind in WARNINGS:
        return Severity.WARNING
    if tone_hz == TONE_RISK_HZ:
        return Severity.ALERT
    return Severity.WARNING if tone_hz else Severity.INFO


def kind_of(text: str) -> str:
    """The first word of a notice is the name of its event: ``FILL SBER: …``, ``HALTED: …``."""
    return text.split(":", 1)[0].split(" ", 1)[0]


@dataclass(slots=True)
class Notice:
    """``chat_id`` empty: the configured chat. ``at_s`` is monotonic."""

    text: str
    severity: Severity = Severity.INFO
    kind: str = ""
    chat_id: str = ""
    tries: int = 0
    at_s: float = field(default_factory=time.monotonic)
