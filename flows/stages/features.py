"""Stage ``features``: one float32 row per book and instrument-day, by the kernel that also runs live.

A partition is an instrument's day. One whose recorded days, leader, code and libraries are those of the last
run is taken over as it is.
"""

from __future__ import annotations

from features import schema
from flows import compute_features, partitions
from flows import params as params_file
from flows.compute import Pool
from flows.compute import run as computed
from flows.stages.common import FEATURES, RECORDING, Say, run, write_metrics
from market.recording import Recording
from models.dataset import write_schema


def main(say: Say) -> None:
    params = params_file.load()
    days = sum(len(days) for days in Recording.open(RECORDING).info.days.values())
    computed("features", params.compute, lambda pool: build(pool, params, say), parts=days)


def build(pool: Pool, params: params_file.Params, say: Say) -> None:
    recording = Recording.open(RECORDING)
    leaders = params.features.leaders(set(recording.info.days))
    usable: dict[str, float] = {}
    with partitions.growing(FEATURES) as folder:
        asked = compute_features.parts(recording, leaders, FEATURES, folder)
        partitions.forget_others(folder, [(part.ticker, part.day) for part in asked])
        for part, (made, kept) in zip(asked, pool.map(compute_features.build, asked), strict=True):
            usable[f"{part.ticker} {part.day}"] = made.usable
            said = ", unchanged" if kept else ""
            say(f"{part.ticker} {part.day}: {made.rows:,} rows, {made.usable:.1%} usable{said}")
        write_schema(folder)
    write_metrics("features", {"schema_hash": schema.schema_hash(), "features": schema.F, "usable": usable})
    say(f"{schema.F} features, schema {schema.schema_hash()[:12]}")


if __name__ == "__main__":
    run("features", main)
