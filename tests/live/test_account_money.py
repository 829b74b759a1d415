"""Our books and the broker's account, in money: every deal of shares and futures to the nano-rouble.

The future's points are worth an odd amount of money and its commission is never a whole number, as with an
index future quoted in another currency; the broker says so by ``min_price_increment_amount``.

With ``SCALPER_SDK_SITE`` (a folder of packages with the official SDK) the same goes through the SDK's
transport; ``test_broker_sdk.py`` asks for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from live.broker.channel import read_paper_endpoint
from live.broker.client import BrokerClient
from live.broker.operations import Operation, read_operations
from live.core.commands import PlaceOrder
from live.core.positions import Position
from live.day_end import OurDeal, compare
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.paper.server import PaperServer
from market.recording import Recording, write_recording
from market.simulator import SimSpec, simulate_recording
from market.types import NANO, SECOND_NS, Instrument

DAY = "2026-01-15"
POINT = 10 * NANO
"""The price step of the future, points; worth ``STEP_NANO`` of money."""
STEP_NANO = 13_034_781_937
DEALS = ((1, 7), (1, 3), (-1, 4), (-1, 9), (-1, 2), (1, 1), (1, 8), (-1, 3))
"""(side, lots): larger, smaller, reversed, reversed again, and at the end closed."""
SDK_SITE = os.environ.get("SCALPER_SDK_SITE", "")
CASH_RUB = 100_000_000
PAGE = 1_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("money")
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
    made = simulate_recording(folder / "made", specs, hours=0.05)[0]
    days = [made.read(i.ticker, day) for i in made.info.instruments for day in made.info.days[i.ticker]]
    for day in days:
        if day.instrument.kind == "future":
            day.instrument = replace(day.instrument, tick_nano=POINT, tick_value_nano=STEP_NANO, lot=1)
    return write_recording(
        folder / "odd", days, source="test", watermark="SIMULATED", tariff="trader", provenance={}
    )


@dataclass
class Books:
    """What we know of one instrument: its position, as the engine keeps it, and its deals."""

    instrument: Instrument
    position: Position
    deals: list[OurDeal]
    realised: dict[str, int]
    """By deal, before fees."""


async def trade(server: PaperServer, client: BrokerClient, books: Books, side: int, lots: int) -> None:
    """One market order, booked as its state tells it."""
    key, instrument = str(uuid.uuid4()), books.instrument
    order = PlaceOrder("t", key, instrument.ticker, side, lots, "market", None, "fak", False, "test")
    placing = asyncio.create_task(client.place(order, instrument))
    while not placing.done():
        await asyncio.sleep(0)
        await server.play_until(server.clock.now_ns() + SECOND_NS // 10)
    for fill in (await client.query(key)).fills:
        booked = books.position.book(instrument, side, fill.price_ticks, fill.lots, fill.fee_nano, 1, "t")
        books.realised[fill.trade_id] = booked.realised_nano
        books.deals.append(
            OurDeal(fill.trade_id, instrument.ticker, side, fill.price_ticks, fill.lots, fill.fee_nano)
        )


@dataclass
class Day:
    """Both sides, when all positions are closed."""

    books: dict[str, Books]
    operations: list[Operation]
    payments: dict[str, int]
    """All that the account was paid and charged, by instrument."""
    won: dict[str, int]
    """By deal in a future: its variation margin."""
    cash_nano: int
    from_ns: int


async def paid(client: BrokerClient, from_ns: int, to_ns: int) -> tuple[dict[str, int], dict[str, int]]:
    """(payments by instrument, variation margin by deal) of every operation there is, as the broker sums."""
    request = pb.GetOperationsByCursorRequest(account_id=client.account_id, limit=PAGE)
    getattr(request, "from").CopyFrom(convert.timestamp(from_ns))
    request.to.CopyFrom(convert.timestamp(to_ns))
    reply = await client.call("OperationsService/GetOperationsByCursor", request, wait_s=10.0)
    assert not reply.has_next
    tickers = {i.uid: i.ticker for i in client.instruments.values()}
    payments: dict[str, int] = {}
    won: dict[str, int] = {}
    for item in reply.items:
        if item.instrument_uid in tickers:
            ticker = tickers[item.instrument_uid]
            payments[ticker] = payments.get(ticker, 0) + convert.to_nano(item.payment)
            for deal in item.trades_info.trades:
                won[deal.num] = convert.to_nano(getattr(item, "yield"))
    return payments, won


@pytest.fixture(scope="module")
def day(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Day:
    async def run(folder: Path) -> Day:
        server = PaperServer(recording, endpoint_path=folder / "endpoint.json", speed=0, cash_rub=CASH_RUB)
        await server.start()
        access = read_paper_endpoint(folder / "endpoint.json").access
        if SDK_SITE:
            sys.path.append(SDK_SITE)
        client = BrokerClient(access, {}, transport="sdk" if SDK_SITE else "native")
        try:
            await client.choose_account()
            from_ns = server.endpoint.market_start_ns
            await server.play_until(from_ns + 20 * SECOND_NS)
            books: dict[str, Books] = {}
            for ticker in ("SIMP", "SIMF"):
                instrument = await client.instrument(ticker)
                books[ticker] = Books(instrument, Position(), [], {})
            client.set_fees({t: server.exchange.tariff.ppm(b.instrument) for t, b in books.items()})
            before = (await client.state()).cash_nano
            orders = [(ticker, *deal) for ticker in books for deal in DEALS]
            for ticker, side, lots in _shuffled(orders):
                await trade(server, client, books[ticker], side, lots)
            for one in books.values():
                if one.position.lots:
                    side = -1 if one.position.lots > 0 else 1
                    await trade(server, client, one, side, abs(one.position.lots))
            to_ns = server.clock.now_ns() + SECOND_NS
            operations = await read_operations(client, from_ns, to_ns)
            payments, won = await paid(client, from_ns, to_ns)
            cash = (await client.state()).cash_nano - before
            return Day(books, operations, payments, won, cash, from_ns)
        finally:
            await client.close()
            await server.stop()

    return asyncio.run(run(tmp_path_factory.mktemp("endpoint")))


def _shuffled(orders: list[Any]) -> list[Any]:
    """Both instruments in turn; within each the order of ``DEALS`` does not matter."""
    random.Random(7).shuffle(orders)
    return orders


def test_the_future_is_known_by_what_its_points_are_worth(day: Day) -> None:
    future = day.books["SIMF"].instrument
    assert (future.kind, future.tick_nano, future.tick_value_nano, future.lot) == (
        "future", POINT, STEP_NANO, 1,
    )  # fmt: skip


def test_every_deal_equals_the_brokers_operation_price_lots_and_commission(day: Day) -> None:
    ours = [deal for books in day.books.values() for deal in books.deals]
    report = compare(DAY, ours, day.operations, day.from_ns)
    assert report.equal and report.fee_difference_nano == 0, report.differences
    assert report.broker_deals == len(ours) >= 2 * len(DEALS)
    fees = [deal.fee_nano for deal in day.books["SIMF"].deals]
    assert all(fees) and len({fee % NANO for fee in fees}) > len(fees) // 2  # no whole roubles anywhere


def test_what_each_closing_of_a_future_won_is_its_variation_margin_to_the_nano_rouble(day: Day) -> None:
    future = day.books["SIMF"]
    assert {key: day.won[key] for key in future.realised} == future.realised
    assert sum(1 for won in future.realised.values() if won) >= 3


@pytest.mark.parametrize("ticker", ["SIMP", "SIMF"])
def test_the_accounts_payments_are_our_result_less_our_fees(day: Day, ticker: str) -> None:
    position = day.books[ticker].position
    assert position.lots == 0 and position.cost_nano == 0
    assert day.payments[ticker] == position.realised_nano - position.fees_nano != 0


def test_cash_moved_by_exactly_that(day: Day) -> None:
    def results(books: Mapping[str, Books]) -> int:
        return sum(b.position.realised_nano - b.position.fees_nano for b in books.values())

    assert day.cash_nano == results(day.books) == sum(day.payments.values())
