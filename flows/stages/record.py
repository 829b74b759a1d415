"""Stage ``record``: the built-in simulated market, written as a recording to ``data/raw``.

With ``data.source: recorded`` there is nothing to simulate and the stage only leaves a note that says so.
"""

from __future__ import annotations

from flows import params as params_file
from flows.stages.common import RAW, Say, run, whole, write_json
from market.simulator import simulate_recording


def main(say: Say) -> None:
    params = params_file.load()
    if params.data.source == params_file.RECORDED:
        with whole(RAW) as folder:
            write_json(
                folder / "note.json", {"note": "not simulated: stage ingest reads the recording at data.path"}
            )
        say("nothing to simulate: the market comes from a recording")
        return
    say(f"simulating {params.data.hours:g} h of market, a book every {params.data.dt_s:g} s (SIMULATED)")
    recording, _ = simulate_recording(
        RAW, hours=params.data.hours, dt_s=params.data.dt_s, seed=params.seed, day=params.data.day
    )
    for instrument in recording.info.instruments:
        for day in recording.info.days[instrument.ticker]:
            market = recording.read(instrument.ticker, day)
            say(f"{instrument.ticker} {day}: {len(market.books):,} books, {len(market.trades):,} trades")


if __name__ == "__main__":
    run("record", main)
