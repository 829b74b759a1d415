"""What moved the last signals: the members' votes, and the inputs furthest from their usual values.

Collected at the moment of the signal from what the pipeline already has in its hands; signals are rare, so
the path from a book to an order pays one look at a list of commands.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from features.schema import NAMES
from live.core.commands import Command, RecordSignal
from live.pipeline import SignalPipeline

MAX_SIGNALS = 30
MAX_INPUTS = 4


class SignalReasons:
    """Give it every list of commands; ``rows`` is newest first and JSON-able."""

    def __init__(self, pipeline: SignalPipeline) -> None:
        self._pipeline = pipeline
        self._rows: deque[dict[str, Any]] = deque(maxlen=MAX_SIGNALS)

    def on_commands(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, RecordSignal):
                self._rows.appendleft(self._row(command))

    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows)

    def _row(self, signal: RecordSignal) -> dict[str, Any]:
        answer, row = self._pipeline.last(signal.ticker)
        ensemble = self._pipeline.ensemble
        return {
            "now_ns": signal.now_ns, "trace_id": signal.trace_id, "ticker": signal.ticker,
            "side": signal.direction, "source": signal.source, "outcome": signal.outcome,
            "p_e6": list(signal.p_e6), "confidence_e6": signal.confidence_e6,
            "expected_move_millibps": signal.expected_move_millibps, "cost_millibps": signal.cost_millibps,
            "edge_millibps": signal.edge_millibps,
            # The fallback does not listen to the models.
            "votes": {} if signal.source == "fallback" else votes(answer, getattr(ensemble, "weights", {})),
            "inputs": unusual_inputs(row, getattr(getattr(ensemble, "members", None), "scaler", None)),
        }  # fmt: skip


def votes(answer: Any, weights: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """For each member its weight and p(up) - p(down), -1 to 1."""
    members: Mapping[str, Any] = getattr(answer, "members", {})
    return {
        name: {
            "weight": round(float(weights.get(name, 0.0)), 3),
            "up_minus_down": round(math.exp(float(logp[2])) - math.exp(float(logp[0])), 3),
        }
        for name, logp in members.items()
    }


def unusual_inputs(row: Any, scaler: Any) -> list[dict[str, Any]]:
    """The features furthest from the centre of the training data, in its own scale (robust z), worst
    first.
    """
    if scaler is None or row is None:
        return []
    found = []
    for name, value, center, scale in zip(NAMES, row, scaler.center, scaler.scale, strict=True):
        z = (float(value) - float(center)) / float(scale)
        if math.isfinite(z):
            found.append((abs(z), {"name": name, "value": float(value), "z": round(z, 1)}))
    found.sort(key=lambda pair: -pair[0])
    return [fact for _, fact in found[:MAX_INPUTS]]
