"""``features.leader`` of params.yaml, and the stage that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.batch import FeatureTable, compute
from flows import params as params_file
from flows.stages import features as stage
from market.errors import ConfigError
from market.recording import Recording
from market.simulator import LEAD_LAG_SPECS, simulate_recording


def test_leaders_are_of_the_recording_and_nobody_leads_himself() -> None:
    params = params_file.parse({"features": {"leader": {"B": "A"}}})
    assert params.features.leaders({"A", "B"}) == {"B": "A"}
    assert params_file.parse({}).features.leaders(set()) == {}
    with pytest.raises(ConfigError, match="the recording has no 'A'; it has B, C"):
        params.features.leaders({"B", "C"})
    with pytest.raises(ConfigError, match="A cannot lead itself"):
        params_file.parse({"features": {"leader": {"A": "A"}}}).features.leaders({"A"})


def test_the_stage_computes_a_follower_beside_its_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulate_recording(Path("data/recording"), LEAD_LAG_SPECS, hours=0.05)
    Path("params.yaml").write_text("features:\n  leader: {SIMG: SIML}\n")
    stage.main(lambda _line: None)
    recording = Recording.open(Path("data/recording"))
    day = recording.info.days["SIMG"][0]
    leader, follower = recording.read("SIML", day), recording.read("SIMG", day)
    stored = FeatureTable.load(Path(f"data/features/SIMG/{day}.npz"))
    assert np.array_equal(stored.X, compute(follower, leader).X, equal_nan=True)
    assert not np.array_equal(stored.X, compute(follower).X, equal_nan=True)
