"""The model says nothing where the conformal rule says nothing: live and offline, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundle_parts
import numpy as np
import pytest

from models.bundle import ENSEMBLE, Bundle, BundleFault
from models.inference import Ensemble, InstrumentParams
from models.policy import allowed_sides, expected_bps

QUANTILES = (0.55, 0.6)


def bundle_with(folder: Path, quantiles: Any) -> Bundle:
    """The small bundle with these quantiles for SIMP."""
    files: dict[str, Path | bytes] = dict(bundle_parts.parts(folder))
    settings = json.loads((folder / ENSEMBLE).read_text())
    settings["instruments"]["SIMP"]["conformal_quantiles"] = quantiles
    files[ENSEMBLE] = json.dumps(settings).encode()
    return Bundle.draft(files, bundle_parts.manifest())


def test_live_and_offline_abstain_on_the_same_rows(tmp_path: Path) -> None:
    live, free = (
        Ensemble(bundle_with(tmp_path / str(k), q), ["SIMP"]) for k, q in enumerate((QUANTILES, None))
    )
    X = bundle_parts.rows(500, seed=9)
    answers = [(live.step("SIMP", x), free.step("SIMP", x)) for x in X]
    said = np.array([a.expected_move_millibps for a, _ in answers if a is not None])
    freely = np.array([b.expected_move_millibps for _, b in answers if b is not None])
    p = np.array([a.p for a, _ in answers if a is not None])
    assert len(said) == len(freely) == len(X)
    np.testing.assert_array_equal(said, np.rint(1000 * expected_bps(p, 6.5, QUANTILES)).astype(int))
    np.testing.assert_array_equal(freely, np.rint(1000 * expected_bps(p, 6.5, None)).astype(int))
    side = allowed_sides(p, QUANTILES)
    np.testing.assert_array_equal(said, np.where(side != 0, freely, 0))
    assert 0 < np.mean(side != 0) < 1  # the rule bites, and leaves something


def test_a_side_is_taken_only_when_the_other_is_out_of_the_set() -> None:
    params = InstrumentParams(10.0, 1.0, (0.8, 0.8))  # in the set from 0.2 upwards
    assert params.expected_move_millibps(0.1, 0.5) == 4000
    assert params.expected_move_millibps(0.5, 0.1) == -4000
    assert params.expected_move_millibps(0.3, 0.5) == 0  # down is in the set as well
    assert params.expected_move_millibps(0.05, 0.15) == 0  # neither is
    assert InstrumentParams(10.0, 1.0).expected_move_millibps(0.3, 0.5) == 2000


@pytest.mark.parametrize("quantiles", [[0.5], [0.5, 2.0], ["a", 0.5], "ab", [0.1, 0.2, 0.3]])
def test_quantiles_of_another_shape_are_refused(tmp_path: Path, quantiles: Any) -> None:
    with pytest.raises(BundleFault, match=r"ensemble\.json"):
        Ensemble(bundle_with(tmp_path, quantiles), ["SIMP"])
