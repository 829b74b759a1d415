"""Workspaces: own parameters, shared code, and DVC that sees through the links."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_line
import yaml

from flows import params, workspace
from flows.cli import main, overrides_of
from market.errors import ConfigError, RecordingError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A miniature project: the real parameters, one code folder with content, a pipeline that copies its
    inputs."""
    folder = tmp_path / "project"
    for name in workspace.LINKED:
        (folder / name).mkdir(parents=True)
    (folder / "models" / "code.py").write_text("one\n")
    (folder / ".dvc").mkdir()
    for name in ("params.yaml", ".dvcignore", ".dvc/config"):
        (folder / name).write_text((ROOT / name).read_text())
    pipeline = {
        "stages": {
            "copy": {
                "cmd": "mkdir -p data && cat models/code.py ${data.path}/* > data/out.txt && touch data/ran",
                "deps": ["models", "${data.path}"],
                "outs": ["data/out.txt"],
            }
        }
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    return folder


def _repro(folder: Path) -> bool:
    """Whether the stage ran."""
    ran = folder / "data" / "ran"
    tiny_line.dvc(folder, "repro")
    return ran.exists() and not ran.unlink()


def test_a_workspace_sees_changes_behind_its_links(project: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    recording.mkdir()
    (recording / "a.bin").write_text("data\n")
    made = workspace.create(
        project / "runtime" / "workspaces" / "mine", source=recording, project=project,
        overrides={"labels.horizon_s": 30},
    )  # fmt: skip
    loaded = params.load(made / "params.yaml")
    assert (loaded.data.source, loaded.data.path, loaded.labels.horizon_s) == ("recorded", "source", 30.0)
    assert params.load(project / "params.yaml").labels.horizon_s == 10.0
    assert str(tmp_path) not in (made / "params.yaml").read_text()

    assert _repro(made)
    assert (made / "data" / "out.txt").read_text() == "one\ndata\n"
    assert not _repro(made)
    (project / "models" / "__pycache__").mkdir()
    (project / "models" / "__pycache__" / "code.pyc").write_text("no code")
    assert not _repro(made)
    (project / "models" / "code.py").write_text("two\n")
    assert _repro(made)
    (recording / "a.bin").write_text("other\n")
    assert _repro(made)
    assert (made / "data" / "out.txt").read_text() == "two\nother\n"
    # Made again it keeps what was computed.
    workspace.create(made, source=recording, project=project, overrides={"labels.horizon_s": 30})
    assert not _repro(made)


def test_one_file_brings_the_files_that_belong_to_it(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in (
        "RTS-12.13_day.book20.parquet",
        "RTS-12.13_day.trades.parquet",
        "RTS-3.14_day.trades.parquet",
    ):
        (folder / name).write_text(name)
    made = workspace.create(tmp_path / "w", source=folder / "RTS-12.13_day.book20.parquet", project=project)
    assert params.load(made / "params.yaml").labels.horizon_s == 60.0
    assert sorted(p.name for p in (made / "source").iterdir()) == [
        "RTS-12.13_day.book20.parquet", "RTS-12.13_day.trades.parquet",
    ]  # fmt: skip


def test_what_cannot_be_made_is_one_error_and_leaves_nothing(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recording at"):
        workspace.create(tmp_path / "w", source=tmp_path / "nowhere", project=project)
    with pytest.raises(ConfigError, match=r"no key 'labels\.horizon'; known there: h, horizon_s, "):
        workspace.create(tmp_path / "w", overrides={"labels.horizon": 3}, project=project)
    with pytest.raises(ConfigError, match="no section 'label'"):
        workspace.create(tmp_path / "w", overrides={"label.horizon_s": 3}, project=project)
    with pytest.raises(ConfigError, match=r"labels\.horizon_s is -1\.0"):
        workspace.create(tmp_path / "w", overrides={"labels.horizon_s": -1}, project=project)
    with pytest.raises(ConfigError, match="is the project itself"):
        workspace.create(project, project=project)
    assert not (tmp_path / "w").exists()


def test_overrides_are_read_as_yaml() -> None:
    assert overrides_of(["labels.horizon_s=30", "costs.tariff=free"]) == {
        "labels.horizon_s": 30, "costs.tariff": "free",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        overrides_of(["labels.horizon_s"])


def test_names_come_from_the_recording(tmp_path: Path) -> None:
    (tmp_path / "MOEX rts").mkdir()
    assert workspace.name_for(tmp_path / "MOEX rts") == "moex-rts"


def test_the_command_explains_a_missing_recording(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["workspace", str(tmp_path / "w"), "--recording", str(tmp_path / "gone")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("scalper: no recording at") and said.count("\n") == 1
