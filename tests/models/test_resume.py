"""A training that was killed goes on after its last whole epoch, to the same bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import planted
import pytest

from models import learner, lstm, transformer
from models.resume import Epochs, Resume, question

SETTINGS: dict[str, Any] = {
    "lstm": {"hidden": 8, "epochs": 4, "streams": 4},
    "transformer": {"window": 8, "width": 8, "heads": 2, "layers": 1, "ff": 8, "epochs": 4,
                    "windows_per_epoch": 600, "early_windows": 300},
}  # fmt: skip
TRAIN = {"lstm": lstm.train, "transformer": transformer.train}


@pytest.fixture(scope="module")
def series() -> list[learner.Series]:
    return [planted.series(planted.market(2_400, seed=1))]


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_it_goes_on_after_the_last_whole_epoch(
    series: list[learner.Series], tmp_path: Path, name: str
) -> None:
    said: list[str] = []

    def trained(into: str, stop_after: int = 99, asked: str = "q") -> dict[str, bytes]:
        def progress(text: str) -> None:
            said.append(text)
            if f"epoch {stop_after}/" in text:
                raise KeyboardInterrupt

        folder = tmp_path / into
        folder.mkdir(exist_ok=True)
        TRAIN[name](
            series, folder, seed=3, threads=1, progress=progress, yardstick_epochs=0,
            resume=Resume(tmp_path / "kept.epoch", asked), **SETTINGS[name],
        )  # fmt: skip
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def epochs() -> list[str]:
        seen = [text.split("epoch ")[1][0] for text in said if "epoch " in text]
        said.clear()
        return seen

    whole = trained("whole")
    assert epochs() == ["1", "2", "3", "4"]
    (tmp_path / "kept.epoch").unlink()
    for stop_after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            trained("cut", stop_after)
    assert epochs() == ["1", "2", "3"]
    assert trained("resumed") == whole and epochs() == ["4"]
    assert trained("resumed") == whole and epochs() == []  # killed behind the last one
    # Another question, or a file that is none, is no reason to go on.
    assert trained("other", asked="another") == whole and epochs() == ["1", "2", "3", "4"]
    for content in (b"", b"no such file"):
        (tmp_path / "kept.epoch").write_bytes(content)
        assert trained("anew") == whole and epochs() == ["1", "2", "3", "4"]
    assert not list(tmp_path.glob("*.part"))


def test_the_question_is_the_data_the_settings_and_the_code() -> None:
    def asked(code: str = "c", seed: int = 1, **settings: Any) -> str:
        one = planted.series(planted.market(400, seed=seed))
        return question(SimpleNamespace(series={"SIMP": one}, blocks=("fit",)), code, **settings)  # type: ignore[arg-type]

    assert asked(width=8) == asked(width=8)
    assert len({asked(), asked(width=8), asked(width=9), asked(seed=2), asked("d")}) == 5


@pytest.mark.parametrize(("patience", "expected"), [(0, 1), (1, 2), (9, 4)])
def test_there_is_always_a_first_epoch(patience: int, expected: int) -> None:
    passes = Epochs(4, patience, {"w": np.zeros(1)}, None, {})
    for _ in passes:
        passes.take(0.5, {"w": np.ones(1)})
    assert len(passes.history) == expected and passes.best["w"] == 1
