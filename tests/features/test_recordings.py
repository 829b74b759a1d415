"""Batch, loop and live give the same bits on every kind of recording that can be imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.batch import compute
from features.leakcheck import check_day, first_events, stream_rows
from features.schema import GAP, WARMUP, usable
from features.stream import FeatureStream
from market.importers import load
from market.stream import merge
from market.types import InstrumentDay
from market.validate import clean_day

pytestmark = pytest.mark.recorded
EVENTS = 20_000
"""The live stream is a Python call an event: this many are played through it."""
SOURCES = {
    "moex-rts": ["moex-rts"],
    "binance-usdm": ["binance/usdm_btcusdt_20240718.gz", "binance/usdm_btcusdt_20240719.gz"],
    "lobster-amzn": ["lobster/LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"],
    "qsh-sngr": ["moex-qsh/SNGR-12.18.2018-10-05.OrdLog.qsh"],
    "moex-sber": ["moex-sber"],
}
OTHER_BINANCE = {
    "binance-usdm-2023": ["binance/usdm_btcusdt_20230404.dat.gz", "binance/usdm_btcusdt_20230405.dat.gz"],
    "binance-cm": ["binance/cm_btcusd_perp_20240808.gz", "binance/cm_btcusd_perp_20240809.gz"],
}


def read(shared_data: Path, files: list[str]) -> InstrumentDay:
    paths = [shared_data / name for name in files]
    if missing := [str(p.relative_to(shared_data)) for p in paths if not p.exists()]:
        pytest.skip(f"the recordings beside the project lack {', '.join(missing)}")
    return clean_day(next(iter(load(paths).days)))[0]


def around(day: InstrumentDay) -> InstrumentDay:
    """EVENTS events around the day's longest silence."""
    kind, _ = merge(day.books, day.trades)
    times = np.sort(np.concatenate([day.books.recv_ns, day.trades.recv_ns]))
    middle = int(np.diff(day.books.recv_ns).argmax())
    at = int(np.searchsorted(times, day.books.recv_ns[middle]))
    low = times[max(0, min(at - EVENTS // 2, len(kind) - EVENTS))]
    rest = InstrumentDay(
        day.instrument, day.day, day.books.rows(day.books.recv_ns >= low),
        day.trades.rows(day.trades.recv_ns >= low),
    )  # fmt: skip
    return first_events(rest, EVENTS)[0]


def same_bits(day: InstrumentDay) -> None:
    """Batch = loop = live, with a restart in the middle, and with a reset there."""
    table = compute(day)
    X, status = stream_rows(day)
    assert np.array_equal(X.view(np.uint32), table.X.view(np.uint32))
    assert np.array_equal(status, table.status)

    half_ns = int(day.books.recv_ns[len(day.books) // 2])
    parts = [
        InstrumentDay(
            day.instrument, day.day, day.books.rows((day.books.recv_ns >= half_ns) == late),
            day.trades.rows((day.trades.recv_ns >= half_ns) == late),
        )
        for late in (False, True)
    ]  # fmt: skip
    before, after = FeatureStream(day.instrument.kind), FeatureStream()
    first, _ = stream_rows(parts[0], before)
    after.restore(before.state())
    rest, _ = stream_rows(parts[1], after)
    assert np.array_equal(np.concatenate([first, rest]).view(np.uint32), X.view(np.uint32))

    before.reset()
    fresh, fresh_status = stream_rows(parts[1], before)
    again = compute(parts[1])
    assert np.array_equal(fresh.view(np.uint32), again.X.view(np.uint32))
    assert np.array_equal(fresh_status, again.status) and fresh_status[0] & WARMUP


@pytest.mark.parametrize("kind", SOURCES)
def test_batch_loop_and_live_agree(shared_data: Path, kind: str) -> None:
    day = read(shared_data, SOURCES[kind])
    same_bits(around(day))
    found = check_day(first_events(day, EVENTS // 3)[0], cuts=6)
    assert found.differences == () and found.cuts >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER_BINANCE)
def test_batch_loop_and_live_agree_on_the_other_captures(shared_data: Path, kind: str) -> None:
    same_bits(around(read(shared_data, OTHER_BINANCE[kind])))


def test_the_clearing_break_of_a_recorded_day(shared_data: Path) -> None:
    day = read(shared_data, SOURCES["moex-rts"])
    table = compute(day)
    (after,) = np.flatnonzero(table.status & GAP)
    silence_ns = int(np.diff(day.books.recv_ns)[after - 1])
    assert 100e9 < silence_ns < 110e9
    warm = np.flatnonzero(day.books.recv_ns >= day.books.recv_ns[after] + 120_000_000_000)[0]
    assert all(table.status[after:warm] & WARMUP) and usable(int(table.status[warm]))
    fresh = compute(
        InstrumentDay(
            day.instrument, day.day, day.books.rows(slice(after, after + 2_000)),
            day.trades.rows(day.trades.recv_ns > day.books.recv_ns[after]),
        )
    )  # fmt: skip
    rows = slice(after, after + 2_000)
    assert np.array_equal(fresh.X.view(np.uint32), np.ascontiguousarray(table.X[rows]).view(np.uint32))
