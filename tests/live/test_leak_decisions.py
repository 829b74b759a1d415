"""Truncate and compare for decisions: a bundle's are clean, a model that peeks is caught."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
from small_bundle import make_bundle, make_recording

from features.batch import compute
from flows import leak_decisions
from flows.cli import main
from flows.leak_decisions import Decision, check, decisions, until
from market.recording import Recording
from market.types import SECOND_NS
from models.bundle import Bundle
from models.inference import Ensemble, Scores

AHEAD_ROWS = 8
SPAN_S = 420
"""Orders begin after five minutes: their stops want as many one-minute bars."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Bundle, Path]:
    folder = tmp_path_factory.mktemp("leaks")
    recording = make_recording(folder / "rec")
    return recording, make_bundle(folder / "bundle", recording, folder / "keys"), folder


def from_ns(recording: Recording) -> int:
    return int(recording.read("SIMP", recording.info.days["SIMP"][0]).books.recv_ns[0])


class Peeker:
    """Scores with the mid two seconds ahead, where the recording has one."""

    def __init__(self, recording: Recording, bundle: Bundle) -> None:
        self.bundle = bundle
        self._move: dict[tuple[str, bytes], int] = {}
        for ticker, days in recording.info.days.items():
            table = compute(recording.read(ticker, days[0]))
            for n in range(len(table)):
                ahead = table.mid2[n + AHEAD_ROWS] if n + AHEAD_ROWS < len(table) else table.mid2[n]
                self._move[ticker, table.X[n].tobytes()] = int(ahead - table.mid2[n])

    def step(self, ticker: str, x: np.ndarray) -> Scores:
        move = self._move[ticker, x.tobytes()]
        p = [0.1, 0.1, 0.8] if move > 0 else [0.8, 0.1, 0.1] if move < 0 else [0.1, 0.8, 0.1]
        return Scores(np.array(p), {}, 2_000 * move)

    def reset(self, ticker: str) -> None:
        pass

    def use_only(self, names: Collection[str] | None) -> None:
        pass


def test_a_bundles_decisions_know_nothing_of_the_future(made: tuple[Recording, Bundle, Path]) -> None:
    recording, bundle, _ = made
    start = from_ns(recording)
    play = leak_decisions.by_bundle(bundle, from_ns=start, to_ns=start + SPAN_S * SECOND_NS)
    found = check(recording, play, cuts=2)
    assert found.difference is None
    assert found.cuts == 2 and found.scores > 500 and found.orders > 0 and found.compared > 100


def test_a_model_that_peeks_is_caught(made: tuple[Recording, Bundle, Path]) -> None:
    recording, bundle, folder = made
    start = from_ns(recording)
    short = until(recording, folder / "short", start + 200 * SECOND_NS)

    def play(one: Recording) -> Sequence[Decision]:
        return decisions(one, Peeker(one, bundle), bundle=bundle, tickers=["SIMP"])

    found = check(short, play, cuts=2)
    assert found.difference is not None
    assert found.difference.startswith("SIMP at 2026-01-15T") and "Scores.p_e6 is (" in found.difference


def test_a_decision_only_one_of_them_made_is_a_difference(made: tuple[Recording, Bundle, Path]) -> None:
    recording, bundle, folder = made
    short = until(recording, folder / "tiny", from_ns(recording) + 130 * SECOND_NS)
    whole = decisions(short, Ensemble(bundle, ["SIMP"]), bundle=bundle, tickers=["SIMP"])
    end_ns = whole[-1].now_ns
    assert leak_decisions.first_difference(whole, whole, end_ns) is None
    missing = leak_decisions.first_difference(whole, whole[:-2], end_ns + 1)
    assert missing is not None and "nothing when it ends" in missing[1]
    extra = leak_decisions.first_difference(whole[:-2], whole, end_ns)
    assert extra is not None and "nothing on the whole recording" in extra[1]


@pytest.mark.slow
def test_leak_check_of_a_bundle_on_the_command_line(
    made: tuple[Recording, Bundle, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made[2])
    command = ["leak-check", "--recording", "rec", "--bundle", "bundle", "--cuts", "4"]
    assert main([*command, "--decision-cuts", "1", "--minutes", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("features ") for line in said) == 2
    assert said[-1].startswith("decisions ") and said[-1].endswith("1 cuts equal, field by field")
