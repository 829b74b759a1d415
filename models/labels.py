"""Labels that could have been traded: net of spread and fees, entered after the latency.

With book prices b (bid) and a (ask), decision time t, latency l, horizon h and fee f per side: ``long =
(b[t+l+h] - a[t+l]) / M[t] - 2f`` and ``short = (b[t+l] - a[t+l+h]) / M[t] - 2f``. A row is *up* when ``long``
exceeds theta, *down* when ``short`` does, else *flat*: with real costs nearly all rows are flat, and that is
the truth.

``refuse_if_leaky`` is the guard against labels that contain the past: on a random walk nothing can be
predicted, so a label that a look at the past predicts there is no label.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from features.batch import FeatureTable
from features.schema import CROSSED, GAP_NS, INCONSISTENT, ONE_SIDED
from market.errors import RecordingError, ScalperError
from market.types import DEPTH, SECOND_NS, Books, Instrument, InstrumentDay, Trades

DOWN: Final = 0
FLAT: Final = 1
UP: Final = 2
VOID: Final = 255
"""No label: the window leaves the day, touches a gap, or has no tradable book at one of its ends."""

PPM_PER_BP: Final = 100
LEAK_LIMIT: Final = 0.35
"""Largest macro-F1 that a past-anchored predictor may reach on a random walk (chance is 1/3)."""

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(slots=True)
class Labels:
    """One row per book snapshot. NaN where ``y`` is VOID.

    ``y`` uint8 [n]: DOWN, FLAT, UP or VOID. ``y_multi`` uint8 [n, H]: the same for H horizons, the asked one
    first (column 0 is ``y``), each VOID on its own. ``long_bps``, ``short_bps`` float32 [n]: result of a lot
    bought (sold) at the touch and closed at the touch, net of spread and fees. ``move_bps`` float32 [n]:
    change of mid over the same window, against the mid at the decision. ``entry_ns``, ``exit_ns`` int64 [n]:
    where the window of ``y`` is entered, and the last moment that any horizon's label looks at.
    """

    y: NDArray[np.uint8]
    y_multi: NDArray[np.uint8]
    long_bps: F32
    short_bps: F32
    move_bps: F32
    entry_ns: I64
    exit_ns: I64

    def __len__(self) -> int:
        return len(self.y)

    def save(self, path: Path) -> None:
        """Write ``path`` (.npz), byte-deterministic, through a temporary name of its own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with temporary.open("wb") as stream:
                np.savez(stream, **{f.name: getattr(self, f.name) for f in fields(self)})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote; RecordingError when it is missing."""
        if not path.is_file():
            raise RecordingError(f"no labels at {path}: run the stage 'labels' first")
        with np.load(path) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


def make_labels(
    day: InstrumentDay,
    table: FeatureTable,
    *,
    horizon_s: float,
    latency_s: float,
    fee_ppm: int,
    theta_bps: float,
    neighbours_s: Sequence[float] = (),
) -> Labels:
    """Executable labels of every snapshot of ``day``; ``table`` are its features (mid, spread, status).

    The book in force at a time is the last one received at or before it. ``fee_ppm`` is paid on each side.
    ``neighbours_s``: further horizons for ``y_multi``. RecordingError when the day is not in order of receive
    time.
    """
    recv_ns = day.books.recv_ns
    if len(table) != len(recv_ns):
        raise RecordingError(
            f"{day.instrument.ticker} {day.day}: {len(table)} feature rows for {len(recv_ns)} books"
        )
    if np.any(np.diff(recv_ns) < 0):
        raise RecordingError(
            f"{day.instrument.ticker} {day.day} goes back in time: ingest it, which drops such rows"
        )
    entry_ns = recv_ns + round(latency_s * SECOND_NS)
    asked = _executable(day, table, entry_ns, horizon_s, fee_ppm, theta_bps)
    others = [_executable(day, table, entry_ns, h, fee_ppm, theta_bps)[0] for h in neighbours_s]
    longest_s = max([horizon_s, *neighbours_s])
    return Labels(
        asked[0], np.stack([asked[0], *others], axis=1), *asked[1:], entry_ns,
        entry_ns + round(longest_s * SECOND_NS),
    )  # fmt: skip


def _executable(
    day: InstrumentDay, table: FeatureTable, entry_ns: I64, horizon_s: float, fee_ppm: int, theta_bps: float
) -> tuple[NDArray[np.uint8], F32, F32, F32]:
    """Classes, results of a long and of a short, and the mid's move over one horizon."""
    recv_ns = day.books.recv_ns
    exit_ns = entry_ns + round(horizon_s * SECOND_NS)
    entry = np.searchsorted(recv_ns, entry_ns, side="right") - 1
    leave = np.searchsorted(recv_ns, exit_ns, side="right") - 1
    valid = _window_valid(table, entry, leave, exit_ns)

    bid, ask = day.books.bid_px[:, 0].astype(np.float64), day.books.ask_px[:, 0].astype(np.float64)
    mid = np.where(valid, table.mid2 / 2, np.nan)
    fee_bps = 2 * fee_ppm / PPM_PER_BP
    long_bps = (bid[leave] - ask[entry]) / mid * 1e4 - fee_bps
    short_bps = (bid[entry] - ask[leave]) / mid * 1e4 - fee_bps
    move_bps = (table.mid2[leave] - table.mid2[entry]) / 2 / mid * 1e4
    y = np.full(len(recv_ns), FLAT, np.uint8)
    y[long_bps > theta_bps] = UP
    y[short_bps > theta_bps] = DOWN
    y[~valid] = VOID
    return y, long_bps.astype(np.float32), short_bps.astype(np.float32), move_bps.astype(np.float32)


