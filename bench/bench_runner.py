"""From a book to a decision and from a decision to a request, in the whole runner on the paper exchange.

The exchange serves books of 20 levels over TLS at 10, 100 and 1,000 a second from a process of its own, by
its schedule and not by the runner's readiness (open loop). The runner is ``live.runner`` as it trades: four
models on each book, journal, SQLite, audit. Run from the project's root: ``python bench/run.py runner``.

book -> decision: from the moment at which a book was received (parsed, in the queue) until the engine has
decided on its score and the commands are on their way. decision -> request: from there until the order's
request is handed to gRPC, the intention committed to SQLite in between. The peers, in the same run and on the
same machine: the models by their libraries' plain calls, and a commit of the intention in the loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import runner_world as world

from live.core.commands import PlaceOrder
from live.core.engine import Engine
from live.core.events import Book, Event, Reconciled, Scores
from market.types import SECOND_NS

BARS = """bars: book -> decision p50 400 us, p99 1,500 us; without models p50 60 us;
        decision -> request p50 150 us; 250 MB; start to first decision 5 s"""
PEER_ROWS, PEER_ROUNDS = 300, 5
ENGINE_BOOKS = 5_000
SLICES = 10
"""On a shared machine the quietest tenth of a run says what the code does, the whole what it met."""
UNLIMITED = 1_000.0
"""So many times the broker's rates: waiting for the rate is not what is measured here."""
NAUTILUS_US = 79.0
"""nautilus_trader 1.221, decision to the simulated venue's queue, p50, no disk in between; measured once on
a machine like this one."""


# ---------------------------------------------------------------- the exchange's process


async def serve(workspace: Path) -> None:
    from market.paper import PaperServer

    server = PaperServer(
        world.market(), endpoint_path=workspace / "endpoint.json", from_ns=world.LIVE_NS, entry_latency_ms=0
    )
    await server.start()
    gc.collect()
    gc.freeze()
    while not server.clock.running:
        await asyncio.sleep(0.05)
    (workspace / "started").write_text(str(server.clock.started_monotonic_ns))
    await asyncio.Event().wait()


# ---------------------------------------------------------------- the runner's process


