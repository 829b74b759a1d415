"""Stage ``labels``: what a taker would have earned after spread and fees, and the split into five blocks of
time."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from features.batch import FeatureTable
from flows import params as params_file
from flows.stages.common import FEATURES, LABELS, RECORDING, Say, run, whole, write_metrics
from market.recording import Recording
from models.dataset import write_blocks
from models.labels import VOID, make_labels
from models.splits import over_sessions

CLASSES = ("down", "flat", "up")


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    shares: dict[str, dict[str, float]] = {}
    sessions = []
    with whole(LABELS) as folder:
        for ticker, days in sorted(recording.info.days.items()):
            ppm = params.fee_ppm(recording.info.instrument(ticker), recording.info.tariff)
            for day in days:
                table = FeatureTable.load(FEATURES / ticker / f"{day}.npz")
                labels = make_labels(
                    recording.read(ticker, day), table, horizon_s=params.labels.horizon_s, fee_ppm=ppm,
                    latency_s=params.latency_s, theta_bps=params.labels.theta_bps,
                )  # fmt: skip
                labels.save(folder / ticker / f"{day}.npz")
                sessions.append((int(table.recv_ns[0]), int(table.recv_ns[-1]) + 1))
                known = labels.y[labels.y != VOID]
                share = {
                    name: round(float(np.mean(known == code)) if len(known) else 0.0, 6)
                    for code, name in enumerate(CLASSES)
                }
                shares[f"{ticker} {day}"] = share
                told = ", ".join(f"{name} {value:.1%}" for name, value in share.items())
                say(f"{ticker} {day} at {ppm / 100:g} bp a side: {told}")
        blocks = over_sessions(sessions, asdict(params.split), params.horizon_ns + params.latency_ns)
        write_blocks(folder, blocks)
    write_metrics("labels", {"shares": shares, "horizon_s": params.labels.horizon_s, **blocks.to_dict()})


if __name__ == "__main__":
    run("labels", main)
