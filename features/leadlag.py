"""Who moves first? Hayashi-Yoshida cross-correlation of two instruments' mids at several lags, and the ratio
of both directions.

Hayashi, Yoshida 2005 sum the products of increments whose intervals overlap, so that nothing is interpolated
onto a grid. With the second instrument shifted by a lag (Hoffmann, Rosenbaum, Yoshida 2013) the same sum says
how much of its moves come that much later. The ratio of Huth, Abergel 2014 compares both directions:

    C(lag) = sum of dX_i [Y(first quote at or after s_i + lag) - Y(last one at or before s_(i-1) + lag)]
    ratio  = sum of squared correlations at lags > 0, over that at lags < 0

Above 1: the first leads. Both have noise of the same size, so minutes are drawn with replacement to say how
sure that is. To choose a leader is to learn something: do it on the time that teaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.leader import quotes
from features.schema import GAP_NS
from market.errors import RecordingError
from market.types import SECOND_NS, InstrumentDay

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

LAGS_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
BLOCK_NS: Final = 60 * SECOND_NS
FEWEST_BLOCKS: Final = 20
DRAWS: Final = 1000
DOUBT: Final = 0.01
"""Bounds are lower ones at this level: a table has many pairs."""


@dataclass(frozen=True, slots=True)
class Lead:
    """How much ``leader`` moves before ``follower``.

    ``lag_s``: of the lags above 0, where the correlation of their increments is largest; ``correlation``:
    there; ``ratio``: Huth-Abergel; ``*_low``: lower bounds at ``DOUBT``; ``minutes``: what it rests on.
    """

    leader: str
    follower: str
    lag_s: float
    correlation: float
    correlation_low: float
    ratio: float
    ratio_low: float
    minutes: int

    @property
    def believed(self) -> bool:
        return self.ratio_low > 1 and self.correlation_low > 0


@dataclass(frozen=True, slots=True)
class _Path:
    """Quotes of one instrument: ``ns`` int64 [k] increasing, ``at`` float64 [k] its mid less the moves over
    silences, which belong to no moment."""

    ns: I64
    at: F64

    @classmethod
    def of(cls, day: InstrumentDay, until_ns: int) -> _Path:
        ns, mid2 = quotes(day.books)
        last = np.append(np.diff(ns) > 0, True) & (ns < until_ns)  # of one moment the last quote counts
        ns, mid2 = ns[last], mid2[last]
        step = np.diff(mid2).astype(np.float64) / 2
        step[np.diff(ns) > GAP_NS] = 0.0
        return cls(ns, np.append(0.0, np.cumsum(step)))


def lagged(x_ns: I64, x: F64, y_ns: I64, y: F64, lag_ns: int) -> F64:
    """Terms of the Hayashi-Yoshida sum with ``y`` taken ``lag_ns`` later, float64 [len(x) - 1]: one for each
    increment of ``x``. Times int64 [k], strictly increasing; prices float64 [k]."""
    after = np.minimum(np.searchsorted(y_ns, x_ns[1:] + lag_ns, side="left"), len(y_ns) - 1)
    before = np.maximum(np.searchsorted(y_ns, x_ns[:-1] + lag_ns, side="right") - 1, 0)
    return np.asarray(np.diff(x) * (y[after] - y[before]), np.float64)


def leads(days: Iterable[InstrumentDay], share: float = 1.0, lags_s: Sequence[float] = LAGS_S) -> list[Lead]:
    """Both directions of every pair of instruments, the clearest lead first.

    ``share``: of the recorded time, from its start, that is looked at. RecordingError when there is no pair
    or too little time.
    """
    by_ticker: dict[str, dict[str, InstrumentDay]] = {}
    for day in days:
        by_ticker.setdefault(day.instrument.ticker, {})[day.day] = day
    if len(by_ticker) < 2:
        raise RecordingError(f"the recording holds {', '.join(by_ticker) or 'nothing'}: a leader takes two")
    until = _until(by_ticker.values(), share)
    found: list[Lead] = []
    for a, b in combinations(sorted(by_ticker), 2):
        common = sorted(by_ticker[a].keys() & by_ticker[b].keys() & until.keys())
        paths = [tuple(_Path.of(by_ticker[t][day], until[day]) for t in (a, b)) for day in common]
        sums = [_block_sums(x, y, lags_s) for x, y in paths if len(x.ns) > 1 and len(y.ns) > 1]
        blocks = np.concatenate(sums) if sums else np.empty((0, 2 + 2 * len(lags_s)))
        if len(blocks) < FEWEST_BLOCKS:
            raise RecordingError(
                f"{a} and {b} have {len(blocks)} minutes in common, {FEWEST_BLOCKS} are needed: record more"
            )
        found += _both(a, b, blocks, lags_s)
    return sorted(found, key=lambda lead: (not lead.believed, -lead.ratio_low))


def chosen(found: Sequence[Lead]) -> dict[str, str]:
    """Follower to leader: of those that are believed the clearest, and nobody who follows himself."""
    best: dict[str, str] = {}
    for lead in sorted((one for one in found if one.believed), key=lambda one: -one.ratio_low):
        best.setdefault(lead.follower, lead.leader)
    return best


def _until(tables: Iterable[Mapping[str, InstrumentDay]], share: float) -> dict[str, int]:
    """Where in each day the looked-at share of the recorded time ends; later days are left out."""
    spans: dict[str, tuple[int, int]] = {}
    for table in tables:
        for name, day in table.items():
            if len(day.books):
                low, high = int(day.books.recv_ns[0]), int(day.books.recv_ns[-1]) + 1
                old = spans.get(name, (low, high))
                spans[name] = min(low, old[0]), max(high, old[1])
    left = round(share * sum(high - low for low, high in spans.values()))
    until: dict[str, int] = {}
    for name, (low, high) in sorted(spans.items()):
        if left > 0:
            until[name] = min(high, low + left)
        left -= high - low
    return until


def _block_sums(x: _Path, y: _Path, lags_s: Sequence[float]) -> F64:
    """By minute, float64 [m, 2 + 2 lags]: squared increments of both, then the terms at lags > 0 and < 0."""
    block = (x.ns[1:] - x.ns[0]) // BLOCK_NS
    count = int(block[-1]) + 1
    other = np.clip((y.ns[1:] - x.ns[0]) // BLOCK_NS, 0, count - 1)
    columns = [
        np.bincount(block, np.diff(x.at) ** 2, count), np.bincount(other, np.diff(y.at) ** 2, count)
    ]  # fmt: skip
    for sign in (1, -1):
        for lag_s in lags_s:
            terms = lagged(x.ns, x.at, y.ns, y.at, sign * round(lag_s * SECOND_NS))
            columns.append(np.bincount(block, terms, count))
    return np.stack(columns, axis=1)


def _both(a: str, b: str, blocks: F64, lags_s: Sequence[float]) -> list[Lead]:
    rng = np.random.default_rng(0)
    drawn = blocks[rng.integers(0, len(blocks), (DRAWS, len(blocks)))].sum(axis=1)
    n = len(lags_s)

    def correlations(sums: F64) -> F64:
        scale = np.sqrt(np.maximum(sums[..., 0] * sums[..., 1], 1e-12))
        return np.asarray(sums[..., 2:] / scale[..., None], np.float64)

    here, there = correlations(blocks.sum(axis=0)), correlations(drawn)
    out = []
    for leader, follower, forward, backward in (
        (a, b, slice(0, n), slice(n, 2 * n)), (b, a, slice(n, 2 * n), slice(0, n)),
    ):  # fmt: skip
        best = int(np.abs(here[forward]).argmax())
        ratio = _ratio(here[forward], here[backward])
        ratios = np.array([_ratio(row[forward], row[backward]) for row in there])
        size = np.sign(here[forward][best]) * there[:, forward][:, best]
        out.append(
            Lead(
                leader, follower, lags_s[best], float(here[forward][best]), float(np.quantile(size, DOUBT)),
                ratio, float(np.quantile(ratios, DOUBT)), len(blocks),
            )
        )  # fmt: skip
    return out


def _ratio(forward: F64, backward: F64) -> float:
    return float((forward @ forward + 1e-12) / (backward @ backward + 1e-12))


def to_dict(lead: Lead) -> dict[str, Any]:
    """For ``--json``: plain numbers."""
    return {
        name: round(value, 6) if isinstance(value := getattr(lead, name), float) else value
        for name in Lead.__slots__
    } | {"believed": lead.believed}
