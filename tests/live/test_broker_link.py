"""Keeping the connection: mute instruments and streams, GOAWAY, too many streams, pauses, late messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import MethodType
from typing import Any

import grpc
import grpc.aio
import pytest
from core_bench import instrument

from live.broker.api import TinkoffAPI
from live.broker.channel import read_paper_endpoint
from live.broker.link import AT_ONCE_PAUSE_S, FIRST_PAUSE_S, MAX_PAUSE_S, Backoff, Link
from live.broker.stream import STREAM_COUNT_REFRESH_S, MarketDataStream, StreamDown, _down
from live.broker.watchdog import SilenceWatch
from live.clock import MarketClock
from live.core.events import Book, Connection, Quarantine
from market.contract import invest_pb2 as pb
from market.paper.faults import Fault
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import SECOND_NS

WAIT_S = 30.0
TICKERS = ("SIMP", "SIMF")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
    return simulate_recording(tmp_path_factory.mktemp("link") / "recording", specs, hours=0.1)[0]


class Session:
    """A linked client of a running exchange."""

    def __init__(self, server: PaperServer, link: Link, events: list[Any]) -> None:
        self.server, self.link, self.events = server, link, events

    def ups(self) -> list[bool]:
        return [e.up for e in self.events if isinstance(e, Connection)]

    def books(self, ticker: str, since: int = 0) -> int:
        return sum(isinstance(e, Book) and e.ticker == ticker for e in self.events[since:])

    def quarantined(self, ticker: str) -> list[bool]:
        return [e.active for e in self.events if isinstance(e, Quarantine) and e.ticker == ticker]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def session(recording: Recording, folder: Path, **options: Any) -> AsyncIterator[Session]:
    """Speed 4; a silence of one second of the wall clock is looked into."""
    path = folder / "endpoint.json"
    server = PaperServer(recording, endpoint_path=path, speed=options.pop("speed", 4.0), **options)
    endpoint = await server.start()
    api = TinkoffAPI(read_paper_endpoint(path).access, time_scale=max(1.0, endpoint.speed))
    events: list[Any] = []
    task = None
    try:
        await api.client.choose_account()
        api.client.set_fees(dict.fromkeys(TICKERS, 50))
        found = [await api.client.instrument(ticker) for ticker in TICKERS]
        clock = MarketClock(endpoint.market_start_ns, endpoint.speed)
        link = api.connect(
            {i.uid: i for i in found}, clock, events.append, lambda report: None, depth=20, silence_s=1.0
        )
        task = asyncio.create_task(link.run())
        running = Session(server, link, events)
        if not endpoint.speed:
            await running.until(lambda: link.up)
            await server.play_until(endpoint.market_start_ns + 5 * SECOND_NS)
        await running.until(lambda: all(running.books(ticker) for ticker in TICKERS))
        yield running
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await api.close()
        await server.stop()


def mute(s: Session, ticker: str) -> Callable[[], None]:
    """The exchange forgets to stream the books of one instrument, all else goes on. Returns the cure."""
    audience = s.server.replayer._audience
    index = next(k for k, i in enumerate(s.server.tape.instruments) if i.ticker == ticker)
    original = audience.on_book

    def on_book(self: Any, at: int, row: int, now_ns: int) -> None:
        if at != index:
            original(at, row, now_ns)

    audience.on_book = MethodType(on_book, audience)

    def cure() -> None:
        del audience.on_book

    return cure


# ---- silence


def test_an_instrument_that_goes_mute_is_found_and_the_stream_made_again(recording, tmp_path):
    async def run() -> None:
        async with session(recording, tmp_path) as s:
            cure = mute(s, "SIMP")
            other = s.books("SIMF")
            await s.until(lambda: s.link.watch.resubscribed == 1)
            assert "SIMP is mute" in s.link.watch.last_error
            assert s.ups() == [True]  # the gentle way first: nobody else notices
            await s.until(lambda: s.link.watch.reconnected == 1)
            cure()
            await s.until(lambda: s.ups()[:3] == [True, False, True])
            assert "SIMP is mute" in s.link.last_error
            seen = len(s.events)
            await s.until(lambda: s.books("SIMP", seen) > 3)
            assert s.quarantined("SIMP")[0] is True
            assert s.quarantined("SIMP")[-1] is False
            assert s.books("SIMF") > other
            assert s.link.market.generation == 2

    asyncio.run(run())


def test_a_quiet_market_is_left_alone(recording, tmp_path):
    async def run() -> None:
        async with session(recording, tmp_path, speed=0) as s:
            await s.until(lambda: s.link.watch.quiet >= len(TICKERS))
            assert s.ups() == [True]
            assert s.quarantined("SIMP") == []
            report = s.link.report()
            assert report["silence"]["resubscribed"] == report["silence"]["reconnected"] == 0
            assert report["streams"]["market"]["generation"] == 1
            assert report["limits"]["market_data"]["left"] > 0

    asyncio.run(run())


class _Stream:
    """A stream as the watchdog sees it, moved by hand."""

    def __init__(self) -> None:
        self.generation, self.up, self.at, self.streamed = 1, True, 0.0, "book"
        self.instrument = type("I", (), {"ticker": "X"})()
        self.acts: list[str] = []

    def watched(self) -> dict[str, Any]:
        return {"uid": self.instrument}

    def book_of(self, uid: str) -> tuple[float, Any]:
        return self.at, self.streamed

    async def resubscribe(self, uid: str) -> None:
        self.acts.append("resubscribe")

    def fail(self, reason: str) -> None:
        self.acts.append("fail")

    def distrust(self, uid: str, why: str) -> None:
        self.acts.append("distrust")


@pytest.mark.parametrize("meanwhile", ["a book comes", "another stream"])
def test_an_answer_that_comes_too_late_accuses_nobody(meanwhile):
    """The book moved, but before the second look the stream spoke, or was replaced."""

    async def run() -> list[str]:
        stream = _Stream()

        class Broker:
            async def order_book(self, instrument: Any, depth: int) -> str:
                if meanwhile == "a book comes":
                    stream.at = 1e18
                else:
                    stream.generation += 1
                return "another book"

        watch = SilenceWatch(stream, Broker(), depth=20, silence_s=1.0, grace_s=0.0)  # type: ignore[arg-type]
        await watch._look("uid", stream.instrument)  # type: ignore[arg-type]
        assert watch.probes == 1
        return stream.acts

    assert asyncio.run(run()) == []


# ---- streams that end


def test_a_goaway_is_followed_at_once(recording, tmp_path):
    async def run() -> None:
        async with session(recording, tmp_path) as s:
            s.server.faults.add(Fault("goaway", count=1))
            await s.until(lambda: s.ups()[:3] == [True, False, True])
            seen = len(s.events)
            await s.until(lambda: s.books("SIMP", seen) and s.books("SIMF", seen))
            assert s.link.channel == "primary"

    asyncio.run(run())


def test_a_stream_without_pings_is_dead(recording, tmp_path):
    async def run() -> None:
        async with session(recording, tmp_path) as s:
            s.server.faults.add(Fault("mute_stream"))
            s.link.market.fail("the next life gets a shorter patience")
            s.link.market.ping_ms = 100
            await s.until(lambda: s.link.market.mute >= 1)
            s.server.faults.clear()
            s.link.market.ping_ms = 5000
            await s.until(lambda: s.link.up)
            seen = len(s.events)
            await s.until(lambda: s.books("SIMP", seen))

    asyncio.run(run())


def failed(code: grpc.StatusCode, details: str, **trailers: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers.items()), details)


def test_every_way_to_end_has_its_pause():
    link = object.__new__(Link)
    link._clock = MarketClock(0, 1.0)
    fresh = lambda: Backoff(random.Random(3))  # noqa: E731
    goaway = _down(
        failed(grpc.StatusCode.UNAVAILABLE, "GOAWAY received; Error code: 0; Debug Text: graceful_stop")
    )
    assert (goaway.at_once, goaway.counts) == (True, False)
    assert link._pause_s(goaway, fresh(), lived_s=60.0) == AT_ONCE_PAUSE_S
    assert link._pause_s(goaway, fresh(), lived_s=0.1) <= FIRST_PAUSE_S  # but not in a circle
    old = _down(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "80005"))
    assert old.at_once
    many = _down(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "80001"))
    assert not many.counts  # no reason to change the channel: the broker counts by user
    assert link._pause_s(many, fresh(), lived_s=60.0) >= STREAM_COUNT_REFRESH_S
    broken = _down(failed(grpc.StatusCode.CANCELLED, "Received RST_STREAM with error code 8"))
    assert (broken.at_once, broken.counts) == (False, True)


def test_full_jitter_spreads_over_the_whole_pause():
    backoff = Backoff(random.Random(1))
    pauses = [[backoff.next_s() for _ in range(12)] for _ in range(200) if backoff.reset() is None]
    assert all(p[0] <= FIRST_PAUSE_S and max(p) <= MAX_PAUSE_S for p in pauses)
    last = sorted(p[-1] for p in pauses)
    assert last[20] < MAX_PAUSE_S / 4
    assert last[-20] > MAX_PAUSE_S * 3 / 4


# ---- generations


class _Call:
    """A stream's call that gives what it was given."""

    def __init__(self, *messages: pb.MarketDataResponse) -> None:
        self.messages = list(messages)
        self.cancelled = False

    async def read(self) -> Any:
        return self.messages.pop(0) if self.messages else grpc.aio.EOF

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("size", [2**31, 2**62])
@pytest.mark.parametrize("kind", ["plain book", "book left to protobuf", "trade"])
def test_a_number_of_no_market_is_distrusted_and_told_until_sound_books_arrive(size, kind):
    share = instrument("SIMP")
    price = pb.Quotation(units=1)

    def book(quantity: int) -> pb.MarketDataResponse:
        levels = [pb.Order(price=price, quantity=quantity)]
        # Not ASCII: the reader of plain books leaves it to protobuf.
        figi = "ф" if kind == "book left to protobuf" else "f"
        return pb.MarketDataResponse(
            orderbook=pb.OrderBook(instrument_uid=share.uid, figi=figi, bids=levels, is_consistent=True)
        )

    impossible = book(size)
    if kind == "trade":
        impossible = pb.MarketDataResponse(
            trade=pb.Trade(instrument_uid=share.uid, price=price, quantity=size)
        )
    events: list[Any] = []

    async def run() -> None:
        stream = MarketDataStream(
            None, {share.uid: share}, MarketClock(0, 1.0), events.append, depth=20, on_up=lambda: None  # type: ignore[arg-type]
        )  # fmt: skip
        for message in (book(5), impossible, impossible, book(6)):
            stream._take(stream._read(message.SerializeToString()))

    asyncio.run(run())
    assert [type(e) for e in events] == [Book, Quarantine, Quarantine, Book]
    assert [e.active for e in events[1:3]] == [True, False] and "out of range" in events[1].reason


def test_what_an_older_stream_still_says_is_dropped():
    async def run() -> None:
        stream = MarketDataStream(
            None, {}, MarketClock(0, 1.0), lambda event: None, depth=20, on_up=lambda: None  # type: ignore[arg-type]
        )  # fmt: skip
        taken: list[Any] = []
        old, new = _Call(pb.MarketDataResponse(), pb.MarketDataResponse()), _Call(pb.MarketDataResponse())
        first = stream._begin(old)
        second = stream._begin(new)
        for call, generation in ((old, first), (new, second)):
            with pytest.raises(StreamDown):
                await stream._read_all(call, generation, taken.append)
        assert (len(taken), stream.late_messages, stream.messages) == (1, 1, 1)
        assert old.cancelled

    asyncio.run(run())
