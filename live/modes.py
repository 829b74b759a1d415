"""Reasons to work less: each names its members, its rate and how many instruments, the strictest of all wins.

The resource monitor and a failed GPU both restrict the pipeline; neither may undo the other's restriction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from live.core.events import Event, PipelineMode


@dataclass(frozen=True, slots=True)
class Restriction:
    """``members`` empty: all; ``min_interval_ns`` between two inferences of a ticker; ``keep`` 0: all
    instruments.
    """

    members: tuple[str, ...] = ()
    min_interval_ns: int = 0
    keep: int = 0


class PipelineModes:
    """``put`` and ``drop`` by name; a change of the whole is posted as ``PipelineMode``."""

    def __init__(self, post: Callable[[Event], object], now_ns: Callable[[], int]) -> None:
        self._post, self._now_ns = post, now_ns
        self._wanted: dict[str, Restriction] = {}
        self._applied = Restriction()

    def put(self, name: str, restriction: Restriction, reason: str) -> None:
        self._wanted[name] = restriction
        self._apply(reason)

    def drop(self, name: str, reason: str) -> None:
        if self._wanted.pop(name, None) is not None:
            self._apply(reason)

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the restrictions in force."""
        return tuple(sorted(self._wanted))

    @property
    def keep(self) -> int:
        """Instruments that may stay, 0 for all."""
        return min((r.keep for r in self._wanted.values() if r.keep), default=0)

    def effective(self) -> Restriction:
        members: tuple[str, ...] = ()
        for restriction in self._wanted.values():
            if restriction.members:
                both = tuple(m for m in restriction.members if not members or m in members)
                members = both or restriction.members
        interval = max((r.min_interval_ns for r in self._wanted.values()), default=0)
        return Restriction(members, interval, self.keep)

    def _apply(self, reason: str) -> None:
        now = self.effective()
        if (now.members, now.min_interval_ns) != (self._applied.members, self._applied.min_interval_ns):
            self._post(PipelineMode(self._now_ns(), now.members, now.min_interval_ns, reason))
        self._applied = now
