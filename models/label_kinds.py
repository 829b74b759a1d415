"""The labels of the literature beside the product's own, each declared once; which of them may be a headline.

The product learns ``Executable`` (``models.labels``). The others are here to be compared with it: they make
figures that look better and cannot be traded. ``headline`` refuses, at run time, any of them that a look at
the past predicts on a random walk.

M is the mid; m-(k) and m+(k) are the means of the last k mids (the present one included) and of the next k.
Kinds that the literature counts in book updates count in rows, kinds with costs in seconds. Values in bps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.batch import FeatureTable
from market.errors import ConfigError, ScalperError
from market.types import SECOND_NS, InstrumentDay
from models import evaluate, labels
from models.barriers import Barriers, first_touch, trailing_sigma_bps
from models.labels import DOWN, FLAT, LEAK_LIMIT, UP, VOID
from models.quotes import WALK_SPREAD_TICKS, Quotes, window_mean

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

PPM_PER_BP: Final = labels.PPM_PER_BP
WALK_MEMORIES: Final = (5, 10, 20, 50, 100)
"""Lengths of the predictor's trailing mean that ``headline`` tries: a leak shows at its own scale."""
WALK_ROWS_PER_HORIZON: Final = 40
WALK_ROWS_MIN, WALK_ROWS_MAX = 200_000, 3_000_000
WALK_ROWS_PER_REACH: Final = 12_000
"""Rows of random walk per row that a label looks over: neighbours overlap, and the score must stand still at
0.333 +- 0.005 for the limit of 0.35 to mean something."""


@dataclass(frozen=True, slots=True)
class KindLabels:
    """One row per book. ``y`` uint8 [n]: DOWN, FLAT, UP, VOID. ``value_bps`` float64 [n], NaN where void: the
    number that was cut into classes (for ``TripleBarrier`` what the winning side earned, 0 if none did).
    ``from_ns``, ``to_ns`` int64 [n]: first and last moment of the market that the label looks at."""

    y: NDArray[np.uint8]
    value_bps: F64
    from_ns: I64
    to_ns: I64


class Kind(ABC):
    """A way to label. Subclasses are frozen dataclasses: their fields are its parameters."""

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    executable: ClassVar[bool] = False
    """Whether the value is money that a taker could have had."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Rows between the first and the last book that the label looks at, on the walk of ``on_walk``."""

    @abstractmethod
    def of_quotes(self, quotes: Quotes) -> KindLabels: ...

    def of_day(self, day: InstrumentDay, table: FeatureTable) -> KindLabels:
        return self.of_quotes(Quotes.of(day, table))

    def on_walk(self, mids: F64) -> NDArray[Any]:
        """What the leak test looks at: the value (float64 [n], NaN = void), or classes (uint8 [n])."""
        return self.of_quotes(Quotes.walk(mids)).value_bps


