"""Each rule speaks about the fault it is made for, by name, and about nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from market.importers import load
from market.inspect import inspect_day
from market.simulator import SimSpec, simulate_market
from market.types import MILLISECOND_NS, SECOND_NS, Books, InstrumentDay, Trades
from market.verdict import judge

HOUR_NS = 3_600 * SECOND_NS


@pytest.fixture(scope="module")
def sound() -> InstrumentDay:
    """A quarter of an hour with a spread of some ticks and about 3,000 trades."""
    return simulate_market([SimSpec("SIMA")], hours=0.25, seed=5)[0][0]


def copied(day: InstrumentDay) -> InstrumentDay:
    return replace(
        day,
        books=day.books.rows(np.arange(len(day.books))),
        trades=day.trades.rows(np.arange(len(day.trades))),
    )


def drop_best(day: InstrumentDay, side: str, levels: int) -> None:
    """The best ``levels`` of a side were never recorded."""
    for name in (f"{side}_px", f"{side}_qty"):
        column = getattr(day.books, name)
        column[:, :-levels] = column[:, levels:].copy()
        column[:, -levels:] = 0


def asks_are_levels_six_to_ten(day: InstrumentDay) -> None:
    drop_best(day, "ask", 5)


def bids_are_levels_three_to(day: InstrumentDay) -> None:
    drop_best(day, "bid", 3)


def turn_sides(day: InstrumentDay) -> None:
    day.trades.side[:] *= -1


def trades_in_another_zone(day: InstrumentDay) -> None:
    day.trades.recv_ns[:] += 3 * HOUR_NS
    day.trades.exch_ns[:] += 3 * HOUR_NS


def another_instrument(day: InstrumentDay) -> None:
    day.trades.px[:] += 500


def half_of_the_trades_a_tick_late(day: InstrumentDay) -> None:
    day.trades.px[::2] -= 3 * day.trades.side[::2]


def cross_a_tenth(day: InstrumentDay) -> None:
    day.books.bid_px[::10, 0] = day.books.ask_px[::10, 0] + 1


def cross_a_hundredth(day: InstrumentDay) -> None:
    day.books.bid_px[::100, 0] = day.books.ask_px[::100, 0] + 1


def lock_a_minute(day: InstrumentDay) -> None:
    rows = slice(400, 640)
    shift = (day.books.ask_px[rows, :1] - day.books.bid_px[rows, :1]).copy()
    day.books.ask_px[rows] -= np.where(day.books.ask_qty[rows] > 0, shift, 0)


def lose_a_side(day: InstrumentDay) -> None:
    day.books.ask_px[:200] = day.books.ask_qty[:200] = 0


def mark_incomplete(day: InstrumentDay) -> None:
    day.books.flags[::2] = 0


def stand_still(day: InstrumentDay) -> None:
    keep = np.ones(len(day.books), bool)
    keep[1000:1100] = False
    day.books = day.books.rows(keep)


def go_silent(day: InstrumentDay) -> None:
    for table in (day.books, day.trades):
        late = table.recv_ns >= day.books.recv_ns[1800] if table is day.books else None
        if late is None:
            late = table.recv_ns >= day.books.recv_ns[1799] + 1
        table.recv_ns[late] += 240 * SECOND_NS
        table.exch_ns[late] += 240 * SECOND_NS


def clock_behind(day: InstrumentDay) -> None:
    day.books.exch_ns[:] += 1_300 * MILLISECOND_NS


def clock_in_another_zone(day: InstrumentDay) -> None:
    day.trades.exch_ns[:] += 3 * HOUR_NS


def clock_drifts(day: InstrumentDay) -> None:
    since = day.books.recv_ns - day.books.recv_ns[0]
    day.books.exch_ns[:] -= since // 10_000  # 100 ppm = 360 ms an hour


def another_day(day: InstrumentDay) -> None:
    day.day = "2026-01-16"


def mix_two_feeds(day: InstrumentDay) -> None:
    for name in Books.__slots__:  # one book and another book 40 ticks away, in turn
        if name not in ("recv_ns", "exch_ns"):
            getattr(day.books, name)[:] = getattr(day.books, name)[0]
    away = np.where(day.books.bid_qty[1::2] > 0, 40, 0)
    day.books.bid_px[1::2] += away
    day.books.ask_px[1::2] += away
    day.trades = Trades.empty()


def freeze(day: InstrumentDay) -> None:
    for name in ("bid_px", "ask_px", "bid_qty", "ask_qty"):
        getattr(day.books, name)[:] = getattr(day.books, name)[0]


def quotes_without_the_touch(day: InstrumentDay) -> None:
    drop_best(day, "ask", 5)
    drop_best(day, "bid", 5)
    day.trades = Trades.empty()


def wide(day: InstrumentDay) -> None:
    day.books.ask_px[:] += np.where(day.books.ask_qty > 0, 400, 0)
    day.trades = Trades.empty()


def nothing(day: InstrumentDay) -> None:
    day.books, day.trades = Books.empty(), Trades.empty()


def spoil_trades(day: InstrumentDay) -> None:
    day.trades.qty[::100] = 0


@pytest.mark.parametrize(
    ("spoil", "level", "names"),
    [
        (asks_are_levels_six_to_ten, "implausible", {"ask_not_touch"}),
        (bids_are_levels_three_to, "implausible", {"bid_not_touch"}),
        (turn_sides, "implausible", {"sides_reversed"}),
        (trades_in_another_zone, "implausible", {"trades_shifted"}),
        (another_instrument, "implausible", {"trades_elsewhere"}),
        (half_of_the_trades_a_tick_late, "suspicious", {"trades_off_touch"}),
        (cross_a_tenth, "implausible", {"unsound_rows", "crossed_time"}),
        (cross_a_hundredth, "suspicious", {"unsound_rows", "crossed_time"}),
        (lock_a_minute, "suspicious", {"crossed_time"}),
        (lose_a_side, "suspicious", {"one_sided"}),
        (mark_incomplete, "suspicious", {"incomplete"}),
        (stand_still, "suspicious", {"silent_while_trading"}),
        (go_silent, "suspicious", {"gaps"}),
        (clock_behind, "suspicious", {"clock_behind"}),
        (clock_in_another_zone, "implausible", {"clock_zone"}),
        (clock_drifts, "suspicious", {"clock_drift"}),
        (another_day, "suspicious", {"wrong_day"}),
        (mix_two_feeds, "suspicious", {"mid_flickers"}),
        (freeze, "implausible", {"book_frozen", "trades_off_touch"}),
        (quotes_without_the_touch, "suspicious", {"levels_missing"}),
        (wide, "suspicious", {"wide_spread", "levels_missing"}),
        (nothing, "implausible", {"nothing_usable"}),
        (spoil_trades, "suspicious", {"unsound_rows"}),
    ],
)
def test_a_fault_is_named(
    sound: InstrumentDay, spoil: Callable[[InstrumentDay], None], level: str, names: set[str]
) -> None:
    day = copied(sound)
    spoil(day)
    verdict = judge(inspect_day(day))
    assert ({reason.name for reason in verdict.reasons}, verdict.level) == (names, level)
    assert all(reason.text and not reason.text.endswith(".") for reason in verdict.reasons)


def test_the_sound_day_is_in_order_whatever_is_left_out(sound: InstrumentDay) -> None:
    for day in (
        sound,
        replace(sound, trades=Trades.empty()),
        replace(sound, books=Books.empty()),
        replace(sound, trades=sound.trades.rows(slice(0, 40))),
    ):
        assert judge(inspect_day(day)).reasons == ()


def test_the_displaced_side_is_said_with_its_distance(sound: InstrumentDay) -> None:
    day = copied(sound)
    asks_are_levels_six_to_ten(day)
    [reason] = judge(inspect_day(day)).reasons
    assert "print exactly 5 ticks below the shown best ask" in reason.text
    day = copied(sound)
    trades_in_another_zone(day)
    [reason] = judge(inspect_day(day)).reasons
    assert "moved by -3 h" in reason.text


def test_a_level_missing_for_a_while_condemns_nothing(sound: InstrumentDay) -> None:
    """The rule asks for a rule of the market, not for a bad minute."""
    day = copied(sound)
    part = replace(day, books=day.books.rows(slice(0, 600)))  # views: a sixth of the day is spoiled in place
    asks_are_levels_six_to_ten(part)
    assert judge(inspect_day(day)).level != "implausible"


@pytest.mark.recorded
def test_gazp_of_2017_is_implausible(shared_data: Path) -> None:
    folder = shared_data / "moex-qsh"
    files = [folder / f"GAZP.2017-04-24.{kind}.qsh" for kind in ("Deals", "Quotes")]
    [day] = load(files).days
    verdict = judge(inspect_day(day))
    assert verdict.level == "implausible"
    [reason] = [reason for reason in verdict.reasons if reason.level == "implausible"]
    assert reason.name == "ask_not_touch"
    assert (
        "of the 46," in reason.text and "buys print exactly 5 ticks below the shown best ask" in reason.text
    )
