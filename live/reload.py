"""Following the alias: the next bundle is verified beside the running one and put to work when flat.

Whatever is wrong with the new one (unsigned, altered, expired, another schema, golden rows that differ, other
instruments), the old one goes on and people are told once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from live import model as models_
from live import registry
from live.clock import MarketClock
from live.config_schema import RunnerConfig
from live.core.events import Event, ModelSwapped
from live.loop import EngineLoop
from live.model import LoadedModel
from live.notify import Notifier
from live.pipeline import model_params
from market.errors import ScalperError
from market.types import Instrument

FLAT_POLL_S = 0.1


class AliasFollower:
    """``run`` polls for ever; ``model`` is the bundle that trades."""

    def __init__(
        self, config: RunnerConfig, model: LoadedModel, instruments: dict[str, Instrument], loop: EngineLoop,
        clock: MarketClock, notifier: Notifier, post: Callable[[Event], object], audit: Callable[..., None],
        swapped: Callable[[LoadedModel], None] = lambda model: None,
    ) -> None:  # fmt: skip
        self.model = model
        self._config, self._instruments, self._loop, self._clock = config, instruments, loop, clock
        self._notifier, self._post, self._audit = notifier, post, audit
        self._swapped = swapped
        self._refused = ""

    async def run(self) -> None:
        interval = self._config.model.poll_interval_seconds
        if registry.pinned(self.model.alias)[1]:
            self._audit("MODEL", "MODEL_PINNED", alias=self.model.alias, version=self.model.version)
            return
        while interval > 0:
            await asyncio.sleep(interval)
            await self.look()

    async def look(self) -> None:
        """One look at the alias; swaps if it moved to another bundle."""
        source, alias = self._config.model, self.model.alias
        seen = ""
        try:
            found = await asyncio.to_thread(registry.resolve, source.registry, source.name, alias)
            seen = found.manifest_sha256 or f"version {found.version}"
            if seen in (self.model.sha256, f"version {self.model.version}", self._refused):
                return
            candidate = await asyncio.to_thread(models_.fetch, self._config, alias, try_models=True)
            models_.check_expiry(candidate, self._clock.now_ns())
            models_.check_instruments(candidate.bundle, self._instruments)
            ensemble, _ = await asyncio.to_thread(
                models_.ensemble_somewhere, self._config, candidate, tuple(self._instruments)
            )
        except ScalperError as error:
            if seen != self._refused or not seen:
                self._audit("MODEL", "MODEL_RELOAD_REFUSED", reason=str(error), kept=self.model.sha256)
                self._notifier.send(f"MODEL_RELOAD_REFUSED: {error}")
            self._refused = seen
            return
        self._audit("MODEL", "MODEL_READY", version=candidate.version, manifest=candidate.sha256)
        while not (self._loop.at_rest and self._loop.flat):
            await asyncio.sleep(FLAT_POLL_S)
        # The pipeline swaps when the engine takes the event, so that replay does it at the same place.
        self._loop.next_model = ensemble
        self.model = candidate
        self._swapped(candidate)
        self._post(ModelSwapped(self._clock.now_ns(), candidate.sha256, model_params(ensemble).to_dict()))
