"""Matching, rule by rule, on books small enough to check by eye."""

from __future__ import annotations

from typing import Any

import pytest

from market.matching import UNKNOWN_AHEAD, Matching
from market.types import BUY, SELL, Instrument

SHARE = Instrument("uid", "TEST", "TQBR", "FIGI", "share", 10, 10_000_000, 100_000_000)


@pytest.fixture
def matching() -> Matching:
    """Bids 100x5, 99x7; asks 102x3, 103x4. Fee 50 ppm; a lot at a tick is worth 0.1 RUB."""
    m = Matching(SHARE, 50)
    m.on_book((100, 99), (5, 7), (102, 103), (3, 4), 0)
    return m


def got(executions: list) -> list[tuple[int, int]]:
    return [(e.price_ticks, e.lots) for e in executions]


def test_a_market_order_walks_the_book_and_its_rest_is_cancelled(matching: Matching) -> None:
    executions = matching.submit("a", BUY, 10, None, "day", 1)
    assert got(executions) == [(102, 3), (103, 4)]
    assert matching.remaining("a") == 0
    assert [e.fee_nano for e in executions] == [1_530_000, 2_060_000]  # 50 ppm of 30.6 and of 41.2 RUB
    assert not any(e.maker for e in executions)


def test_what_we_took_stays_taken_until_the_level_changes(matching: Matching) -> None:
    matching.submit("a", BUY, 2, None, "fak", 1)
    matching.on_book((100, 99), (5, 7), (102, 103), (3, 4), 2)
    assert matching.available(BUY) == 1 + 4
    matching.on_book((100, 99), (5, 7), (102, 103), (9, 4), 3)
    assert matching.available(BUY) == 9 + 4
    matching.submit("b", BUY, 2, None, "fak", 4)
    matching.on_book((100, 99), (5, 7), (103, 104), (4, 4), 5)
    matching.on_book((100, 99), (5, 7), (102, 103), (9, 4), 6)
    assert matching.available(BUY) == 9 + 4  # the level went away and came back: new people


def test_fill_or_kill_is_all_or_nothing(matching: Matching) -> None:
    assert matching.submit("a", BUY, 4, 102, "fok", 1) == []
    assert matching.available(BUY) == 7
    assert got(matching.submit("b", BUY, 4, 103, "fok", 1)) == [(102, 3), (103, 1)]
    assert matching.open_orders == ()


def test_fill_and_kill_does_not_rest(matching: Matching) -> None:
    assert got(matching.submit("a", SELL, 9, 100, "fak", 1)) == [(100, 5)]
    assert matching.open_orders == ()


def test_a_resting_order_waits_for_everybody_shown_before_it(matching: Matching) -> None:
    assert matching.submit("a", BUY, 2, 100, "day", 1) == []
    assert matching.open_orders[0].ahead_lots == 5
    assert matching.on_trade(100, 4, SELL, 2) == []
    assert got(matching.on_trade(100, 2, SELL, 3)) == [(100, 1)]
    executions = matching.on_trade(100, 50, SELL, 4)
    assert got(executions) == [(100, 1)]
    assert executions[0].maker
    assert matching.open_orders == ()


def test_an_aggressor_on_our_own_side_does_not_reach_us(matching: Matching) -> None:
    matching.submit("a", BUY, 1, 101, "day", 1)
    assert matching.on_trade(101, 5, BUY, 2) == []
    assert got(matching.on_trade(101, 5, 0, 3)) == [(101, 1)]


def test_the_queue_is_never_longer_than_the_size_shown(matching: Matching) -> None:
    matching.submit("a", BUY, 1, 100, "day", 1)
    matching.on_book((100, 99), (2, 7), (102, 103), (3, 4), 2)
    assert matching.open_orders[0].ahead_lots == 2
    matching.on_book((100, 99), (8, 7), (102, 103), (3, 4), 3)
    assert matching.open_orders[0].ahead_lots == 2
    matching.on_book((99,), (7,), (102, 103), (3, 4), 4)
    assert matching.open_orders[0].ahead_lots == 0


def test_a_price_outside_the_visible_book_has_an_unknown_queue(matching: Matching) -> None:
    matching.submit("a", BUY, 1, 95, "day", 1)
    assert matching.open_orders[0].ahead_lots == UNKNOWN_AHEAD
    assert matching.on_trade(95, 50, SELL, 2) == []
    matching.on_book((95, 94), (6, 6), (102,), (3,), 3)
    assert matching.open_orders[0].ahead_lots == 6


def test_a_print_through_our_price_fills_with_what_was_printed(matching: Matching) -> None:
    matching.submit("a", SELL, 5, 102, "day", 1)
    assert got(matching.on_trade(103, 2, BUY, 2)) == [(102, 2)]
    assert matching.remaining("a") == 3


def test_one_print_is_shared_by_priority(matching: Matching) -> None:
    matching.submit("late but better", BUY, 2, 101, "day", 1)
    matching.submit("first", BUY, 2, 100, "day", 2)
    executions = matching.on_trade(99, 3, SELL, 3)
    assert [(e.order_id, e.price_ticks, e.lots) for e in executions] == [
        ("late but better", 101, 2),
        ("first", 100, 1),
    ]


