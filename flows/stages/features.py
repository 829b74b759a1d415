"""Stage ``features``: one float32 row per book and instrument-day, by the kernel that also runs live."""

from __future__ import annotations

from features import schema
from features.batch import compute
from flows.stages.common import FEATURES, RECORDING, Say, run, whole, write_metrics
from market.recording import Recording
from models.dataset import write_schema


def main(say: Say) -> None:
    recording = Recording.open(RECORDING)
    usable: dict[str, float] = {}
    with whole(FEATURES) as folder:
        for ticker, days in sorted(recording.info.days.items()):
            for day in days:
                table = compute(recording.read(ticker, day))
                table.save(folder / ticker / f"{day}.npz")
                share = float(table.usable.mean())
                usable[f"{ticker} {day}"] = round(share, 6)
                say(f"{ticker} {day}: {len(table):,} rows, {share:.1%} usable")
        write_schema(folder)
    write_metrics("features", {"schema_hash": schema.schema_hash(), "features": schema.F, "usable": usable})
    say(f"{schema.F} features, schema {schema.schema_hash()[:12]}")


if __name__ == "__main__":
    run("features", main)
