"""`live-runner record`: books and trades of the broker's stream into a recording, until told to stop.

Nothing is traded and no account is needed: a read-only token will do. What arrives is written as it is;
judging it is for `scalper data validate`. The recording is safe against a kill (``market.writer``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from live.broker.api import TinkoffAPI
from live.broker.channel import Access, PaperEndpoint, broker_access
from live.broker.link import Link, Policy
from live.broker.route import Ways
from live.clock import MarketClock
from live.config_core import seconds_of_day
from live.config_schema import RunnerConfig, Session
from live.core.events import Book, Connection, Event, Quarantine, Trade, TradingStatus
from live.paper_child import PaperChild, running_endpoint, start_exchange
from market.errors import BrokerError, ConfigError, RecordingError
from market.fees import tariff
from market.recording import Recording
from market.types import BOOK_CONSISTENT, DEPTH, SECOND_NS, Instrument
from market.validate import GAP_NS
from market.writer import RecordingWriter

PROGRESS_INTERVAL_S = 10.0
POLL_S = 0.1
DRAIN_S = 5.0
"""After the end of what an exchange plays, so much silence (real time) is enough if it does not say that it
closed."""
MINUTE_NS = 60 * SECOND_NS
MAX_BACKWARD_NS = 5 * SECOND_NS
"""So much a clock may have been set back between two runs."""
DEFAULT_FOLDER = "recording"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides. ``minutes``: of market time; None: until the session ends."""

    out: Path | None = None
    minutes: float | None = None
    instruments: tuple[str, ...] = ()
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"--minutes {self.minutes:g}: give a number above 0")


