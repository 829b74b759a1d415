"""Every kind of label beside the product's own, on one day: what it calls, what a perfect forecast of it
earns, and how much of it is the past.

The labels on which the literature reports its best figures are often those whose perfect forecast loses most.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from features.batch import FeatureTable
from market.errors import ConfigError
from market.types import SECOND_NS, InstrumentDay
from models.label_kinds import (
    KINDS,
    Kind,
    KindLabels,
    TripleBarrier,
    random_walk_r2,
    walk_rows,
    worst_leak,
    worth,
)
from models.labels import DOWN, LEAK_LIMIT, UP, make_labels
from models.quotes import Quotes

TLOB_ROWS: Final = 10
"""Length of TLOB's means, as in its authors' code."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind on one day. ``flat``: share of flat rows; ``net_bps``, ``paid``: mean and share above zero of
    what a taker earns by following the label itself to the horizon; ``mcc``: with the executable classes;
    ``taken``: the meta-label, share of its calls that end above zero when barriers close them (NaN: no
    calls)."""

    kind: str
    rows: int
    flat: float
    net_bps: float
    paid: float
    mcc: float
    taken: float


@dataclass(frozen=True, slots=True)
class Leak:
    """What a look at the past knows of a kind on a random walk: ``macro_f1`` (1/3 is nothing) with the worst
    memory in rows, and ``r2`` there (None for kinds whose value is money: their classes are compared)."""

    kind: str
    macro_f1: float
    memory_rows: int
    r2: float | None

    @property
    def headline(self) -> bool:
        return self.macro_f1 <= LEAK_LIMIT


def kinds_for(day: InstrumentDay, *, horizon_s: float, latency_s: float, fee_ppm: int) -> list[Kind]:
    """Every kind for about the same horizon: those that count rows get the rows that usually fit into it."""
    gaps = np.diff(day.books.recv_ns)
    if len(gaps) == 0:
        raise ConfigError(f"{day.instrument.ticker} {day.day} holds {len(day.books)} books: nothing to label")
    rows = max(1, round(horizon_s * SECOND_NS / max(float(np.median(gaps)), 1.0)))
    given = {"horizon_s": horizon_s, "latency_s": latency_s, "fee_ppm": fee_ppm, "h": rows}
    made: list[Kind] = []
    for kind in KINDS:
        known = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # every kind is a dataclass
        k = TLOB_ROWS if "h" in known else rows
        made.append(kind(**{key: value for key, value in {**given, "k": k}.items() if key in known}))
    return made


def compare(
    day: InstrumentDay, table: FeatureTable, *, horizon_s: float, latency_s: float, fee_ppm: int
) -> list[Row]:
    """A row for each kind, the executable one first."""
    kinds = kinds_for(day, horizon_s=horizon_s, latency_s=latency_s, fee_ppm=fee_ppm)
    money = make_labels(day, table, horizon_s=horizon_s, latency_s=latency_s, fee_ppm=fee_ppm, theta_bps=0.0)
    barriers = next(k for k in kinds if isinstance(k, TripleBarrier)).barriers(Quotes.of(day, table))

    def taken(found: KindLabels) -> float:
        side = (found.y == UP).astype(np.int8) - (found.y == DOWN).astype(np.int8)
        meta = barriers.meta_label(side)
        return float(np.mean(meta[meta >= 0])) if (meta >= 0).any() else float("nan")

    rows = []
    for kind in kinds:
        found = kind.of_day(day, table)
        told = worth(found, money)
        rows.append(
            Row(kind.name, int(told["rows"]), told["flat"], told["net_bps"], told["paid"], told["mcc"],
                taken(found))
        )  # fmt: skip
    return rows


def leaks() -> list[Leak]:
    """The random-walk test of every kind with its default parameters: seconds each."""
    found = []
    for kind in (each() for each in KINDS):
        score, memory = worst_leak(kind)
        r2 = None if kind.executable else random_walk_r2(kind, window=memory, n=walk_rows(kind))
        found.append(Leak(kind.name, score, memory, r2))
    return found
