"""How long one answer of each exported model takes, against the plain call of the library that it replaces.

LightGBM's single-row entry against ``Booster.predict``; the TFLite files, quantised, against un-quantised
TFLite and against torch's eager mode, all on one thread, in the same run and in turns, so that a busy
machine slows all of them alike. Run from the project's root: ``python bench/run.py inference``. The ratios
are what to compare between machines.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OMP_NUM_THREADS", "1")

from features.schema import F
from models import bilinear, learner, lstm, quantise, svm, transformer
from models.bundle import ENSEMBLE, MEMBER_FILES, SCALER, Bundle
from models.inference import Ensemble
from models.member_kinds import Member, build, import_lightgbm
from models.scaling import Scaler

ROWS = 3_000
STEPS = 300
ROUNDS = 9
"""Every rival's steps are repeated so often, in turns; its best round counts."""
TREES_A_CLASS = 100
NETWORKS = {"svm": svm, "lstm": lstm, "transformer": transformer}
Step = Callable[[int], object]


def market() -> learner.Series:
    """Rows of noise with a little sense in one column: what is learnt does not matter here, sizes do."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((ROWS, F)).astype(np.float32)
    y = np.digitize(X[:, 0] + rng.standard_normal(ROWS), [-0.8, 0.8]).astype(np.int64)
    at = np.arange(ROWS)
    blocks = {name: np.zeros(ROWS, bool) for name in ("threshold", "score", "live")}
    blocks |= {"fit": at < 2_200, "calibrate": at >= 2_250}
    return learner.Series(
        "SIMP", X, y, np.ones(ROWS, bool), at == 0, blocks, at.astype(np.int64), at.astype(np.int64)
    )


def trained(folder: Path, series: learner.Series) -> None:
    """One short epoch of each learner in its product size: weights in the layout of the line."""

    def quiet(line: str) -> None:
        pass

    params = {"objective": "multiclass", "num_class": 3, "num_leaves": 31, "verbosity": -1, "num_threads": 1}
    lightgbm = import_lightgbm()
    booster = lightgbm.train(params, lightgbm.Dataset(series.X, series.y), TREES_A_CLASS)
    booster.save_model(str(folder / MEMBER_FILES["gbdt"]))
    svm.train([series], folder / "svm", seed=1, threads=1, progress=quiet, epochs=1)
    for name in ("lstm", "transformer"):
        NETWORKS[name].train(
            [series], folder / name, seed=1, threads=1, progress=quiet, epochs=1, yardstick_epochs=0
        )  # fmt: skip


def exported(folder: Path, series: learner.Series, scaler: Scaler) -> None:
    """``<name>.<form>.tflite`` of every network in every form."""
    x = scaler.apply(series.X[:1_000])
    learner.save_npz(folder / "rows.npz", {"x": x, "fresh": np.arange(len(x)) == 0})
    wanted = [f"{name}:{form}" for name in NETWORKS for form in quantise.MODES.values()]
    quantise.convert(folder, folder, wanted, folder / "rows.npz")


def stepping(member: Member, X: NDArray[np.float32], Z: NDArray[np.float32]) -> Step:
    member.start("")
    for t in range(64):  # fills the Transformer's window
        member.step("", X[t], Z[t])

    def step(t: int) -> object:
        member.step("", X[t], Z[t])
        return member.score("")

    return step


def eager(name: str, w: dict[str, Any], Z: NDArray[np.float32]) -> Step:
    """The same answer from torch, one row at a time, as a program without TFLite would get it."""
    import torch

    torch.set_num_threads(1)
    p = {k: torch.from_numpy(v) for k, v in w.items()}
    x = torch.from_numpy(Z)
    if name == "svm":
        lift = np.sqrt(2.0 / w["rff_w"].shape[1])

        def svm_step(t: int) -> object:
            z = torch.sigmoid(torch.cos(x[t : t + 1] @ p["rff_w"] + p["rff_b"]) * lift @ p["w"] + p["b"])
            return torch.log(z / z.sum()).tolist()

        return _without_gradients(svm_step)
    if name == "transformer":
        window, heads = int(w["T"][0]), int(w["n_heads"][0])

        def window_step(t: int) -> object:
            z = transformer.logits(p, x[t : t + window][None], heads)
            return torch.log_softmax(z, -1).tolist()

        return _without_gradients(window_step)
    rate, g = float(w["bin_rate"][0]) if "bin_rate" in w else 0.0, p.get("bin_g")
    hidden = len(w["head_w"])
    state = [torch.zeros(1, hidden), torch.zeros(1, hidden), torch.zeros(1, F), torch.zeros(1, F)]

    def lstm_step(t: int) -> object:
        h, c, m, v = state
        row = x[t : t + 1]
        if g is not None:
            normal = row * g[0] + bilinear.standard(row, 1) * g[2] + p["bin_b"]
            if rate:
                off = row - m
                m = m + rate * off
                v = (1 - rate) * (v + 1 + rate * off * off) - 1
                normal = normal + (row - m) * torch.rsqrt(v + 1 + bilinear.EPS) * g[1]
            row = normal
        i, f, u, o = (torch.cat([row, h], 1) @ p["w"] + p["b"]).chunk(4, 1)
        c = torch.clamp(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(u), -2.0, 2.0)
        h = torch.sigmoid(o) * torch.tanh(c)
        state[:] = h, c, m, v
        return torch.log_softmax(h @ p["head_w"] + p["head_b"], -1).tolist()

    return _without_gradients(lstm_step)


def _without_gradients(step: Step) -> Step:
    import torch

    def quiet(t: int) -> object:
        with torch.inference_mode():
            return step(t)

    return quiet


def measured(rivals: dict[str, Step]) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile of a step, microseconds, of each rival's best round; rounds take turns."""
    best: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, step in rivals.items():
            times = []
            for t in range(STEPS):
                start = time.perf_counter_ns()
                step(t)
                times.append((time.perf_counter_ns() - start) / 1e3)
            if name not in best or statistics.median(times) < statistics.median(best[name]):
                best[name] = times
    return {name: (statistics.median(times), float(np.percentile(times, 99))) for name, times in best.items()}


