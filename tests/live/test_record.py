"""`live-runner record` against the real paper exchange: what was streamed is what is recorded."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live import config as configuration
from live.broker.route import Route
from live.cli import main
from live.config_schema import RunnerConfig, Session
from live.core.commands import CancelOrder, FillBooked, OrderChanged, PlaceOrder
from live.core.events import Book, Trade
from live.record import Options, Recorder, session_end_ns
from live.record_run import RunRecorder
from market.errors import ConfigError, RecordingError
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import OWN_KINDS, SECOND_NS, Books, Trades

TICKERS = ("SIMP", "SIMF")
SPEED = 8.0
DAY = "2026-01-15"
NOW = 1_768_460_400 * SECOND_NS
"""10:00 in Moscow on DAY."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """72 seconds of two instruments."""
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "SMALL", kind="future"))
    return simulate_recording(tmp_path_factory.mktemp("record") / "source", specs, hours=0.02)[0]


@pytest.fixture(scope="module")
def longer_source(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six minutes of one instrument."""
    return simulate_recording(
        tmp_path_factory.mktemp("record") / "longer", (SimSpec("SIMP", "SMALL"),), hours=0.1
    )[0]


def settings(folder: Path, source: Recording, *more: str) -> RunnerConfig:
    return configuration.load(
        None,
        [
            f"system.runtime_dir={folder}", f"paper.endpoint={folder / 'endpoint.json'}",
            f"paper.recording={source.path}", "session.enabled=false", *more,
        ],
    )  # fmt: skip


def with_exchange(folder: Path, source: Recording, work: Callable, speed: float = SPEED) -> Any:
    """``await work(server)`` beside a running exchange."""

    async def run() -> Any:
        server = PaperServer(source, endpoint_path=folder / "endpoint.json", speed=speed)
        await server.start()
        try:
            return await work(server)
        finally:
            await server.stop()

    return asyncio.run(asyncio.wait_for(run(), 120))


def keyed(rows: Books | Trades, names: tuple[str, ...]) -> list[tuple[bytes, ...]]:
    """Each row as something to compare."""
    columns = ([value.tobytes() for value in getattr(rows, name)] for name in names)
    return list(zip(*columns, strict=True))


def assert_part_of(recorded: Recording, source: Recording, ticker: str, *, holes: bool = False) -> int:
    """Every recorded book and trade is the source's, in its order, without a hole; how many books."""
    (day,) = recorded.info.days[ticker]
    got, wanted = recorded.read(ticker, day), source.read(ticker, DAY)
    assert (np.diff(got.books.recv_ns) >= 0).all()
    for one, other, names in (
        (got.books, wanted.books, ("exch_ns", "bid_px", "bid_qty", "ask_px", "ask_qty", "flags")),
        (got.trades, wanted.trades, ("exch_ns", "px", "qty", "side")),
    ):
        if not len(one):
            continue
        keys, mine = keyed(other, names), keyed(one, names)
        if holes:
            assert set(mine) <= set(keys)
            continue
        first = keys.index(mine[0])
        assert mine == keys[first : first + len(mine)]
    return len(got.books)


def test_the_recording_of_a_recording_is_that_recording(source: Recording, tmp_path: Path) -> None:
    said: list[str] = []

    async def work(server: PaperServer) -> dict[str, Any]:
        await Recorder(settings(tmp_path, source), Options(tmp_path / "out"), said.append).run()
        return server.stats() | {"token": server.endpoint.token}

    stats = with_exchange(tmp_path, source, work)
    recorded = Recording.open(tmp_path / "out")
    # A busy machine makes the exchange leave out books (never trades), and count them.
    conflated = stats["books_conflated"]
    books = sum(assert_part_of(recorded, source, ticker, holes=conflated > 0) for ticker in TICKERS)
    assert books == stats["books_sent"] > 100
    assert books + conflated == sum(len(source.read(ticker, DAY).books) for ticker in TICKERS)
    trades = sum(len(recorded.read(ticker, DAY).trades) for ticker in TICKERS)
    assert trades == sum(len(source.read(ticker, DAY).trades) for ticker in TICKERS) > 0
    for ticker in TICKERS:  # to the very end
        assert recorded.read(ticker, DAY).books.exch_ns[-1] == source.read(ticker, DAY).books.exch_ns[-1]
    info = recorded.info
    assert set(info.instruments) == set(source.info.instruments)
    assert (info.watermark, info.tariff) == ("SIMULATED", source.info.tariff)
    assert info.source == "live-runner record (paper)"
    (session,) = info.provenance["sessions"]
    assert session["stopped"] == "the exchange's recording ends"
    assert (session["reconnects"], session["end"]) == (0, "closed")
    assert stats["token"] not in (tmp_path / "out" / "recording.json").read_text()
    assert "recorded" in said[-1]


