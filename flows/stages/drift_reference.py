"""Stage ``drift_reference``: what features and scores looked like when the models were made."""

from __future__ import annotations

import numpy as np

from features import schema
from flows.stages.common import DRIFT, FEATURES, LABELS, Say, run, whole, write_metrics
from flows.stages.exported import blended, load_logp
from models import drift
from models.dataset import load


def main(say: Say) -> None:
    dataset = load(FEATURES, LABELS)
    logp = load_logp()
    # Clock features move by construction, so they are no sign of drift.
    columns = [j for j, spec in enumerate(schema.FEATURES) if not spec.seasonal]
    names = [schema.NAMES[j] for j in columns]
    rows = {}
    live = dataset.blocks.index("live")
    for ticker, series in dataset.series.items():
        known = series.usable & (series.block != live)
        p = np.exp(blended(logp[ticker])[known])
        rows[ticker] = (series.recv_ns[known], series.X[known][:, columns], p[:, 2] - p[:, 0])
    reference = drift.reference_of(names, rows)
    with whole(DRIFT) as folder:
        drift.save(reference, folder)
    sizes = {t: {n: round(c.n_eff, 1) for n, c in by_name.items()} for t, by_name in reference.items()}
    slowest = {t: min(by_name.items(), key=lambda item: item[1]) for t, by_name in sizes.items() if by_name}
    write_metrics("drift_reference", {"effective_rows": sizes})
    for ticker, (name, n_eff) in slowest.items():
        say(f"{ticker}: {len(sizes[ticker])} columns; {name} holds only {n_eff:.0f} independent values")


if __name__ == "__main__":
    run("drift_reference", main)
