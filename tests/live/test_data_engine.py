"""The data engine: TTL cache, rings, gaps, and which instruments are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_bench import SECOND_NS, START_NS, Bench, audits, of
from hypothesis import given
from hypothesis import strategies as st

from live.core import commands as cmd
from live.core import events as ev
from live.data_engine import HYSTERESIS, MIN_ROWS, DataEngine, Tradability, choose
from market.types import Instrument

TTL_NS = 5 * SECOND_NS


def instrument(ticker: str) -> Instrument:
    found = next(iter(Bench.ready().engine.instruments.values()))
    return replace(found, ticker=ticker)


def book(ticker: str, now_ns: int, bid: int = 10_000, spread: int = 2, lots: int = 100) -> ev.Book:
    ask = bid + spread
    bids, asks = tuple(bid - i for i in range(5)), tuple(ask + i for i in range(5))
    return ev.Book(now_ns, ticker, now_ns, bids, (lots,) * 5, asks, (lots,) * 5)


def engine(*tickers: str, ring: int = 64) -> DataEngine:
    return DataEngine({t: instrument(t) for t in tickers}, ttl_ns=TTL_NS, ring_length=ring)


def test_data_engine_has_a_ttl_cache() -> None:
    data = engine("AAA")
    assert data.book("AAA", START_NS) is None
    seen = book("AAA", START_NS)
    data.on_book(seen)
    assert data.book("AAA", START_NS + TTL_NS) is seen
    assert data.book("AAA", START_NS + TTL_NS + 1) is None


def test_data_engine_has_ring_buffers_that_never_grow_beyond_their_length() -> None:
    data = engine("AAA", ring=32)
    for n in range(200):
        data.on_book(book("AAA", START_NS + n))
        data.on_trade(ev.Trade(START_NS + n, "AAA", 0, 10_000, 1, 1))
    assert data.report(START_NS)["AAA"]["ring"] == 32
    assert data.report(START_NS)["AAA"]["books"] == 200


def test_gaps_are_counted_and_shown() -> None:
    data = engine("AAA")
    for at_s in (0, 1, 8, 9, 30):
        data.on_book(book("AAA", START_NS + at_s * SECOND_NS))
    shown = data.report(START_NS + 31 * SECOND_NS)["AAA"]
    assert (shown["gaps"], shown["longest_gap_s"], shown["age_s"], shown["fresh"]) == (2, 21.0, 1.0, True)
    assert data.gaps == 2


def test_the_book_caches_are_cleared_when_the_channel_changes() -> None:
    data = engine("AAA")
    data.on_book(book("AAA", START_NS))
    data.clear()
    assert data.book("AAA", START_NS) is None


@pytest.mark.parametrize(
    ("better", "worse"),
    [({"spread": 1}, {"spread": 9}), ({"lots": 900}, {"lots": 10}), ({"trades": 50}, {"trades": 1})],
)
def test_the_most_tradable_by_spread_depth_and_turnover_come_first(better: dict, worse: dict) -> None:
    data = engine("AAA", "ZZZ")
    for ticker, change in (("ZZZ", dict(better)), ("AAA", dict(worse))):
        trades = change.pop("trades", 5)
        for n in range(MIN_ROWS):
            data.on_book(book(ticker, START_NS + n * SECOND_NS, **change))
        for _ in range(trades):
            data.on_trade(ev.Trade(START_NS + SECOND_NS, ticker, 0, 10_000, 1, 1))
    assert [t.ticker for t in data.rank()] == ["ZZZ", "AAA"]


def test_an_instrument_with_too_few_books_is_not_ranked() -> None:
    data = engine("AAA")
    for n in range(MIN_ROWS - 1):
        data.on_book(book("AAA", START_NS + n))
    assert data.rank() == []


def worth(**scores: float) -> list[Tradability]:
    return [Tradability(t, s, 1, 1, 1) for t, s in scores.items()]


def test_rotation_has_hysteresis() -> None:
    near, far = HYSTERESIS * 0.99, HYSTERESIS * 1.01
    assert choose(worth(OLD=1.0, NEW=near), {"OLD"}, (), 1) == ("OLD",)
    assert choose(worth(OLD=1.0, NEW=far), {"OLD"}, (), 1) == ("NEW",)


TICKERS = st.sampled_from(["A", "B", "C", "D", "E", "F"])


@given(st.dictionaries(TICKERS, st.floats(0.1, 1e6)), st.sets(TICKERS), st.sets(TICKERS), st.integers(0, 6))
def test_rotation_keeps_n_and_never_rotates_out_one_with_a_position_or_a_working_order(
    scores: dict[str, float], active: set[str], pinned: set[str], keep: int
) -> None:
    everything = set("ABCDEF")
    kept = choose(worth(**scores), active, pinned, keep, known=everything)
    assert pinned <= set(kept) <= everything
    assert len(kept) == (max(keep, len(pinned)) if keep else len(everything))
    # The same market twice: nothing moves.
    assert choose(worth(**scores), kept, pinned, keep, known=everything) == kept


def test_the_engine_never_rotates_out_one_with_a_position_whatever_the_driver_says() -> None:
    bench = Bench.ready()
    bench.enter()  # AAA
    commands = bench.tell(ev.ActiveInstruments, (), "rotation")
    assert bench.engine.rotated_out == {"BBB"}
    assert "ROTATION" in audits(commands)


def test_the_engine_never_rotates_out_one_with_a_working_order() -> None:
    bench = Bench.ready()
    bench.score()
    assert bench.lots() == 0 and bench.engine.orders.working("AAA")
    bench.tell(ev.ActiveInstruments, ("BBB",), "rotation")
    assert bench.engine.rotated_out == frozenset()


def test_a_rotated_out_instrument_opens_nothing_and_comes_back() -> None:
    bench = Bench.ready()
    commands = bench.tell(ev.ActiveInstruments, ("BBB",), "rotation")
    assert bench.engine.rotated_out == {"AAA"}
    assert "INSTRUMENT_ROTATED_OUT" in audits(commands)
    assert [n.tone_hz for n in of(commands, cmd.Notify)] == [None]  # no alarm: it is routine
    bench.book()
    assert not of(bench.score(), cmd.PlaceOrder)
    assert "INSTRUMENT_ROTATED_IN" in audits(bench.tell(ev.ActiveInstruments, ("AAA", "BBB"), "rotation"))
    bench.book()
    assert of(bench.score(), cmd.PlaceOrder)
