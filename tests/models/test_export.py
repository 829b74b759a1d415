"""From random weights to TFLite: the exported networks against plain NumPy, state carried, and the gates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import bundle_parts
import numpy as np
import pytest
from bundle_parts import HEADS, H, T
from numpy.typing import NDArray

from models import quantise
from models.bundle import MEMBER_FILES, Bundle, BundleFault, generate_keys, write_bundle
from models.inference import Ensemble, InferenceError, Members, check_golden
from models.learner import Series

pytestmark = pytest.mark.slow

F64 = NDArray[np.float64]
NETWORKS = ("lstm", "svm", "transformer")
MODES = ("float32", "fp16", "int8")
N = 600
RESET_AT = 400
HOLES = (120, 121, 450)


# --- the networks in float64, from their definitions ------------------------------------------------------


def log_softmax(z: F64) -> F64:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def sigmoid(z: F64) -> F64:
    return 1 / (1 + np.exp(-z))


def svm(w: dict[str, Any], x: F64) -> F64:
    lifted = np.cos(x @ w["rff_w"] + w["rff_b"]) * np.sqrt(2 / w["rff_w"].shape[1])
    p = sigmoid(lifted @ w["w"] + w["b"])
    return np.log(p / p.sum(-1, keepdims=True))


def lstm_step(w: dict[str, Any], x: F64, h: F64, c: F64) -> tuple[F64, F64, F64]:
    i, f, g, o = np.split(np.concatenate([x, h]) @ w["w"] + w["b"], 4)
    c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -2, 2)
    h = sigmoid(o) * np.tanh(c)
    return log_softmax(h @ w["head_w"] + w["head_b"]), h, c


def transformer(w: dict[str, Any], x: F64) -> F64:
    def norm(v: F64, n: str) -> F64:
        v = v - v.mean(-1, keepdims=True)
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-5) * w[n + "_g"] + w[n + "_b"]

    x = x @ w["in_w"] + w["in_b"] + w["pos"]
    for layer in range(2):
        n = f"l{layer}_"
        u = norm(x, n + "ln1")
        q, k, v = (np.stack(np.split(u @ w[f"{n}w{c}"] + w[f"{n}b{c}"], HEADS, -1)) for c in "qkv")
        a = np.exp(log_softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))) @ v
        x = x + np.concatenate(list(a), -1) @ w[n + "wo"] + w[n + "bo"]
        u = np.maximum(norm(x, n + "ln2") @ w[n + "ff1_w"] + w[n + "ff1_b"], 0)
        x = x + u @ w[n + "ff2_w"] + w[n + "ff2_b"]
    return log_softmax(norm(x, "lnf").mean(0) @ w["head_w"] + w["head_b"])


def expected(weights: dict[str, Any], X: Any, usable: Any, reset: Any) -> dict[str, NDArray[np.float32]]:
    """What training would leave: by carried state, by windows of usable rows since a reset, row by row."""
    scaled = bundle_parts.scaler().apply(X).astype(np.float64)
    out = {name: np.full((len(X), 3), np.nan, np.float32) for name in NETWORKS}
    h = c = np.zeros(H)
    window: list[F64] = []
    for t, x in enumerate(scaled):
        if reset[t]:
            h = c = np.zeros(H)
            window = []
        if not usable[t]:
            continue
        out["svm"][t] = svm(weights["svm"], x)
        out["lstm"][t], h, c = lstm_step(weights["lstm"], x, h, c)
        window = [*window, x][-T:]
        if len(window) == T:
            out["transformer"][t] = transformer(weights["transformer"], np.array(window))
    return out


# --- one export for all tests -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``artifacts/models`` with random weights, trees, and what they say about ``series()``."""
    folder = bundle_parts.save_weights(tmp_path_factory.mktemp("models"))
    X, usable, reset = market()
    said: dict[str, Any] = expected(bundle_parts.weights(), X, usable, reset)
    (folder / "gbdt").mkdir()
    booster = bundle_parts.booster()
    booster.save_model(str(folder / "gbdt" / "model.txt"))
    said["gbdt"] = np.where(usable[:, None], np.log(booster.predict(X)), np.nan).astype(np.float32)
    for name, logp in said.items():
        np.savez(folder / name / "logits.npz", SIMP=logp)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    quantise.convert(trained, out, [f"{name}:{mode}" for name in NETWORKS for mode in MODES])
    return out


