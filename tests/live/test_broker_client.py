"""The broker client against the real paper exchange over TLS: orders, streams, every doubtful outcome."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from live.broker.channel import Access, read_paper_endpoint
from live.broker.client import BrokerClient, status_of
from live.broker.errors import Verdict, classify
from live.broker.link import Link, Policy
from live.clock import MarketClock
from live.core.commands import PlaceOrder
from live.core.events import Book, Connection, Trade
from market.contract import invest_pb2 as pb
from market.errors import BrokerError
from market.paper.faults import Fault
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording

FEES = {"SIMP": 50, "SIMF": 50}
WAIT_S = 20.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Recording:
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
    return simulate_recording(tmp_path_factory.mktemp("broker") / "recording", specs, hours=0.1)[0]


def with_exchange(recording: Recording, tmp_path: Path, work: Callable, **options) -> None:
    """Runs ``work(server, client)`` against a started exchange with both instruments resolved."""

    async def run() -> None:
        path = tmp_path / "endpoint.json"
        server = PaperServer(recording, endpoint_path=path, speed=options.pop("speed", 5.0), **options)
        await server.start()
        client = BrokerClient(read_paper_endpoint(path).access, FEES)
        try:
            await client.choose_account()
            for ticker in FEES:
                await client.instrument(ticker)
            await work(server, client)
        finally:
            await client.close()
            await server.stop()

    asyncio.run(run())


@contextlib.asynccontextmanager
async def linked(server: PaperServer, client: BrokerClient, **options):
    clock = MarketClock(server.endpoint.market_start_ns, server.endpoint.speed)
    events, reports = [], []
    link = Link(client, client.instruments, clock, events.append, reports.append, depth=20, **options)
    task = asyncio.create_task(link.run())
    try:
        yield link, events, reports
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await link.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def market_order(ticker: str = "SIMP", lots: int = 3, side: int = 1) -> PlaceOrder:
    return PlaceOrder("t", str(uuid.uuid4()), ticker, side, lots, "market", None, "fak", False, "test")


def by_ticker(client: BrokerClient, ticker: str):
    return next(i for i in client.instruments.values() if i.ticker == ticker)


async def first_books(events: list) -> None:
    await until(lambda: {e.ticker for e in events if isinstance(e, Book)} == set(FEES))


def test_instruments_are_the_recordings(recording, tmp_path):
    async def work(server, client):
        assert set(client.instruments.values()) == set(recording.info.instruments)
        with pytest.raises(BrokerError, match="NOPE"):
            await client.instrument("NOPE")

    with_exchange(recording, tmp_path, work)


def test_the_last_price_of_an_index_is_read_in_points(recording, tmp_path):
    async def work(server: PaperServer, client: BrokerClient) -> None:
        async with linked(server, client) as (_, events, _reports):
            await first_books(events)
            price = await client.last_price_nano(by_ticker(client, "SIMP").uid)
            assert price is None or price > 0
            with pytest.raises(BrokerError):
                await client.last_price_nano("no-such-index")

    with_exchange(recording, tmp_path, work)


def test_a_wrong_token_or_account_is_one_clear_error(recording, tmp_path):
    async def work(server, client):
        access = client.access
        for changed, words in (
            (Access(access.target, "wrong", "", access.ca_path, True), "token is missing, wrong or expired"),
            (Access(access.target, access.token, "77", access.ca_path, True), "77 is not among the accounts"),
        ):
            other = BrokerClient(changed, {})
            with pytest.raises(BrokerError, match=words):
                await other.choose_account()
            await other.close()

    with_exchange(recording, tmp_path, work)


def test_streams_give_the_recorded_market_in_whole_numbers(recording, tmp_path):
    day = recording.read("SIMP", recording.info.days["SIMP"][0])
    known = {int(t): row for row, t in enumerate(day.books.exch_ns)}

    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await until(lambda: sum(isinstance(e, Book) for e in events) > 40)
            await until(lambda: any(isinstance(e, Trade) for e in events))
            assert isinstance(events[0], Connection)
            assert events[0].up
        books = [e for e in events if isinstance(e, Book) and e.ticker == "SIMP"]
        for book in books:
            row = known[book.exch_ns]
            depth = len(book.bid_px)
            assert book.bid_px == tuple(day.books.bid_px[row, :depth].tolist())
            assert book.ask_qty == tuple(day.books.ask_qty[row, : len(book.ask_qty)].tolist())
        stamps = [e.now_ns for e in events]
        assert stamps == sorted(stamps)
        assert all(e.side in (1, -1) and e.lots > 0 for e in events if isinstance(e, Trade))

    with_exchange(recording, tmp_path, work)


@pytest.mark.parametrize("ticker", ["SIMP", "SIMF"])
def test_an_order_its_fills_and_the_position_agree_on_every_way(recording, tmp_path, ticker):
    async def work(server, client):
        async with linked(server, client) as (_, events, reports):
            await first_books(events)
            order = market_order(ticker)
            placed = await client.place(order, by_ticker(client, ticker))
            await until(lambda: any(r.status == "FILLED" for r in reports))
            asked = await client.query(order.client_order_id)
            streamed = [r for r in reports if r.status == "FILLED"][-1]
            assert placed.status == asked.status == streamed.status == "FILLED"
            assert placed.exchange_order_id == asked.exchange_order_id == streamed.exchange_order_id
            assert asked.fills == streamed.fills
            assert sum(f.lots for f in asked.fills) == 3
            booked = next(o for o in server.exchange.orders if o.key == order.client_order_id)
            assert sum(f.fee_nano for f in asked.fills) == booked.fee_nano
            assert [f.price_ticks for f in asked.fills] == [e.price_ticks for e in booked.executions]
            assert (await client.state()).positions == {ticker: 3}

    with_exchange(recording, tmp_path, work)


def test_a_resting_order_is_listed_cancelled_and_known_to_be_over(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, reports):
            await first_books(events)
            bid = next(e for e in events if isinstance(e, Book) and e.ticker == "SIMP").bid_px[0]
            order = PlaceOrder("t", str(uuid.uuid4()), "SIMP", 1, 2, "limit", bid - 300, "day", False, "test")
            placed = await client.place(order, by_ticker(client, "SIMP"))
            assert placed.status == "NEW"
            listed = (await client.state()).open_orders
            assert [(o.client_order_id, o.side, o.lots) for o in listed] == [(order.client_order_id, 1, 2)]
            assert await client.cancel(order.client_order_id, "") is None  # by our own id
            await until(lambda: any(r.status == "CANCELLED" for r in reports))
            again = await client.cancel(order.client_order_id, placed.exchange_order_id)
            assert again is not None
            assert again.status == "CANCELLED"

    with_exchange(recording, tmp_path, work)


def test_a_lost_reply_is_unknown_and_found_later_never_sent_twice(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            server.lose_reply("OrdersService/PostOrder")
            order = market_order()
            report = await client.place(order, by_ticker(client, "SIMP"))
            assert report.status == "UNKNOWN"
            assert "70002" in report.reason
            found = await client.query(order.client_order_id)
            assert (found.status, found.lots_executed) == ("FILLED", 3)
            assert len(server.exchange.orders) == 1

    with_exchange(recording, tmp_path, work)


def test_an_answer_that_does_not_come_in_time_is_unknown_and_found_later(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            server.faults.add(Fault("slow_ack", method="OrdersService/PostOrder", count=1, ms=60_000))
            order = market_order()
            report = await client.place(order, by_ticker(client, "SIMP"))
            assert (report.status, report.reason[:17]) == ("UNKNOWN", "DEADLINE_EXCEEDED")
            assert (await client.query(order.client_order_id)).status == "FILLED"

    with_exchange(recording, tmp_path, work)


def test_out_of_requests_is_a_refusal_that_is_remembered(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            server.faults.add(Fault("resource_exhausted", method="OrdersService/PostOrder", count=1))
            report = await client.place(market_order(), by_ticker(client, "SIMP"))
            assert (report.status, report.reason[:5]) == ("REJECTED", "80002")
            again = await client.place(market_order(), by_ticker(client, "SIMP"))
            assert (again.status, again.reason) == ("REJECTED", "OWN_RATE_LIMIT")
            assert client.limits.report()["post_order"]["refused"] == 1
            assert (await client.query(str(uuid.uuid4()))).not_found  # other methods go on

    with_exchange(recording, tmp_path, work)


def test_a_key_that_got_there_before_is_looked_for(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            order, instrument = market_order(), by_ticker(client, "SIMP")
            server.faults.add(Fault("lost_reply_70002", count=1))
            server.faults.add(Fault("duplicate_30057"))
            assert (await client.place(order, instrument)).status == "UNKNOWN"
            again = await client.place(order, instrument)
            assert (again.status, again.lots_executed) == ("FILLED", 3)
            assert len(server.exchange.orders) == 1

    with_exchange(recording, tmp_path, work)


def test_refusals_are_refusals(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            instrument = by_ticker(client, "SIMP")
            huge = await client.place(market_order(lots=10_000_000), instrument)
            assert huge.status == "REJECTED"
            assert "90003" in huge.reason
            stranger = await client.query(str(uuid.uuid4()))
            assert (stranger.status, stranger.not_found) == ("UNKNOWN", True)
            assert server.exchange.orders == []

    with_exchange(recording, tmp_path, work)


def test_an_unreachable_broker_leaves_an_order_unknown(recording, tmp_path):
    async def work(server, client):
        instrument = by_ticker(client, "SIMP")
        await server.stop()
        report = await client.place(market_order(), instrument)
        assert report.status == "UNKNOWN"
        with pytest.raises(BrokerError, match="cannot be reached"):
            await client.state()

    with_exchange(recording, tmp_path, work)


def test_cut_streams_come_back_subscribed(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (_, events, _):
            await first_books(events)
            server.cut_streams()
            await until(
                lambda: [e.up for e in events if isinstance(e, Connection)][:3] == [True, False, True]
            )
            seen = len(events)
            await until(lambda: any(isinstance(e, Book) for e in events[seen:]))
            stamps = [e.now_ns for e in events]
            assert stamps == sorted(stamps)

    with_exchange(recording, tmp_path, work)


def test_a_mute_stream_is_found_dead(recording, tmp_path):
    async def work(server, client):
        async with linked(server, client) as (link, events, _):
            link.market.ping_ms = 80  # the exchange pings every 5 s: by this measure it is mute
            await until(lambda: any(isinstance(e, Connection) and not e.up for e in events))
            down = next(e for e in events if isinstance(e, Connection) and not e.up)
            assert "mute" in down.error

    with_exchange(recording, tmp_path, work, speed=0)


def test_the_accounts_own_limits_are_asked_for(recording, tmp_path):
    async def work(server, client):
        documented = {name: row["limit"] for name, row in client.limits.report().items()}
        server._limits.grade("OrdersService/PostOrder", 42)
        assert await client.learn_limits() == ""
        learnt = {name: row["limit"] for name, row in client.limits.report().items()}
        assert learnt == documented | {"post_order": 42}

    with_exchange(recording, tmp_path, work)


def test_a_tariff_that_cannot_be_had_leaves_the_documented_limits(recording, tmp_path):
    async def work(server, client):
        documented = client.limits.report()
        fault = Fault("unavailable", method="UsersService/GetUserTariff", count=10)
        server.faults.add(fault)
        assert "GetUserTariff" in await client.learn_limits()
        assert {k: v["limit"] for k, v in client.limits.report().items()} == {
            k: v["limit"] for k, v in documented.items()
        }

    with_exchange(recording, tmp_path, work)


def test_failures_move_everything_to_the_backup_and_back(recording, tmp_path):
    async def run():
        primary = PaperServer(recording, endpoint_path=tmp_path / "a" / "endpoint.json", speed=5.0)
        backup = PaperServer(recording, endpoint_path=tmp_path / "b" / "endpoint.json", speed=5.0)
        await primary.start()
        await backup.start()
        client = BrokerClient(read_paper_endpoint(tmp_path / "a" / "endpoint.json").access, FEES)
        await client.choose_account()
        for ticker in FEES:
            await client.instrument(ticker)
        other = read_paper_endpoint(tmp_path / "b" / "endpoint.json").access
        async with linked(primary, client, backup=other, policy=Policy(3, 2)) as (_, events, _):
            await first_books(events)
            await primary.stop()
            await until(
                lambda: any(isinstance(e, Connection) and e.up and e.channel == "backup" for e in events)
            )
            assert client.access is other
            seen = len(events)
            await until(lambda: any(isinstance(e, Book) for e in events[seen:]))
        await client.close()
        await backup.stop()

    asyncio.run(run())


# ---- without an exchange ----


class Failed(grpc.aio.AioRpcError):
    def __init__(self, code: grpc.StatusCode, details: str, **metadata: str) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata.items()), details)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Failed(grpc.StatusCode.INVALID_ARGUMENT, "30099"), Verdict.REFUSED),
        (Failed(grpc.StatusCode.PERMISSION_DENIED, "40002"), Verdict.REFUSED),
        (Failed(grpc.StatusCode.FAILED_PRECONDITION, "90003"), Verdict.REFUSED),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "80002"), Verdict.REFUSED),
        (Failed(grpc.StatusCode.INVALID_ARGUMENT, "30057"), Verdict.DUPLICATE),
        (Failed(grpc.StatusCode.NOT_FOUND, "50005"), Verdict.NOT_FOUND),
        (Failed(grpc.StatusCode.INTERNAL, "70001"), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.INTERNAL, "70002"), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, ""), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.UNAVAILABLE, "failed to connect to 127.0.0.1:34413"), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.UNAVAILABLE, "30099"), Verdict.UNKNOWN),
        (Failed(grpc.StatusCode.CANCELLED, "Received RST_STREAM with error code 8"), Verdict.UNKNOWN),
    ],
)  # fmt: skip
def test_only_a_known_code_is_a_refusal(error, verdict):
    assert classify(error).verdict is verdict


def test_the_wait_that_the_broker_asks_for_is_bounded():
    asked = Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "80002", **{"x-ratelimit-reset": "7"})
    assert classify(asked).retry_after_s == 7.0
    asked = Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "80002", **{"x-ratelimit-reset": "999999"})
    assert classify(asked).retry_after_s == 60.0


def test_lots_are_trusted_more_than_the_status_text():
    assert status_of(pb.EXECUTION_REPORT_STATUS_NEW, 1, 1) == "FILLED"
    assert status_of(pb.EXECUTION_REPORT_STATUS_NEW, 1, 3) == "PARTIAL"
    assert status_of(pb.EXECUTION_REPORT_STATUS_CANCELLED, 1, 3) == "CANCELLED"
    assert status_of(99, 0, 3) == "UNKNOWN"
