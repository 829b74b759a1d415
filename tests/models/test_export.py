"""From random weights to TFLite: the exported networks against plain NumPy, state carried, and the gates."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundle_parts
import numpy as np
import pytest
from bundle_parts import HEADS, RATE, F, H, T
from numpy.typing import NDArray

from models import parity, quantise
from models.bundle import MEMBER_FILES, Bundle, BundleFault, generate_keys, write_bundle
from models.inference import Ensemble, InferenceError, Members, StateError, check_golden
from models.interpreters import load_interpreter
from models.learner import Series

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

F64 = NDArray[np.float64]
NETWORKS = ("lstm", "svm", "transformer")
MODES = ("float32", "fp16", "int8", "int8_full")
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


def standard(x: F64, axis: int) -> F64:
    x = x - x.mean(axis, keepdims=True)
    return x / np.sqrt((x * x).mean(axis, keepdims=True) + 1e-2)


class Running:
    """Mean and variance of the past of each feature, from 0 and 1."""

    def __init__(self) -> None:
        self.mean, self.variance = np.zeros(F), np.ones(F)

    def step(self, x: F64) -> F64:
        off = x - self.mean
        self.mean = self.mean + RATE * off
        self.variance = (1 - RATE) * (self.variance + RATE * off**2)
        return (x - self.mean) / np.sqrt(self.variance + 1e-2)


def blend(w: dict[str, Any], x: F64, past: F64) -> F64:
    return x * w["bin_g"][0] + past * w["bin_g"][1] + standard(x, -1) * w["bin_g"][2] + w["bin_b"]


def lstm_step(w: dict[str, Any], x: F64, h: F64, c: F64) -> tuple[F64, F64, F64]:
    i, f, g, o = np.split(np.concatenate([x, h]) @ w["w"] + w["b"], 4)
    c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -2, 2)
    h = sigmoid(o) * np.tanh(c)
    return log_softmax(h @ w["head_w"] + w["head_b"]), h, c


def transformer(w: dict[str, Any], x: F64) -> F64:
    def norm(v: F64, n: str) -> F64:
        v = v - v.mean(-1, keepdims=True)
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-5) * w[n + "_g"] + w[n + "_b"]

    x = blend(w, x, standard(x, 0)) @ w["in_w"] + w["in_b"] + w["pos"]
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
    running = Running()
    window: list[F64] = []
    for t, x in enumerate(scaled):
        if reset[t]:
            h = c = np.zeros(H)
            running = Running()
            window = []
        if not usable[t]:
            continue
        out["svm"][t] = svm(weights["svm"], x)
        normal = blend(weights["lstm"], x, running.step(x))
        out["lstm"][t], h, c = lstm_step(weights["lstm"], normal, h, c)
        window = [*window, x][-T:]
        if len(window) == T:
            out["transformer"][t] = transformer(weights["transformer"], np.array(window))
    return out


# --- one export for all tests -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_numpy() -> dict[str, NDArray[np.float32]]:
    return expected(bundle_parts.weights(), *market())


@pytest.fixture(scope="module")
def trained(in_numpy: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``artifacts/models`` with random weights, trees, and what they say about ``series()``."""
    folder = bundle_parts.save_weights(tmp_path_factory.mktemp("models"))
    X, usable, _ = market()
    said: dict[str, Any] = dict(in_numpy)
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
    quantise.convert(trained, out, [f"{n}:{m}" for n in NETWORKS for m in MODES], calibration(out))
    return out


