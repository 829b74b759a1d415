"""Cross-validation that a label cannot look around: walk-forward by whole sessions, and combinatorial paths.

A train row is used only if its label's window, and an embargo on both sides of it, stay clear of everything
that is tested (Lopez de Prado 2018, ch. 7 and 12; embargo on both sides as in h-block cross-validation,
Burman, Chow, Nolan 1994, because the features of the first test rows look back as well). Everything that is
fitted (scaler, calibration, weights, thresholds) is fitted inside a fold, on the block that is named for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError
from models.splits import Blocks, over_sessions

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

FOLD_BLOCKS: Final = ("fit", "calibrate", "threshold", "score")
"""Base models; calibration and stacking; thresholds; the figures that people read: each later in time."""
DECORRELATIONS: Final = 10
SPLITS_MAX: Final = 10_000
"""More ways to choose the test groups than this are a mistake in N or k."""


@dataclass(frozen=True, slots=True)
class Session:
    """One traded day, ``[from_ns, to_ns)``."""

    day: str
    from_ns: int
    to_ns: int


def by_day(parts: Iterable[tuple[str, int, int]]) -> tuple[Session, ...]:
    """Sessions in order from ``(day, from_ns, to_ns)`` of every instrument; a day counts once, at its
    widest."""
    days: dict[str, tuple[int, int]] = {}
    for day, from_ns, to_ns in parts:
        low, high = days.get(day, (from_ns, to_ns))
        days[day] = (min(low, from_ns), max(high, to_ns))
    sessions = sorted((Session(day, a, b) for day, (a, b) in days.items()), key=lambda s: s.from_ns)
    for before, after in pairwise(sessions):
        if after.from_ns < before.to_ns:
            raise ConfigError(f"session {after.day} begins before session {before.day} has ended")
    return tuple(sessions)


def shortest_embargo_ns(*, horizon_ns: int, feature_window_ns: int, decorrelation_ns: int) -> int:
    """The shortest embargo that lets nothing leak: ``max(h, longest feature window, 10 decorrelation times)``
    (after Lopez de Prado 2018, ch. 7; ``docs/labels.md``)."""
    return max(horizon_ns, feature_window_ns, DECORRELATIONS * decorrelation_ns)


def decorrelation_ns(values: F64, step_ns: int) -> int:
    """Lag at which the autocorrelation of an evenly spaced series first falls below 1/e, in ns; the series'
    length if it never does. Measure it on training rows."""
    x = np.asarray(values, np.float64)
    x = x - x.mean() if len(x) else x
    if len(x) < 2 or not np.any(x):
        return 0
    power = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    acf = np.fft.irfft(power)[: len(x)]
    below = np.flatnonzero(acf < acf[0] / np.e)
    return int(below[0] if len(below) else len(x)) * step_ns


# --- walk-forward


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of the walk: ``blocks`` (names of FOLD_BLOCKS) and the ``days`` that each is made of."""

    number: int
    blocks: Blocks
    days: Mapping[str, tuple[str, ...]]

    def code(self, recv_ns: I64) -> NDArray[np.uint8]:
        """The block of each row, uint8 [n], as ``Blocks.code``; NO_BLOCK where purged, embargoed, unused."""
        return self.blocks.code(recv_ns)

    def to_dict(self) -> dict[str, Any]:
        days = {name: list(d) for name, d in self.days.items()}
        return {"number": self.number, "days": days, **self.blocks.to_dict()}