def told(title: str, ours: str, figures: dict[str, tuple[float, float]]) -> None:
    """The rivals' times, each with its ratio to ours."""
    for name, (median, p99) in figures.items():
        ratio = "" if name == ours else f"   {median / figures[ours][0]:6.1f} x of {ours}"
        print(f"{title:<12}{name:<28}{median:9.1f} us median {p99:9.1f} us p99{ratio}")


def whole(folder: Path, X: NDArray[np.float32], Z: NDArray[np.float32]) -> dict[str, Step]:
    """All four as the runner steps them, beside the four alone: what lies between is scaling and blending."""
    for name in NETWORKS:
        (folder / MEMBER_FILES[name]).write_bytes((folder / f"{name}.int8.tflite").read_bytes())
    settings = {
        "members": dict.fromkeys(MEMBER_FILES, 1 / len(MEMBER_FILES)), "temperature": 1.0,
        "instruments": {"": {"move_bps_per_score": 1.0, "threshold_bps": 0.0}},
        "exit_move_bps": 1.0, "stop_multiplier": 1.0,
    }  # fmt: skip
    (folder / ENSEMBLE).write_text(json.dumps(settings))
    Scaler.fit(X).save(folder / SCALER)
    files = {name: folder / name for name in (ENSEMBLE, SCALER, *MEMBER_FILES.values())}
    ensemble = Ensemble(Bundle.draft(files, {}), [""])
    alone = [
        stepping(build(name, (folder / file).read_bytes(), F, backend="cpu", threads=1), X, Z)
        for name, file in MEMBER_FILES.items()
    ]
    for t in range(64):
        ensemble.step("", X[t])
    return {
        "Ensemble.step": lambda t: ensemble.step("", X[t]),
        "its four members alone": lambda t: [step(t) for step in alone],
    }


def main() -> None:
    series = market()
    scaler = Scaler.fit(series.X)
    X, Z = series.X, scaler.apply(series.X)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trained(folder, series)
        exported(folder, series, scaler)
        fast = build("gbdt", (folder / MEMBER_FILES["gbdt"]).read_bytes(), F, backend="cpu", threads=1)
        booster = fast.booster  # type: ignore[attr-defined]
        print(f"{booster.num_trees()} trees, {F} features, one row, one thread; best of {ROUNDS} rounds")
        told(
            "gbdt", "single-row entry",
            measured(
                {
                    "single-row entry": stepping(fast, X, Z),
                    "Booster.predict, 1 thread": lambda t: booster.predict(X[t : t + 1], num_threads=1),
                    "Booster.predict": lambda t: booster.predict(X[t : t + 1]),
                }
            ),
        )  # fmt: skip
        for name in NETWORKS:
            rivals: dict[str, Step] = {}
            for mode, label in (
                ("int8", "TFLite int8"), ("int8_full", "TFLite full integer"), ("fp16", "TFLite fp16"),
                ("float32", "TFLite float32"),
            ):  # fmt: skip
                content = (folder / f"{name}.{mode}.tflite").read_bytes()
                rivals[label] = stepping(build(name, content, F, backend="cpu", threads=1), X, Z)
            with np.load(folder / name / "weights.npz") as w:
                rivals["torch eager"] = eager(name, dict(w), Z)
            told(name, "TFLite int8", measured(rivals))
        assert set(NETWORKS) | {"gbdt"} == set(MEMBER_FILES), "every member is measured"
        told("ensemble", "Ensemble.step", measured(whole(folder, X, Z)))


if __name__ == "__main__":
    main()
