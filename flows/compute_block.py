"""The backtest of one block of time in parts, to the same bytes as in one go.

First the scores of each instrument, which depend on no other one but its leader. Then the engines, which
trade all instruments together (limits are of the whole account), under some of the assumptions each.
"""

from __future__ import annotations

import pickle
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.compute import Pool
from live import backtest
from live.backtest_assumptions import Assumptions
from live.backtest_result import BacktestResult
from live.backtest_run import BACKTEST_KEY
from live.backtest_tape import NothingRecorded, Tape
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams
from live.pipeline import SignalPipeline, model_params
from market.latency import Latency
from market.matching import FillModel, QueueModel
from market.recording import Recording
from models.bundle import Bundle
from models.inference import Ensemble

SPILLED = Path("runtime/compute")
QUESTION = "question.pickle"


@dataclass(frozen=True, slots=True)
class Question:
    """What all parts are about. Trading begins at ``from_ns``, features at ``start_ns``; ``assumed`` are the
    sets of assumptions, of which the first says how the market is heard of."""

    recording: Path
    bundle: Bundle
    model: ModelParams
    config: EngineConfig
    tickers: tuple[str, ...]
    start_ns: int
    from_ns: int
    to_ns: int
    assumed: tuple[Assumptions, ...]
    max_orders: int | None

    @property
    def feed(self) -> Latency:
        return self.assumed[0].latency

    def tape(self, tickers: Sequence[str]) -> Tape:
        recording = Recording.open(self.recording)
        return Tape.of(recording, tickers, from_ns=self.start_ns, to_ns=self.to_ns)


@dataclass(frozen=True, slots=True)
class Scoring:
    """A part: the scores of an instrument. ``folder`` (absolute) holds the question and takes the answer."""

    folder: str
    ticker: str


@dataclass(frozen=True, slots=True)
class Trading:
    """A part: the engines under these of the assumptions, by number."""

    folder: str
    numbers: tuple[int, ...]


