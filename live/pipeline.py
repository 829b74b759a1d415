"""From a book to a score: features, then the ensemble. The runner, the backtest and replay use this one
class.

The result depends only on the events, never on when they are handled: the clock handed in measures stages and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.schema import GAP, NAMES, usable
from features.stream import FeatureStream
from live.core.config import ModelParams
from live.core.events import Book, InferenceFailed, Scores, Trade
from market.errors import BundleError
from market.types import BOOK_CONSISTENT, DEPTH

Row = NDArray[np.float32]
MICRO_NS = 1_000
ERROR_CHARS = 300


class ScoreLike(Protocol):
    """What a score model answers: ``p`` float64 [3] (down, flat, up) and the expected mid move."""

    @property
    def p(self) -> NDArray[np.float64]: ...
    @property
    def expected_move_millibps(self) -> int: ...


class ScoreModel(Protocol):
    """``models.inference.Ensemble``, or anything that answers like it."""

    def step(self, ticker: str, x: Row) -> ScoreLike | None: ...
    def reset(self, ticker: str) -> None: ...
    def use_only(self, names: Collection[str] | None) -> None: ...


def no_clock() -> int:
    """The clock of backtest and replay: nothing takes time."""
    return 0


def model_params(ensemble: Any) -> ModelParams:
    """``ModelParams`` of a ``models.inference.Ensemble`` and its bundle. Raises BundleError."""
    manifest = ensemble.bundle.manifest
    params = ensemble.params_for_core()
    if params["stop_multiplier_e3"] < 1:
        raise BundleError("ensemble.json: stop_multiplier is 0, a position without a stop is not allowed")
    return ModelParams.from_dict(
        {**params, "valid_until_ns": int(manifest["valid_until_ns"]), "watermark": str(manifest["watermark"])}
    )


@dataclass(slots=True)
class _Lane:
    """What is kept for one instrument."""

    stream: FeatureStream = field(default_factory=FeatureStream)
    row: Row = field(default_factory=lambda: np.full(len(NAMES), np.nan, np.float32))
    bid_px: NDArray[np.int32] = field(default_factory=lambda: np.zeros(DEPTH, np.int32))
    bid_qty: NDArray[np.int32] = field(default_factory=lambda: np.zeros(DEPTH, np.int32))
    ask_px: NDArray[np.int32] = field(default_factory=lambda: np.zeros(DEPTH, np.int32))
    ask_qty: NDArray[np.int32] = field(default_factory=lambda: np.zeros(DEPTH, np.int32))
    books: int = 0
    last_scored_ns: int = -(1 << 62)


class SignalPipeline:
    """Books and trades of ``tickers`` in, ``Scores`` or ``InferenceFailed`` out.

    ``session_key`` names the traces: ``f"{session_key[:8]}-{ticker}-{n}"`` with n counting the books of that
    ticker. ``clock_ns`` is a monotonic clock, or ``no_clock``.
    """

    def __init__(
        self,
        tickers: Iterable[str],
        ensemble: ScoreModel,
        session_key: str,
        *,
        clock_ns: Callable[[], int] = no_clock,
    ) -> None:
        self.ensemble = ensemble
        self.status: dict[str, int] = {}
        """Status bits of the last row, per ticker (``features.schema.reasons`` names them)."""
        self.scored = self.failed = self.unusable = 0
        self.micros: dict[str, int] = {"features": 0, "ml": 0}
        """How long the stages of the last book took."""
        self._prefix = session_key[:8]
        self._clock_ns = clock_ns
        self._lanes = {ticker: _Lane() for ticker in tickers}
        self._min_interval_ns = 0

    def on_trade(self, trade: Trade) -> None:
        """Trades change the state of the features; they give no row."""
        self._lanes[trade.ticker].stream.on_trade(trade.now_ns, trade.price_ticks, trade.lots, trade.side)

    def on_book(self, book: Book) -> Scores | InferenceFailed | None:
        """The score for ``book``; None for a row unfit for a model, during warm-up, or below the set
        interval.

        After a gap the models' states are reset. An exception of the ensemble becomes ``InferenceFailed``.
        """
        lane = self._lanes[book.ticker]
        lane.books += 1
        started = self._clock_ns()
        status = self._features(lane, book)
        self.status[book.ticker] = status
        featured = self._clock_ns()
        self.micros["features"] = (featured - started) // MICRO_NS
        self.micros["ml"] = 0
        if status & GAP:
            self.ensemble.reset(book.ticker)
        if not usable(status):
            self.unusable += 1
            return None
        if book.now_ns - lane.last_scored_ns < self._min_interval_ns:
            return None
        lane.last_scored_ns = book.now_ns
        answer = self._score(book, lane)
        self.micros["ml"] = (self._clock_ns() - featured) // MICRO_NS
        return answer

    def _features(self, lane: _Lane, book: Book) -> int:
        for target, values in (
            (lane.bid_px, book.bid_px),
            (lane.bid_qty, book.bid_qty),
            (lane.ask_px, book.ask_px),
            (lane.ask_qty, book.ask_qty),
        ):
            n = min(len(values), DEPTH)
            target[:n] = values[:n]
            target[n:] = 0
        flags = BOOK_CONSISTENT if book.consistent else 0
        return lane.stream.on_book(
            book.now_ns, lane.bid_px, lane.bid_qty, lane.ask_px, lane.ask_qty, flags, lane.row
        )

    def _score(self, book: Book, lane: _Lane) -> Scores | InferenceFailed | None:
        trace_id = f"{self._prefix}-{book.ticker}-{lane.books}"
        try:
            answer = self.ensemble.step(book.ticker, lane.row)
        except Exception as e:  # noqa: BLE001 whatever a model raises, the fallback and a person must hear of it
            self.failed += 1
            self.ensemble.reset(book.ticker)
            return InferenceFailed(
                book.now_ns, book.ticker, trace_id, f"{type(e).__name__}: {e}"[:ERROR_CHARS]
            )
        if answer is None:
            return None
        p = [float(x) for x in answer.p]
        if not all(0.0 <= x <= 1.0 for x in p):
            self.failed += 1
            return InferenceFailed(book.now_ns, book.ticker, trace_id, f"probabilities {p} are not in [0, 1]")
        self.scored += 1
        down, flat, up = (round(x * 1_000_000) for x in p)
        return Scores(book.now_ns, book.ticker, trace_id, (down, flat, up), answer.expected_move_millibps)

    def reset(self, ticker: str = "*") -> None:
        """Clear feature and model state of ``ticker`` ("*": all): the next rows are warm-up."""
        for name, lane in self._lanes.items():
            if ticker in ("*", name):
                lane.stream.reset()
                lane.last_scored_ns = -(1 << 62)
                self.ensemble.reset(name)

    def set_mode(self, members: Collection[str] = (), min_interval_ns: int = 0) -> None:
        """Restrict to ``members`` (empty: all) and to one inference a ticker per ``min_interval_ns``."""
        self.ensemble.use_only(set(members) or None)
        self._min_interval_ns = min_interval_ns

    def swap(self, ensemble: ScoreModel) -> None:
        """Use another ensemble from the next book on; features go on, model states start afresh."""
        self.ensemble = ensemble
