"""The same stream, the same policy, the same orders and fills as an engine that others trust."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import peer_stream

from market.matching import FILL_MODELS


@pytest.fixture(scope="module")
def feed() -> list[peer_stream.Message]:
    stream = peer_stream.generate()
    assert peer_stream.fingerprint(stream) == peer_stream.FINGERPRINT
    return peer_stream.messages(stream)


@pytest.mark.slow
def test_the_risk_averse_queue_agrees_with_hftbacktest(feed: list[peer_stream.Message]) -> None:
    """hftbacktest 2.4.4 was measured with its risk-averse queue, 20 ms to the exchange and 20 ms back."""
    quoter = peer_stream.replay(feed, "queue", peer_stream.THERE_AND_BACK, as_hftbacktest=True)
    assert (quoter.orders, quoter.fills) == (11_765, 1_666)


@pytest.mark.slow
def test_one_policy_has_many_results(feed: list[peer_stream.Message]) -> None:
    fills = {name: peer_stream.replay(feed, name, peer_stream.ENTRY).fills for name in FILL_MODELS}
    assert fills == {"pessimistic": 1_337, "queue": 1_652, "optimistic": 10_229}
