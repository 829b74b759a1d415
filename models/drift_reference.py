"""The drift reference of training rows: distributions, how far training days lay from each other, and how
often the rule would have alarmed on them.

The newest ``MAX_DAYS`` training days are thinned to one row per ``THIN_NS``. Effective sizes come from within
days, where memory is short; what days add is measured by leaving each of them out (blocks of
whole days, ``docs/drift.md``). Then the whole rule is played over days that the reference has not seen, and
where it alarms, everything is expected to lie so much farther apart until it does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models import drift
from models.bootstrap import effective_sample_size
from models.drift import (
    BINS,
    EVERY_ROWS,
    F64,
    GRID,
    HOUR_NS,
    I64,
    LEAST_ROWS,
    SCORES,
    THIN_NS,
    W1_SHAPE,
    WHOLE_DAY,
    WINDOW_ROWS,
    Reference,
    TickerReference,
)
from models.drift_rule import Persistence, look

MAX_DAYS: Final = 20
PHASE_DAYS: Final = 5
"""So many days must hold rows of an hour before windows are compared with that hour alone."""
LEAST_BLOCKS: Final = 8
"""Fewer windows than this say nothing about their spread."""
ONE_DAY: Final = (6.0, 2.5)
"""Inflation of (PSI, W1) at least, where a single day is known: what days add cannot be seen in it. Measured
on the market simulator, whose activity and price level wander as markets' do (docs/drift.md)."""
HELD_OUT_DAYS: Final = 5
HELD_OUT_SHARE: Final = 1 / 3
"""Of a single day: its end is judged by its beginning."""
STRICTNESS: Final = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
ALARM_DAYS: Final = 0.05
CRITICAL_PSI: Final = 0.25
DAY_NS: Final = 24 * HOUR_NS


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows of one instrument: ``recv_ns`` [n] ascending, ``x`` [n, C] with NaN where masked."""

    recv_ns: I64
    x: F64

    def thinned(self) -> Rows:
        kept = drift.thin(self.recv_ns)
        rows = Rows(self.recv_ns[kept], np.asarray(self.x[kept], np.float64))
        days = rows.days()
        return rows.where(np.isin(days, np.unique(days)[-MAX_DAYS:]))

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        return Rows(self.recv_ns[chosen], self.x[chosen])

    def days(self) -> I64:
        return self.recv_ns // DAY_NS


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What the rule said on training time that its reference had not seen, at the strictness chosen."""

    looks: int
    alarms: int
    hours: float
    days: int
    days_with_alarm: int
    strictness: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "looks": self.looks, "alarms": self.alarms, "hours": round(self.hours, 3), "days": self.days,
            "days_with_alarm": self.days_with_alarm, "strictness": self.strictness,
        }  # fmt: skip

    def line(self) -> str:
        return (
            f"{self.alarms} alarms in {self.looks} looks at {self.hours:.1f} instrument-hours of training "
            f"that the reference had not seen ({self.days_with_alarm} of {self.days} days), "
            f"limits x {self.strictness:g}"
        )


def build(
    names: Sequence[str], rows: Mapping[str, Rows], importance: Mapping[str, float] | None = None
) -> tuple[Reference, FalseAlarms]:
    """The reference of each instrument, made strict enough for its own training days.

    ``importance``: of the features to the models, any scale; features share equally where it is None.
    """
    thinned = {ticker: r.thinned() for ticker, r in rows.items()}
    thinned = {ticker: r for ticker, r in thinned.items() if len(r.recv_ns) >= 2 * LEAST_ROWS}
    weight = _weights(names, importance)
    measured = false_alarms(names, thinned, weight)
    reference = {}
    for ticker, r in thinned.items():
        known = _reference(names, r, weight)
        if known is not None:
            reference[ticker] = replace(known, strictness=measured.strictness)
    return reference, measured