def calibration(folder: Path) -> Path:
    """Rows for ``int8_full``, of the market but not those that are compared."""
    fresh = np.zeros(1200, bool)
    fresh[[0, 700]] = True
    x = bundle_parts.scaler().apply(bundle_parts.rows(1200, seed=4))
    np.savez(folder / "rows.npz", x=x, fresh=fresh)
    return folder / "rows.npz"


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
def test_exported_network_is_the_trained_one(
    exported: Path, in_numpy: dict[str, NDArray[np.float32]], name: str, mode: str
) -> None:
    X, usable, reset = market()
    want = in_numpy[name]
    got = one(exported, name, mode).run(X, usable, reset)[name]
    assert (np.isnan(got) == np.isnan(want)).all(), (
        "scores exactly where training has them: after holes and resets"
    )
    scored = usable & np.isfinite(want).all(axis=1)
    gap = np.abs(np.exp(got[scored]) - np.exp(want[scored])).max()
    agreement = (got[scored].argmax(1) == want[scored].argmax(1)).mean()
    limits = {
        "float32": (1e-5, 1.0), "fp16": (5e-3, 0.995), "int8": (8e-2, 0.97), "int8_full": (0.25, 0.93),
    }  # fmt: skip
    if (name, mode) == ("svm", "int8_full"):
        limits[mode] = (0.4, 0.7)  # logits of random weights reach 40; eight bits of that are coarse
    assert gap <= limits[mode][0] and agreement >= limits[mode][1]
    if mode.startswith("int8"):
        assert gap > 1e-4, "int8 weights must show: this file was not quantised"


@pytest.mark.parametrize("name", NETWORKS)
def test_smaller_types_make_smaller_files_of_builtin_operations(exported: Path, name: str) -> None:
    sizes = [(exported / f"{name}.{mode}.tflite").stat().st_size for mode in MODES]
    assert sizes[0] > sizes[1] > sizes[2] and sizes[1] > sizes[3]
    for mode in MODES:
        path = exported / f"{name}.{mode}.tflite"
        assert parity.foreign_operations(path) == []
        graph = load_interpreter(path)
        assert all(d["shape"][0] == 1 and d["dtype"] is np.float32 for d in graph.get_input_details())
        operations = {d["op_name"] for d in graph._get_ops_details()}  # type: ignore[attr-defined]
        assert "LOG_SOFTMAX" in operations, "the graph ends in probabilities"


def test_full_integer_computes_in_integers(exported: Path) -> None:
    for name in NETWORKS:
        kinds = {
            mode: [d["dtype"] for d in load_interpreter(exported / f"{name}.{mode}.tflite")
                   .get_tensor_details()].count(np.int8)  # type: ignore[attr-defined]
            for mode in ("int8", "int8_full")
        }  # fmt: skip
        assert kinds["int8_full"] > kinds["int8"] > 0, "activations are int8 too, not only weights"


def test_full_integer_without_rows_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(quantise.QuantiseError, match="calibrated on recorded rows"):
        quantise.convert(trained, tmp_path, ["svm:int8_full"])


def test_the_carried_state_does_not_drift_over_thousands_of_steps(exported: Path) -> None:
    """An hour of rows without a reset: rounding that added up in the carried states would show at the end."""
    n = 4000
    X, usable, reset = bundle_parts.rows(n, seed=77), np.ones(n, bool), np.zeros(n, bool)
    want = expected(bundle_parts.weights(), X, usable, reset)["lstm"]
    for mode, limit in (("float32", 1e-5), ("fp16", 5e-3), ("int8", 0.1)):
        got = one(exported, "lstm", mode).run(X, usable, reset)["lstm"]
        gaps = np.abs(np.exp(got) - np.exp(want)).max(axis=1)
        assert gaps.max() < limit
        assert gaps[-1000:].mean() < 2 * gaps[100:1100].mean() + 1e-7


