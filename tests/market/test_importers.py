"""Foreign files become a clean recording, or one sentence says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market.errors import RecordingError
from market.importers import IMPORTERS, detect, ingest
from market.importers.moex_rts import BOOK_SUFFIX, MOEX_RTS, TRADES_SUFFIX
from market.recording import Recording, write_recording
from market.simulator import SimSpec, simulate_market
from market.types import BUY, DEPTH, MILLISECOND_NS, NANO, SELL, InstrumentDay

NAME = "RTS-12.13_2013-12-10_part"
FIRST_MS = 1_386_655_200_000  # 2013-12-10 06:00:00 UTC = 10:00 Moscow, then UTC+4


def rts_files(folder: Path, name: str = NAME) -> Path:
    """Three books, the last with 19 asks, and two trades in the layout of the source."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[int]] = {"ts_ms": [FIRST_MS, FIRST_MS + 120, FIRST_MS + 250]}
    for j in range(1, DEPTH + 1):
        columns |= {f"bp{j}": [14_000 - j] * 3, f"bq{j}": [10 + j] * 3}
        gone = j == DEPTH
        columns |= {f"ap{j}": [14_000 + j] * 2 + [-1 if gone else 14_000 + j]}
        columns |= {f"aq{j}": [5, 6, 0 if gone else 7]}
    pq.write_table(pa.table(columns), folder / (name + BOOK_SUFFIX))
    trades = {
        "recv_ts_ms": [FIRST_MS + 100, FIRST_MS + 200],
        "exch_ts_ms_msk": [FIRST_MS + 4 * 3_600_000] * 2,
        "side": [1, 2],
        "price": [14_001, 13_999],
        "vol": [3, 4],
    }
    pq.write_table(pa.table(trades), folder / (name + TRADES_SUFFIX))
    return folder


def simulated(path: Path, spoil: Callable[[InstrumentDay], None] = lambda day: None) -> Recording:
    days, _ = simulate_market([SimSpec("AAAA"), SimSpec("BBBB")], hours=0.02)
    spoil(days[0])
    return write_recording(
        path, days, source="simulator", watermark="SIMULATED", tariff="simulated", provenance={"seed": 1}
    )


def test_the_rts_layout_in_our_units(tmp_path: Path) -> None:
    recording, reports = ingest(rts_files(tmp_path / "in"), tmp_path / "out")
    day = recording.read("RTS-12.13", "2013-12-10")
    books, trades = day.books, day.trades
    assert books.recv_ns.tolist() == [
        ms * MILLISECOND_NS for ms in (FIRST_MS, FIRST_MS + 120, FIRST_MS + 250)
    ]
    np.testing.assert_array_equal(books.exch_ns, books.recv_ns)
    np.testing.assert_array_equal(books.bid_px[0], 13_999 - np.arange(DEPTH))
    np.testing.assert_array_equal(books.bid_qty[0], 11 + np.arange(DEPTH))
    assert books.ask_px[:, -1].tolist() == [14_020, 14_020, 0] and books.ask_qty[:, -1].tolist() == [5, 6, 0]
    assert (books.flags == 1).all()
    assert trades.recv_ns.tolist() == [(FIRST_MS + ms) * MILLISECOND_NS for ms in (100, 200)]
    assert trades.exch_ns.tolist() == [FIRST_MS * MILLISECOND_NS] * 2
    assert trades.px.tolist() == [14_001, 13_999] and trades.qty.tolist() == [3, 4]
    assert trades.side.tolist() == [BUY, SELL]
    assert reports["RTS-12.13/2013-12-10"].books_dropped == 0


def test_the_rts_contract(tmp_path: Path) -> None:
    info = ingest(rts_files(tmp_path / "in"), tmp_path / "out")[0].info
    (instrument,) = info.instruments
    assert (info.watermark, info.tariff, info.source) == ("REAL", "trader", "moex-rts")
    assert "approximation" in info.provenance["tick_value"]
    assert (instrument.class_code, instrument.kind, instrument.lot) == ("SPBFUT", "future", 1)
    assert (instrument.tick_nano, instrument.tick_value_nano) == (10 * NANO, 6_550_000_000)


def test_either_rts_file_stands_for_the_pair(tmp_path: Path) -> None:
    folder = rts_files(tmp_path / "in")
    hashes = set()
    for source in (folder, folder / (NAME + BOOK_SUFFIX), folder / (NAME + TRADES_SUFFIX)):
        assert detect(source) == "moex-rts"
        hashes.add(ingest(source, tmp_path / "out")[0].data_hash())
    assert len(hashes) == 1