def walk_forward(
    sessions: Sequence[Session], *, train_days: int, purge_ns: int, embargo_ns: int, calibrate_days: int = 1,
    gap_days: int = 0, validate_days: int = 1, test_days: int = 1, step_days: int | None = None,
    expanding: bool = False,
) -> tuple[Fold, ...]:  # fmt: skip
    """Folds over whole sessions: train ``train_days``, gap, validate, test; then on by ``step_days``.

    The last ``calibrate_days`` of the training days are block ``calibrate``, those before them ``fit``;
    validation days are ``threshold``, test days ``score``. ``step_days`` is by default ``test_days``, so that
    every test day is scored once. ``expanding`` keeps the first day in ``fit`` for ever. ``purge_ns`` = the
    longest label window (latency + horizon), cut from each block's end; the embargo is cut from its start,
    although a night lies before it. ConfigError when there are too few sessions for one fold.
    """
    step = test_days if step_days is None else step_days
    smallest = min(validate_days, test_days, step, calibrate_days, train_days - calibrate_days)
    if smallest < 1 or gap_days < 0:
        raise ConfigError(
            f"walk-forward of {train_days} training days (of which {calibrate_days} to calibrate), gap "
            f"{gap_days}, validate {validate_days}, test {test_days}, step {step}: every block needs a day, "
            "and training needs one more than calibration"
        )
    length = train_days + gap_days + validate_days + test_days
    if len(sessions) < length:
        raise ConfigError(
            f"walk-forward needs {length} sessions for one fold and there are {len(sessions)}: record more "
            "days, ask for fewer training days, or split one day by time (models.splits.chronological)"
        )
    folds = []
    for number, at in enumerate(range(0, len(sessions) - length + 1, step)):
        validate = at + train_days + gap_days
        cuts = {
            "fit": sessions[0 if expanding else at : at + train_days - calibrate_days],
            "calibrate": sessions[at + train_days - calibrate_days : at + train_days],
            "threshold": sessions[validate : validate + validate_days],
            "score": sessions[validate + validate_days : validate + validate_days + test_days],
        }
        spans = tuple((name, part[0].from_ns, part[-1].to_ns) for name, part in cuts.items())
        for name, from_ns, to_ns in spans:
            if to_ns - from_ns <= purge_ns + embargo_ns:
                raise ConfigError(f"fold {number}: block {name!r} is no longer than what is purged from it")
        days = {name: tuple(s.day for s in part) for name, part in cuts.items()}
        folds.append(Fold(number, Blocks(spans, purge_ns, embargo_ns), days))
    return tuple(folds)


# --- combinatorial purged cross-validation


@dataclass(frozen=True, slots=True)
class Cpcv:
    """Combinatorial purged cross-validation (Lopez de Prado 2018, ch. 12).

    ``groups``: N half-open intervals of time in order; each of the ``comb(N, k)`` splits tests k of them and
    trains on the rest. Every group is tested ``comb(N-1, k-1)`` times, so the tests can be laid end to end
    into that many whole histories ("paths"), each with its own Sharpe ratio.
    """

    groups: tuple[tuple[int, int], ...]
    k: int
    embargo_ns: int

    def __post_init__(self) -> None:
        n = len(self.groups)
        if not 0 < self.k < n or comb(n, self.k) > SPLITS_MAX:
            raise ConfigError(
                f"CPCV of {n} groups, {self.k} of them tested: k must be 1 to N - 1 and the splits "
                f"({comb(n, self.k)}) at most {SPLITS_MAX}"
            )
        if any(a >= b for a, b in self.groups) or any(a[1] > b[0] for a, b in pairwise(self.groups)):
            raise ConfigError("the groups of CPCV must be intervals in order that do not overlap")

    @property
    def splits(self) -> tuple[tuple[int, ...], ...]:
        """The tested groups of each split."""
        return tuple(combinations(range(len(self.groups)), self.k))

    @property
    def paths(self) -> I64:
        """int64 [paths, N]: which split provides group g of path p; every (split, tested group) once."""
        provides: list[list[int]] = [[] for _ in self.groups]
        for number, tested in enumerate(self.splits):
            for group in tested:
                provides[group].append(number)
        return np.array(provides, np.int64).T

    def group(self, recv_ns: I64) -> I64:
        """Group of each row, int64 [n], -1 for none."""
        out = np.full(len(recv_ns), -1, np.int64)
        for g, (from_ns, to_ns) in enumerate(self.groups):
            out[(recv_ns >= from_ns) & (recv_ns < to_ns)] = g
        return out

    def masks(self, split: int, from_ns: I64, to_ns: I64) -> tuple[Mask, Mask]:
        """Train and test rows of a split, bool [n] each.

        ``from_ns``, ``to_ns`` int64 [n]: first and last moment that each row's label looks at (for the kinds
        of ``models.label_kinds`` their fields of these names). Train rows whose window comes nearer than the
        embargo to any test row's window are left out.
        """
        group = self.group(from_ns)
        test = np.isin(group, self.splits[split])
        train = (group >= 0) & ~test
        for g in self.splits[split]:
            mine = group == g
            first_ns = min(self.groups[g][0], int(from_ns[mine].min())) if mine.any() else self.groups[g][0]
            last_ns = max(self.groups[g][1], int(to_ns[mine].max())) if mine.any() else self.groups[g][1]
            train &= (to_ns < first_ns - self.embargo_ns) | (from_ns > last_ns + self.embargo_ns)
        return train, test

    def assemble(self, per_split: F64, recv_ns: I64) -> F64:
        """Paths from results by split: float64 [splits, n] (read only where the split tests) to float64
        [paths, n], NaN where a row is in no group."""
        group = self.group(recv_ns)
        out = np.full((len(self.paths), len(recv_ns)), np.nan)
        for p, splits in enumerate(self.paths):
            for g, split in enumerate(splits):
                out[p, group == g] = per_split[split, group == g]
        return out


