"""What an exported form must keep of the model that was trained: the figures, their limits, the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import evaluate
from models.interpreters import load_interpreter
from models.learner import F32, F64, I64

LIMITS: dict[str, float] = {
    "float32_max_abs_dlogp": 1e-4,
    "fp16_max_abs_dp": 1e-2,
    "fp16_agreement": 0.999,
    "int8_agreement": 0.995,
    "svm_int8_agreement": 0.99,
    "int8_full_agreement": 0.985,
    "text_max_abs_dlogp": 1e-5,
    "accuracy_lost_points": 0.5,
    "macro_f1_lost_points": 0.5,
    "pnl_lost_bps": 0.5,
}
"""Defaults of the gates (measured: clamped LSTM step .996-.998, Transformer .999, RFF machine .994)."""

TRADED_SHARE = 0.1
"""Rows on which the replay's profit is compared: those where the blend leans most, by the trained models."""


def compare(expected: F32, got: F32, y: I64) -> dict[str, float]:
    """How far log-probabilities ``got`` float32 [n, 3] are from ``expected``; scores over labelled rows."""
    p, q = np.exp(expected.astype(np.float64)), np.exp(got.astype(np.float64))
    labelled = y >= 0
    hits, scores = [], []
    for v in (p, q):
        called = v.argmax(axis=1)[labelled]
        hits.append(float(np.mean(called == y[labelled])) if labelled.any() else 0.0)
        scores.append(evaluate.macro_f1(y[labelled], called) if labelled.any() else 0.0)
    return {
        "max_abs_dlogp": float(np.abs(expected - got).max()),
        "max_abs_dp": float(np.abs(p - q).max()),
        "mean_abs_dp": float(np.abs(p - q).mean()),
        "agreement": float(np.mean(p.argmax(axis=1) == q.argmax(axis=1))),
        "accuracy_trained": hits[0],
        "accuracy": hits[1],
        "accuracy_lost_points": 100 * (hits[0] - hits[1]),
        "macro_f1_trained": scores[0],
        "macro_f1": scores[1],
        "macro_f1_lost_points": 100 * (scores[0] - scores[1]),
    }


def foreign_operations(path: Path) -> list[str]:
    """Operations of a TFLite file that the interpreter of the box does not have built in (empty for text)."""
    if path.suffix != ".tflite":
        return []
    names = {d["op_name"] for d in load_interpreter(path)._get_ops_details()}  # type: ignore[attr-defined]
    return sorted(n for n in names if n.startswith("Flex") or n.upper() == "CUSTOM")


def gates(
    name: str, mode: str, figures: Mapping[str, float], float32: Mapping[str, float], foreign: Sequence[str],
    limits: Mapping[str, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """What must hold for this mode; each gate with value, limit and, if it fails, a reason."""

    def gate(key: str, value: float, *, at_least: bool = False) -> dict[str, Any]:
        return gated(name, key, value, limits[key], at_least=at_least)

    found = []
    if float32:
        found.append(gate("float32_max_abs_dlogp", float32["max_abs_dlogp"]))
    if mode == "TEXT":
        found.append(gate("text_max_abs_dlogp", figures["max_abs_dlogp"]))
    if mode == "FLOAT16":
        found.append(gate("fp16_max_abs_dp", figures["max_abs_dp"]))
        found.append(gate("fp16_agreement", figures["agreement"], at_least=True))
    if mode == "INT8":
        key = "svm_int8_agreement" if name == "svm" else "int8_agreement"
        found.append(gate(key, figures["agreement"], at_least=True))
    if mode == "INT8_FULL":
        found.append(gate("int8_full_agreement", figures["agreement"], at_least=True))
    found.append(gate("accuracy_lost_points", figures["accuracy_lost_points"]))
    found.append(gate("macro_f1_lost_points", figures["macro_f1_lost_points"]))
    reason = f"{name} needs operations that the box lacks: {', '.join(foreign)}" if foreign else ""
    found.append(
        {
            "name": "builtin_operations",
            "value": len(foreign),
            "limit": 0,
            "passed": not foreign,
            "reason": reason,
        }
    )
    return found


def gated(name: str, key: str, value: float, limit: float, *, at_least: bool = False) -> dict[str, Any]:
    """One gate as the report has it."""
    passed = value >= limit if at_least else value <= limit
    relation = "under" if at_least else "over"
    reason = "" if passed else f"{key} of {name} is {value:.4g}, {relation} its limit {limit:g}"
    return {"name": key, "value": value, "limit": limit, "passed": bool(passed), "reason": reason}


def profit(
    trained: Mapping[str, F32], shipped: Mapping[str, F32], weights: Mapping[str, float], long_bps: F64,
    short_bps: F64,
) -> dict[str, Any]:  # fmt: skip
    """What the shipped ensemble would have earned on the replayed rows against the trained one, after costs.

    Both enter where their own blend leans more than the trained one does on all but TRADED_SHARE of the
    rows, long or short, each row a round trip of its own: a comparison of two forms, not a backtest.
    """
    known = np.isfinite(long_bps) & np.isfinite(short_bps)
    leans = []
    for logp in (trained, shipped):
        z = np.sum([w * logp[m].astype(np.float64) for m, w in weights.items()], axis=0)[known]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        leans.append(p[:, 2] - p[:, 0])
    out: dict[str, Any] = {"rows": int(known.sum())}
    if not known.any():
        return {**out, "lost_bps": 0.0}
    entry = float(np.quantile(np.abs(leans[0]), 1 - TRADED_SHARE))
    earned = []
    for name, lean in zip(("trained", "shipped"), leans, strict=True):
        traded = np.abs(lean) >= entry
        net = np.where(lean > 0, long_bps[known], short_bps[known])[traded]
        earned.append(float(net.mean()) if len(net) else 0.0)
        out |= {f"trades_{name}": int(traded.sum()), f"net_bps_{name}": earned[-1]}
    return {**out, "lost_bps": earned[0] - earned[1]}
