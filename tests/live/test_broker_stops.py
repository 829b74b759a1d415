"""Protective stops at the broker, against the real paper exchange over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from live.broker.channel import read_paper_endpoint
from live.broker.client import BrokerClient, OrderReport
from live.broker.link import Link
from live.broker.stops import StopDesk
from live.clock import MarketClock
from live.core.commands import PlaceOrder
from live.core.events import Book
from market.contract import invest_pb2 as pb
from market.paper.faults import Fault
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import Instrument

WAIT_S = 20.0
LOTS = 3


class Desk:
    """A stop desk as the session has it, with everything that was reported and seen."""

    def __init__(self, client: BrokerClient, instrument: Instrument, clock: MarketClock) -> None:
        self.client, self.instrument, self.clock = client, instrument, clock
        self.reports: list[OrderReport] = []
        self.books: list[Book] = []
        self.stops = StopDesk(client, clock.now_ns, self.reports.append, look_s=0.1)
        self.sent: set[str] = set()

    def on_report(self, report: OrderReport) -> None:
        told = self.stops.claim(report, report.client_order_id in self.sent)
        if told is not None:
            self.reports.append(told)

    def order(self, kind: str, side: int, ticks: int | None = None, lots: int = LOTS) -> PlaceOrder:
        tif = "fak" if kind == "market" else "day"
        key = str(uuid.uuid4())
        self.sent.add(key)
        return PlaceOrder("t", key, self.instrument.ticker, side, lots, kind, ticks, tif, False, "test")

    async def buy(self) -> None:
        order = self.order("market", 1)
        await self.stops.place(order, self.instrument)
        await until(lambda: self.filled(order.client_order_id) == LOTS)

    def filled(self, key: str) -> int:
        fills = {f.trade_id: f.lots for r in self.reports if r.client_order_id == key for f in r.fills}
        return sum(fills.values())

    def statuses(self, key: str) -> list[str]:
        """As they came: the stream may tell of the child's first state when the list has told of its last."""
        return [r.status for r in self.reports if r.client_order_id == key]

    async def at_the_broker(self) -> list[pb.StopOrder]:
        request = pb.GetStopOrdersRequest(account_id=self.client.account_id)
        reply = await self.client.call("StopOrdersService/GetStopOrders", request, wait_s=5)
        return list(reply.stop_orders)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Recording:
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
    return simulate_recording(tmp_path_factory.mktemp("stops") / "recording", specs, hours=0.1)[0]


def with_desk(recording: Recording, tmp_path: Path, ticker: str, work: Callable) -> None:
    async def run() -> None:
        path = tmp_path / "endpoint.json"
        server = PaperServer(recording, endpoint_path=path, speed=5.0)
        await server.start()
        client = BrokerClient(read_paper_endpoint(path).access, {"SIMP": 50, "SIMF": 50}, time_scale=100)
        clock = MarketClock(server.endpoint.market_start_ns, server.endpoint.speed)
        await client.choose_account()
        desk = Desk(client, await client.instrument(ticker), clock)
        link = Link(client, client.instruments, clock, desk_books(desk), desk.on_report, depth=20)
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(desk.stops.run())]
        try:
            await until(lambda: desk.books)
            await work(server, desk)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await link.close()
            await client.close()
            await server.stop()

    asyncio.run(run())


def desk_books(desk: Desk) -> Callable:
    return lambda event: desk.books.append(event) if isinstance(event, Book) else None


@pytest.mark.parametrize("ticker", ["SIMP", "SIMF"])
def test_a_stop_that_triggers_is_one_order_from_its_intent_to_its_last_deal(recording, tmp_path, ticker):
    async def work(server: PaperServer, desk: Desk) -> None:
        await desk.buy()
        touch = desk.books[-1]
        # So near that the next trades reach it: a sell stop above the market triggers at once.
        stop = desk.order("stop", -1, touch.ask_px[0] + 50)
        report = await desk.stops.place(stop, desk.instrument)
        assert report.status == "NEW" and report.exchange_order_id
        key = stop.client_order_id
        await until(lambda: desk.filled(key) == LOTS)
        await until(lambda: desk.stops.open_stops == 0)
        assert "FILLED" in desk.statuses(key)
        assert {r.client_order_id for r in desk.reports} <= desk.sent  # the child is nobody's order
        assert (await desk.stops.state()).positions == {}

    with_desk(recording, tmp_path, ticker, work)


def test_a_cancelled_stop_is_gone_at_the_broker_and_says_so_once(recording, tmp_path):
    async def work(server: PaperServer, desk: Desk) -> None:
        await desk.buy()
        stop = desk.order("stop", -1, desk.books[-1].bid_px[0] // 2)
        placed = await desk.stops.place(stop, desk.instrument)
        assert [s.stop_order_id for s in await desk.at_the_broker()] == [placed.exchange_order_id]
        report = await desk.stops.cancel(stop.client_order_id, placed.exchange_order_id)
        assert report is not None and report.status == "CANCELLED"
        assert await desk.at_the_broker() == [] and desk.stops.open_stops == 0

    with_desk(recording, tmp_path, "SIMP", work)


def test_a_stop_whose_answer_was_lost_is_recognised_in_the_list_and_never_sent_again(recording, tmp_path):
    async def work(server: PaperServer, desk: Desk) -> None:
        await desk.buy()
        server.faults.add(Fault("slow_ack", method="StopOrdersService/PostStopOrder", count=1, ms=60_000))
        stop = desk.order("stop", -1, desk.books[-1].bid_px[0] // 2)
        report = await desk.stops.place(stop, desk.instrument)
        assert report.status == "UNKNOWN"
        found = await desk.stops.query(stop.client_order_id)
        (listed,) = await desk.at_the_broker()
        assert (found.status, found.exchange_order_id) == ("NEW", listed.stop_order_id)

    with_desk(recording, tmp_path, "SIMP", work)


def test_a_stop_of_an_earlier_session_is_taken_over_and_a_strangers_is_left_alone(recording, tmp_path):
    async def work(server: PaperServer, desk: Desk) -> None:
        await desk.buy()
        ticks = desk.books[-1].bid_px[0] // 2
        ours, foreign = desk.order("stop", -1, ticks), desk.order("stop", -1, ticks - 7)
        placed_ns = desk.clock.now_ns()
        for order in (ours, foreign):
            await desk.stops.place(order, desk.instrument)
        again = StopDesk(desk.client, desk.clock.now_ns, desk.reports.append)
        again.adopt(ours.client_order_id, desk.instrument, -1, LOTS, ticks, placed_ns)
        assert (await again.query(ours.client_order_id)).status == "NEW"
        assert (await again.cancel(ours.client_order_id, "")).status == "CANCELLED"
        (left,) = await desk.at_the_broker()
        assert left.stop_price.units < ticks

    with_desk(recording, tmp_path, "SIMP", work)


def test_a_refused_stop_is_a_rejection_with_the_brokers_reason(recording, tmp_path):
    async def work(server: PaperServer, desk: Desk) -> None:
        report = await desk.stops.place(desk.order("stop", -1, 1, lots=0), desk.instrument)
        assert report.status == "REJECTED" and report.reason
        assert desk.stops.open_stops == 0

    with_desk(recording, tmp_path, "SIMP", work)
