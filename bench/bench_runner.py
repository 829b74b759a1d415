"""From a book to a decision and from a decision to a request, in the whole runner on the paper exchange.

The exchange serves books of 20 levels over TLS at 10, 100 and 1,000 a second from a process of its own, by
its schedule and not by the runner's readiness (open loop). The runner is ``live.runner`` as it trades: four
models on each book, journal, SQLite, audit. Run from the project's root: ``python bench/run.py runner``.

book -> decision: from the moment at which a book was received (parsed, in the queue) until the engine has
decided on its score. decision -> request: from there until the order's request is handed to gRPC, the
intention committed to SQLite in between. The peers, in the same run and on the
same machine: the models by their libraries' plain calls, and a commit of the intention in the loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import runner_peers as peers
import runner_world as world

from live.core.commands import PlaceOrder
from live.core.events import Book
from market.types import SECOND_NS

DECISION_P50_US, DECISION_P99_US, WITHOUT_P50_US, REQUEST_P50_US = 400.0, 1_500.0, 60.0, 150.0
MEMORY_MB, START_S = 250.0, 5.0
"""The bars."""
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
            cpu_ns, done = time.thread_time_ns() - cpu_ns, self.decided_mono_ns
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
    runner = Runner(world.runner_config(workspace), Options("prod", quiet=True))
    code = await runner.run()
    assert runner.session is not None
    measured = {**told, "code": code, "peak_mb": peak_mb(), "conflated": runner.session.inbox.conflated}
    (workspace / "told.json").write_text(json.dumps(measured))
    np.savez(workspace / "rows.npz", rows=np.array(rows), requests=np.array(requests).reshape(-1, 3))


def peak_mb() -> float:
    """Of this process. Not ``getrusage``: its figure starts with that of the process that forked this one,
    whose trainers' libraries are three times as large as the runner.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# ---------------------------------------------------------------- the report


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


def report(workspace: Path, bundle: Any, made: Any) -> None:
    told = json.loads((workspace / "told.json").read_text())
    with np.load(workspace / "rows.npz") as saved:
        rows, requests = saved["rows"], saved["requests"]
    started_ns = int((workspace / "started").read_text())
    exch, arrived, done, waited, ml, cpu_ns = rows.T
    print(f"four models, {len(world.NAMES)} features, 20 levels, TLS; load {os.getloadavg()[0]:.1f}")
    bars: list[tuple[str, float, float, str]] = []
    for rate, from_ns, to_ns in world.paces():
        here = (exch >= from_ns) & (exch < to_ns)
        scored = here & (ml > 0)
        decision = (done - arrived)[scored] / 1e3
        late = (done - started_ns - (exch - world.LIVE_NS))[here] / 1e3
        print(f"  {rate:>5} books/s  book -> decision         {percentiles(decision)}")
        print(f"  {'':>5}          schedule -> decision     {percentiles(late)}")
        print(f"  {'':>5}          of it, CPU of one core   {percentiles(cpu_ns[scored] / 1e3)}")
        print(f"  {'':>5}          of it, the models        {percentiles(ml[scored])}")
        without = decision - waited[scored] - ml[scored]
        print(f"  {'':>5}          without models and queue {percentiles(without)}")
        sent = requests[(requests[:, 0] >= from_ns) & (requests[:, 0] < to_ns)]
        request = (sent[:, 2] - sent[:, 1]) / 1e3
        print(f"  {'':>5}          decision -> request      {percentiles(request)}")
        due = rate * (to_ns - from_ns) / SECOND_NS
        if not np.isclose(here.sum(), due, rtol=0.02):
            print(
                f"  {'':>5}          {here.sum() / due:.0%} of the books used: newer ones replaced the rest"
            )
        for what, values, q, bar in (
            ("book -> decision p50", decision, 50, DECISION_P50_US),
            ("book -> decision p99", decision, 99, DECISION_P99_US),
            ("without models and queue p50", without, 50, WITHOUT_P50_US),
            ("decision -> request p50", request, 50, REQUEST_P50_US),
        ):
            if len(values):
                bars.append((f"{what}, {rate:,} books/s", float(np.percentile(values, q)), bar, "us"))
    core, plain = peers.engine_alone(made, bundle)
    ratio = np.median(core) / np.median(plain)
    print(f"  engine alone, book and score   {percentiles(core)}")
    print(f"    {ratio:.0f} x of a plain loop that compares the touch and checks nothing")
    rivals = {"ours": peers.our_models(bundle), "plainly": peers.plain_models(bundle)}
    ours, plainly = peers.in_turns(rivals).values()
    print(
        f"  the four models: {ours:.0f} us p50 by the runner's code, {plainly:.0f} us by their libraries' "
        f"plain calls, {plainly / ours:.1f} x of ours"
    )
    commit = float(np.median(peers.timed(peers.plain_commit(workspace / "plain.db"), peers.PEER_ROWS)))
    disk = float(np.median(peers.timed(peers.flushing(workspace / "page"), peers.PEER_ROWS)))
    asked = float(np.median((requests[:, 2] - requests[:, 1]) / 1e3)) if len(requests) else 0.0
    print(
        f"  decision -> request: {asked:.0f} us p50 over all; this disk takes {disk:.0f} us to make a page "
        f"safe; a commit in the loop's own thread, the loop standing still: {commit:.0f} us"
    )
    print(
        f"    nautilus_trader 1.221 to its simulated venue, no disk: {NAUTILUS_US:.0f} us "
        "(noted, not run here)"
    )
    bars.append(("engine alone p50", float(np.median(core)), WITHOUT_P50_US, "us"))
    bars.append(("memory at its highest", told["peak_mb"], MEMORY_MB, "MB"))
    bars.append(("process start to first decision", told["first_s"], START_S, "s"))
    print(f"  books that newer ones replaced in the runner: {told['conflated']:,}")
    print("  the bars:")
    for what, found, bar, unit in bars:
        verdict = "met" if found <= bar else "NOT MET"
        print(f"    {what:<44} {found:>9,.1f} {unit:<2}  at most {bar:>7,.0f}  {verdict}")


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
