"""The backtest of a block in parts is the backtest of the block, to the last byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_registry

from flows import compute_block
from flows.compute import Here
from live import backtest
from live.backtest_assumptions import sensitivity
from live.config import engine_config
from live.config_schema import Risk, RunnerConfig, Session
from market.latency import Latency
from market.recording import Recording, write_recording
from models.bundle import Bundle
from models.inference import Ensemble

HOURS = 0.15
MINUTE_NS = 60 * 10**9
FIRST, LAST = 4 * MINUTE_NS, 7 * MINUTE_NS
"""Of the block, after the first book."""
JITTER = Latency.of_ms(100, feed=40, response=20, jitter=30, seed=5)
"""A message's delay depends on its place among all of them."""


class Five(Here):
    """What is asked of five workers, by one."""

    workers = 5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Bundle]:
    made, folder = small_registry._small_bundle(), tmp_path_factory.mktemp("block")
    recording = made.make_recording(folder / "recording", HOURS)
    return recording, made.make_bundle(folder / "bundle", recording, folder / "keys", rounds=10)


def both(recording: Recording, bundle: Bundle, **given: Any) -> tuple[str, str]:
    """In parts and in one go, as JSON."""
    first_ns = int(recording.read("SIMP", recording.info.days["SIMP"][0]).books.recv_ns[0])
    settings = RunnerConfig(session=Session(enabled=False), risk=Risk(atr_min_bars=1))
    config = engine_config(settings, dict(bundle.manifest["fee_ppm"]))
    asked: dict[str, Any] = {
        "from_ns": first_ns + FIRST, "to_ns": first_ns + LAST, "warmup_ns": FIRST, "fill_models": ("queue",),
        "queue": "risk_averse", "latency": Latency.of_ms(100), "slippage_ticks": 1, "max_orders": None,
        "vary": lambda base: {}, **given,
    }  # fmt: skip
    parts = compute_block.run(Five(), recording, bundle, config, **asked)
    whole = backtest.run(recording, bundle, config, **asked)
    return json.dumps(parts.to_dict(), sort_keys=True), json.dumps(whole.to_dict(), sort_keys=True)


def test_parts_are_the_whole(
    small: tuple[Recording, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts, whole = both(*small, fill_models=("queue", "optimistic"), vary=sensitivity)
    assert parts == whole
    found = json.loads(parts)
    assert found["orders"] > 5 and found["scores"] > 500 and len(found["variants"]) == 4
    assert not list((tmp_path / "runtime/compute").iterdir()), "what was spilled is still there"


def test_a_leader_and_a_feed_whose_delay_depends_on_all_messages(
    small: tuple[Recording, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording, bundle = small
    files = {name: bundle.read(name) for name in bundle.manifest["files"]}
    leading = Bundle.draft(files, {**bundle.manifest, "leaders": {"SIMA": "SIMP"}})
    parts, whole = both(recording, leading, latency=JITTER, max_orders=4)
    assert parts == whole and json.loads(parts)["truncated"]


def test_an_instrument_without_books_and_a_model_that_fails(
    small: tuple[Recording, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording, bundle = small
    sima, simp = (recording.read(t, recording.info.days[t][0]) for t in ("SIMA", "SIMP"))
    late = sima.books.recv_ns > sima.books.recv_ns[0] + LAST + MINUTE_NS
    silent = replace(sima, books=sima.books.rows(late), trades=sima.trades.rows(slice(0, 0)))
    other = write_recording(
        tmp_path / "other", [silent, simp], source="test", watermark="SIMULATED", tariff="simulated",
        provenance={},
    )  # fmt: skip
    step = Ensemble.step

    def failing(self: Ensemble, ticker: str, x: Any) -> Any:
        if x[0] > 1:  # by what it is given, as a model that cannot cope would
            raise ValueError("too much")
        return step(self, ticker, x)

    monkeypatch.setattr(Ensemble, "step", failing)
    parts, whole = both(other, bundle)
    found = json.loads(parts)
    assert parts == whole and found["inference_failures"] > 10 and found["scores"] > 10