class _Smoothed(Kind):
    """Kinds that are a difference of two means of mids over rows, as a share of the second."""

    theta_bps: float

    @property
    @abstractmethod
    def windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows (first, last) relative to t of the mean that is measured and of its anchor."""

    @property
    def reach(self) -> int:
        return max(w[1] for w in self.windows) - min(w[0] for w in self.windows)

    def of_quotes(self, quotes: Quotes) -> KindLabels:
        future, anchor = self.windows
        back, ahead = -min(0, future[0], anchor[0]), max(0, future[1], anchor[1])
        first, last, valid = quotes.rows(back, ahead)
        mid = np.nan_to_num(quotes.mid)
        base = window_mean(mid, *anchor)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(valid, (window_mean(mid, *future) - base) / base * 1e4, np.nan)
        return KindLabels(classes(value, self.theta_bps), value, quotes.recv_ns[first], quotes.recv_ns[last])


@dataclass(frozen=True, slots=True)
class PastAnchored(_Smoothed):
    """Leaky: the past mean is known when the forecast is made. For comparison only."""

    name: ClassVar[str] = "past_anchored"
    formula: ClassVar[str] = "(m+(k) - m-(k)) / m-(k)"
    source: ClassVar[str] = "Tsantekidis et al. 2017; Zhang, Zohren, Roberts 2019 (DeepLOB, own data)"
    k: int = 20
    theta_bps: float = 0.0

    @property
    def windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (1, self.k), (1 - self.k, 0)


@dataclass(frozen=True, slots=True)
class PriceAnchored(_Smoothed):
    """The label of FI-2010 as described; honest, but nobody trades at a mean of mids."""

    name: ClassVar[str] = "price_anchored"
    formula: ClassVar[str] = "(m+(k) - M[t]) / M[t]"
    source: ClassVar[str] = "Ntakaris et al. 2018 (FI-2010)"
    k: int = 20
    theta_bps: float = 0.0

    @property
    def windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (1, self.k), (0, 0)


@dataclass(frozen=True, slots=True)
class Tlob(_Smoothed):
    """Two means of k mids, h rows apart; leaks unless h is far larger than k.

    ``future`` "ends" at t+h (the authors' released code, which also lowers k to h) or "starts" there (the
    windows for which ``docs/labels.md`` gives the smaller leak).
    """

    name: ClassVar[str] = "tlob"
    formula: ClassVar[str] = "(w+ - w-) / w-, w- = mean M[t-k+1..t], w+ = mean M[t+h-k+1..t+h] (ends at t+h)"
    source: ClassVar[str] = "Berti, Kasneci 2025 (TLOB), released code, function labeling"
    k: int = 10
    h: int = 10
    future: Literal["ends", "starts"] = "ends"
    theta_bps: float = 0.0

    @property
    def windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        k = min(self.k, self.h)
        ahead = (self.h - k + 1, self.h) if self.future == "ends" else (self.h, self.h + k - 1)
        return ahead, (1 - k, 0)


class _Timed(Kind):
    """Kinds whose window is [t + latency, t + latency + horizon]."""

    horizon_s: float
    latency_s: float

    @property
    def reach(self) -> int:
        return WALK_ROWS_PER_HORIZON + 1

    def times(self, recv_ns: I64) -> tuple[I64, I64]:
        """Entry and exit of each row, int64 [n] ns."""
        entry_ns = recv_ns + round(self.latency_s * SECOND_NS)
        return entry_ns, entry_ns + round(self.horizon_s * SECOND_NS)

    def on_walk(self, mids: F64) -> NDArray[Any]:
        # A walk has no scale of its own: the horizon is always the same number of steps.
        found = self.of_quotes(Quotes.walk(mids, round(self.horizon_s * SECOND_NS / WALK_ROWS_PER_HORIZON)))
        return found.y if self.executable else found.value_bps


@dataclass(frozen=True, slots=True)
class PointReturn(_Timed):
    """A target for forecasts of the mid, from the moment an order could arrive."""

    name: ClassVar[str] = "point_return"
    formula: ClassVar[str] = "log M[t+l+h] / M[t+l], l the latency"
    source: ClassVar[str] = "point return, its start shifted by the latency (docs/labels.md)"
    horizon_s: float = 10.0
    latency_s: float = 0.1
    theta_bps: float = 0.0

    def of_quotes(self, quotes: Quotes) -> KindLabels:
        entry_ns, exit_ns = self.times(quotes.recv_ns)
        entry, leave, valid = quotes.times(entry_ns, exit_ns)
        logs = np.log(np.where(quotes.tradable, quotes.mid, 1.0))
        value = np.where(valid, (logs[leave] - logs[entry]) * 1e4, np.nan)
        return KindLabels(classes(value, self.theta_bps), value, quotes.recv_ns.copy(), exit_ns)


@dataclass(frozen=True, slots=True)
class TripleBarrier(_Timed):
    """Which side's take-profit is met before its stop and before the time is up, at the touch, net of fees.

    Barriers are ``up_sigma`` and ``down_sigma`` times the volatility over the horizon (``trailing_sigma_bps``
    over ``sigma_window_s``), never below ``floor_costs`` round trips' cost: a position starts at minus that
    cost. ``models.barriers`` has the exits and the meta-label.
    """

    name: ClassVar[str] = "triple_barrier"
    formula: ClassVar[str] = "first of +u sigma, -d sigma, l+h on r = (b - a_entry)/M - 2f; short alike"
    source: ClassVar[str] = "Lopez de Prado 2018, ch. 3; on executable prices: docs/labels.md"
    executable: ClassVar[bool] = True
    horizon_s: float = 10.0
    latency_s: float = 0.1
    fee_ppm: int = 0
    up_sigma: float = 1.0
    down_sigma: float = 1.0
    floor_costs: float = 1.5
    sigma_window_s: float = 300.0

    def barriers(self, quotes: Quotes) -> Barriers:
        """Exits of both sides for every row (void rows: touch 0, NaN results)."""
        entry_ns, exit_ns = self.times(quotes.recv_ns)
        entry, leave, valid = quotes.times(entry_ns, exit_ns)
        step_ns = max(SECOND_NS, round(self.horizon_s * SECOND_NS / WALK_ROWS_PER_HORIZON))
        sigma = trailing_sigma_bps(
            quotes.recv_ns, quotes.mid, step_ns=step_ns, window_ns=round(self.sigma_window_s * SECOND_NS),
            horizon_ns=round(self.horizon_s * SECOND_NS),
        )  # fmt: skip
        return first_touch(
            quotes.recv_ns, quotes.bid, quotes.ask, quotes.tradable, entry, leave, exit_ns,
            valid & np.isfinite(sigma), np.nan_to_num(sigma), up_sigma=self.up_sigma,
            down_sigma=self.down_sigma, floor_costs=self.floor_costs, fee_bps=2 * self.fee_ppm / PPM_PER_BP,
            latency_ns=round(self.latency_s * SECOND_NS),
        )  # fmt: skip

    def of_quotes(self, quotes: Quotes) -> KindLabels:
        b = self.barriers(quotes)
        up = (b.touch_long > 0) & ~((b.touch_short > 0) & (b.exit_short_ns < b.exit_long_ns))
        down = (b.touch_short > 0) & ~up
        known = np.isfinite(b.long_bps)
        y = np.where(up, UP, np.where(down, DOWN, FLAT)).astype(np.uint8)
        y[~known] = VOID
        value = np.where(up, b.long_bps, np.where(down, b.short_bps, 0.0))
        value[~known] = np.nan
        return KindLabels(y, value, quotes.recv_ns.copy(), np.maximum(b.exit_long_ns, b.exit_short_ns))


@dataclass(frozen=True, slots=True)
class Executable(_Timed):
    """The default, ``models.labels.make_labels``: what a taker would have earned."""

    name: ClassVar[str] = "executable"
    formula: ClassVar[str] = (
        "up: (b[t+l+h] - a[t+l])/M - 2f > theta; down: (b[t+l] - a[t+l+h])/M - 2f > theta"
    )
    source: ClassVar[str] = "this project's own (docs/labels.md)"
    executable: ClassVar[bool] = True
    horizon_s: float = 10.0
    latency_s: float = 0.1
    fee_ppm: int = 0
    theta_bps: float = 0.0

    def of_quotes(self, quotes: Quotes) -> KindLabels:
        raise ConfigError("the executable label needs the whole day: use of_day")

    def of_day(self, day: InstrumentDay, table: FeatureTable) -> KindLabels:
        made = labels.make_labels(
            day, table, horizon_s=self.horizon_s, latency_s=self.latency_s, fee_ppm=self.fee_ppm,
            theta_bps=self.theta_bps,
        )  # fmt: skip
        best = np.maximum(made.long_bps, made.short_bps).astype(np.float64)
        return KindLabels(made.y, best, table.recv_ns.copy(), made.exit_ns)

    def on_walk(self, mids: F64) -> NDArray[Any]:
        # Without fees, so that classes are there to be guessed. In parts, because a book has twenty levels:
        # only the label's reach is lost at each seam.
        parts = np.array_split(mids, max(1, len(mids) // 100_000))
        return np.concatenate(
            [labels.executable_on_walk(p, horizon=WALK_ROWS_PER_HORIZON, spread_ticks=WALK_SPREAD_TICKS)
             for p in parts]
        )  # fmt: skip


KINDS: Final[tuple[type[Kind], ...]] = (
    Executable, PointReturn, TripleBarrier, PriceAnchored, Tlob, PastAnchored
)  # fmt: skip
"""Every kind, the default first."""


def classes(value_bps: F64, theta_bps: float) -> NDArray[np.uint8]:
    """UP above ``theta_bps``, DOWN below minus that, FLAT between, VOID where NaN."""
    y = np.full(len(value_bps), FLAT, np.uint8)
    y[value_bps > theta_bps] = UP
    y[value_bps < -theta_bps] = DOWN
    y[np.isnan(value_bps)] = VOID
    return y


def balanced_theta_bps(value_bps: F64) -> float:
    """The theta that leaves a third of these rows flat. Choose it on training rows only."""
    known = np.abs(value_bps[np.isfinite(value_bps)])
    return float(np.quantile(known, 1 / 3)) if len(known) else 0.0


def random_walk_macro_f1(
    kind: Kind, *, window: int | None = None, n: int | None = None, seed: int = 20
) -> float:
    """Macro-F1 of "price above its mean of the last ``window``" against ``kind`` on a Gaussian random walk.

    Without a leak 1/3. ``window`` is by default the label's own k (20 if it has none); ``n`` rows grow with
    the label's reach. Values are cut into balanced terciles, classes are taken as they are.
    """
    window = int(getattr(kind, "k", 20)) if window is None else window
    return labels.random_walk_macro_f1(_remembered(kind), n=n or walk_rows(kind), window=window, seed=seed)


def random_walk_r2(kind: Kind, *, window: int, n: int | None = None, seed: int = 20) -> float:
    """Share of a label's variance on the walk that "price minus its mean of the last ``window``" explains."""
    mids = 1e5 + np.cumsum(np.random.default_rng(seed).normal(0.0, 4.0, n or walk_rows(kind)))
    value = np.asarray(kind.of_quotes(Quotes.walk(mids)).value_bps)
    past = mids - window_mean(mids, 1 - window, 0)
    known = np.isfinite(value) & np.isfinite(past)
    return float(np.corrcoef(value[known], past[known])[0, 1] ** 2)