def market() -> tuple[Any, Any, Any]:
    usable, reset = np.ones(N, bool), np.zeros(N, bool)
    usable[list(HOLES)] = False
    reset[[0, RESET_AT]] = True
    return bundle_parts.rows(N, seed=21), usable, reset


def series() -> list[Series]:
    X, usable, reset = market()
    at = np.arange(N)
    blocks = {name: (at >= a) & (at < b) for name, a, b in (("fit", 0, 100), ("calibrate", 100, N))}
    blocks |= {name: np.zeros(N, bool) for name in ("threshold", "score", "live")}
    y = np.random.default_rng(2).integers(0, 3, N)
    fields = {
        "ticker": "SIMP", "X": X, "y": y, "usable": usable, "reset": reset, "blocks": blocks,
        "recv_ns": at.astype(np.int64), "exit_ns": at.astype(np.int64),
    }  # fmt: skip
    return [Series(**{f.name: fields[f.name] for f in dataclasses.fields(Series) if f.name in fields})]


def one(exported: Path, name: str, mode: str) -> Members:
    content = (exported / f"{name}.{mode}.tflite").read_bytes()
    return Members(lambda _: content, bundle_parts.scaler(), names=[name])


# --- the networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network_is_the_trained_one(exported: Path, name: str, mode: str) -> None:
    X, usable, reset = market()
    want = expected(bundle_parts.weights(), X, usable, reset)[name]
    got = one(exported, name, mode).run(X, usable, reset)[name]
    assert (np.isnan(got) == np.isnan(want)).all(), (
        "scores exactly where training has them: after holes and resets"
    )
    scored = usable & np.isfinite(want).all(axis=1)
    gap = np.abs(np.exp(got[scored]) - np.exp(want[scored])).max()
    agreement = (got[scored].argmax(1) == want[scored].argmax(1)).mean()
    limits = {"float32": (1e-5, 1.0), "fp16": (5e-3, 0.995), "int8": (8e-2, 0.97)}
    assert gap <= limits[mode][0] and agreement >= limits[mode][1]
    if mode == "int8":
        assert gap > 1e-4, "int8 weights must show: this file was not quantised"


@pytest.mark.parametrize("name", NETWORKS)
def test_smaller_types_make_smaller_files_of_builtin_operations(exported: Path, name: str) -> None:
    sizes = [(exported / f"{name}.{mode}.tflite").stat().st_size for mode in MODES]
    assert sizes[0] > sizes[1] > sizes[2]
    for mode in MODES:
        assert quantise.foreign_operations(exported / f"{name}.{mode}.tflite") == []


def test_the_same_weights_give_the_same_bytes(trained: Path, exported: Path, tmp_path: Path) -> None:
    wanted = [f"{name}:{mode}" for name in reversed(NETWORKS) for mode in MODES[1:]]
    quantise.convert(trained, tmp_path, wanted)
    again = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(again) == len(wanted)
    assert again == {name: (exported / name).read_bytes() for name in again}


def test_missing_weights_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(quantise.QuantiseError, match=r"weights\.npz.*run the stage"):
        quantise.convert(tmp_path, tmp_path, ["lstm:int8"])


def test_weights_of_another_layout(tmp_path: Path) -> None:
    (tmp_path / "lstm").mkdir()
    np.savez(tmp_path / "lstm" / "weights.npz", w=np.zeros((5, 7), np.float32))
    with pytest.raises(quantise.QuantiseError, match="weights of lstm"):
        quantise.convert(tmp_path, tmp_path, ["lstm:int8"])


# --- the live path ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    private, public = generate_keys(folder / "keys")
    files = bundle_parts.parts(folder / "parts", exported=exported)
    return Bundle.load(write_bundle(folder / "bundle", files, bundle_parts.manifest(), private).path, public)


