"""What every broker must do, whoever it is: one abstract suite, one thin subclass per broker.

A subclass of ``BrokerSuite`` has a fixture ``play`` that runs a scenario against its broker on the little
market below. ``RemoteSuite`` adds what only a broker behind a network has: accounts, instruments, coded
refusals, answers that get lost.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from live.core.commands import PlaceOrder
from live.core.events import FillInfo, OpenOrder
from market.fees import fee_nano
from market.types import MILLISECOND_NS, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

T0 = 1_768_460_400 * SECOND_NS
FEE_PPM = {"SIMP": 50, "SIMF": 50}
SHARE = Instrument(
    "11111111-aaaa-4000-8000-000000000001", "SIMP", "TQBR", "FIGI0SIMP", "share", 10, 10_000_000, 100_000_000
)
FUTURE = Instrument(
    "11111111-aaaa-4000-8000-000000000002", "SIMF", "SPBFUT", "FIGI0SIMF", "future", 1, 10 * NANO, 15 * NANO
)
BIDS, ASKS = [(30_000, 5), (29_999, 7)], [(30_002, 3), (30_003, 4)]
BUY, SELL = 1, -1
FINAL = ("FILLED", "CANCELLED", "REJECTED")
RANK = {"NEW": 0, "PARTIAL": 1, "FILLED": 2, "CANCELLED": 2, "REJECTED": 2}

Level = tuple[int, int]


def _books(rows: list[tuple[int, list[Level], list[Level]]]) -> Books:
    """Rows of (milliseconds after T0, bids, asks)."""
    books = Books.empty(len(rows))
    for k, (ms, bids, asks) in enumerate(rows):
        books.recv_ns[k] = books.exch_ns[k] = T0 + ms * MILLISECOND_NS
        for px, qty, side in ((books.bid_px, books.bid_qty, bids), (books.ask_px, books.ask_qty, asks)):
            for j, (price, size) in enumerate(side):
                px[k, j], qty[k, j] = price, size
    return books


def _trades(rows: list[tuple[int, int, int, int]]) -> Trades:
    """Rows of (milliseconds after T0, price, lots, aggressor)."""
    trades = Trades.empty(len(rows))
    for k, (ms, px, qty, side) in enumerate(rows):
        trades.recv_ns[k] = trades.exch_ns[k] = T0 + ms * MILLISECOND_NS
        trades.px[k], trades.qty[k], trades.side[k] = px, qty, side
    return trades


DAYS = (
    # Five lots wait at 30,000 before us: the six of second 2 leave us one, the two of second 3 the rest.
    InstrumentDay(
        SHARE, "2026-01-15",
        _books([(0, BIDS, ASKS), (1000, BIDS, [*ASKS, (30_004, 1)]), (9000, [(29_990, 1)], [(29_991, 1)])]),
        _trades([(1000, 30_002, 1, BUY), (2000, 30_000, 6, SELL), (3000, 30_000, 2, SELL)]),
    ),
    InstrumentDay(
        FUTURE, "2026-01-15",
        _books([(0, [(9_999, 50)], [(10_001, 50)]), (4000, [(10_003, 50)], [(10_004, 50)])]),
        Trades.empty(),
    ),
)  # fmt: skip
INSTRUMENTS = {day.instrument.ticker: day.instrument for day in DAYS}


@dataclass
class Told:
    """Everything that is known of one order so far. ``history``: (status, lots executed) as news came in."""

    status: str = "UNKNOWN"
    exchange_order_id: str = ""
    lots_executed: int = 0
    reason: str = ""
    not_found: bool = False
    fills: dict[str, FillInfo] = field(default_factory=dict)
    history: list[tuple[str, int]] = field(default_factory=list)

    @property
    def prices(self) -> list[tuple[int, int]]:
        """(price, lots) of the fills, in the order in which they were told."""
        return [(fill.price_ticks, fill.lots) for fill in self.fills.values()]


class Bench(ABC):
    """One broker with its market standing at second 0, as the suite uses it."""

    def __init__(self) -> None:
        self._made = 0

    def order(
        self, ticker: str = "SIMP", side: int = BUY, lots: int = 1, price: int | None = None, tif: str = "day"
    ) -> PlaceOrder:
        """The same ids in every run: a replay must be asked for the same orders."""
        self._made += 1
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"suite-{self._made}"))
        kind = "market" if price is None else "limit"
        return PlaceOrder(
            "t", key, ticker, side, lots, kind, price, "fak" if price is None else tif, False, "suite"
        )

    @abstractmethod
    async def place(self, order: PlaceOrder) -> Told:
        """The order is sent and answered."""

    @abstractmethod
    async def cancel(self, key: str) -> Told | None:
        """The cancel is sent and answered; what the answer says of the order, if anything."""

    @abstractmethod
    async def query(self, key: str) -> Told | None:
        """The broker's word on one order; None or ``not_found`` for one that it never saw."""

    @abstractmethod
    async def state(self) -> tuple[dict[str, int], tuple[OpenOrder, ...]]:
        """Positions in lots (none that are zero) and working orders."""

    @abstractmethod
    async def advance(self, second: float) -> None:
        """The market plays on until this second."""

    @abstractmethod
    def told(self, key: str) -> Told:
        """Everything the broker told of an order by itself."""

    @abstractmethod
    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for news that must come; fails when they do not."""

    async def ends(self, key: str, status: str) -> Told:
        await self.until(lambda: self.told(key).status == status)
        return self.told(key)


Scenario = Callable[[Bench], Awaitable[None]]
Play = Callable[[Scenario], None]


class BrokerSuite:
    """Orders, fills, cancels, positions."""

    # ---- taking

    def test_a_market_order_takes_the_touch(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3)
            assert (await b.place(order)).status == "FILLED"
            told = await b.ends(order.client_order_id, "FILLED")
            assert (told.lots_executed, told.prices) == (3, [(30_002, 3)])

        play(scenario)

    def test_a_larger_one_walks_the_book_level_by_level(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=5)
            await b.place(order)
            assert (await b.ends(order.client_order_id, "FILLED")).prices == [(30_002, 3), (30_003, 2)]

        play(scenario)

    def test_what_we_took_is_gone(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            await b.place(b.order(lots=3))
            second = b.order(lots=2)
            await b.place(second)
            assert (await b.ends(second.client_order_id, "FILLED")).prices == [(30_003, 2)]

        play(scenario)

    def test_nothing_fills_beyond_the_visible_book(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=10)
            await b.place(order)
            told = await b.ends(order.client_order_id, "CANCELLED")
            assert told.lots_executed == sum(lots for _, lots in told.prices) == 7

        play(scenario)

    def test_a_limit_order_never_pays_more_than_it_must(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3, price=30_003)
            await b.place(order)
            assert (await b.ends(order.client_order_id, "FILLED")).prices == [(30_002, 3)]

        play(scenario)

    def test_fill_and_kill_leaves_nothing_behind(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=5, price=30_002, tif="fak")
            await b.place(order)
            told = await b.ends(order.client_order_id, "CANCELLED")
            assert told.prices == [(30_002, 3)]
            assert (await b.state())[1] == ()

        play(scenario)

    def test_fill_or_kill_does_all_or_nothing(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            none = b.order(lots=5, price=30_002, tif="fok")
            placed = await b.place(none)
            assert placed.status in ("CANCELLED", "REJECTED")
            assert placed.lots_executed == 0
            full = b.order(lots=5, price=30_003, tif="fok")
            assert (await b.place(full)).status == "FILLED"
            assert await b.state() == ({"SIMP": 5}, ())

        play(scenario)

    def test_a_future_is_priced_in_points_and_counted_in_lots(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order("SIMF", SELL, 2)
            await b.place(order)
            assert (await b.ends(order.client_order_id, "FILLED")).prices == [(9_999, 2)]
            assert (await b.state())[0] == {"SIMF": -2}

        play(scenario)

    @pytest.mark.parametrize(("ticker", "price"), [("SIMP", 30_002), ("SIMF", 10_001)])
    def test_fees_are_the_tariffs_on_every_deal(self, play: Play, ticker: str, price: int) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(ticker, lots=3)
            await b.place(order)
            told = await b.ends(order.client_order_id, "FILLED")
            expected = fee_nano(INSTRUMENTS[ticker].notional_nano(price, 3), FEE_PPM[ticker])
            assert [fill.fee_nano for fill in told.fills.values()] == [expected]

        play(scenario)

    # ---- resting

    def test_an_order_away_from_the_market_rests_and_is_listed(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=2, price=29_900)
            placed = await b.place(order)
            assert (placed.status, placed.lots_executed) == ("NEW", 0)
            (listed,) = (await b.state())[1]
            assert listed == OpenOrder(order.client_order_id, listed.exchange_order_id, "SIMP", BUY, 2, 0)
            assert listed.exchange_order_id != ""

        play(scenario)

    def test_the_queue_before_us_goes_first(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3, price=30_000)
            await b.place(order)
            await b.advance(2.5)
            told = await b.ends(order.client_order_id, "PARTIAL")
            assert told.prices == [(30_000, 1)]
            positions, (listed,) = await b.state()
            assert (positions, listed.lots, listed.lots_executed) == ({"SIMP": 1}, 3, 1)
            await b.advance(3.5)
            assert (await b.ends(order.client_order_id, "FILLED")).lots_executed == 3
            assert await b.state() == ({"SIMP": 3}, ())

        play(scenario)

    def test_a_market_that_comes_to_us_fills_us(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=1, price=29_995)
            await b.place(order)
            await b.advance(8.0)
            assert b.told(order.client_order_id).lots_executed == 0
            await b.advance(9.5)
            assert (await b.ends(order.client_order_id, "FILLED")).prices == [(29_995, 1)]

        play(scenario)

    def test_each_instrument_has_its_own_market(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            share, future = b.order(lots=1, price=30_000), b.order("SIMF", SELL, 1, 10_002)
            await b.place(share)
            await b.place(future)
            await b.advance(5.0)
            await b.ends(future.client_order_id, "FILLED")
            await b.ends(share.client_order_id, "FILLED")
            assert await b.state() == ({"SIMP": 1, "SIMF": -1}, ())

        play(scenario)

    # ---- cancelling

    def test_a_resting_order_is_cancelled(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=2, price=29_900)
            await b.place(order)
            await b.cancel(order.client_order_id)
            told = await b.ends(order.client_order_id, "CANCELLED")
            assert told.lots_executed == 0
            assert await b.state() == ({}, ())
            await b.advance(9.5)
            assert b.told(order.client_order_id).lots_executed == 0

        play(scenario)

    def test_what_was_filled_before_the_cancel_is_ours(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3, price=30_000)
            await b.place(order)
            await b.advance(2.5)
            await b.ends(order.client_order_id, "PARTIAL")
            await b.cancel(order.client_order_id)
            told = await b.ends(order.client_order_id, "CANCELLED")
            assert (told.lots_executed, told.prices) == (1, [(30_000, 1)])
            assert await b.state() == ({"SIMP": 1}, ())

        play(scenario)

    def test_a_cancel_that_comes_too_late_is_told_the_fill(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3)
            await b.place(order)
            answer = await b.cancel(order.client_order_id)
            assert answer is None or answer.status == "FILLED"
            assert (await b.ends(order.client_order_id, "FILLED")).lots_executed == 3
            assert (await b.state())[0] == {"SIMP": 3}

        play(scenario)

    def test_cancelling_twice_changes_nothing(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=2, price=29_900)
            await b.place(order)
            await b.cancel(order.client_order_id)
            await b.cancel(order.client_order_id)
            assert (await b.ends(order.client_order_id, "CANCELLED")).lots_executed == 0

        play(scenario)

    def test_a_cancel_of_a_stranger_invents_nothing(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            key = b.order().client_order_id
            answer = await b.cancel(key)
            assert answer is None or (answer.not_found and answer.status == "UNKNOWN")
            assert await b.state() == ({}, ())

        play(scenario)

    # ---- asking

    def test_the_same_key_again_is_the_same_order(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=2)
            first = await b.place(order)
            again = await b.place(order)
            assert (first.status, again.status) == ("FILLED", "FILLED")
            assert first.exchange_order_id == again.exchange_order_id
            assert (await b.state())[0] == {"SIMP": 2}

        play(scenario)

    def test_a_query_tells_what_the_news_told(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=5)
            await b.place(order)
            told = await b.ends(order.client_order_id, "FILLED")
            asked = await b.query(order.client_order_id)
            assert asked is not None
            assert (asked.status, asked.lots_executed) == ("FILLED", 5)
            assert asked.fills == told.fills

        play(scenario)

    def test_a_query_for_a_stranger_invents_nothing(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            asked = await b.query(b.order().client_order_id)
            assert asked is None or (asked.not_found and asked.status == "UNKNOWN")

        play(scenario)

    def test_news_of_an_order_only_go_forwards(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            order = b.order(lots=3, price=30_000)
            await b.place(order)
            await b.advance(3.5)
            history = (await b.ends(order.client_order_id, "FILLED")).history
            ranks, executed = [RANK[s] for s, _ in history], [lots for _, lots in history]
            assert ranks == sorted(ranks)
            assert executed == sorted(executed)
            assert history[0] == ("NEW", 0)
            assert ("PARTIAL", 1) in history

        play(scenario)

    def test_fills_add_up_and_have_names_of_their_own(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            keys = []
            for lots in (5, 2):
                order = b.order(lots=lots)
                await b.place(order)
                keys.append(order.client_order_id)
                told = await b.ends(order.client_order_id, "FILLED")
                assert sum(fill.lots for fill in told.fills.values()) == told.lots_executed == lots
            first, second = (set(b.told(key).fills) for key in keys)
            assert not first & second

        play(scenario)

    # ---- holding

    def test_positions_are_signed_lots_and_flat_is_absent(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            await b.place(b.order(lots=3))
            assert (await b.state())[0] == {"SIMP": 3}
            await b.place(b.order(side=SELL, lots=5))
            assert (await b.state())[0] == {"SIMP": -2}
            await b.place(b.order(lots=2))
            assert (await b.state())[0] == {}

        play(scenario)

    def test_lots_behind_a_working_sell_are_still_ours(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            await b.place(b.order(lots=3))
            resting = b.order(side=SELL, lots=2, price=30_100)
            await b.place(resting)
            positions, (listed,) = await b.state()
            assert positions == {"SIMP": 3}
            assert (listed.side, listed.lots) == (SELL, 2)

        play(scenario)


class RemoteBench(Bench):
    """A broker behind a network."""

    @abstractmethod
    async def account(self) -> str: ...
    @abstractmethod
    async def instrument(self, name: str) -> Instrument: ...
    @abstractmethod
    def lose_next_answer(self) -> None:
        """The next order is carried out, and the answer to it is lost."""


class RemoteSuite(BrokerSuite):
    """What an account at a server has besides."""

    def test_the_account_is_found(self, play: Play) -> None:
        async def scenario(b: RemoteBench) -> None:
            assert await b.account()

        play(scenario)  # type: ignore[arg-type]

    def test_instruments_come_as_they_are_traded(self, play: Play) -> None:
        async def scenario(b: RemoteBench) -> None:
            for name, wanted in INSTRUMENTS.items():
                for asked in (name, f"{name}_{wanted.class_code}"):
                    found = await b.instrument(asked)
                    assert (found.uid, found.lot, found.tick_nano, found.tick_value_nano, found.kind) == (
                        wanted.uid, wanted.lot, wanted.tick_nano, wanted.tick_value_nano, wanted.kind,
                    )  # fmt: skip

        play(scenario)  # type: ignore[arg-type]

    def test_a_refusal_has_its_code_and_leaves_nothing(self, play: Play) -> None:
        async def scenario(b: Bench) -> None:
            huge = await b.place(b.order(lots=10_000_000))
            assert (huge.status, huge.reason[:5]) == ("REJECTED", "90003")
            beyond = await b.place(b.order(lots=90, price=30_000))
            assert beyond.status in ("REJECTED", "NEW")
            if beyond.status == "REJECTED":
                assert beyond.reason[:5].isdigit()
            assert (await b.state())[0] == {}

        play(scenario)

    def test_a_lost_answer_is_unknown_and_found_later(self, play: Play) -> None:
        async def scenario(b: RemoteBench) -> None:
            order = b.order(lots=2)
            b.lose_next_answer()
            report = await b.place(order)
            assert (report.status, report.reason[:5]) == ("UNKNOWN", "70002")
            found = await b.query(order.client_order_id)
            assert found is not None
            assert (found.status, found.lots_executed) == ("FILLED", 2)
            again = await b.place(order)  # the same key: never a second order
            assert again.exchange_order_id == found.exchange_order_id
            assert (await b.state())[0] == {"SIMP": 2}

        play(scenario)  # type: ignore[arg-type]
