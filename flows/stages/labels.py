"""Stage ``labels``: what a taker would have earned after spread and fees, and the split into five blocks of time."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np

from features.batch import FeatureTable
from flows import params as params_file
from flows.stages.common import FEATURES, LABELS, RECORDING, Say, run, whole, write_json, write_metrics
from market.recording import Recording
from models.labels import make_labels
from models.splits import chronological

VOID = 255


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    shares: dict[str, dict[str, float]] = {}
    first_ns, last_ns = [], []
    with whole(LABELS) as folder:
        for ticker, days in sorted(recording.info.days.items()):
            (folder / ticker).mkdir()
            ppm = params.fee_ppm(recording.info.instrument(ticker), recording.info.tariff)
            for day in days:
                market = recording.read(ticker, day)
                with np.load(FEATURES / ticker / f"{day}.npz", allow_pickle=False) as stored:
                    table = FeatureTable(**{f.name: stored[f.name] for f in fields(FeatureTable)})
                labels = make_labels(
                    market, table, horizon_s=params.labels.horizon_s, latency_s=params.latency_s, fee_ppm=ppm,
                    theta_bps=params.labels.theta_bps,
                )  # fmt: skip
                np.savez(folder / ticker / f"{day}.npz", **{f.name: getattr(labels, f.name) for f in fields(labels)})
                first_ns.append(int(table.recv_ns[0]))
                last_ns.append(int(table.recv_ns[-1]) + 1)
                known = labels.y[labels.y != VOID]
                share = {
                    name: round(float(np.mean(known == code)) if len(known) else 0.0, 6)
                    for code, name in enumerate(("down", "flat", "up"))
                }
                shares[f"{ticker} {day}"] = share
                say(
                    f"{ticker} {day} at {ppm / 100:g} bp a side: "
                    f"down {share['down']:.1%}, flat {share['flat']:.1%}, up {share['up']:.1%}"
                )
        purge_ns = round((params.labels.horizon_s + params.latency_s) * 1e9)
        blocks = chronological(min(first_ns), max(last_ns), asdict(params.split), purge_ns)
        write_json(folder / "blocks.json", blocks.to_dict())
    write_metrics("labels", {"shares": shares, "horizon_s": params.labels.horizon_s, **blocks.to_dict()})


if __name__ == "__main__":
    run("labels", main)
