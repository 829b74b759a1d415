"""Is the candidate better than the version that holds ``prod``, on the same recent market?

Both trade block *score* of the folder's recording with the runner's own engine and the same costs. The
comparison is paired: net result per slice of market time, candidate minus incumbent, with the lower bound of
a block bootstrap. A better mean alone is not enough, and doing nothing is a result (0) like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows import params as params_file
from flows.stages.backtest import WARMUP_NS
from flows.stages.common import BLOCKS, RECORDING, read_json
from live import backtest
from live.config import engine_config
from live.config_schema import RunnerConfig, Session
from market.errors import ScalperError
from market.recording import Recording
from models.bootstrap import interval
from models.bundle import Bundle
from models.gate import Check

NAME = "beats_incumbent_rub"
SLICE_NS = 60_000_000_000
"""Length of one paired observation: longer than a trade's horizon, short enough for many of them."""
SEED = 7


@dataclass(frozen=True, slots=True)
class Comparison:
    """Net result per slice in roubles, candidate minus incumbent, with its interval."""

    candidate_rub: float
    incumbent_rub: float
    slices: int
    mean_rub: float
    low_rub: float
    high_rub: float

    @property
    def better(self) -> bool:
        return self.low_rub > 0


def check(workdir: Path, candidate: Bundle, champion: Bundle, number: int) -> Check:
    """The gate's row about version ``number``, the incumbent."""
    if candidate.sha256 == champion.sha256:
        return Check(NAME, "the same bundle", "lower bound > 0", True, "")
    try:
        found = compare(workdir, candidate, champion)
    except ScalperError as error:
        text = f"it could not be compared with version {number}: {error}"
        return Check(NAME, None, "lower bound > 0", False, text)
    shown = f"{found.mean_rub:+.4g} [{found.low_rub:+.4g}, {found.high_rub:+.4g}] a minute"
    reason = "" if found.better else (
        f"on the same {found.slices} minutes it ends at {found.candidate_rub:+,.2f} RUB net and version "
        f"{number}, "
        f"which holds prod, at {found.incumbent_rub:+,.2f}: the lower bound of the difference is not above 0."
    )  # fmt: skip
    return Check(NAME, shown, "lower bound > 0", found.better, reason)


def compare(workdir: Path, candidate: Bundle, champion: Bundle) -> Comparison:
    """Both on block *score*; ScalperError where the recording is missing or lacks an instrument."""
    blocks = {name: (int(a), int(b)) for name, a, b in read_json(workdir / BLOCKS)["blocks"]}
    from_ns, to_ns = blocks["score"]
    recording = Recording.open(workdir / RECORDING)
    params = params_file.load(workdir / params_file.PARAMS)
    ours, theirs = (
        _net_by_slice(recording, params, bundle, from_ns, to_ns) for bundle in (candidate, champion)
    )
    return paired(ours, theirs)


def paired(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Comparison:
    """Two series of net results of the same slices, float64 [slices]."""
    found = interval(ours - theirs, seed=SEED)
    return Comparison(
        float(ours.sum()),
        float(theirs.sum()),
        len(ours),
        float((ours - theirs).mean()),
        found.low,
        found.high,
    )


def _net_by_slice(
    recording: Recording, params: params_file.Params, bundle: Bundle, from_ns: int, to_ns: int
) -> NDArray[np.float64]:
    """Roubles net of fees of the round trips that ended in each slice, float64 [slices]."""
    info = recording.info
    fee_ppm = {i.ticker: params.fee_ppm(i, info.tariff) for i in info.instruments}
    # The clock of a recording is not the clock of a trading day: the session window stays out of it.
    config = engine_config(RunnerConfig(session=Session(enabled=False)), fee_ppm)
    result = backtest.run(
        recording, bundle, config, from_ns=from_ns, to_ns=to_ns, warmup_ns=WARMUP_NS,
        slippage_ticks=params.costs.slippage_ticks,
    )  # fmt: skip
    net = np.zeros(max(1, -(-(to_ns - from_ns) // SLICE_NS)))
    for trip in result.trips:
        net[min((int(trip["exit_ns"]) - from_ns) // SLICE_NS, len(net) - 1)] += trip["net_nano"] / 1e9
    return net
