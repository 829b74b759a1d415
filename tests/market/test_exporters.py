"""What is exported is the recording: the same numbers, in the order of replay, the same bytes each time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import RecordingError
from market.exporters import CHUNK, export_jsonl
from market.importers import ingest
from market.recording import Recording, write_recording
from market.simulator import SimSpec, simulate_market
from market.stream import BOOK, merge
from market.types import DEPTH, SECOND_NS, Books, Instrument, InstrumentDay, OwnEvents, Trades
from market.validate import clean_day

SHARE = Instrument("u-1", "AAAA", "TQBR", "F000000000AA", "share", 10, 10_000_000, 100_000_000, name="Имя")
OTHER = Instrument("u-2", "BBBB", "TQBR", "F000000000BB", "share", 1, 10_000_000, 10_000_000)
DAY, NEXT = "2026-01-15", "2026-01-16"
TEN = 1_768_460_400 * SECOND_NS


def recorded(path: Path, *days: InstrumentDay) -> Recording:
    return write_recording(
        path, days, source="test", watermark="SIMULATED", tariff="simulated", provenance={"seed": 1}
    )


def parsed(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def of(line: dict[str, Any], books: Books, trades: Trades, kind: int, row: int) -> None:
    """``line`` is exactly that row."""
    if kind != BOOK:
        expected = {name: int(getattr(trades, name)[row]) for name in Trades.__slots__}
        assert line == {"type": "trade", "ticker": line["ticker"], **expected}
        return
    assert line["type"] == "book"
    assert [line[name] for name in ("exch_ns", "recv_ns", "flags")] == [
        int(getattr(books, name)[row]) for name in ("exch_ns", "recv_ns", "flags")
    ]
    for key, side in (("bids", "bid"), ("asks", "ask")):
        levels = line[key] + [[0, 0]] * (DEPTH - len(line[key]))
        assert [level[0] for level in levels] == getattr(books, f"{side}_px")[row].tolist()
        assert [level[1] for level in levels] == getattr(books, f"{side}_qty")[row].tolist()
        assert not line[key] or line[key][-1] != [0, 0]


def simulated(hours: float = 0.02) -> list[InstrumentDay]:
    return simulate_market([SimSpec("AAAA"), SimSpec("BBBB")], hours=hours, day=DAY)[0]


def test_each_line_is_a_row_in_the_order_of_replay(tmp_path: Path) -> None:
    [day, _] = simulated(0.1)
    recording = recorded(tmp_path / "r", day)
    done = export_jsonl(recording, tmp_path / "out.jsonl")
    info, *lines = parsed(tmp_path / "out.jsonl")
    assert info == {"type": "info", **json.loads(json.dumps(recording.info.to_dict()))}
    kinds, rows = merge(day.books, day.trades)
    assert len(lines) == len(kinds) == done.books + done.trades > CHUNK
    for line, kind, row in zip(lines, kinds.tolist(), rows.tolist(), strict=True):
        of(line, day.books, day.trades, kind, row)
    assert done.size == (tmp_path / "out.jsonl").stat().st_size


def test_instruments_are_merged_by_receive_time_day_after_day(tmp_path: Path) -> None:
    days = simulated()
    later = [InstrumentDay(d.instrument, NEXT, d.books.rows(slice(0, 3)), Trades.empty()) for d in days]
    for item in later:
        item.books.recv_ns = item.books.recv_ns + 86_400 * SECOND_NS
    recording = recorded(tmp_path / "r", *days, *later)
    export_jsonl(recording, tmp_path / "out.jsonl")
    _, *lines = parsed(tmp_path / "out.jsonl")
    stamps = [line["recv_ns"] for line in lines]
    assert stamps == sorted(stamps) and len(lines) == sum(
        len(d.books) + len(d.trades) for d in [*days, *later]
    )
    assert {line["ticker"] for line in lines[:20]} == {"AAAA", "BBBB"}
    export_jsonl(recording, tmp_path / "one.jsonl", ticker="BBBB", day=NEXT)
    info, *one = parsed(tmp_path / "one.jsonl")
    assert (info["days"], [i["ticker"] for i in info["instruments"]]) == ({"BBBB": [NEXT]}, ["BBBB"])
    assert one == [line for line in lines if line["ticker"] == "BBBB"][-3:]


def test_gzip_holds_the_same_and_knows_no_time_of_day(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "r", *simulated())
    export_jsonl(recording, tmp_path / "out.jsonl")
    export_jsonl(recording, tmp_path / "a.jsonl.gz")
    export_jsonl(recording, tmp_path / "b.gz")
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"ticker": "CCCC"}, "no instrument 'CCCC'"),
        ({"day": "2026-01-14"}, "no day '2026-01-14'.*it has 2026-01-15"),
    ],
)
def test_what_is_not_there_leaves_nothing_behind(tmp_path: Path, chosen: dict[str, str], said: str) -> None:
    recording = recorded(tmp_path / "r", *simulated())
    with pytest.raises(RecordingError, match=said):
        export_jsonl(recording, tmp_path / "out" / "x.jsonl", **chosen)
    with pytest.raises(RecordingError, match="cannot be written: No such file"):
        export_jsonl(recording, tmp_path / "none" / "x.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@st.composite
def any_day(draw: st.DrawFn, instrument: Instrument) -> InstrumentDay:
    """Any arrays that a recording can hold, in order of time; holes, extremes and own events included."""
    n, m, k = (draw(st.integers(0, 6)) for _ in range(3))
    number = st.integers(-(2**31), 2**31 - 1)
    books, trades, own = Books.empty(n), Trades.empty(m), OwnEvents.empty(k)
    for stamps in (books.recv_ns, trades.recv_ns, own.event_ns):
        stamps[:] = TEN + np.sort(
            draw(st.lists(st.integers(0, 5), min_size=len(stamps), max_size=len(stamps)))
        )
    for _ in range(draw(st.integers(0, 8)) if n else 0):
        name = draw(st.sampled_from(["bid_px", "bid_qty", "ask_px", "ask_qty"]))
        getattr(books, name)[draw(st.integers(0, n - 1)), draw(st.integers(0, DEPTH - 1))] = draw(number)
    books.exch_ns[:] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n))
    books.flags[:] = draw(st.lists(st.integers(0, 255), min_size=n, max_size=n))
    trades.px[:] = draw(st.lists(number, min_size=m, max_size=m))
    trades.side[:] = draw(st.lists(st.integers(-128, 127), min_size=m, max_size=m))
    own.client_order_id[:] = draw(st.lists(st.text('ab-"\\\nЖ', max_size=4), min_size=k, max_size=k))
    own.fee_nano[:] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=k, max_size=k))
    return InstrumentDay(instrument, DAY, books, trades, own if draw(st.booleans()) else None)


def same(a: InstrumentDay, b: InstrumentDay) -> bool:
    for one, other, names in (
        (a.books, b.books, Books.__slots__),
        (a.trades, b.trades, Trades.__slots__),
        *([(a.own, b.own, OwnEvents.__slots__)] if a.own is not None or b.own is not None else []),
    ):
        for name in names:
            left, right = getattr(one, name), getattr(other, name)
            if left.dtype != right.dtype or left.shape != right.shape or (left != right).any():
                return False
    return a.instrument == b.instrument and a.day == b.day


@settings(max_examples=30, deadline=None)
@given(any_day(SHARE), any_day(OTHER))
def test_the_importer_reads_back_every_number(
    tmp_path_factory: pytest.TempPathFactory, one: InstrumentDay, other: InstrumentDay
) -> None:
    from market.importers import load

    folder = tmp_path_factory.mktemp("trip")
    recording = recorded(folder / "r", one, other)
    export_jsonl(recording, folder / "out.jsonl.gz")
    back = {day.instrument.ticker: day for day in load(folder / "out.jsonl.gz").days}
    assert set(back) == {"AAAA", "BBBB"}
    for ticker, day in back.items():
        assert same(day, recording.read(ticker, DAY))


def test_a_recording_survives_the_round_trip_byte_for_byte(tmp_path: Path) -> None:
    """Import, validate, export, import: the same files, so the same hash."""
    days = [clean_day(day)[0] for day in simulated(0.05)]
    recording = recorded(tmp_path / "r", *days)
    export_jsonl(recording, tmp_path / "out.jsonl.gz")
    again, reports = ingest(tmp_path / "out.jsonl.gz", tmp_path / "again")
    assert again.data_hash() == recording.data_hash()
    assert all(report.books_dropped == report.trades_dropped == 0 for report in reports.values())
