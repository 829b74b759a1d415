"""The paper exchange as a server: its clock, its tape, restarts, its command line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from paper_market import (
    FUTURE,
    FUTURE_DAY,
    MARKET,
    ROOT,
    SHARE,
    SHARE_DAY,
    T0,
    Client,
    run,
    subscribe_books,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import to_ns
from market.contract.methods import stub
from market.errors import BrokerError, ConfigError, RecordingError
from market.paper import Endpoint, PaperServer, messages_market
from market.paper.alarm import Alarm
from market.paper.book_bytes import BookEncoder
from market.paper.tape import BOOK, Tape
from market.recording import write_recording
from market.types import MILLISECOND_NS, SECOND_NS


def test_cut_streams_break_with_unavailable_and_new_ones_work(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(1, SHARE.uid))
        await stream.read()
        await stream.read()
        server.cut_streams()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        again = client.stream("MarketDataStreamService/MarketDataStream")
        await again.write(subscribe_books(1, SHARE.uid))
        assert (await again.read()).HasField("subscribe_order_book_response")

    run(tmp_path, scenario)


def test_orders_and_positions_survive_a_restart(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        order = await client.order()
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.positions()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        again = Client(await server.start())
        assert [p.balance for p in (await again.positions()).securities] == [10]
        assert (await again.order(order_id=order.order_request_id)).order_id == order.order_id
        await server.play_until(T0 + SECOND_NS)
        assert (await again.order(quantity=6)).lots_executed == 6
        await again.channel.close()

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_client_that_pings_every_second_is_welcome_and_gets_pings(tmp_path: Path) -> None:
    """The library's default server would send such a client away after four seconds of silence."""

    async def scenario(server: PaperServer, client: Client) -> None:
        endpoint = server.endpoint
        options = [
            ("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]  # fmt: skip
        credentials = grpc.ssl_channel_credentials(Path(endpoint.ca_path).read_bytes())
        async with grpc.aio.secure_channel(endpoint.target, credentials, options=options) as channel:
            quiet = stub(channel, "MarketDataStreamService/MarketDataStream")(metadata=client.metadata)
            await quiet.write(pb.MarketDataRequest(ping_settings=pb.PingDelaySettings(ping_delay_ms=8000)))
            assert (await quiet.read()).HasField("ping")  # eight silent seconds later
            request = pb.OrderStateStreamRequest(ping_delay_millis=1000)
            orders = stub(channel, "OrdersStreamService/OrderStateStream")(request, metadata=client.metadata)
            assert (await orders.read()).HasField("subscription")
            for _ in range(2):
                assert to_ns((await orders.read()).ping.time) == T0

    run(tmp_path, scenario)


def test_a_running_clock_plays_everything_in_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(7, SHARE.uid))
        await stream.read()
        assert not server.clock.running  # nothing was subscribed yet
        await stream.write(subscribe_books(20, SHARE.uid, FUTURE.uid))
        times = []
        while (message := await stream.read()).WhichOneof("payload") != "trading_status":
            if message.HasField("orderbook"):
                times.append(to_ns(message.orderbook.time))
        assert len(times) == 5
        assert times == sorted(times)
        assert server.clock.now_ns() >= server.endpoint.market_end_ns

    run(tmp_path, scenario, speed=100, entry_latency_ms=20)


def test_fast_bytes_of_a_book_are_the_book(tmp_path: Path) -> None:
    server = PaperServer(MARKET, endpoint_path=tmp_path / "e.json")
    dice = random.Random(5)
    for listing in server.exchange.listings:
        rows = range(len(listing.books))
        listing.books.flags[:] = [row % 2 for row in rows]
        for depth in (1, 10, 50):
            encoder = BookEncoder(listing, depth)
            for row in [*rows, *(dice.choice(rows) for _ in range(20))]:  # in any order, and again
                fast = pb.MarketDataResponse.FromString(encoder.encode(row))
                assert fast == pb.MarketDataResponse(orderbook=messages_market.book(listing, row, depth))


def test_a_span_begins_with_the_book_that_was_standing(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        assert server.endpoint.market_start_ns == T0 + 2 * SECOND_NS
        assert server.endpoint.market_end_ns == T0 + 4 * SECOND_NS
        request = pb.GetOrderBookRequest(depth=1, instrument_id=SHARE.uid)
        assert (await client.call("MarketDataService/GetOrderBook", request)).asks[0].quantity == 6
        assert (
            await client.order(quantity=6)
        ).lots_executed == 6  # the clock stands; orders need not wait for it

    run(tmp_path, scenario, from_ns=T0 + 1500 * MILLISECOND_NS, to_ns=T0 + 9 * SECOND_NS, entry_latency_ms=20)


def test_the_tape_is_in_order_of_receipt_with_trades_first() -> None:
    tape = Tape.build(MARKET)
    assert tape.recv_ns.tolist() == sorted(tape.recv_ns.tolist())
    told = [
        (
            int(ns - T0) // MILLISECOND_NS,
            tape.instruments[i].ticker,
            "book" if kind == BOOK else "trade",
            int(row),
        )
        for ns, i, kind, row in zip(tape.recv_ns, tape.instrument, tape.kind, tape.row, strict=True)
    ]
    assert told == [
        (0, "SIMP", "book", 0), (0, "SIMF", "book", 0), (1000, "SIMP", "trade", 0), (1000, "SIMP", "book", 1),
        (2000, "SIMP", "trade", 1), (3000, "SIMP", "trade", 2), (4000, "SIMF", "book", 1),
        (9000, "SIMP", "book", 2),
    ]  # fmt: skip


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nothing to play"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", from_ns=T0 + 10**15)
    with pytest.raises(ConfigError, match="loopback only"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", host="0.0.0.0")
    with pytest.raises(ConfigError, match="negative"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", speed=-1)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async def start(port: int) -> None:
        await PaperServer(MARKET, endpoint_path=tmp_path / "e.json", port=port).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*--port 0"):
            asyncio.run(start(port))


def test_the_command_serves_a_recording_until_it_is_told_to_stop(tmp_path: Path) -> None:
    write_recording(
        tmp_path / "recording", [SHARE_DAY, FUTURE_DAY], source="test", watermark="SIMULATED",
        tariff="simulated",
        provenance={},
    )  # fmt: skip
    command = [
        sys.executable, "-m", "market.paper", "--recording", str(tmp_path / "recording"), "--tickers", "SIMP",
        "--endpoint", str(tmp_path / "run" / "endpoint.json"), "--speed", "50",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            endpoint = Endpoint.read(tmp_path / "run" / "endpoint.json")
            assert endpoint.target in ready
            for word in ("SIMULATED", "SIMP", "x50", "2026-01-15"):
                assert word in ready
            assert (endpoint.pid, endpoint.speed) == (process.pid, 50.0)

            async def talk() -> None:
                client = Client(endpoint)
                stream = client.stream("MarketDataStreamService/MarketDataStream")
                await stream.write(subscribe_books(10, SHARE.uid))
                while (await stream.read()).WhichOneof("payload") != "trading_status":
                    pass
                await client.channel.close()

            asyncio.run(asyncio.wait_for(talk(), 60))
            process.send_signal(signal.SIGTERM)
            farewell, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "6 of 6 events played" in farewell
    assert not (tmp_path / "run" / "endpoint.json").exists()
    stats = json.loads((tmp_path / "run" / "paper-stats.json").read_text())
    assert (stats["books_sent"], stats["orders"]) == (3, 0)


def test_the_command_explains_a_missing_recording(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "market.paper", "--recording", str(tmp_path / "nowhere")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_simulates_a_market_and_says_how_to_reach_it(tmp_path: Path) -> None:
    plan, roots = tmp_path / "faults.json", tmp_path / "roots.pem"
    plan.write_text('{"faults": [{"name": "unavailable", "method": "UsersService/GetInfo", "count": 1}]}')
    command = [
        sys.executable, "-m", "market.paper", "--simulate", "--hours", "0.02", "--seed", "3",
        "--tickers", "SIMP", "--endpoint", str(tmp_path / "endpoint.json"), "--speed", "100",
        "--faults", str(plan), "--write-roots", str(roots),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        try:
            assert process.stdout is not None
            said = "".join(process.stdout.readline() for _ in range(7))
            endpoint = Endpoint.read(tmp_path / "endpoint.json")
            for words in (
                "a simulated market (SIMULATED; SIMP)", f"target={endpoint.target!r}", endpoint.ca_path,
                f"export GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={roots}", "authorization: Bearer", "fault list",
            ):  # fmt: skip
                assert words in said
            assert endpoint.token not in said
            assert Path(endpoint.ca_path).read_bytes() in roots.read_bytes()
            assert roots.read_bytes().count(b"BEGIN CERTIFICATE") > 50

            async def talk() -> None:
                # As the official SDK does it: one file with every root.
                credentials = grpc.ssl_channel_credentials(roots.read_bytes())
                metadata = (("authorization", f"Bearer {endpoint.token}"),)
                async with grpc.aio.secure_channel(endpoint.target, credentials) as channel:
                    ask = stub(channel, "UsersService/GetInfo")
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await ask(pb.GetInfoRequest(), metadata=metadata)
                    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                    await ask(pb.GetInfoRequest(), metadata=metadata)

            asyncio.run(asyncio.wait_for(talk(), 60))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize("platform", ["linux", "elsewhere"])
def test_an_alarm_rings_once_and_may_be_moved(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rung, rings = asyncio.Event(), []
        with monkeypatch.context() as patched:
            patched.setattr("market.paper.alarm.sys.platform", platform)
            alarm = Alarm(lambda: (rings.append(1), rung.set()))
        alarm.set(3600)
        alarm.set(0.01)
        await asyncio.wait_for(rung.wait(), 30)
        alarm.set(0.01)
        alarm.cancel()
        await asyncio.sleep(0.1)
        assert rings == [1]
        alarm.close()

    asyncio.run(body())
