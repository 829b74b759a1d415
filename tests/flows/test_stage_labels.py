"""Stage ``labels``: which split a recording gets, and the kind of label that ``params.yaml`` asks for."""

from __future__ import annotations

import pytest

from features.schema import FEATURES
from flows import params
from flows.stages.labels import kind_of, split
from market.errors import ConfigError
from models.label_kinds import Executable, PriceAnchored

SHARES = {"fit": 0.5, "calibrate": 0.125, "threshold": 0.125, "score": 0.125, "live": 0.125}
HOUR, DAY = 3_600 * 10**9, 86_400 * 10**9
PURGE = 20_100_000_000


def parts(days: int) -> list[tuple[str, int, int]]:
    """Two instruments a day, one of which opens later."""
    return [
        (f"2026-01-{10 + d}", d * DAY + late, d * DAY + 8 * HOUR) for d in range(days) for late in (0, HOUR)
    ]


def test_enough_days_are_split_by_session_with_an_embargo() -> None:
    blocks = split(parts(6), SHARES, PURGE)
    longest = round(max(f.window_s for f in FEATURES) * 1e9)
    assert blocks.embargo_ns == max(longest, PURGE) and blocks.purge_ns == PURGE
    assert [span[1] % DAY for span in blocks.blocks] == [0] * 5
    assert blocks.span("live") == (5 * DAY, 5 * DAY + 8 * HOUR)


def test_few_days_are_split_by_time() -> None:
    blocks = split(parts(1), SHARES, PURGE)
    assert blocks.embargo_ns == 0 and blocks.span("fit") == (0, 4 * HOUR)


def test_horizons_and_kinds_come_from_the_file() -> None:
    plain = params.parse({})
    assert plain.horizons_s == (10.0, 5.0, 20.0)
    assert kind_of(plain, fee_ppm=50) == Executable(10.0, 0.1, 50, 0.0)
    chosen = params.parse({"labels": {"kind": "price_anchored", "k": 7, "horizons_s": [10.0, 2.0]}})
    assert chosen.horizons_s == (10.0, 2.0) and kind_of(chosen) == PriceAnchored(k=7)
    for wrong in ([0.0], ["five"]):
        with pytest.raises(ConfigError, match=r"labels\.horizons_s is .*seconds above 0"):
            params.parse({"labels": {"horizons_s": wrong}})
