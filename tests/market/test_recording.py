"""A recording comes back as it was written, byte by byte the same each time, and whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.changes import changed_levels
from market.errors import ConfigError, RecordingError
from market.importers.moex_rts import MOEX_RTS
from market.recording import INFO_FILE, Recording, write_recording
from market.types import DEPTH, Books, Instrument, InstrumentDay, OwnEvents, Trades

SHARE = Instrument("u-1", "AAAA", "TQBR", "F000000000AA", "share", 10, 10_000_000, 100_000_000, name="Имя")
FUTURE = Instrument("u-2", "RTS-3.26", "SPBFUT", "F000000000BB", "future", 1, 10**10, 6_550_000_000)
DAY = "2026-01-15"


def random_day(seed: int, books: int = 50, trades: int = 30, instrument: Instrument = SHARE) -> InstrumentDay:
    """Any numbers at all: a recording keeps what it is given and judges nothing."""
    rng = np.random.default_rng(seed)
    i32, i64 = np.iinfo(np.int32), np.iinfo(np.int64)

    def wide(*shape: int) -> Any:
        return rng.integers(i32.min, i32.max, shape, np.int32, endpoint=True)

    def times(n: int) -> Any:
        return rng.integers(i64.min, i64.max, n, np.int64, endpoint=True)

    return InstrumentDay(
        instrument,
        DAY,
        Books(
            times(books),
            times(books),
            *(wide(books, DEPTH) for _ in range(4)),
            rng.integers(0, 256, books).astype(np.uint8),
        ),
        Trades(
            times(trades),
            times(trades),
            wide(trades),
            wide(trades),
            rng.integers(-1, 2, trades).astype(np.int8),
        ),
    )


def write(path: Path, *days: InstrumentDay, **changes: Any) -> Recording:
    options = {"source": "test", "watermark": "SIMULATED", "tariff": "simulated", "provenance": {"seed": 1}}
    return write_recording(path, days, **{**options, **changes})


def assert_same(a: InstrumentDay, b: InstrumentDay) -> None:
    assert a.instrument == b.instrument and a.day == b.day
    for one, other in ((a.books, b.books), (a.trades, b.trades)):
        for name in one.__slots__:
            x, y = getattr(one, name), getattr(other, name)
            assert x.dtype == y.dtype and x.flags.c_contiguous
            np.testing.assert_array_equal(x, y)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), books=st.integers(0, 300), trades=st.integers(0, 300))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, books: int, trades: int
) -> None:
    path = tmp_path_factory.mktemp("recording") / "r"
    day = random_day(seed, books, trades)
    write(path, day)
    assert_same(day, Recording.open(path).read("AAAA", DAY))


def test_info_survives_the_disk(tmp_path: Path) -> None:
    days = [random_day(1), random_day(2, instrument=FUTURE), replace(random_day(3), day="2026-01-14")]
    written = write(tmp_path / "r", *days, watermark="REAL", tariff="trader", provenance={"of": ["a", 1]})
    info = Recording.open(tmp_path / "r").info
    assert info == written.info
    assert info.instruments == (SHARE, FUTURE)
    assert info.days == {"AAAA": ("2026-01-14", DAY), "RTS-3.26": (DAY,)}
    assert (info.source, info.watermark, info.tariff) == ("test", "REAL", "trader")
    assert info.provenance == {"of": ["a", 1]}


def test_the_same_market_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    days = [random_day(1), random_day(2, instrument=FUTURE)]
    one = write(tmp_path / "one", *days)
    other = write(tmp_path / "deeper" / "other", *reversed(days))
    assert one.files() == other.files()
    for name in one.files():
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    assert one.data_hash() == other.data_hash()


def test_the_hash_covers_content_and_nothing_else(tmp_path: Path) -> None:
    recording = write(tmp_path / "r", random_day(1))
    before = recording.data_hash()
    (tmp_path / "r" / ".DS_Store").write_text("not ours")
    assert recording.data_hash() == before
    changed = random_day(1)
    changed.trades.px[7] ^= 1
    assert write(tmp_path / "r2", changed).data_hash() != before


def test_a_failure_halfway_leaves_the_old_recording_and_no_litter(tmp_path: Path) -> None:
    before = write(tmp_path / "r", random_day(1)).data_hash()

    def failing() -> Iterator[InstrumentDay]:
        yield random_day(2)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_recording(
            tmp_path / "r", failing(), source="x", watermark="REAL", tariff="trader", provenance={}
        )
    assert Recording.open(tmp_path / "r").data_hash() == before
    assert leftovers(tmp_path) == []


def test_a_full_disk_leaves_the_old_recording_and_no_litter(tmp_path: Path) -> None:
    """The file size limit of a child process stands in for the full disk: the write call itself fails."""
    before = write(tmp_path / "r", random_day(1)).data_hash()
    script = f"""
