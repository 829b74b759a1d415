"""Every column does what the schema says where buyers and sellers change places."""

from __future__ import annotations

import numpy as np
import pytest

from features.batch import FeatureTable, compute
from features.schema import EVEN, FEATURES, MIRROR_PARTNER, MIRROR_SIGN, NAMES, ODD, F
from market.types import Books, InstrumentDay, Trades


def mirrored(day: InstrumentDay) -> InstrumentDay:
    """Bids become asks, buyers sellers; prices are turned around the first mid, to stay positive."""
    b, t = day.books, day.trades
    pivot = int(b.bid_px[0, 0]) + int(b.ask_px[0, 0])
    bid_px = np.where(b.ask_px > 0, pivot - b.ask_px, 0).astype(np.int32)
    ask_px = np.where(b.bid_px > 0, pivot - b.bid_px, 0).astype(np.int32)
    books = Books(b.exch_ns, b.recv_ns, bid_px, b.ask_qty, ask_px, b.bid_qty, b.flags)
    trades = Trades(t.exch_ns, t.recv_ns, (pivot - t.px).astype(np.int32), t.qty, -t.side)
    return InstrumentDay(day.instrument, day.day, books, trades)


def leader_of(day: InstrumentDay) -> InstrumentDay:
    """Some leader: the day itself, its books half a second earlier."""
    books = day.books.rows(np.arange(len(day.books)))
    books.recv_ns -= 500_000_000
    return InstrumentDay(day.instrument, day.day, books, day.trades)


def both(day: InstrumentDay) -> tuple[FeatureTable, FeatureTable]:
    return compute(day, leader_of(day)), compute(mirrored(day), mirrored(leader_of(day)))


def assert_mirrors(day: InstrumentDay) -> None:
    here, there = both(day)
    np.testing.assert_array_equal(here.status, there.status)
    expected = MIRROR_SIGN * here.X[:, MIRROR_PARTNER]
    mid2 = here.mid2[here.mid2 > 0]
    per_mid = 4 * float(np.ptp(mid2)) / float(mid2.min())  # what is told in bps is divided by another mid
    for k, spec in enumerate(FEATURES):
        np.testing.assert_allclose(
            there.X[:, k], expected[:, k], err_msg=spec.name, atol=2e-5,
            rtol=2e-4 + (per_mid if "bps" in spec.unit else 0.0),
        )  # fmt: skip


@pytest.mark.parametrize("market", ["clean_day", "dirty_day"])
def test_a_mirrored_market_has_the_declared_rows(market: str, request: pytest.FixtureRequest) -> None:
    assert_mirrors(request.getfixturevalue(market))


def test_the_test_above_sees_a_wrong_declaration(dirty_day: InstrumentDay) -> None:
    """No column is so constant that any sign or partner would do: each of the wrong ones is far off."""
    here, there = both(dirty_day)
    expected = MIRROR_SIGN * here.X[:, MIRROR_PARTNER]
    rows = here.usable
    for k, spec in enumerate(FEATURES):
        if spec.mirror in (ODD, EVEN):
            off = np.abs(there.X[rows, k] + expected[rows, k])
            assert np.nanmax(off) > 1e-2, f"{spec.name} would pass with the other sign"
        else:
            off = np.abs(there.X[rows, k] - here.X[rows, k])
            assert np.nanmax(off) > 1e-2, f"{spec.name} would pass without its partner"


def test_partners_are_pairs_and_a_mirror_of_a_mirror_is_the_row() -> None:
    assert MIRROR_SIGN.dtype == np.float32 and MIRROR_PARTNER.dtype == np.int64
    assert set(MIRROR_SIGN.tolist()) == {1.0, -1.0}
    assert np.array_equal(MIRROR_PARTNER[MIRROR_PARTNER], np.arange(F))
    assert np.array_equal(MIRROR_SIGN[MIRROR_PARTNER], MIRROR_SIGN)
    for k, spec in enumerate(FEATURES):
        if spec.mirror not in (ODD, EVEN):
            assert NAMES[MIRROR_PARTNER[k]] == spec.mirror and MIRROR_SIGN[k] == 1
