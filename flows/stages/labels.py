"""Stage ``labels``: what a taker would have earned after spread and fees, and the split into five blocks of
time.

A partition is an instrument's day. One whose recorded day, features, settings and code are those of the last
run is taken over as it is.
"""

from __future__ import annotations

from dataclasses import asdict

from features.schema import FEATURES as COLUMNS
from flows import compute_labels, partitions
from flows import params as params_file
from flows.compute import Pool
from flows.compute import run as computed
from flows.compute_labels import kind_of
from flows.stages.common import FEATURES, LABELS, RECORDING, Say, run, write_metrics
from market.recording import Recording
from market.types import SECOND_NS
from models.cross_validation import by_day, shortest_embargo_ns
from models.dataset import write_blocks
from models.labelling import learnable
from models.splits import Blocks, by_sessions, over_sessions


def main(say: Say) -> None:
    params = params_file.load()
    learnable(kind_of(params))
    days = sum(len(days) for days in Recording.open(RECORDING).info.days.values())
    computed("labels", params.compute, lambda pool: build(pool, params, say), parts=days)


def build(pool: Pool, params: params_file.Params, say: Say) -> None:
    shares: dict[str, dict[str, float]] = {}
    sessions, purge_ns = [], round(max(params.horizons_s) * 1e9) + params.latency_ns
    with partitions.growing(LABELS) as folder:
        asked = compute_labels.parts(Recording.open(RECORDING), params, FEATURES, LABELS, folder)
        partitions.forget_others(folder, [(part.ticker, part.day) for part in asked])
        for part, (made, kept) in zip(asked, pool.map(compute_labels.build, asked), strict=True):
            purge_ns = max(purge_ns, made.window_ns)
            sessions.append((part.day, made.from_ns, made.to_ns))
            shares[f"{part.ticker} {part.day}"] = made.shares
            told = ", ".join(f"{name} {value:.1%}" for name, value in made.shares.items())
            said = ", unchanged" if kept else ""
            say(f"{part.ticker} {part.day} at {part.fee_ppm / 100:g} bp a side: {told}{said}")
        blocks = split(sessions, asdict(params.split), purge_ns)
        write_blocks(folder, blocks, params.horizons_s)
    asked_for = {"kind": params.labels.kind, "horizon_s": params.labels.horizon_s}
    write_metrics("labels", {**asked_for, "shares": shares, **blocks.to_dict()})


def split(parts: list[tuple[str, int, int]], shares: dict[str, float], purge_ns: int) -> Blocks:
    """Whole sessions where there is one for every block, with an embargo after each seam; else shares of the
    recorded time. ``parts``: day, first and last moment of every instrument-day."""
    days = by_day(parts)
    if len(days) < sum(share > 0 for share in shares.values()):
        return over_sessions([(a, b) for _, a, b in parts], shares, purge_ns)
    window_ns = round(max(f.window_s for f in COLUMNS) * SECOND_NS)
    embargo_ns = shortest_embargo_ns(horizon_ns=purge_ns, feature_window_ns=window_ns, decorrelation_ns=0)
    return by_sessions([(s.from_ns, s.to_ns) for s in days], shares, purge_ns, embargo_ns)


if __name__ == "__main__":
    run("labels", main)
