"""From scores to a policy: temperature, basis points per score, abstention, thresholds; or the finding that
there is no edge.

Everything is fitted on the outputs of the *exported* models. Temperature, slopes and the conformal quantiles
come from block ``calibrate``, the policy from block ``threshold`` by Optuna (``models.policy_search``); later
blocks are cut off before anything is computed. Whether the search is believed is decided by
``models.evidence``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import evaluate, evidence, learner
from models.learner import F64, I64, Progress
from models.policy import (
    CONFIDENCE_Z,
    NO_EVIDENCE,
    Choice,
    Costs,
    Market,
    Played,
    Player,
    Prepared,
    expected_bps,
    fit_slope,
    stretches,
)
from models.policy_search import PLAIN_TRIED, Search, csv_of, run_trials

__all__ = [
    "Choice", "Costs", "Market", "calibrate", "expected_bps", "fit_slope", "fit_temperature", "stretches",
]  # fmt: skip

MIN_TRADES = 10
"""Fewer round trips than this on block ``threshold`` are no evidence: the instrument is not traded."""


def calibrate(
    markets: Sequence[Market], weights: Mapping[str, float], costs: Costs, out_dir: Path, *,
    seed: int, threads: int = 1, trials: int = 60, min_trades: int = MIN_TRADES, cap: float = 0.6,
    alpha: float = 0.2, batch: int = 1, search: Search = run_trials, progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """Fit and search; writes ``ensemble.json``, ``calibration.json``, ``trials.csv``, ``trials.npz``; returns
    ``ensemble.json``.

    ``weights`` by member from ``ensemble_weights.json``. A ticker whose lower bound of net profit is not
    above zero gets ``threshold_bps`` null: do not trade. ``alpha``: of the rows that go down, at most this
    share may be bought, and the reverse (conformal abstention; 0: never abstain). ``batch``: trials that are
    asked for together. ``search``: ``run_trials``, or the same by other processes.
    """
    with learner.fixed_threads(threads):
        player = Player([Prepared.of(m, weights) for m in markets], weights, costs, cap, min_trades, alpha)
        temperature = fit_temperature(player.stacked(weights), player.outcomes())
        progress(f"calibrate: temperature {temperature:.3f}, {len(markets)} instruments, {trials} trials")
        tried = search(player, temperature, trials, seed, progress, batch=batch)
        found = evidence.overfitting(tried.returns)
        trusted, why = evidence.believed(found)
        kept = tried.best if trusted else 0
        best = tried.choices[kept]
        progress(f"calibrate: {why}")
        outcomes = [player.play(p, best) for p in player.prepared]
        sharpes = [t["sharpe"] for t in tried.log if t["trades"] > 0]
        table = {o.ticker: _verdict(o, min_trades, sharpes) for o in outcomes}
        traded = [o.returns for o in outcomes if table[o.ticker]["trade"]]
        returns = np.sum(traded, axis=0) if traded else np.zeros(len(player.bins))
        choices = PLAIN_TRIED + len(tried.log) * len(markets)
        dsr = evidence.deflated(returns, tried.returns, choices)
        result = {
            "members": dict(best.weights), "temperature": best.temperature,
            "instruments": {
                o.ticker: {
                    "move_bps_per_score": round(o.slope, 6),
                    "threshold_bps": round(o.threshold_bps, 6) if table[o.ticker]["trade"] else None,
                    "conformal_quantiles": list(o.quantile) if o.quantile else None,
                }
                for o in outcomes
            },
            "exit_move_bps": best.exit_move_bps, "stop_multiplier": best.stop_multiplier,
        }  # fmt: skip
        top = max(t["objective"] for t in tried.log)
        report = {
            "trials": len(tried.log), "best_trial": tried.log[tried.best]["number"],
            "kept_trial": tried.log[kept]["number"],
            "objective_bps_per_hour": top if top > NO_EVIDENCE else None,
            "temperature_fitted": temperature,
            "chosen": {
                "threshold_cost_share": best.threshold_cost_share, "exit_move_bps": best.exit_move_bps,
                "stop_multiplier": best.stop_multiplier, "temperature": best.temperature,
                "weights": dict(best.weights),
            },
            "confidence_z": CONFIDENCE_Z, "min_trades": min_trades,
            "statistics": {
                "dsr": dsr, "pbo": found, "searched": trusted, "why": why,
                "choices": choices, "bin_s": player.bin_ns / 1e9,
            },
            "alpha": alpha,
            "abstention": {
                p.market.ticker: player.abstaining(p, best, o.quantile)
                for p, o in zip(player.prepared, outcomes, strict=True)
            },
            "probabilities": player.probabilities(weights, best), "instruments": table,
        }  # fmt: skip
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    learner.save_text(out_dir / "trials.csv", csv_of(tried.log))
    learner.save_npz(out_dir / "trials.npz", {"bins": player.bins * player.bin_ns, "net_bps": tried.returns})
    learner.save_json(out_dir / "calibration.json", evaluate.rounded(report))
    learner.save_json(out_dir / "ensemble.json", evaluate.rounded(result))
    for ticker, row in table.items():
        progress(f"calibrate: {ticker}: {row['verdict']}")
    return evaluate.rounded(result)


def fit_temperature(blended: F64, y: I64) -> float:
    """Temperature in [1/8, 8] with the least log-loss of ``softmax(blended / T)`` (Guo et al. 2017), by
    sections.
    """
    low, high = math.log(0.125), math.log(8.0)
    golden = (math.sqrt(5.0) - 1.0) / 2.0

    def loss(x: float) -> float:
        return evaluate.log_loss(learner.log_softmax(blended / math.exp(x)), y)

    if len(y) == 0:
        return 1.0
    a, b = high - golden * (high - low), low + golden * (high - low)
    fa, fb = loss(a), loss(b)
    for _ in range(40):
        if fa <= fb:
            high, b, fb = b, a, fa
            a = high - golden * (high - low)
            fa = loss(a)
        else:
            low, a, fa = a, b, fb
            b = low + golden * (high - low)
            fb = loss(b)
    return round(math.exp((low + high) / 2.0), 6)


def _verdict(o: Played, min_trades: int, trial_sharpes: Sequence[float]) -> dict[str, Any]:
    """One instrument's row of the report: trade or not, and the sentence that says why."""
    lower = o.lower_bps_per_hour
    if o.slope <= 0:
        trade, why = False, "scores do not follow the moves of block 'calibrate'"
    elif len(o.net_bps) < min_trades:
        trade, why = False, f"{len(o.net_bps)} trades on block 'threshold', at least {min_trades} are needed"
    elif lower <= 0:
        trade, why = False, f"lower bound of the net result is {lower:.2f} bps an hour"
    elif o.witness_net_bps <= 0:
        trade, why = False, f"the same policy loses on block 'calibrate' ({o.witness_net_bps:.2f} bps net)"
    else:
        trade, why = True, f"lower bound {lower:.2f} bps an hour over {len(o.net_bps)} trades"
    return {
        "trade": trade, "verdict": ("trade: " if trade else "do not trade: ") + why, "slope_bps": o.slope,
        "slope_t": o.slope_t, "usual_cost_bps": o.usual_cost_bps, "threshold_bps": o.threshold_bps,
        "lower_bps_per_hour": lower, "net_bps_per_hour": float(o.bins_bps.mean() * o.per_hour),
        "bins": len(o.bins_bps), "deflated_sharpe": evaluate.deflated_sharpe(o.bins_bps, trial_sharpes),
        "threshold": evaluate.trade_summary(o.net_bps, o.gross_bps),
        "calibrate": {"trades": o.witness_trades, "net_bps": o.witness_net_bps},
    }  # fmt: skip
