"""From a book to a score: features, then the ensemble. The runner, the backtest and replay use this one
class.

The result depends only on the events, never on when they are handled: the clock handed in measures stages and
nothing else.
"""

from __future__ import annotations

import base64
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from features.leader import quote
from features.schema import GAP, NAMES, usable
from features.stream import FeatureStream
from live.core.books import LARGEST
from live.core.config import ModelParams
from live.core.events import Book, InferenceFailed, Scores, Trade
from market.errors import BundleError, ScalperError
from market.types import BOOK_CONSISTENT, DEPTH

Row = NDArray[np.float32]
MICRO_NS = 1_000
ERROR_CHARS = 300
_FULL_BOOK = struct.Struct(f"={4 * DEPTH}i")
WARM_ROWS = 128
"""Rows kept per instrument for the warm-up of a new model: more than any window of the models."""


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


@runtime_checkable
class Remembering(Protocol):
    """A score model whose memory can be saved, as ``models.inference.Ensemble``'s."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def no_clock() -> int:
    """The clock of backtest and replay: nothing takes time."""
    return 0


def model_params(ensemble: Any) -> ModelParams:
    """``ModelParams`` of a ``models.inference.Ensemble`` and its bundle. Raises BundleError."""
    manifest = ensemble.bundle.manifest
    for follower, leader in leaders_of(ensemble).items():
        if follower in ensemble.tickers and leader not in ensemble.tickers:
            raise BundleError(
                f"the bundle's features of {follower} follow {leader}, which is not among "
                f"{', '.join(ensemble.tickers)}: add {leader} to the instruments"
            )
    params = ensemble.params_for_core()
    if params["stop_multiplier_e3"] < 1:
        raise BundleError("ensemble.json: stop_multiplier is 0, a position without a stop is not allowed")
    return ModelParams.from_dict(
        {**params, "valid_until_ns": int(manifest["valid_until_ns"]), "watermark": str(manifest["watermark"])}
    )


def leaders_of(ensemble: Any) -> dict[str, str]:
    """Whose quotes lead whose features, by the bundle of ``ensemble``: follower to leader."""
    return dict(_manifest(ensemble).get("leaders", {}))


def kinds_of(ensemble: Any) -> dict[str, str]:
    """``Instrument.kind`` by ticker, by the bundle of ``ensemble``: its venue's usual day is a feature."""
    return {fields["ticker"]: fields["kind"] for fields in _manifest(ensemble).get("instruments", ())}


def _manifest(ensemble: Any) -> Mapping[str, Any]:
    """Of its bundle; empty for an ensemble without one."""
    bundle = getattr(ensemble, "bundle", None)
    return bundle.manifest if bundle is not None else {}