def walk_rows(kind: Kind) -> int:
    """Rows of random walk that make the score of ``kind`` stand still."""
    return int(np.clip(WALK_ROWS_PER_REACH * kind.reach, WALK_ROWS_MIN, WALK_ROWS_MAX))


@lru_cache(maxsize=64)
def worst_leak(kind: Kind) -> tuple[float, int]:
    """The largest random-walk macro-F1 over ``WALK_MEMORIES``, and the memory that reached it."""
    label_fn, n = _remembered(kind), walk_rows(kind)
    scores = [(labels.random_walk_macro_f1(label_fn, n=n, window=w), w) for w in WALK_MEMORIES]
    return max(scores)


def headline(kind: Kind) -> Kind:
    """``kind`` itself, if figures about it may be shown first; ScalperError when the past predicts it on a
    random walk better than LEAK_LIMIT. Cached: asking costs a second, once per process and kind."""
    score, memory = worst_leak(kind)
    if score > LEAK_LIMIT:
        raise ScalperError(
            f"label {kind!r} is predicted with macro-F1 {score:.3f} on a random walk by the price against "
            f"its mean of the last {memory} rows, above {LEAK_LIMIT}: it contains the past and is refused as "
            "headline; show it for comparison only and head the report with the executable label"
        )
    return kind


