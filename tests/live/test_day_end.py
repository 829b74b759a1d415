"""At the end of a day our deals equal the broker's operations, or there is a hold and a report."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import KEY, START_NS, Bench, audits, of
from hypothesis import given
from hypothesis import strategies as st

from live.broker.channel import read_paper_endpoint
from live.broker.client import BrokerClient
from live.broker.operations import Operation, read_operations
from live.core import commands as cmd
from live.core import events as ev
from live.core.config import SessionConfig
from live.core.engine import Engine
from live.core.holds import Severity
from live.day_end import KOPECK_NANO, DayWatch, OurDeal, compare, our_deals
from live.storage import Record, Storage
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import SECOND_NS

DAY = "2026-01-15"

DEALS = st.lists(
    st.builds(
        OurDeal, st.uuids().map(str), st.sampled_from(("AAA", "FUT")), st.sampled_from((1, -1)),
        st.integers(1, 10**6), st.integers(1, 500), st.integers(0, 10**12),
    ),
    min_size=1, max_size=12, unique_by=lambda deal: deal.trade_id,
)  # fmt: skip


def told_by_broker(deals: list[OurDeal]) -> list[Operation]:
    """One operation a deal, as the paper exchange has them."""
    return [
        Operation(f"o{n}", d.ticker, d.side, START_NS, ((d.trade_id, d.price_ticks, d.lots),), d.fee_nano)
        for n, d in enumerate(deals)
    ]


@given(DEALS)
def test_the_same_deals_in_any_order_are_equal_to_the_nano_rouble(deals: list[OurDeal]) -> None:
    report = compare(DAY, deals, told_by_broker(deals)[::-1], START_NS)
    assert report.equal and report.fee_difference_nano == 0
    assert report.deals == report.broker_deals == len(deals)
    assert report.fees_nano == sum(d.fee_nano for d in deals)


@given(DEALS)
def test_an_operation_of_several_deals_is_compared_deal_by_deal_with_its_one_commission(
    deals: list[OurDeal],
) -> None:
    same = [replace(d, ticker="AAA", side=1) for d in deals]
    fills = tuple((d.trade_id, d.price_ticks, d.lots) for d in same)
    whole = Operation("o", "AAA", 1, START_NS, fills, sum(d.fee_nano for d in same))
    assert compare(DAY, same, [whole], START_NS).equal


@given(DEALS, st.data())
def test_one_deal_that_is_missing_invented_or_other_is_one_difference_that_names_it(
    deals: list[OurDeal], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(deals) - 1))
    theirs = told_by_broker(deals)
    odd = theirs[at]
    trade_id, price, lots = odd.deals[0]
    changes: dict[str, list[Operation]] = {
        "the broker does not": theirs[:at] + theirs[at + 1 :],
        "our books do not": [*theirs, replace(odd, deals=((f"{trade_id}x", price, lots),))],
        "the broker says": [*theirs[:at], replace(odd, side=-odd.side), *theirs[at + 1 :]],
        "the broker charged": [
            *theirs[:at], replace(odd, fee_nano=odd.fee_nano + KOPECK_NANO), *theirs[at + 1 :],
        ],
    }  # fmt: skip
    for words, changed in changes.items():
        report = compare(DAY, deals, changed, START_NS)
        assert len(report.differences) == 1 and not report.equal
        assert words in report.differences[0] and odd.ticker in report.differences[0]


def test_less_than_a_kopeck_of_commission_is_the_brokers_rounding_and_is_counted() -> None:
    deal = OurDeal("1", "AAA", 1, 100, 1, 5_123_456)
    (operation,) = told_by_broker([deal])
    report = compare(DAY, [deal], [replace(operation, fee_nano=10_000_000)], START_NS)
    assert report.equal and report.fee_difference_nano == 4_876_544


def test_yesterdays_operations_only_serve_to_find_deals_that_were_booked_late() -> None:
    deals = [OurDeal("1", "AAA", 1, 100, 1, 5)]
    old = [replace(o, now_ns=START_NS - 1) for o in told_by_broker([*deals, replace(deals[0], trade_id="2")])]
    assert compare(DAY, deals, old, START_NS).equal


# ---- the hold


def test_a_difference_holds_entries_until_a_later_day_agrees_or_a_person_resumes() -> None:
    for way_out in (("agrees",), ("by hand",)):
        bench = Bench.ready()
        commands = bench.tell(ev.DayCompared, DAY, 7, 2, "the broker has deal 5")
        hold = bench.engine.holds.get("LEDGER_MISMATCH")
        assert hold is not None and hold.severity is Severity.NO_ENTRIES
        assert DAY in hold.reason and "deal 5" in hold.reason
        assert "DAY_DIFFERS_FROM_BROKER" in audits(commands)
        assert "LEDGER_MISMATCH" in [n.kind for n in of(commands, cmd.Notify)]
        assert not of(bench.score(), cmd.PlaceOrder)
        if way_out == ("agrees",):
            assert "DAY_EQUALS_BROKER" in audits(bench.tell(ev.DayCompared, "2026-01-16", 7, 0))
        else:
            bench.tell(ev.Resume, ("LEDGER_MISMATCH",), "seen")
        assert bench.engine.holds.get("LEDGER_MISMATCH") is None
        assert of(bench.score(), cmd.PlaceOrder)


def test_a_restart_keeps_the_hold() -> None:
    bench = Bench.ready()
    bench.tell(ev.DayCompared, DAY, 7, 1, "the broker has deal 5")
    engine = Engine(bench.engine.config, bench.engine.instruments, bench.engine.model, KEY.replace("1", "2"))
    engine.restore(bench.engine.snapshot())
    assert engine.holds.get("LEDGER_MISMATCH") is not None


# ---- when


@pytest.mark.parametrize("enabled", [True, False])
def test_each_trading_day_is_compared_once_a_minute_after_its_window_has_closed(enabled: bool) -> None:
    """Two weeks, looked at every half minute; without a window it is the exchange's midnight."""
    settings = SessionConfig(enabled=enabled)
    monday_ns = 1_768_165_200 * SECOND_NS  # 2026-01-12 00:00 in Moscow, exchange day 20465
    days, done = DayWatch(settings, monday_ns), []
    for step in range(14 * 24 * 120):
        now_ns = monday_ns + step * 30 * SECOND_NS
        day = days.due(now_ns)
        if day is not None:
            days.compared()
            done.append((day - 20_465, (now_ns - monday_ns) // SECOND_NS))
    if enabled:
        weekdays = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
        assert done == [(day, day * 86_400 + 18 * 3600 + 41 * 60) for day in weekdays]
    else:
        assert done == [(day, (day + 1) * 86_400 + 60) for day in range(13)]


def test_a_day_that_could_not_be_compared_in_the_evening_is_not_forgotten_at_midnight() -> None:
    settings = SessionConfig()
    evening_ns = START_NS + 9 * 3600 * SECOND_NS  # 19:00 on the Thursday
    days = DayWatch(settings, evening_ns)
    assert days.due(evening_ns) is None
    thursday = days.due(evening_ns + 60 * SECOND_NS)
    assert thursday is not None
    friday_ns = evening_ns + 15 * 3600 * SECOND_NS + 30 * 60 * SECOND_NS  # 10:30
    assert days.due(friday_ns) == thursday
    days.compared()
    assert days.due(friday_ns + SECOND_NS) is None
    assert days.due(friday_ns + 8 * 3600 * SECOND_NS + 20 * 60 * SECOND_NS) is None  # 18:50, just closed
    assert days.due(friday_ns + 8 * 3600 * SECOND_NS + 22 * 60 * SECOND_NS) == thursday + 1


# ---- the two sides, read for real


@pytest.fixture(scope="module")
def recording(tmp_path_factory: Any) -> Recording:
    specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
    return simulate_recording(tmp_path_factory.mktemp("day") / "recording", specs, hours=0.05)[0]


def test_the_accounts_operations_are_its_deals_in_ticks_lots_and_fees_shares_and_futures(
    recording: Recording, tmp_path: Path
) -> None:
    """What the orders' states said of their deals, and what the account was charged, are the same."""

    async def run() -> None:
        path = tmp_path / "endpoint.json"
        server = PaperServer(recording, endpoint_path=path, speed=0)
        await server.start()
        client = BrokerClient(read_paper_endpoint(path).access, {})
        try:
            await client.choose_account()
            from_ns = server.endpoint.market_start_ns
            await server.play_until(from_ns + 20 * SECOND_NS)
            ours: list[OurDeal] = []
            for ticker in ("SIMP", "SIMF"):
                instrument = await client.instrument(ticker)
                client.set_fees({ticker: server.exchange.tariff.ppm(instrument)})
                for side, lots in ((1, 30), (-1, 70), (1, 40)):
                    key = str(uuid.uuid4())
                    order = cmd.PlaceOrder("t", key, ticker, side, lots, "market", None, "fak", False, "test")
                    placing = asyncio.create_task(client.place(order, instrument))
                    while not placing.done():
                        await asyncio.sleep(0)
                        await server.play_until(server.clock.now_ns() + SECOND_NS // 10)
                    fills = (await client.query(key)).fills
                    assert sum(f.lots for f in fills) == lots
                    ours += [
                        OurDeal(f.trade_id, ticker, side, f.price_ticks, f.lots, f.fee_nano) for f in fills
                    ]
            theirs = await read_operations(client, from_ns, server.clock.now_ns() + SECOND_NS)
            report = compare(DAY, ours, theirs, from_ns)
            assert report.equal and report.fee_difference_nano == 0, report.differences
            assert report.broker_deals == len(ours) >= 6
            assert [o.now_ns for o in theirs] == sorted(o.now_ns for o in theirs)
            assert not compare(DAY, ours[1:], theirs, from_ns).equal
        finally:
            await client.close()
            await server.stop()

    asyncio.run(run())


def test_our_side_is_every_fill_of_the_account_in_the_day_whatever_the_session(tmp_path: Path) -> None:
    """And the broker is asked from the birth of the oldest order whose fill was booked today."""

    async def run() -> None:
        storage = Storage.open(tmp_path / "s.db", tmp_path / "s.jsonl")
        for session, account in (("a", "paper:1"), ("b", "paper:1"), ("c", "paper:2")):
            await storage.commit(Record("sessions", {"session_id": session, "account": account}))
        for n, (session, now_ns) in enumerate((("a", 90), ("a", 110), ("b", 120), ("c", 130))):
            created_ns = 95 if now_ns == 110 else now_ns
            order = {
                "client_order_id": f"k{n}", "session_id": session, "ticker": "AAA", "side": 1, "lots": 2,
                "order_type": "market", "created_ns": created_ns, "updated_ns": now_ns,
            }  # fmt: skip
            await storage.intent(order)
            fill = {
                "client_order_id": f"k{n}", "trade_id": f"d{n}", "session_id": session, "ticker": "AAA",
                "side": 1, "price_ticks": 100 + n, "lots": 2, "fee_nano": 7, "realised_nano": 0,
                "now_ns": now_ns,
            }  # fmt: skip
            await storage.commit(Record("fills", fill))
        storage.close()

    asyncio.run(run())
    deals, from_ns = our_deals(tmp_path / "s.db", "paper:1", 100)
    assert [(d.trade_id, d.price_ticks) for d in deals] == [("d1", 101), ("d2", 102)]
    assert from_ns == 95
    assert our_deals(tmp_path / "s.db", "paper:3", 100) == ([], 100)
