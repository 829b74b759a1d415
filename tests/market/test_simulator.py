"""The simulated market looks like a market, says the same twice, and keeps its secret out of the data."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from market.errors import ConfigError
from market.recording import Recording
from market.simulator import (
    DEFAULT_SPECS,
    LARGE,
    LATENCY_NS,
    MID_TICKS,
    PRESETS,
    SMALL,
    Played,
    Preset,
    SimSpec,
    play,
    simulate_market,
    simulate_recording,
)
from market.types import BUY, NANO, SECOND_NS, Books, InstrumentDay
from market.validate import clean_day

HOUR = 14_400
QUARTER_NS = SECOND_NS // 4
TEN_SECONDS = 40  # rows of QUARTER_NS
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def market() -> tuple[list[InstrumentDay], dict[str, Any]]:
    return simulate_market(hours=0.25, seed=7)


def mid(books: Books | Played) -> np.ndarray[Any, Any]:
    return np.asarray((books.bid_px[:, 0].astype(np.float64) + books.ask_px[:, 0]) / 2)


def excess_kurtosis(x: np.ndarray[Any, Any]) -> float:
    centred = x - x.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2 - 3)


def r2_of_ofi(played: Played) -> float:
    """Event-level order-flow imbalance against the mid's move over the same 10 s (Cont, Kukanov, Stoikov)."""
    blocks = (len(played.event_ofi) - 1) // TEN_SECONDS
    ofi = played.event_ofi[1 : blocks * TEN_SECONDS + 1].reshape(blocks, TEN_SECONDS).sum(axis=1)
    move = np.diff(mid(played)[: blocks * TEN_SECONDS + 1 : TEN_SECONDS])
    return float(np.corrcoef(ofi, move)[0, 1] ** 2)


def chance_of_up_by_imbalance(played: Played) -> list[float]:
    """How often the next change of the mid is upward, by quintile of the level-1 imbalance's range."""
    bid, ask = played.bid_qty[:, 0].astype(np.float64), played.ask_qty[:, 0]
    imbalance = ((bid - ask) / (bid + ask))[:-1]
    change = np.diff(mid(played))
    moved = np.flatnonzero(change)
    following = np.searchsorted(moved, np.arange(len(change)))
    known = following < len(moved)
    up = change[moved[following[known]]] > 0
    return [
        float(up[(imbalance[known] > low) & (imbalance[known] <= high)].mean())
        for low, high in pairwise((-1.01, -0.6, -0.2, 0.2, 0.6, 1.01))
    ]


@pytest.mark.parametrize(
    ("preset", "spread"), [(SMALL, (3.0, 6.0)), (LARGE, (1.0, 1.5))], ids=["SMALL", "LARGE"]
)
def test_the_stylised_facts(preset: Preset, spread: tuple[float, float]) -> None:
    """The gates of the reference on an hour of each seed, pooled: one hour alone is noisy."""
    paths = [play(preset, HOUR, QUARTER_NS, seed) for seed in SEEDS]
    for path in paths:
        assert spread[0] <= (path.ask_px[:, 0] - path.bid_px[:, 0]).mean() <= spread[1]
    assert 0.5 < np.mean([r2_of_ofi(path) for path in paths]) < 0.9
    chances = np.mean([chance_of_up_by_imbalance(path) for path in paths], axis=0)
    assert (np.diff(chances) > 0).all() and chances[0] < 0.3 and chances[-1] > 0.7
    second = np.concatenate([np.diff(mid(path)[::4]) for path in paths])
    assert -0.3 < np.mean(second[1:] * second[:-1]) / second.var() < 0


def test_returns_have_heavy_tails() -> None:
    paths = [play(SMALL, HOUR, QUARTER_NS, seed) for seed in SEEDS]
    assert np.mean([excess_kurtosis(np.diff(mid(path)[::4])) for path in paths]) >= 2


def test_trade_signs_remember() -> None:
    side = np.concatenate([play(SMALL, HOUR, QUARTER_NS, seed).trade_side for seed in SEEDS]).astype(
        np.float64
    )
    memory = [np.corrcoef(side[lag:], side[:-lag])[0, 1] for lag in (1, 5, 20)]
    assert memory[0] > memory[1] > memory[2] > 0.02


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
        ({"hours": 15}, "at most 14"),
        ({"hours": float("nan")}, "hours must be"),
        ({"dt_s": 0}, "must be above 0 s"),
        ({"dt_s": 1e-4}, "snapshots; it must be between"),
        ({"dt_s": 20_000}, "would be 0 snapshots"),
        ({"day": "15.01.2026"}, "YYYY-MM-DD"),
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
