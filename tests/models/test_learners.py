"""Each learner: better than climatology on a plant, byte-deterministic, logits where they belong, and in
NumPy too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

from models import evaluate, gbdt, learner, lstm, svm, transformer
from models.scaling import Scaler

SMALL: dict[str, dict[str, Any]] = {
    "gbdt": {"rounds": 40, "leaves": 7, "min_rows_in_leaf": 50},
    "svm": {"features": 64, "epochs": 5, "alpha": 1e-3},
    "lstm": {"hidden": 8, "epochs": 6, "streams": 8, "yardstick_epochs": 0},
    "transformer": {
        "window": 8,
        "width": 8,
        "heads": 2,
        "ff": 16,
        "epochs": 3,
        "batch": 64,
        "yardstick_epochs": 0,
    },
}
EPS = 1e-2
LEARNERS = {"gbdt": gbdt, "svm": svm, "lstm": lstm, "transformer": transformer}


@pytest.fixture(scope="module")
def series() -> list[learner.Series]:
    plain = planted.series(planted.market(3000, seed=1))
    return [plain, planted.series(planted.market(2400, seed=2, ticker="SIMQ"))]


@pytest.fixture(scope="module")
def scaler(series: list[learner.Series]) -> Scaler:
    return Scaler.fit(np.concatenate([s.X[s.usable & s.blocks["fit"]] for s in series]))


@pytest.fixture(scope="module")
def trained(series: list[learner.Series], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = {}
    for name, module in LEARNERS.items():
        folder = tmp_path_factory.mktemp(name)
        lines: list[str] = []
        report = module.train(series, folder, seed=3, threads=1, progress=lines.append, **SMALL[name])
        assert lines
        out[name] = folder, report
    return out


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", LEARNERS)
def test_it_beats_climatology_on_rows_it_never_saw(trained: dict[str, Any], name: str) -> None:
    folder, report = trained[name]
    assert report["log_loss"] < report["climatology_log_loss"] - 0.01
    assert report["brier_skill"] > 0 and report["mcc"] > 0.1
    assert json.loads((folder / f"{name}.training.json").read_text()) == json.loads(json.dumps(report))


@pytest.mark.parametrize("name", LEARNERS)
def test_training_twice_gives_the_same_bytes(
    series: list[learner.Series], trained: dict[str, Any], name: str, tmp_path: Path
) -> None:
    LEARNERS[name].train(series, tmp_path, seed=3, threads=1, progress=lambda _: None, **SMALL[name])
    weights = {"model.txt"} if name == "gbdt" else {"weights.npz"}
    assert set(digests(tmp_path)) == weights | {"logits.npz", f"{name}.training.json"}
    assert digests(tmp_path) == digests(trained[name][0])


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_after_block_fit_moves_the_weights(
    series: list[learner.Series], trained: dict[str, Any], name: str, tmp_path: Path
) -> None:
    poisoned = []
    for s in series:
        X, y = s.X.copy(), s.y.copy()
        later = ~(s.recv_ns <= s.recv_ns[s.blocks["fit"]].max())
        X[later], y[later & s.blocks["calibrate"]] = 1e6, 0
        poisoned.append(learner.Series(s.ticker, X, y, s.usable, s.reset, s.blocks, s.recv_ns, s.exit_ns))
    LEARNERS[name].train(poisoned, tmp_path, seed=3, threads=1, progress=lambda _: None, **SMALL[name])
    file = "model.txt" if name == "gbdt" else "weights.npz"
    assert digests(tmp_path)[file] == digests(trained[name][0])[file]


@pytest.mark.parametrize("name", LEARNERS)
def test_logits_lie_on_usable_rows_of_the_judged_blocks(
    series: list[learner.Series], trained: dict[str, Any], name: str
) -> None:
    logits = np.load(trained[name][0] / "logits.npz")
    assert set(logits.files) == {s.ticker for s in series}
    for s in series:
        logp = logits[s.ticker]
        assert logp.dtype == np.float32 and logp.shape == (len(s), 3)
        there = np.isfinite(logp).all(axis=1)
        assert not there[~s.judged].any()
        if name != "transformer":  # it waits for a whole window after a reset
            assert there[s.judged].all()
        assert np.allclose(np.exp(logp[there]).sum(axis=1), 1, atol=1e-5)


def test_svm_forward_is_its_formula(
    series: list[learner.Series], scaler: Scaler, trained: dict[str, Any]
) -> None:
    w = np.load(trained["svm"][0] / "weights.npz")
    s = series[0]
    x = scaler.apply(s.X[s.judged]).astype(np.float64)
    z = (np.cos(x @ w["rff_w"] + w["rff_b"]) * np.sqrt(2 / w["rff_w"].shape[1])) @ w["w"] + w["b"]
    p = 1 / (1 + np.exp(-z))
    p /= p.sum(axis=1, keepdims=True)
    assert np.allclose(np.load(trained["svm"][0] / "logits.npz")[s.ticker][s.judged], np.log(p), atol=1e-4)


def test_lstm_carries_its_state_like_plain_numpy(
    series: list[learner.Series], scaler: Scaler, trained: dict[str, Any]
) -> None:
    w = dict(np.load(trained["lstm"][0] / "weights.npz"))
    s = series[0]
    x, hidden = scaler.apply(s.X).astype(np.float64), len(w["head_w"])
    logp, h, c, forget = np.full((len(s), 3), np.nan), np.zeros(hidden), np.zeros(hidden), False
    rate, mean, variance = float(w["bin_rate"][0]), np.zeros(x.shape[1]), np.ones(x.shape[1])
    for t in range(len(s)):
        forget = forget or bool(s.reset[t])
        if not s.usable[t]:
            continue
        if forget:
            h, c, forget = np.zeros(hidden), np.zeros(hidden), False
            mean, variance = np.zeros(x.shape[1]), np.ones(x.shape[1])
        off = x[t] - mean
        mean = mean + rate * off
        variance = (1 - rate) * (variance + rate * off**2)
        past = (x[t] - mean) / np.sqrt(variance + EPS)
        row = x[t] * w["bin_g"][0] + past * w["bin_g"][1] + standard(x[t], 0) * w["bin_g"][2] + w["bin_b"]
        i, f, g, o = np.split(np.concatenate((row, h)) @ w["w"] + w["b"], 4)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
        c = np.clip(f * c + i * np.tanh(g), -2, 2)
        h = o * np.tanh(c)
        z = h @ w["head_w"] + w["head_b"]
        logp[t] = z - z.max() - np.log(np.exp(z - z.max()).sum())
    assert np.allclose(
        np.load(trained["lstm"][0] / "logits.npz")[s.ticker][s.judged], logp[s.judged], atol=1e-4
    )


def test_transformer_is_its_weights_in_plain_numpy(
    series: list[learner.Series], scaler: Scaler, trained: dict[str, Any]
) -> None:
    w = dict(np.load(trained["transformer"][0] / "weights.npz"))
    heads, T = int(w["n_heads"][0]), int(w["T"][0])
    s = series[0]
    x, window, logp = scaler.apply(s.X), [], np.full((len(s), 3), np.nan)
    forget = False
    for t in range(len(s)):
        forget = forget or bool(s.reset[t])
        if not s.usable[t]:
            continue
        if forget:
            window, forget = [], False
        window = [*window[1 - T :], x[t]]
        if len(window) == T and s.judged[t]:
            z = transformer_numpy(w, np.array(window, np.float64), heads)
            logp[t] = z - z.max() - np.log(np.exp(z - z.max()).sum())
    stored = np.load(trained["transformer"][0] / "logits.npz")[s.ticker]
    assert np.array_equal(np.isfinite(stored), np.isfinite(logp))
    assert np.isfinite(logp).sum() > 300
    assert np.allclose(stored, logp, atol=1e-4, equal_nan=True)


def standard(x: np.ndarray, axis: int) -> np.ndarray:
    x = x - x.mean(axis, keepdims=True)
    return x / np.sqrt((x * x).mean(axis, keepdims=True) + EPS)


def transformer_numpy(w: dict[str, np.ndarray], x: np.ndarray, heads: int) -> np.ndarray:
    def norm(v: np.ndarray, name: str) -> np.ndarray:
        v = v - v.mean(-1, keepdims=True)
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-5) * w[f"{name}_g"] + w[f"{name}_b"]

    g = w["bin_g"]
    x = x * g[0] + standard(x, 0) * g[1] + standard(x, 1) * g[2] + w["bin_b"]
    h = x @ w["in_w"] + w["in_b"] + w["pos"]
    d = h.shape[1] // heads
    for n in sorted({k.split("_")[0] for k in w if k[0] == "l" and k[1].isdigit()}):
        u, parts = norm(h, f"{n}_ln1"), []
        q, k, v = (u @ w[f"{n}_w{c}"] + w[f"{n}_b{c}"] for c in "qkv")
        for a in range(heads):
            cut = slice(a * d, (a + 1) * d)
            e = q[:, cut] @ k[:, cut].T / np.sqrt(d)
            e = np.exp(e - e.max(axis=1, keepdims=True))
            parts.append(e / e.sum(axis=1, keepdims=True) @ v[:, cut])
        h = h + np.concatenate(parts, axis=1) @ w[f"{n}_wo"] + w[f"{n}_bo"]
        u = np.maximum(norm(h, f"{n}_ln2") @ w[f"{n}_ff1_w"] + w[f"{n}_ff1_b"], 0)
        h = h + u @ w[f"{n}_ff2_w"] + w[f"{n}_ff2_b"]
    return norm(h, "lnf").mean(0) @ w["head_w"] + w["head_b"]


def test_gbdt_file_alone_repeats_the_logits(series: list[learner.Series], trained: dict[str, Any]) -> None:
    import lightgbm as lgb

    folder, report = trained["gbdt"]
    booster = lgb.Booster(model_file=str(folder / "model.txt"))
    assert booster.num_trees() == 3 * report["epochs"]
    s = series[1]
    p = booster.predict(s.X[s.judged])
    assert np.allclose(np.load(folder / "logits.npz")[s.ticker][s.judged], np.log(p), atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_muted_column_is_not_looked_at(series: list[learner.Series], name: str, tmp_path: Path) -> None:
    """Column 2 gives the label away; muted, it must not change what is learnt."""
    reports = []
    for cheat in (False, True):
        told = []
        for s in series:
            X = s.X.copy()
            X[:, 2] = s.y if cheat else 0.0
            told.append(
                learner.Series(s.ticker, X, s.y, s.usable, s.reset, s.blocks, s.recv_ns, s.exit_ns, (2,))
            )
        hyper = {**SMALL[name], "epochs": 1} if name != "gbdt" else {**SMALL[name], "rounds": 5}
        reports.append(
            LEARNERS[name].train(told, tmp_path / str(cheat), seed=3, threads=1, progress=str, **hyper)
        )
    assert reports[0] == reports[1]


def test_rows_that_reach_over_the_cut_are_purged(series: list[learner.Series]) -> None:
    rows = learner.fit_rows(series, 0.2)
    for s, train, early in zip(series, rows.train, rows.early, strict=True):
        assert not (train & early).any() and early.any()
        assert s.exit_ns[train].max() < rows.cut_ns <= s.recv_ns[early].min()
        assert not ((train | early) & ~(s.labelled & s.blocks["fit"])).any()


def test_too_little_data_is_said_in_one_sentence(series: list[learner.Series], tmp_path: Path) -> None:
    s = series[0]
    void = learner.Series(
        s.ticker, s.X, np.full(len(s), -1), s.usable, s.reset, s.blocks, s.recv_ns, s.exit_ns
    )
    with pytest.raises(learner.TrainingError, match="block 'fit' holds 0 labelled rows"):
        svm.train([void], tmp_path, seed=1, threads=1)


def test_lstm_balance_is_undone_in_the_head(series: list[learner.Series], tmp_path: Path) -> None:
    report = lstm.train(series, tmp_path, seed=3, threads=1, progress=str, balance=True, **SMALL["lstm"])
    assert report["log_loss"] < report["climatology_log_loss"]


def test_platt_recovers_a_known_sigmoid() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(3.0, 2.0, 40_000)
    hit = rng.random(40_000) < 1 / (1 + np.exp(-(0.7 * score - 2.5)))
    assert svm.platt(score, hit) == pytest.approx((0.7, -2.5), abs=0.06)
    slope, offset = svm.platt(-score, hit)  # wrong way round: base rate, not a bet against the machine
    assert slope == 0.0 and 1 / (1 + np.exp(-offset)) == pytest.approx(hit.mean(), abs=1e-3)


def test_log_softmax_is_floored() -> None:
    logp = learner.log_softmax(np.array([[0.0, 0.0, 0.0], [1000.0, 0.0, -1000.0]]))
    assert np.allclose(logp[0], np.log(1 / 3)) and logp[1, 2] == np.float32(evaluate.LOG_FLOOR)
