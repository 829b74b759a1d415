"""The simulated market looks like a market, says the same twice, and keeps its secret out of the data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from market.errors import ConfigError
from market.recording import Recording
from market.simulator import (
    DEFAULT_SPECS,
    LATENCY_NS,
    MID_TICKS,
    SimSpec,
    play,
    simulate_market,
    simulate_recording,
)
from market.simulator_presets import PRESETS, SMALL
from market.types import BUY, NANO, SECOND_NS, Books, InstrumentDay
from market.validate import clean_day

QUARTER_NS = SECOND_NS // 4
TEN_SECONDS = 40  # rows of QUARTER_NS
SEEDS = (1, 2, 3)
GOLDEN_MARKET = "5698754adf09608641b14b654c3ae237941ea51f0db31bdb548379d0c14bc3b2"
GOLDEN_PRESETS = "8ab6979719cbdd2ce75d48fa25643bb0a07eccc1796d4402b081d4cd0c5e5f3d"
GOLDEN_RECORDING = "da718e90f20f9d1aa74958a9841ac0a3c469fb6db31565f397f96aa1338b8cd6"


@pytest.fixture(scope="module")
def market() -> tuple[list[InstrumentDay], dict[str, Any]]:
    return simulate_market(hours=0.25, seed=7)


def mid(books: Books) -> np.ndarray[Any, Any]:
    return np.asarray((books.bid_px[:, 0].astype(np.float64) + books.ask_px[:, 0]) / 2)


def digest(days: list[InstrumentDay], oracle: dict[str, Any]) -> str:
    """SHA-256 over every array, its name, type and shape."""
    total = hashlib.sha256()
    for day in days:
        for table in (day.books, day.trades):
            for name in table.__slots__:
                array = getattr(table, name)
                total.update(f"{day.instrument.ticker}/{name}/{array.dtype}{array.shape}".encode())
                total.update(array.tobytes())
        total.update(oracle[day.instrument.ticker].tobytes())
    return total.hexdigest()


def test_the_default_market_is_the_one_that_was_always_made(tmp_path: Path) -> None:
    """A trained bundle names the data that it saw by hash: a faster simulator must not make other data."""
    assert digest(*simulate_market(hours=0.05, seed=7)) == GOLDEN_MARKET
    recording, _ = simulate_recording(tmp_path / "r", hours=0.05, seed=7)
    assert recording.data_hash() == GOLDEN_RECORDING


def test_the_presets_are_the_ones_that_were_measured() -> None:
    specs = [
        SimSpec(ticker, preset)
        for ticker, preset in (
            ("SMAL0", "SMALL"), ("LARG1", "LARGE"), ("SMAL2", "SMALL_ACTIVE"), ("SMAL3", "SMALL_STEADY"),
        )
    ]  # fmt: skip
    assert digest(*simulate_market(specs, hours=0.05, seed=7)) == GOLDEN_PRESETS
    active, leaning = PRESETS["SMALL_ACTIVE"], PRESETS["SMALL_LEANING"]
    for rate in ("k", "mu", "theta", "ha", "hb"):
        assert getattr(active, rate) == pytest.approx(6 * getattr(SMALL, rate))
    assert (active.pmeta, active.kappa, leaning.kappa) == (0.3, 0.3, 0.25)


def test_the_planted_state_leads_the_price_and_only_where_planted() -> None:
    found: dict[str, list[float]] = {"SIMP": [], "SIMA": []}
    for seed in SEEDS:
        days, oracle = simulate_market(DEFAULT_SPECS[:2], hours=1.0, seed=seed)
        for day in days:
            price = mid(day.books)
            ahead = price[TEN_SECONDS:] - price[:-TEN_SECONDS]
            state = oracle[day.instrument.ticker][:-TEN_SECONDS]
            found[day.instrument.ticker].append(float(np.corrcoef(state, ahead)[0, 1]))
    assert np.mean(found["SIMP"]) > 0.25
    assert abs(np.mean(found["SIMA"])) < 0.15


def test_every_book_is_a_possible_one(market: tuple[list[InstrumentDay], dict[str, Any]]) -> None:
    for day in market[0]:
        _, report = clean_day(day)
        kept_as_is = {**report.to_dict(), "duplicated": 0, "longest_gap_ns": 0}
        expected = {"ticker": day.instrument.ticker, "day": day.day, "books": 3600, "trades": len(day.trades)}
        assert {k: v for k, v in kept_as_is.items() if v} == expected
        assert (day.books.bid_qty >= 1).all() and (day.books.ask_qty >= 1).all()
        assert len(day.trades) > 500
        assert (day.trades.qty >= 1).all() and set(day.trades.side.tolist()) == {-1, 1}
        assert abs(mid(day.books)[0] - MID_TICKS) < 20


def test_time_runs_on_a_grid_and_messages_arrive_a_little_later(
    market: tuple[list[InstrumentDay], dict[str, Any]],
) -> None:
    opening = 1_768_460_400 * SECOND_NS  # 2026-01-15 10:00 Moscow = 07:00 UTC
    for day in market[0]:
        np.testing.assert_array_equal(day.books.exch_ns, opening + np.arange(1, 3601) * QUARTER_NS)
        exch = np.concatenate([day.trades.exch_ns, day.books.exch_ns])
        recv = np.concatenate([day.trades.recv_ns, day.books.recv_ns])
        assert (recv - exch).min() >= LATENCY_NS[0] - len(recv)
        assert (recv - exch).max() <= LATENCY_NS[1]
        order = np.argsort(exch, kind="stable")
        assert (np.diff(recv[order]) > 0).all(), "a message overtook another"


def test_trades_print_at_the_touch() -> None:
    """At a millisecond between books, the first print of an order is nearly always at the last seen touch."""
    played = play(SMALL, 60_000, SECOND_NS // 1000, 1)
    first = np.flatnonzero(np.diff(played.trade_ns, prepend=-1) > 0)
    row = (played.trade_ns[first] - 1) // (SECOND_NS // 1000) - 1
    first, row = first[row >= 0], row[row >= 0]
    buy = played.trade_side[first] == BUY
    touch = np.where(buy, played.ask_px[row, 0], played.bid_px[row, 0])
    size = np.where(buy, played.ask_qty[row, 0], played.bid_qty[row, 0])
    assert len(first) > 100
    assert (played.trade_px[first] == touch).mean() > 0.9
    assert (played.trade_qty[first] <= size).mean() > 0.9


def test_the_same_seed_says_the_same_whoever_else_is_simulated() -> None:
    days, oracle = simulate_market(hours=0.05, seed=5)
    alone, alone_oracle = simulate_market([DEFAULT_SPECS[1]], hours=0.05, seed=5)
    np.testing.assert_array_equal(oracle["SIMA"], alone_oracle["SIMA"])
    for table, other in ((days[1].books, alone[0].books), (days[1].trades, alone[0].trades)):
        for name in table.__slots__:
            np.testing.assert_array_equal(getattr(table, name), getattr(other, name))


def test_seed_day_and_ticker_each_change_the_path() -> None:
    spec = SimSpec("AAAA")
    paths = [
        simulate_market([spec], hours=0.05, seed=5),
        simulate_market([spec], hours=0.05, seed=6),
        simulate_market([spec], hours=0.05, seed=5, day="2026-01-16"),
        simulate_market([SimSpec("BBBB")], hours=0.05, seed=5),
        simulate_market([SimSpec("AAAA", seed=1)], hours=0.05, seed=5),
    ]
    assert len({days[0].books.bid_qty.tobytes() for days, _ in paths}) == len(paths)


def test_no_randomness_of_others_is_touched() -> None:
    before = np.random.get_state()
    simulate_market([SimSpec("AAAA")], hours=0.01)
    after = np.random.get_state()
    assert before[2:] == after[2:] and np.array_equal(before[1], after[1])


def test_the_default_market() -> None:
    days, oracle = simulate_market(hours=0.01)
    by_ticker = {day.instrument.ticker: day.instrument for day in days}
    assert list(by_ticker) == ["SIMP", "SIMA", "SIMF"] == list(oracle)
    share, future = by_ticker["SIMP"], by_ticker["SIMF"]
    assert (share.kind, share.lot, share.tick_nano, share.tick_value_nano) == (
        "share",
        10,
        NANO // 100,
        NANO // 10,
    )
    assert (future.kind, future.lot) == ("future", 1)
    assert len({i.uid for i in by_ticker.values()}) == len({i.figi for i in by_ticker.values()}) == 3
    planted = [spec.ticker for spec in DEFAULT_SPECS if spec.parameters().gflow or spec.parameters().gbook]
    assert planted == ["SIMP"]


def test_the_recording_knows_its_parameters_but_not_the_oracle(tmp_path: Path) -> None:
    recording, _ = simulate_recording(tmp_path / "r", hours=0.02, seed=3)
    info = Recording.open(tmp_path / "r").info
    assert (info.watermark, info.tariff, info.source) == ("SIMULATED", "simulated", "simulator")
    assert info.provenance["seed"] == 3
    assert info.provenance["specs"][0]["parameters"] == json.loads(
        json.dumps(asdict(DEFAULT_SPECS[0].parameters()))
    )
    columns = {
        name.rstrip("0123456789")
        for file in recording.files()
        if file.endswith(".parquet")
        for name in pq.read_schema(recording.path / file).names
    }
    assert columns == {"exch_ns", "recv_ns", "flags", "bp", "bq", "ap", "aq", "px", "qty", "side"}
    again, _ = simulate_recording(tmp_path / "again", hours=0.02, seed=3)
    assert again.data_hash() == recording.data_hash()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"hours": 0}, "hours must be above 0"),
        ({"hours": 17}, "at most 16"),
        ({"hours": float("nan")}, "hours must be"),
        ({"dt_s": 0}, "must be above 0 s"),
        ({"dt_s": 1e-4}, "snapshots; it must be between"),
        ({"dt_s": 20_000}, "would be 0 snapshots"),
        ({"day": "15.01.2026"}, "YYYY-MM-DD"),
        ({"day": []}, "different and in order"),
        ({"day": ["2026-01-16", "2026-01-15"]}, "different and in order"),
        ({"specs": []}, "different tickers"),
        ({"specs": [SimSpec("A"), SimSpec("A")]}, "different tickers"),
        ({"specs": [SimSpec("A", "HUGE")]}, "unknown simulator preset 'HUGE' of A; known: SMALL"),
        ({"specs": [SimSpec("A", overrides={"gfow": 1})]}, "no parameter gfow"),
    ],
)
def test_what_cannot_be_simulated_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        simulate_market(**arguments)


def test_every_preset_plays() -> None:
    for preset in PRESETS.values():
        assert (play(preset, 400, QUARTER_NS, 1).bid_qty[:, 0] > 0).all()
