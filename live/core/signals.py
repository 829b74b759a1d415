"""When a score is a signal: the expected move, net of spread, two fees and slippage, clears the threshold."""

from __future__ import annotations

from dataclasses import dataclass

from live.core.books import MILLIBPS

PPM_MILLIBPS = 10
"""One millionth is ten thousandths of a basis point."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A direction worth its cost. ``edge_millibps`` = |expected move| - cost."""

    trace_id: str
    ticker: str
    direction: int
    p_e6: tuple[int, int, int]
    expected_move_millibps: int
    cost_millibps: int
    edge_millibps: int
    confidence_e6: int
    source: str


def cost_millibps(bid_ticks: int, ask_ticks: int, fee_ppm: int, slippage_ticks: int) -> int:
    """Cost of a round trip in thousandths of a basis point of the mid: spread, two fees, two slips. Rounded
    up.
    """
    ticks = ask_ticks - bid_ticks + 2 * slippage_ticks
    return -(-2 * ticks * MILLIBPS // (bid_ticks + ask_ticks)) + 2 * fee_ppm * PPM_MILLIBPS


def find(
    trace_id: str,
    ticker: str,
    p_e6: tuple[int, int, int],
    expected_move_millibps: int,
    cost: int,
    threshold: int,
    source: str,
) -> Signal | None:
    """The signal in a score, or None when its edge does not exceed ``threshold``."""
    edge = abs(expected_move_millibps) - cost
    if edge <= threshold or expected_move_millibps == 0:
        return None
    direction = 1 if expected_move_millibps > 0 else -1
    confidence = p_e6[2] if direction > 0 else p_e6[0]
    return Signal(trace_id, ticker, direction, p_e6, expected_move_millibps, cost, edge, confidence, source)
