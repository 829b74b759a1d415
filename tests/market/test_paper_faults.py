"""Every fault of the paper exchange, as a plain client of it meets it over real gRPC and TLS."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from paper_market import (
    EXHAUSTED,
    INVALID,
    SHARE,
    STREAM,
    T0,
    Client,
    exchange,
    limit,
    make_books,
    make_trades,
    refused,
    run,
    subscribe_books,
    subscribe_trades,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import to_nano, to_ns
from market.errors import ConfigError
from market.paper import PaperMarket, PaperServer, fault_command
from market.paper.control import CONTROL_PATH
from market.paper.faults import KINDS, Fault, FaultPlan, Faults
from market.types import MILLISECOND_NS, SECOND_NS, InstrumentDay

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
WAIT_S = 30.0

BOOKS = make_books(
    [(100 * k, [(30_000, 10 + k), (29_999, 5)], [(30_002, 10 + k), (30_003, 5)]) for k in range(50)]
)
TRADES = make_trades([(100 * k + 50, 30_000, 1 + k, -1) for k in range(50)])
MARKET = PaperMarket((InstrumentDay(SHARE, "2026-01-15", BOOKS, TRADES),))


def at(k: int) -> int:
    """Market time of book ``k``."""
    return T0 + 100 * k * MILLISECOND_NS


async def opened(client: Client, *requests: pb.MarketDataRequest) -> Any:
    """A market data stream with its subscriptions answered."""
    stream = client.stream(STREAM)
    for request in requests or (subscribe_books(20, SHARE.uid),):
        await stream.write(request)
        assert (await stream.read()).WhichOneof("payload").startswith("subscribe_")
        assert (await stream.read()).HasField("ping")
    return stream


def size(message: pb.MarketDataResponse) -> int:
    """Which book it is."""
    return message.orderbook.asks[0].quantity - 10


async def books(stream: Any, count: int) -> list[int]:
    return [size(await stream.read()) for _ in range(count)]


async def silent(stream: Any, seconds: float = 0.3) -> asyncio.Future[Any]:
    """Nothing comes for so long; the read that waits goes on (cancelling it would end the call)."""
    reading = asyncio.ensure_future(stream.read())
    done, _ = await asyncio.wait({reading}, timeout=seconds)
    assert not done
    return reading


async def struck(server: PaperServer, name: str, times: int = 1) -> None:
    """The fault has struck so often."""
    async with asyncio.timeout(WAIT_S):
        while server.faults.struck().get(name, 0) < times:
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- streams


def test_a_muted_stream_says_nothing_while_a_new_one_speaks(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        first = await opened(client)
        await server.play_until(at(0))
        assert await books(first, 1) == [0]
        server.faults.add(Fault("mute_stream", count=1))
        await first.write(pb.MarketDataRequest(ping={}))
        await struck(server, "mute_stream")
        waiting = await silent(first)
        second = await opened(client)
        await server.play_until(at(1))
        assert await books(second, 1) == [1]
        assert not waiting.done()
        assert not first.done()  # as a real one: it looks alive

    run(tmp_path, scenario, market=MARKET)


def test_a_mute_ends_by_itself_or_when_it_is_taken_back(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(Fault("mute_stream", count=1))
        await server.play_until(at(0))
        await struck(server, "mute_stream")
        server.faults.clear("mute_stream")
        await server.play_until(at(2))
        assert await books(stream, 2) == [1, 2]  # what was said meanwhile is lost
        server.faults.add(Fault("mute_stream", count=1, ms=100))
        await server.play_until(at(3))
        await struck(server, "mute_stream", 2)
        await asyncio.sleep(0.15)
        await server.play_until(at(4))
        assert await books(stream, 1) == [4]

    run(tmp_path, scenario, market=MARKET)


def test_delayed_messages_keep_their_order(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(Fault("delay", count=1, ms=300))
        started = time.monotonic()
        await server.play_until(at(2))
        assert await books(stream, 3) == [0, 1, 2]
        assert time.monotonic() - started >= 0.3
        server.faults.clear()
        await server.play_until(at(3))
        assert await books(stream, 1) == [3]

    run(tmp_path, scenario, market=MARKET)


def test_duplicates_and_reordering(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(Fault("duplicate", count=1))
        await server.play_until(at(1))
        assert await books(stream, 3) == [0, 0, 1]
        server.faults.add(Fault("reorder", count=1))
        await server.play_until(at(4))
        assert await books(stream, 3) == [3, 2, 4]

    run(tmp_path, scenario, market=MARKET)


def test_faults_choose_by_instrument_and_payload(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client, subscribe_books(1, SHARE.uid), subscribe_trades(SHARE.uid))
        server.faults.add(Fault("duplicate", instrument="NOPE"))
        server.faults.add(Fault("duplicate", instrument="SIMP", payload="trade"))
        await server.play_until(at(1))
        kinds = [(await stream.read()).WhichOneof("payload") for _ in range(4)]
        assert kinds == ["orderbook", "trade", "trade", "orderbook"]

    run(tmp_path, scenario, market=MARKET)


@pytest.mark.parametrize("name", ["crossed_book", "inconsistent_book", "not_consistent_flag"])
def test_books_that_cannot_be(tmp_path: Path, name: str) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(Fault(name, count=1))
        await server.play_until(at(1))
        bad, good = (await stream.read()).orderbook, (await stream.read()).orderbook
        seen = {
            "crossed_book": lambda b: to_nano(b.bids[0].price) - to_nano(b.asks[0].price) == SHARE.tick_nano,
            "inconsistent_book": lambda b: to_nano(b.bids[0].price) < to_nano(b.bids[1].price),
            "not_consistent_flag": lambda b: not b.is_consistent,
        }
        assert [kind for kind, sign in seen.items() if sign(bad)] == [name]
        assert [kind for kind, sign in seen.items() if sign(good)] == []
        request = pb.GetOrderBookRequest(depth=1, instrument_id=SHARE.uid)
        book = await client.call("MarketDataService/GetOrderBook", request)
        assert to_nano(book.bids[0].price) < to_nano(book.asks[0].price)  # the market itself is sound

    run(tmp_path, scenario, market=MARKET)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault("unavailable", method="MarketDataStreamService", count=1), UNAVAILABLE, "upstream"),
        (Fault("cancelled", count=1), grpc.StatusCode.CANCELLED, "RST_STREAM"),
    ],
)
def test_an_open_stream_breaks_off(tmp_path: Path, fault: Fault, code: grpc.StatusCode, words: str) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(fault)
        await server.play_until(at(0))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert (caught.value.code(), words in caught.value.details()) == (code, True)
        await opened(client)

    run(tmp_path, scenario, market=MARKET)


def test_order_streams_can_be_muted_on_their_own(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        states = client.stream("OrdersStreamService/OrderStateStream", pb.OrderStateStreamRequest())
        assert (await states.read()).HasField("subscription")
        server.faults.add(Fault("mute_stream", method="OrdersStreamService"))
        market = await opened(client)
        await client.order()
        await server.play_until(at(1))
        assert await books(market, 1) == [1]
        await silent(states)

    run(tmp_path, scenario, market=MARKET)


# ---------------------------------------------------------------- the connection


def test_goaway_ends_the_streams_and_the_port_serves_on(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        order = await client.order(**limit(299_990_000_000))
        server.faults.add(Fault("goaway", count=1))
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)) as caught:
            await asyncio.wait_for(stream.read(), 10)
        if isinstance(caught.value, grpc.aio.AioRpcError):
            assert caught.value.code() in (UNAVAILABLE, grpc.StatusCode.CANCELLED)
        while True:  # the port is closed for a moment; the channel comes back by itself
            try:
                known = await client.state(order.order_id)
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() == UNAVAILABLE
                await asyncio.sleep(0.1)
        assert known.lots_requested == 1
        again = await opened(client)
        await server.play_until(at(0))
        assert await books(again, 1) == [0]
        assert server.stats()["restarts"] == 1

    run(tmp_path, scenario, market=MARKET)


def test_calls_may_finish_before_a_goaway_ends_them(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        server.faults.add(Fault("slow_ack", count=1, ms=400))
        placing = asyncio.create_task(client.order())
        await struck(server, "slow_ack")
        server.faults.add(Fault("goaway", count=1, ms=3000))
        assert (await placing).lots_executed == 1
        await struck(server, "goaway")
        assert server.stats()["faults_struck"] == {"slow_ack": 1, "goaway": 1}
        assert server.faults.quiet

    run(tmp_path, scenario, market=MARKET)


def test_a_half_open_connection_is_up_and_dead(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client)
        server.faults.add(Fault("half_open", count=1))
        await struck(server, "half_open")
        await server.play_until(at(0))
        await silent(stream)
        with pytest.raises(TimeoutError):  # a deadline of ours; the library would wait for ever
            await asyncio.wait_for(client.call("UsersService/GetInfo", pb.GetInfoRequest()), 0.5)
        other = Client(server.endpoint)  # a new connection is sound
        try:
            await other.call("UsersService/GetInfo", pb.GetInfoRequest())
            fresh = await opened(other)
            await server.play_until(at(1))
            assert await books(fresh, 1) == [1]
        finally:
            await other.channel.close()

    run(tmp_path, scenario, market=MARKET, wire_faults=True)


def test_half_open_is_refused_without_the_relay(tmp_path: Path) -> None:
    plan = FaultPlan((Fault("half_open"),))
    with pytest.raises(ConfigError, match="--wire-faults"):
        PaperServer(MARKET, endpoint_path=tmp_path / "e.json", faults=plan)


# ---------------------------------------------------------------- requests


def test_a_lost_reply_leaves_the_order_in_place(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        server.faults.add(Fault("lost_reply_70002", count=1))
        key = str(uuid.uuid4())
        await refused("70002", grpc.StatusCode.INTERNAL, client.order(order_id=key))
        state = await client.state(key, pb.ORDER_ID_TYPE_REQUEST)
        assert (state.order_request_id, state.lots_executed) == (key, 1)

    run(tmp_path, scenario, market=MARKET)


def test_a_repeated_key_can_be_refused(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        key = str(uuid.uuid4())
        first = await client.order(order_id=key)
        assert (await client.order(order_id=key)).order_id == first.order_id
        server.faults.add(Fault("duplicate_30057"))
        await refused("30057", INVALID, client.order(order_id=key))
        await client.order()

    run(tmp_path, scenario, market=MARKET)


def test_resource_exhausted_says_when_to_come_back(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        server.faults.add(Fault("resource_exhausted", method="UsersService", count=1))
        error = await refused("80002", EXHAUSTED, client.call("UsersService/GetInfo", pb.GetInfoRequest()))
        trailers = dict(error.trailing_metadata())
        assert trailers["x-ratelimit-remaining"] == "0"
        assert 1 <= int(trailers["x-ratelimit-reset"]) <= 60
        assert len(trailers["x-tracking-id"]) == 32
        assert "limit" in trailers["message"]
        assert dict(error.initial_metadata()) == {}
        await client.call("UsersService/GetInfo", pb.GetInfoRequest())
        server.faults.add(Fault("resource_exhausted", method=STREAM, count=1))
        await refused("80001", EXHAUSTED, client.stream(STREAM).read())

    run(tmp_path, scenario, market=MARKET)


def test_unavailable_comes_without_metadata(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        server.faults.add(Fault("unavailable", method="UsersService/GetInfo", count=1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("UsersService/GetInfo", pb.GetInfoRequest())
        assert caught.value.code() == UNAVAILABLE
        assert not caught.value.initial_metadata()
        assert not caught.value.trailing_metadata()
        await client.call("UsersService/GetInfo", pb.GetInfoRequest())

    run(tmp_path, scenario, market=MARKET)


def test_a_slow_acknowledgement_comes_after_the_deed(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        server.faults.add(Fault("slow_ack", count=1, ms=60_000))
        key = str(uuid.uuid4())
        placing = asyncio.create_task(client.order(order_id=key))
        await struck(server, "slow_ack")
        assert (await client.state(key, pb.ORDER_ID_TYPE_REQUEST)).lots_executed == 1
        assert not placing.done()  # a minute later it would be
        placing.cancel()
        server.faults.add(Fault("slow_ack", count=1, ms=50))
        assert (await client.order()).lots_executed == 1

    run(tmp_path, scenario, market=MARKET)


# ---------------------------------------------------------------- orders


def test_an_order_is_filled_in_part(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(at(0))
        server.faults.add(Fault("partial_fill", percent=50, count=1))
        assert (await client.order(quantity=4)).lots_executed == 2
        assert (await client.order(quantity=4)).lots_executed == 4

    run(tmp_path, scenario, market=MARKET)


def test_the_exchange_id_comes_late(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        states = client.stream("OrdersStreamService/OrderStateStream", pb.OrderStateStreamRequest())
        assert (await states.read()).HasField("subscription")
        await server.play_until(at(0))
        server.faults.add(Fault("internal_id_first", ms=150, count=1))
        placed = await client.order(**limit(299_980_000_000))
        internal = (await states.read()).order_state
        assert uuid.UUID(internal.order_id)
        await silent(states)
        await server.play_until(at(2))
        assert placed.order_request_id == internal.order_request_id
        request = pb.GetOrdersRequest(account_id=client.account_id)
        (known,) = (await client.call("OrdersService/GetOrders", request)).orders
        assert known.order_id.isdigit()

    run(tmp_path, scenario, market=MARKET)


# ---------------------------------------------------------------- the switchboard


def test_faults_are_switched_over_the_wire(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        call = client.channel.unary_unary(CONTROL_PATH)
        entry = {"name": "not_consistent_flag", "instrument": "SIMP", "count": 2}
        answer = json.loads(await call(json.dumps({"set": [entry]}).encode(), metadata=client.metadata))
        assert answer == {"set": [entry], "struck": {}}
        stream = await opened(client)
        await server.play_until(at(3))
        assert [(await stream.read()).orderbook.is_consistent for _ in range(4)] == [False, False, True, True]
        answer = json.loads(await call(b"{}", metadata=client.metadata))
        assert answer == {"set": [], "struck": {"not_consistent_flag": 2}}
        for bad in (b"{", b"[]", b'{"set": [{"name": "nonsense"}]}', b'{"set": [{"name": "half_open"}]}'):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(bad, metadata=client.metadata)
            assert caught.value.code() == INVALID
        stranger = (("authorization", "Bearer nobody"),)
        await refused("40003", grpc.StatusCode.UNAUTHENTICATED, call(b"{}", metadata=stranger))

    run(tmp_path, scenario, market=MARKET)


def test_the_fault_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--endpoint", str(tmp_path / "endpoint.json")]
    plan = tmp_path / "plan.json"
    plan.write_text('{"seed": 3, "faults": [{"name": "goaway", "after_s": 60}]}')

    async def body() -> None:
        async with exchange(tmp_path, market=MARKET) as (server, _):
            command = asyncio.to_thread(
                fault_command.run, ["delay", "--ms", "250", "--payload", "trade", *where]
            )
            assert await command == 0
            assert server.faults.active() == [Fault("delay", ms=250, payload="trade")]
            await asyncio.to_thread(fault_command.run, ["clear", *where])
            await asyncio.to_thread(fault_command.run, ["file", str(plan), *where])
            assert server.faults.active() == [Fault("goaway", after_s=60)]

    asyncio.run(asyncio.wait_for(body(), 60))
    assert 'set: {"name": "delay", "payload": "trade", "ms": 250}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"faults": [{"name": "nonsense"}]}, "nonsense.*mute_stream"),
        ({"faults": [{"name": "delay", "probability": 2}]}, "between 0 and 1"),
        ({"faults": [{"name": "delay", "size": 2}]}, "'size'"),
        ({"faults": [{"name": "goaway", "percent": 5}]}, "does not read percent"),
        ({"faults": [{"name": "delay", "count": 0}]}, "below 1"),
        ({"faults": "delay"}, "fault plan"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_mistakes_in_a_plan_are_named(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "faults.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=words):
        FaultPlan.read(path)


def test_equal_seeds_strike_equally_and_alone() -> None:
    half = Fault("duplicate", probability=0.5)

    def strikes(seed: int, *others: Fault) -> list[bool]:
        faults = Faults(FaultPlan((half, *others), seed))
        return [faults.strikes("duplicate", method=STREAM) is not None for _ in range(64)]

    assert strikes(1) == strikes(1) == strikes(1, Fault("reorder", probability=0.3))
    assert strikes(1) != strikes(2)
    assert 10 < sum(strikes(1)) < 54


def test_a_fault_has_its_time() -> None:
    now = [100.0]
    faults = Faults(now_s=lambda: now[0])
    faults.add(Fault("delay", after_s=5, seconds=10))
    struck = []
    for now[0] in (104.0, 105.0, 114.9, 115.0):
        struck.append(faults.strikes("delay", method=STREAM) is not None)
    assert struck == [False, True, True, False]
    assert faults.active() == []


def test_every_kind_is_described() -> None:
    assert all(kind.text for kind in KINDS.values())
    text = (Path(__file__).resolve().parents[2] / "docs" / "paper-faults.md").read_text("utf-8")
    assert [name for name in KINDS if f"`{name}`" not in text] == []


def test_times_of_books_are_not_touched(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        server.faults.add(Fault("crossed_book"))
        stream = await opened(client)
        await server.play_until(at(1))
        times = [to_ns((await stream.read()).orderbook.time) for _ in range(2)]
        assert times == [at(0) - 3 * MILLISECOND_NS, at(1) - 3 * MILLISECOND_NS]
        assert SECOND_NS > times[1] - times[0] > 0

    run(tmp_path, scenario, market=MARKET)
