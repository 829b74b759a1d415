"""When the GPU fails in the middle of a session: the networks go on, on the processor, at a lower rate.

The book on which it failed is an inference failure like any other (the fallback stands in). After it the
networks run on the CPU, feature caches are cleared, at most ``RATE_HZ`` inferences a second and instrument
are made, and people are told ``GPU_FAILOVER mode=cpu``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from live.core.commands import TONE_RISK_HZ
from live.core.events import Event, PipelineReset
from live.modes import PipelineModes, Restriction
from live.notify import Notifier
from market.errors import ScalperError
from market.types import SECOND_NS
from models.inference import InferenceError

RATE_HZ = 5
NAME = "gpu_failover"
ON_THE_CPU = ("gbdt",)
"""Members that never run on a GPU: their failures are not its own."""


class GpuFailover:
    """``on_error`` gets every exception of the ensemble; the ensemble is asked which backend it runs on."""

    def __init__(
        self, modes: PipelineModes, post: Callable[[Event], object], now_ns: Callable[[], int],
        audit: Callable[..., None], notifier: Notifier,
    ) -> None:  # fmt: skip
        self._modes, self._post, self._now_ns = modes, post, now_ns
        self._audit, self._notifier = audit, notifier
        self.failed_over = False

    def on_error(self, ensemble: Any, error: Exception) -> None:
        members = getattr(ensemble, "members", None)
        if members is None or members.backend != "gpu":
            return
        if not isinstance(error, InferenceError) or error.member in ON_THE_CPU:
            return
        try:
            ensemble.use_backend("cpu")
        except ScalperError as worse:
            self._audit("RESOURCE", "GPU_FAILOVER_FAILED", reason=str(worse))
            self._notifier.send(f"GPU_FAILOVER_FAILED: {worse}; inference fails until the model is reloaded")
            return
        self.tell(str(error))
        self._post(PipelineReset(self._now_ns(), "*", "the GPU failed"))

    def tell(self, reason: str) -> None:
        """The audit line, the notice and the lower rate; also for a GPU that is missing at the start."""
        self.failed_over = True
        self._audit("RESOURCE", "GPU_FAILOVER", mode="cpu", reason=reason)
        self._notifier.send(f"GPU_FAILOVER mode=cpu: {reason}", TONE_RISK_HZ)
        self._modes.put(NAME, Restriction(min_interval_ns=SECOND_NS // RATE_HZ), "the GPU failed")
