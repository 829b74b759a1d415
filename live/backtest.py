"""The backtest: the real pipeline and the real engine over a recording, in simulated time.

Nothing of the trading logic is repeated here. The exchange has the market in the recording's order, the
engine hears of it after the feed's delay, orders and cancels reach the exchange after theirs and meet the
book as it is then, answers come back after the response's. Several sets of assumptions run side by side over
the same scores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from live.backtest_assumptions import Assumptions
from live.backtest_result import BacktestResult
from live.backtest_run import BACKTEST_KEY, BacktestRun
from live.backtest_tape import Tape
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams
from live.journal import JournalWriter
from live.pipeline import ScoreModel, SignalPipeline, model_params
from market.errors import ScalperError
from market.latency import Latency
from market.matching import FillModel, QueueModel
from market.recording import Recording
from models.bundle import Bundle
from models.inference import Ensemble

PROGRESS_EVENTS = 4096
MAX_ON_THE_WAY = 1_000_000
"""Market events that the exchange has and we have not: far more than any feed delay lets through."""


class Scorer(Protocol):
    """``SignalPipeline``, or who remembers what it answered to these events."""

    def on_trade(self, trade: ev.Trade) -> None: ...
    def on_book(self, book: ev.Book) -> ev.Scores | ev.InferenceFailed | None: ...


def run(
    recording: Recording,
    bundle: Bundle | None,
    engine_config: EngineConfig,
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    fill_models: Sequence[FillModel] = ("queue",),
    queue: QueueModel = "risk_averse",
    tickers: Sequence[str] | None = None,
    warmup_ns: int = 0,
    latency: Latency | None = None,
    slippage_ticks: int = 0,
    max_orders: int | None = None,
    vary: Callable[[Assumptions], Mapping[str, Assumptions]] | None = None,
    ensemble: ScoreModel | None = None,
    model: ModelParams | None = None,
    journal: Callable[[Tape], JournalWriter] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BacktestResult:
    """Trade ``recording`` from ``from_ns`` to ``to_ns`` with ``bundle`` and return the first fill model's
    result, which holds the others'.

    ``warmup_ns`` before ``from_ns`` feed features and bars without trading. ``latency`` defaults to the way
    to the exchange that the model was trained for, and nothing else. ``vary`` names more sets of assumptions
    to run over the same scores, given the first one (``backtest_assumptions.sensitivity``); all of them hear
    of the market by the first one's feed. ``ensemble`` and ``model`` stand in for the bundle where there is
    none yet. ``journal`` receives the first fill model's session, for replay. ``progress`` is told (events
    done, events in all) every so often. Raises ScalperError.
    """
    start_ns = None if from_ns is None else from_ns - warmup_ns
    tape = Tape.of(recording, tickers, from_ns=start_ns, to_ns=to_ns)
    if ensemble is None or model is None:
        if bundle is None:
            raise ScalperError("a backtest needs a bundle, or an ensemble with its parameters")
        built = Ensemble(bundle, tape.tickers)
        ensemble, model = ensemble or built, model or model_params(built)
    if latency is None:
        latency = Latency(entry_ns=int(bundle.manifest["latency_ns"]) if bundle is not None else 0)
    writer = journal(tape) if journal is not None else None
    models = [Assumptions(name, queue, latency, slippage_ticks) for name in fill_models]
    varied = dict(vary(models[0])) if vary is not None else {}
    results = play(
        tape, SignalPipeline(tape.tickers, ensemble, BACKTEST_KEY), [*models, *varied.values()],
        engine_config, model, latency, watermark=recording.info.watermark, from_ns=from_ns,
        max_orders=max_orders, journal=writer, progress=progress,
    )  # fmt: skip
    if writer is not None:
        writer.close()
    return gathered(results, len(models), varied)


def gathered(results: Sequence[BacktestResult], models: int, varied: Iterable[str]) -> BacktestResult:
    """The first of ``results``, with those of the other fill models (``models`` in all), then ``varied``."""
    first = results[0]
    first.other_fill_models = {result.fill_model: result for result in results[1:models]}
    first.variants = dict(zip(varied, results[models:], strict=True))
    return first


def play(
    tape: Tape, scorer: Scorer, assumed: Sequence[Assumptions], engine_config: EngineConfig,
    model: ModelParams, feed: Latency, *, watermark: str, from_ns: int | None, max_orders: int | None = None,
    journal: JournalWriter | None = None, progress: Callable[[int, int], None] | None = None,
) -> list[BacktestResult]:  # fmt: skip
    """One result for each set of assumptions, over the same scores; none depends on the others. The market is
    heard of by ``feed``; ``journal`` receives the first.
    """
    runs = [
        BacktestRun(
            tape, engine_config, model, each, watermark=watermark, from_ns=from_ns, max_orders=max_orders,
            journal=journal if number == 0 else None,
        )
        for number, each in enumerate(assumed)
    ]  # fmt: skip
    total = len(tape.recv_ns)
    for number, (at_exchange, seen) in enumerate(timeline(tape, feed)):
        if progress is not None and number % PROGRESS_EVENTS == 0:
            progress(min(number, total), total)
        if at_exchange is not None:
            for each in runs:
                each.exchange(at_exchange)
        if seen is not None:
            answer = None
            if isinstance(seen, ev.Trade):
                scorer.on_trade(seen)
            else:
                answer = scorer.on_book(seen)
            for each in runs:
                each.see(seen, answer)
    return [each.finish() for each in runs]


def timeline(
    tape: Tape, latency: Latency
) -> Iterator[tuple[ev.Book | ev.Trade | None, ev.Book | ev.Trade | None]]:
    """(what the exchange has now, what we hear of now), in the order of time; news first at equal times.

    One stream brings the market: a message never overtakes another.
    """
    if latency.feed_ns == latency.jitter_ns == 0:
        for event in tape.events():
            yield event, event
        return
    on_the_way: deque[ev.Book | ev.Trade] = deque()
    arrives_ns = 0
    for number, event in enumerate(tape.events()):
        while on_the_way and on_the_way[0].now_ns <= event.now_ns:
            yield None, on_the_way.popleft()
        yield event, None
        arrives_ns = max(arrives_ns, event.now_ns + latency.feed(number))
        on_the_way.append(replace(event, now_ns=arrives_ns))
        if len(on_the_way) > MAX_ON_THE_WAY:
            raise ScalperError(
                f"a feed delay of {latency.feed_ns} ns keeps more than {MAX_ON_THE_WAY} events on the way"
            )
    for event in on_the_way:
        yield None, event
