"""LOBSTER, FI-2010, the MOEX SBER sample, mapped columns and JSON lines."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.errors import RecordingError
from market.exporters import export_jsonl
from market.importers import ImportOptions, detect, ingest, load
from market.importers.fi2010 import read_matrix
from market.importers.lobster import pairs, read_pair
from market.recording import Recording, write_recording
from market.simulator import SimSpec, simulate_market
from market.types import BUY, NANO, SECOND_NS, SELL, InstrumentDay, OwnEvents

LOOSE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# ---- LOBSTER ----

STEM = "ABCD_2012-06-21_34200000_57600000"
MESSAGES = """\
34200.017459617,1,11,18,2238100,1
34200.18960767,4,12,21,2239500,-1
34200.2,5,0,1,2238150,1
34200.3,5,0,2,2238150,-1
34201.000000004,7,0,0,-1,-1
"""
BOOKS = """\
2239500,100,2238100,18,9999999999,0,2230700,200
2239500,79,2238100,18,9999999999,0,2230700,200
2239500,79,2238100,18,9999999999,0,2230700,200
2239500,79,2238100,18,9999999999,0,2230700,200
2239500,79,2238100,18,9999999999,0,-9999999999,0
"""
OPEN_NS = 1_340_285_400 * SECOND_NS  # 2012-06-21 13:30 UTC


def lobster_zip(path: Path, messages: str = MESSAGES, books: str = BOOKS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{STEM}_orderbook_2.csv", books)
        archive.writestr(f"{STEM}_message_2.csv", messages)
        archive.writestr("ReadMe.txt", "about")
    return path


def test_lobster_in_our_units(tmp_path: Path) -> None:
    path = lobster_zip(tmp_path / "sample.zip")
    assert detect(path) == "lobster"
    recording, _ = ingest(path, tmp_path / "out")
    day = recording.read("ABCD", "2012-06-21")
    assert (day.instrument.currency, day.instrument.lot, day.instrument.tick_nano) == ("usd", 1, 10_000_000)
    assert day.books.recv_ns[[0, 1, 4]].tolist() == [
        OPEN_NS + 17_459_617, OPEN_NS + 189_607_670, OPEN_NS + SECOND_NS + 4,
    ]  # fmt: skip
    assert day.books.ask_px[0, :3].tolist() == [22_395, 0, 0] and day.books.ask_qty[1, 0] == 79
    assert day.books.bid_px[:, 1].tolist() == [22_307] * 4 + [0]
    # The resting order was a sell at 223.95, so a buyer came; the hidden ones stood between two cents.
    assert day.trades.side.tolist() == [BUY, SELL, BUY]
    assert (day.trades.px.tolist(), day.trades.qty.tolist()) == ([22_395, 22_381, 22_382], [21, 1, 2])
    told = recording.info.provenance["days"]["ABCD/2012-06-21"]
    assert told == {
        "messages": 5, "visible_executions": 1, "hidden_executions": 2, "cross_trades_left_out": 0,
        "halt_messages": 1, "executions_between_ticks": 2,
    }  # fmt: skip


def test_lobster_files_beside_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{STEM}_message_2.csv").write_text(MESSAGES)
    with pytest.raises(RecordingError, match=r"the orderbook file of ABCD.* is missing; both are needed"):
        ingest(folder, tmp_path / "out")
    (folder / f"{STEM}_orderbook_2.csv.gz").write_bytes(gzip.compress(BOOKS.encode()))
    one = ingest(folder, tmp_path / "out")[0].read("ABCD", "2012-06-21")
    two = ingest(lobster_zip(tmp_path / "b.zip"), tmp_path / "out2")[0].read("ABCD", "2012-06-21")
    np.testing.assert_array_equal(one.books.ask_px, two.books.ask_px)


@pytest.mark.parametrize(
    ("messages", "books", "expected"),
    [
        (MESSAGES, BOOKS[:-30], r"cannot be read as CSV|5 messages but"),
        (MESSAGES, BOOKS.partition("\n")[2], r"5 messages but 4 books; a file is cut off"),
        (MESSAGES, BOOKS.replace("2230700", "2230750"), r"book prices: 223\.075 .* no multiple of 0\.01"),
        (MESSAGES.replace("34200.2,", "x,"), BOOKS, r"messages, line 3: 'x' is no decimal"),
        (MESSAGES, BOOKS.replace(",100,", ",9900000000,"), r"sizes: .* do not fit 32 bits"),
    ],
)
def test_damaged_lobster_is_named(tmp_path: Path, messages: str, books: str, expected: str) -> None:
    path = lobster_zip(tmp_path / "sample.zip", messages, books)
    with pytest.raises(RecordingError, match=expected):
        ingest(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordingError, match=r"sample\.zip"):
        ingest(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["sample.zip"]


@pytest.mark.recorded
def test_the_recorded_lobster_day(shared_data: Path, tmp_path: Path) -> None:
    recording, reports = ingest(shared_data / "lobster", tmp_path / "out")
    report = reports["AMZN/2012-06-21"]
    assert (report.books, report.trades) == (155_935, 8_974 + 2_445)
    assert (report.crossed, report.unsorted, report.negative, report.books_dropped) == (0, 0, 0, 0)
    told = recording.info.provenance["days"]["AMZN/2012-06-21"]
    assert (told["messages"], told["visible_executions"], told["hidden_executions"]) == (
        155_935,
        8_974,
        2_445,
    )
    day = recording.read("AMZN", "2012-06-21")
    assert np.median(day.books.ask_px[:, 0] - day.books.bid_px[:, 0]) == 13
    # Each visible execution takes the best level of the book before it: the resting side is what we think.
    (pair,) = pairs(tuple((shared_data / "lobster").glob("*.zip")))
    messages, levels = read_pair(pair)
    rows = np.flatnonzero(messages.kind == 4)
    best = np.where(messages.direction[rows] < 0, levels[rows - 1, 0], levels[rows - 1, 2])
    assert (best == messages.px[rows]).all()


# ---- FI-2010 ----


def fi2010_rows(columns: int = 40, jump: int | None = 25) -> np.ndarray:
    """149 rows in the documented shape: prices of two stocks, features, labels."""
    rows = np.zeros((149, columns))
    base = np.full(columns, 0.2612)
    if jump is not None:
        base[jump:] = 0.1305
    for level in range(10):
        rows[4 * level] = base + 0.0001 * (level + 1)
        rows[4 * level + 1] = 0.00350 + 0.00001 * np.arange(columns)
        rows[4 * level + 2] = base - 0.0001 * level
        rows[4 * level + 3] = 0.00012
    rows[40:144] = np.linspace(-3, 3, 104)[:, None]
    rows[144:] = 1 + np.arange(columns) % 3
    return rows


def fi2010_file(folder: Path, rows: np.ndarray, name: str = "Train_Dst_NoAuction_DecPre_CF_7.txt") -> Path:
    path = folder / name
    path.write_text("\n".join("   ".join(f"{v:.7e}" for v in row) for row in rows) + "\n")
    return path


def test_decpre_becomes_a_recording(tmp_path: Path) -> None:
    path = fi2010_file(tmp_path, fi2010_rows())
    assert detect(path) == "fi2010"
    recording, _ = ingest(path, tmp_path / "out")
    assert [i.ticker for i in recording.info.instruments] == ["FI2010-1", "FI2010-2"]
    day = recording.read("FI2010-1", "2010-06-01")
    assert len(day.books) == 25 and not len(day.trades)
    assert (np.diff(day.books.recv_ns) == SECOND_NS).all()
    assert (day.books.ask_px[0, :2].tolist(), day.books.bid_px[0, :2].tolist()) == (
        [2_613, 2_614],
        [2_612, 2_611],
    )
    assert (day.books.ask_qty[:2, 0].tolist(), day.books.bid_qty[0, 0]) == ([350, 351], 12)
    assert day.books.ask_px[0, 10] == 0
    assert "made up" in recording.info.provenance["recv_ns"]


def test_the_matrix_for_benchmarks(tmp_path: Path) -> None:
    rows = fi2010_rows()
    matrix = read_matrix(fi2010_file(tmp_path, rows))
    assert matrix.x.shape == (40, 144) and matrix.labels.shape == (40, 5) and matrix.labels.dtype == np.int8
    np.testing.assert_allclose(matrix.x, rows[:144].T, atol=1e-9)
    assert matrix.labels[:3, 0].tolist() == [1, 2, 3]


def test_normalised_variants_hold_no_prices(tmp_path: Path) -> None:
    rows = fi2010_rows()
    z = (rows - rows.mean(axis=1, keepdims=True)) / (rows.std(axis=1, keepdims=True) + 1e-12)
    span = rows.max(axis=1, keepdims=True) - rows.min(axis=1, keepdims=True)
    minmax = (rows - rows.min(axis=1, keepdims=True)) / np.where(span == 0, 1, span)
    for part, name in ((z, "ZScore"), (minmax, "MinMax")):
        part[144:] = rows[144:]
        path = fi2010_file(tmp_path, part, f"Test_Dst_NoAuction_{name}_CF_7.txt")
        with pytest.raises(RecordingError, match=rf"is the {name} variant: .*Ingest the DecPre variant"):
            ingest(path, tmp_path / "out")
        assert read_matrix(path).x.shape == (40, 144)
        path.unlink()
    path = fi2010_file(tmp_path, rows[:100])
    with pytest.raises(RecordingError, match="has 100 rows, an FI-2010 matrix has 149"):
        read_matrix(path)
    path.write_text(path.read_text().replace("2.6120000e-01", "word", 1))
    with pytest.raises(RecordingError, match=r"line 3: .*word"):
        ingest(path, tmp_path / "out")


# ---- the MOEX SBER sample ----


@pytest.mark.recorded
def test_the_moex_sber_sample(shared_data: Path, tmp_path: Path) -> None:
    assert detect(shared_data / "moex-sber") == "moex-sber"
    recording, reports = ingest(shared_data / "moex-sber", tmp_path / "out")
    report = reports["SBER/2023-11-01"]
    assert (report.books, report.trades, report.books_dropped, report.crossed) == (100, 100, 0, 0)
    day = recording.read("SBER", "2023-11-01")
    assert day.instrument.tick_nano * int(day.books.bid_px[0, 0]) == 268_480_000_000  # 268.48 roubles
    assert (day.books.bid_qty[:, 9] > 0).all() and not day.books.bid_qty[:, 10].any()
    # What is read as market orders hits the touch: none prints inside the spread before it.
    rows = np.flatnonzero(day.trades.recv_ns <= day.books.recv_ns[-1])
    before = np.searchsorted(day.books.recv_ns, day.trades.recv_ns[rows]) - 1
    inside = (day.trades.px[rows] > day.books.bid_px[before, 0]) & (
        day.trades.px[rows] < day.books.ask_px[before, 0]
    )
    assert len(rows) > 5 and not inside.any()


# ---- mapped columns ----

MAPPING: dict[str, Any] = {
    "instrument": {"ticker": "AAAA", "class_code": "TQBR", "kind": "share", "lot": "10", "tick": "0.05"},
    "books": {
        "recv_time": {"column": "t", "unit": "ms"},
        "bid_price": "b{level}", "bid_size": "bq{level}", "ask_price": "a{level}", "ask_size": "aq{level}",
    },
    "trades": {
        "recv_time": {"column": "when", "unit": "iso", "zone": "Europe/Moscow"},
        "price": "p", "size": "q", "side": {"column": "s", "buy": ["B"], "sell": ["S"]},
    },
}  # fmt: skip
BOOK_CSV = """\
t,b1,bq1,a1,aq1,b2,bq2,a2,aq2,note
1700000000000,10.05,3,10.10,4,10.00,5,10.15,6,x
1700000000250,10.05,2,10.10,4,,,-1,0,"y, z"
"""
TRADES_CSV = "when,p,q,s\n2023-11-15 01:13:20.100,10.10,2,B\n2023-11-15 01:13:20.200,10.05,1,?\n"


def test_mapped_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "book.csv").write_text(BOOK_CSV)
    (tmp_path / "trades.csv").write_text(TRADES_CSV)
    options = ImportOptions(columns=MAPPING)
    files = [tmp_path / "trades.csv", tmp_path / "book.csv"]
    recording, _ = ingest(files, tmp_path / "out", kind="columns", options=options)
    day = recording.read("AAAA", "2023-11-15")
    first = 1_700_000_000 * SECOND_NS
    assert day.books.recv_ns.tolist() == [first, first + NANO // 4]
    assert day.books.bid_px[:, :3].tolist() == [[201, 200, 0], [201, 0, 0]]
    assert day.books.ask_qty[:, :3].tolist() == [[4, 6, 0], [4, 0, 0]]
    assert day.trades.recv_ns.tolist() == [first + NANO // 10, first + NANO // 5]
    assert (day.trades.px.tolist(), day.trades.side.tolist()) == ([202, 201], [BUY, 0])
    table = pa.table(
        {
            "t": pa.array([1_700_000_000_000, 1_700_000_000_250], pa.timestamp("ms")),
            "b1": [10.05, 10.05], "bq1": [3, 2], "a1": [10.1, 10.1], "aq1": pa.array([4, 4], pa.int16()),
            "b2": [10.0, None], "bq2": [5, None], "a2": [10.15, -1.0], "aq2": [6, 0],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "book.parquet")
    mapping = {**MAPPING, "books": {**MAPPING["books"], "recv_time": {"column": "t", "unit": "ns"}}}
    (same,) = load([tmp_path / "book.parquet"], kind="columns", options=ImportOptions(columns=mapping)).days
    for name in ("recv_ns", "bid_px", "bid_qty", "ask_px", "ask_qty"):
        np.testing.assert_array_equal(getattr(same.books, name), getattr(day.books, name))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"instrument": {"ticker": "A", "tick": "0.05"}}, r"--instrument share"),
        ({"instrument": {"tick": "1"}}, r"lacks instrument\.ticker"),
        ({"instrument": {"ticker": "A", "kind": "bond"}}, r"instrument\.kind is 'bond'"),
        ({"instrument": {"ticker": "A", "kind": "share", "lot": "0"}}, r"instrument\.lot is '0'"),
        (
            {"instrument": {"ticker": "A", "kind": "share", "lot": "1", "tick": "0.1"}},
            r"10\.05 .* no multiple of 0\.1",
        ),
        ({"boks": {}}, r"unknown key 'boks'; known here: instrument"),
        ({"books": {**MAPPING["books"], "bid_price": "b"}}, r"books\.bid_price is 'b'.*\{level\}"),
        ({"books": {**MAPPING["books"], "bid_price": "z{level}"}}, r"has not the columns of any section"),
        (
            {"books": {**MAPPING["books"], "recv_time": {"column": "t", "unit": "h"}}},
            r"unit of ns, us, ms, s or iso",
        ),
        (
            {"books": {**MAPPING["books"], "recv_time": {"column": "t", "unit": "s"}}},
            r"no decimal number|1990",
        ),
        (
            {"books": {**MAPPING["books"], "recv_time": {"column": "t", "zone": "Mars"}}},
            r"unknown time zone 'Mars'",
        ),
        ({"books": None, "trades": None}, r"neither books nor trades"),
        ({"price_unit": "0"}, r"price_unit is 0"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    (tmp_path / "book.csv").write_text(BOOK_CSV)
    options = ImportOptions(columns={**MAPPING, **change})
    with pytest.raises(RecordingError, match=expected):
        ingest(tmp_path / "book.csv", tmp_path / "out", kind="columns", options=options)
    with pytest.raises(RecordingError, match=r"--columns mapping\.yaml"):
        ingest(tmp_path / "book.csv", tmp_path / "out", kind="columns")


@LOOSE
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=200), st.booleans())
def test_no_text_crashes_the_table_readers(tmp_path: Path, noise: str, header: bool) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(((BOOK_CSV if header else "") + noise).encode())
    lobster_zip(tmp_path / "sample.zip", noise if header else MESSAGES, BOOKS if header else noise)
    for source, kind in ((path, "columns"), (path, "moex-sber"), (path, "jsonl"), (path, "fi2010"),
                         (path, "binance"), (tmp_path / "sample.zip", "lobster")):  # fmt: skip
        try:
            list(load(source, kind=kind, options=ImportOptions(columns=MAPPING)).days)
        except RecordingError as error:
            assert str(error)


# ---- JSON lines ----


def recorded(folder: Path, *, days: int = 2) -> Recording:
    made: list[InstrumentDay] = []
    for number in range(days):
        market, _ = simulate_market(
            [SimSpec("AAAA"), SimSpec("BBBB", seed=9)], hours=0.01, day=f"2026-01-{15 + number}"
        )
        made += market
    one = made[0]
    at = one.books.recv_ns[:2].copy()
    one.own = OwnEvents(
        at, np.array([0, 2], np.uint8), np.array(["a", "b"], np.object_), np.array([1, -1], np.int8),
        np.array([0, 30_000], np.int32), np.array([1, 2], np.int32), np.array([0, 2**40]),
    )  # fmt: skip
    one.books.flags[3] = 0
    return write_recording(
        folder, made, source="simulator", watermark="SIMULATED", tariff="simulated",
        provenance={"seed": 1, "share": 0.1, "name": "имя"},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_export_and_ingest_lose_nothing(tmp_path: Path, name: str) -> None:
    recording = recorded(tmp_path / "raw")
    export_jsonl(recording, tmp_path / name)
    assert detect(tmp_path / name) == "jsonl"
    back, _ = ingest(tmp_path / name, tmp_path / "back")
    assert back.info == recording.info and back.data_hash() == recording.data_hash()


@pytest.mark.recorded
def test_a_real_recording_survives_the_round_trip(shared_data: Path, tmp_path: Path) -> None:
    source = [shared_data / "moex-qsh" / "SNGR-12.18.2018-10-05.OrdLog.qsh"]
    # One book a second of this day, which keeps the test short.
    first, _ = ingest(source, tmp_path / "first", options=ImportOptions(book_every_ns=SECOND_NS))
    export_jsonl(first, tmp_path / "x.jsonl.gz")
    second, _ = ingest(tmp_path / "x.jsonl.gz", tmp_path / "second")
    assert second.data_hash() == first.data_hash()


@pytest.mark.parametrize(
    ("number", "change", "expected"),
    [
        (1, {"schema_version": 99}, r"line 1 has schema version 99"),
        (5, {"bids": [[1.5, 2]]}, r"line 5 is no line of an export: a level is not"),
        (5, {"recv_ns": 2**70}, r"line 5 is no line of an export: .* not whole numbers"),
        (5, {"type": "tape"}, r"line 5 is no line of an export: unknown type 'tape'"),
        (5, {"ticker": "ZZZZ"}, r"line 5 is no line of an export: 'ZZZZ' is missing"),
    ],
)
def test_a_wrong_line_of_an_export_is_named(tmp_path: Path, number: int, change: dict, expected: str) -> None:
    export_jsonl(recorded(tmp_path / "raw", days=1), tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text().splitlines()
    books = [i for i, line in enumerate(text) if i + 1 >= number and (number == 1 or '"book"' in line)]
    at = books[0]
    text[at] = json.dumps({**json.loads(text[at]), **change})
    (tmp_path / "a.jsonl").write_text("\n".join(text))
    with pytest.raises(RecordingError, match=expected.replace("line 5", rf"line {at + 1}")):
        ingest(tmp_path / "a.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_books_of_the_original_system(tmp_path: Path) -> None:
    lines = [
        {
            "figi": "BBG004730N88", "time": "2026-01-15T07:00:00.123456789Z",
            "bids": [
                {"price": 268.48, "quantity": 9},
                {"price": {"units": 268, "nano": 470_000_000}, "quantity": 5},
            ],
            "asks": [{"price": "268.49", "quantity": 1}],
        },
        {
            "instrument": "BBG004730N88", "time": 1_768_460_401, "bids": [],
            "asks": [{"price": 268.5, "quantity": "2"}],
        },
    ]  # fmt: skip
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert detect(path) == "jsonl"
    with pytest.raises(RecordingError, match="--instrument share"):
        ingest(path, tmp_path / "out")
    options = ImportOptions(ticker="SBER", instrument_kind="share", lot=10)
    recording, _ = ingest(path, tmp_path / "out", options=options)
    books = recording.read("SBER", "2026-01-15").books
    assert books.recv_ns.tolist() == [1_768_460_400_123_456_789, 1_768_460_401 * SECOND_NS]
    assert books.bid_px[:, :2].tolist() == [[26_848, 26_847], [0, 0]] and books.ask_px[:, 0].tolist() == [
        26_849,
        26_850,
    ]
    path.write_text(json.dumps({**lines[0], "bids": [{"price": 1}]}))
    with pytest.raises(RecordingError, match=r"line 1 is no order book: 'quantity' is missing"):
        ingest(path, tmp_path / "out", options=options)


# ---- which kind ----


def test_files_of_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    lobster_zip(tmp_path / "a.zip")
    fi2010_file(tmp_path, fi2010_rows())
    with pytest.raises(
        RecordingError, match=r"of kind fi2010, but .*a\.zip of kind lobster; ingest them apart"
    ):
        ingest(tmp_path, tmp_path.parent / "out")


def test_a_folder_of_files_and_what_is_no_source(tmp_path: Path) -> None:
    folder = tmp_path / "archive" / "deeper"
    folder.mkdir(parents=True)
    lobster_zip(folder / "a.zip")
    (folder / "notes.md").write_text("notes")
    assert detect(tmp_path / "archive") == "lobster"
    ingest(tmp_path / "archive", tmp_path / "out")
    with pytest.raises(RecordingError, match=r"lies inside the output"):
        ingest(tmp_path / "out" / "ABCD", tmp_path / "out")
    (folder / "a.zip").unlink()
    with pytest.raises(RecordingError, match=r"no source that can be ingested\. Known kinds: own.*columns"):
        detect(tmp_path / "archive")
    (folder / "x.qsh").write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 40)
    with pytest.raises(RecordingError, match=r"x\.qsh is damaged"):
        detect(folder / "x.qsh")
