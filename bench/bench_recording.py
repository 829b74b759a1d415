"""What a recording costs on disk and how fast it is read and written, on a day with its own peers.

The day is the MOEX RTS sample where it lies beside the project, else three simulated hours. The peers: the
same books read by pyarrow from the source's own Parquet file, and the same table written with pyarrow's
defaults.
Run from the project's root: ``python bench/run.py recording``. Times are the best of several repetitions.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from timing import best_s

from market import stream
from market.changes import changed_levels
from market.importers.moex_rts import MOEX_RTS
from market.recording import Recording, write_recording
from market.recording.tables import BOOKS
from market.simulator import SimSpec, simulate_market
from market.types import InstrumentDay
from market.writer import RecordingWriter

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "moex-rts"
FACTS = {"source": "bench", "watermark": "SIMULATED", "tariff": "simulated", "provenance": {}}
APPENDED_EVENTS = 50_000


def the_day() -> tuple[InstrumentDay, Path | None]:
    """The day, and the file in which its books came."""
    if SAMPLE.is_dir():
        (day,) = MOEX_RTS.load(SAMPLE).days
        return day, next(SAMPLE.glob("*.book20.parquet"))
    return simulate_market([SimSpec("SIMA")], hours=3.0)[0][0], None


def append(path: Path, day: InstrumentDay) -> tuple[int, float, float, int]:
    """Events, seconds of appending, seconds of closing, bytes of the log."""
    b, t = day.books, day.trades
    books = [c.tolist() for c in (b.exch_ns, b.recv_ns, b.bid_px, b.bid_qty, b.ask_px, b.ask_qty, b.flags)]
    trades = [c.tolist() for c in (t.exch_ns, t.recv_ns, t.px, t.qty, t.side)]
    kinds, rows = (part[:APPENDED_EVENTS].tolist() for part in stream.merge(b, t))
    writer = RecordingWriter(path, **FACTS)
    start = time.perf_counter()
    for kind, row in zip(kinds, rows, strict=True):
        if kind == stream.BOOK:
            writer.book(day.instrument, *(column[row] for column in books))
        else:
            writer.trade(day.instrument, *(column[row] for column in trades))
    appended_s = time.perf_counter() - start
    size = writer.log_bytes
    start = time.perf_counter()
    writer.close()
    return len(kinds), appended_s, time.perf_counter() - start, size


def main() -> None:
    day, source = the_day()
    changed = int(changed_levels(day.books).sum())
    print(f"{day.instrument.ticker} {day.day}: {len(day.books):,} books, {len(day.trades):,} trades, "
          f"{changed:,} changed levels ({changed / len(day.books):.2f} a book)")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        written_s = best_s(lambda: write_recording(path, [day], **FACTS))
        recording = Recording.open(path)
        at = path / day.instrument.ticker / day.day
        total = sum((path / name).stat().st_size for name in recording.files())
        book_bytes = (at / "book.parquet").stat().st_size
        print(f"on disk, books          {book_bytes / changed:8.2f} bytes per changed level")
        print(f"on disk, everything     {total / changed:8.2f} bytes per changed level ({total:,} bytes)")
        plain = Path(folder) / "plain.parquet"
        pq.write_table(BOOKS.to_arrow(day.books, "books"), plain)
        print(f"peer: pyarrow defaults  {plain.stat().st_size / changed:8.2f} bytes per changed level, books")
        if source is not None:
            size = source.stat().st_size
            print(f"peer: the source file   {size / changed:8.2f} bytes per changed level, books, one time")
        read_s = best_s(lambda: recording.read(day.instrument.ticker, day.day))
        print(f"reading into arrays     {read_s:8.3f} s, books and trades")
        if source is not None:
            peer_s = best_s(lambda: pq.read_table(source))
            print(f"peer: pyarrow reads     {peer_s:8.3f} s the source's books, as Arrow columns only")
        print(f"writing at once         {written_s:8.3f} s")
        events, append_s, close_s, log = append(Path(folder) / "live", day)
        print(f"appending               {append_s / events * 1e6:8.1f} us an event")
        print(f"its log                 {log / events:8.1f} bytes an event")
        print(f"closing                 {close_s:8.3f} s for {events:,} events")


if __name__ == "__main__":
    main()