def test_the_same_weights_give_the_same_bytes(trained: Path, exported: Path, tmp_path: Path) -> None:
    """In another process, another order and with others beside them."""
    wanted = ["transformer:int8", "svm:int8_full", "lstm:fp16"]
    quantise.convert(trained, tmp_path, wanted, calibration(exported))
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
    content, bias = (exported / "lstm.int8.tflite").read_bytes(), bundle_parts.weights()["lstm"]["head_b"]
    assert content.count(bias.tobytes()) == 1
    broken = np.array([np.nan, 0, 0], np.float32)
    (tmp_path / "lstm.int8.tflite").write_bytes(content.replace(bias.tobytes(), broken.tobytes()))
    members = one(tmp_path, "lstm", "int8")
    with pytest.raises(InferenceError, match="model lstm: returned") as caught:
        members.step("SIMP", bundle_parts.rows(1)[0])
    assert caught.value.member == "lstm"
    states = members._members["lstm"].state["SIMP"]  # type: ignore[attr-defined]
    assert not any(value.any() for value in states)


@pytest.mark.parametrize("cut", [3, T - 1, T, 5 * T + 1])
def test_a_stored_state_goes_on_as_if_nothing_had_happened(bundle: Bundle, cut: int) -> None:
    X, Y = bundle_parts.rows(cut + 30, seed=8), bundle_parts.rows(cut + 30, seed=9)
    whole, first = Ensemble(bundle, bundle_parts.TICKERS), Ensemble(bundle, bundle_parts.TICKERS)
    for t in range(cut):
        for ensemble in (whole, first):
            ensemble.step("SIMP", X[t])
            ensemble.step("SIMA", Y[t])
    stored = json.loads(json.dumps(first.state(), allow_nan=False))
    second = Ensemble(bundle, bundle_parts.TICKERS)
    second.restore(stored)
    assert second.state() == stored, "what was stored is what is remembered"
    for t in range(cut, cut + 30):
        for ticker, rows in (("SIMP", X), ("SIMA", Y)):
            want, got = whole.step(ticker, rows[t]), second.step(ticker, rows[t])
            assert (want is None) == (got is None)
            if want is not None and got is not None:
                assert (want.p == got.p).all()


def test_a_state_that_does_not_belong_here_is_refused(bundle: Bundle) -> None:
    x = bundle_parts.rows(2 * T, seed=6)
    ensemble = Ensemble(bundle, ["SIMP"])
    for row in x:
        ensemble.step("SIMP", row)
    good = ensemble.state()

    def spoilt(change: Any) -> dict[str, Any]:
        state = json.loads(json.dumps(good))
        change(state["instruments"]["SIMP"])
        return state

    nan = np.full(H, np.nan, "<f4").tobytes()
    spoils = {
        "another bundle": {**good, "manifest_sha256": "0" * 64},
        "a member less": spoilt(lambda s: s.pop("lstm")),
        "an array less": spoilt(lambda s: s["lstm"].pop("c")),
        "another width": spoilt(lambda s: s["lstm"].update(h=s["lstm"]["m"])),
        "no base64": spoilt(lambda s: s["lstm"]["h"].update(f32="?")),
        "half the bytes": spoilt(lambda s: s["lstm"]["h"].update(f32=s["lstm"]["h"]["f32"][:80])),
        "no number": spoilt(lambda s: s["lstm"]["h"].update(f32=base64.b64encode(nan).decode())),
        "too many rows": spoilt(lambda s: s["transformer"].update(rows={"shape": [99, F], "f32": ""})),
        "nothing": None,
    }
    for what, state in spoils.items():
        ensemble.restore(good)
        with pytest.raises(StateError):
            ensemble.restore(state)  # type: ignore[arg-type]
        scores = [ensemble.step("SIMP", row) for row in x[: T - 1]]
        assert scores == [None] * (T - 1), f"{what}: it starts afresh"


