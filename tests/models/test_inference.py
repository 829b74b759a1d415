"""The live path with LightGBM: the bits of the batch, calibration, golden rows, failures by name."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import bundle_parts
import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.bundle import ENSEMBLE, GOLDEN, Bundle, BundleFault, generate_keys, write_bundle
from models.inference import Ensemble, Members, check_golden
from models.member_kinds import log_softmax3
from models.scaling import Scaler

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_parts.bundle(tmp_path_factory.mktemp("made"))[0]


def test_single_row_trees_are_the_bits_of_booster_predict(made: Bundle) -> None:
    X = bundle_parts.rows(400, seed=3)
    booster = lightgbm.Booster(model_str=made.read("gbdt.txt").decode())
    expected = booster.predict(X)
    members = Members(made.read, names=["gbdt"])
    for x, p in zip(X, expected, strict=True):
        assert members.advance("SIMP", x)
        assert members._members["gbdt"].probabilities().tobytes() == p.tobytes()  # type: ignore[attr-defined]
    got = members.run(X, np.ones(len(X), bool), np.zeros(len(X), bool))["gbdt"]
    np.testing.assert_allclose(got, np.log(expected), rtol=1e-6)


def test_scores_follow_the_formula(made: Bundle) -> None:
    ensemble = Ensemble(made, bundle_parts.TICKERS)
    x = bundle_parts.rows(1, seed=4)[0]
    logp = Members(made.read, names=["gbdt"]).step("SIMP", x)["gbdt"]  # type: ignore[index]
    scores = ensemble.step("SIMP", x)
    assert scores is not None
    z = np.exp(logp / 1.3)
    np.testing.assert_allclose(scores.p, z / z.sum(), rtol=1e-12)
    assert math.isclose(scores.p.sum(), 1.0, abs_tol=1e-12)
    assert scores.expected_move_millibps == round(6500 * (scores.p[2] - scores.p[0]))
    other = ensemble.step("SIMA", x)
    assert other is not None and other.expected_move_millibps == round(2000 * (other.p[2] - other.p[0]))


def test_scores_are_not_overwritten_by_the_next_step(made: Bundle) -> None:
    ensemble = Ensemble(made, ["SIMP"])
    X = bundle_parts.rows(2, seed=6)
    first = ensemble.step("SIMP", X[0])
    assert first is not None
    kept = first.p.copy(), first.members["gbdt"].copy()
    ensemble.step("SIMP", X[1])
    assert (first.p == kept[0]).all() and (first.members["gbdt"] == kept[1]).all()


def test_params_for_the_core_are_whole_numbers(made: Bundle) -> None:
    params = Ensemble(made, ["SIMP", "SIMA"]).params_for_core()
    assert params == {
        "manifest_sha256": made.sha256,
        "threshold_millibps": {"SIMP": 1250, "SIMA": None},
        "exit_move_millibps": 400,
        "horizon_ns": 10_000_000_000,
        "stop_multiplier_e3": 1500,
        "fee_ppm": {"SIMP": 50, "SIMA": 50},
    }
    json.dumps(params)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, 5, elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    hnp.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, 5, elements=st.sampled_from([0.125, 1.0, 3.0, 1e6, np.inf])),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scaling_of_one_row_is_the_bits_of_the_scaler(
    x: np.ndarray, center: np.ndarray, scale: np.ndarray
) -> None:
    members = Members.__new__(Members)
    members.scaler = Scaler(center, scale)
    members._scaled = np.zeros(5, np.float32)
    want = members.scaler.apply(x)
    assert (members._scale(x) == want).all()
    spread = np.repeat(x, 2)[::2]
    spread.flags.writeable = False
    members._scaled = np.zeros(5, np.float32)
    assert (members._scale(spread) == want).all(), "a view with gaps that may not be written to"


@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3))
def test_log_softmax(z: list[float]) -> None:
    logp = log_softmax3(z)
    assert all(math.log(1e-7) <= v <= 1e-12 for v in logp)
    assert max(logp) == logp[z.index(max(z))]
    assert abs(sum(map(math.exp, logp)) - 1) < 1e-6


def test_numbers_that_are_not_finite_are_refused() -> None:
    for bad in (math.nan, math.inf, -math.inf, 1e9):
        with pytest.raises(ValueError, match="returned"):
            log_softmax3([0.0, bad, 0.0])


def test_unusable_rows_are_skipped_and_unwanted_ones_not_scored(made: Bundle) -> None:
    X = bundle_parts.rows(20, seed=8)
    usable, emit = np.ones(20, bool), np.ones(20, bool)
    usable[3], emit[5] = False, False
    out = Members(made.read, names=["gbdt"]).run(X, usable, np.zeros(20, bool), emit=emit)["gbdt"]
    assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == [3, 5]


def test_golden_rows_are_reproduced(made: Bundle) -> None:
    check_golden(made)


def test_a_bundle_that_answers_differently_here_is_refused(made: Bundle, tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    with np.load(files[GOLDEN]) as golden:
        arrays = {k: golden[k].copy() for k in golden.files}
    private, public = generate_keys(tmp_path / "keys")

    def refusal(**changed: np.ndarray) -> str:
        np.savez(files[GOLDEN], **arrays | changed)
        bundle = write_bundle(tmp_path / "bundle", files, bundle_parts.manifest(), private)
        with pytest.raises(BundleFault) as caught:
            check_golden(Bundle.load(bundle.path, public))
        assert caught.value.code == "golden_mismatch"
        return str(caught.value)

    logp, p = arrays["logp"].copy(), arrays["p"].copy()
    logp[0, 17, 1] += 0.01
    p[41, 2] += 2e-4
    assert "gbdt" in refusal(logp=logp) and "row 17" in refusal(logp=logp)
    assert "ensemble" in refusal(p=p) and "row 41" in refusal(p=p)
    gone = arrays["p"].copy()
    gone[3] = np.nan
    assert "row 3 " in refusal(p=gone)
    assert "lstm" in refusal(names=np.array(["lstm"]))


def test_int8_members_may_differ_a_little_more(tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    manifest = bundle_parts.manifest(quantisation={"passed": True, "members": {"gbdt": {"mode": "INT8"}}})
    with np.load(files[GOLDEN]) as golden:
        arrays = {k: golden[k].copy() for k in golden.files}
    for off, passes in ((2e-3, True), (2e-2, False)):
        np.savez(files[GOLDEN], **arrays | {"p": arrays["p"] + off})
        bundle = Bundle.draft(files, manifest)
        if passes:
            check_golden(bundle)
        else:
            with pytest.raises(BundleFault, match=r"0\.005 is allowed"):
                check_golden(bundle)


def test_a_golden_file_that_is_no_archive(tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    for junk in (b"", b"PK\x03\x04", b"\x93NUMPY"):
        bundle = Bundle.draft({**files, GOLDEN: junk}, bundle_parts.manifest())
        with pytest.raises(BundleFault) as caught:
            check_golden(bundle)
        assert caught.value.code == "bad_model"


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    trap = np.array([{"a": 1}], dtype=object)
    for name, array in ((GOLDEN, "X"), ("scaler.npz", "center")):
        with np.load(files[name]) as stored:
            arrays = {k: stored[k] for k in stored.files}
        np.savez(tmp_path / name, **arrays | {array: trap})
        bundle = Bundle.draft({**files, name: tmp_path / name}, bundle_parts.manifest())
        with pytest.raises(BundleFault, match=r"pickle|allow_pickle"):
            check_golden(bundle)


def _refused(files: dict[str, Path], text: str | bytes, name: str = ENSEMBLE) -> str:
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BundleFault) as caught:
        Ensemble(Bundle.draft({**files, name: content}, bundle_parts.manifest()), ["SIMP"])
    assert caught.value.code in ("bad_model", "bad_manifest", "missing_file")
    return str(caught.value)


def test_settings_and_models_that_do_not_fit(tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    good = bundle_parts.settings(["gbdt"])

    def with_(**changes: object) -> str:
        return json.dumps(good | changes)

    assert "weight of gbdt" in _refused(files, with_(members={"gbdt": -1}))
    assert "no member has a weight" in _refused(files, with_(members={"gbdt": 0}))
    assert "temperature" in _refused(files, with_(temperature=0))
    assert "temperature" in _refused(files, with_(temperature=True))
    assert "lacks" in _refused(files, json.dumps({k: v for k, v in good.items() if k != "exit_move_bps"}))
    assert "not calibrated for SIMP" in _refused(files, with_(instruments={}))
    assert "forest" in _refused(files, with_(members={"forest": 1}))
    assert "lstm.tflite" in _refused(files, with_(members={"lstm": 1}))
    assert "JSON" in _refused(files, "{")
    assert "gbdt" in _refused(files, b"tree\nnonsense", "gbdt.txt")
    narrow = tmp_path / "narrow.npz"
    Scaler(np.zeros(7, np.float32), np.ones(7, np.float32)).save(narrow)
    assert "40 features" in _refused(files, narrow.read_bytes(), "scaler.npz")


def test_a_network_that_is_no_network(tmp_path: Path) -> None:
    files = bundle_parts.parts(tmp_path / "parts")
    text = json.dumps(bundle_parts.settings(["gbdt", "svm"]))
    bundle = Bundle.draft({**files, ENSEMBLE: text.encode(), "svm.tflite": b"TFL3 but not really"}, {})
    with pytest.raises(BundleFault, match="model svm") as caught:
        Ensemble(bundle, ["SIMP"])
    assert caught.value.code == "bad_model"


@pytest.mark.parametrize("row", [np.zeros(39, np.float32), np.zeros(40), np.zeros((1, 40), np.float32)])
def test_a_row_of_another_shape_is_a_defect(made: Bundle, row: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"float32 \[40\]"):
        Ensemble(made, ["SIMP"]).step("SIMP", row)


def test_without_an_interpreter_the_way_out_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None\n"
        "from models.inference import engine\n"
        "from models.bundle import BundleFault\n"
        "try: engine()\n"
        "except BundleFault as e: print(e.code, e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("no_backend") and "pip install ai-edge-litert" in done.stdout


def test_members_of_a_folder(made: Bundle, tmp_path: Path) -> None:
    for name in ("gbdt.txt", "scaler.npz"):
        shutil.copy(made.path / name, tmp_path / name)
    assert Members(tmp_path).names == ("gbdt",)
    with pytest.raises(BundleFault) as caught:
        Members(tmp_path / "nowhere")
    assert caught.value.code in ("bad_model", "missing_file")
