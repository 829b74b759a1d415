"""What a recording does not say, and a backtest has to assume."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from market.latency import Latency
from market.matching import QUEUE_MODELS, FillModel, QueueModel
from market.types import MILLISECOND_NS

SLOWER_MS = (100, 250, 500)
"""How much later orders and cancels reach the exchange in the sensitivity table."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """How resting orders fill, how long messages travel, and what taking costs beyond the touch.

    ``slippage_ticks`` are added against us to every taking deal.
    """

    fills: FillModel = "queue"
    queue: QueueModel = "risk_averse"
    latency: Latency = field(default_factory=Latency)
    slippage_ticks: int = 0


def sensitivity(base: Assumptions) -> dict[str, Assumptions]:
    """``base`` with one thing changed at a time, by the name of the change: the other queue model, and later
    orders.
    """
    (other_queue,) = (name for name in QUEUE_MODELS if name != base.queue)
    changed = {f"queue {other_queue}": replace(base, queue=other_queue)}
    for more_ms in SLOWER_MS:
        slower = base.latency.slower(more_ms * MILLISECOND_NS)
        changed[f"{more_ms} ms later"] = replace(base, latency=slower)
    return changed
