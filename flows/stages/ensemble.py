"""Stage ``ensemble``: how much to believe each learner, and which of them become INT8."""

from __future__ import annotations

from flows import params as params_file
from flows.stages.common import ENSEMBLE, FEATURES, LABELS, LEARNERS, MODELS, Say, run, whole, write_metrics
from models.dataset import load
from models.ensemble import build


def main(say: Say) -> None:
    params = params_file.load()
    dataset = load(FEATURES, LABELS)
    with whole(ENSEMBLE) as folder:
        report = build(
            dataset, MODELS, folder, members=LEARNERS, threads=params.threads, progress=say,
            int8_weight_threshold=params.quantisation["int8_weight_threshold"],
            full_integer=params.quantisation.get("full_integer", False), **params.ensemble,
        )  # fmt: skip
    write_metrics(
        "ensemble", {"weights": report["weights"], "blend": report["blend"], "evidence": report["evidence"]}
    )


if __name__ == "__main__":
    run("ensemble", main)
