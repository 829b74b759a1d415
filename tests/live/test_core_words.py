"""Numbers in the engine's sentences: exact, and never by way of a float."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.core.words import decimal, roubles


@given(st.integers(-(10**18), 10**18), st.integers(1, 9))
def test_a_decimal_reads_back_to_the_same_number(value, places):
    text = decimal(value, places)
    assert Decimal(text).scaleb(places) == value and "e" not in text.lower()
    assert not ("." in text and text.endswith(("0", ".")))


@given(st.integers(-(10**24), 10**24))
def test_roubles_are_rounded_to_the_kopek(nano):
    amount, unit = roubles(nano).split(" ")
    exact = (Decimal(nano) / 10**9).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert unit == "RUB" and Decimal(amount) == exact and amount[0] in "+-"


@pytest.mark.parametrize(("nano", "text"), [(0, "+0.00 RUB"), (-1, "+0.00 RUB"), (-5_000_000, "-0.01 RUB")])
def test_nothing_has_no_sign_of_a_loss(nano, text):
    assert roubles(nano) == text