def test_broken_rts_sources_are_named_and_leave_nothing(tmp_path: Path) -> None:
    folder = rts_files(tmp_path / "a")
    (folder / (NAME + TRADES_SUFFIX)).unlink()
    with pytest.raises(RecordingError, match=r"trades\.parquet is missing"):
        ingest(folder / (NAME + BOOK_SUFFIX), tmp_path / "out")
    with pytest.raises(RecordingError, match=r"tick value of 'Si-12\.13' is not known"):
        ingest(rts_files(tmp_path / "b", "Si-12.13_2013-12-10"), tmp_path / "out")
    folder = rts_files(tmp_path / "c")
    (folder / (NAME + BOOK_SUFFIX)).write_bytes(b"PAR1 but not really")
    with pytest.raises(RecordingError, match="cannot be read as Parquet"):
        ingest(folder, tmp_path / "out")
    folder = rts_files(tmp_path / "d")
    pq.write_table(pa.table({"recv_ts_ms": [1]}), folder / (NAME + TRADES_SUFFIX))
    with pytest.raises(RecordingError, match="no column exch_ts_ms_msk, price, side, vol"):
        ingest(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_sound_recording_of_our_own_is_copied(tmp_path: Path) -> None:
    source = simulated(tmp_path / "raw")
    said: list[str] = []
    copy, reports = ingest(source.path, tmp_path / "out", progress=said.append)
    for ticker, (day,) in source.info.days.items():
        for file in ("book.parquet", "trades.parquet"):
            assert (copy.path / ticker / day / file).read_bytes() == (
                source.path / ticker / day / file
            ).read_bytes()
    assert list(reports) == ["AAAA/2026-01-15", "BBBB/2026-01-15"]
    assert any(line.startswith("AAAA 2026-01-15: 288 books; none dropped") for line in said)
    assert copy.info.provenance == {"seed": 1, "ingested_data_hash": source.data_hash()}
    assert (copy.info.watermark, copy.info.tariff) == ("SIMULATED", "simulated")


def test_an_unsound_recording_of_our_own_is_cleaned(tmp_path: Path) -> None:
    def spoil(day: InstrumentDay) -> None:
        day.books.bid_px[5] += 1000
        day.books.recv_ns[9] = day.books.recv_ns[8] - 1
        day.trades.qty[0] = 0

    source = simulated(tmp_path / "raw", spoil)
    copy, reports = ingest(source.path, tmp_path / "out")
    report = reports["AAAA/2026-01-15"]
    assert (report.crossed, report.backward_time, report.books_dropped, report.trades_dropped) == (1, 1, 2, 1)
    raw = source.read("AAAA", "2026-01-15")
    left = copy.read("AAAA", "2026-01-15")
    assert set(raw.books.exch_ns) - set(left.books.exch_ns) == {raw.books.exch_ns[5], raw.books.exch_ns[9]}
    assert reports["BBBB/2026-01-15"].books_dropped == 0


def test_a_day_without_a_sound_book_is_refused_and_the_old_output_stays(tmp_path: Path) -> None:
    def spoil(day: InstrumentDay) -> None:
        day.books.bid_px += 1000

    before, _ = ingest(simulated(tmp_path / "good").path, tmp_path / "out")
    old = before.data_hash()
    bad = simulated(tmp_path / "bad", spoil)
    with pytest.raises(RecordingError, match="AAAA 2026-01-15: none of its 288 books is sound"):
        ingest(bad.path, tmp_path / "out")
    assert Recording.open(tmp_path / "out").data_hash() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "good", "out"]


def test_what_cannot_be_ingested_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is nothing at"):
        detect(tmp_path / "nowhere")
    (tmp_path / "letters.txt").write_text("letters")
    with pytest.raises(RecordingError, match=r"no source that can be ingested\. Known kinds: own"):
        detect(tmp_path / "letters.txt")
    with pytest.raises(RecordingError, match="unknown kind of source 'tape'; known kinds: own, moex-rts"):
        ingest(tmp_path, tmp_path / "out", kind="tape")
    for kind in IMPORTERS:
        with pytest.raises(RecordingError, match="nothing at"):
            ingest(tmp_path / "nowhere", tmp_path / "out", kind=kind)
        with pytest.raises(RecordingError):
            ingest(tmp_path, tmp_path / "out", kind=kind)
    source = simulated(tmp_path / "raw")
    with pytest.raises(RecordingError, match="replaced by its own cleaned copy"):
        ingest(source.path, source.path)


@pytest.mark.recorded
def test_the_recorded_rts_day(shared_data: Path, tmp_path: Path) -> None:
    (raw,) = MOEX_RTS.load(shared_data / "moex-rts").days
    assert (len(raw.books), len(raw.trades)) == (132_947, 138_805)
    recording, reports = ingest(shared_data / "moex-rts", tmp_path / "out")
    report = reports["RTS-12.13/2013-12-10"]
    assert (report.books, report.trades) == (132_947, 138_805)
    assert (report.crossed, report.unsorted, report.gaps) == (0, 0, 1)
    assert 102 * NANO < report.longest_gap_ns < 104 * NANO
    books = recording.read("RTS-12.13", "2013-12-10").books
    one_tick = (books.ask_px[:, 0] - books.bid_px[:, 0] == 1).mean()
    assert 0.56 < one_tick < 0.60
    assert np.median(np.diff(books.recv_ns)) == 120 * MILLISECOND_NS
