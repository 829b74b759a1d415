"""Bad input of the line: one clear error each, before anything is changed. (Servers that are down:
test_platform_settings.py; two promotions at once: test_promotion.py; recordings: test_stage_ingest.py.)"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import line, workspace
from flows.cli import main
from market.errors import RecordingError
from models.dataset import load

TOO_SMALL_BYTES = 20_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seed: 7", "seed: [7"), "is not YAML"),
        (("seed: 7", "sede: 7"), "unknown key 'sede'"),
        (("seed: 7", "seed: seven"), "seed must be int, not 'seven'"),
        (("fit: 0.5", "fit: 0.6"), "positive shares that add up to 1"),
    ],
)
def test_broken_parameters_are_named_before_anything_runs(
    change: tuple[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (workspace.PROJECT / "params.yaml").read_text()
    assert change[0] in text
    (tmp_path / "params.yaml").write_text(text.replace(*change))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert main(["-C", str(tmp_path), "repro"]) == 2
    said = capsys.readouterr().err
    assert words in said and "params.yaml" in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvc.yaml", "params.yaml"]


@pytest.mark.slow
def test_a_missing_partition_is_named(line_once: Path, tmp_path: Path) -> None:
    for name in ("features", "labels"):
        shutil.copytree(line_once / "data" / name, tmp_path / name)
    gone = tmp_path / "features" / "SIMA" / "2026-01-15.npz"
    gone.unlink()
    with pytest.raises(RecordingError, match=r"no features at .*SIMA/2026-01-15\.npz.*stage 'features'"):
        load(tmp_path / "features", tmp_path / "labels")
    shutil.rmtree(tmp_path / "labels" / "SIMA")
    assert set(load(tmp_path / "features", tmp_path / "labels").series) == {"SIMF", "SIMP"}
    (tmp_path / "labels" / "SIMF" / "2026-01-15.npz").unlink()
    with pytest.raises(RecordingError, match=r"no labels at .*SIMF/2026-01-15\.npz.*stage 'labels'"):
        load(tmp_path / "features", tmp_path / "labels")


def test_a_full_disk_ends_a_stage_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    folder = workspace.create(tmp_path / "w", overrides={"data.hours": 0.05}, share_keys=False, dvc=False)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (TOO_SMALL_BYTES, TOO_SMALL_BYTES))

    done = subprocess.run(
        [sys.executable, "-m", "flows.stages.record"], cwd=folder, preexec_fn=small_disk, text=True,
        env=line.environment({"PYTHONPATH": str(workspace.PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "data/raw cannot be written: File too large" in done.stderr and done.stderr.count("\n") == 1
    assert list((folder / "data").iterdir()) == []