def test_run_is_repeated_steps(bundle: Bundle) -> None:
    X, usable, reset = market()
    batch = Members(bundle.read, names=MEMBER_FILES).run(X, usable, reset)
    live = Members(bundle.read, names=MEMBER_FILES)
    for t in range(N):
        if reset[t]:
            live.reset("SIMP")
        scores = live.step("SIMP", X[t]) if usable[t] else None
        for name, logp in batch.items():
            if scores is None:
                assert np.isnan(logp[t]).all()
            else:
                assert (logp[t] == scores[name].astype(np.float32)).all()


def test_instruments_do_not_disturb_each_other(bundle: Bundle) -> None:
    X, Y = bundle_parts.rows(60, seed=1), bundle_parts.rows(60, seed=2)
    alone, mixed = Ensemble(bundle, ["SIMP"]), Ensemble(bundle, ["SIMP", "SIMA"])
    for t in range(60):
        want = alone.step("SIMP", X[t])
        mixed.step("SIMA", Y[t])
        got = mixed.step("SIMP", X[t])
        if t == 30:
            mixed.reset("SIMA")
        assert (want is None) == (got is None) == (t < T - 1)
        if want is not None and got is not None:
            assert (want.p == got.p).all()
            assert all((want.members[n] == got.members[n]).all() for n in MEMBER_FILES)


def test_a_reset_forgets_everything(bundle: Bundle) -> None:
    X = bundle_parts.rows(3 * T, seed=3)
    ensemble = Ensemble(bundle, ["SIMP"])
    first = [ensemble.step("SIMP", x) for x in X]
    ensemble.reset("SIMP")
    again = [ensemble.step("SIMP", x) for x in X]
    assert [s is None for s in again] == [t < T - 1 for t in range(len(X))]
    assert all((a.p == b.p).all() for a, b in zip(first, again, strict=True) if a and b)


def test_simplified_mode_runs_without_warm_up_and_back_with_it(bundle: Bundle) -> None:
    x = bundle_parts.rows(2 * T, seed=4)
    ensemble = Ensemble(bundle, ["SIMP"])
    assert ensemble.window_rows == T
    ensemble.use_only({"gbdt"})
    scores = ensemble.step("SIMP", x[0])
    assert scores is not None and list(scores.members) == ["gbdt"] and ensemble.window_rows == 1
    z = np.exp(scores.members["gbdt"] / 1.3)
    np.testing.assert_allclose(scores.p, z / z.sum(), rtol=1e-9, err_msg="its weight counts as the whole")
    ensemble.use_only(None)
    assert [ensemble.step("SIMP", row) is None for row in x].count(True) == T - 1
    with pytest.raises(BundleFault, match="forest"):
        ensemble.use_only({"forest"})


def test_golden_rows_of_all_four(bundle: Bundle, exported: Path, tmp_path: Path) -> None:
    check_golden(bundle)
    # The float32 network instead of the int8 one, everything else alike: a small but real difference.
    files: dict[str, Any] = {name: bundle.path / name for name in bundle.manifest["files"]}
    files["lstm.tflite"] = exported / "lstm.float32.tflite"
    with pytest.raises(BundleFault, match=r"model lstm .* golden row \d+"):
        check_golden(Bundle.draft(files, bundle_parts.manifest()))


def test_a_failing_member_is_named_and_its_instrument_starts_afresh(exported: Path, tmp_path: Path) -> None:
    broken = bundle_parts.weights()["lstm"]
    broken["head_b"] = np.array([np.nan, 0, 0], np.float32)
    (tmp_path / "lstm").mkdir()
    np.savez(tmp_path / "lstm" / "weights.npz", **broken)
    quantise.convert(tmp_path, tmp_path, ["lstm:int8"])
    members = one(tmp_path, "lstm", "int8")
    with pytest.raises(InferenceError, match="model lstm: returned") as caught:
        members.step("SIMP", bundle_parts.rows(1)[0])
    assert caught.value.member == "lstm"
    assert not np.any(members._members["lstm"].state["SIMP"])  # type: ignore[attr-defined]