def session_groups(sessions: Sequence[Session], n: int) -> tuple[tuple[int, int], ...]:
    """N groups of whole neighbouring sessions, as equal in number as can be."""
    if not 2 <= n <= len(sessions):
        raise ConfigError(
            f"{n} groups of whole sessions cannot be made of {len(sessions)}: use time_groups, or fewer"
        )
    parts = [list(part) for part in np.array_split(np.arange(len(sessions)), n)]
    return tuple((sessions[p[0]].from_ns, sessions[p[-1]].to_ns) for p in parts)


def time_groups(sessions: Sequence[Session], n: int) -> tuple[tuple[int, int], ...]:
    """N groups of equal traded time, for recordings with fewer sessions than groups. Sharpe ratios over them
    say nothing about other days."""
    if n < 2:
        raise ConfigError(f"{n} groups of time: cross-validation needs two at least")
    spans = [(s.from_ns, s.to_ns) for s in sessions]
    bounds = [spans[0][0]] if spans else []
    for part in range(1, n):
        cut = over_sessions(spans, {"fit": part / n, "score": 1 - part / n}, purge_ns=0)
        bounds.append(cut.span("score")[0])
    bounds.append(spans[-1][1] if spans else 0)
    return tuple(pairwise(bounds))


# --- weights


def average_uniqueness(from_ns: I64, to_ns: I64, known: Mask | None = None) -> F64:
    """How much of its window each label has for itself, float64 [n] in (0, 1]; 0 where not ``known``.

    The mean over the window [from, to] of one over the number of labels that look there (Lopez de Prado 2018,
    4.3 and 4.4, in continuous time). Ten labels over the same seconds weigh a tenth each: as a sample weight
    it gives every second of the market the same say. A window without length weighs 1.
    """
    out = np.zeros(len(from_ns))
    known = np.ones(len(from_ns), bool) if known is None else known
    a, b = np.asarray(from_ns, np.int64)[known], np.asarray(to_ns, np.int64)[known]
    if len(a) == 0:
        return out
    if np.any(b < a):
        raise ConfigError("a label's window ends before it begins")
    moments = np.unique(np.concatenate([a, b]))
    start, end = np.searchsorted(moments, a), np.searchsorted(moments, b)
    change = np.bincount(start, minlength=len(moments)) - np.bincount(end, minlength=len(moments))
    open_labels = np.cumsum(change)[:-1]
    length = np.diff(moments).astype(np.float64)
    share = np.divide(length, open_labels, out=np.zeros(len(length)), where=open_labels > 0)
    integral = np.concatenate([[0.0], np.cumsum(share)])
    window = (b - a).astype(np.float64)
    own = integral[end] - integral[start]
    out[known] = np.where(window > 0, own / np.where(window > 0, window, 1.0), 1.0)
    return out
