"""The same session, the same orders: their hash is kept here and changes only when a decision does.

Whoever changes a rule on purpose changes the hash with it, and says so in the change log.
"""

from __future__ import annotations

from collections import Counter

import pytest
from core_bench import of
from core_world import World, fixed_session

from live.core import commands as cmd
from live.journal import order_list_hash

ORDERS = 659
ORDER_LIST_HASH = "ab74ec87e4f93bea84c1e287053e96df9d21b077b8b370d73ed1a61f41f19923"


@pytest.fixture(scope="module")
def world() -> World:
    return fixed_session()


def test_the_order_list_of_the_fixed_session_is_the_one_kept_here(world: World) -> None:
    assert (len(world.orders), order_list_hash(world.orders)) == (ORDERS, ORDER_LIST_HASH)


def test_the_fixed_session_meets_every_kind_of_trouble(world: World) -> None:
    """A hash is worth what the session behind it covers."""
    reasons = {order.reason for order in world.orders}
    assert reasons >= {
        "SIGNAL ensemble", "SIGNAL fallback", "REVERSAL", "HORIZON", "NO_SCORES", "EXCHANGE_STOP",
    }  # fmt: skip
    held = {change.hold.name for change in of(world.log, cmd.HoldChanged)}
    assert held >= {
        "BOOK_QUARANTINE", "CONNECTION", "CRITICAL_DRIFT", "LOSS_COOLDOWN", "MANUAL_OVERRIDE",
        "NOT_RECONCILED", "ORDER_UNKNOWN", "ROTATED_OUT", "SESSION", "TRADING_STATUS", "VOLATILITY",
    }  # fmt: skip
    assert {order.order_type for order in world.orders} == {"market", "limit", "stop"}
    sides = Counter((order.ticker, order.side) for order in world.orders)
    assert len(sides) == 4 and min(sides.values()) > 50  # a share and a future, bought and sold


def test_after_the_fixed_session_our_books_are_the_exchanges(world: World) -> None:
    ours = {ticker: position.lots for ticker, position in world.engine.positions.items()}
    assert ours == world.broker.positions == {"AAA": 0, "FUT": 0}
    trips = of(world.log, cmd.TripClosed)
    positions = world.engine.positions.values()
    assert sum(t.net_nano for t in trips) == sum(p.realised_nano - p.fees_nano for p in positions)
    assert all(order.settled for order in world.engine.orders._by_id.values())