def summary(reference: Reference) -> dict[str, Any]:
    """What a person wants to see of a reference, JSON-able: by instrument and column."""
    out: dict[str, Any] = {}
    for ticker, known in sorted(reference.items()):
        columns = {}
        for j, name in enumerate(known.names):
            q = known.quantiles[0, j]
            columns[name] = {
                "p01": _short(q[0]), "median": _short((q[GRID // 2 - 1] + q[GRID // 2]) / 2),
                "p99": _short(q[-1]), "sd": _short(known.sd[j]), "rows": int(known.rows[0, j]),
                "effective_rows": round(float(known.rows[0, j] * known.independence[j]), 1),
                "missing": round(float(known.missing[j]), 4), "weight": round(float(known.weight[j]), 4),
                "inflation": [round(float(v), 2) for v in known.inflation[j]],
            }  # fmt: skip
        out[ticker] = {"days": known.days, "blocks": known.blocks, "columns": columns,
                       "hours": [hour for hour in known.phases if hour != WHOLE_DAY]}  # fmt: skip
    return out


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _weights(names: Sequence[str], importance: Mapping[str, float] | None) -> F64:
    of = {name: 1.0 for name in names} if importance is None else dict(importance)
    raw = np.array([0.0 if name in SCORES else max(0.0, of.get(name, 0.0)) for name in names])
    return raw / raw.sum() if raw.sum() > 0 else raw


# ---- one instrument


def _reference(names: Sequence[str], rows: Rows, weight: F64) -> TickerReference | None:
    """Of thinned rows; columns without enough values, or with a single one, are left out."""
    finite = np.isfinite(rows.x).sum(axis=0)
    with np.errstate(invalid="ignore"):
        low, high = (np.where(finite > 0, f(rows.x, axis=0, initial=v, where=np.isfinite(rows.x)), 0.0)
                     for f, v in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
    use = np.flatnonzero((finite >= 2 * LEAST_ROWS) & (high > low))
    if not len(use):
        return None
    x = np.where(np.isfinite(rows.x[:, use]), rows.x[:, use], np.nan)
    days = rows.days()
    edges = _edges(x)
    sd = np.nanstd(x, axis=0)
    phases, shares, quantiles, counts = _phases(rows.recv_ns, days, x, edges)
    roughness = _roughness(x) / sd
    independence = _independence(_unseasonal(rows.recv_ns, x, phases), days)
    known = TickerReference(
        names=tuple(names[j] for j in use.tolist()), phases=phases, edges=edges, shares=shares,
        quantiles=quantiles, rows=counts, sd=sd, roughness=roughness, independence=independence,
        missing=1.0 - finite[use] / len(rows.x), weight=weight[use], inflation=np.ones((len(use), 2)),
        shape=_theory_shape(edges), blocks=0, days=len(np.unique(days)), strictness=1.0,
    )  # fmt: skip
    return _inflated(known, rows.recv_ns, days, x)


def _edges(x: F64) -> F64:
    """Inner reference quantiles [C, BINS - 1]: fewer, distinct ones where a column is discrete."""
    out = np.full((x.shape[1], BINS - 1), np.inf)
    for j in range(x.shape[1]):
        good = x[np.isfinite(x[:, j]), j]
        inner = np.unique(np.quantile(good, np.arange(1, BINS) / BINS))
        inner = inner[inner > good.min()]
        if not len(inner):  # nearly always the least value: what lies over it is the other bin
            inner = np.array([good[good > good.min()].min()])
        out[j, : len(inner)] = inner
    return out


def _phases(recv_ns: I64, days: I64, x: F64, edges: F64) -> tuple[tuple[int, ...], F64, F64, F64]:
    hours = recv_ns // HOUR_NS % 24
    chosen = [(WHOLE_DAY, np.ones(len(x), bool))]
    for hour in np.unique(hours):
        inside = hours == hour
        per_day = np.unique(days[inside], return_counts=True)[1]
        if (per_day >= LEAST_ROWS).sum() >= PHASE_DAYS:
            chosen.append((int(hour), inside))
    sorted_ = [drift.ordered(x[m]) for _, m in chosen]
    shares = np.stack([drift.smooth_shares(drift.bin_counts(*s, edges), edges) for s in sorted_])
    quantiles = np.stack([drift.grid_quantiles(*s) for s in sorted_])
    counts = np.stack([finite.astype(np.float64) for _, finite in sorted_])
    return tuple(hour for hour, _ in chosen), shares, quantiles, counts


def _roughness(x: F64) -> F64:
    """Integral of sqrt(F (1 - F)) over the values of each column [C]."""
    out = np.zeros(x.shape[1])
    for j in range(x.shape[1]):
        rising = np.sort(x[np.isfinite(x[:, j]), j])
        level = np.arange(1, len(rising)) / len(rising)
        out[j] = np.sqrt(level * (1 - level)) @ np.diff(rising)
    return out


def _unseasonal(recv_ns: I64, x: F64, phases: tuple[int, ...]) -> F64:
    """``x`` without the mean of each hour that windows are compared with: what every day repeats is known."""
    out, hours = x.copy(), recv_ns // HOUR_NS % 24
    for hour in phases[1:]:
        inside = hours == hour
        out[inside] -= np.nanmean(x[inside], axis=0)
    return out


def _independence(x: F64, days: I64) -> F64:
    """Effective rows a row [C], day by day: what days add to each other is the blocks' business."""
    effective, total = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for day in np.unique(days):
        of_day = x[days == day]
        for j in range(x.shape[1]):
            good = of_day[np.isfinite(of_day[:, j]), j]
            if len(good) > 2 and good.min() < good.max():
                effective[j] += effective_sample_size(good)
                total[j] += len(good)
    return np.asarray(np.where(total > 0, effective / np.maximum(total, 1), 1.0))


def _theory_shape(edges: F64) -> F64:
    freedom = np.isfinite(edges).sum(axis=1)
    return np.stack([freedom / 2, np.full(len(edges), W1_SHAPE)], axis=1)


def _inflated(known: TickerReference, recv_ns: I64, days: I64, x: F64) -> TickerReference:
    """With the spread of blocks of training about the other days; of the other blocks, in a single day."""
    ratios: list[F64] = []
    others: dict[tuple[int, int], tuple[F64, I64]] = {}
    for start, end in _blocks(recv_ns, days):
        if known.days > 1:
            at = int(days[start]), known.phases[known.phase(int(recv_ns[start]))]
            if at not in others:
                of_phase = (recv_ns // HOUR_NS % 24 == at[1]) | (at[1] == WHOLE_DAY)
                others[at] = drift.ordered(x[(days != at[0]) & of_phase])
            away = others[at]
        else:
            away = drift.ordered(np.concatenate([x[:start], x[end:]]))
        if away[0].shape[1] >= LEAST_ROWS:
            ratios.append(_ratio(known, x[start:end], *away))
    least = np.array(ONE_DAY if known.days == 1 else (1.0, 1.0))
    if len(ratios) < LEAST_BLOCKS:
        return replace(known, blocks=len(ratios), inflation=np.maximum(known.inflation, least))
    seen = np.stack(ratios)
    mean = seen.mean(axis=0)
    # The mean of few blocks may be too low by its own error.
    error = seen.std(axis=0, ddof=1) / math.sqrt(len(seen))
    relative = seen.var(axis=0, ddof=1) / np.maximum(mean, 1e-12) ** 2
    shape = np.minimum(known.shape, np.clip(1.0 / np.maximum(relative, 1e-12), 0.5, None))
    return replace(known, blocks=len(seen), inflation=np.maximum(least, mean + error), shape=shape)


def _blocks(recv_ns: I64, days: I64) -> list[tuple[int, int]]:
    """Windows [start, end) of WINDOW_ROWS rows within a day, none of them overlapping."""
    out = []
    for day in np.unique(days):
        first, last = (int(i) for i in np.searchsorted(days, (day, day + 1)))
        out += [(at, at + WINDOW_ROWS) for at in range(first, last - WINDOW_ROWS + 1, WINDOW_ROWS)]
    return out


def _ratio(known: TickerReference, window: F64, then: F64, m: I64) -> F64:
    """(PSI, W1) of a block over what effective size explains, [C, 2]; 1 where unknown. ``then``, ``m``: the
    ordered rows that it is compared with."""
    now, n = drift.ordered(window)
    actual = drift.smooth_shares(drift.bin_counts(now, n, known.edges), known.edges)
    expected = drift.smooth_shares(drift.bin_counts(then, m, known.edges), known.edges)
    far = drift.w1(drift.grid_quantiles(now, n), drift.grid_quantiles(then, m)) / known.sd
    against = replace(known, rows=m[None, :].astype(np.float64))
    alone = drift.expected_distances(against, n.astype(np.float64))
    ratio = np.stack([drift.psi(expected, actual), far], axis=1) / alone
    enough = (n >= LEAST_ROWS) & (m >= LEAST_ROWS)
    return np.where(enough[:, None] & np.isfinite(ratio), ratio, 1.0)


# ---- false alarms


def false_alarms(names: Sequence[str], rows: Mapping[str, Rows], weight: F64) -> FalseAlarms:
    """Plays the rule over held-out training time, with limits ever wider until it alarms on at most
    ALARM_DAYS of the days. Of thinned rows."""
    plays = [
        (known, unseen)
        for r in rows.values()
        for seen, unseen in _held_out(r)
        if len(unseen.recv_ns) >= LEAST_ROWS and (known := _reference(names, seen, weight)) is not None
    ]
    for strictness in STRICTNESS:
        found = [play(names, replace(known, strictness=strictness), r) for known, r in plays]
        hours = sum(len(r.recv_ns) for _, r in plays) * THIN_NS / HOUR_NS
        measured = FalseAlarms(
            looks=sum(len(f) for f in found), alarms=sum(w for f in found for w, _ in f), hours=hours,
            days=len(found), days_with_alarm=sum(any(w for w, _ in f) for f in found), strictness=strictness,
        )  # fmt: skip
        if measured.days_with_alarm <= ALARM_DAYS * measured.days:
            break
    return measured


def _held_out(rows: Rows) -> list[tuple[Rows, Rows]]:
    """(seen, unseen): each of the last days left out once; of a single day its end."""
    days = rows.days()
    known = np.unique(days)
    if len(known) == 1:
        cut = int(len(days) * (1 - HELD_OUT_SHARE))
        early = np.arange(len(days)) < cut
        return [(rows.where(early), rows.where(~early))]
    return [(rows.where(days != day), rows.where(days == day)) for day in known[-HELD_OUT_DAYS:]]


def play(names: Sequence[str], reference: TickerReference, rows: Rows) -> list[tuple[bool, bool]]:
    """(warning, critical) of every look that a runner would have taken at these thinned rows of one day."""
    at = [names.index(name) for name in reference.names]
    rule, told = Persistence(), []
    for end in range(LEAST_ROWS, len(rows.recv_ns) + 1, EVERY_ROWS):
        window = rows.x[max(0, end - WINDOW_ROWS) : end][:, at]
        told.append(rule.take(look(reference, window, int(rows.recv_ns[end - 1]), critical_psi=CRITICAL_PSI)))
    return told
