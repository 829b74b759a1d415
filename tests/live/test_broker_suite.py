"""The abstract suite, passed by every broker: paper exchange, backtest exchange, replay, SDK transport."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from broker_suite import (
    DAYS,
    FEE_PPM,
    INSTRUMENTS,
    T0,
    Bench,
    BrokerSuite,
    Play,
    RemoteBench,
    RemoteSuite,
    Scenario,
    Told,
)  # fmt: skip
from core_bench import KEY, config, model

from live.broker.api import TinkoffAPI
from live.broker.channel import read_paper_endpoint
from live.broker.client import OrderReport
from live.broker.sdk import SdkMissing, find_sdk
from live.clock import MarketClock
from live.core.commands import CancelOrder, PlaceOrder, QueryOrder
from live.core.events import OpenOrder, OrderUpdate, Reconciled, Timer
from live.journal import ORDER_COMMANDS, Header, JournalReader, JournalWriter
from live.replay import JournalBroker
from live.simbroker import SimBroker
from market.latency import Latency
from market.paper import PaperMarket, PaperServer
from market.stream import merge
from market.types import SECOND_NS, Instrument, InstrumentDay

WAIT_S = 20.0


def _note(told: Told, news: OrderReport | OrderUpdate) -> Told:
    """One more piece of news about an order."""
    told.status, told.lots_executed, told.reason = news.status, news.lots_executed, news.reason
    told.exchange_order_id = news.exchange_order_id or told.exchange_order_id
    told.not_found = isinstance(news, OrderReport) and news.not_found
    told.fills |= {fill.trade_id: fill for fill in news.fills}
    told.history.append((news.status, news.lots_executed))
    return told


# ---- the client against the paper exchange, over TLS


class PaperBench(RemoteBench):
    def __init__(self, server: PaperServer, api: TinkoffAPI) -> None:
        super().__init__()
        self._server, self._api = server, api
        self._told: dict[str, Told] = {}

    def report(self, report: OrderReport) -> None:
        _note(self._told.setdefault(report.client_order_id, Told()), report)

    async def account(self) -> str:
        return await self._api.client.choose_account()

    async def instrument(self, name: str) -> Instrument:
        return await self._api.client.instrument(name)

    def lose_next_answer(self) -> None:
        self._server.lose_reply("OrdersService/PostOrder")

    async def place(self, order: PlaceOrder) -> Told:
        return _note(Told(), await self._api.client.place(order, INSTRUMENTS[order.ticker]))

    async def cancel(self, key: str) -> Told | None:
        report = await self._api.client.cancel(key, "")
        return None if report is None else _note(Told(), report)

    async def query(self, key: str) -> Told | None:
        return _note(Told(), await self._api.client.query(key))

    async def state(self) -> tuple[dict[str, int], tuple[OpenOrder, ...]]:
        state = await self._api.client.state()
        assert state.odd_units == {}
        return state.positions, state.open_orders

    async def advance(self, second: float) -> None:
        await self._server.play_until(T0 + int(second * SECOND_NS))

    def told(self, key: str) -> Told:
        return self._told.get(key, Told())

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)


async def _on_paper(folder: Path, scenario: Scenario, transport: str) -> None:
    path = folder / "endpoint.json"
    market = PaperMarket(DAYS)
    server = PaperServer(market, endpoint_path=path, speed=0, entry_latency_ms=0)
    endpoint = await server.start()
    api = TinkoffAPI(read_paper_endpoint(path).access, transport=transport)
    link = None
    task = None
    try:
        await api.client.choose_account()
        found = [await api.client.instrument(name) for name in INSTRUMENTS]
        api.client.set_fees(FEE_PPM)
        bench = PaperBench(server, api)
        clock = MarketClock(endpoint.market_start_ns, endpoint.speed)
        link = api.connect({i.uid: i for i in found}, clock, lambda event: None, bench.report, depth=20)
        task = asyncio.create_task(link.run())
        await bench.until(lambda: link.up)
        await bench.advance(0.5)
        await scenario(bench)
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await api.close()
        await server.stop()


class TestPaperExchange(RemoteSuite):
    @pytest.fixture
    def play(self, tmp_path: Path) -> Play:
        return lambda scenario: asyncio.run(_on_paper(tmp_path, scenario, "native"))


def _has_sdk() -> bool:
    try:
        find_sdk()
    except SdkMissing:
        return False
    return True


if _has_sdk():

    class TestSdkTransport(RemoteSuite):
        """The same client, its calls made by the official SDK."""

        @pytest.fixture
        def play(self, tmp_path: Path) -> Play:
            return lambda scenario: asyncio.run(_on_paper(tmp_path, scenario, "sdk"))

else:

    def test_the_sdk_transport() -> None:
        pytest.skip(
            "the official SDK is not installed here (docs/broker.md says how): its suite does not run"
        )


# ---- brokers of commands, whose time is simulated


Asked = PlaceOrder | CancelOrder | QueryOrder


class CommandBench(Bench):
    """What is asked for is answered at once, by what ``_send`` returns."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Told] = {}

    @abstractmethod
    def _send(self, command: Asked) -> list[OrderUpdate]: ...

    def _ask(self, command: Asked) -> Told | None:
        answers = [u for u in self._send(command) if u.client_order_id == command.client_order_id]
        return _note(Told(), answers[-1]) if answers else None

    async def place(self, order: PlaceOrder) -> Told:
        answer = self._ask(order)
        assert answer is not None
        return answer

    async def cancel(self, key: str) -> Told | None:
        return self._ask(CancelOrder(key, "suite"))

    async def query(self, key: str) -> Told | None:
        return self._ask(QueryOrder(key, 1))

    def told(self, key: str) -> Told:
        return self._told.get(key, Told())

    async def until(self, condition: Callable[[], object]) -> None:
        assert condition()


