"""The pins are what the house says that they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"


def pins(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, flags=re.M))


def test_torch_is_pinned_without_a_local_version_and_without_the_cuda_stack() -> None:
    platform = pins("platform")
    assert platform["torch"] == "2.13.0"
    assert [name for name in platform if name.startswith("nvidia-") and name != "nvidia-ml-py"] == []
    assert not {"triton", "cuda-toolkit", "cuda-bindings"} & set(platform)


@pytest.mark.parametrize(
    ("package", "below"), [("fastapi", (0, 151)), ("sqlalchemy", (2, 1)), ("pandas", (3, 1))]
)
def test_releases_that_break_silently_are_kept_out(package: str, below: tuple[int, ...]) -> None:
    version = tuple(int(part) for part in pins("platform")[package].split(".")[:2])
    assert version < below


def test_the_box_runs_the_very_versions_that_the_platform_was_tested_with() -> None:
    live, platform = pins("live"), pins("platform")
    assert live
    assert {name: version for name, version in live.items() if platform.get(name) != version} == {}


@pytest.mark.parametrize(
    "heavy",
    [
        "torch",
        "tensorflow",
        "pandas",
        "scikit-learn",
        "prefect",
        "dvc",
        "evidently",
        "optuna",
        "mlflow",
        "dask",
        "distributed",
    ],
)
def test_the_box_installs_nothing_heavy(heavy: str) -> None:
    assert heavy not in pins("live")