def test_an_opposite_touch_at_our_price_fills_us_once(matching: Matching) -> None:
    matching.submit("a", BUY, 9, 101, "day", 1)
    book = ((100,), (5,), (101, 102), (4, 3), 2)
    executions = matching.on_book(*book)
    assert got(executions) == [(101, 4)]
    assert executions[0].maker
    assert matching.on_book(*book) == []
    assert got(matching.on_book((100,), (5,), (99, 102), (2, 3), 3)) == [(101, 2)]  # our price, not theirs


def test_a_limit_that_crosses_takes_first_and_rests_with_the_rest(matching: Matching) -> None:
    assert got(matching.submit("a", BUY, 5, 102, "day", 1)) == [(102, 3)]
    assert matching.remaining("a") == 2
    assert matching.open_orders[0].ahead_lots == 0


def test_cancel(matching: Matching) -> None:
    matching.submit("a", BUY, 5, 99, "day", 1)
    assert matching.cancel("a", 2)
    assert not matching.cancel("a", 3)
    assert matching.on_trade(98, 5, SELL, 4) == []


def test_no_book_no_fills() -> None:
    m = Matching(SHARE, 50)
    assert m.submit("a", BUY, 1, None, "day", 0) == []
    m.submit("b", BUY, 1, 100, "day", 0)
    assert m.open_orders[0].ahead_lots == UNKNOWN_AHEAD


def behind_ten(fills: Any = "queue", queue: Any = "risk_averse", power: int = 2) -> Matching:
    """Our buy of 4 lots at 100 behind 10 others; then 10 more came: the market of docs/matching.md."""
    m = Matching(SHARE, 50, fills=fills, queue=queue, queue_power=power)
    m.on_book((100, 99), (10, 7), (102, 103), (3, 4), 0)
    m.submit("a", BUY, 4, 100, "day", 1)
    m.on_book((100, 99), (20, 7), (102, 103), (3, 4), 2)
    return m


def thinned(m: Matching) -> int:
    """4 lots are printed at our price and 6 cancelled: the lots that are ahead of us then."""
    m.on_trade(100, 4, SELL, 3)
    m.on_book((100, 99), (10, 7), (102, 103), (3, 4), 4)
    return m.open_orders[0].ahead_lots


def test_a_risk_averse_queue_takes_cancellations_to_be_behind_us() -> None:
    m = behind_ten()
    assert thinned(m) == 6
    assert got(m.on_trade(100, 7, SELL, 5)) == [(100, 1)]


@pytest.mark.parametrize(("power", "ahead", "filled"), [(1, 4, 3), (2, 5, 2), (8, 6, 1)])
def test_a_probabilistic_queue_shares_them_out(power: int, ahead: int, filled: int) -> None:
    """6 ahead and 10 behind lose 6 lots: 6 * 6**n / (6**n + 10**n) of them in front, which leaves 3.75, 4.41
    and 5.9."""
    m = behind_ten(queue="probabilistic", power=power)
    assert thinned(m) == ahead
    assert got(m.on_trade(100, 7, SELL, 5)) == [(100, filled)]


def test_small_cancellations_add_up() -> None:
    m = behind_ten(queue="probabilistic", power=1)
    for size in range(19, 9, -1):
        m.on_book((100, 99), (size, 7), (102, 103), (3, 4), 3)
    assert m.open_orders[0].ahead_lots == 5


def test_prints_are_not_counted_as_cancellations_too() -> None:
    m = behind_ten(queue="probabilistic")
    m.on_trade(100, 6, SELL, 3)
    m.on_book((100, 99), (14, 7), (102, 103), (3, 4), 4)
    assert m.open_orders[0].ahead_lots == 4


def test_pessimistic_fills_only_through_or_across() -> None:
    m = behind_ten("pessimistic")
    assert m.on_trade(100, 500, SELL, 3) == []
    assert got(m.on_trade(99, 1, SELL, 4)) == [(100, 1)]
    assert got(m.on_book((98,), (7,), (100, 101), (2, 9), 5)) == [(100, 2)]


def test_optimistic_is_first_in_line() -> None:
    m = behind_ten("optimistic")
    assert m.open_orders[0].ahead_lots == 0
    assert got(m.on_trade(100, 3, SELL, 3)) == [(100, 3)]
    assert m.on_trade(100, 3, BUY, 4) == []


@pytest.mark.parametrize(
    ("side", "lots", "tif"), [(0, 1, "day"), (BUY, 0, "day"), (BUY, -1, "day"), (BUY, 1, "gtc")]
)
def test_impossible_orders_are_refused(matching: Matching, side: int, lots: int, tif: str) -> None:
    with pytest.raises(ValueError, match="bad order"):
        matching.submit("a", side, lots, 100, tif, 1)  # type: ignore[arg-type]


def test_an_id_works_once_at_a_time(matching: Matching) -> None:
    matching.submit("a", BUY, 1, 99, "day", 1)
    with pytest.raises(ValueError, match="still working"):
        matching.submit("a", BUY, 1, 99, "day", 2)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"queue": "hopeful"}, "risk_averse, probabilistic"),
        ({"fills": "hopeful"}, "pessimistic, queue, optimistic"),
        ({"queue_power": 0}, "1 to 8"),
    ],
)
def test_an_unknown_model_is_named(named: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Matching(SHARE, 50, **named)
