"""Where a bundle comes from: what counts as a change of the code, and what does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows import identity


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in identity.LINE_CODE:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models" / "a.py").write_text("x = 1\n")
    return tmp_path


def _git(folder: Path, *args: str) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *author, *args], cwd=folder, check=True, capture_output=True)


def test_the_code_hash_follows_names_and_contents_of_python_only(project: Path, tmp_path: Path) -> None:
    before = identity.code_hash(project)
    (project / "models" / "__pycache__").mkdir()
    (project / "models" / "__pycache__" / "a.pyc").write_text("compiled")
    (project / "models" / "notes.txt").write_text("words")
    (project / "docs.py").write_text("outside of the line")
    assert identity.code_hash(project) == before
    (project / "models" / "a.py").rename(project / "models" / "b.py")
    renamed = identity.code_hash(project)
    (project / "models" / "b.py").write_text("x = 2\n")
    assert len({before, renamed, identity.code_hash(project)}) == 3


def test_git_state_is_clean_dirty_or_unknown(project: Path) -> None:
    assert identity.git_state(project) == {"git.commit": "", "git.dirty": "unknown"}
    _git(project, "init", "-q")
    _git(project, "add", ".")
    _git(project, "commit", "-qm", "first")
    clean = identity.git_state(project)
    assert len(clean["git.commit"]) == 40 and clean["git.dirty"] == "false"
    (project / "dvc.lock").write_text("written by the line itself")
    assert identity.git_state(project) == clean
    (project / "models" / "a.py").write_text("x = 3\n")
    assert identity.git_state(project) == {**clean, "git.dirty": "true"}


def test_versions_carry_no_build_of_one_machine() -> None:
    found = identity.versions()
    assert not [v for v in found.values() if "+" in v]
    assert set(identity.LIBRARIES) < set(found)
