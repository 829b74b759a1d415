"""Raw Binance captures: the recorded sessions, and what gaps, noise and missing snapshots do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.errors import RecordingError
from market.importers import ImportOptions, detect, ingest
from market.importers.binance import BINANCE
from market.types import BUY, SELL

T0 = 1_721_347_020_984_480_942
LOOSE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def message(kind: str, **fields: Any) -> dict[str, Any]:
    return {"stream": f"abcusdt@{kind}", "data": {"e": kind, "E": 1_721_347_022_504, "T": 1_721_347_022_500,
                                                   "s": "ABCUSDT", **fields}}  # fmt: skip


def diff(first: int, last: int, previous: int | None, bids: list, asks: list) -> dict[str, Any]:
    ids = {"U": first, "u": last} | ({} if previous is None else {"pu": previous})
    return message("depthUpdate", **ids, b=bids, a=asks)


SNAPSHOT = {
    "lastUpdateId": 100, "E": 1, "T": 1_721_347_022_400, "symbol": "ABCUSDT",
    "bids": [["9.90", "1.5"], ["9.80", "2"]], "asks": [["10.00", "3"], ["10.10", "0.5"]],
}  # fmt: skip


def capture(path: Path, messages: list[Any], first_ns: int = T0) -> Path:
    text = "".join(
        f"{first_ns + 1_000_000 * i} {m if isinstance(m, str) else json.dumps(m)}\n"
        for i, m in enumerate(messages)
    )
    path.write_bytes(gzip.compress(text.encode()))
    return path


def told(recording: Any, symbol: str = "ABCUSDT") -> dict[str, Any]:
    return recording.info.provenance["symbols"][symbol]


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("files", "symbol", "day", "applied", "trades", "behind_s"),
    [
        ("usdm_btcusdt_2024*", "BTCUSDT", "2024-07-19", 9_016, 10_701, (1.3, 1.6)),
        ("usdm_btcusdt_2023*", "BTCUSDT", "2023-04-05", 16_110, 12_935, (0.0, 0.1)),
        ("cm_btcusd_perp_2024*", "BTCUSD_PERP", "2024-08-09", 44_770, 5_235, (1.1, 1.4)),
    ],
)
def test_the_recorded_sessions(
    shared_data: Path, tmp_path: Path, files: str, symbol: str, day: str, applied: int, trades: int,
    behind_s: tuple[float, float],
) -> None:  # fmt: skip
    paths = sorted((shared_data / "binance").glob(files))
    assert detect(paths) == "binance"
    recording, reports = ingest(list(reversed(paths)), tmp_path / "out")  # the order is found out
    found, report = told(recording, symbol), reports[f"{symbol}/{day}"]
    assert (found["depth_applied"], found["trades"], found["id_gaps"]) == (applied, trades, 0)
    assert (report.books, report.trades) == (applied + 1, trades)  # one more: the snapshot itself
    assert (report.crossed, report.locked, report.unsorted, report.negative, report.books_dropped) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert found["best_prices_agree"] >= 0.998
    low, high = behind_s
    assert low <= found["receive_less_exchange_time"]["receiver_behind_by_at_least_ms"] / 1000 <= high
    instrument = recording.info.instrument(symbol)
    assert instrument.tick_nano == 100_000_000 and instrument.kind == "future"


def test_a_session_in_our_units(tmp_path: Path) -> None:
    messages = [
        diff(90, 95, 89, [["9.70", "4"]], []),  # older than the snapshot
        diff(96, 101, 95, [["9.90", "1.0"]], []),  # spans it: applied with it
        message("markPriceUpdate", p="1"),
        SNAPSHOT,
        message("bookTicker", u=101, b="9.90", B="1.0", a="10.00", A="3"),
        diff(102, 104, 101, [], [["10.00", "0"], ["10.05", "2"]]),
        message("trade", p="10.00", q="3", m=False, X="MARKET"),
        message("trade", p="9.90", q="0.5", m=True, X="MARKET"),
    ]
    recording, _ = ingest(capture(tmp_path / "a.gz", messages), tmp_path / "out")
    day = recording.read("ABCUSDT", "2024-07-19")
    instrument = day.instrument
    assert (instrument.tick_nano, instrument.tick_value_nano) == (50_000_000, 25_000_000)  # 0.05 x 0.5
    assert instrument.currency == "usdt" and told(recording)["size_step"] == "0.5"
    assert day.books.recv_ns.tolist() == [T0 + 3_000_000, T0 + 5_000_000]
    assert day.books.bid_px[0, :3].tolist() == [198, 196, 0] and day.books.bid_qty[0, :2].tolist() == [2, 4]
    assert day.books.ask_px[:, 0].tolist() == [200, 201] and day.books.ask_qty[:, 0].tolist() == [6, 4]
    assert (day.trades.px.tolist(), day.trades.qty.tolist()) == ([200, 198], [6, 1])
    assert day.trades.side.tolist() == [BUY, SELL]
    found = told(recording)
    kept = ("depth_applied", "depth_applied_with_snapshot", "depth_older_than_snapshot")
    assert [found[name] for name in kept] == [1, 1, 1]
    assert found["best_prices_agree"] == 0.5  # of two books one: the other's ticker never came


def test_the_spot_rule_and_a_session_in_two_files(tmp_path: Path) -> None:
    first = capture(tmp_path / "b.gz", [SNAPSHOT, diff(100, 103, None, [["9.90", "2"]], [])])
    second = capture(tmp_path / "a.gz", [diff(104, 105, None, [["9.90", "3"]], [])], T0 + 60_000_000_000)
    recording, _ = ingest([second, first], tmp_path / "out")
    assert recording.info.instruments[0].class_code == "BINANCE-SPOT"
    assert recording.info.provenance["files"] == ["b.gz", "a.gz"]
    assert recording.read("ABCUSDT", "2024-07-19").books.bid_qty[:, 0].tolist() == [3, 4, 6]


def test_a_gap_ends_the_book_until_the_next_snapshot(tmp_path: Path) -> None:
    messages = [
        SNAPSHOT,
        diff(100, 103, 100, [["9.90", "2"]], []),
        diff(107, 108, 106, [["9.90", "9"]], []),  # 104 to 106 are lost
        diff(109, 110, 108, [["9.90", "8"]], []),
        {**SNAPSHOT, "lastUpdateId": 109},
        diff(111, 112, 110, [["9.80", "0"]], []),
    ]
    recording, _ = ingest(capture(tmp_path / "a.gz", messages), tmp_path / "out")
    books = recording.read("ABCUSDT", "2024-07-19").books
    assert told(recording)["id_gaps"] == 1 and told(recording)["snapshots"] == 2
    assert books.flags.tolist() == [1, 1, 0, 1, 1]
    assert books.bid_qty[:, 0].tolist() == [
        3,
        4,
        4,
        16,
        16,
    ]  # halves; the marked row shows the last known book
    assert books.bid_qty[-1, 1] == 0


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([diff(1, 2, 0, [["1", "1"]], [])], r"1 differences but no snapshot.*first file"),
        ([SNAPSHOT, diff(100, 101, 100, [["1.0", "x"]], [])], r"'x' is no decimal number"),
        ([SNAPSHOT, diff(100, 101, 100, [["1.0"]], [])], r"line 2 is no message .*not a price with a size"),
        (
            [SNAPSHOT, message("depthUpdate", u=1)],
            r"line 2 is no message of a Binance capture: 'U' is missing",
        ),
        ([SNAPSHOT, '{"e": "trade"'], r"line 2 is no message"),
        ([SNAPSHOT, "[1]"], r"line 2 is no message"),
        ([SNAPSHOT, diff(100, 101, 100, [["1.0", "-1"]], [])], r"a size below zero"),
        (
            [SNAPSHOT, diff(100, 101, 100, [["300000000.05", "1"]], [])],
            r"prices: .* do not fit 32 bits.*--tick",
        ),
        (["{}"], r"no message of a Binance stream"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, messages: list, expected: str) -> None:
    with pytest.raises(RecordingError, match=expected) as error:
        ingest(capture(tmp_path / "a.gz", messages), tmp_path / "out", kind="binance")
    assert "a.gz" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gz"]


def test_steps_can_be_given(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.gz", [SNAPSHOT, diff(100, 101, 100, [["9.90", "2"]], [])])
    options = ImportOptions(tick_nano=10_000_000, size_step_nano=100_000_000, tariff="free")
    recording, _ = ingest(path, tmp_path / "out", options=options)
    assert recording.info.instruments[0].tick_nano == 10_000_000 and recording.info.tariff == "free"
    assert recording.read("ABCUSDT", "2024-07-19").books.bid_px[0, 0] == 990


@LOOSE
@given(st.data())
def test_noise_is_refused_and_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    good = [SNAPSHOT, diff(100, 101, 100, [["9.90", "2"]], [])]
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    anything = st.recursive(
        leaf, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=3), c, max_size=3)
    )
    key = data.draw(st.sampled_from(["U", "u", "pu", "b", "a", "E", "T", "s", "e"]))
    bad = diff(102, 103, 101, [["9.90", "3"]], [])
    bad["data"][key] = data.draw(anything)
    path = capture(tmp_path / "a.gz", [*good, bad])
    if data.draw(st.booleans()):
        path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, 200))])
    try:
        list(BINANCE.load(path).days)
    except RecordingError as error:
        assert str(error)
