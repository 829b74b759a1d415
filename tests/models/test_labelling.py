"""The label that the line learns: kinds by name, neighbouring horizons, and the guard at run time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.batch import compute
from market.errors import ConfigError, ScalperError
from market.simulator import simulate_market
from models.label_kinds import KINDS, PriceAnchored, Tlob, TripleBarrier
from models.labelling import KIND_NAMES, kind_named, label_day, learnable, longest_window_ns, stretched
from models.labels import VOID, make_labels

OPTIONS = {"latency_s": 0.1, "fee_ppm": 50, "theta_bps": 0.0}


@pytest.fixture(scope="module")
def day():
    days, _ = simulate_market(hours=0.1, seed=11)
    return days[0], compute(days[0])


def test_every_kind_has_a_name_and_another_name_is_refused() -> None:
    assert [type(kind_named(name)) for name in KIND_NAMES] == list(KINDS)
    assert kind_named("price_anchored", k=7, horizon_s=3.0) == PriceAnchored(k=7)
    with pytest.raises(ConfigError, match=r"labels\.kind is 'magic'; allowed: executable, point_return"):
        kind_named("magic")


@pytest.mark.parametrize("name", ["past_anchored", "tlob"])
def test_a_label_that_has_seen_the_past_is_refused_at_run_time(name: str) -> None:
    with pytest.raises(ScalperError, match="contains the past and is refused as headline"):
        learnable(kind_named(name, k=20, h=20))


@pytest.mark.parametrize("name", ["executable", "price_anchored"])
def test_an_honest_label_may_be_learnt(name: str) -> None:
    kind = kind_named(name, **OPTIONS, horizon_s=10.0, k=20)
    assert learnable(kind) is kind


@settings(max_examples=20, deadline=None)
@given(horizons=st.lists(st.sampled_from([1.0, 2.0, 5.0, 10.0, 30.0]), min_size=1, max_size=4, unique=True))
def test_each_column_is_the_label_of_its_own_horizon(day, horizons: list[float]) -> None:
    market, table = day
    asked, *others = horizons
    got = make_labels(market, table, horizon_s=asked, neighbours_s=others, **OPTIONS)
    assert got.y_multi.shape == (len(table), len(horizons)) and got.y_multi.dtype == np.uint8
    np.testing.assert_array_equal(got.y_multi[:, 0], got.y)
    for column, h in enumerate(horizons):
        alone = make_labels(market, table, horizon_s=h, **OPTIONS)
        np.testing.assert_array_equal(got.y_multi[:, column], alone.y)
        assert np.all(got.exit_ns >= alone.exit_ns)
    # What a neighbour looks at is purged as well.
    assert longest_window_ns(got, table.recv_ns) == round((max(horizons) + 0.1) * 1e9)


def test_another_kind_changes_the_classes_and_not_the_money(day) -> None:
    market, table = day
    kind = kind_named("price_anchored", k=40)
    got = label_day(market, table, kind, horizons_s=(10.0, 5.0), **OPTIONS)
    money = label_day(market, table, kind_named("executable"), horizons_s=(10.0, 5.0), **OPTIONS)
    np.testing.assert_array_equal(got.long_bps, money.long_bps)
    assert np.any(got.y != money.y)
    assert np.all(got.y[money.y == VOID] == VOID)
    tradable = money.y != VOID
    np.testing.assert_array_equal(got.y[tradable], kind.of_day(market, table).y[tradable])
    np.testing.assert_array_equal(
        got.y_multi[tradable, 1], PriceAnchored(k=20).of_day(market, table).y[tradable]
    )


def test_kinds_are_stretched_in_their_own_measure() -> None:
    assert stretched(PriceAnchored(k=20), 0.5) == PriceAnchored(k=10)
    assert stretched(Tlob(k=10, h=100), 2.0) == Tlob(k=10, h=200)
    assert stretched(TripleBarrier(horizon_s=10.0), 2.0).horizon_s == 20.0
    assert stretched(PriceAnchored(k=1), 0.1).k == 1
