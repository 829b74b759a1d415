"""The broker's clock in `live-runner health-check`; the rest of it is in test_cli and test_operator_day."""

from __future__ import annotations

import asyncio
import time

import grpc.aio
import pytest
from small_bundle import make_recording

from live.broker.channel import read_paper_endpoint
from live.broker.client import BrokerClient
from live.health_broker import MAX_CLOCK_ERROR_S, clock_offset, judge_offset
from market.paper.server import PaperServer
from market.types import NANO


def test_the_offset_is_measured_over_the_real_stream(tmp_path):
    """The exchange's clock stands still until somebody subscribes, so what must come out is known."""
    recording = make_recording(tmp_path / "recording", hours=0.02)
    path = tmp_path / "endpoint.json"

    async def run() -> tuple[float, float, int]:
        server = PaperServer(recording, endpoint_path=path)
        await server.start()
        client = BrokerClient(read_paper_endpoint(path).access, {})
        try:
            return *await clock_offset(client), read_paper_endpoint(path).market_start_ns
        finally:
            await client.close()
            await server.stop()

    before = time.time_ns()
    offset_s, round_trip_s, start_ns = asyncio.run(run())
    after = time.time_ns()
    assert 0 < round_trip_s < (after - before) / NANO
    assert (start_ns - after) / NANO <= offset_s <= (start_ns - before) / NANO
    ok, text = judge_offset(offset_s, round_trip_s)
    assert not ok and "ahead of the broker" in text and "chronyc makestep" in text


def test_a_broker_that_is_not_there_is_an_error_and_no_hang(tmp_path):
    recording = make_recording(tmp_path / "recording", hours=0.02)
    path = tmp_path / "endpoint.json"

    async def run() -> None:
        server = PaperServer(recording, endpoint_path=path)
        await server.start()
        access = read_paper_endpoint(path).access
        await server.stop()
        client = BrokerClient(access, {})
        try:
            with pytest.raises((grpc.aio.AioRpcError, TimeoutError)):
                await clock_offset(client)
        finally:
            await client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("offset_s", "round_trip_s", "ok", "words"),
    [
        (0.004, 0.02, True, "0.004 s behind the broker (± 0.010 s)"),
        (-0.3, 0.02, True, "0.300 s ahead of"),
        (0.55, 0.2, True, "± 0.100"),  # it may be no more than the limit
        (MAX_CLOCK_ERROR_S + 0.02, 0.02, False, "`chronyc makestep`"),
        (-2.5, 0.02, False, "2.500 s ahead of"),
    ],
)
def test_what_cannot_be_the_way_there_is_the_clock(offset_s, round_trip_s, ok, words):
    found, text = judge_offset(offset_s, round_trip_s)
    assert found is ok and words in text
