"""A shadow beside a session, and that session offline: the same scores, bit for bit, and the same orders."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import small_registry

from live import backtest
from live.backtest_run import BACKTEST_KEY
from live.backtest_tape import Tape
from live.beside import ShadowRun
from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig
from live.core.engine import Engine
from live.journal import Header, JournalReader, JournalWriter
from live.pipeline import SignalPipeline, model_params
from live.simbroker import SimBroker
from market.latency import Latency
from models.inference import Ensemble

HOURS = 0.15
WAY = Latency.of_ms(100)


class Heard:
    """The bundle's ensemble, and what it answered."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self.answers: list[tuple[str, bytes, int]] = []

    def step(self, ticker: str, x: Any) -> Any:
        found = self._ensemble.step(ticker, x)
        if found is not None:
            self.answers.append((ticker, found.p.tobytes(), found.expected_move_millibps))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ensemble, name)


def test_a_shadow_equals_the_offline_replay_of_its_session(tmp_path: Path) -> None:
    small = small_registry._small_bundle()
    recording = small.make_recording(tmp_path / "recording", HOURS)
    bundle = small.make_bundle(tmp_path / "bundle", recording, tmp_path / "keys")
    instruments = {i.ticker: i for i in recording.info.instruments}
    config, params = EngineConfig(), model_params(Ensemble(bundle, instruments))

    def journal(tape: Tape) -> JournalWriter:
        return JournalWriter(
            tmp_path / "session", Header("s", BACKTEST_KEY, config, tape.instruments, params, "SIMULATED")
        )

    offline = Heard(Ensemble(bundle, instruments))
    backtest.run(recording, None, config, ensemble=offline, model=params, latency=WAY, journal=journal)
    # To the end of the market: that the session then closes what is open is no business of a shadow.
    session = list(itertools.takewhile(
        lambda entry: not isinstance(entry, ev.StopRequested), JournalReader(tmp_path / "session")
    ))  # fmt: skip

    beside, failed = Heard(Ensemble(bundle, instruments)), []
    shadow = ShadowRun(
        "shadow", Engine(config, instruments, params, BACKTEST_KEY),
        SignalPipeline(instruments, beside, BACKTEST_KEY), SimBroker(instruments, params.fee_ppm, WAY),
        tmp_path / "shadow.jsonl", failed=failed.append,
    )  # fmt: skip
    for entry in session:
        if isinstance(entry, ev.Event):
            shadow.take(entry)
    shadow.close()
    assert failed == []
    assert len(offline.answers) > 500 and beside.answers == offline.answers

    rows = [json.loads(line) for line in (tmp_path / "shadow.jsonl").read_text().splitlines()]
    theirs = [json.loads(json.dumps(asdict(e))) for e in session if isinstance(e, cmd.PlaceOrder)]
    ours = [{key: row[key] for key in theirs[0]} for row in rows if row["kind"] == "order"]
    assert ours == theirs