@dataclass(slots=True)
class _Lane:
    """What is kept for one instrument."""

    stream: FeatureStream
    row: Row = field(default_factory=lambda: np.full(len(NAMES), np.nan, np.float32))
    levels: NDArray[np.int32] = field(default_factory=lambda: np.zeros((4, DEPTH), np.int32))
    """Bid prices, bid sizes, ask prices, ask sizes of the last book, best first; absent ones are 0."""
    sides: tuple[NDArray[np.int32], ...] = ()
    """The rows of ``levels``."""
    books: int = 0
    last_scored_ns: int = -(1 << 62)
    answer: ScoreLike | None = None
    fed: deque[Row] = field(default_factory=lambda: deque(maxlen=WARM_ROWS))
    """The rows that the models saw last: a new model warms up on them."""

    def __post_init__(self) -> None:
        self.sides = tuple(self.levels)

    def take(self, book: Book) -> bool:
        """Fills ``levels``. False, and no level at all, for numbers that do not fit them: the engine does not
        believe such a book either, and nobody's mistake may end the session.
        """
        try:
            self._fill(book)
        except (struct.error, OverflowError):
            self.levels.fill(0)
            return False
        return True

    def _fill(self, book: Book) -> None:
        sides = (book.bid_px, book.bid_qty, book.ask_px, book.ask_qty)
        if all(len(side) == DEPTH for side in sides):
            # Four times as fast as numpy's own conversion, and most books are full.
            _FULL_BOOK.pack_into(self.levels.data, 0, *sides[0], *sides[1], *sides[2], *sides[3])
            return
        for row, values in zip(self.sides, sides, strict=True):
            n = min(len(values), DEPTH)
            row[:n] = values[:n]
            row[n:] = 0


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
        self.error: Exception | None = None
        """What the ensemble raised last; whoever looks at it clears it."""
        self.micros: dict[str, int] = {"features": 0, "ml": 0}
        """How long the stages of the last book took."""
        self._prefix = session_key[:8]
        self._clock_ns = clock_ns
        kinds = kinds_of(ensemble)
        self._lanes = {ticker: _Lane(FeatureStream(kinds.get(ticker))) for ticker in tickers}
        self._leaders: dict[str, str] = {}
        self._followers: dict[str, list[_Lane]] = {}
        self._follow(leaders_of(ensemble))
        self._min_interval_ns = 0
        self._rotated_out: frozenset[str] = frozenset()

    def on_trade(self, trade: Trade) -> None:
        """Trades change the state of the features; they give no row."""
        if trade.ticker in self._rotated_out:
            return
        self._lanes[trade.ticker].stream.on_trade(trade.now_ns, trade.price_ticks, trade.lots, trade.side)

    def on_book(self, book: Book) -> Scores | InferenceFailed | None:
        """The score for ``book``; None for a row unfit for a model, during warm-up, or below the set
        interval.

        After a gap the models' states are reset. An exception of the ensemble becomes ``InferenceFailed``.
        """
        lane = self._lanes[book.ticker]
        lane.books += 1
        self._lead(book)
        if book.ticker in self._rotated_out:
            self.micros["features"] = self.micros["ml"] = 0
            return None
        started = self._clock_ns()
        status = self._features(lane, book)
        self.status[book.ticker] = status
        featured = self._clock_ns()
        self.micros["features"] = (featured - started) // MICRO_NS
        self.micros["ml"] = 0
        if status & GAP:
            lane.fed.clear()
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

    def _follow(self, leaders: dict[str, str]) -> None:
        """Take the quotes of these leaders from now on; a follower of another one than before forgets it."""
        for ticker, lane in self._lanes.items():
            if leaders.get(ticker) != self._leaders.get(ticker):
                lane.stream.forget_leader()
        self._leaders = {f: leader for f, leader in leaders.items() if f in self._lanes}
        self._followers = {}
        for follower, leader in self._leaders.items():
            self._followers.setdefault(leader, []).append(self._lanes[follower])

    def _lead(self, book: Book) -> None:
        """A leader's quote goes to its followers before anything else: later books of theirs see it."""
        followers = self._followers.get(book.ticker)
        if not followers or not book.bid_px or not book.ask_px or book.ask_px[0] > LARGEST:
            return
        flags = BOOK_CONSISTENT if book.consistent else 0
        mid2 = quote(book.bid_px[0], book.bid_qty[0], book.ask_px[0], book.ask_qty[0], flags)
        if mid2 is not None:
            for lane in followers:
                lane.stream.on_leader(book.now_ns, mid2)

    def _features(self, lane: _Lane, book: Book) -> int:
        fits = lane.take(book)
        flags = BOOK_CONSISTENT if book.consistent and fits else 0
        bid_px, bid_qty, ask_px, ask_qty = lane.sides
        return lane.stream.on_book(book.now_ns, bid_px, bid_qty, ask_px, ask_qty, flags, lane.row)

    def _score(self, book: Book, lane: _Lane) -> Scores | InferenceFailed | None:
        trace_id = f"{self._prefix}-{book.ticker}-{lane.books}"
        lane.fed.append(lane.row.copy())
        try:
            answer = self.ensemble.step(book.ticker, lane.row)
        except Exception as e:  # noqa: BLE001 whatever a model raises, the fallback and a person must hear of it
            self.failed += 1
            self.error = e
            lane.fed.clear()
            self.ensemble.reset(book.ticker)
            return InferenceFailed(
                book.now_ns, book.ticker, trace_id, f"{type(e).__name__}: {e}"[:ERROR_CHARS]
            )
        lane.answer = answer
        if answer is None:
            return None
        down, flat, up = p = answer.p.tolist()
        if not (0.0 <= down <= 1.0 and 0.0 <= flat <= 1.0 and 0.0 <= up <= 1.0):
            self.failed += 1
            return InferenceFailed(book.now_ns, book.ticker, trace_id, f"probabilities {p} are not in [0, 1]")
        self.scored += 1
        p_e6 = (round(down * 1_000_000), round(flat * 1_000_000), round(up * 1_000_000))
        return Scores(book.now_ns, book.ticker, trace_id, p_e6, answer.expected_move_millibps)

    def last(self, ticker: str) -> tuple[ScoreLike | None, Row]:
        """The last answer of the ensemble and the feature row behind it (valid until the next book)."""
        lane = self._lanes[ticker]
        return lane.answer, lane.row

    def reset(self, ticker: str = "*") -> None:
        """Clear feature and model state of ``ticker`` ("*": all): the next rows are warm-up."""
        for name, lane in self._lanes.items():
            if ticker in ("*", name):
                lane.stream.reset()
                self._clear(lane)
                lane.last_scored_ns = -(1 << 62)
                self.ensemble.reset(name)

    def set_mode(self, members: Collection[str] = (), min_interval_ns: int = 0) -> None:
        """Restrict to ``members`` (empty: all) and to one inference a ticker per ``min_interval_ns``."""
        self.ensemble.use_only(set(members) or None)
        self._min_interval_ns = min_interval_ns

    def rotate(self, rotated_out: frozenset[str]) -> None:
        """No features and no scores for ``rotated_out``; an instrument that comes back starts afresh."""
        returned, self._rotated_out = self._rotated_out - rotated_out, rotated_out
        for ticker in sorted(returned):
            self.reset(ticker)

    def swap(self, ensemble: ScoreModel) -> None:
        """Use another ensemble from the next book on. It warms up on the rows that the old one saw last; then
        the feature cache is cleared. A row on which it fails ends the warm-up of that instrument.
        """
        for ticker, lane in self._lanes.items():
            ensemble.reset(ticker)
            try:
                for row in lane.fed:
                    ensemble.step(ticker, row)
            except Exception:  # noqa: BLE001 it will fail on the next book too, and be told there
                ensemble.reset(ticker)
            self._clear(lane)
        self._follow(leaders_of(ensemble))
        self.ensemble = ensemble

    def _clear(self, lane: _Lane) -> None:
        lane.fed.clear()
        lane.row.fill(np.nan)
        lane.answer = None

    # ---- checkpoint

    def state(self) -> dict[str, Any]:
        """JSON of what features and models remember, exact to the bit."""
        features = {ticker: _packed(lane.stream.state()) for ticker, lane in self._lanes.items()}
        models = self.ensemble.state() if isinstance(self.ensemble, Remembering) else None
        return {"features": features, "models": models}

    def restore(self, state: dict[str, Any]) -> str:
        """Go on from ``state``; before the first book. Empty, or why everything starts afresh instead.

        Whether books were missed meanwhile is found out by the next one: the features see the gap.
        """
        try:
            for ticker, packed in state["features"].items():
                if ticker in self._lanes:
                    self._lanes[ticker].stream.restore(_unpacked(packed))
        except (ScalperError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.reset()
            return f"{type(error).__name__}: {error}"[:ERROR_CHARS]
        try:
            if state["models"] is not None and isinstance(self.ensemble, Remembering):
                self.ensemble.restore(state["models"])
        except (ScalperError, KeyError) as error:
            for ticker in self._lanes:
                self.ensemble.reset(ticker)
            return f"{type(error).__name__}: {error}"[:ERROR_CHARS]
        return ""


def _packed(state: dict[str, Any]) -> dict[str, str]:
    return {
        key: base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray) else value
        for key, value in state.items()
    }


def _unpacked(packed: dict[str, str]) -> dict[str, Any]:
    kinds = {"fstate": np.float64, "istate": np.int64}
    return {
        key: np.frombuffer(base64.b64decode(text), kinds[key]) if key in kinds else text
        for key, text in packed.items()
    }