def test_minutes_are_of_the_market_and_a_cut_stream_comes_back(source: Recording, tmp_path: Path) -> None:
    async def work(server: PaperServer) -> None:
        options = Options(tmp_path / "out", minutes=0.5, instruments=("SIMP",))
        task = asyncio.create_task(Recorder(settings(tmp_path, source), options, print).run())
        await streamed(server, 30)
        server.cut_streams()
        await task

    with_exchange(tmp_path, source, work)
    recorded = Recording.open(tmp_path / "out")
    assert list(recorded.info.days) == ["SIMP"]
    assert_part_of(recorded, source, "SIMP", holes=True)
    (session,) = recorded.info.provenance["sessions"]
    assert session["stopped"] == "0.5 minutes are over"
    assert session["reconnects"] >= 1
    books = recorded.read("SIMP", DAY).books
    assert books.recv_ns[-1] - books.recv_ns[0] > 20 * SECOND_NS


def test_a_dead_primary_goes_on_over_the_backup(source: Recording, tmp_path: Path) -> None:
    """One exchange, two ways there; the first one is cut."""
    said: list[str] = []

    async def work(server: PaperServer) -> None:
        way = await Route(server.endpoint.target, bind="127.0.0.1").open()
        config = settings(
            tmp_path, source, f"connectivity.primary.target={way.target}",
            f"connectivity.backup.target={server.endpoint.target}", "connectivity.failure_threshold=2",
        )  # fmt: skip
        recorder = Recorder(config, Options(tmp_path / "out"), said.append)
        task = asyncio.create_task(recorder.run())
        await streamed(server, 30)
        await way.close()
        while recorder.failovers == 0:
            assert not task.done()
            await asyncio.sleep(0.01)
        await streamed(server, 30)
        recorder.stop("enough")
        await task

    with_exchange(tmp_path, source, work, speed=2.0)
    assert "streaming over the backup connection" in said
    recorded = Recording.open(tmp_path / "out")
    (session,) = recorded.info.provenance["sessions"]
    assert (session["failovers"], session["stopped"]) == (1, "enough")
    assert session["reconnects"] >= 2
    for ticker in TICKERS:
        assert_part_of(recorded, source, ticker, holes=True)


async def streamed(server: PaperServer, books: int) -> None:
    """Returns when so many more books have been sent."""
    wanted = server.stats()["books_sent"] + books
    while server.stats()["books_sent"] < wanted:
        await asyncio.sleep(0.01)


def test_two_runs_make_one_recording_and_two_at_once_are_refused(source: Recording, tmp_path: Path) -> None:
    async def work(server: PaperServer) -> None:
        for _ in range(2):
            recorder = Recorder(settings(tmp_path, source), Options(tmp_path / "out"), print)
            task = asyncio.create_task(recorder.run())
            await streamed(server, 30)
            with pytest.raises(RecordingError, match="in use"):
                await Recorder(settings(tmp_path, source), Options(tmp_path / "out"), print).run()
            recorder.stop("the test is over")
            await task

    with_exchange(tmp_path, source, work)
    recorded = Recording.open(tmp_path / "out")
    sessions = recorded.info.provenance["sessions"]
    assert [session["stopped"] for session in sessions] == ["the test is over"] * 2
    counted = sum(session["books"] for session in sessions)
    assert counted == sum(assert_part_of(recorded, source, ticker, holes=True) for ticker in TICKERS) > 50


def test_a_market_that_plays_again_is_not_recorded_twice(source: Recording, tmp_path: Path) -> None:
    async def work(server: PaperServer) -> None:
        options = Options(tmp_path / "out", minutes=0.3)
        await Recorder(settings(tmp_path, source), options, print).run()

    with_exchange(tmp_path, source, work)
    before = Recording.open(tmp_path / "out").info.days
    with pytest.raises(RecordingError, match=r"already reaches .* record it into another folder"):
        with_exchange(tmp_path, source, work)
    recorded = Recording.open(tmp_path / "out")
    assert recorded.info.days == before
    for ticker in TICKERS:
        assert_part_of(recorded, source, ticker)


def start(folder: Path, source: Recording, max_file_bytes: int | None = None) -> subprocess.Popen[str]:
    """The command as people start it."""

    def limit() -> None:
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    words = [
        sys.executable, "-m", "live.cli", "record", "--out", str(folder / "out"),
        "--set", f"paper.endpoint={folder / 'endpoint.json'}", "--set", f"system.runtime_dir={folder}",
        "--set", f"paper.recording={source.path}", "--set", "session.enabled=false",
    ]  # fmt: skip
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2],
        preexec_fn=limit,
    )  # fmt: skip


def books_in(path: Path) -> int:
    """Books by now, looking from outside; 0 while there is nothing to look at."""
    try:
        recording = Recording.open(path)
        return sum(len(recording.read(t, d).books) for t, days in recording.info.days.items() for d in days)
    except RecordingError:
        return 0