def worth(kind: KindLabels, executable: labels.Labels) -> dict[str, float]:
    """What a perfect forecast of a label would have earned, on the rows that both labels know.

    ``flat``: share of flat rows. ``net_bps``: mean net result of a taker who buys on every UP and sells on
    every DOWN; ``paid``: share of those trades above zero. ``mcc`` with the executable classes.
    """
    both = (kind.y != VOID) & (executable.y != VOID)
    y, known = kind.y[both], executable.y[both]
    earned = np.where(y == UP, executable.long_bps[both], executable.short_bps[both])[y != FLAT]
    return {
        "rows": float(both.sum()), "flat": float(np.mean(y == FLAT)) if len(y) else float("nan"),
        "net_bps": float(earned.mean()) if len(earned) else 0.0,
        "paid": float(np.mean(earned > 0)) if len(earned) else 0.0, "mcc": evaluate.mcc(known, y),
    }  # fmt: skip


def catalogue() -> Sequence[dict[str, str]]:
    """Name, formula and source of every kind, for pages and reports."""
    return [{"name": k.name, "formula": k.formula, "source": k.source} for k in KINDS]


def _remembered(kind: Kind) -> Callable[[F64], NDArray[Any]]:
    """``kind.on_walk`` that labels the same walk once: the leak test walks the same way for every memory."""
    known: dict[tuple[int, float], NDArray[Any]] = {}

    def label(mids: F64) -> NDArray[Any]:
        walk = (len(mids), float(mids[-1]))
        if walk not in known:
            known.clear()
            known[walk] = kind.on_walk(mids)
        return known[walk]

    return label