def test_a_machine_without_gpu_delegate_says_so_and_goes_on(bundle: Bundle) -> None:
    x = bundle_parts.rows(2 * T, seed=6)
    ensemble, other = Ensemble(bundle, ["SIMP"]), Ensemble(bundle, ["SIMP"], threads=2)
    for row in x[:-1]:
        ensemble.step("SIMP", row)
        other.step("SIMP", row)
    with pytest.raises(BundleFault, match=r"GPU.*set model\.backend to cpu"):
        ensemble.use_backend("gpu")
    ensemble.use_backend("cpu")
    a, b = ensemble.step("SIMP", x[-1]), other.step("SIMP", x[-1])
    assert a is not None and b is not None, "the memory of the instrument is still there"
    np.testing.assert_allclose(a.p, b.p, atol=1e-4, err_msg="threads change nothing but time")
    for choice in ({"backend": "tpu"}, {"threads": 0}):
        with pytest.raises(BundleFault, match="inference"):
            Ensemble(bundle, ["SIMP"], **choice)  # type: ignore[arg-type]


def test_a_network_in_the_place_of_another_is_refused(exported: Path) -> None:
    content = (exported / "svm.int8.tflite").read_bytes()
    for name in ("lstm", "transformer"):
        with pytest.raises(BundleFault, match=f"model {name}"):
            Members(lambda _: content, bundle_parts.scaler(), names=[name])


# --- quantise ---------------------------------------------------------------------------------------------


class Paid(list[Series]):
    """The instruments with what a round trip on each row would have paid, as a Dataset has it."""

    @property
    def series(self) -> dict[str, Any]:
        rng = np.random.default_rng(6)
        return {
            s.ticker: SimpleNamespace(
                long_bps=rng.standard_normal(len(s)).astype(np.float32),
                short_bps=rng.standard_normal(len(s)).astype(np.float32),
            )
            for s in self
        }


PLAN = {"members": {"gbdt": "TEXT", "lstm": "INT8", "svm": "FLOAT16", "transformer": "INT8"}}
LOOSE = {
    "int8_agreement": 0.95, "accuracy_lost_points": 5.0, "macro_f1_lost_points": 5.0, "fp16_agreement": 0.99,
}  # fmt: skip


