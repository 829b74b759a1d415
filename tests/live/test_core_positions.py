"""Realised PnL is booked on partial closes, full closes and reversals; fees included; equal to cash to the
nano.
"""

from __future__ import annotations

import pytest
from core_bench import Bench, instrument, of
from hypothesis import given
from hypothesis import strategies as st

from live.core import commands as cmd
from live.core import events as ev
from live.core.positions import Position

DEALS = st.lists(
    st.tuples(st.sampled_from((1, -1)), st.integers(1, 50_000), st.integers(1, 60), st.integers(0, 10**9)),
    max_size=60,
)


@given(DEALS, st.integers(1, 50_000), st.sampled_from((1, 7, 10**8, 10**9, 333_333_333)))
def test_realised_plus_unrealised_equals_the_cash_flow_plus_the_mark(
    deals: list[tuple[int, int, int, int]], mark: int, tick_value_nano: int
) -> None:
    inst = instrument(tick_value_nano=tick_value_nano)
    position, cash, lots = Position(), 0, 0
    for now_ns, (side, price, size, fee) in enumerate(deals):
        position.book(inst, side, price, size, fee, now_ns, "t")
        cash -= side * price * size * tick_value_nano + fee
        lots += side * size
        result = position.realised_nano - position.fees_nano + position.unrealised_nano(inst, mark)
        assert position.lots == lots
        assert result == cash + mark * lots * tick_value_nano
        assert (position.lots == 0) == (position.trip is None)
        if lots == 0:
            assert position.cost_nano == 0


@given(DEALS)
def test_round_trips_add_up_to_the_realised_result_and_the_fees(
    deals: list[tuple[int, int, int, int]],
) -> None:
    inst, position = instrument(), Position()
    gross = fees = 0
    for now_ns, (side, price, size, fee) in enumerate(deals):
        closed = position.book(inst, side, price, size, fee, now_ns, "t").closed
        if closed is not None:
            gross, fees = gross + closed.gross_nano, fees + closed.fees_nano
            assert closed.gross_nano == closed.side * (closed.exit_value_nano - closed.entry_value_nano)
    open_trip = position.trip
    assert position.realised_nano == gross + (open_trip.gross_nano if open_trip else 0)
    assert position.fees_nano == fees + (open_trip.fees_nano if open_trip else 0)


def test_a_partial_close_realises_its_share_at_average_cost() -> None:
    inst, position = instrument(tick_value_nano=1), Position()
    position.book(inst, 1, 100, 2, 0, 0, "t")
    position.book(inst, 1, 103, 1, 0, 0, "t")
    booked = position.book(inst, -1, 110, 1, 0, 0, "t")
    assert (booked.realised_nano, position.lots, position.cost_nano) == (110 - 101, 2, 202)


def test_a_reversal_closes_the_old_trip_and_opens_a_new_one_on_the_other_side() -> None:
    inst, position = instrument(tick_value_nano=1), Position()
    position.book(inst, 1, 100, 4, 8, 0, "one")
    booked = position.book(inst, -1, 105, 6, 9, 1, "two")
    assert booked.closed is not None and booked.opened
    assert (booked.closed.gross_nano, booked.closed.fees_nano) == (20, 8 + 6)
    assert position.lots == -2 and position.trip is not None
    assert (position.trip.trace_id, position.trip.side, position.trip.fees_nano) == ("two", -1, 3)


@pytest.mark.parametrize("side,lots", [(0, 1), (1, 0), (2, 1)])
def test_a_deal_without_side_or_lots_is_refused(side: int, lots: int) -> None:
    with pytest.raises(ValueError):
        Position().book(instrument(), side, 100, lots, 0, 0, "t")


def test_the_commands_tell_fill_position_and_trip_with_fees() -> None:
    bench = Bench.ready()
    bench.enter(fee=7)
    lots = bench.lots()
    bench.tell(ev.StopRequested, "end", flatten=True)
    exit_order = bench.orders()[-1]
    bench.fill(exit_order, 29_999, fee=11)
    trip = of(bench.log, cmd.TripClosed)[-1]
    cost = sum(c.price_ticks * c.lots for c in of(bench.log, cmd.FillBooked) if c.side == 1) * 10**8
    assert trip.lots == lots and trip.gross_nano == 29_999 * lots * 10**8 - cost
    assert trip.fees_nano == 7 * 2 + 11 and trip.net_nano == trip.gross_nano - trip.fees_nano
    assert bench.engine.risk.day_realised_nano == trip.net_nano
    assert of(bench.log, cmd.PositionChanged)[-1].lots == 0
