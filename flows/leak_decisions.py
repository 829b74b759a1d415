"""Do decisions know what came after them? Trade the whole recording and shorter ones, and compare.

What is compared is the journal of a backtest, line by line: the scores of the pipeline, the orders and
cancels of the engine, the broker's answers to them. A shorter recording is really written without the
rest, so that nothing can read ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from live import backtest
from live.backtest_run import BACKTEST_KEY
from live.backtest_tape import Tape
from live.config import engine_config
from live.config_schema import RunnerConfig, Session
from live.core import events as ev
from live.journal import Header, JournalReader, JournalWriter
from live.pipeline import ScoreModel, model_params
from market.errors import ScalperError
from market.fees import tariff
from market.recording import Recording, write_recording
from market.types import InstrumentDay
from models.bundle import Bundle
from models.inference import Ensemble

CUTS = 4
MARKET = (ev.Book, ev.Trade, ev.Timer)
"""What is told to the engine rather than decided."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the journal that is no market data: ``record`` an event or a broker command."""

    now_ns: int
    record: Any

    @property
    def ticker(self) -> str:
        return str(getattr(self.record, "ticker", "-"))


Play = Callable[[Recording], Sequence[Decision]]
"""Trades a recording from its start and says what was decided, in order."""


@dataclass(frozen=True, slots=True)
class DecisionLeaks:
    """``difference`` is a line for people, or None. ``scores`` and ``orders``: of the whole."""

    cuts: int
    compared: int
    scores: int
    orders: int
    difference: str | None


def check(recording: Recording, play: Play, *, cuts: int = CUTS, seed: int = 0) -> DecisionLeaks:
    """Compare what ``play`` decides on ``recording`` with what it decides on up to ``cuts`` shorter ones."""
    whole = play(recording)
    compared, done = 0, 0
    difference: tuple[int, str] | None = None
    times = sorted({d.now_ns for d in whole if _name(d) == "Scores"}) or sorted({d.now_ns for d in whole})
    if len(times) < 2:
        raise ScalperError("too little happened to compare: give a longer recording, or another bundle")
    for end_ns in _ends(whole, times, cuts, np.random.default_rng(seed)):
        with TemporaryDirectory(prefix="leak-check-") as folder:
            short = play(until(recording, Path(folder) / "recording", end_ns))
        done += 1
        compared += len(short)
        found = first_difference(whole, short, end_ns)
        if found is not None and (difference is None or found < difference):
            difference = found
    return DecisionLeaks(
        done,
        compared,
        sum(_name(d) == "Scores" for d in whole),
        sum(_name(d) == "PlaceOrder" for d in whole),
        None if difference is None else difference[1],
    )


