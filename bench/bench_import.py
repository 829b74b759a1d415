"""How fast the importers decode, against the least that any reader of the same bytes has to do.

Run from the project's root: ``python bench/run.py import``. The peers run in the same process on the same
file: unpacking alone, a plain-Python decoder of the same format, ``json.loads`` alone, Arrow's CSV reader
alone. The recordings of third parties are not part of the repository; without them only the export of a
simulated day is measured. Each figure is the best of several repetitions; the ratios are what to compare.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
from timing import best_s

from market.exporters import export_jsonl
from market.importers import load, order_log
from market.importers.files import members
from market.importers.qsh_format import OrderLog, read_header, read_qsh
from market.recording import write_recording
from market.simulator import SimSpec, simulate_market

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ESCAPE = 268_435_455


def line(what: str, rows: int, ours_s: float, peer: str, peer_s: float) -> None:
    ratio = peer_s / ours_s
    said = f"{ratio:.0f} times faster" if ratio >= 2 else f"{ours_s / peer_s:.2f} times its time"
    print(f"  {what:<34} {rows:>9,} rows  {rows / ours_s / 1e6:6.2f} M rows/s;  against {peer}: {said}")


def plain_deals(data: bytes, at: int) -> int:
    """What anybody would write first: the Deals decoder in plain Python. Returns the sum of the lots."""

    def uleb() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def sleb() -> int:
        start = at
        value = uleb()
        return value - (1 << 7 * (at - start)) if data[at - 1] & 64 else value

    def grown() -> int:
        step = uleb()
        return sleb() if step == ESCAPE else step

    ms = exch = deal = order = px = lots = interest = total = 0
    while at < len(data):
        ms += grown()
        mask = data[at]
        at += 1
        if mask & 4:
            exch += grown()
        if mask & 8:
            deal += grown()
        if mask & 16:
            order += sleb()
        if mask & 32:
            px += sleb()
        if mask & 64:
            lots = sleb()
        if mask & 128:
            interest += sleb()
        total += lots
    return total


def qsh() -> None:
    path = DATA / "moex-qsh" / "SBER.2024-02-20.Deals.qsh"
    (stream,) = read_qsh(path).streams  # also compiles
    data = gzip.decompress(path.read_bytes())
    header = read_header(data, path)
    assert plain_deals(data, header.size) == int(stream.rows.lots.sum())  # type: ignore[union-attr]
    rows, ours_s = len(stream.rows.recv_ns), best_s(lambda: read_qsh(path))
    line(
        "qsh Deals, from the file",
        rows,
        ours_s,
        "plain Python",
        best_s(lambda: plain_deals(data, header.size)),
    )
    line("qsh Deals, from the file", rows, ours_s, "gunzip alone",
         best_s(lambda: gzip.decompress(path.read_bytes())))  # fmt: skip
    path = DATA / "moex-qsh" / "SNGR-12.18.2018-10-05.OrdLog.qsh"
    log = read_qsh(path).streams[0].rows
    assert isinstance(log, OrderLog)
    order_log.books(log)
    line("qsh OrdLog, from the file", len(log.px), best_s(lambda: read_qsh(path)), "gunzip alone",
         best_s(lambda: gzip.decompress(path.read_bytes())))  # fmt: skip
    line("qsh OrdLog, books and trades", len(log.px),
         best_s(lambda: (order_log.books(log), order_log.trades(log))), "decoding it",
         best_s(lambda: read_qsh(path)))  # fmt: skip


def lobster() -> None:
    (path,) = (DATA / "lobster").glob("*.zip")
    (day,) = load(path).days
    packed = members(path)

    def arrow_alone() -> None:
        for name, content in packed.items():
            if name.endswith(".csv"):
                csv.read_csv(pa.py_buffer(content), csv.ReadOptions(autogenerate_column_names=True))

    ours_s = best_s(lambda: list(load(path).days))
    peer_s = best_s(lambda: (members(path), arrow_alone()))
    line("lobster, from the zip", len(day.books), ours_s, "unzip and Arrow's CSV", peer_s)


def binance() -> None:
    paths = sorted((DATA / "binance").glob("usdm_btcusdt_2024*"))
    list(load(paths).days)

    def json_alone() -> int:
        count = 0
        for path in paths:
            with gzip.open(path, "rb") as f:
                for text in f:
                    json.loads(text.partition(b" ")[2])
                    count += 1
        return count

    rows = json_alone()
    line("binance, all lines of a session", rows, best_s(lambda: list(load(paths).days)), "json.loads alone",
         best_s(json_alone))  # fmt: skip


def jsonl() -> None:
    days, _ = simulate_market([SimSpec("AAAA")], hours=1.0)
    with tempfile.TemporaryDirectory() as folder:
        recording = write_recording(
            Path(folder) / "r",
            days,
            source="simulator",
            watermark="SIMULATED",
            tariff="simulated",
            provenance={},
        )
        path = Path(folder) / "a.jsonl"
        export_jsonl(recording, path)

        def json_alone() -> int:
            with path.open("rb") as f:
                return sum(1 for text in f if json.loads(text))

        line("jsonl, an export of one hour", json_alone(), best_s(lambda: list(load(path).days)),
             "json.loads alone", best_s(json_alone))  # fmt: skip


def main() -> int:
    jsonl()
    if not DATA.is_dir():
        print("  (no third-party recordings beside the project: qsh, lobster and binance are not measured)")
        return 0
    qsh()
    lobster()
    binance()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
