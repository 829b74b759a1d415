"""Stage ``drift_reference``: what features and scores looked like when the models were made, and how often
the drift rule would have alarmed on training time that its reference had not seen."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from features import schema
from flows.stages.common import (
    CALIBRATION,
    DRIFT,
    EXPORTED,
    FEATURES,
    LABELS,
    Say,
    read_json,
    run,
    whole,
    write_json,
    write_metrics,
)
from flows.stages.exported import blended, load_logp
from models import drift, drift_reference, drift_scores
from models.bundle import ENSEMBLE, MEMBER_FILES
from models.dataset import load
from models.inference import InstrumentParams

REFERENCE = "reference.npz"
"""In a bundle it is called ``models.drift.FILE``."""


def main(say: Say) -> None:
    dataset = load(FEATURES, LABELS)
    logp = load_logp()
    traded = read_json(CALIBRATION / ENSEMBLE)["instruments"]
    # Clock features move by construction, and the feed's pace is the feed's: neither is a sign of drift.
    columns = [j for j, spec in enumerate(schema.FEATURES) if not (spec.seasonal or spec.feed)]
    names = (*(schema.NAMES[j] for j in columns), *drift.SCORES)
    live = dataset.blocks.index("live")
    rows = {}
    for ticker, series in dataset.series.items():
        known = np.flatnonzero(series.usable & (series.block != live))
        known = known[drift.thin(series.recv_ns[known])]
        p = np.exp(blended({name: of[known] for name, of in logp[ticker].items()}).astype(np.float64))
        x = np.concatenate([series.X[known][:, columns], _scores(p, traded[ticker])], axis=1)
        rows[ticker] = drift_reference.Rows(series.recv_ns[known], x)
    reference, alarms = drift_reference.build(names, rows, _importance())
    with whole(DRIFT) as folder:
        drift.save(reference, folder / REFERENCE)
        readable = {"false_alarms": alarms.to_dict(), "instruments": drift_reference.summary(reference)}
        write_json(folder / "reference.json", readable)
    sizes = {
        ticker: {"days": made.days, "blocks": made.blocks, "columns": len(made.names)}
        for ticker, made in reference.items()
    }
    write_metrics("drift_reference", {"false_alarms": alarms.to_dict(), "instruments": sizes})
    say(alarms.line())
    for ticker, made in reference.items():
        slowest = int(np.argmin(made.independence))
        values = max(1.0, drift.WINDOW_ROWS * float(made.independence[slowest]))
        say(
            f"{ticker}: {len(made.names)} columns, {made.days} days; half an hour of {made.names[slowest]} "
            f"holds {values:.1f} independent values"
        )


def _scores(p: drift.F64, calibrated: dict[str, Any]) -> drift.F64:
    """The score columns [n, 3] of probabilities [n, 3], NaN where there are none. ``calibrated``: what
    ``ensemble.json`` says of the instrument."""
    quantiles = calibrated.get("conformal_quantiles")
    params = InstrumentParams(
        calibrated["move_bps_per_score"],
        calibrated["threshold_bps"],
        None if quantiles is None else tuple(quantiles),
    )
    moves = [
        params.expected_move_millibps(float(q[0]), float(q[2])) if np.isfinite(q).all() else 0 for q in p
    ]
    threshold = None if params.threshold_bps is None else round(params.threshold_bps * 1000)
    return drift_scores.columns(p, moves, threshold)


def _importance() -> dict[str, float]:
    """Gain of the boosted trees, the one member that says what it looks at."""
    booster = lightgbm.Booster(model_str=(EXPORTED / MEMBER_FILES["gbdt"]).read_text(encoding="utf-8"))
    return dict(zip(schema.NAMES, booster.feature_importance("gain").tolist(), strict=True))


if __name__ == "__main__":
    run("drift_reference", main)
