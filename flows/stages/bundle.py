"""Stage ``bundle``: everything the trading box needs, in one signed folder.

DVC tracks the manifest and the files that it covers, not the signature: a key is nobody's input, and the same
inputs give the same bundle whoever signs it. ``scalper publish`` signs again where the key has changed since.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import schema
from flows import params as params_file
from flows.identity import code_hash, versions
from flows.params import Params
from flows.signing import ensure_keys
from flows.stages.common import (
    BUNDLE,
    CALIBRATION,
    DRIFT,
    EXPORTED,
    FEATURES,
    LABELS,
    LEARNERS,
    METRICS,
    RECORDING,
    Say,
    blocks,
    read_json,
    run,
)
from flows.stages.exported import draft, model_files
from flows.stages.model_card import model_card
from market.errors import ConfigError
from market.recording import Recording
from models import drift
from models.bundle import ENSEMBLE, GOLDEN, write_bundle
from models.dataset import Dataset, load
from models.inference import make_golden

GOLDEN_ROWS = 160
"""Rows of the golden sample: a Transformer window and plenty after it."""
DAY_NS = 86_400_000_000_000
MEASURED = (
    "labels",
    *(f"train_{name}" for name in LEARNERS),
    "ensemble",
    "quantise",
    "calibrate",
    "cross_validate",
    "backtest",
)
"""The stages whose metrics go into the manifest."""


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    dataset = load(FEATURES, LABELS)
    ticker, rows = golden_rows(dataset)
    manifest = manifest_fields(params, recording)
    private, _ = ensure_keys()
    with TemporaryDirectory(dir=BUNDLE.parent, prefix=".bundle-") as scratch:
        folder = Path(scratch)
        golden = make_golden(draft(), rows, ticker, folder / GOLDEN)
        (folder / "model_card.md").write_text(model_card(manifest), encoding="utf-8")
        files = model_files() | {
            ENSEMBLE: CALIBRATION / ENSEMBLE, GOLDEN: golden, "model_card.md": folder / "model_card.md",
            drift.FILE: DRIFT / "reference.npz",
        }  # fmt: skip
        bundle = write_bundle(BUNDLE, files, manifest, private)
    say(f"{manifest['watermark']} bundle {bundle.sha256[:12]}, {len(files)} files, signed")


def golden_rows(dataset: Dataset) -> tuple[str, NDArray[np.float32]]:
    """The first ``GOLDEN_ROWS`` neighbouring usable rows of block ``calibrate``: (ticker, X float32 [n,
    F])."""
    for ticker, series in dataset.series.items():
        rows = np.flatnonzero(dataset.rows(ticker, "calibrate", labelled=False))
        fresh = np.cumsum(series.reset)[rows]
        for start in range(0, len(rows) - GOLDEN_ROWS + 1, GOLDEN_ROWS):
            if fresh[start] == fresh[start + GOLDEN_ROWS - 1]:
                return ticker, series.X[rows[start : start + GOLDEN_ROWS]]
    raise ConfigError(
        f"no instrument has {GOLDEN_ROWS} usable rows in a row in block 'calibrate': record more hours"
    )


def manifest_fields(params: Params, recording: Recording) -> dict[str, Any]:
    """The manifest without what ``write_bundle`` adds. No time of day, path or host: inputs only."""
    info = recording.info
    times = blocks()
    measured = {name: read_json(METRICS / f"{name}.json") for name in MEASURED}
    return {
        "watermark": info.watermark,
        "feature_schema_hash": schema.schema_hash(),
        "features": list(schema.NAMES),
        "leaders": params.features.leaders({i.ticker for i in info.instruments}),
        "horizon_ns": params.horizon_ns,
        "latency_ns": params.latency_ns,
        "tariff": params.tariff_name(info.tariff),
        "fee_ppm": {i.ticker: params.fee_ppm(i, info.tariff) for i in info.instruments},
        "instruments": [i.to_dict() for i in info.instruments],
        "data_hash": recording.data_hash(),
        "code_hash": code_hash(),
        "params": params.for_manifest(),
        "seeds": {"seed": params.seed, "threads": params.threads},
        "versions": versions(),
        "trained_from_ns": times["fit"][0],
        "trained_to_ns": times["score"][1],
        "live_from_ns": times["live"][0],
        "valid_until_ns": times["live"][0] + params.bundle.valid_days * DAY_NS,
        # The gate reads `edge`, `calibration` and `statistics`; the rest is for people.
        "metrics": {
            **measured,
            "edge": measured["backtest"]["edge"],
            "calibration": measured["backtest"]["calibration"],
            "statistics": measured["calibrate"]["statistics"],
        },
        "quantisation": read_json(EXPORTED / "parity.json"),
    }


if __name__ == "__main__":
    run("bundle", main)