def run(
    pool: Pool, recording: Recording, bundle: Bundle, config: EngineConfig, *, from_ns: int, to_ns: int,
    warmup_ns: int, fill_models: Sequence[FillModel], queue: QueueModel, latency: Latency,
    slippage_ticks: int, max_orders: int | None, vary: Callable[[Assumptions], Mapping[str, Assumptions]],
) -> BacktestResult:  # fmt: skip
    """As ``live.backtest.run``, which this equals to the last byte."""
    models = [Assumptions(name, queue, latency, slippage_ticks) for name in fill_models]
    varied = dict(vary(models[0]))
    tickers = tuple(i.ticker for i in recording.info.instruments)
    question = Question(
        recording.path.resolve(), bundle, model_params(Ensemble(bundle, tickers)), config, tickers,
        from_ns - warmup_ns, from_ns, to_ns, (*models, *varied.values()), max_orders,
    )  # fmt: skip
    folder = SPILLED / f"backtest-{bundle.sha256[:16]}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        (folder / QUESTION).write_bytes(pickle.dumps(question))
        at = str(folder.resolve())
        for _ in pool.map(score, [Scoring(at, ticker) for ticker in question.tickers], "scores"):
            pass
        count = len(question.assumed)
        shares = min(pool.workers, count)
        asked = [Trading(at, tuple(range(first, count, shares))) for first in range(shares)]
        results: dict[int, BacktestResult] = {}
        for part, path in zip(asked, pool.map(trade, asked, "engines"), strict=True):
            results |= dict(zip(part.numbers, pickle.loads(Path(path).read_bytes()), strict=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return backtest.gathered([results[number] for number in range(count)], len(models), varied)


def score(part: Scoring) -> str:
    """Leave the answers of the pipeline to the instrument's books in a file; its path."""
    folder, ticker = Path(part.folder), part.ticker
    question = _question(folder)
    answers: list[tuple[int, ev.Scores | ev.InferenceFailed]] = []
    leader = dict(question.bundle.manifest.get("leaders", {})).get(ticker)
    mine = tuple(t for t in question.tickers if t in (ticker, leader))
    # The delay of a jittering feed depends on a message's place among all of them.
    heard = question.tickers if question.feed.jitter_ns else mine
    pipeline = SignalPipeline(mine, Ensemble(question.bundle, mine), BACKTEST_KEY)
    pipeline.rotate(frozenset(mine) - {ticker})  # a leader's quotes are needed, not its scores
    try:
        tape = question.tape(heard)
    except NothingRecorded:
        tape = None
    books = 0
    for _, seen in backtest.timeline(tape, question.feed) if tape is not None else ():
        if seen is None or seen.ticker not in mine:
            continue
        if isinstance(seen, ev.Trade):
            pipeline.on_trade(seen)
            continue
        answer = pipeline.on_book(seen)
        if seen.ticker == ticker:
            if answer is not None:
                answers.append((books, answer))
            books += 1
    path = folder / f"{ticker}.pickle"
    _replace(path, pickle.dumps(Answers.of(answers)))
    return str(path)


def trade(part: Trading) -> str:
    """Leave the results under the part's assumptions in a file; its path."""
    folder = Path(part.folder)
    question = _question(folder)
    results = backtest.play(
        question.tape(question.tickers), Answered(folder, question.tickers),
        [question.assumed[number] for number in part.numbers], question.config, question.model,
        question.feed, watermark=Recording.open(question.recording).info.watermark,
        from_ns=question.from_ns, max_orders=question.max_orders,
    )  # fmt: skip
    path = folder / f"results-{part.numbers[0]}.pickle"
    _replace(path, pickle.dumps(results))
    return str(path)


@dataclass(slots=True)
class Answers:
    """To the books of one instrument, as columns: a block has a hundred thousand. ``number`` int64 [n] counts
    the books, ``p_e6`` int32 [n, 3]; ``failed`` are the other answers by number."""

    number: NDArray[np.int64]
    p_e6: NDArray[np.int32]
    move_millibps: NDArray[np.int64]
    trace_id: NDArray[np.str_]
    failed: dict[int, ev.InferenceFailed]
    books: int = 0
    answered: int = 0

    @classmethod
    def of(cls, answers: Sequence[tuple[int, ev.Scores | ev.InferenceFailed]]) -> Answers:
        scores = [(n, a) for n, a in answers if isinstance(a, ev.Scores)]
        return cls(
            np.array([n for n, _ in scores], np.int64),
            np.array([a.p_e6 for _, a in scores], np.int32).reshape(-1, 3),
            np.array([a.expected_move_millibps for _, a in scores], np.int64),
            np.array([a.trace_id for _, a in scores], np.str_),
            {n: a for n, a in answers if isinstance(a, ev.InferenceFailed)},
        )

    def next(self, book: ev.Book) -> ev.Scores | ev.InferenceFailed | None:
        """To the next of the books, which is ``book``."""
        number, row = self.books, self.answered
        self.books += 1
        if row == len(self.number) or self.number[row] != number:
            return self.failed.get(number)
        self.answered += 1
        down, flat, up = self.p_e6[row].tolist()
        return ev.Scores(
            book.now_ns, book.ticker, str(self.trace_id[row]), (down, flat, up), int(self.move_millibps[row])
        )


class Answered:
    """A ``backtest.Scorer`` that remembers what ``score`` left."""

    def __init__(self, folder: Path, tickers: Sequence[str]) -> None:
        self._answers: dict[str, Answers] = {
            ticker: pickle.loads((folder / f"{ticker}.pickle").read_bytes()) for ticker in tickers
        }

    def on_trade(self, trade: ev.Trade) -> None:
        """A trade has no answer."""

    def on_book(self, book: ev.Book) -> ev.Scores | ev.InferenceFailed | None:
        return self._answers[book.ticker].next(book)


def _question(folder: Path) -> Question:
    found: Question = pickle.loads((folder / QUESTION).read_bytes())
    return found


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all: two workers may come to one part."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    draft.write_bytes(content)
    draft.replace(path)