class StreamRecorder:
    """Core events of the stream on their way into a recording; also counts what is missing."""

    def __init__(self, writer: RecordingWriter, instruments: dict[str, Instrument]) -> None:
        self.writer = writer
        self.gaps = self.quarantines = 0
        self.longest_gap_ns = 0
        self._instruments = instruments
        self._last_book_ns: dict[str, int] = {}
        self._last_arrival = time.monotonic()
        self._began = False
        self._not_trading: set[str] = set()

    def take(self, event: Event) -> None:
        """RecordingError when the disk does not take it, or the recording has that time already."""
        if isinstance(event, Book | Trade) and not self._began:
            self._begin(event.now_ns)
        if isinstance(event, Book):
            self._gap(event)
            self.writer.book(
                self._instruments[event.ticker],
                event.exch_ns,
                event.now_ns,
                event.bid_px,
                event.bid_qty,
                event.ask_px,
                event.ask_qty,
                BOOK_CONSISTENT if event.consistent else 0,
            )
        elif isinstance(event, Trade):
            instrument = self._instruments[event.ticker]
            self.writer.trade(
                instrument, event.exch_ns, event.now_ns, event.price_ticks, event.lots, event.side
            )
        elif isinstance(event, TradingStatus):
            (self._not_trading.discard if event.tradable else self._not_trading.add)(event.ticker)
        elif isinstance(event, Quarantine) and event.active:
            self.quarantines += 1
            self.writer.note(quarantines=self.quarantines, last_quarantine=f"{event.ticker}: {event.reason}")
        self._last_arrival = time.monotonic()

    def _begin(self, now_ns: int) -> None:
        """A paper exchange plays its market again on every start; once is enough in one recording."""
        before_ns = self.writer.before_ns
        if before_ns - now_ns > MAX_BACKWARD_NS:
            raise RecordingError(
                f"the recording {self.writer.path} already reaches {_clock_text(before_ns)} and the market "
                f"is at {_clock_text(now_ns)}: record it into another folder (--out)"
            )
        self._began = True

    @property
    def closed(self) -> bool:
        """Nothing trades: an exchange says so after its last book."""
        return len(self._not_trading) == len(self._instruments)

    @property
    def quiet_s(self) -> float:
        """Real time since anything arrived."""
        return time.monotonic() - self._last_arrival

    def _gap(self, book: Book) -> None:
        """The validator's own measure: a silence between two books of an instrument."""
        silence_ns = book.now_ns - self._last_book_ns.get(book.ticker, book.now_ns)
        self._last_book_ns[book.ticker] = book.now_ns
        if silence_ns > GAP_NS:
            self.gaps += 1
            self.longest_gap_ns = max(self.longest_gap_ns, silence_ns)
            self.writer.note(gaps=self.gaps, longest_gap_s=self.longest_gap_ns // SECOND_NS)


@dataclass(slots=True)
class _Source:
    """Where the market comes from."""

    access: Access
    clock: MarketClock
    endpoint: PaperEndpoint | None = None
    child: PaperChild | None = None


@dataclass(slots=True)
class Recorder:
    """``await run()`` once; the result is the finished recording."""

    config: RunnerConfig
    options: Options
    say: Callable[[str], None] = print
    reconnects: int = 0
    failovers: int = 0
    last_error: str = ""
    _channel: str = "primary"
    _stop_reason: str = ""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _signals: int = 0

    async def run(self) -> Recording:
        """Records until the time is over, the session ends or a signal comes. Raises ScalperError."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal, number)
                stack.callback(loop.remove_signal_handler, number)
            names = self._names()
            source = await self._source(names)
            if source.child is not None:
                stack.push_async_callback(source.child.stop)
            ways = Ways(self.config.connectivity)
            stack.push_async_callback(ways.close)
            access = await ways.open(source.access)
            api = TinkoffAPI(access, transport=self.config.broker.transport, time_scale=source.clock.speed)
            stack.push_async_callback(api.close)
            if reason := await api.client.learn_limits():
                self.say(f"the account's own limits are not known, the documented ones hold: {reason}")
            found = [await api.client.instrument(name) for name in names]
            return await self._record(source, api, ways.backup, {i.uid: i for i in found})

    def stop(self, reason: str) -> None:
        if not self._stop_reason:
            self._stop_reason = reason
            self._stopping.set()

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)  # asked twice: the log is on the disk, the next start finishes it
        self.stop(f"{signal.Signals(number).name} received")

    # ---- before ----

    @property
    def _out(self) -> Path:
        return self.options.out or Path(self.config.system.runtime_dir) / DEFAULT_FOLDER

    def _names(self) -> tuple[str, ...]:
        names = self.options.instruments or self.config.data.instruments
        if not names and self.config.system.mode == "paper":
            names = tuple(
                i.ticker for i in Recording.open(Path(self.config.paper.recording)).info.instruments
            )
        if not names:
            raise ConfigError("nothing to record: name --instruments SBER,GAZP or set data.instruments")
        return tuple(dict.fromkeys(names))

    async def _source(self, names: tuple[str, ...]) -> _Source:
        config = self.config
        if config.system.mode != "paper":
            return _Source(broker_access(config), MarketClock.wall())
        child = None
        endpoint = running_endpoint(Path(config.paper.endpoint))
        if endpoint is None:
            child, endpoint = await start_exchange(
                config.paper,
                tickers=tuple(name.partition("_")[0] for name in names),
                from_ns=config.paper.from_ns,
                to_ns=config.paper.to_ns,
                log=Path(config.system.runtime_dir) / "paper" / "exchange.log",
            )
        return _Source(
            endpoint.access, MarketClock(endpoint.market_start_ns, endpoint.speed), endpoint, child
        )

    def _writer(self, source: _Source) -> RecordingWriter:
        mode = self.config.system.mode
        fee = source.endpoint.tariff if source.endpoint else self.config.broker.tariff
        tariff(fee)
        watermark = source.endpoint.watermark if source.endpoint else "REAL"
        provenance: dict[str, Any] = {
            "recorder": "live-runner record",
            "version": app_version(),
            "broker": mode,
            "depth": DEPTH,
        }
        if source.endpoint is not None:
            provenance["speed"] = source.endpoint.speed
        return RecordingWriter(
            self._out, source=f"live-runner record ({mode})", watermark=watermark, tariff=fee,
            provenance=provenance,
        )  # fmt: skip

    # ---- recording ----

    async def _record(
        self, source: _Source, api: TinkoffAPI, backup: Access | None, instruments: dict[str, Instrument]
    ) -> Recording:
        writer = self._writer(source)
        if writer.recovered:
            self.say(writer.recovered)
        recorder = StreamRecorder(writer, {i.ticker: i for i in instruments.values()})
        connectivity = self.config.connectivity
        link = api.connect(
            instruments,
            source.clock,
            lambda event: self._take(event, link, recorder),
            None,
            depth=DEPTH,
            backup=backup,
            policy=Policy(connectivity.failure_threshold, connectivity.recovery_message_count),
            silence_s=connectivity.silence_seconds,
        )
        tickers = ", ".join(sorted(i.ticker for i in instruments.values()))
        self.say(f"recording {tickers} into {self._out}; stop with Ctrl-C")
        bodies = [
            link.run(),
            self._watch_the_end(source, recorder),
            self._progress(recorder),
        ]
        if source.child is not None:
            bodies.append(self._exchange(source.child))
        tasks = [asyncio.create_task(body) for body in bodies]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        finally:
            for task in [*tasks, stopping]:
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
        failure = next((_cause(error) for error in failed if error is not None), None)
        reason = self._stop_reason or f"failed: {failure}"
        self.say(f"stopping: {reason}")
        return await self._close(recorder, reason, failure)

    async def _close(self, recorder: StreamRecorder, reason: str, failure: BaseException | None) -> Recording:
        writer = recorder.writer
        if failure is not None:
            try:
                await asyncio.to_thread(writer.close)
            except RecordingError as error:
                if error is not failure:
                    self.say(str(error))
            raise failure
        writer.note(
            stopped=reason, gaps=recorder.gaps, reconnects=self.reconnects, failovers=self.failovers,
            quarantines=recorder.quarantines,
        )  # fmt: skip
        recording = await asyncio.to_thread(writer.close)
        counts, kind = writer.counts, recording.info.watermark
        self.say(
            f"recorded {counts['books']:,} books and {counts['trades']:,} trades ({kind}), "
            f"{recorder.gaps} gaps, {self.reconnects} reconnects; {_size(recording)} in {self._out}"
        )
        return recording

    def _take(self, event: Event, link: Link, recorder: StreamRecorder) -> None:
        if not isinstance(event, Connection):
            recorder.take(event)
            return
        self.reconnects, self.last_error = link.reconnects, link.last_error
        if event.up and event.channel != self._channel:
            self._channel = event.channel
            self.failovers += event.channel == "backup"
            self.say(f"streaming over the {event.channel} connection")
        # Only numbers: what a connection says may hold addresses, which no recording needs.
        recorder.writer.note(reconnects=self.reconnects, failovers=self.failovers)

    async def _watch_the_end(self, source: _Source, recorder: StreamRecorder) -> None:
        clock = source.clock
        while not clock.anchored:
            await asyncio.sleep(POLL_S)
        start_ns = clock.now_ns()
        minutes = self.options.minutes
        over_ns = start_ns + int(minutes * MINUTE_NS) if minutes is not None else None
        session_ns = session_end_ns(self.config.session, start_ns)
        while True:
            if (failure := recorder.writer.failure) is not None:
                raise failure  # also when the market is too quiet to notice
            now_ns = clock.now_ns()
            if over_ns is not None and now_ns >= over_ns:
                self.stop(f"{minutes:g} minutes are over")
            if session_ns is not None and now_ns >= session_ns:
                self.stop(f"the session ended at {self.config.session.end_time}")
            over = source.endpoint is not None and now_ns >= source.endpoint.market_end_ns
            if over and (recorder.closed or recorder.quiet_s > DRAIN_S):
                self.stop("the exchange's recording ends")
            await asyncio.sleep(min(POLL_S, 1.0 / clock.speed))

    async def _progress(self, recorder: StreamRecorder) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            writer = recorder.writer
            down = f"; last: {self.last_error}" if self.last_error else ""
            self.say(
                f"{_clock_text(writer.last_ns)}  {writer.counts['books']:,} books, "
                f"{writer.counts['trades']:,} trades, {writer.log_bytes / 1e6:.1f} MB; {recorder.gaps} gaps, "
                f"{self.reconnects} reconnects{down}"
            )

    async def _exchange(self, child: PaperChild) -> None:
        code = await child.wait()
        raise BrokerError(f"the paper exchange ended with code {code}")


def session_end_ns(session: Session, now_ns: int) -> int | None:
    """When the trading window that is open, or the next one, closes; None where the session is disabled."""
    if not session.enabled:
        return None
    zone = ZoneInfo(session.timezone)
    seconds = seconds_of_day(session.end_time) + session.post_close_minutes * 60
    today = datetime.fromtimestamp(now_ns // SECOND_NS, UTC).astimezone(zone).replace(tzinfo=None)
    midnight = today.replace(hour=0, minute=0, second=0)
    for days in (0, 1, 2):
        end = (midnight + timedelta(days=days, seconds=seconds)).replace(tzinfo=zone)
        if (end_ns := int(end.timestamp()) * SECOND_NS) > now_ns:
            return end_ns
    raise AssertionError("a day has an end")


def _cause(error: BaseException) -> BaseException:
    """The link runs its streams as a group: what ended the group is in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def app_version() -> str:
    try:
        return version("scalper")
    except PackageNotFoundError:
        return "not installed"


def _clock_text(ns: int) -> str:
    moment = datetime.fromtimestamp(ns // SECOND_NS, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if ns else "no event yet"


def _size(recording: Recording) -> str:
    size = sum((recording.path / name).stat().st_size for name in recording.files())
    return f"{size / 1e6:.2f} MB"
