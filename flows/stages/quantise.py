"""Stage ``quantise``: TFLite files in the mode that the plan asks for, proven against the trained models."""

from __future__ import annotations

from pathlib import Path

from flows import params as params_file
from flows.stages.common import (
    ENSEMBLE,
    EXPORTED,
    FEATURES,
    LABELS,
    MODELS,
    Say,
    read_json,
    run,
    whole,
    write_metrics,
)
from models import quantise
from models.dataset import load

KEPT = (
    "mode", "planned", "agreement", "max_abs_dp", "accuracy_lost_points", "macro_f1_lost_points", "kib",
    "passed",
)  # fmt: skip
PLANNING = ("int8_weight_threshold", "full_integer")
"""Keys of ``quantisation`` that shape the plan; the others are limits of the gates."""
LATENCY = Path("artifacts/latency.json")
"""Times on this machine, of every form. No output of the line: they differ from run to run."""


def main(say: Say) -> None:
    limits = {k: v for k, v in params_file.load().quantisation.items() if k not in PLANNING}
    dataset = load(FEATURES, LABELS)
    plan = read_json(ENSEMBLE / "quantization_plan.json")
    with whole(EXPORTED) as folder:
        report = quantise.run(
            MODELS, plan, dataset.fit_scaler(), folder, dataset, limits=limits, latency_path=LATENCY,
            weights=read_json(ENSEMBLE / "ensemble_weights.json")["weights"], progress=say,
        )  # fmt: skip
    write_metrics(
        "quantise",
        {
            "passed": report["passed"],
            "pnl_lost_bps": report["profit"]["lost_bps"],
            "members": {name: {k: entry[k] for k in KEPT} for name, entry in report["members"].items()},
        },
    )


if __name__ == "__main__":
    run("quantise", main)