def watch(rows: list[tuple[int, ...]], requests: list[tuple[int, int, int]], began_ns: int) -> dict[str, Any]:
    """Puts stop watches into the runner's classes; nothing of what they do changes."""
    from live import assembly
    from live.broker.client import BrokerClient
    from live.broker.limits import RateLimits
    from live.broker.transport import NativeTransport
    from live.loop import EngineLoop

    told: dict[str, Any] = {}
    decided: dict[str, tuple[int, int]] = {}
    clock = time.monotonic_ns

    class Watched(EngineLoop):
        def _book(self, book: Book, arrived_ns: int) -> None:
            waited, cpu_ns = clock() - arrived_ns, time.thread_time_ns()
            super()._book(book, arrived_ns)
            cpu_ns, done = time.thread_time_ns() - cpu_ns, clock()
            rows.append((book.exch_ns, arrived_ns, done, waited // 1000, self.pipeline.micros["ml"], cpu_ns))
            if "first_s" not in told and self.pipeline.scored:
                told["first_s"] = (done - began_ns) / SECOND_NS

        def _carry_out(self, commands: list[Any], arrived_ns: int) -> None:
            for command in commands:
                if isinstance(command, PlaceOrder):
                    decided[command.client_order_id] = (clock(), self.engine.now_ns)
            super()._carry_out(commands, arrived_ns)

    call = NativeTransport.call

    async def stamped(self: Any, key: str, request: Any, *, timeout_s: float) -> Any:
        if key == "OrdersService/PostOrder":
            since = decided.pop(request.order_id)
            requests.append((since[1], since[0], clock()))
        return await call(self, key, request, timeout_s=timeout_s)

    async def unlimited(self: BrokerClient) -> str:
        self.limits = RateLimits(UNLIMITED)
        return ""

    assembly.EngineLoop = Watched  # type: ignore[misc]
    NativeTransport.call = stamped  # type: ignore[method-assign]
    BrokerClient.learn_limits = unlimited  # type: ignore[method-assign]
    return told


async def trade(workspace: Path, began_ns: int) -> None:
    from live.runner import Options, Runner

    rows: list[tuple[int, ...]] = []
    requests: list[tuple[int, int, int]] = []
    told = watch(rows, requests, began_ns)
    code = await Runner(world.runner_config(workspace), Options("prod", quiet=True)).run()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {**told, "code": code, "peak_mb": peak_mb}
    (workspace / "told.json").write_text(json.dumps(measured))
    np.savez(workspace / "rows.npz", rows=np.array(rows), requests=np.array(requests).reshape(-1, 3))


# ---------------------------------------------------------------- peers


def percentiles(micros: Any) -> str:
    values = np.asarray(micros, float)
    if not len(values):
        return "none"
    p50, p99, p999 = np.percentile(values, [50, 99, 99.9])
    slices = [s for s in np.array_split(values, SLICES) if len(s)]
    quiet = min(float(np.median(s)) for s in slices)
    return (
        f"p50 {p50:8.0f} us  p99 {p99:8.0f} us  p99.9 {p999:8.0f} us  (n {len(values):,}; "
        f"p50 of the quietest tenth {quiet:.0f} us)"
    )


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


# ---------------------------------------------------------------- the report


def report(workspace: Path, bundle: Any, made: Any) -> None:
    told = json.loads((workspace / "told.json").read_text())
    with np.load(workspace / "rows.npz") as saved:
        rows, requests = saved["rows"], saved["requests"]
    started_ns = int((workspace / "started").read_text())
    exch, arrived, done, waited, ml, cpu_ns = rows.T
    print(f"four models, {len(world.NAMES)} features, 20 levels, TLS; load {os.getloadavg()[0]:.1f}")
    for rate, from_ns, to_ns in world.paces():
        here = (exch >= from_ns) & (exch < to_ns)
        scored = here & (ml > 0)
        decision = (done - arrived)[scored] / 1e3
        late = (done - started_ns - (exch - world.LIVE_NS))[here] / 1e3
        print(f"  {rate:>5} books/s  book -> decision         {percentiles(decision)}")
        print(f"  {'':>5}          schedule -> decision     {percentiles(late)}")
        print(f"  {'':>5}          of it, CPU of one core   {percentiles(cpu_ns[scored] / 1e3)}")
        without = decision - waited[scored] - ml[scored]
        print(f"  {'':>5}          without models and queue {percentiles(without)}")
        sent = requests[(requests[:, 0] >= from_ns) & (requests[:, 0] < to_ns)]
        print(f"  {'':>5}          decision -> request      {percentiles((sent[:, 2] - sent[:, 1]) / 1e3)}")
        lost = np.isclose(here.sum(), rate * (to_ns - from_ns) / SECOND_NS, rtol=0.02)
        if not lost:
            print(f"  {'':>5}          only {here.sum():,} books came: superseded ones are skipped in a jam")
    core, plain = engine_alone(made, bundle)
    ratio = np.median(core) / np.median(plain)
    print(f"  engine alone, book and score   {percentiles(core)}")
    print(f"    {ratio:.0f} x of a plain loop that compares the touch and checks nothing")
    ours, plainly = in_turns({"ours": our_models(bundle), "plainly": plain_models(bundle)}).values()
    print(
        f"  the four models: {ours:.0f} us p50 by the runner's code, {plainly:.0f} us by their libraries' "
        f"plain calls, {plainly / ours:.1f} x of ours"
    )
    commit = float(np.median(timed(plain_commit(workspace / "plain.db"), PEER_ROWS)))
    disk = float(np.median(timed(flushing(workspace / "page"), PEER_ROWS)))
    asked = float(np.median((requests[:, 2] - requests[:, 1]) / 1e3)) if len(requests) else 0.0
    print(
        f"  decision -> request: {asked:.0f} us p50 over all; this disk takes {disk:.0f} us to make a page "
        f"safe; a commit in the loop's own thread, the loop standing still: {commit:.0f} us"
    )
    print(
        f"    nautilus_trader 1.221 to its simulated venue, no disk: {NAUTILUS_US:.0f} us "
        "(noted, not run here)"
    )
    print(
        f"  memory at its highest {told['peak_mb']:.0f} MB; "
        f"process start to first decision {told['first_s']:.1f} s"
    )
    print(f"  {BARS}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        bundle = world.make_bundle(workspace)
        made = world.books()
        here = [sys.executable, str(Path(__file__).resolve())]
        with subprocess.Popen([*here, "--serve", folder]) as server:
            try:
                while not (workspace / "endpoint.json").exists():
                    if server.poll() is not None:
                        raise RuntimeError("the exchange's process ended before it served")
                    time.sleep(0.05)
                world.write_checkpoint(workspace, bundle, made)
                command = [*here, "--trade", folder, "--began-ns", str(time.monotonic_ns())]
                subprocess.run(command, cwd=folder, check=True)
            finally:
                server.terminate()
        report(workspace, bundle, made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, help="the exchange's process: the workspace")
    parser.add_argument("--trade", type=Path, help="the runner's process: the workspace")
    parser.add_argument("--began-ns", type=int, default=0, help="monotonic time at which it was started")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
    elif arguments.trade:
        asyncio.run(trade(arguments.trade, arguments.began_ns))
    else:
        main()
