"""How much the runner takes on: which instruments are kept; the simplified mode when resources are short."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from live.config_schema import RunnerConfig
from live.core.events import ActiveInstruments, Event
from live.data_engine import choose
from live.loop import EngineLoop
from live.modes import PipelineModes, Restriction
from live.notify import Notifier
from live.resources import MachineProbe, ModeChange, Probe, ResourceGuard
from market.types import SECOND_NS

SIMPLIFIED = "simplified"


class Capacity:
    """``rotate`` and ``look`` are called every so often; ``members`` are the models of the ensemble."""

    def __init__(
        self, config: RunnerConfig, loop: EngineLoop, members: Mapping[str, float],
        post: Callable[[Event], object], now_ns: Callable[[], int], audit: Callable[..., None],
        notifier: Notifier, probe: Probe | None = None,
    ) -> None:  # fmt: skip
        self._config, self._loop, self._members = config, loop, members
        self._post, self._now_ns, self._audit, self._notifier = post, now_ns, audit, notifier
        self._probe: Probe = probe or MachineProbe()
        self.modes = PipelineModes(post, now_ns)
        self.guard = ResourceGuard.of(config.monitoring)

    def rotate(self, reason: str) -> None:
        """Keep the most tradable instruments, as many as the settings and the mode allow."""
        engine = self._loop.engine
        limits = [n for n in (self._config.data.keep_instruments, self.modes.keep) if n]
        active = engine.instruments.keys() - engine.rotated_out
        pinned = {t for t, p in engine.positions.items() if p.lots}
        pinned |= {order.ticker for order in engine.orders.all_working()}
        keep = min(limits, default=0)
        kept = choose(self._loop.data.rank(), active, pinned, keep, known=engine.instruments)
        if set(kept) != active:
            self._post(ActiveInstruments(self._now_ns(), kept, reason))

    def look(self) -> None:
        """One look at the machine."""
        change = self.guard.take(self._probe.read())
        if change is not None:
            self._switch(change)

    def _switch(self, change: ModeChange) -> None:
        """Into the simplified mode or back: fewer instruments, GBDT only, a lower rate."""
        watch = self._config.monitoring
        name = "SIMPLIFIED_MODE" if change.simplified else "NORMAL_MODE"
        self._audit("RESOURCE", name, reason=change.reason)
        self._notifier.send(f"{name}: {change.reason}")
        if change.simplified:
            members = tuple(m for m in watch.simplified_members if m in self._members)
            interval_ns = int(SECOND_NS / watch.simplified_rate_hz)
            restriction = Restriction(members, interval_ns, watch.simplified_instruments)
            self.modes.put(SIMPLIFIED, restriction, change.reason)
        else:
            self.modes.drop(SIMPLIFIED, change.reason)
        self.rotate(change.reason)

    def report(self) -> dict[str, Any]:
        """For the status file."""
        return {
            "resources": {**self.guard.last.to_dict(), "simplified": self.guard.simplified},
            "restrictions": self.modes.active,
            "rotated_out": sorted(self._loop.engine.rotated_out),
        }