import resource, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from pathlib import Path
from test_recording import random_day, write
from market.errors import RecordingError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write(Path({str(tmp_path / "r")!r}), random_day(2, books=2000))
except RecordingError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "free space" in done.stdout
    assert Recording.open(tmp_path / "r").data_hash() == before
    assert leftovers(tmp_path) == []


def test_a_recording_is_replaced_and_an_empty_folder_filled(tmp_path: Path) -> None:
    write(tmp_path / "r", random_day(1), random_day(2, instrument=FUTURE))
    write(tmp_path / "r", random_day(3))
    assert Recording.open(tmp_path / "r").info.days == {"AAAA": (DAY,)}
    assert not (tmp_path / "r" / "RTS-3.26").exists()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", random_day(1))
    assert_same(random_day(1), Recording.open(tmp_path / "empty").read("AAAA", DAY))
    assert leftovers(tmp_path) == []


def test_anything_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("letters")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letters").write_text("letters")
    for name in ("file", "folder"):
        with pytest.raises(RecordingError, match="not a recording, so it is not replaced"):
            write(tmp_path / name, random_day(1))
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "letters").read_text() == "letters"


def edit_info(path: Path, **changes: Any) -> None:
    info = json.loads((path / INFO_FILE).read_text("utf-8"))
    (path / INFO_FILE).write_text(json.dumps({**info, **changes}), "utf-8")


def test_open_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such folder"):
        Recording.open(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match=r"has no recording\.json"):
        Recording.open(tmp_path)
    path = tmp_path / "r"
    write(path, random_day(1))
    edit_info(path, schema_version=3)
    with pytest.raises(RecordingError, match="schema version 3, this program reads 1 to 2; update"):
        Recording.open(path)
    edit_info(path, schema_version=1, watermark="GENUINE")
    with pytest.raises(RecordingError, match="watermark 'GENUINE'"):
        Recording.open(path)
    edit_info(path, watermark="SIMULATED", instruments=[{"ticker": "AAAA"}])
    with pytest.raises(RecordingError, match="damaged"):
        Recording.open(path)
    (path / INFO_FILE).write_text("{")
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording.open(path)


def test_open_names_the_missing_file_and_read_the_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recording = write(path, random_day(1))
    book = path / "AAAA" / DAY / "book.parquet"
    whole = book.read_bytes()
    book.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"book\.parquet is damaged"):
        recording.read("AAAA", DAY)
    book.unlink()
    with pytest.raises(RecordingError, match=r"AAAA/2026-01-15/book\.parquet is missing"):
        Recording.open(path)


def test_names_from_the_file_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path, random_day(1))
    edit_info(path, days={"AAAA": ["../../other"]})
    with pytest.raises(RecordingError, match="YYYY-MM-DD"):
        Recording.open(path)
    outside = replace(SHARE, ticker="../x")
    edit_info(path, days={"../x": [DAY]}, instruments=[outside.to_dict()])
    with pytest.raises(RecordingError, match="cannot be a folder name"):
        Recording.open(path)
    with pytest.raises(RecordingError, match="cannot be a folder name"):
        write(tmp_path / "r2", random_day(1, instrument=outside))


def test_what_cannot_be_a_recording_is_refused(tmp_path: Path) -> None:
    day = random_day(1)
    with pytest.raises(RecordingError, match="day 2026-01-15 twice"):
        write(tmp_path / "r", day, day)
    with pytest.raises(RecordingError, match="two different instrument descriptions"):
        write(tmp_path / "r", day, replace(day, day="2026-01-16", instrument=replace(SHARE, lot=1)))
    with pytest.raises(RecordingError, match="at least one day"):
        write(tmp_path / "r")
    with pytest.raises(RecordingError, match="not 'MAYBE'"):
        write(tmp_path / "r", day, watermark="MAYBE")
    with pytest.raises(ConfigError, match="unknown tariff 'gold'"):
        write(tmp_path / "r", day, tariff="gold")
    shallow = replace(day.books, bid_px=day.books.bid_px[:, :10])
    with pytest.raises(RecordingError, match=r"bid_px is int32\[50, 10\]"):
        write(tmp_path / "r", replace(day, books=shallow))
    floats = replace(day.trades, px=day.trades.px.astype(np.float64))
    with pytest.raises(RecordingError, match="px is float64"):
        write(tmp_path / "r", replace(day, trades=floats))
    assert list(tmp_path.iterdir()) == []