# ---- the exchange of the backtest


class SimBench(CommandBench):
    """``journal``: where everything asked and answered is written down, as a session does."""

    def __init__(self, journal: JournalWriter | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._broker = SimBroker(INSTRUMENTS, FEE_PPM, Latency())
        self._now_ns = T0
        self._market = self._play_market()
        self._next = next(self._market)
        self._play_on(T0 + SECOND_NS // 2)

    def _play_market(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """(when, what) of the whole market, in the order of every driver."""
        events: list[tuple[int, Callable[[], None]]] = []
        for day in DAYS:
            b, t = day.books, day.trades
            kinds, rows = merge(b, t)
            for kind, row in zip(kinds.tolist(), rows.tolist(), strict=True):
                at = int(b.recv_ns[row] if kind else t.recv_ns[row])
                feed = self._feed_book if kind else self._feed_trade
                events.append((at, partial(feed, day, row, at)))
        yield from sorted(events, key=lambda event: event[0])
        yield (T0 + 3600 * SECOND_NS, lambda: None)

    def _feed_book(self, day: InstrumentDay, row: int, at_ns: int) -> None:
        b = day.books
        sides = (b.bid_px[row], b.bid_qty[row], b.ask_px[row], b.ask_qty[row])
        self._broker.on_book(day.instrument.ticker, *sides, at_ns)

    def _feed_trade(self, day: InstrumentDay, row: int, at_ns: int) -> None:
        t = day.trades
        self._broker.on_trade(day.instrument.ticker, int(t.px[row]), int(t.qty[row]), int(t.side[row]), at_ns)

    def _play_on(self, until_ns: int) -> None:
        while self._next[0] <= until_ns:
            self._next[1]()
            self._next = next(self._market)
        self._now_ns = until_ns
        self._collect()

    def _collect(self) -> list[OrderUpdate]:
        updates = self._broker.poll(self._now_ns)
        for update in updates:
            _note(self._told.setdefault(update.client_order_id, Told()), update)
            self._write(update)
        self._write(Timer(self._now_ns))
        return updates

    def _write(self, event: OrderUpdate | Timer | Reconciled) -> None:
        if self._journal is not None:
            self._journal.event(event)

    def _send(self, command: Asked) -> list[OrderUpdate]:
        if self._journal is not None:
            self._journal.commands([command])
        self._broker.send(command, self._now_ns)
        return self._collect()

    async def state(self) -> tuple[dict[str, int], tuple[OpenOrder, ...]]:
        reconciled = self._broker.reconciled(self._now_ns)
        self._write(reconciled)
        return {t: n for t, n in reconciled.positions.items() if n}, reconciled.open_orders

    async def advance(self, second: float) -> None:
        self._play_on(T0 + int(second * SECOND_NS))


class TestBacktestExchange(BrokerSuite):
    @pytest.fixture
    def play(self) -> Play:
        return lambda scenario: asyncio.run(scenario(SimBench()))


# ---- a recorded session, asked again


class ReplayBench(CommandBench):
    """Answers what the journal says was answered; ``broker.difference``: it was asked for something else."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.broker = JournalBroker()
        self._records = iter(JournalReader(folder))
        self._now_ns = T0
        self._read()

    def _read(self) -> list[OrderUpdate]:
        """What the journal has up to the next moment of rest."""
        updates = []
        for record in self._records:
            if isinstance(record, ORDER_COMMANDS):
                self.broker.meet(record, self._now_ns)  # type: ignore[arg-type]
                continue
            self.broker.expect_nothing_left(self._now_ns)
            if isinstance(record, Timer):
                self._now_ns = record.now_ns
                break
            assert isinstance(record, OrderUpdate)
            updates.append(record)
            _note(self._told.setdefault(record.client_order_id, Told()), record)
        return updates

    def _send(self, command: Asked) -> list[OrderUpdate]:
        self.broker.send(command)
        return self._read()

    async def state(self) -> tuple[dict[str, int], tuple[OpenOrder, ...]]:
        record = next(self._records)
        assert isinstance(record, Reconciled)
        return {t: n for t, n in record.positions.items() if n}, record.open_orders

    async def advance(self, second: float) -> None:
        self._read()
        assert self._now_ns == T0 + int(second * SECOND_NS)


class TestReplay(BrokerSuite):
    @pytest.fixture
    def play(self, tmp_path: Path) -> Play:
        def run(scenario: Scenario) -> None:
            header = Header("suite", KEY, config(), dict(INSTRUMENTS), model(), "SIMULATED")
            writer = JournalWriter(tmp_path, header)
            asyncio.run(scenario(SimBench(writer)))
            writer.close()
            again = ReplayBench(tmp_path)
            asyncio.run(scenario(again))
            assert again.broker.difference is None

        return run

    def test_another_order_is_noticed(self, tmp_path: Path) -> None:
        header = Header("suite", KEY, config(), dict(INSTRUMENTS), model(), "SIMULATED")
        writer = JournalWriter(tmp_path, header)
        bench = SimBench(writer)
        asyncio.run(bench.place(bench.order(lots=2)))
        writer.close()
        again = ReplayBench(tmp_path)
        asyncio.run(again.place(again.order(lots=3)))
        assert again.broker.difference is not None
        assert '"SIMP",1,2' in again.broker.difference
        assert '"SIMP",1,3' in again.broker.difference
