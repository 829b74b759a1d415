"""Small real models with random weights, and bundles made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.bundle import ENSEMBLE, GOLDEN, MEMBER_FILES, SCALER, Bundle, generate_keys, write_bundle
from models.inference import make_golden
from models.scaling import Scaler

F, H, D, WIDTH, FF, T, HEADS = 40, 32, 256, 32, 64, 8, 4
RATE = 1 / 30
TICKERS = ("SIMP", "SIMA")
SCHEMA = "5" * 64
VALID_UNTIL_NS = 1_770_000_000_000_000_000


def rows(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Raw rows with a memory of some rows, some of them masked; scaled values reach the clip now and then."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, F))
    for t in range(1, n):
        X[t] = 0.9 * X[t - 1] + 0.436 * X[t]
    X = (X * 3 + 1).astype(np.float32)
    X[rng.random(X.shape) < 0.03] = np.nan
    return X


def weights(seed: int = 0) -> dict[str, dict[str, NDArray[Any]]]:
    """Random weights of the three networks in the layout of ``weights.npz``."""
    rng = np.random.default_rng(seed)

    def matrix(a: int, b: int, gain: float = 1.0) -> NDArray[np.float32]:
        return (gain * rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32)

    def vector(n: int, around: float = 0.0) -> NDArray[np.float32]:
        return (around + 0.1 * rng.standard_normal(n)).astype(np.float32)

    phase = rng.uniform(0, 2 * np.pi, D).astype(np.float32)
    svm = {"rff_w": matrix(F, D, 0.5), "rff_b": phase, "w": matrix(D, 3, 20), "b": vector(3)}

    def normalisation() -> dict[str, NDArray[Any]]:
        g = np.stack([vector(F, around) for around in (1.0, 0.3, 0.3)])
        return {"bin_g": g, "bin_b": vector(F)}

    lstm = {"w": matrix(F + H, 4 * H), "b": vector(4 * H), "head_w": matrix(H, 3, 4), "head_b": vector(3)}
    encoder: dict[str, NDArray[Any]] = {
        "in_w": matrix(F, WIDTH),
        "in_b": vector(WIDTH),
        "pos": matrix(T, WIDTH),
    }
    for layer in range(2):
        n = f"l{layer}_"
        for norm in ("ln1", "ln2"):
            encoder |= {f"{n}{norm}_g": vector(WIDTH, 1), f"{n}{norm}_b": vector(WIDTH)}
        for c in "qkvo":
            encoder |= {f"{n}w{c}": matrix(WIDTH, WIDTH), f"{n}b{c}": vector(WIDTH)}
        encoder |= {f"{n}ff1_w": matrix(WIDTH, FF), f"{n}ff1_b": vector(FF)}
        encoder |= {f"{n}ff2_w": matrix(FF, WIDTH), f"{n}ff2_b": vector(WIDTH)}
    encoder |= {"lnf_g": vector(WIDTH, 1), "lnf_b": vector(WIDTH)}
    encoder |= {"head_w": matrix(WIDTH, 3, 4), "head_b": vector(3)}
    encoder |= {"n_heads": np.array([HEADS]), "T": np.array([T])}
    lstm |= normalisation() | {"bin_rate": np.array([RATE], np.float32)}
    return {"svm": svm, "lstm": lstm, "transformer": encoder | normalisation()}


def save_weights(folder: Path, seed: int = 0) -> Path:
    for name, arrays in weights(seed).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.savez(folder / name / "weights.npz", **arrays)
    return folder


def booster(seed: int = 0, rounds: int = 12) -> lightgbm.Booster:
    """Trees on noise with a little sense in it; masked features stay NaN."""
    X = rows(3000, seed)
    signal = np.nan_to_num(X[:, 0]) + np.random.default_rng(seed).standard_normal(len(X))
    y = np.digitize(signal, np.quantile(signal, [1 / 3, 2 / 3]))
    params = {
        "objective": "multiclass", "num_class": 3, "num_leaves": 15, "verbosity": -1, "num_threads": 1,
        "deterministic": True, "force_row_wise": True, "seed": seed,
    }  # fmt: skip
    return lightgbm.train(params, lightgbm.Dataset(X, y), rounds)


def scaler() -> Scaler:
    return Scaler.fit(rows(2000, seed=99))


def settings(members: Iterable[str]) -> dict[str, Any]:
    names = sorted(members)
    return {
        "members": {name: 1 / len(names) for name in names},
        "temperature": 1.3,
        "instruments": {
            "SIMP": {"move_bps_per_score": 6.5, "threshold_bps": 1.25},
            "SIMA": {"move_bps_per_score": 2.0, "threshold_bps": None},
        },
        "exit_move_bps": 0.4,
        "stop_multiplier": 1.5,
    }


def manifest(**changes: Any) -> dict[str, Any]:
    fields = {
        "watermark": "SIMULATED", "feature_schema_hash": SCHEMA, "features": [f"f{i}" for i in range(F)],
        "horizon_ns": 10_000_000_000, "latency_ns": 100_000_000, "tariff": "simulated",
        "fee_ppm": dict.fromkeys(TICKERS, 50),
        "instruments": [
            {
                "uid": f"uid-{t}", "ticker": t, "class_code": "SIM", "figi": f"figi-{t}", "kind": "share",
                "lot": 10, "tick_nano": 10_000_000, "tick_value_nano": 100_000_000,
            }
            for t in TICKERS
        ],
        "data_hash": "d" * 64, "code_hash": "c" * 64, "params": {"seed": 7, "lstm": {"hidden": H}},
        "seeds": {"all": 7},
        "versions": {"numpy": "2"}, "trained_from_ns": 1, "trained_to_ns": 2, "live_from_ns": 3,
        "valid_until_ns": VALID_UNTIL_NS, "metrics": {"calibration": {"ece": 0.02}},
        "quantisation": {"passed": True, "members": {}},
    }  # fmt: skip
    return fields | changes


def parts(
    folder: Path, *, exported: Path | None = None, mode: str = "int8", seed: int = 0
) -> dict[str, Path]:
    """Files of a bundle by name: LightGBM, and the networks where ``exported`` holds their files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["gbdt"] if exported is None else list(MEMBER_FILES)
    booster(seed).save_model(str(folder / MEMBER_FILES["gbdt"]))
    for name in names:
        if name != "gbdt" and exported is not None:
            content = (exported / f"{name}.{mode}.tflite").read_bytes()
            (folder / MEMBER_FILES[name]).write_bytes(content)
    scaler().save(folder / SCALER)
    (folder / ENSEMBLE).write_text(json.dumps(settings(names)))
    make_golden(folder, rows(64 + T, seed=5), "SIMP", folder / GOLDEN)
    (folder / "model_card.md").write_text("# test\n")
    return {path.name: path for path in sorted(folder.iterdir())}


def bundle(folder: Path, **changes: Any) -> tuple[Bundle, Path]:
    """A signed bundle with one LightGBM member, and the public key."""
    private, public = generate_keys(folder / "keys")
    return write_bundle(folder / "bundle", parts(folder / "parts"), manifest(**changes), private), public
