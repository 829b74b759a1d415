"""params.yaml: every wrong entry is one error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import params
from market.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_the_projects_own_file_is_valid_and_complete() -> None:
    loaded = params.load(ROOT / "params.yaml")
    written = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert loaded.data.source == params.SIMULATED
    assert set(written) == {f for f in params.Params.__dataclass_fields__}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"sead": 7}, "unknown key 'sead'"),
        ({"data": {"hour": 1}}, r"unknown key 'data\.hour'; known here: day, dt_s, hours"),
        ({"data": {"hours": "three"}}, "data.hours must be float, not 'three'"),
        ({"data": {"hours": 0}}, "data.hours is 0.0; allowed: above 0"),
        ({"data": {"source": "somewhere"}}, "data.source is 'somewhere'; allowed: simulated or recorded"),
        ({"split": {"fit": 0.9}}, "split is .*add up to 1"),
        ({"costs": {"tariff": "gratis"}}, "unknown tariff 'gratis'"),
        ({"seed": True}, "seed must be int, not True"),
        ({"threads": 0}, "threads is 0"),
        ({"data": 3}, "data. must be a mapping"),
        ([1], "the file must be a mapping"),
    ],
)
def test_what_is_wrong_is_named(tree: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        params.parse(tree)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing: run this in the project's folder"):
        params.load(tmp_path / "params.yaml")


def test_the_manifests_parameters_name_no_place() -> None:
    loaded = params.parse({"data": {"source": "recorded", "path": "/somewhere/on/this/machine"}})
    assert "/somewhere" not in repr(loaded.for_manifest())
    assert loaded.for_manifest()["data"]["source"] == "recorded"
