"""A Hold is everything that stops trading; no other flag in the product may stop an order.

``KINDS`` is the closed list. The gate asks one question, ``HoldSet.blocking``: is there a hold over this
instrument that forbids this order? Cancels and queries always pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from live.core.whole import whole

Tag = Literal["ORDER", "RISK", "RESOURCE", "SESSION", "CONNECTIVITY", "MODEL"]
"""The tags of the audit log."""

EVERYTHING = "*"
"""The scope of a hold over all instruments."""


class Severity(IntEnum):
    """How much a hold forbids; a higher one includes the lower ones."""

    NO_ENTRIES = 1
    """Nothing opens or enlarges a position; entries already working may finish; exits follow their own rules.
    """
    REDUCE_ONLY = 2
    """Working entries are cancelled as well."""
    FLATTEN = 3
    """Positions are closed at market as well."""
    NO_ORDERS = 4
    """Nothing is sent at all, not even an exit: the broker cannot or must not be reached. Beats FLATTEN."""


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason not to trade. ``scope``: a ticker or ``EVERYTHING``; ``until_ns`` 0: no date of its own."""

    name: str
    scope: str
    severity: Severity
    since_ns: int
    reason: str
    lifts_when: str
    until_ns: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "scope": self.scope, "severity": self.severity.name, "since_ns": self.since_ns,
            "reason": self.reason, "lifts_when": self.lifts_when, "until_ns": self.until_ns,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Hold:
        return whole(cls, {**fields, "severity": Severity[fields["severity"]]})


@dataclass(frozen=True, slots=True)
class HoldKind:
    """What is fixed about a hold of one name. ``by_hand``: a person may lift it with ``Resume``.

    ``kept``: part of the checkpoint, so that a restart cannot clear it; the others are found out afresh.
    """

    severity: Severity
    tag: Tag
    raised_event: str
    lifted_event: str
    lifts_when: str
    by_hand: bool = False
    kept: bool = False