def _ends(whole: Sequence[Decision], times: Sequence[int], cuts: int, rng: np.random.Generator) -> list[int]:
    """Half of them anywhere, half right after an order was asked for: there a look ahead pays."""
    ordered = sorted({d.now_ns for d in whole if _name(d) == "PlaceOrder" and d.now_ns >= times[0]})
    at_orders = rng.choice(ordered, min(cuts // 2, len(ordered)), replace=False) if ordered else []
    anywhere = rng.choice(times[1:], min(cuts - len(at_orders), len(times) - 1), replace=False)
    return sorted({int(ns) for ns in (*anywhere, *at_orders)})


def until(recording: Recording, path: Path, end_ns: int) -> Recording:
    """``recording`` as it was at ``end_ns``: what was received later is not written."""

    def days() -> Iterator[InstrumentDay]:
        for ticker, names in recording.info.days.items():
            for number, name in enumerate(names):
                day = recording.read(ticker, name)
                books = day.books.rows(day.books.recv_ns <= end_ns)
                trades = day.trades.rows(day.trades.recv_ns <= end_ns)
                if number == 0 or len(books) or len(trades):
                    yield InstrumentDay(day.instrument, day.day, books, trades)

    info = recording.info
    return write_recording(
        path, days(), source=info.source, watermark=info.watermark, tariff=info.tariff, provenance={},
    )  # fmt: skip


def first_difference(
    whole: Sequence[Decision], short: Sequence[Decision], end_ns: int
) -> tuple[int, str] | None:
    """The moment and a line for people, or None. The comparison ends with ``short``, at ``end_ns``."""
    for one, other in zip(whole, short, strict=False):
        if one != other:
            return min(one.now_ns, other.now_ns), _said(one, other, end_ns)
    if len(short) > len(whole):
        return short[len(whole)].now_ns, _said(None, short[len(whole)], end_ns)
    if len(whole) > len(short) and whole[len(short)].now_ns < end_ns:
        return whole[len(short)].now_ns, _said(whole[len(short)], None, end_ns)
    return None


def by_bundle(bundle: Bundle, *, from_ns: int | None = None, to_ns: int | None = None) -> Play:
    """The backtest of ``bundle``: its ensemble in the real pipeline, the real engine, queue fills."""

    def play(recording: Recording) -> Sequence[Decision]:
        tickers = [t for t in bundle.instruments if t in recording.info.days]
        if not tickers:
            raise ScalperError(
                "the recording holds none of the instruments the bundle was made for "
                f"({', '.join(bundle.instruments)})"
            )
        return decisions(
            recording, Ensemble(bundle, tickers), bundle=bundle, tickers=tickers, from_ns=from_ns, to_ns=to_ns
        )

    return play


def decisions(
    recording: Recording,
    ensemble: ScoreModel,
    *,
    bundle: Bundle,
    tickers: Sequence[str],
    from_ns: int | None = None,
    to_ns: int | None = None,
) -> Sequence[Decision]:
    """What one backtest decides until the recording ends; ``ensemble`` makes the scores."""
    rates = tariff(recording.info.tariff)
    fee_ppm = {i.ticker: rates.ppm(i) for i in recording.info.instruments}
    # The clock of a recording is not the clock of a trading day: the session window stays out of it.
    config = engine_config(RunnerConfig(session=Session(enabled=False)), fee_ppm)
    model = model_params(Ensemble(bundle, tickers))
    with TemporaryDirectory(prefix="leak-check-") as folder:

        def journal(tape: Tape) -> JournalWriter:
            header = Header(
                "leak-check", BACKTEST_KEY, config, tape.instruments, model, recording.info.watermark
            )
            return JournalWriter(Path(folder), header)

        backtest.run(
            recording, bundle, config, from_ns=from_ns, to_ns=to_ns, tickers=tickers, ensemble=ensemble,
            model=model, journal=journal,
        )  # fmt: skip
        return list(_decided(JournalReader(Path(folder))))


def _decided(journal: JournalReader) -> Iterator[Decision]:
    """Until the recording ends, where the backtest begins to close what is open."""
    now_ns = 0
    for record in journal:
        now_ns = getattr(record, "now_ns", now_ns)
        if isinstance(record, ev.StopRequested):
            return
        if not isinstance(record, MARKET):
            yield Decision(now_ns, record)


def _name(decision: Decision) -> str:
    return type(decision.record).__name__


def _said(whole: Decision | None, short: Decision | None, end_ns: int) -> str:
    seen = whole or short
    assert seen is not None
    end = np.datetime64(end_ns, "ns")
    head = f"{seen.ticker} at {np.datetime64(seen.now_ns, 'ns')} UTC"
    if whole is None or short is None or type(whole.record) is not type(short.record):
        names = [_name(d) if d is not None else "nothing" for d in (whole, short)]
        return f"{head}: {names[0]} on the whole recording, {names[1]} when it ends at {end} UTC"
    for field in fields(whole.record):
        here, there = getattr(whole.record, field.name), getattr(short.record, field.name)
        if here != there:
            return (
                f"{head}: {_name(whole)}.{field.name} is {here!r} on the whole recording and {there!r} "
                f"when it ends at {end} UTC"
            )
    return f"{head}: {_name(whole)} comes at another moment when the recording ends at {end} UTC"
