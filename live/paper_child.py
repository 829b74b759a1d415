"""The embedded exchange as a child process, when no running one is found."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from live.broker.channel import PaperEndpoint, read_paper_endpoint
from live.config_schema import Paper
from market.errors import BrokerError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.05
LOG_TAIL_BYTES = 2_000


class PaperChild:
    """``python -m market.paper`` started and stopped with the runner."""

    def __init__(self, process: asyncio.subprocess.Process, endpoint_path: Path) -> None:
        self._process, self._endpoint_path = process, endpoint_path

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def kill(self) -> None:
        """At once, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL; removes the endpoint file so that nobody connects to a ghost."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._endpoint_path.unlink(missing_ok=True)


def running_endpoint(path: Path) -> PaperEndpoint | None:
    """The endpoint of an exchange that is alive, None where there is none (a stale file counts as none)."""
    if not path.exists():
        return None
    endpoint = read_paper_endpoint(path)
    try:
        os.kill(endpoint.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return endpoint


async def start_exchange(
    paper: Paper, *, tickers: tuple[str, ...], from_ns: int | None, to_ns: int | None, log: Path
) -> tuple[PaperChild, PaperEndpoint]:
    """Starts the exchange and waits for its endpoint file. BrokerError with the end of its log if it dies."""
    path = Path(paper.endpoint)
    path.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "market.paper", "--recording", paper.recording, "--endpoint", str(path),
        "--speed", str(paper.speed), "--cash-rub", str(paper.cash_rub),
        "--entry-latency-ms", str(paper.entry_latency_ms),
    ]  # fmt: skip
    for option, value in (("--from-ns", from_ns), ("--to-ns", to_ns)):
        command += [option, str(value)] if value is not None else []
    command += ["--tickers", ",".join(tickers)] if tickers else []
    with open(log, "wb") as output:
        # Its own session: a Ctrl-C at the terminal must reach the runner first, which then stops the
        # exchange.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    child = PaperChild(process, path)
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    try:
        while not path.exists():
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise BrokerError(f"the paper exchange did not start: {_tail(log)}")
            await asyncio.sleep(POLL_S)
        return child, read_paper_endpoint(path)
    except BaseException:
        await child.stop()
        raise


def _die_with_parent() -> None:
    """Linux: the exchange gets SIGTERM when the runner is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _tail(log: Path) -> str:
    text = log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
    return text.splitlines()[-1] if text else f"no message (see {log})"
