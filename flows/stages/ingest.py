"""Stage ``ingest``: whatever ``data.path`` holds becomes the canonical recording ``data/recording``, cleaned.

Rows that no market can show (crossed, unsorted, backward in time) are dropped and counted, never repaired. A
day that no market looks like (``market.verdict``) is refused: a model would learn the recorder's fault.
"""

from __future__ import annotations

from pathlib import Path

from flows import ingest_days
from flows import params as params_file
from flows.stages.common import RECORDING, Say, run, write_metrics

NOTES = Path("data/.ingested.json")
"""What makes a new day cost a day. No output: without it all days are cleaned again, to the same bytes."""


def main(say: Say) -> None:
    params = params_file.load()
    found = ingest_days.ingest(Path(params.data.path), RECORDING, NOTES, say)
    info, data_hash = found.recording.info, found.recording.data_hash()
    write_metrics(
        "ingest",
        {
            "watermark": info.watermark,
            "source": info.source,
            "tariff": params.tariff_name(info.tariff),
            "data_hash": data_hash,
            "books": {name: told["report"] for name, told in found.days.items()},
            "verdicts": {name: told["verdict"] for name, told in found.days.items()},
        },
    )
    say(f"{info.watermark} recording, data hash {data_hash[:12]}")


if __name__ == "__main__":
    run("ingest", main)
