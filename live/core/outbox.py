"""The commands of the event in hand, and the one place where holds are raised and lifted."""

from __future__ import annotations

from typing import Any

from live.core.commands import TONE_RISK_HZ, Audit, Command, HoldChanged, Notify, Tag
from live.core.holds import EVERYTHING, KINDS, Hold, HoldSet, Severity
from live.core.refusals import Throttle


class Outbox:
    """Collects commands; ``now_ns`` is the time of the event in hand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.commands: list[Command] = []
        self._throttle = Throttle()

    def begin(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.commands = []

    def add(self, command: Command) -> None:
        self.commands.append(command)

    def audit(self, tag: Tag, event: str, **fields: Any) -> None:
        self.commands.append(Audit(self.now_ns, tag, event, fields))

    def notify(self, kind: str, text: str, tone_hz: int | None = None) -> None:
        self.commands.append(Notify(self.now_ns, kind, text, tone_hz))

    def often(self, ticker: str, what: str) -> int:
        """How many times ``what`` happened since it was last told, 0 while it is too early to tell again."""
        return self._throttle.count(self.now_ns, ticker, what)


class HoldBoard:
    """The holds in force, with every change told: ``HoldChanged``, an audit line and a notice."""

    def __init__(self, out: Outbox) -> None:
        self.holds = HoldSet()
        self.changed = False
        self.version = 0
        """Grows with every hold raised or lifted."""
        self._out = out

    def hold(
        self,
        name: str,
        reason: str,
        *,
        scope: str = EVERYTHING,
        severity: Severity | None = None,
        until_ns: int = 0,
        lifts_when: str | None = None,
        text: str | None = None,
        tone_hz: int | None = TONE_RISK_HZ,
    ) -> bool:
        """Raise a hold of ``KINDS``; no effect (False) while one as severe is in force. ``text``: words of
        the notice; ``tone_hz``: its sound.
        """
        kind = KINDS[name]
        new = Hold(
            name,
            scope,
            severity or kind.severity,
            self._out.now_ns,
            reason,
            lifts_when or kind.lifts_when,
            until_ns,
        )
        if not self.holds.put(new):
            return False
        self.changed = True
        self.version += 1
        where = "" if scope == EVERYTHING else f" {scope}"
        self._out.add(HoldChanged(self._out.now_ns, new, True))
        self._out.audit(
            kind.tag,
            kind.raised_event,
            scope=scope,
            severity=new.severity.name,
            reason=reason,
            lifts_when=new.lifts_when,
        )
        words = text or f"{reason}; until {new.lifts_when}"
        self._out.notify(kind.raised_event, f"{kind.raised_event}{where}: {words}", tone_hz)
        return True

    def lift(self, name: str, why: str, *, scope: str = EVERYTHING) -> bool:
        """Lift a hold; False when there was none."""
        hold = self.holds.lift(name, scope)
        if hold is None:
            return False
        self.changed = True
        self.version += 1
        kind = KINDS[name]
        where = "" if scope == EVERYTHING else f" {scope}"
        self._out.add(HoldChanged(self._out.now_ns, hold, False))
        self._out.audit(kind.tag, kind.lifted_event, scope=scope, reason=why)
        self._out.notify(kind.lifted_event, f"{kind.lifted_event}{where}: {why}")
        return True

    def lift_everywhere(self, name: str, why: str) -> list[str]:
        """Lift the holds of that name in every scope; the scopes that had one."""
        scopes = [h.scope for h in self.holds if h.name == name]
        for scope in scopes:
            self.lift(name, why, scope=scope)
        return scopes
