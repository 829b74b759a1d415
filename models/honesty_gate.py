"""Would the promotion gate let the nulls through, and does it let the tradable plant? Through the product's
own code: its trees, its calibration with Optuna, its trade simulator, its scores, its gate.

Each block is a whole simulated day, so that none of them knows only one side of the intraday U: *fit*,
*calibrate*, *threshold*, *score*. Of the four learners only the trees are trained (their weight is then 1).
What a bundle on disk would have to prove (signature, golden rows, parity of exported files, latency) is
granted here, so that edge and calibration alone decide.

Two lists of trades are judged. *Calibrated*: what the calibration decided, down to "do not trade". *Forced*:
the strongest tenth of the forecasts is traded whatever the costs, so that there are plenty of trades and the
gate cannot refuse for want of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.batch import compute
from features.schema import SEASONAL, schema_hash
from market.fees import tariff
from market.types import NANO
from models import calibrate, evaluate, gate, gbdt, learner, splits, trade_sim
from models.honesty import (
    F64,
    HORIZON_S,
    I64,
    LATENCY_S,
    TOP_SHARE,
    Paths,
    Progress,
    Tier,
    simulate,
)
from models.labels import PPM_PER_BP, VOID, make_labels

DAYS = {
    "2026-01-13": "fit", "2026-01-14": "calibrate", "2026-01-15": "threshold", "2026-01-16": "score",
}  # fmt: skip
TRIALS = 20
MEMBER = gbdt.NAME
GRANTED: Mapping[str, Any] = {
    "watermark": "SIMULATED", "signed": True, "golden_ok": True, "latency_p99_us": 0.0,
    "quantisation": {"passed": True, "members": {MEMBER: {"passed": True, "accuracy_lost_points": 0.0}}},
}  # fmt: skip
"""Facts of a bundle that this test does not make."""


@dataclass(frozen=True, slots=True)
class GateRun:
    """What the gate says for ``prod`` about one tier and seed, with the gate's own default limits."""

    tier: str
    seed: int
    tariff: str
    calibrated: gate.GateResult
    forced: gate.GateResult
    edge: Mapping[str, Any]
    forced_edge: Mapping[str, Any]
    calibration: Mapping[str, float]
    statistics: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Either list of trades was let through."""
        return self.calibrated.passed or self.forced.passed

    def to_dict(self) -> dict[str, Any]:
        return evaluate.rounded(
            {
                "tier": self.tier, "seed": self.seed, "tariff": self.tariff,
                "calibrated": {"passed": self.calibrated.passed, "refusals": self.calibrated.refusals},
                "forced": {"passed": self.forced.passed, "refusals": self.forced.refusals},
                "edge": self.edge, "forced_edge": self.forced_edge, "calibration": self.calibration,
                "statistics": self.statistics,
            }
        )  # fmt: skip


def run_gate(
    tier: Tier, seed: int, hours: float, *, tariff_name: str = "simulated", trials: int = TRIALS,
    progress: Progress = lambda _: None,
) -> GateRun:  # fmt: skip
    """Simulate four days of ``hours``, run the short line on them and ask the gate."""
    return judge(tier, seed, simulate(tier, seed, hours, tuple(DAYS)), tariff_name, trials, progress)


def judge(tier: Tier, seed: int, paths: Paths, tariff_name: str, trials: int, progress: Progress) -> GateRun:
    days = _Joined(paths, tariff_name)
    with tempfile.TemporaryDirectory(prefix="honesty-") as folder:
        logp = days.forecast(Path(folder), seed, progress)
        market = days.market(logp)
        costs = calibrate.Costs(round(HORIZON_S * NANO), round(LATENCY_S * NANO))
        chosen = calibrate.calibrate(
            [market], {MEMBER: 1.0}, costs, Path(folder), seed=seed, trials=trials, progress=progress
        )
        found = json.loads((Path(folder) / "calibration.json").read_text())["statistics"]
    tempered = learner.log_softmax(logp.astype(np.float64) / chosen["temperature"])
    prior = evaluate.shares(days.y[days.series.blocks["fit"] & days.series.labelled])
    judged = days.series.blocks["score"] & days.series.labelled
    figures = evaluate.rounded(evaluate.classification(tempered[judged], days.y[judged], prior))

    p = np.exp(tempered.astype(np.float64))
    policy = chosen["instruments"][market.ticker]
    expected = calibrate.expected_bps(p, policy["move_bps_per_score"], policy["conformal_quantiles"])
    usual = None
    if policy["threshold_bps"] is not None:
        usual = trade_sim.Policy(policy["threshold_bps"], chosen["exit_move_bps"], chosen["stop_multiplier"])
    edge = days.trade(expected, usual, seed)
    # The forced trader needs a direction, not a size: a fitted slope of zero would leave it without either.
    score = p[:, 2] - p[:, 0]
    forced = days.trade(*days.strongest(score), seed)
    return GateRun(
        tier.name,
        seed,
        tariff_name,
        _ask(edge, figures, found),
        _ask(forced, figures, found),
        edge,
        forced,
        figures,
        found,
    )


def _ask(
    edge: Mapping[str, Any], calibration: Mapping[str, float], statistics: Mapping[str, Any]
) -> gate.GateResult:
    schema = schema_hash()
    facts = {
        **GRANTED, "schema": schema, "schema_now": schema, "edge": edge, "calibration": calibration,
        "statistics": statistics,
    }  # fmt: skip
    return gate.evaluate(facts, "prod")


class _Joined:
    """All days in one line of rows, as the product's data set has them."""

    def __init__(self, paths: Paths, tariff_name: str) -> None:
        tables = [compute(day) for day in paths.seen]
        returns = tables if paths.paid is paths.seen else [compute(day) for day in paths.paid]
        fee_ppm = tariff(tariff_name).ppm(paths.paid[0].instrument)
        labels = [
            make_labels(d, t, horizon_s=HORIZON_S, latency_s=LATENCY_S, fee_ppm=fee_ppm, theta_bps=0.0)
            for d, t in zip(paths.paid, returns, strict=True)
        ]
        self.fee_bps = fee_ppm / PPM_PER_BP
        self.recv_ns = np.concatenate([t.recv_ns for t in returns])
        self.mid2 = np.concatenate([t.mid2 for t in returns])
        self.spread = np.concatenate([t.spread for t in returns])
        self.move_bps = np.concatenate([part.move_bps for part in labels])
        self.day: I64 = np.repeat(np.arange(len(returns)), [len(t) for t in returns])
        y = np.concatenate([part.y for part in labels]).astype(np.int64)
        self.y = np.where(y == VOID, -1, y)
        spans = [int(t.recv_ns[0]) for t in returns] + [int(returns[-1].recv_ns[-1]) + 1]
        cut = tuple(zip(DAYS.values(), spans[:-1], spans[1:], strict=True))
        blocks = splits.Blocks(cut, purge_ns=round((HORIZON_S + LATENCY_S) * NANO))
        code = blocks.code(self.recv_ns)
        self.series = learner.Series(
            paths.paid[0].instrument.ticker, np.concatenate([t.X for t in tables]), self.y,
            np.concatenate([t.usable for t in tables]), np.diff(self.day, prepend=-1) != 0,
            {name: code == blocks.index(name) for name in blocks.names}, self.recv_ns,
            np.concatenate([part.exit_ns for part in labels]), SEASONAL,
        )  # fmt: skip

    def forecast(self, folder: Path, seed: int, progress: Progress) -> learner.F32:
        """Log-probabilities of every usable row, float32 [n, 3], by the product's trees."""
        import lightgbm as lgb

        gbdt.train([self.series], folder, seed=seed, threads=1, progress=progress)
        trees = lgb.Booster(model_file=str(folder / "model.txt"))
        (silenced,) = learner.series_of([self.series])
        logp = np.full((len(self.y), 3), np.nan, np.float32)
        usable = self.series.usable
        logp[usable] = gbdt.log_of(trees.predict(silenced.X[usable], num_threads=1))
        return logp

    def market(self, logp: learner.F32) -> calibrate.Market:
        s = self.series
        return calibrate.Market(
            s.ticker, self.recv_ns, self.mid2, self.spread, self.y, self.move_bps, s.blocks["calibrate"],
            s.blocks["threshold"], self.day, self.fee_bps, {MEMBER: logp},
        )  # fmt: skip

    def strongest(self, score: F64) -> tuple[F64, trade_sim.Policy]:
        """Forecasts so large that no cost matters where the score is in the top tenth of block ``score`` (a
        rank that knows no outcome), 0 elsewhere; and a policy that takes them and holds to the horizon."""
        seen = np.abs(score[self.series.blocks["score"] & np.isfinite(score)])
        strong = np.abs(score) >= np.quantile(seen, 1.0 - TOP_SHARE)
        huge = 1e6
        return np.where(strong, huge * np.sign(score), 0.0), trade_sim.Policy(0.0, 1.0, 0.0)

    def trade(self, expected: F64, policy: trade_sim.Policy | None, seed: int) -> dict[str, Any]:
        """What the gate asks about block ``score``; no policy, no trades."""
        if policy is None:
            return {"block": "score", "trades": 0}
        rows = self.series.blocks["score"]
        span = slice(int(np.flatnonzero(rows)[0]), int(np.flatnonzero(rows)[-1]) + 1)
        recv_ns, mid2 = self.recv_ns[span], self.mid2[span]
        known = np.where(self.series.usable[span], np.rint(1000.0 * expected[span]) / 1000.0, np.nan)
        trips = trade_sim.simulate(
            recv_ns, mid2, self.spread[span], known, trade_sim.average_true_range(recv_ns, mid2), policy,
            horizon_ns=round(HORIZON_S * NANO), latency_ns=round(LATENCY_S * NANO), fee_bps=self.fee_bps,
        )  # fmt: skip
        return {
            "block": "score",
            **evaluate.rounded(evaluate.trade_summary(trips.net_bps, trips.gross_bps, seed=seed)),
        }
