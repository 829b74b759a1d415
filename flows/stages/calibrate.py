"""Stage ``calibrate``: temperature, basis points per score and thresholds, fitted on what the exported files
say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows import params as params_file
from flows.compute import run as computed
from flows.compute_trials import search_on
from flows.stages.common import (
    CALIBRATION,
    ENSEMBLE,
    FEATURES,
    LABELS,
    LOGP,
    RECORDING,
    Say,
    read_json,
    run,
    whole,
    write_metrics,
)
from flows.stages.exported import Logp, run_members
from market.recording import Recording
from models.calibrate import Costs, Market, calibrate
from models.dataset import Dataset, load
from models.labels import VOID


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    dataset = load(FEATURES, LABELS)
    weights = read_json(ENSEMBLE / "ensemble_weights.json")["weights"]
    logp = run_members(dataset)
    say(f"ran the exported members over {sum(_scored(members) for members in logp.values()):,} rows")
    fee_bps = {i.ticker: params.fee_ppm(i, recording.info.tariff) / 100.0 for i in recording.info.instruments}
    horizon_ns, latency_ns = params.horizon_ns, params.latency_ns
    with whole(CALIBRATION) as folder:
        settings = computed(
            "calibrate", params.compute,
            lambda pool: calibrate(
                markets(dataset, logp, fee_bps), weights,
                Costs(horizon_ns, latency_ns, params.costs.slippage_ticks),
                folder, seed=params.seed, threads=params.threads, progress=say,
                search=search_on(pool, params.compute.study), **params.calibrate,
            ),
            parts=int(params.calibrate.get("batch", 1)),
        )  # fmt: skip
        save_logp(folder / LOGP.name, logp)
        report = read_json(folder / "calibration.json")
    write_metrics(
        "calibrate",
        {
            "temperature": settings["temperature"],
            "threshold_bps": {t: i["threshold_bps"] for t, i in settings["instruments"].items()},
            "verdicts": {t: row["verdict"] for t, row in report["instruments"].items()},
            "statistics": report["statistics"],
            "abstention": report["abstention"],
        },
    )


def markets(dataset: Dataset, logp: Logp, fee_bps: dict[str, float]) -> list[Market]:
    """The data set in the form that the calibration takes; it cuts off later blocks itself."""
    out = []
    for ticker, series in dataset.series.items():
        day = np.zeros(len(series), np.int64)
        day[series.day_start[1:]] = 1
        out.append(
            Market(
                ticker, series.recv_ns, series.mid2, series.spread,
                np.where(series.y == VOID, -1, series.y.astype(np.int64)), series.move_bps,
                dataset.rows(ticker, "calibrate", labelled=False),
                dataset.rows(ticker, "threshold", labelled=False), np.cumsum(day), fee_bps[ticker],
                logp[ticker],
            )
        )  # fmt: skip
    return out


def _scored(members: dict[str, NDArray[np.float32]]) -> int:
    return int(np.isfinite(next(iter(members.values()))[:, 0]).sum())


def save_logp(path: Path, logp: Logp) -> None:
    flat = {
        f"{ticker}/{name}": values for ticker, members in logp.items() for name, values in members.items()
    }
    with path.open("wb") as file:
        np.savez(file, **flat)  # type: ignore[arg-type]


if __name__ == "__main__":
    run("calibrate", main)