def _window_valid(table: FeatureTable, entry: I64, leave: I64, exit_ns: I64) -> NDArray[np.bool_]:
    """Rows whose window lies in the day, touches no gap, and starts, enters and leaves on a tradable book."""
    recv_ns = table.recv_ns
    n = len(recv_ns)
    tradable = (table.status & (CROSSED | ONE_SIDED | INCONSISTENT)) == 0
    after = np.searchsorted(recv_ns, exit_ns, side="left")  # first book that closes the window
    inside = after < n
    gaps_before = np.concatenate([[0], np.cumsum(np.diff(recv_ns) > GAP_NS)])[:n]
    no_gap = gaps_before[np.minimum(after, n - 1)] == gaps_before
    return inside & no_gap & tradable & tradable[entry] & tradable[leave]


def random_walk_macro_f1(
    label_fn: Callable[[NDArray[np.float64]], NDArray[Any]],
    *,
    n: int = 100_000,
    window: int = 20,
    seed: int = 20,
) -> float:
    """Macro-F1 of "price above its own trailing mean" against a label, on a Gaussian random walk.

    ``label_fn`` takes mids float64 [n] and returns one value a row: classes as uint8 (DOWN, FLAT, UP, VOID),
    or a number (NaN = void) which is cut into balanced terciles. ``window`` is the trailing mean's length.
    The predictor is cut so that it says each class as often as the label has it; without a leak the score is
    then close to 1/3.
    """
    mids = 1e5 + np.cumsum(np.random.default_rng(seed).normal(0.0, 4.0, n))
    label = label_fn(mids)
    sums = np.concatenate([[0.0], np.cumsum(mids - mids[0])])
    past = np.full(n, np.nan)
    past[window - 1 :] = mids[window - 1 :] - mids[0] - (sums[window:] - sums[:-window]) / window
    if label.dtype == np.uint8:
        known = (label != VOID) & np.isfinite(past)
        y = label[known].astype(np.int64)
    else:
        known = np.isfinite(label) & np.isfinite(past)
        y = _cut(label[known], np.full(3, 1 / 3))
    return _macro_f1(y, _cut(past[known], np.bincount(y, minlength=3) / len(y)))


def refuse_if_leaky(name: str, label_fn: Callable[[NDArray[np.float64]], NDArray[Any]]) -> float:
    """The random-walk macro-F1 of a label, or ScalperError when it exceeds LEAK_LIMIT.

    The worst of several lengths of the predictor's memory counts, because a leak shows at its own scale.
    """
    score = max(random_walk_macro_f1(label_fn, window=w) for w in (10, 20, 50))
    if score > LEAK_LIMIT:
        raise ScalperError(
            f"label {name!r} is predicted with macro-F1 {score:.3f} on a random walk, above {LEAK_LIMIT}: it "
            "contains the past and is refused; use the executable label"
        )
    return score


def executable_on_walk(
    mids: NDArray[np.float64], *, horizon: int = 40, spread_ticks: int = 2
) -> NDArray[np.uint8]:
    """The product's own label on given mids: a snapshot per 0.25 s, constant spread, one step of latency."""
    n = len(mids)
    books = Books.empty(n)
    books.recv_ns[:] = books.exch_ns[:] = np.arange(n, dtype=np.int64) * (SECOND_NS // 4)
    bid = np.round(mids).astype(np.int32)[:, None] - np.arange(DEPTH, dtype=np.int32)
    books.bid_px[:], books.ask_px[:] = bid, bid[:, :1] + spread_ticks + np.arange(DEPTH, dtype=np.int32)
    books.bid_qty[:] = books.ask_qty[:] = 1
    instrument = Instrument("walk", "WALK", "TQBR", "", "share", 1, 10_000_000, 10_000_000)
    day = InstrumentDay(instrument, "2026-01-15", books, Trades.empty())
    mid2 = books.bid_px[:, 0].astype(np.int64) + books.ask_px[:, 0]
    spread = np.full(n, spread_ticks, np.int32)
    table = FeatureTable(books.recv_ns, np.zeros((n, 0), np.float32), np.zeros(n, np.uint8), mid2, spread)
    return make_labels(day, table, horizon_s=horizon / 4, latency_s=0.25, fee_ppm=0, theta_bps=0.0).y


def past_anchored(mids: NDArray[np.float64], *, window: int = 20) -> NDArray[np.float64]:
    """The leaky label of the textbooks, for comparison only: mean of the next mids over mean of the last."""
    sums = np.concatenate([[0.0], np.cumsum(mids)])
    means = (sums[window:] - sums[:-window]) / window
    label = np.full(len(mids), np.nan)
    label[window - 1 : -window] = (means[window:] - means[:-window]) / means[:-window]
    return label


def _cut(values: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Classes 0, 1, 2 by rank, in the given shares."""
    edges = np.quantile(values, [shares[0], min(1.0, shares[0] + shares[1])])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _macro_f1(y: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    scores = []
    for c in range(3):
        hit = np.sum((y == c) & (predicted == c))
        called, true = np.sum(predicted == c), np.sum(y == c)
        scores.append(2 * hit / (called + true) if called + true else 0.0)
    return float(np.mean(scores))
