"""What ``bench_runner`` measures beside the runner: the same work done plainly, on the same machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import runner_world as world

from live.core.engine import Engine
from live.core.events import Event, Reconciled, Scores

PEER_ROWS, PEER_ROUNDS = 300, 5
ENGINE_BOOKS = 5_000


def timed(step: Callable[[int], object], n: int) -> list[float]:
    times = []
    for i in range(n):
        began = time.perf_counter_ns()
        step(i)
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times


def in_turns(rivals: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Median microseconds of each rival's best round."""
    rounds = [{name: float(np.median(timed(step, PEER_ROWS))) for name, step in rivals.items()}
              for _ in range(PEER_ROUNDS)]  # fmt: skip
    return {name: min(one[name] for one in rounds) for name in rivals}


def model_rows() -> Any:
    return np.random.default_rng(3).standard_normal((PEER_ROWS, len(world.NAMES))).astype(np.float32)


def our_models(bundle: Any) -> Callable[[int], object]:
    """The ensemble as the runner has it: scaled, stepped, blended."""
    from models.inference import Ensemble

    ensemble, rows, ticker = Ensemble(bundle, (world.SHARE.ticker,)), model_rows(), world.SHARE.ticker
    for row in rows[:128]:
        ensemble.step(ticker, row)
    return lambda i: ensemble.step(ticker, rows[i])


def plain_models(bundle: Any) -> Callable[[int], object]:
    """The four models as their libraries' manuals call them, one row at a time."""
    from ai_edge_litert.interpreter import Interpreter

    from models.member_kinds import import_lightgbm

    rows = model_rows()
    booster = import_lightgbm().Booster(model_str=bundle.read("gbdt.txt").decode())
    runners = []
    for name in ("lstm", "transformer", "svm"):
        interpreter = Interpreter(model_content=bundle.read(f"{name}.tflite"), num_threads=1)
        run = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        shapes = {key: detail["shape"] for key, detail in run.get_input_details().items()}
        runners.append((run, {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}))

    def step(i: int) -> object:
        answers = [booster.predict(rows[i : i + 1], num_threads=1)]
        answers += [run(**inputs) for run, inputs in runners]
        return answers

    return step


def plain_commit(path: Path) -> Callable[[int], object]:
    """An order's intention, committed as durably as ours, by the loop's own thread."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE orders(id TEXT PRIMARY KEY, ticker TEXT, side INT, lots INT, at INT)")
    return lambda i: connection.execute("INSERT INTO orders VALUES(?,?,?,?,?)", (str(i), "SIMP", 1, 1, i))


def flushing(path: Path) -> Callable[[int], object]:
    """What the disk itself takes to make one page safe: no commit can be faster."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)

    def step(i: int) -> None:
        os.write(file, bytes(4_096))
        os.fdatasync(file)

    return step


def engine_alone(made: Any, bundle: Any) -> tuple[list[float], list[float]]:
    """(the core, a plain loop that compares the touch) for one book and its score, microseconds each."""
    from live.core.config import EngineConfig, SessionConfig
    from live.pipeline import model_params
    from models.inference import Ensemble

    params = model_params(Ensemble(bundle, (world.SHARE.ticker,)))
    config = EngineConfig(session=SessionConfig(enabled=False))
    engine = Engine(config, {world.SHARE.ticker: world.SHARE}, params, world.KEY)
    engine.on(Reconciled(world.START_NS, {}))
    first = world.WATCHED_S * world.WATCHED_RATE
    feed = list(world.events(made, range(first, first + ENGINE_BOOKS)))
    scores = [Scores(b.now_ns, b.ticker, "t", (333_333, 333_334, 333_333), 0) for b in feed]
    last: dict[str, Event] = {}

    def core(i: int) -> None:
        engine.on(feed[i])
        engine.on(scores[i])

    def plain(i: int) -> bool:
        book = feed[i]
        last[book.ticker] = book
        return book.bid_qty[0] - book.ask_qty[0] > 0.3 * (book.bid_qty[0] + book.ask_qty[0])

    return timed(core, ENGINE_BOOKS), timed(plain, ENGINE_BOOKS)