def test_unknown_tickers_and_days_are_named(tmp_path: Path) -> None:
    recording = write(tmp_path / "r", random_day(1))
    with pytest.raises(RecordingError, match="no instrument 'BBBB'; it holds AAAA"):
        recording.read("BBBB", DAY)
    with pytest.raises(RecordingError, match="no day '2026-01-16' of AAAA; it has 2026-01-15"):
        recording.read("AAAA", "2026-01-16")


def test_a_slice_is_half_open(tmp_path: Path) -> None:
    day = random_day(1)
    day.books.recv_ns[:] = np.arange(50) * 10
    day.trades.recv_ns[:] = np.arange(30) * 10 + 5
    part = write(tmp_path / "r", day).slice("AAAA", DAY, 100, 200)
    assert part.books.recv_ns.tolist() == list(range(100, 200, 10))
    assert part.trades.recv_ns.tolist() == list(range(105, 200, 10))
    np.testing.assert_array_equal(part.books.bid_px, day.books.bid_px[10:20])


def test_the_columns_on_disk_are_the_documented_ones(tmp_path: Path) -> None:
    write(tmp_path / "r", random_day(1))
    folder = tmp_path / "r" / "AAAA" / DAY
    levels = {f"{side}{j}" for side in ("bp", "bq", "ap", "aq") for j in range(1, DEPTH + 1)}
    assert set(pq.read_schema(folder / "book.parquet").names) == {"exch_ns", "recv_ns", "flags", *levels}
    assert pq.read_schema(folder / "trades.parquet").names == ["exch_ns", "recv_ns", "px", "qty", "side"]


def test_own_events_make_it_version_two(tmp_path: Path) -> None:
    own = OwnEvents.empty(2)
    own.kind[:] = (0, 2)
    own.client_order_id[:] = ("a", "b")
    own.fee_nano[1] = 1 << 60
    with_own, without = replace(random_day(1), own=own), replace(random_day(1), day="2026-01-16")
    recording = write(tmp_path / "r", with_own, without)
    info = Recording.open(tmp_path / "r").info
    assert (info.schema_version, info.own) == (2, {"AAAA": (DAY,)})
    assert f"AAAA/{DAY}/own.parquet" in recording.files()
    back = recording.read("AAAA", DAY).own
    assert back is not None
    for name in own.__slots__:
        np.testing.assert_array_equal(getattr(back, name), getattr(own, name))
    assert recording.read("AAAA", "2026-01-16").own is None
    assert write(tmp_path / "r1", random_day(1)).info.schema_version == 1, "the bytes of old recordings stay"
    own.kind[0] = 77
    with pytest.raises(RecordingError, match="has the kind 77"):
        write(tmp_path / "r2", with_own)
    (tmp_path / "r" / "AAAA" / DAY / "own.parquet").unlink()
    with pytest.raises(RecordingError, match=r"own\.parquet is missing"):
        Recording.open(tmp_path / "r")


def plainly_changed(px: list[int], qty: list[int], before: dict[int, int]) -> tuple[int, dict[int, int]]:
    now = {p: q for p, q in zip(px, qty, strict=True) if q}
    return sum(now.get(p, 0) != before.get(p, 0) for p in {*now, *before}), now


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_changed_levels_are_what_their_definition_says(data: st.DataObject) -> None:
    sides = st.dictionaries(st.integers(1, 9), st.integers(1, 3), max_size=6)
    rows = data.draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=6))
    books = Books.empty(len(rows))
    wanted, before = [], [{}, {}]
    for k, row in enumerate(rows):
        total = 0
        for s, (px, qty) in enumerate(((books.bid_px, books.bid_qty), (books.ask_px, books.ask_qty))):
            px[k, : len(row[s])], qty[k, : len(row[s])] = list(row[s]), list(row[s].values())
            count, before[s] = plainly_changed(px[k].tolist(), qty[k].tolist(), before[s])
            total += count
        wanted.append(total)
    assert changed_levels(books).tolist() == wanted


@pytest.mark.recorded
def test_the_real_day_is_small_on_disk(shared_data: Path, tmp_path: Path) -> None:
    (day,) = MOEX_RTS.load(shared_data / "moex-rts").days
    recording = write(tmp_path / "r", day)
    assert_same(day, recording.read(day.instrument.ticker, day.day))
    size = sum((recording.path / name).stat().st_size for name in recording.files())
    changed = int(changed_levels(day.books).sum())
    assert changed == 504_911
    assert size / changed < 9.0
