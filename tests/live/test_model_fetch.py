"""From an alias to a verified bundle: the copy of an earlier pull is used as long as it verifies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundle import make_bundle, make_recording

from live import model
from live.config_schema import RunnerConfig
from market.errors import BundleError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetch")
    recording = make_recording(folder / "recording")
    make_bundle(folder / "first", recording, folder / "keys")
    make_bundle(folder / "second", recording, folder / "new-keys")
    return folder


def configuration(folder: Path, bundle: Path, keys: str) -> RunnerConfig:
    blank = RunnerConfig()
    return replace(
        blank,
        system=replace(blank.system, runtime_dir=str(folder / "runtime")),
        model=replace(
            blank.model, registry=bundle.as_uri(), verification_key=str(folder.parent / keys / "signing.pub")
        ),
    )


@pytest.fixture
def folder(built: Path) -> Path:
    path = built / "box"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def test_a_copy_signed_with_the_old_key_is_fetched_again_after_a_key_change(
    built: Path, folder: Path
) -> None:
    first = model.fetch(configuration(folder, built / "first", "keys"), "prod")
    second = model.fetch(configuration(folder, built / "second", "new-keys"), "prod")
    assert second.sha256 == first.sha256, "the same manifest under another signature"
    assert second.bundle.path == first.bundle.path


def test_a_copy_that_was_damaged_on_this_disk_is_fetched_again(built: Path, folder: Path) -> None:
    configured = configuration(folder, built / "first", "keys")
    kept = model.fetch(configured, "prod").bundle.path / "gbdt.txt"
    sound = kept.read_bytes()
    kept.write_bytes(b"x" + sound[1:])
    model.fetch(configured, "prod")
    assert kept.read_bytes() == sound


def test_a_bundle_that_is_wrong_in_the_registry_too_stays_refused(built: Path, folder: Path) -> None:
    model.fetch(configuration(folder, built / "first", "keys"), "prod")
    with pytest.raises(BundleError, match="sign"):
        model.fetch(configuration(folder, built / "first", "new-keys"), "prod")
