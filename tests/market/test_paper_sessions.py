"""When the paper exchange trades: sessions, breaks and nights of a recording, and TradingSchedules."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_market import (
    FUTURE,
    INVALID,
    MISSING,
    SHARE,
    SUBSCRIBE,
    Client,
    limit,
    refused,
    run,
    subscribe_books,
)

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp, to_ns
from market.errors import ConfigError
from market.paper import PaperMarket, PaperServer
from market.paper.calendar import Calendar
from market.paper.schedule import MOSCOW, Phase, Schedule, moscow_day
from market.paper.schedule import to_ns as wall_ns
from market.types import SECOND_NS, Books, Instrument, InstrumentDay, Trades

THURSDAY, FRIDAY, MONDAY = date(2026, 1, 15), date(2026, 1, 16), date(2026, 1, 19)
STEP_NS = 20 * SECOND_NS
INFO = "InstrumentsService/TradingSchedules"


def at(day: date, text: str) -> int:
    return wall_ns(day, time.fromisoformat(text))


def books_of(*spans: tuple[date, str, str]) -> Books:
    """A book every 20 seconds, the first half a second after the start of each span."""
    times = np.concatenate(
        [np.arange(at(day, a) + SECOND_NS // 2, at(day, b), STEP_NS) for day, a, b in spans]
    )
    books = Books.empty(len(times))
    books.recv_ns[:] = books.exch_ns[:] = times
    for px, qty, value in ((books.bid_px, books.bid_qty, 30_000), (books.ask_px, books.ask_qty, 30_002)):
        px[:, 0], qty[:, 0] = value, 50
    return books


def day_of(instrument: Instrument, day: date, *spans: tuple[str, str]) -> InstrumentDay:
    books = books_of(*((day, a, b) for a, b in spans))
    return InstrumentDay(instrument, day.isoformat(), books, Trades.empty())


TWO_DAYS = PaperMarket(
    (
        day_of(FUTURE, THURSDAY, ("13:50", "14:00"), ("14:05", "14:20")),
        day_of(FUTURE, FRIDAY, ("09:00", "09:20")),
        day_of(SHARE, THURSDAY, ("13:50", "14:20")),
        day_of(SHARE, FRIDAY, ("10:00", "10:20")),
    )
)


def phases(schedule: Schedule, kind: str) -> list[tuple[str, str]]:
    return [
        (datetime.fromtimestamp(c.at_ns // SECOND_NS, MOSCOW).strftime("%d %H:%M:%S"), c.phase.value)
        for c in schedule.phases[kind]
    ]


def test_phases_follow_the_recording() -> None:
    schedule = Schedule.of((d.instrument, d.books, d.trades) for d in TWO_DAYS.days)
    assert phases(schedule, "future") == [
        ("15 13:50:00", "trading"), ("15 14:00:00", "break"), ("15 14:05:00", "trading"),
        ("15 14:19:40", "closed"), ("16 08:50:00", "opening"), ("16 09:00:00", "trading"),
        ("16 09:19:40", "closed"),
    ]  # fmt: skip
    assert phases(schedule, "share") == [  # no clearing on the stock market
        ("15 13:50:00", "trading"), ("15 14:19:40", "closed"), ("16 09:50:00", "opening"),
        ("16 10:00:00", "trading"), ("16 10:19:40", "closed"),
    ]  # fmt: skip
    assert schedule.phase("share", at(THURSDAY, "14:02")) is Phase.TRADING
    assert schedule.phase("future", at(THURSDAY, "14:02")) is Phase.BREAK


def test_silence_is_no_break_without_a_reason() -> None:
    two_minutes = books_of((THURSDAY, "11:00", "11:10"), (THURSDAY, "11:12", "11:20"))
    a_halt = books_of((THURSDAY, "11:00", "11:10"), (THURSDAY, "11:30", "11:40"))
    over_midnight = books_of((THURSDAY, "23:50", "23:59:50"), (FRIDAY, "00:00", "00:10"))
    of = [Schedule.of([(FUTURE, books, Trades.empty())]) for books in (two_minutes, a_halt, over_midnight)]
    assert [[change.phase.value for change in s.phases["future"]] for s in of] == [
        ["trading", "closed"], ["trading", "break", "trading", "closed"], ["trading", "closed"]
    ]  # fmt: skip
    assert of[2].recorded_days["future"] == {THURSDAY, FRIDAY}


def test_statuses_and_orders_through_two_days(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(
            pb.MarketDataRequest(
                subscribe_info_request={
                    "subscription_action": SUBSCRIBE, "instruments": [{"instrument_id": FUTURE.uid}]
                }
            )
        )  # fmt: skip
        assert (await stream.read()).HasField("subscribe_info_response")
        assert (await stream.read()).HasField("ping")

        async def now() -> tuple[str, bool]:
            request = pb.GetTradingStatusRequest(instrument_id=FUTURE.uid)
            answer = await client.call("MarketDataService/GetTradingStatus", request)
            name = pb.SecurityTradingStatus.Name(answer.trading_status)
            assert answer.limit_order_available_flag == answer.market_order_available_flag
            return name.removeprefix("SECURITY_TRADING_STATUS_"), answer.limit_order_available_flag

        async def heard() -> tuple[str, str]:
            status = (await stream.read()).trading_status
            moment = datetime.fromtimestamp(to_ns(status.time) // SECOND_NS, MOSCOW).strftime("%d %H:%M:%S")
            return moment, pb.SecurityTradingStatus.Name(status.trading_status)[24:]

        await server.play_until(at(THURSDAY, "13:59"))
        assert await now() == ("SESSION_OPEN", True)
        resting = await client.order(instrument_id=FUTURE.uid, **limit(299_950_000_000_000))
        await server.play_until(at(THURSDAY, "14:02"))
        assert await now() == ("BREAK_IN_TRADING", False)
        assert await heard() == ("15 14:00:00", "BREAK_IN_TRADING")
        await refused("30079", INVALID, client.order(instrument_id=FUTURE.uid))
        await client.order(instrument_id=SHARE.uid)  # another venue
        await server.play_until(at(THURSDAY, "14:06"))
        assert await now() == ("SESSION_OPEN", True)
        assert await heard() == ("15 14:05:00", "SESSION_OPEN")
        await server.play_until(at(THURSDAY, "20:00"))
        assert await now() == ("NOT_AVAILABLE_FOR_TRADING", False)
        assert await heard() == ("15 14:19:40", "NOT_AVAILABLE_FOR_TRADING")
        state = await client.state(resting.order_id)  # it outlived the clearing, not the day
        assert state.execution_report_status == pb.EXECUTION_REPORT_STATUS_CANCELLED
        await server.play_until(at(FRIDAY, "08:55"))
        assert await now() == ("OPENING_PERIOD", False)
        await server.play_until(at(FRIDAY, "09:00:01"))
        assert await now() == ("SESSION_OPEN", True)
        assert [await heard() for _ in range(2)] == [
            ("16 08:50:00", "OPENING_PERIOD"), ("16 09:00:00", "SESSION_OPEN")
        ]  # fmt: skip
        await client.order(instrument_id=FUTURE.uid)

    run(tmp_path, scenario, market=TWO_DAYS)


def test_a_span_begins_in_its_phase(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await refused("30079", INVALID, client.order(instrument_id=FUTURE.uid))
        await client.order(instrument_id=SHARE.uid)

    # From the first event after 14:00 only the share has one before the clearing ends.
    run(tmp_path, scenario, market=TWO_DAYS, from_ns=at(THURSDAY, "14:01"), entry_latency_ms=20)


async def schedule(client: Client, **fields: Any) -> dict[str, list[pb.TradingDay]]:
    reply = await client.call(INFO, pb.TradingSchedulesRequest(**fields))
    return {exchange.exchange: list(exchange.days) for exchange in reply.exchanges}


def test_trading_schedules(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        found = await schedule(client)
        assert set(found) == {"MOEX_PLUS", "FORTS_EVENING"}
        days = found["FORTS_EVENING"]
        assert [day.date.ToDatetime().date() for day in days] == [
            THURSDAY + timedelta(days=k) for k in range(7)
        ]
        assert [day.is_trading_day for day in days] == [True, True, False, False, True, True, True]
        recorded, usual, weekend = days[0], days[4], days[2]
        assert to_ns(recorded.clearing_start_time) == at(THURSDAY, "14:00")
        assert to_ns(recorded.clearing_end_time) == at(THURSDAY, "14:05")
        assert [i.type for i in recorded.intervals] == [
            "regular_trading_session", "clearing", "regular_trading_session"
        ]  # fmt: skip
        assert to_ns(usual.start_time) == at(MONDAY, "09:00")
        assert to_ns(usual.evening_end_time) == at(MONDAY, "23:50")
        assert to_ns(usual.clearing_start_time) == at(MONDAY, "14:00")
        assert not weekend.HasField("start_time")
        share = found["MOEX_PLUS"][1]
        assert to_ns(share.opening_auction_start_time) == at(FRIDAY, "09:50")
        assert to_ns(share.start_time) == at(FRIDAY, "10:00")
        assert not share.HasField("clearing_start_time")

        shares = (await client.call("InstrumentsService/Shares", pb.InstrumentsRequest())).instruments
        assert shares[0].exchange in found  # the key into the schedules

    run(tmp_path, scenario, market=TWO_DAYS)


def test_schedules_of_holidays_and_wrong_periods(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        def period(first: date, last: date) -> dict[str, Any]:
            return {"from": timestamp(at(first, "03:00")), "to": timestamp(at(last, "03:00"))}

        found = await schedule(client, exchange="MOEX_PLUS", **period(date(2026, 2, 20), date(2026, 2, 24)))
        assert [day.is_trading_day for day in found["MOEX_PLUS"]] == [True, False, False, False, True]
        for code, first, last in (
            ("30003", THURSDAY - timedelta(days=1), FRIDAY),
            ("30003", FRIDAY, THURSDAY),
            ("30002", THURSDAY, THURSDAY + timedelta(days=14)),
        ):
            await refused(code, INVALID, schedule(client, **period(first, last)))
        await refused("50001", MISSING, schedule(client, exchange="NYSE"))

    run(tmp_path, scenario, market=TWO_DAYS)


def test_a_calendar_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "calendar.json"
    file.write_text('{"closed": ["2026-02-24"], "open": ["2026-02-21", "2026-02-23"]}')
    calendar = Calendar.read(file)

    async def scenario(server: PaperServer, client: Client) -> None:
        period = {
            "from": timestamp(at(date(2026, 2, 20), "03:00")), "to": timestamp(at(date(2026, 2, 25), "03:00"))
        }  # fmt: skip
        found = await schedule(client, exchange="MOEX_PLUS", **period)
        assert [day.is_trading_day for day in found["MOEX_PLUS"]] == [True, True, False, True, False, True]
        assert found["MOEX_PLUS"][1].HasField("start_time")

    run(tmp_path, scenario, market=TWO_DAYS, calendar=calendar)
    closed = Calendar(closed=frozenset({THURSDAY}))
    recorded = Schedule.of(((d.instrument, d.books, d.trades) for d in TWO_DAYS.days), closed)
    assert recorded.is_trading_day("share", THURSDAY)  # what was recorded goes first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must look like"),
        ('{"shut": []}', "must look like"),
        ('{"open": ["2026-02-30"]}', r"'2026-02-30' under 'open'"),
        ('{"open": [20260228]}', "20260228 under 'open'"),
        ('{"open": ["2026-02-28"], "closed": ["2026-02-28"]}', "2026-02-28 both closed and open"),
        ("{", "cannot be read"),
    ],
)
def test_a_calendar_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "calendar.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Calendar.read(file)


def test_the_market_starts_trading_at_once(tmp_path: Path) -> None:
    """Nothing that a recording of one short session does may look like a break."""

    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe_books(1, SHARE.uid))
        await stream.read()
        await stream.read()
        await server.play_until(at(THURSDAY, "20:00"))
        statuses = 0
        while (message := await stream.read()).WhichOneof("payload") != "trading_status":
            statuses += not message.HasField("orderbook")
        assert statuses == 0

    market = PaperMarket((day_of(SHARE, THURSDAY, ("10:00", "11:00")),))
    run(tmp_path, scenario, market=market)


@pytest.mark.recorded
def test_the_clearing_of_a_real_day(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    stem = shared_data / "moex-rts" / "RTS-12.13_2013-12-10_to17h"
    books, trades = Books.empty(0), Trades.empty(0)
    books.recv_ns = pq.read_table(f"{stem}.book20.parquet", columns=["ts_ms"])[0].to_numpy() * 1_000_000
    trades.recv_ns = pq.read_table(f"{stem}.trades.parquet", columns=["recv_ts_ms"])[0].to_numpy() * 1_000_000
    schedule = Schedule.of([(FUTURE, books, trades)])
    assert [change.phase for change in schedule.phases["future"]] == [
        Phase.TRADING, Phase.BREAK, Phase.TRADING, Phase.CLOSED
    ]  # fmt: skip
    assert phases(schedule, "future")[1] == ("10 14:00:00", "break")
    assert moscow_day(schedule.phases["future"][0].at_ns) == date(2013, 12, 10)
