"""Candles of the paper exchange: histories of every interval, and the stream of growing and closed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_market import INVALID, SHARE, SUBSCRIBE, T0, Client, make_books, refused, run

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp, to_nano, to_ns
from market.paper import PaperMarket, PaperServer
from market.paper.candles import DAY_NS, HISTORIC, MINUTE_NS, STREAMED, Bar, GrowingCandle, history
from market.types import MILLISECOND_NS, SECOND_NS, InstrumentDay, Trades

MINUTE = pb.SUBSCRIPTION_INTERVAL_ONE_MINUTE
CANDLES = "MarketDataService/GetCandles"


def trades_at(rows: list[tuple[float, int, int, int]]) -> Trades:
    """Rows of (seconds after T0, price, lots, side); received 3 ms later."""
    trades = Trades.empty(len(rows))
    for k, (s, px, qty, side) in enumerate(rows):
        trades.exch_ns[k] = T0 + round(s * 1000) * MILLISECOND_NS
        trades.recv_ns[k] = trades.exch_ns[k] + 3 * MILLISECOND_NS
        trades.px[k], trades.qty[k], trades.side[k] = px, qty, side
    return trades


TRADES = trades_at(
    [(1, 30_000, 2, 1), (30, 30_010, 1, -1), (59.999, 29_990, 4, 1), (61, 30_005, 1, 1), (200, 30_001, 7, -1)]
)
BOOKS = make_books([(0, [(30_000, 5)], [(30_002, 5)]), (400_000, [(30_000, 5)], [(30_002, 5)])])
MARKET = PaperMarket((InstrumentDay(SHARE, "2026-01-15", BOOKS, TRADES),))


def subscribe(interval: int, *, waiting_close: bool = False, action: int = SUBSCRIBE) -> pb.MarketDataRequest:
    return pb.MarketDataRequest(
        subscribe_candles_request=pb.SubscribeCandlesRequest(
            subscription_action=pb.SubscriptionAction.Name(action),
            instruments=[pb.CandleInstrument(instrument_id=SHARE.uid, interval=interval)],  # type: ignore[arg-type]
            waiting_close=waiting_close,
        )
    )


def of(candle: pb.Candle | pb.HistoricCandle) -> tuple[int, ...]:
    """(seconds after T0, open, high, low, close in ticks, lots, bought, sold)."""
    prices = (to_nano(p) // SHARE.tick_nano for p in (candle.open, candle.high, candle.low, candle.close))
    start = (to_ns(candle.time) - T0) // SECOND_NS
    return (start, *prices, candle.volume, candle.volume_buy, candle.volume_sell)


async def opened(client: Client, *requests: pb.MarketDataRequest) -> Any:
    stream = client.stream("MarketDataStreamService/MarketDataStream")
    for request in requests:
        await stream.write(request)
        entry = (await stream.read()).subscribe_candles_response.candles_subscriptions[0]
        assert entry.subscription_status == pb.SUBSCRIPTION_STATUS_SUCCESS
        assert (await stream.read()).HasField("ping")
    return stream


FIRST = (0, 30_000, 30_010, 29_990, 29_990, 7, 6, 1)


def test_every_trade_updates_the_growing_candle(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client, subscribe(MINUTE))
        await server.play_until(T0 + 250 * SECOND_NS)
        got = [(await stream.read()).candle for _ in range(5)]
        assert [of(candle) for candle in got] == [
            (0, 30_000, 30_000, 30_000, 30_000, 2, 2, 0), (0, 30_000, 30_010, 30_000, 30_010, 3, 2, 1), FIRST,
            (60, 30_005, 30_005, 30_005, 30_005, 1, 1, 0), (180, 30_001, 30_001, 30_001, 30_001, 7, 0, 7),
        ]  # fmt: skip
        assert got[0].interval == MINUTE
        assert to_ns(got[2].last_trade_ts) == T0 + 59_999 * MILLISECOND_NS

    run(tmp_path, scenario, market=MARKET)


def test_waiting_for_the_close_sends_whole_candles(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client, subscribe(MINUTE, waiting_close=True))
        await server.play_until(T0 + 45 * SECOND_NS)
        late = await opened(client, subscribe(MINUTE, waiting_close=True))  # in the middle of a candle
        await server.play_until(T0 + 250 * SECOND_NS)
        whole = [of((await stream.read()).candle) for _ in range(3)]
        assert whole[0] == FIRST
        assert [(start, lots) for start, *_, lots, _, _ in whole] == [(0, 7), (60, 1), (180, 7)]
        assert of((await late.read()).candle) == FIRST  # its last trade came after the minute was over

    run(tmp_path, scenario, market=MARKET)


def test_several_intervals_and_unsubscribing_one(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        five = pb.SUBSCRIPTION_INTERVAL_FIVE_MINUTES
        stream = await opened(client, subscribe(MINUTE), subscribe(five))
        await stream.write(pb.MarketDataRequest(get_my_subscriptions={}))
        mine = (await stream.read()).subscribe_candles_response.candles_subscriptions
        assert [entry.interval for entry in mine] == [MINUTE, five]
        await stream.write(subscribe(MINUTE, action=pb.SUBSCRIPTION_ACTION_UNSUBSCRIBE))
        await stream.read()
        await stream.read()
        await server.play_until(T0 + 100 * SECOND_NS)
        got = [(await stream.read()).candle for _ in range(4)]
        assert {candle.interval for candle in got} == {five}
        assert [candle.volume for candle in got] == [2, 3, 7, 8]

    run(tmp_path, scenario, market=MARKET)


def test_a_throttled_candle_is_the_newest(tmp_path: Path) -> None:
    trades = trades_at([(0.0, 30_000, 1, 1), (0.01, 30_001, 1, 1), (0.02, 30_002, 1, 1), (0.5, 30_003, 1, 1)])
    market = PaperMarket((InstrumentDay(SHARE, "2026-01-15", BOOKS, trades),))

    async def scenario(server: PaperServer, client: Client) -> None:
        stream = await opened(client, subscribe(MINUTE))
        await server.play_until(T0 + SECOND_NS)
        assert [(await stream.read()).candle.volume for _ in range(3)] == [1, 3, 4]

    run(tmp_path, scenario, market=market, conflate_ms=100)


@pytest.mark.parametrize(
    ("interval", "status"),
    [(0, pb.SUBSCRIPTION_STATUS_INTERVAL_IS_INVALID), (99, pb.SUBSCRIPTION_STATUS_INTERVAL_IS_INVALID)]
    + [(interval, pb.SUBSCRIPTION_STATUS_SUCCESS) for interval in range(1, 14)],
)
def test_which_intervals_are_streamed(tmp_path: Path, interval: int, status: int) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stream = client.stream("MarketDataStreamService/MarketDataStream")
        await stream.write(subscribe(interval, waiting_close=True))
        (entry,) = (await stream.read()).subscribe_candles_response.candles_subscriptions
        assert (entry.subscription_status, entry.interval, entry.waiting_close) == (status, interval, True)

    run(tmp_path, scenario, market=MARKET)


async def candles(
    client: Client, interval: int, from_s: float | None, to_s: float | None, **more: Any
) -> Any:
    request = pb.GetCandlesRequest(
        instrument_id=SHARE.uid,
        interval=pb.CandleInterval.Name(interval),
        **more,
    )  # fmt: skip
    for name, seconds in (("from", from_s), ("to", to_s)):
        if seconds is not None:
            getattr(request, name).CopyFrom(timestamp(T0 + round(seconds * SECOND_NS)))
    return [(*of(c), c.is_complete) for c in (await client.call(CANDLES, request)).candles]


def test_histories(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0 + 201 * SECOND_NS)
        minutes = await candles(client, pb.CANDLE_INTERVAL_1_MIN, 0, 600)
        assert [row[0] for row in minutes] == [0, 60, 180]
        assert minutes[0] == (*FIRST, True)
        assert minutes[2][-1] is False
        assert await candles(client, pb.CANDLE_INTERVAL_1_MIN, 0, 30) == []  # shorter than one
        assert await candles(client, pb.CANDLE_INTERVAL_1_MIN, None, None, limit=1) == minutes[2:]
        (day,) = await candles(client, pb.CANDLE_INTERVAL_DAY, 3600, 7200)  # the time of day is left out
        assert day[:2] == (-7 * 3600, 30_000)
        assert day[5:] == (15, 7, 8, False)
        five = await candles(client, pb.CANDLE_INTERVAL_5_SEC, 0, 300)
        assert [row[0] for row in five] == [0, 30, 55, 60, 200]

    run(tmp_path, scenario, market=MARKET)


def test_wrong_periods(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        minute = pb.CANDLE_INTERVAL_1_MIN
        await refused("30014", INVALID, candles(client, minute, 0, 86_401))
        await refused("30228", INVALID, candles(client, minute, None, 60))
        await refused("30004", INVALID, candles(client, minute, 0, None))
        await refused("30003", INVALID, candles(client, minute, 60, 0))
        await refused("30011", INVALID, candles(client, pb.CANDLE_INTERVAL_UNSPECIFIED, 0, 60))
        source = pb.GetCandlesRequest.CANDLE_SOURCE_EXCHANGE
        await refused("30220", INVALID, candles(client, minute, 0, 60, limit=5, candle_source_type=source))

    run(tmp_path, scenario, market=MARKET)


TIMES = st.lists(st.integers(0, 40 * DAY_NS), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(TIMES, st.sampled_from(sorted(STREAMED)), st.data())
def test_a_growing_candle_is_its_history(times: list[int], kind: int, data: st.DataObject) -> None:
    interval = STREAMED[kind]
    trades = Trades.empty(len(times))
    trades.exch_ns[:] = np.array(sorted(times), np.int64) + T0
    # Now and then the exchange's times come out of order.
    swap = data.draw(st.integers(0, len(times) - 1))
    trades.exch_ns[swap], trades.exch_ns[-1] = trades.exch_ns[-1], trades.exch_ns[swap]
    trades.px[:] = data.draw(st.lists(st.integers(1, 100), min_size=len(times), max_size=len(times)))
    trades.qty[:] = 1
    trades.side[:] = 1
    begun = data.draw(st.integers(0, len(times)))
    growing = GrowingCandle(trades, begun, interval)
    for row in range(begun, len(times)):
        told = growing.add(row)
        whole = history(trades, row + 1, interval, 0, 1 << 62)
        assert told in whole
        assert growing.bar == whole[-1]
    assert sum(bar.lots for bar in history(trades, len(times), interval, 0, 1 << 62)) == len(times)


def test_starts_of_weeks_and_months() -> None:
    thursday = T0  # 2026-01-15 07:00 UTC
    week, month = HISTORIC[pb.CANDLE_INTERVAL_WEEK], HISTORIC[pb.CANDLE_INTERVAL_MONTH]
    midnight = thursday // DAY_NS * DAY_NS
    assert week.start_ns(thursday) == midnight - 3 * DAY_NS
    assert (month.start_ns(thursday), month.end_ns(midnight - 14 * DAY_NS)) == (
        midnight - 14 * DAY_NS, midnight + 17 * DAY_NS
    )  # fmt: skip
    for interval in HISTORIC.values():
        times = np.array([thursday, thursday + 40 * DAY_NS, 0], np.int64)
        assert interval.starts_ns(times).tolist() == [interval.start_ns(int(t)) for t in times]
    assert Bar.of(0, 1, 5, 2, -1).then(2, 7, 1, 1) == Bar(0, 5, 7, 5, 7, 3, 1, 2, 2)
    assert MINUTE_NS == 60 * SECOND_NS
