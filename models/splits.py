"""Chronological blocks: each later step of learning is fitted on rows that come later than the ones before.

Base models on ``fit``; calibration and ensemble weights on ``calibrate``; thresholds on ``threshold``; the
figures that people read on ``score``; ``live`` is never touched by the line: the paper exchange plays it.
Rows near a boundary are purged, because their label would look into the next block (Lopez de Prado 2018, ch.
7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError

BLOCK_NAMES: Final = ("fit", "calibrate", "threshold", "score", "live")
NO_BLOCK: Final = 255
"""Code of a row that belongs to no block: purged, embargoed or outside the span."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Named half-open time intervals ``[from_ns, to_ns)`` in order.

    A row belongs to a block when it is at least ``embargo_ns`` after its start (the first block has none
    before it) and its label's window, ``purge_ns`` long, ends inside it.
    """

    blocks: tuple[tuple[str, int, int], ...]
    purge_ns: int
    embargo_ns: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.blocks)

    def span(self, name: str) -> tuple[int, int]:
        """``(from_ns, to_ns)`` of a block, without purging: what a driver plays."""
        return self.blocks[self.index(name)][1:]

    def index(self, name: str) -> int:
        """The number that ``code`` gives to the rows of a block."""
        if name not in self.names:
            raise ConfigError(f"there is no block {name!r}; the blocks are {', '.join(self.names)}")
        return self.names.index(name)

    def code(self, recv_ns: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The block of each row as its index, uint8 [n]; NO_BLOCK where it belongs to none."""
        code = np.full(len(recv_ns), NO_BLOCK, np.uint8)
        for k, (_, from_ns, to_ns) in enumerate(self.blocks):
            first_ns = from_ns + (self.embargo_ns if k else 0)
            code[(recv_ns >= first_ns) & (recv_ns + self.purge_ns < to_ns)] = k
        return code

    def to_dict(self) -> dict[str, Any]:
        return {
            "blocks": [list(block) for block in self.blocks],
            "purge_ns": self.purge_ns,
            "embargo_ns": self.embargo_ns,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        blocks = tuple((str(name), int(a), int(b)) for name, a, b in stored["blocks"])
        return cls(blocks, int(stored["purge_ns"]), int(stored.get("embargo_ns", 0)))


def chronological(
    start_ns: int, end_ns: int, fractions: Mapping[str, float], purge_ns: int, embargo_ns: int = 0
) -> Blocks:
    """Cut ``[start_ns, end_ns)`` into blocks in the order of BLOCK_NAMES, each a fraction of the time.

    ``fractions`` may leave blocks out; they must add up to 1. ``purge_ns`` is horizon + latency of the
    labels. ConfigError when a fraction is unknown or a block would be shorter than what is purged from it.
    """
    return over_sessions([(start_ns, end_ns)], fractions, purge_ns, embargo_ns)


def over_sessions(
    sessions: Sequence[tuple[int, int]], fractions: Mapping[str, float], purge_ns: int, embargo_ns: int = 0
) -> Blocks:
    """``chronological`` by traded time: ``sessions`` are ``(start_ns, end_ns)`` of every recorded session.

    Overlapping sessions (several instruments, one day) count once, nights not at all, so that no block falls
    into a night. The blocks still meet: each begins where the one before ends.
    """
    names = [name for name in BLOCK_NAMES if fractions.get(name, 0) > 0]
    unknown = set(fractions) - set(BLOCK_NAMES)
    total = sum(fractions.values())
    if unknown or not names or min(fractions.values()) < 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ConfigError(
            f"split fractions {dict(fractions)} must be named among {', '.join(BLOCK_NAMES)}, be 0 or more "
            f"and add up to 1 (they add up to {total:g})"
        )
    union = _union(sessions)
    traded_ns = sum(b - a for a, b in union)
    bounds, share = [union[0][0]], 0.0
    for name in names[:-1]:
        share += fractions[name]
        bounds.append(_moment(union, round(traded_ns * share)))
    bounds.append(union[-1][1])
    blocks = tuple((name, bounds[k], bounds[k + 1]) for k, name in enumerate(names))
    for k, (name, from_ns, to_ns) in enumerate(blocks):
        lost_ns = purge_ns + (embargo_ns if k else 0)
        if to_ns - from_ns <= lost_ns:
            raise ConfigError(
                f"block {name!r} is {(to_ns - from_ns) / 1e9:.1f} s long and {lost_ns / 1e9:.1f} s of it are "
                "purged: record more, or give it a larger fraction"
            )
    return Blocks(blocks, purge_ns, embargo_ns)


def by_sessions(
    sessions: Sequence[tuple[int, int]], fractions: Mapping[str, float], purge_ns: int, embargo_ns: int
) -> Blocks:
    """Blocks of whole sessions (``(start_ns, end_ns)`` in order, none overlapping): a day teaches, or judges,
    but never both.

    Each block gets a session, the rest go where most is missing of its fraction. ConfigError when there are
    fewer sessions than blocks.
    """
    names = [name for name in BLOCK_NAMES if fractions.get(name, 0) > 0]
    if len(sessions) < len(names):
        raise ConfigError(
            f"{len(sessions)} sessions for the blocks {', '.join(names)}: each needs one; record more days, "
            "or cut by time (over_sessions)"
        )
    counts = dict.fromkeys(names, 1)
    for _ in range(len(sessions) - len(names)):
        short = max(names, key=lambda name: fractions[name] * len(sessions) - counts[name])
        counts[short] += 1
    firsts = np.cumsum([0, *counts.values()]).tolist()
    starts = [sessions[k][0] for k in firsts[:-1]]
    ends = [*starts[1:], sessions[-1][1]]
    for name, k, last in zip(names, firsts[:-1], firsts[1:], strict=True):
        shortest = min(b - a for a, b in sessions[k:last])
        if shortest <= purge_ns + embargo_ns:
            raise ConfigError(
                f"block {name!r} has a session of {shortest / 1e9:.0f} s, and "
                f"{(purge_ns + embargo_ns) / 1e9:.0f} s of it are purged or embargoed: record longer sessions"
            )
    return Blocks(tuple(zip(names, starts, ends, strict=True)), purge_ns, embargo_ns)


def _union(sessions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sessions as disjoint intervals in order."""
    union: list[tuple[int, int]] = []
    for start_ns, end_ns in sorted(sessions):
        if start_ns >= end_ns:
            continue
        if union and start_ns <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end_ns))
        else:
            union.append((start_ns, end_ns))
    if not union:
        raise ConfigError("there is no time to split: the recording has no session with two different times")
    return union


def _moment(union: Sequence[tuple[int, int]], traded_ns: int) -> int:
    """The time at which ``traded_ns`` of session time have passed."""
    for start_ns, end_ns in union:
        if traded_ns <= end_ns - start_ns:
            return start_ns + traded_ns
        traded_ns -= end_ns - start_ns
    return union[-1][1]
