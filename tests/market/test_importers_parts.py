"""The parts that importers share: exact decimals, level books, clocks, instruments."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import RecordingError
from market.importers import clock, fixed
from market.importers.files import lines, look, unpacked
from market.importers.instruments import Facts, describe, listed
from market.importers.levels import CLEAR, EITHER, LevelBook
from market.importers.source import ImportOptions
from market.types import BUY, DEPTH, NANO, SECOND_NS, SELL, Books, Instrument, Trades

SMALL = settings(max_examples=80, deadline=None)


@SMALL
@given(st.lists(st.decimals(min_value=-(10**9), max_value=10**9, places=9), max_size=20), st.booleans())
def test_decimal_text_is_exact(values: list[Decimal], shorten: bool) -> None:
    texts = [str(v.normalize()) if shorten else format(v, "f") for v in values]
    expected = [int(v * NANO) for v in values]
    assert fixed.nano_of_texts(texts).tolist() == expected
    column = pa.chunked_array([texts[:3], texts[3:]], type=pa.string())
    assert fixed.nano_of_column(column).tolist() == expected
    assert [fixed.nano_of_text(text, "x") for text in texts] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        "1.2.3",
        "1e",
        "1e9999",
        "0x1",
        "nan",
        "1 2",
        "1,5",
        "0.0000000001",
        "9300000000",
        "9" * 30,
    ],
)
def test_what_is_no_decimal_is_named(text: str) -> None:
    with pytest.raises(fixed.BadDecimal, match="no decimal number") as error:
        fixed.nano_of_texts(["1", "2.5", text])
    assert error.value.index == 2


def test_times_that_went_through_a_float_are_rounded() -> None:
    column = pa.chunked_array([["43002.632812672004", "34200.18960767", "1.0000000005", "2.00000000049999"]])
    assert fixed.nano_of_column(column, rounded=True).tolist() == [
        43_002_632_812_672, 34_200_189_607_670, 1_000_000_001, 2_000_000_000,
    ]  # fmt: skip


def test_steps_are_checked() -> None:
    nano = fixed.nano_of_texts(["28145.10", "28145.2"])
    assert fixed.common_step(nano) == 100_000_000
    assert fixed.steps(nano, 100_000_000, "prices").tolist() == [281_451, 281_452]
    with pytest.raises(RecordingError, match=r"prices: 28145\.1 \(value 1\) is no multiple of 0\.5"):
        fixed.steps(nano, 500_000_000, "prices")
    with pytest.raises(RecordingError, match=r"28,145,100,000 steps do not fit 32 bits; .*--tick"):
        fixed.steps(nano[:1], 1_000, "prices")


change = st.tuples(st.sampled_from([BUY, SELL, EITHER, CLEAR]), st.integers(90, 130), st.integers(0, 5))


@SMALL
@given(st.lists(st.lists(change, max_size=8), max_size=30), st.booleans())
def test_the_level_book_does_what_a_dictionary_does(frames: list[list[tuple]], exclusive: bool) -> None:
    sides: dict[int, dict[int, int]] = {BUY: {}, SELL: {}}
    expected = []
    for frame in frames:
        for side, px, size in frame:
            if side == CLEAR:
                sides = {BUY: {}, SELL: {}}
            for code in (BUY, SELL):
                if code == side and size:
                    sides[code][px] = size
                elif side in (EITHER, code) or (exclusive and side == -code and size):
                    sides[code].pop(px, None)
        expected.append(
            [sorted(sides[BUY].items(), reverse=True)[:DEPTH], sorted(sides[SELL].items())[:DEPTH]]
        )
    flat = [c for frame in frames for c in frame]
    side, px, size = (np.array([c[i] for c in flat], np.int64) for i in range(3))
    ends = np.cumsum([len(frame) for frame in frames], dtype=np.int64)
    book = LevelBook(exclusive=exclusive)
    half = len(frames) // 2  # two calls: the book lives on between them
    cut = int(ends[half - 1]) if half else 0
    first = book.replay(side[:cut].astype(np.int8), px[:cut], size[:cut], ends[:half])
    second = book.replay(side[cut:].astype(np.int8), px[cut:], size[cut:], ends[half:] - cut)
    bid_px, bid_qty, ask_px, ask_qty = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    for row, (bids, asks) in enumerate(expected):
        for levels, prices, sizes in ((bids, bid_px[row], bid_qty[row]), (asks, ask_px[row], ask_qty[row])):
            blank = [(0, 0)] * (DEPTH - len(levels))
            assert list(zip(prices.tolist(), sizes.tolist(), strict=True)) == levels + blank


def test_sizes_below_zero_are_counted_and_too_large_ones_refused() -> None:
    book = LevelBook(relative=True)
    side, px = np.array([BUY, BUY, BUY], np.int8), np.array([10, 10, 10])
    *_, ask_qty = book.replay(side, px, np.array([5, -7, 3]), np.array([1, 2, 3]))
    assert book.negative == 1 and not ask_qty.any()
    with pytest.raises(RecordingError, match="does not fit 32 bits"):
        LevelBook(relative=True).replay(side, px, np.full(3, 2**31 - 1), np.array([3]))
    with pytest.raises(RecordingError, match="choose a larger tick"):
        LevelBook().replay(side, np.full(3, 2**40), np.full(3, 1), np.array([3]))


def test_many_levels_grow_the_book() -> None:
    n = 3_000
    px = np.tile(np.random.default_rng(1).permutation(n) + 1, 25)  # more changes than one block of the kernel
    ends = np.array([n // 2, n, len(px)])
    bid_px, bid_qty, ask_px, _ = LevelBook().replay(
        np.full(len(px), SELL, np.int8), px, np.ones(len(px), np.int64), ends
    )
    assert ask_px[1].tolist() == list(range(1, DEPTH + 1)) and not bid_px.any() and not bid_qty.any()
    assert ask_px[0].tolist() == sorted(px[: n // 2].tolist())[:DEPTH] and (ask_px[2] == ask_px[1]).all()


@pytest.mark.parametrize(
    ("zone", "wall", "utc"),
    [
        ("Europe/Moscow", "2010-07-01 12:00", "2010-07-01 08:00"),  # summer time then
        ("Europe/Moscow", "2013-12-10 12:00", "2013-12-10 08:00"),  # UTC+4 all year
        ("Europe/Moscow", "2018-10-05 12:00", "2018-10-05 09:00"),
        ("America/New_York", "2012-06-21 09:30", "2012-06-21 13:30"),
        ("America/New_York", "2012-01-20 09:30", "2012-01-20 14:30"),
    ],
)
def test_wall_time_of_an_exchange(zone: str, wall: str, utc: str) -> None:
    stamps = [int(datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp()) * SECOND_NS for t in (wall, utc)]
    assert clock.wall_to_utc(np.array(stamps[:1]), ZoneInfo(zone)).tolist() == stamps[1:]


def test_iso_times() -> None:
    at = 1_700_000_000 * SECOND_NS
    assert clock.iso_ns("2023-11-14T22:13:20Z") == at
    assert clock.iso_ns("2023-11-15T01:13:20.000000001+03:00") == at + 1
    assert clock.iso_ns("2023-11-14 22:13:20.5") == at + SECOND_NS // 2
    assert [clock.epoch_ns(v) for v in (1_700_000_000, "1700000000.25", at // 10**6, at)] == [
        at, at + SECOND_NS // 4, at, at,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no time"):
        clock.epoch_ns(5)


def test_days_are_split_at_moscow_midnight() -> None:
    instrument = Instrument("u", "AAAA", "TQBR", "f", "share", 1, 1, 1)
    midnight = clock.midnight_ns("2024-02-20", ZoneInfo("Europe/Moscow"))
    books, trades = Books.empty(3), Trades.empty(2)
    books.recv_ns[:] = [midnight - 1, midnight, midnight + 3 * 86_400 * SECOND_NS]
    trades.recv_ns[:] = [midnight - 5, midnight + SECOND_NS]
    days = list(clock.split_days(instrument, books, trades))
    assert [(d.day, len(d.books), len(d.trades)) for d in days] == [
        ("2024-02-19", 1, 1), ("2024-02-20", 1, 1), ("2024-02-23", 1, 0),
    ]  # fmt: skip


def test_the_last_book_of_each_interval() -> None:
    stamps = np.array([0, 3, 9, 10, 25, 26, 40])
    assert np.flatnonzero(clock.last_of_each(stamps, 10)).tolist() == [2, 3, 5, 6]
    assert clock.last_of_each(stamps, 0).all()


def test_given_facts_go_before_assumed_ones() -> None:
    told: dict = {}
    facts = Facts("SBER", "TQBR", "share", 10, 10_000_000, assumed="a lot of 10")
    options = ImportOptions(ticker="SBERX", lot=1, tick_value_nano=5)
    instrument = describe(facts, options, told)
    assert (instrument.ticker, instrument.lot, instrument.tick_value_nano) == ("SBERX", 1, 5)
    assert told["instruments"]["SBERX"] == {
        "flags": {"ticker": "SBERX", "lot": 1, "tick_value": 5e-9}, "named": "SBER", "assumed": "a lot of 10",
    }  # fmt: skip
    with pytest.raises(RecordingError, match="SBERX and GAZP cannot both be ticker, lot, tick_value"):
        describe(Facts("GAZP", "TQBR", "share", 10, 10_000_000), options, told)
    with pytest.raises(RecordingError, match="share or a future; give it, for instance --instrument share"):
        describe(Facts("X"), ImportOptions(), {})


def test_facts_by_ticker() -> None:
    raw = {"LKOH": {"lot": "1", "kind": "share"}, "Si-12.18": {"tick_value": "1", "class_code": "SPBFUT"}}
    options, told = ImportOptions(currency="rub", instruments=listed(raw)), dict[str, Any]()
    first = describe(Facts("LKOH", "TQBR", tick_nano=NANO // 2), options, told)
    second = describe(Facts("Si-12.18", kind="future", tick_nano=NANO), options, told)
    assert (first.kind, first.tick_value_nano, second.tick_value_nano) == ("share", NANO // 2, NANO)
    assert set(told["instruments"]["LKOH"]) == {"listed"}
    for wrong, expected in (
        ({"A": {"size": 1}}, "'size' is none of"),
        ({"A": 5}, "5 is none of"),
        ({"A": {"kind": "bond"}}, "kind is 'bond'"),
        ({"A": {"lot": "-1"}}, "lot is '-1'"),
        ({"A": {"tick": "0"}}, "above zero"),
        ({"A": {"tick": "x"}}, "tick is 'x'"),
    ):
        with pytest.raises(RecordingError, match=expected):
            listed(wrong)


def test_files_in_several_gzip_members(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0\0\0")
    assert unpacked(path) == b"one\ntwo\n" and look(path).head.startswith(b"one\n")
    assert [line for _, line in lines(path)] == [b"one\n", b"two\n"]
    path.write_bytes(gzip.compress(b"one\n") + b"rest")
    with pytest.raises(RecordingError, match="4 bytes that are no gzip after byte 24"):
        unpacked(path)
    path.write_bytes(gzip.compress(b"one\n" * 50_000)[:-9])
    with pytest.raises(RecordingError, match="cut off or damaged after line"):
        list(lines(path))