@pytest.fixture(scope="module")
def quantised(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("artifacts")
    report = quantise.run(
        trained, PLAN, bundle_parts.scaler(), out / "exported", Paid(series()), limits=LOOSE,
        latency_path=out / "metrics" / "latency.json", weights={"gbdt": 0.5, "lstm": 0.3, "svm": 0.2},
        progress=lambda _: None,
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
        if name != "gbdt":
            assert set(entry["forms"]) == {"INT8", "INT8_FULL", "FLOAT16"}
            assert entry["forms"][entry["mode"]]["agreement"] == entry["agreement"]
            lost = 100 * (entry["macro_f1_trained"] - entry["macro_f1"])
            assert entry["macro_f1_lost_points"] == pytest.approx(lost, abs=1e-3)
    assert report["members"]["lstm"]["steps"] >= 590, (
        "carried from the first row, not from the first compared"
    )
    profit = report["profit"]
    assert profit["passed"] and [g["name"] for g in profit["gates"]] == ["pnl_lost_bps"]
    assert profit["rows"] == report["members"]["gbdt"]["rows"] and profit["trades_trained"] >= 40
    assert abs(profit["trades_shipped"] - profit["trades_trained"]) <= 5
    assert report["members"]["gbdt"]["max_abs_dlogp"] < 1e-5
    assert "us" not in json.dumps(report).replace("status", ""), "no latency in hashed outputs"
    latency = json.loads((out / "metrics" / "latency.json").read_text())["members"]
    for form in ("shipped", "FLOAT32", "FLOAT16", "INT8", "INT8_FULL"):
        assert latency["lstm"][form]["p99"] >= latency["lstm"][form]["p50"] > 0
    assert Members(out / "exported").names == tuple(sorted(MEMBER_FILES))


def test_int8_that_fails_its_gate_ships_as_float16_and_says_so(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    strict = {**LOOSE, "int8_agreement": 1.1}
    plan = {"members": {"lstm": "INT8"}}
    report = quantise.prove(
        trained, plan, bundle_parts.scaler(), exported, tmp_path, series(), limits=strict,
        progress=lambda _: None,
    )  # fmt: skip
    entry = report["members"]["lstm"]
    assert (entry["planned"], entry["mode"], entry["passed"]) == ("INT8", "FLOAT16", True)
    assert "int8_agreement of lstm" in entry["fallback"]
    assert (tmp_path / "lstm.tflite").read_bytes() == (exported / "lstm.fp16.tflite").read_bytes()


def test_a_plan_may_ask_for_full_integer(trained: Path, exported: Path, tmp_path: Path) -> None:
    plan = {"members": {"lstm": "INT8_FULL", "svm": "INT8_FULL"}}
    limits = {**LOOSE, "int8_full_agreement": 0.9, "macro_f1_lost_points": 100, "accuracy_lost_points": 100}
    report = quantise.prove(
        trained, plan, bundle_parts.scaler(), exported, tmp_path, series(), limits=limits,
        progress=lambda _: None,
    )  # fmt: skip
    lstm, svm = (report["members"][name] for name in ("lstm", "svm"))
    assert (lstm["mode"], lstm["planned"], lstm["fallback"]) == ("INT8_FULL", "INT8_FULL", None)
    assert (svm["mode"], svm["planned"]) == ("FLOAT16", "INT8_FULL")
    assert "int8_full_agreement of svm" in svm["fallback"]


def test_the_profit_of_the_shipped_ensemble_is_set_against_the_trained_one() -> None:
    rng = np.random.default_rng(0)
    trained = {m: log_softmax(rng.standard_normal((2000, 3))).astype(np.float32) for m in ("a", "b")}
    lean = np.exp(trained["a"].astype(float) + trained["b"])
    move = 5.0 * (lean[:, 2] - lean[:, 0]) / lean.sum(axis=1)
    money = move - 1.0, -move - 1.0
    weights = {"a": 1.0, "b": 1.0}
    same = parity.profit(trained, trained, weights, *money)
    assert same["lost_bps"] == 0 and same["trades_trained"] == same["trades_shipped"] == 200
    turned = {m: v[:, ::-1] for m, v in trained.items()}
    worse = parity.profit(trained, turned, weights, *money)
    assert worse["net_bps_trained"] > 0 > worse["net_bps_shipped"]
    gate = parity.gated("the ensemble", "pnl_lost_bps", worse["lost_bps"], 0.5)
    assert not gate["passed"] and "over its limit" in gate["reason"]


def test_a_network_that_is_not_the_trained_one_fails(exported: Path, tmp_path: Path) -> None:
    """Logits of other weights than the file's: the float32 gate is the one that catches a wrong mirror."""
    (tmp_path / "models" / "lstm").mkdir(parents=True)
    said = expected(bundle_parts.weights(seed=1), *market())["lstm"]
    np.savez(tmp_path / "models" / "lstm" / "logits.npz", SIMP=said)
    plan = {"members": {"lstm": "FLOAT16"}}
    report = quantise.prove(
        tmp_path / "models", plan, bundle_parts.scaler(), exported, tmp_path / "out", series(),
        progress=lambda _: None,
    )  # fmt: skip
    gates = {g["name"]: g for g in report["members"]["lstm"]["gates"]}
    assert not report["passed"] and not gates["float32_max_abs_dlogp"]["passed"]
    assert "over its limit" in gates["float32_max_abs_dlogp"]["reason"]


def test_a_plan_that_cannot_be_followed(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(quantise.QuantiseError, match="no gate is called int8_agrement"):
        quantise.run(trained, PLAN, bundle_parts.scaler(), tmp_path, series(), limits={"int8_agrement": 0.9})
    for members in ({"gbdt": "INT8"}, {"lstm": "TEXT"}, {"forest": "INT8"}):
        with pytest.raises(quantise.QuantiseError, match="the plan has"):
            quantise.run(trained, {"members": members}, bundle_parts.scaler(), tmp_path, series())
