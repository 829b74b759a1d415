"""QScalp archives: the four recorded files to the last lot, what our own encoder writes, and damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qsh_encoder import (
    AUX_INFO,
    DEALS,
    MOSCOW_MS,
    NET_EPOCH_MS,
    ORDER_LOG,
    QUOTES,
    START_MS,
    Writer,
)  # fmt: skip

from market.errors import RecordingError
from market.importers import ImportOptions, detect, ingest, order_log
from market.importers.qsh_format import AuxInfo, Deals, OrderLog, Quotes, read_qsh
from market.types import BUY, MILLISECOND_NS, SELL

SHARE = "Plaza2:SBER:TQBR::0.01"
FUTURE = "Plaza2:SNGR-12.18::1296597:1"
EXCH_MS = START_MS + MOSCOW_MS
SNAPSHOT, FLOW_START, ADD, FILL, BUYS, SELLS, QUOTE, COUNTER = 64, 2, 4, 8, 16, 32, 128, 256
NON_SYSTEM, TX_END, MOVED, CANCELED = 512, 1024, 4096, 8192
LOOSE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, writer: Writer, name: str = "a.qsh", *, plain: bool = False) -> Path:
    path = folder / name
    path.write_bytes(writer.plain() if plain else writer.packed())
    return path


def utc_ns(ms: int) -> int:
    return (ms - NET_EPOCH_MS) * MILLISECOND_NS


# ---- the recorded files ----


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "rows", "price_sum", "lots"),
    [("SBER.2024-02-20", 104_220, None, 4_497_261), ("GAZP.2017-04-24", 78_870, 993_159_467, 6_679_694)],
)
def test_the_recorded_deals(
    shared_data: Path, name: str, rows: int, price_sum: int | None, lots: int
) -> None:
    (stream,) = read_qsh(shared_data / "moex-qsh" / f"{name}.Deals.qsh").streams
    deals = stream.rows
    assert isinstance(deals, Deals)
    assert (len(deals.px), int(deals.lots.sum())) == (rows, lots)
    assert price_sum is None or int(deals.px.sum()) == price_sum
    assert (np.diff(deals.deal_id) > 0).all() and set(deals.side.tolist()) == {BUY, SELL}
    late_ms = (deals.recv_ns - deals.exch_ns) / MILLISECOND_NS
    assert -60 < np.median(late_ms) < 1000  # two clocks, apart by less than the time zone


@pytest.mark.recorded
def test_the_recorded_quotes(shared_data: Path) -> None:
    (stream,) = read_qsh(shared_data / "moex-qsh" / "GAZP.2017-04-24.Quotes.qsh").streams
    quotes = stream.rows
    assert isinstance(quotes, Quotes)
    assert (len(quotes.px), len(quotes.end), int(quotes.end[-1])) == (301_279, 101_562, 301_279)
    assert (int(quotes.px.sum()), int(np.abs(quotes.size).sum())) == (3_780_720_769, 206_313_372)


@pytest.mark.recorded
def test_the_recorded_order_log(shared_data: Path) -> None:
    (stream,) = read_qsh(shared_data / "moex-qsh" / "SNGR-12.18.2018-10-05.OrdLog.qsh").streams
    log = stream.rows
    assert isinstance(log, OrderLog)
    found = order_log.counts(log)
    assert found == {
        "records": 48_646, "flow_starts": 2, "snapshot_records": 135, "adds": 24_404, "fills": 551,
        "deals": 276, "cancels": 9_804, "group_cancels": 13, "moved": 27_565, "non_system": 0,
        "records_before_flow_start": 0,
    }  # fmt: skip
    books, rebuilt = order_log.books(log)
    assert rebuilt["negative_sizes"] == 0
    both = (books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0)
    assert both.sum() > 34_000 and (books.bid_px[both, 0] < books.ask_px[both, 0]).all()
    trades, _ = order_log.trades(log)
    # 276 deals: one of them, of the session before, comes with the snapshot and has no price.
    assert len(trades) == 275 and (trades.side != 0).all()
    # A print is where the book before it had its touch, or beyond when it took more than one level. Several
    # transactions of one millisecond cannot be told apart here.
    before = np.searchsorted(books.recv_ns, trades.recv_ns) - 1
    alone = np.searchsorted(books.recv_ns, trades.recv_ns, side="right") - before == 2
    touch = np.where(trades.side == BUY, books.ask_px[before, 0], books.bid_px[before, 0])
    assert alone.sum() > 50 and (trades.side * (trades.px - touch) >= 0)[alone].all()


@pytest.mark.recorded
def test_the_recorded_files_become_one_recording(shared_data: Path, tmp_path: Path) -> None:
    assert detect(shared_data / "moex-qsh") == "qsh"
    recording, reports = ingest(shared_data / "moex-qsh", tmp_path / "out")
    assert {t: len(days) for t, days in recording.info.days.items()} == {
        "GAZP": 1,
        "SBER": 1,
        "SNGR-12.18": 1,
    }
    assert {(i.kind, i.lot, i.tick_value_nano) for i in recording.info.instruments} == {
        ("share", 10, 100_000_000), ("future", 1, 1_000_000_000),
    }  # fmt: skip
    gazp = recording.read("GAZP", "2017-04-24")
    assert (len(gazp.books), len(gazp.trades)) == (101_562, 78_870)
    sber = recording.read("SBER", "2024-02-20")
    assert (len(sber.books), len(sber.trades)) == (0, 104_220)
    sngr = reports["SNGR-12.18/2018-10-05"]
    assert (sngr.crossed, sngr.unsorted, sngr.negative, sngr.inconsistent) == (0, 0, 0, 135)
    told = recording.info.provenance["days"]["SNGR-12.18/2018-10-05"]
    assert told["order_log"]["deals"] == 276 and told["receive_less_exchange_time"]["median_ms"] < -14_000


# ---- what our encoder writes ----

ids = st.integers(0, 2**40)
price = st.integers(1, 2**30)
lots = st.integers(1, 2**30)
delay = st.integers(-5_000, 400_000)


@LOOSE
@given(st.lists(st.tuples(delay, st.integers(0, 2), delay, ids, ids, price, lots, ids), max_size=30))
def test_deals_round_trip(tmp_path: Path, rows: list[tuple[int, ...]]) -> None:
    writer = Writer([(DEALS, SHARE)])
    for ms, side, exch, deal, order, px, qty, interest in rows:
        writer.deal(START_MS + ms, side, EXCH_MS + exch, deal, order, px, qty, interest)
    (stream,) = read_qsh(written(tmp_path, writer)).streams
    assert (stream.ticker, stream.class_code, stream.step_nano) == ("SBER", "TQBR", 10_000_000)
    d = stream.rows
    assert isinstance(d, Deals)
    expected = [
        (utc_ns(START_MS + ms), utc_ns(START_MS + exch), (0, BUY, SELL)[side], deal, order, px, qty, interest)
        for ms, side, exch, deal, order, px, qty, interest in rows
    ]
    columns = (d.recv_ns, d.exch_ns, d.side, d.deal_id, d.order_id, d.px, d.lots, d.open_interest)
    assert [tuple(int(v) for v in row) for row in zip(*columns, strict=True)] == expected


@LOOSE
@given(
    st.lists(
        st.tuples(delay, st.lists(st.tuples(price, st.integers(-(2**30), 2**30)), max_size=5)), max_size=20
    )
)
def test_quotes_round_trip(tmp_path: Path, frames: list[tuple[int, list[tuple[int, int]]]]) -> None:
    writer = Writer([(QUOTES, SHARE)])
    for ms, changes in frames:
        writer.quotes(START_MS + ms, changes)
    (stream,) = read_qsh(written(tmp_path, writer, plain=True)).streams
    q = stream.rows
    assert isinstance(q, Quotes)
    assert q.recv_ns.tolist() == [utc_ns(START_MS + ms) for ms, _ in frames]
    parts = np.split(np.stack([q.px, q.size], axis=1), q.end)
    assert [[tuple(row) for row in part.tolist()] for part in parts[:-1]] == [c for _, c in frames]


@LOOSE
@given(
    st.lists(
        st.tuples(
            delay, delay, st.integers(0, 2**16 - 1), ids, price, lots, st.tuples(lots, ids, price, ids)
        ),
        max_size=30,
    )
)
def test_order_log_round_trips(tmp_path: Path, rows: list[tuple]) -> None:
    writer = Writer([(ORDER_LOG, FUTURE)])
    for ms, exch, flags, order, px, qty, fill in rows:
        writer.order(START_MS + ms, EXCH_MS + exch, flags, order, px, qty, fill)
    (stream,) = read_qsh(written(tmp_path, writer)).streams
    o = stream.rows
    assert isinstance(o, OrderLog)
    columns = (o.recv_ns, o.exch_ns, o.flags, o.order_id, o.px, o.lots, o.rest, o.deal_id, o.deal_px,
               o.open_interest)  # fmt: skip
    assert [tuple(int(v) for v in row) for row in zip(*columns, strict=True)] == [
        (utc_ns(START_MS + ms), utc_ns(START_MS + exch), flags, order, px, qty,
         *(fill if flags & FILL else (0, 0, 0, 0)))
        for ms, exch, flags, order, px, qty, fill in rows
    ]  # fmt: skip


def test_several_streams_in_one_file(tmp_path: Path) -> None:
    writer = Writer([(QUOTES, SHARE), (DEALS, SHARE), (AUX_INFO, SHARE)])
    writer.quotes(START_MS + 10, [(28_000, -5), (28_001, 7)], stream=0)
    writer.aux(START_MS + 11, EXCH_MS, (40, 30, 20, 28_000), (30_000, 26_000, 2_500.5), 65.25, "clearing", 2)
    writer.deal(START_MS + 20, 1, EXCH_MS + 20, 9, 8, 28_001, 3, 0, stream=1)
    writer.quotes(START_MS + 30, [(28_001, 4)], stream=0)
    path = written(tmp_path, writer)
    aux = read_qsh(path).streams[2].rows
    assert isinstance(aux, AuxInfo)
    assert (aux.px.tolist(), aux.rate.tolist(), aux.deposit.tolist()) == ([28_000], [65.25], [2_500.5])
    recording, _ = ingest(path, tmp_path / "out")
    day = recording.read("SBER", "2018-10-05")
    assert day.books.recv_ns.tolist() == [utc_ns(START_MS + 10), utc_ns(START_MS + 30)]
    assert day.books.ask_qty[:, 0].tolist() == [7, 4] and day.books.bid_px[:, 0].tolist() == [28_000] * 2
    assert (day.trades.px.tolist(), day.trades.side.tolist()) == ([28_001], [BUY])
    assert day.trades.exch_ns.tolist() == [utc_ns(START_MS + 20)]
    told = recording.info.provenance["days"]["SBER/2018-10-05"]
    assert told["aux_info"]["rate"] == 65.25 and told["quotes"] == {"frames": 2, "changes": 3}


def test_a_price_that_changes_sides_leaves_the_other(tmp_path: Path) -> None:
    writer = Writer([(QUOTES, SHARE)])
    writer.quotes(START_MS, [(100, -5), (101, 6)])
    writer.quotes(START_MS + 1, [(100, 4), (99, -1)])
    writer.quotes(START_MS + 2, [(100, 0)])
    books = ingest(written(tmp_path, writer), tmp_path / "out")[0].read("SBER", "2018-10-05").books
    assert books.bid_px[:, 0].tolist() == [100, 99, 99] and books.ask_px[:, 0].tolist() == [101, 100, 101]
    assert (books.ask_qty[:, :2].tolist()) == [[6, 0], [4, 6], [6, 0]]


def test_the_order_log_becomes_books_and_trades(tmp_path: Path) -> None:
    writer, at = Writer([(ORDER_LOG, FUTURE)]), START_MS

    def log(flags: int, order: int, px: int, qty: int, *fill: int) -> None:
        nonlocal at
        at += 1
        writer.order(at, at + MOSCOW_MS, flags, order, px, qty, (*fill, *(0, 0, 0, 0)[len(fill) :]))  # type: ignore[arg-type]

    log(FLOW_START | ADD | BUYS | SNAPSHOT | QUOTE | TX_END, 1, 100, 10)
    log(ADD | SELLS | QUOTE | TX_END, 2, 105, 3)
    log(ADD | SELLS | QUOTE | TX_END, 3, 105, 4)
    # A buyer takes 2 at 105 of order 2 and his rest of 1 at 105 is cancelled: one transaction, one book.
    log(ADD | BUYS | COUNTER, 4, 106, 3)
    log(FILL | BUYS | COUNTER, 4, 106, 2, 1, 77, 105)
    log(FILL | SELLS | QUOTE, 2, 105, 2, 1, 77, 105)
    log(BUYS | COUNTER | CANCELED | TX_END, 4, 106, 1)
    log(ADD | BUYS | QUOTE | NON_SYSTEM | TX_END, 5, 104, 9)  # a negotiated order is not in the book
    log(SELLS | QUOTE | MOVED, 3, 105, 4)
    log(ADD | SELLS | QUOTE | MOVED | TX_END, 6, 103, 4)
    log(FLOW_START | ADD | SELLS | QUOTE | TX_END, 7, 109, 1)
    recording, _ = ingest(written(tmp_path, writer), tmp_path / "out")
    day = recording.read("SNGR-12.18", "2018-10-05")
    books = day.books
    assert books.recv_ns.tolist() == [utc_ns(START_MS + i) for i in (1, 2, 3, 7, 10, 11)]
    assert books.bid_qty[:, 0].tolist() == [10, 10, 10, 10, 10, 0]
    assert books.ask_px[:, 0].tolist() == [0, 105, 105, 105, 103, 109]
    assert books.ask_qty[:, 0].tolist() == [0, 3, 7, 5, 4, 1]
    assert books.flags.tolist() == [0, 1, 1, 1, 1, 1]  # the snapshot is not a complete book
    trades = day.trades
    assert (trades.px.tolist(), trades.qty.tolist(), trades.side.tolist()) == ([105], [2], [BUY])
    assert recording.info.provenance["days"]["SNGR-12.18/2018-10-05"]["order_log"]["negative_sizes"] == 0


def test_only_the_last_book_of_each_interval(tmp_path: Path) -> None:
    writer = Writer([(QUOTES, SHARE)])
    for ms in range(0, 1000, 10):
        writer.quotes(START_MS + ms, [(100, -1 - ms)])
    options = ImportOptions(book_every_ns=250 * MILLISECOND_NS)
    books = (
        ingest(written(tmp_path, writer), tmp_path / "out", options=options)[0]
        .read("SBER", "2018-10-05")
        .books
    )
    assert books.bid_qty[:, 0].tolist() == [241, 491, 741, 991]


# ---- facts that the files do not hold, and damage ----


def test_what_is_missing_names_its_flag(tmp_path: Path) -> None:
    writer = Writer([(DEALS, "Plaza2:LKOH:TQBR::0.5")])
    writer.deal(START_MS, 1, EXCH_MS, 1, 0, 9_000, 1, 0)
    path = written(tmp_path, writer)
    with pytest.raises(RecordingError, match=r"LKOH: .*size of a lot; give it, for instance --lot 10"):
        ingest(path, tmp_path / "out")
    instrument = ingest(path, tmp_path / "out", options=ImportOptions(lot=1))[0].info.instruments[0]
    assert (instrument.lot, instrument.tick_nano, instrument.tick_value_nano) == (1, 500_000_000, 500_000_000)
    writer = Writer([(DEALS, "Plaza2:Si-12.18::1:1")])
    writer.deal(START_MS, 1, EXCH_MS, 1, 0, 66_000, 1, 0)
    with pytest.raises(RecordingError, match=r"Si-12\.18: .*--tick-value"):
        ingest(written(tmp_path, writer, "b.qsh"), tmp_path / "out")


def test_two_files_of_the_same_stream_are_named(tmp_path: Path) -> None:
    writer = Writer([(DEALS, SHARE)])
    writer.deal(START_MS, 1, EXCH_MS, 1, 0, 9_000, 1, 0)
    paths = [written(tmp_path, writer, name) for name in ("a.qsh", "b.qsh")]
    with pytest.raises(RecordingError, match=r"a\.qsh and .*b\.qsh both hold the Deals of SBER 2018-10-05"):
        ingest(paths, tmp_path / "out")


def damaged(change: str) -> bytes:
    writer = Writer([(DEALS, SHARE)])
    for i in range(50):
        writer.deal(START_MS + i, 1, EXCH_MS + i, i, 0, 9_000 + i, 1, 0)
    plain, packed = writer.plain(), writer.packed()
    return {
        "truncated gzip": packed[:-20],
        "damaged gzip": packed[:40] + bytes([packed[40] ^ 255]) + packed[41:],
        "cut frame": plain[:-2],
        "version": plain[:19] + b"\x05" + plain[20:],
        "header": plain[:30],
        "stream type": plain.replace(b"\x20\x16Plaza2", b"\x33\x16Plaza2"),
        "time": gzip.compress(
            Writer([(DEALS, SHARE)]).plain() + b"\xff\xff\xff\x7f\xff\xff\xff\xff\xff\x07\x00"
        ),
        "long number": plain + b"\xff" * 11 + b"\x01",
        "quotes count": Writer([(QUOTES, SHARE)]).plain() + b"\x01\xff\xff\x3f",
        "nothing": b"",
    }[change]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("truncated gzip", r"cut off: its gzip stream has no end after [\d,]+ packed bytes"),
        ("damaged gzip", r"damaged"),
        ("cut frame", r"bytes end inside a frame \(frame at unpacked byte [\d,]+\)"),
        ("version", r"version 5; only version 4"),
        ("header", r"cut off within its header, at byte 30"),
        ("stream type", r"stream of type 0x33"),
        ("time", r"time of deal 1 lies more than seven days"),
        ("long number", r"a number of more than ten bytes"),
        ("quotes count", r"more level changes than bytes are left"),
        ("nothing", r"no QSH file"),
    ],
)
def test_damage_is_one_sentence_and_leaves_nothing(tmp_path: Path, change: str, expected: str) -> None:
    path = tmp_path / "x.qsh"
    path.write_bytes(damaged(change))
    with pytest.raises(RecordingError, match=expected) as error:
        ingest(path, tmp_path / "out", kind="qsh")
    assert "x.qsh" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.qsh"]


@LOOSE
@given(st.data())
def test_no_bytes_crash_the_decoder(tmp_path: Path, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([QUOTES, DEALS, AUX_INFO, ORDER_LOG]), min_size=1, max_size=3))
    raw = Writer([(kind, SHARE) for kind in kinds]).plain() + data.draw(st.binary(max_size=300))
    cut = data.draw(st.integers(0, len(raw)))
    path = tmp_path / "fuzz.qsh"
    path.write_bytes(raw[:cut] if data.draw(st.booleans()) else raw)
    try:
        ingest(path, tmp_path / "out", kind="qsh")
    except RecordingError as error:
        assert str(error)


@LOOSE
@given(st.binary(max_size=400))
def test_no_gzip_bytes_crash_the_reader(tmp_path: Path, noise: bytes) -> None:
    whole = damaged("cut frame") + noise
    packed = gzip.compress(whole)
    path = tmp_path / "fuzz.qsh"
    path.write_bytes(packed[: len(packed) - len(noise) % 60] + noise[:3])
    with pytest.raises(RecordingError):
        ingest(path, tmp_path / "out", kind="qsh")