@pytest.mark.slow
def test_killed_again_and_again_and_stopped_by_a_signal(longer_source: Recording, tmp_path: Path) -> None:
    """Real processes: SIGKILL, SIGKILL, SIGTERM, SIGINT; every start goes on with the same recording."""
    source, out = longer_source, tmp_path / "out"
    rng = np.random.default_rng(int(time.time()))

    async def work(server: PaperServer) -> None:
        seen = 0
        for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            process = start(tmp_path, source)
            while await asyncio.to_thread(books_in, out) <= seen:
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
            await asyncio.sleep(float(rng.uniform(0, 0.6)))
            process.send_signal(number)
            said, _ = await asyncio.to_thread(process.communicate)
            recorded = Recording.open(out)
            if number is signal.SIGKILL:
                assert process.returncode == -signal.SIGKILL
                assert "was recovered" in recorded.remark
            else:
                assert process.returncode == 0, said
                assert f"stopping: {signal.Signals(number).name} received" in said
                assert recorded.remark == ""
            for ticker in recorded.info.days:
                assert_part_of(recorded, source, ticker, holes=True)
            assert books_in(out) > seen
            seen = books_in(out)

    with_exchange(tmp_path, source, work, speed=4.0)
    ends = [session["end"] for session in Recording.open(out).info.provenance["sessions"]]
    assert ends == ["interrupted", "interrupted", "closed", "closed"]


def test_a_full_disk_ends_the_recording_with_one_sentence(longer_source: Recording, tmp_path: Path) -> None:
    """The file size limit of the process stands in for the full disk."""

    async def work(server: PaperServer) -> None:
        process = start(tmp_path, longer_source, max_file_bytes=30_000)
        said, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 2, said
        assert said.splitlines()[-1].startswith("live-runner: the recording")
        assert "cannot be written any more" in said
        assert "Traceback" not in said

    with_exchange(tmp_path, longer_source, work, speed=40.0)
    recorded = Recording.open(tmp_path / "out")
    assert assert_part_of(recorded, longer_source, "SIMP", holes=True) > 50


def test_recover_says_what_there_is(
    source: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "--recover", str(source.path)]) == 0
    assert "nothing to recover" in capsys.readouterr().out
    assert main(["record", "--recover", str(source.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data_hash"] == source.data_hash() and found["remark"] == ""
    assert main(["record", "--recover", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_what_cannot_be_recorded_is_said(source: Recording, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--minutes 0"):
        Options(minutes=0.0)
    real = settings(tmp_path, source, "system.mode=sandbox", "broker.token=t", "model.verification_key=k")
    with pytest.raises(ConfigError, match="--instruments SBER,GAZP"):
        asyncio.run(Recorder(real, Options(tmp_path / "out")).run())
    assert not (tmp_path / "out").exists()


def test_the_session_ends_at_its_time_in_its_zone() -> None:
    def at(hour: int, minute: int = 0, day: int = 15) -> int:
        return int(datetime(2026, 1, day, hour, minute, tzinfo=UTC).timestamp()) * SECOND_NS

    session = Session(end_time="18:40", post_close_minutes=5)
    assert session_end_ns(session, at(7)) == at(15, 45)
    assert session_end_ns(session, at(15, 44)) == at(15, 45)
    assert session_end_ns(session, at(15, 45)) == at(15, 45, day=16)
    assert session_end_ns(Session(enabled=False), at(7)) is None


def test_the_runners_recording_holds_orders_and_never_stops_trading(
    source: Recording, tmp_path: Path
) -> None:
    share = source.info.instrument("SIMP")
    said: list[str] = []

    def recorder() -> RunRecorder:
        return RunRecorder(
            tmp_path / "r", {"SIMP": share}, mode="paper", watermark="SIMULATED", tariff="simulated",
            facts={"session_id": "s"}, now_ns=lambda: NOW, failed=said.append,
        )  # fmt: skip

    changed = OrderChanged(NOW + 1, "t", "id-1", "x", "SIMP", 1, 3, 0, "ENTRY", "NEW", "")
    first = recorder()
    first.take(Book(NOW, "SIMP", NOW - 5, (9, 8), (1, 2), (11,), (3,), consistent=False))
    first.take(Trade(NOW, "SIMP", NOW - 4, 11, 2, -1))
    first.commands([PlaceOrder("t", "id-1", "SIMP", 1, 3, "market", None, "fak", False, "test"), changed])
    first.commands([FillBooked(NOW + 2, "t", "id-1", "deal", "SIMP", 1, 11, 3, 77, 0)])
    first.commands([replace(changed, status="FILLED"), CancelOrder("id-1", "test")])
    first.close()
    day = Recording.open(tmp_path / "r").read("SIMP", DAY)
    assert (day.books.flags.tolist(), day.books.bid_px[0, :3].tolist()) == ([0], [9, 8, 0])
    assert day.own is not None
    assert [OWN_KINDS[kind] for kind in day.own.kind] == ["placed", "working", "fill"]
    assert (day.own.px.tolist(), day.own.qty.tolist()) == ([0, 0, 11], [3, 3, 3])
    assert day.own.fee_nano.tolist() == [0, 0, 77]
    # A recording that cannot go on ends; whoever trades does not notice.
    second = recorder()
    for back in (3600, 3599):
        second.take(Trade(NOW - back * SECOND_NS, "SIMP", 1, 11, 2, -1))
    second.commands([changed])
    second.close()
    assert len(said) == 1
    assert "already reaches" in said[0]
    assert len(Recording.open(tmp_path / "r").read("SIMP", DAY).trades) == 1
