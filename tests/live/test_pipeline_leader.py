"""A bundle that names leaders: the pipeline feeds their quotes, with the rows of the batch."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import numpy as np
import pytest

from features.batch import compute
from features.schema import NAMES
from live.backtest_tape import Tape
from live.core import events as ev
from live.pipeline import Row, SignalPipeline, model_params
from market.errors import BundleError
from market.recording import Recording
from market.simulator import LEAD_LAG_SPECS, simulate_recording

KEY = "0" * 32
LEADS = {"SIMG": "SIML"}
LEADER = [k for k, name in enumerate(NAMES) if name.startswith("leader_")]


class Rows:
    """A model that keeps the rows it is given, of a bundle with these leaders."""

    def __init__(self, leaders: dict[str, str]) -> None:
        instruments = [{"ticker": ticker, "kind": "share"} for ticker in ("SIML", "SIMG")]
        self.bundle = SimpleNamespace(manifest={"leaders": leaders, "instruments": instruments})
        self.tickers = ("SIMG",)
        self.rows: dict[str, list[Row]] = {"SIML": [], "SIMG": []}

    def step(self, ticker: str, x: Row) -> None:
        self.rows[ticker].append(x.copy())

    def reset(self, ticker: str) -> None: ...

    def use_only(self, names: Collection[str] | None) -> None: ...


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("leader") / "recording"
    return simulate_recording(path, LEAD_LAG_SPECS, hours=0.08)[0]


def play(pipeline: SignalPipeline, tape: Tape) -> None:
    for event in tape.events():
        if isinstance(event, ev.Book):
            pipeline.on_book(event)
        else:
            pipeline.on_trade(event)


@pytest.mark.parametrize("order", [("SIML", "SIMG"), ("SIMG", "SIML")])
def test_rows_with_a_leader_are_those_of_the_batch(recording: Recording, order: tuple[str, str]) -> None:
    """Whichever of the two comes first at equal times."""
    tape = Tape.of(recording, order, from_ns=None, to_ns=None)
    model = Rows(LEADS)
    play(SignalPipeline(order, model, KEY), tape)
    day = recording.info.days["SIMG"][0]
    leader, follower = recording.read("SIML", day), recording.read("SIMG", day)
    for ticker, table in (("SIMG", compute(follower, leader)), ("SIML", compute(leader))):
        expected = table.X[table.usable]
        assert len(expected) > 300
        assert np.stack(model.rows[ticker]).tobytes() == expected.tobytes()
    assert np.isfinite(np.stack(model.rows["SIMG"])[:, LEADER]).all()
    assert np.isnan(np.stack(model.rows["SIML"])[:, LEADER]).all()


def test_a_swap_to_a_bundle_without_the_leader_masks_its_columns(recording: Recording) -> None:
    tape = Tape.of(recording, ("SIML", "SIMG"), from_ns=None, to_ns=None)
    pipeline = SignalPipeline(("SIML", "SIMG"), Rows(LEADS), KEY)
    play(pipeline, tape)
    assert np.isfinite(pipeline.last("SIMG")[1][LEADER]).all()
    events = [e for e in tape.events() if isinstance(e, ev.Book)][-2:]
    pipeline.swap(Rows({}))
    for book in events:
        pipeline.on_book(book)
    assert np.isnan(pipeline.last("SIMG")[1][LEADER]).all()


def test_a_leader_that_is_not_traded_here_is_refused_by_name() -> None:
    with pytest.raises(BundleError, match=r"SIMG follow SIML.*add SIML to the instruments"):
        model_params(Rows(LEADS))
