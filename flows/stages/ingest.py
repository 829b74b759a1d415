"""Stage ``ingest``: whatever ``data.path`` holds becomes the canonical recording ``data/recording``, cleaned.

Rows that no market can show (crossed, unsorted, backward in time) are dropped and counted, never repaired.
"""

from __future__ import annotations

from pathlib import Path

from flows import params as params_file
from flows.stages.common import RECORDING, Say, run, write_metrics
from market.importers import ingest


def main(say: Say) -> None:
    params = params_file.load()
    recording, reports = ingest(Path(params.data.path), RECORDING, progress=say)
    data_hash = recording.data_hash()
    write_metrics(
        "ingest",
        {
            "watermark": recording.info.watermark,
            "source": recording.info.source,
            "tariff": params.tariff_name(recording.info.tariff),
            "data_hash": data_hash,
            "books": {name: report.to_dict() for name, report in sorted(reports.items())},
        },
    )
    say(f"{recording.info.watermark} recording, data hash {data_hash[:12]}")


if __name__ == "__main__":
    run("ingest", main)