_NO_ENTRIES, _REDUCE, _FLATTEN, _NOTHING = Severity
KINDS: dict[str, HoldKind] = {
    "SESSION": HoldKind(
        _FLATTEN, "SESSION", "SESSION_SUSPENDED", "SESSION_RESUMED", "the next trading window opens"
    ),
    "MANUAL_OVERRIDE": HoldKind(
        _NOTHING, "RISK", "MANUAL_OVERRIDE", "MANUAL_OVERRIDE_LIFTED", "the flag file is removed"
    ),
    "DAILY_LOSS": HoldKind(
        _FLATTEN, "RISK", "DAILY_LOSS_STOP", "DAILY_LOSS_RESET", "exchange midnight", kept=True
    ),
    "LOSS_COOLDOWN": HoldKind(
        _NO_ENTRIES, "RISK", "LOSS_COOLDOWN", "LOSS_COOLDOWN_OVER", "the cool-down is over", kept=True
    ),
    "VOLATILITY": HoldKind(
        _FLATTEN,
        "RISK",
        "VOLATILITY_EMERGENCY",
        "VOLATILITY_RESUMED",
        "a person resumes",
        by_hand=True,
        kept=True,
    ),
    "CRITICAL_DRIFT": HoldKind(
        _REDUCE, "MODEL", "CRITICAL_DRIFT", "CRITICAL_DRIFT_LIFTED", "the model is reloaded", kept=True
    ),
    "LATENCY": HoldKind(
        _FLATTEN, "RISK", "LATENCY_EMERGENCY", "LATENCY_RESUMED", "a person resumes", by_hand=True, kept=True
    ),
    "HEARTBEAT": HoldKind(
        _REDUCE, "CONNECTIVITY", "HEARTBEAT_MISSED", "HEARTBEAT_RESTORED", "a book arrives"
    ),
    "CONNECTION": HoldKind(
        _NOTHING, "CONNECTIVITY", "CONNECTION_LOST", "CONNECTION_RESTORED", "the channel is up"
    ),
    "NOT_RECONCILED": HoldKind(
        _NOTHING, "ORDER", "NOT_RECONCILED", "RECONCILED", "orders and positions agree with the broker"
    ),
    "POSITION_MISMATCH": HoldKind(
        _NOTHING,
        "RISK",
        "POSITION_MISMATCH",
        "POSITION_AGREES",
        "the next reconciliation agrees, or a person resumes",
        by_hand=True,
        kept=True,
    ),
    "LEDGER_MISMATCH": HoldKind(
        _NO_ENTRIES,
        "RISK",
        "LEDGER_MISMATCH",
        "LEDGER_AGREES",
        "the next comparison of a day agrees, or a person resumes",
        by_hand=True,
        kept=True,
    ),
    "BOOK_QUARANTINE": HoldKind(
        _REDUCE, "CONNECTIVITY", "BOOK_QUARANTINED", "BOOK_TRUSTED", "a book passes every check"
    ),
    "TRADING_STATUS": HoldKind(
        _NOTHING, "SESSION", "TRADING_HALTED", "TRADING_OPENED", "the exchange opens trading"
    ),
    "MODEL_EXPIRED": HoldKind(
        _NO_ENTRIES, "MODEL", "MODEL_EXPIRED", "MODEL_RENEWED", "a bundle that is still valid is loaded"
    ),
    "ROTATED_OUT": HoldKind(
        _NO_ENTRIES,
        "RESOURCE",
        "INSTRUMENT_ROTATED_OUT",
        "INSTRUMENT_ROTATED_IN",
        "the rotation finds it among the most tradable again",
    ),
    "REJECT_STREAK": HoldKind(
        _REDUCE,
        "ORDER",
        "REJECT_STREAK",
        "REJECT_STREAK_OVER",
        "the pause is over, or a person resumes",
        by_hand=True,
        kept=True,
    ),
    "ORDER_UNKNOWN": HoldKind(
        _NO_ENTRIES,
        "ORDER",
        "ORDER_UNKNOWN",
        "ORDER_KNOWN",
        "the broker says what became of the order",
        kept=True,
    ),
    "ORDER_STATE": HoldKind(
        _REDUCE,
        "ORDER",
        "ORDER_STATE_ILLEGAL",
        "ORDER_STATE_SETTLED",
        "a reconciliation agrees, or a person resumes",
        by_hand=True,
        kept=True,
    ),
    "STOP_REQUESTED": HoldKind(
        _REDUCE, "SESSION", "STOP_REQUESTED", "STOP_CANCELLED", "the process is started again"
    ),
}


class HoldSet:
    """The holds in force, at most one for each (name, scope)."""

    def __init__(self) -> None:
        self._holds: dict[tuple[str, str], Hold] = {}

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._holds.values())

    def __len__(self) -> int:
        return len(self._holds)

    def get(self, name: str, scope: str = EVERYTHING) -> Hold | None:
        return self._holds.get((name, scope))

    def put(self, hold: Hold) -> bool:
        """Add ``hold``; False when one of that name and scope is there, as severe or more."""
        key = (hold.name, hold.scope)
        present = self._holds.get(key)
        if present is not None and present.severity >= hold.severity:
            return False
        self._holds[key] = hold
        return True

    def lift(self, name: str, scope: str = EVERYTHING) -> Hold | None:
        """Remove and return the hold, None when there was none."""
        return self._holds.pop((name, scope), None)

    def over(self, ticker: str) -> list[Hold]:
        """The holds over ``ticker``, worst first, then oldest, then by name."""
        found = [h for h in self._holds.values() if h.scope in (EVERYTHING, ticker)]
        return sorted(found, key=lambda h: (-h.severity, h.since_ns, h.name))

    def worst(self, ticker: str) -> Hold | None:
        found = self.over(ticker) if self._holds else []
        return found[0] if found else None

    def blocking(self, ticker: str, *, reduces: bool) -> Hold | None:
        """The gate: the hold that forbids an order in ``ticker``, None when it may go.

        ``reduces``: the order can only make the position smaller.
        """
        worst = self.worst(ticker)
        if worst is None or (reduces and worst.severity < Severity.NO_ORDERS):
            return None
        return worst
