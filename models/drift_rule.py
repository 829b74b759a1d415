"""When distances of many columns make an alarm: false discovery rate, weight, and two windows in a row. LEAN.

Sixty columns at five per cent alarm in nineteen of twenty checks (1 - 0.95^60 = 95 %). Columns are therefore
chosen by Benjamini and Hochberg; they alarm only when three of them, or a fifth of what the models look at,
moved, or when the scores themselves did; and only when that lasts. Critical is less: a score that moved far,
or features that carry a fifth of the models' importance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.drift import (
    ENTROPY,
    LEAST_ROWS,
    PSI_FLOOR,
    SCORE,
    SCORES,
    TRADE,
    ColumnDrift,
    TickerReference,
    compare,
)

FDR: Final = 0.05
"""False discovery rate of one look. A day has many looks: what they add up to is measured, not promised
(``models.drift_reference.false_alarms``; docs/drift.md)."""
LEAST_COLUMNS: Final = 3
LEAST_WEIGHT: Final = 0.2
"""Of the models' importance: so much in drifted columns counts though they are fewer."""
IN_A_ROW: Final = 3
"""Looks, five minutes apart, that must agree: the first and the last share less than two thirds."""
TRADE_RATE: Final = 3.0
"""The share of rows on which the model would trade may change by this factor, either way."""


@dataclass(frozen=True, slots=True)
class Look:
    """One window of one instrument, judged. ``drifted``: names, the most surprising first.

    ``alarm`` and ``critical`` speak of this window alone.
    ``share``: importance of the drifted columns. ``trade_rate`` and what training had, None where unknown.
    """

    columns: int
    drifted: tuple[str, ...]
    share: float
    alarm: bool
    critical: bool
    worst: ColumnDrift | None
    score: ColumnDrift | None
    trade_rate: tuple[float, float] | None


def benjamini_hochberg(p: Sequence[float], rate: float) -> list[int]:
    """Indices of the discoveries at this false discovery rate, the smallest p first."""
    order = np.argsort(np.asarray(p, np.float64), kind="stable")
    if not len(order):
        return []
    bar = rate * np.arange(1, len(order) + 1) / len(order)
    passed = np.flatnonzero(np.asarray(p)[order] <= bar)
    return [] if not len(passed) else [int(i) for i in order[: passed[-1] + 1]]


def judge(
    found: Sequence[ColumnDrift], *, critical_psi: float, rates: tuple[float, float] | None = None,
    rate_rows: float = 0.0, fdr: float = FDR,
) -> Look:  # fmt: skip
    """What the columns of one window come to.

    ``critical_psi``: a drifted column is severe by so much more PSI than chance gives; a severe score is
    critical, and so are severe features that carry a fifth of the importance. ``rates``: share of rows on
    which the model would trade, (now, in training), over ``rate_rows`` effective rows.
    """
    judged = [c for c in found if c.name != TRADE]
    chosen = [judged[i] for i in benjamini_hochberg([c.p for c in judged], fdr)]
    features = [c for c in chosen if c.name not in SCORES]
    severe = [c for c in chosen if c.psi - c.psi_chance > critical_psi]
    of_score = any(c.name in (SCORE, ENTROPY) for c in chosen)
    rate_moved = rates is not None and _rate_moved(*rates, rate_rows, fdr)
    alarm = of_score or rate_moved or _many(features)
    weight = math.fsum(c.weight for c in severe if c.name not in SCORES)
    critical = any(c.name == SCORE for c in severe) or weight > LEAST_WEIGHT
    return Look(
        columns=len(judged),
        drifted=(*(c.name for c in chosen), *((TRADE,) if rate_moved else ())),
        share=math.fsum(c.weight for c in features),
        alarm=alarm,
        critical=alarm and critical,
        worst=max(chosen or judged, key=_excess, default=None),
        score=next((c for c in judged if c.name == SCORE), None),
        trade_rate=rates,
    )


def look(
    reference: TickerReference, window: NDArray[Any], now_ns: int, *, critical_psi: float,
    psi_floor: float = PSI_FLOOR,
) -> Look:  # fmt: skip
    """The window [n, C] that ends at ``now_ns`` against ``reference``, judged."""
    found = compare(reference, window, now_ns, psi_floor=psi_floor)
    rates, rate_rows = None, 0.0
    if TRADE in reference.names:
        j = reference.names.index(TRADE)
        traded = window[:, j][np.isfinite(window[:, j])]
        if len(traded) >= LEAST_ROWS:
            before = float(reference.shares[reference.phase(now_ns), j, 1])
            rates = float(np.mean(traded)), before
            rate_rows = len(traded) * float(reference.independence[j])
    return judge(found, critical_psi=critical_psi, rates=rates, rate_rows=rate_rows)


def _excess(column: ColumnDrift) -> float:
    return max(column.psi / column.psi_limit, column.w1 / column.w1_limit)


def _many(columns: Sequence[ColumnDrift]) -> bool:
    return len(columns) >= LEAST_COLUMNS or math.fsum(c.weight for c in columns) > LEAST_WEIGHT


def _rate_moved(now: float, before: float, rows: float, fdr: float) -> bool:
    """By more than the factor, and by more than counts of ``rows`` independent rows differ by chance (the
    square root of a Poisson count is nearly normal; Anscombe 1948)."""
    if before <= 0 or before / TRADE_RATE <= now <= before * TRADE_RATE:
        return False
    z = 2 * abs(math.sqrt(now * rows + 0.375) - math.sqrt(before * rows + 0.375))
    return math.erfc(z / math.sqrt(2)) < fdr


class Persistence:
    """Turns looks into states: a warning, or a critical drift, after IN_A_ROW looks that agree."""

    def __init__(self) -> None:
        self._alarms = self._criticals = 0

    def take(self, look: Look) -> tuple[bool, bool]:
        """(warning, critical) now that ``look`` was taken."""
        self._alarms = self._alarms + 1 if look.alarm else 0
        self._criticals = self._criticals + 1 if look.critical else 0
        return self._alarms >= IN_A_ROW, self._criticals >= IN_A_ROW

    def reset(self) -> None:
        """The rows before are no longer part of the window: a new day, a new model."""
        self._alarms = self._criticals = 0