def test_a_network_in_the_place_of_another_is_refused(exported: Path) -> None:
    content = (exported / "svm.int8.tflite").read_bytes()
    for name in ("lstm", "transformer"):
        with pytest.raises(BundleFault, match=f"model {name}"):
            Members(lambda _: content, bundle_parts.scaler(), names=[name])


# --- quantise ---------------------------------------------------------------------------------------------


PLAN = {"members": {"gbdt": "TEXT", "lstm": "INT8", "svm": "FLOAT16", "transformer": "INT8"}}
LOOSE = {"int8_agreement": 0.95, "accuracy_lost_points": 5.0, "fp16_agreement": 0.99}


@pytest.fixture(scope="module")
def quantised(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("artifacts")
    report = quantise.run(
        trained, PLAN, bundle_parts.scaler(), out / "exported", series(), limits=LOOSE,
        latency_path=out / "metrics" / "latency.json", progress=lambda _: None,
    )  # fmt: skip
    return out, report


def test_quantise_ships_what_was_planned(quantised: tuple[Path, dict[str, Any]], exported: Path) -> None:
    out, report = quantised
    shipped = {p.name: p for p in (out / "exported").iterdir()}
    assert set(shipped) == {*MEMBER_FILES.values(), "scaler.npz", "parity.json"}
    assert shipped["lstm.tflite"].read_bytes() == (exported / "lstm.int8.tflite").read_bytes()
    assert shipped["svm.tflite"].read_bytes() == (exported / "svm.fp16.tflite").read_bytes()
    assert json.loads(shipped["parity.json"].read_text()) == report
    assert report["passed"], [e["gates"] for e in report["members"].values()]
    for name, entry in report["members"].items():
        assert entry["mode"] == entry["planned"] == PLAN["members"][name] and entry["fallback"] is None
        assert entry["rows"] >= 400
    assert report["members"]["gbdt"]["max_abs_dlogp"] < 1e-5
    assert "us" not in json.dumps(report).replace("status", ""), "no latency in hashed outputs"
    latency = json.loads((out / "metrics" / "latency.json").read_text())["members"]
    assert latency["lstm"]["shipped"]["p99"] >= latency["lstm"]["shipped"]["p50"] > 0
    assert Members(out / "exported").names == tuple(sorted(MEMBER_FILES))


def test_int8_that_fails_its_gate_ships_as_float16_and_says_so(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    strict = {**LOOSE, "int8_agreement": 1.1}
    plan = {"members": {"lstm": "INT8"}}
    report = quantise.run(
        trained, plan, bundle_parts.scaler(), tmp_path, series(), limits=strict, progress=lambda _: None
    )
    entry = report["members"]["lstm"]
    assert (entry["planned"], entry["mode"], entry["passed"]) == ("INT8", "FLOAT16", True)
    assert "int8_agreement of lstm" in entry["fallback"]
    assert (tmp_path / "lstm.tflite").read_bytes() == (exported / "lstm.fp16.tflite").read_bytes()


def test_a_network_that_is_not_the_trained_one_fails(trained: Path, tmp_path: Path) -> None:
    """Other weights behind the same logits: the float32 gate is the one that catches a wrong mirror."""
    other = bundle_parts.save_weights(tmp_path / "models", seed=1)
    (other / "lstm" / "logits.npz").write_bytes((trained / "lstm" / "logits.npz").read_bytes())
    plan = {"members": {"lstm": "FLOAT16"}}
    report = quantise.run(
        other, plan, bundle_parts.scaler(), tmp_path / "out", series(), progress=lambda _: None
    )
    gates = {g["name"]: g for g in report["members"]["lstm"]["gates"]}
    assert not report["passed"] and not gates["float32_max_abs_dlogp"]["passed"]
    assert "over its limit" in gates["float32_max_abs_dlogp"]["reason"]


def test_a_plan_that_cannot_be_followed(trained: Path, tmp_path: Path) -> None:
    for members in ({"gbdt": "INT8"}, {"lstm": "TEXT"}, {"forest": "INT8"}):
        with pytest.raises(quantise.QuantiseError, match="the plan has"):
            quantise.run(trained, {"members": members}, bundle_parts.scaler(), tmp_path, series())
