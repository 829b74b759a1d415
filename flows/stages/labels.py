"""Stage ``labels``: what a taker would have earned after spread and fees, and the split into five blocks of
time."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from features.batch import FeatureTable
from features.schema import FEATURES as COLUMNS
from flows import params as params_file
from flows.params import Params
from flows.stages.common import FEATURES, LABELS, RECORDING, Say, run, whole, write_metrics
from market.recording import Recording
from market.types import SECOND_NS
from models.cross_validation import by_day, shortest_embargo_ns
from models.dataset import write_blocks
from models.label_kinds import Kind
from models.labelling import kind_named, label_day, learnable, longest_window_ns
from models.labels import VOID
from models.splits import Blocks, by_sessions, over_sessions

CLASSES = ("down", "flat", "up")


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    shares: dict[str, dict[str, float]] = {}
    sessions, purge_ns = [], round(max(params.horizons_s) * 1e9) + params.latency_ns
    learnable(kind_of(params))
    with whole(LABELS) as folder:
        for ticker, days in sorted(recording.info.days.items()):
            ppm = params.fee_ppm(recording.info.instrument(ticker), recording.info.tariff)
            for day in days:
                table = FeatureTable.load(FEATURES / ticker / f"{day}.npz")
                labels = label_day(
                    recording.read(ticker, day), table, kind_of(params, ppm), horizons_s=params.horizons_s,
                    fee_ppm=ppm, latency_s=params.latency_s, theta_bps=params.labels.theta_bps,
                )  # fmt: skip
                purge_ns = max(purge_ns, longest_window_ns(labels, table.recv_ns))
                labels.save(folder / ticker / f"{day}.npz")
                sessions.append((day, int(table.recv_ns[0]), int(table.recv_ns[-1]) + 1))
                known = labels.y[labels.y != VOID]
                share = {
                    name: round(float(np.mean(known == code)) if len(known) else 0.0, 6)
                    for code, name in enumerate(CLASSES)
                }
                shares[f"{ticker} {day}"] = share
                told = ", ".join(f"{name} {value:.1%}" for name, value in share.items())
                say(f"{ticker} {day} at {ppm / 100:g} bp a side: {told}")
        blocks = split(sessions, asdict(params.split), purge_ns)
        write_blocks(folder, blocks, params.horizons_s)
    asked = {"kind": params.labels.kind, "horizon_s": params.labels.horizon_s}
    write_metrics("labels", {**asked, "shares": shares, **blocks.to_dict()})


def split(parts: list[tuple[str, int, int]], shares: dict[str, float], purge_ns: int) -> Blocks:
    """Whole sessions where there is one for every block, with an embargo after each seam; else shares of the
    recorded time. ``parts``: day, first and last moment of every instrument-day."""
    days = by_day(parts)
    if len(days) < sum(share > 0 for share in shares.values()):
        return over_sessions([(a, b) for _, a, b in parts], shares, purge_ns)
    window_ns = round(max(f.window_s for f in COLUMNS) * SECOND_NS)
    embargo_ns = shortest_embargo_ns(horizon_ns=purge_ns, feature_window_ns=window_ns, decorrelation_ns=0)
    return by_sessions([(s.from_ns, s.to_ns) for s in days], shares, purge_ns, embargo_ns)


def kind_of(params: Params, fee_ppm: int = 0) -> Kind:
    """The kind of label that ``params.yaml`` asks for, on an instrument with this commission."""
    asked = {key: value for key, value in asdict(params.labels).items() if key != "kind"}
    return kind_named(params.labels.kind, **asked, latency_s=params.latency_s, fee_ppm=fee_ppm)


if __name__ == "__main__":
    run("labels", main)
