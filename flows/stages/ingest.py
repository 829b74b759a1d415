"""Stage ``ingest``: whatever ``data.path`` holds becomes the canonical recording ``data/recording``, cleaned.

Rows that no market can show (crossed, unsorted, backward in time) are dropped and counted, never repaired. A
day that no market looks like (``market.verdict``) is refused: a model would learn the recorder's fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows import params as params_file
from flows.stages.common import RECORDING, Say, run, write_metrics
from market.errors import RecordingError
from market.importers import ingest
from market.inspect import inspect_day
from market.recording import Recording
from market.verdict import Verdict, judge


def main(say: Say) -> None:
    params = params_file.load()
    recording, reports = ingest(Path(params.data.path), RECORDING, progress=say)
    data_hash = recording.data_hash()
    verdicts = dict(_verdicts(recording, say))
    write_metrics(
        "ingest",
        {
            "watermark": recording.info.watermark,
            "source": recording.info.source,
            "tariff": params.tariff_name(recording.info.tariff),
            "data_hash": data_hash,
            "books": {name: report.to_dict() for name, report in sorted(reports.items())},
            "verdicts": {name: verdict.to_dict() for name, verdict in verdicts.items()},
        },
    )
    say(f"{recording.info.watermark} recording, data hash {data_hash[:12]}")


def _verdicts(recording: Recording, say: Say) -> Iterator[tuple[str, Verdict]]:
    """Each day's verdict by ``"<ticker>/<day>"``; RecordingError for a day that is implausible."""
    for ticker, days in recording.info.days.items():
        for day in days:
            verdict = judge(inspect_day(recording.read(ticker, day)))
            if verdict.level == "implausible":
                why = "; ".join(reason.text for reason in verdict.reasons if reason.level == verdict.level)
                raise RecordingError(
                    f"{ticker} {day} is implausible: {why}. Look at it with `scalper data plot`; "
                    "nothing may be learned from it, so leave that day out"
                )
            for reason in verdict.reasons:
                say(f"{ticker} {day} {verdict.level}: {reason.text}")
            yield f"{ticker}/{day}", verdict


if __name__ == "__main__":
    run("ingest", main)
