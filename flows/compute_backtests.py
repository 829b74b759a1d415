"""Backtests of one bundle, a session each: the real engine, flat in the morning, on nothing but that day.

A day's result depends on no other day, so days are traded side by side; together they are no backtest of a
portfolio through the nights, which the line's own stage is for one block of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flows.compute import Pool
from flows.stages.common import write_json
from live import backtest
from live.config import engine_config
from live.config_schema import RunnerConfig, Session
from market.errors import ConfigError
from market.matching import FillModel
from market.recording import Recording
from models.bundle import Bundle

SUMMARY = "backtests.json"
FILL_MODELS: tuple[FillModel, ...] = ("queue", "pessimistic", "optimistic")


@dataclass(frozen=True, slots=True)
class Day:
    """What a worker is told: absolute paths, the session, and the key that the bundle must be signed with."""

    recording: str
    bundle: str
    key: str | None
    day: str
    into: str


@dataclass(frozen=True, slots=True)
class Traded:
    """What is told of a session. Money in nano-roubles, ``net_nano`` by fill model; the whole result lies in
    ``<into>/<day>.json``."""

    day: str
    books: int
    orders: int
    trips: int
    fees_nano: int
    net_nano: dict[str, int]
    order_list_hash: str


def run(
    recording: Path, bundle: Path, into: Path, pool: Pool, *, key: Path | None, days: Sequence[str] = ()
) -> Iterator[Traded]:
    """Every session of ``recording`` (or those of ``days``) in order, each once it and those before it are
    traded; at the end ``<into>/backtests.json``. ConfigError for a day or an instrument that is not there."""
    info = Recording.open(recording).info
    known = Bundle.load(bundle, key)
    there = {day for ticker in known.instruments for day in info.days.get(ticker, ())}
    missing = sorted(set(days) - there)
    if missing or not there:
        raise ConfigError(
            f"{recording} has no {missing[0] if missing else 'day'} of {', '.join(known.instruments)}, which "
            f"the bundle trades; it has {', '.join(sorted(there)) or 'none'}"
        )
    asked = [
        Day(str(recording.resolve()), str(bundle.resolve()), str(key.resolve()) if key else None, day,
            str(into.resolve()))
        for day in sorted(days or there)
    ]  # fmt: skip
    traded = []
    for found in pool.map(trade_day, asked, "session"):
        traded.append(found)
        yield found
    summary = {"bundle": known.sha256, "watermark": info.watermark, "sessions": [asdict(t) for t in traded]}
    write_json(into / SUMMARY, summary)


def trade_day(asked: Day) -> Traded:
    """One session, by the pipeline and the engine of the runner, under three fill models."""
    recording = only(Recording.open(Path(asked.recording)), asked.day)
    bundle = Bundle.load(Path(asked.bundle), Path(asked.key) if asked.key else None)
    tickers = [t for t in bundle.instruments if t in recording.info.days]
    # The clock of a recording is not the clock of a trading day: the session window stays out of it.
    config = engine_config(RunnerConfig(session=Session(enabled=False)), dict(bundle.manifest["fee_ppm"]))
    result = backtest.run(recording, bundle, config, fill_models=FILL_MODELS, tickers=tickers)
    write_json(Path(asked.into) / f"{asked.day}.json", result.to_dict())
    return Traded(
        asked.day, result.books, result.orders, len(result.trips), result.fees_nano,
        {name: r.net_nano for name, r in result.by_fill_model.items()}, result.order_list_hash,
    )  # fmt: skip


def only(recording: Recording, day: str) -> Recording:
    """``recording`` as if nothing but ``day`` had been recorded: no other day is read."""
    info = recording.info
    days = {ticker: (day,) for ticker, known in info.days.items() if day in known}
    there = tuple(i for i in info.instruments if i.ticker in days)
    return Recording(recording.path, replace(info, instruments=there, days=days))
