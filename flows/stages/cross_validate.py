"""Stage ``cross_validate``: walk-forward and combinatorial paths over whole sessions, where there are
enough."""

from __future__ import annotations

from functools import partial

from flows import params as params_file
from flows.compute import run as computed
from flows.stages.common import FEATURES, LABELS, RECORDING, Say, run, write_metrics
from market.recording import Recording
from models import evaluate
from models.policy import Costs
from models.validation import SESSIONS_MIN, Settings, study_at


def main(say: Say) -> None:
    params = params_file.load()
    info = Recording.open(RECORDING).info
    fee_bps = {i.ticker: params.fee_ppm(i, info.tariff) / 100.0 for i in info.instruments}
    costs = Costs(params.horizon_ns, params.latency_ns, params.costs.slippage_ticks)
    sessions = len({day for days in info.days.values() for day in days})
    settings = Settings(costs, fee_bps, params.seed, params.threads)
    found = computed(
        "cross_validate", params.compute,
        lambda pool: study_at(FEATURES, LABELS, settings, say, partial(pool.map, name="split")),
        parts=sessions if sessions >= SESSIONS_MIN else 0,
    )  # fmt: skip
    write_metrics("cross_validate", evaluate.rounded(found))
    missing = found["cpcv"].get("missing")
    say(missing or f"median Sharpe ratio of the paths {found['cpcv']['median']:.3f} a bin of time")


if __name__ == "__main__":
    run("cross_validate", main)
