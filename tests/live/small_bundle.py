"""A small real bundle (one LightGBM member, signed) on a small simulated recording, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np

from features.batch import compute
from features.schema import NAMES, schema_hash, usable
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import SECOND_NS
from models.bundle import Bundle, generate_keys, write_bundle
from models.inference import make_golden
from models.scaling import Scaler

HORIZON_ROWS = 40
SPECS = (SimSpec("SIMP", "SMALL", planted=True), SimSpec("SIMA", "SMALL"))
HOURS = 0.4
TRAINED_SHARE = 0.5


def make_recording(path: Path, hours: float = HOURS) -> Recording:
    """Half an hour (or ``hours``) of two instruments, four books a second."""
    return simulate_recording(path, SPECS, hours=hours)[0]


def make_bundle(
    folder: Path,
    recording: Recording,
    keys: Path,
    *,
    watermark: str = "SIMULATED",
    rounds: int = 30,
    threshold_bps: float = 0.0,
    trained_share: float = TRAINED_SHARE,
    live_share: float | None = None,
) -> Bundle:
    """Trains on the first ``trained_share`` of ``recording`` and signs with the key pair in ``keys`` (made if
    absent); the paper exchange plays what lies behind ``live_share`` (None: all the rest).
    """
    if not (keys / "signing.key").exists():
        generate_keys(keys)
    rows, answers, edge_ns, live_ns = [], [], 0, 0
    for instrument in recording.info.instruments:
        day = recording.read(instrument.ticker, recording.info.days[instrument.ticker][0])
        table = compute(day)
        n = int(len(table.recv_ns) * trained_share)
        edge_ns = int(table.recv_ns[n])
        live_ns = int(table.recv_ns[int(len(table.recv_ns) * (live_share or trained_share))])
        ahead = np.arange(n - HORIZON_ROWS) + HORIZON_ROWS
        move = table.mid2[ahead].astype(float) - table.mid2[: n - HORIZON_ROWS]
        fit = np.array([usable(int(s)) for s in table.status[: n - HORIZON_ROWS]])
        rows.append(table.X[: n - HORIZON_ROWS][fit])
        answers.append(np.where(move > 4, 2, np.where(move < -4, 0, 1))[fit])
    X, y = np.concatenate(rows), np.concatenate(answers)
    booster = lightgbm.train(
        {
            "objective": "multiclass", "num_class": 3, "num_leaves": 8, "verbose": -1, "num_threads": 1,
            "deterministic": True, "seed": 1,
        },
        lightgbm.Dataset(X, y), num_boost_round=rounds,
    )  # fmt: skip
    parts = folder.with_name(folder.name + "-parts")
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "gbdt.txt").write_text(booster.model_to_string())
    Scaler.fit(X).save(parts / "scaler.npz")
    tickers = [i.ticker for i in recording.info.instruments]
    settings = {
        "members": {"gbdt": 1.0}, "temperature": 1.0, "exit_move_bps": 0.0, "stop_multiplier": 1.0,
        "instruments": {t: {"move_bps_per_score": 8.0, "threshold_bps": threshold_bps} for t in tickers},
    }  # fmt: skip
    (parts / "ensemble.json").write_text(json.dumps(settings))
    make_golden(parts, X[:100], tickers[0], parts / "golden.npz")
    (parts / "model_card.md").write_text("# a test model\n")
    files = {p.name: p for p in parts.iterdir()}
    manifest = {
        "watermark": watermark, "feature_schema_hash": schema_hash(), "features": list(NAMES),
        "horizon_ns": 10 * SECOND_NS, "latency_ns": SECOND_NS // 10, "tariff": recording.info.tariff,
        "fee_ppm": dict.fromkeys(tickers, 0),
        "instruments": [i.to_dict() for i in recording.info.instruments],
        "data_hash": recording.data_hash(), "code_hash": "0" * 64, "params": {}, "seeds": {}, "versions": {},
        "trained_from_ns": edge_ns - 1, "trained_to_ns": edge_ns, "live_from_ns": live_ns,
        "valid_until_ns": edge_ns + 30 * 86_400 * SECOND_NS, "metrics": {}, "quantisation": {},
    }  # fmt: skip
    return write_bundle(folder, files, manifest, keys / "signing.key")
