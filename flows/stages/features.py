"""Stage ``features``: one float32 row per book and instrument-day, by the kernel that also runs live."""

from __future__ import annotations

from features import schema
from features.batch import compute
from flows import params as params_file
from flows.stages.common import FEATURES, RECORDING, Say, run, whole, write_metrics
from market.recording import Recording
from models.dataset import write_schema


def main(say: Say) -> None:
    recording = Recording.open(RECORDING)
    days_of = recording.info.days
    leaders = params_file.load().features.leaders(set(days_of))
    usable: dict[str, float] = {}
    with whole(FEATURES) as folder:
        for ticker, days in sorted(days_of.items()):
            for day in days:
                leader = leaders.get(ticker)
                led = leader is not None and day in days_of[leader]
                table = compute(
                    recording.read(ticker, day), recording.read(leader, day) if leader and led else None
                )
                table.save(folder / ticker / f"{day}.npz")
                share = float(table.usable.mean())
                usable[f"{ticker} {day}"] = round(share, 6)
                say(f"{ticker} {day}: {len(table):,} rows, {share:.1%} usable")
        write_schema(folder)
    write_metrics("features", {"schema_hash": schema.schema_hash(), "features": schema.F, "usable": usable})
    say(f"{schema.F} features, schema {schema.schema_hash()[:12]}")


if __name__ == "__main__":
    run("features", main)
