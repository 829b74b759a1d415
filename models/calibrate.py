"""From scores to a policy: temperature, basis points per score, thresholds; or the finding that there is no
edge.

Everything is fitted on the outputs of the *exported* models. Temperature and slopes come from block
``calibrate``, the policy from block ``threshold`` by Optuna; later blocks are cut off before anything is
computed. The objective is the lower confidence bound of net basis points an hour, so a lucky handful of
trades does not win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import ensemble, evaluate, learner, trade_sim
from models.learner import F32, F64, I64, Mask, Progress

HOUR_NS = 3_600_000_000_000
MIN_TRADES = 10
"""Fewer round trips than this on block ``threshold`` are no evidence: the instrument is not traded."""
NO_EVIDENCE = -1e6
"""Objective of a trial with too few trades everywhere, below every real one."""
CONFIDENCE_Z = 1.645
TILT = 0.3
"""How far (in logs) the search may push a member's weight, and its square root bounds the temperature's
tilt.
"""


@dataclass(frozen=True, slots=True)
class Market:
    """One instrument for calibration, ``n`` rows of blocks ``calibrate`` and ``threshold`` only.

    ``recv_ns``, ``mid2_ticks`` (best bid + ask, 0 = one-sided): int64 [n]; ``spread_ticks``: int32 [n];
    ``y``: int64 [n], -1 = void; ``move_bps``: float32 [n], the mid's move over the label horizon; ``logp``:
    float32 [n, 3] by member, NaN = no score; ``calibrate``, ``threshold``: bool [n]; ``day``: int64 [n],
    stretches never bridged.
    """

    ticker: str
    recv_ns: I64
    mid2_ticks: I64
    spread_ticks: NDArray[np.int32]
    y: I64
    move_bps: F32
    calibrate: Mask
    threshold: Mask
    day: I64
    fee_bps: float
    logp: Mapping[str, F32]


@dataclass(frozen=True, slots=True)
class Costs:
    """Facts that a decision pays for; ``slippage_ticks`` a side on top of the touch."""

    horizon_ns: int
    latency_ns: int
    slippage_ticks: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of the search. ``threshold_cost_share``: threshold as a share of the instrument's usual
    cost.
    """

    weights: Mapping[str, float]
    temperature: float
    threshold_cost_share: float
    exit_move_bps: float
    stop_multiplier: float


def calibrate(
    markets: Sequence[Market], weights: Mapping[str, float], costs: Costs, out_dir: Path, *,
    seed: int, threads: int = 1, trials: int = 60, min_trades: int = MIN_TRADES, cap: float = 0.6,
    progress: Progress = print,
) -> dict[str, Any]:  # fmt: skip
    """Fit and search; writes ``ensemble.json``, ``calibration.json``, ``trials.csv``; returns
    ``ensemble.json``.

    ``weights`` by member from ``ensemble_weights.json``. A ticker whose lower bound of net profit is not
    above zero gets ``threshold_bps`` null: do not trade.
    """
    with learner.fixed_threads(threads):
        search = _Search([_Prepared.of(m, weights) for m in markets], weights, costs, cap, min_trades)
        temperature = fit_temperature(search.stacked(weights), search.outcomes())
        progress(f"calibrate: temperature {temperature:.3f}, {len(markets)} instruments, {trials} trials")
        best, log = _run_trials(search, temperature, trials, seed, progress)
        # What is stored is what is judged: the file's decimals, not the search's.
        best = Choice(best.weights, *(round(v, 6) for v in (
            best.temperature, best.threshold_cost_share, best.exit_move_bps, best.stop_multiplier,
        )))  # fmt: skip
        outcomes = [search.play(p, best) for p in search.prepared]
        sharpes = [t["sharpe"] for t in log if t["trades"] > 0]
        table = {o.ticker: _verdict(o, min_trades, sharpes) for o in outcomes}
        result = {
            "members": dict(best.weights), "temperature": best.temperature,
            "instruments": {
                o.ticker: {
                    "move_bps_per_score": round(o.slope, 6),
                    "threshold_bps": round(o.threshold_bps, 6) if table[o.ticker]["trade"] else None,
                }
                for o in outcomes
            },
            "exit_move_bps": best.exit_move_bps, "stop_multiplier": best.stop_multiplier,
        }  # fmt: skip
        top = max(t["objective"] for t in log)
        report = {
            "trials": len(log),
            "best_trial": max(log, key=lambda t: (t["objective"], -t["number"]))["number"],
            "objective_bps_per_hour": top if top > NO_EVIDENCE else None,
            "temperature_fitted": temperature,
            "chosen": {
                "threshold_cost_share": best.threshold_cost_share, "exit_move_bps": best.exit_move_bps,
                "stop_multiplier": best.stop_multiplier, "temperature": best.temperature,
                "weights": dict(best.weights),
            },
            "confidence_z": CONFIDENCE_Z, "min_trades": min_trades,
            "probabilities": search.probabilities(weights, best), "instruments": table,
        }  # fmt: skip
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    learner.save_text(out_dir / "trials.csv", _csv(log))
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


def fit_slope(score: F64, move_bps: F64) -> float:
    """Basis points per unit of ``p_up - p_down``: least squares through the origin, never negative."""
    power = float(score @ score)
    return max(0.0, float(score @ move_bps) / power) if power > 0 else 0.0


# --- inside ---


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A market cut to its two blocks, with what does not change from trial to trial."""

    market: Market
    logp: F64  # [members, n, 3]
    scored: Mask
    atr_bps: F64

    @classmethod
    def of(cls, m: Market, weights: Mapping[str, float]) -> _Prepared:
        calibrate, threshold = _span(m.calibrate), _span(m.threshold)
        keep = calibrate | threshold
        cut = Market(
            m.ticker, m.recv_ns[keep], m.mid2_ticks[keep], m.spread_ticks[keep], m.y[keep], m.move_bps[keep],
            calibrate[keep], threshold[keep], m.day[keep], m.fee_bps, {},
        )  # fmt: skip
        if not cut.threshold.any() or not cut.calibrate.any():
            raise learner.TrainingError(
                f"{m.ticker} has no rows in block 'calibrate' or 'threshold': record more or change the split"
            )
        missing = [k for k in weights if k not in m.logp]
        if missing:
            raise learner.TrainingError(
                f"{m.ticker} has no scores of {', '.join(missing)}: export every member that has a weight"
            )
        logp = np.stack([np.asarray(m.logp[k], np.float64)[keep] for k in weights])
        scored: Mask = np.asarray(np.isfinite(logp).all(axis=(0, 2)))
        atr = np.concatenate(
            [
                trade_sim.average_true_range(cut.recv_ns[d], cut.mid2_ticks[d])
                for d in _stretches(cut.day, np.ones(len(cut.day), bool))
            ]
        )
        return cls(cut, np.nan_to_num(logp), scored, atr)


@dataclass(frozen=True, slots=True)
class _Played:
    """One instrument played by one choice on block ``threshold`` (and ``calibrate`` as a witness)."""

    ticker: str
    slope: float
    slope_t: float
    threshold_bps: float
    usual_cost_bps: float
    net_bps: F64
    gross_bps: F64
    bins_bps: F64  # net per bin of time, equal bins over the block
    per_hour: float  # bins an hour
    witness_net_bps: float
    witness_trades: int

    @property
    def lower_bps_per_hour(self) -> float:
        return evaluate.lower_bound(self.bins_bps, CONFIDENCE_Z) * self.per_hour if len(self.net_bps) else 0.0


class _Search:
    """Everything a trial needs. Holds no row outside blocks ``calibrate`` and ``threshold``."""

    def __init__(
        self,
        prepared: Sequence[_Prepared],
        weights: Mapping[str, float],
        costs: Costs,
        cap: float,
        min_trades: int,
    ) -> None:
        self.prepared, self.base, self.costs, self.cap = prepared, dict(weights), costs, cap
        self.min_trades = min_trades
        self.bin_ns = max(30_000_000_000, 3 * (costs.horizon_ns + costs.latency_ns))
        self.usual_cost = {p.market.ticker: self._usual_cost(p) for p in prepared}
        self.median_cost = float(np.median(list(self.usual_cost.values())))

    def _usual_cost(self, p: _Prepared) -> float:
        m = p.market
        cost = trade_sim.cost_bps(
            m.mid2_ticks, m.spread_ticks, fee_bps=m.fee_bps, slippage_ticks=self.costs.slippage_ticks
        )[m.calibrate & (m.mid2_ticks > 0)]
        return float(np.median(cost)) if len(cost) else 0.0

    def _fitted(self, p: _Prepared) -> Mask:
        return p.market.calibrate & p.scored & (p.market.y >= 0)

    def stacked(self, weights: Mapping[str, float]) -> F64:
        return np.concatenate([self.blend(p, weights)[self._fitted(p)] for p in self.prepared])

    def outcomes(self) -> I64:
        return np.concatenate([p.market.y[self._fitted(p)] for p in self.prepared])

    def blend(self, p: _Prepared, weights: Mapping[str, float]) -> F64:
        return np.tensordot(np.array([weights[k] for k in self.base]), p.logp, 1)

    def play(self, p: _Prepared, choice: Choice) -> _Played:
        """Refit the slope on block ``calibrate``, then trade both blocks."""
        m = p.market
        prob = np.exp(
            learner.log_softmax(self.blend(p, choice.weights) / choice.temperature).astype(np.float64)
        )
        score = prob[:, 2] - prob[:, 0]
        rows = m.calibrate & p.scored & np.isfinite(m.move_bps)
        slope = round(fit_slope(score[rows], m.move_bps[rows].astype(np.float64)), 6)
        # The engine sees whole thousandths of a basis point.
        expected = np.where(p.scored, np.rint(1000.0 * slope * score) / 1000.0, np.nan)
        threshold_bps = round(choice.threshold_cost_share * self.usual_cost[m.ticker], 6)
        policy = trade_sim.Policy(threshold_bps, choice.exit_move_bps, choice.stop_multiplier)
        net, gross, at = self._trade(p, expected, policy, m.threshold)
        witness, _, _ = self._trade(p, expected, policy, m.calibrate)
        bins = self._bins(m.recv_ns[m.threshold], at, net)
        return _Played(
            m.ticker, slope, self._slope_t(p, score, rows, slope), threshold_bps, self.usual_cost[m.ticker],
            net, gross, bins, HOUR_NS / self.bin_ns, float(witness.sum()), len(witness),
        )  # fmt: skip

    def _trade(
        self, p: _Prepared, expected: F64, policy: trade_sim.Policy, block: Mask
    ) -> tuple[F64, F64, I64]:
        m, parts = p.market, []
        for s in _stretches(m.day, block):
            parts.append(
                trade_sim.simulate(
                    m.recv_ns[s], m.mid2_ticks[s], m.spread_ticks[s], expected[s], p.atr_bps[s], policy,
                    horizon_ns=self.costs.horizon_ns, latency_ns=self.costs.latency_ns, fee_bps=m.fee_bps,
                    slippage_ticks=self.costs.slippage_ticks,
                )
            )  # fmt: skip
        return (
            np.concatenate([t.net_bps for t in parts]), np.concatenate([t.gross_bps for t in parts]),
            np.concatenate([t.exit_ns for t in parts]),
        )  # fmt: skip

    def _bins(self, recv_ns: I64, at: I64, net: F64) -> F64:
        """Net bps by bin of time; bins without a book row (nights) do not exist, bins without a trade are
        zero.
        """
        seen = np.unique(recv_ns // self.bin_ns)
        slot = np.searchsorted(seen, at // self.bin_ns)
        return np.bincount(np.minimum(slot, len(seen) - 1), net, minlength=len(seen)).astype(np.float64)

    def _slope_t(self, p: _Prepared, score: F64, rows: Mask, slope: float) -> float:
        """t value of the slope with errors clustered in bins of time, as labels of neighbours overlap."""
        m = p.market
        power = float(score[rows] @ score[rows])
        if power == 0:
            return 0.0
        bins = np.unique(m.recv_ns[rows] // self.bin_ns, return_inverse=True)[1]
        moment = np.bincount(bins, score[rows] * (m.move_bps[rows] - slope * score[rows]))
        error = math.sqrt(float(moment @ moment)) / power
        return slope / error if error > 0 else 0.0

    def objective(self, played: Sequence[_Played]) -> float:
        """Net bps an hour, lower bound, over the instruments that would be traded at all.

        An instrument with a bound below zero ends as "do not trade" and costs nothing. If all are below,
        the least bad one tells the search which way is up; not trading at all is the verdict's business, for
        an idle trial would end the search here.
        """
        bounds = [o.lower_bps_per_hour for o in played if len(o.net_bps) >= self.min_trades]
        if not bounds:
            return NO_EVIDENCE
        good = [b for b in bounds if b > 0]
        return float(sum(good)) if good else float(max(bounds))

    def probabilities(self, base: Mapping[str, float], best: Choice) -> dict[str, Any]:
        """Calibration of the probabilities before (raw blend) and after, on both blocks; curves after, per
        class.
        """
        out: dict[str, Any] = {}
        for name in ("calibrate", "threshold"):
            rows = [getattr(p.market, name) & p.scored & (p.market.y >= 0) for p in self.prepared]
            y = np.concatenate([p.market.y[r] for p, r in zip(self.prepared, rows, strict=True)])
            if len(y) == 0:
                continue
            before, after = (
                learner.log_softmax(
                    np.concatenate([self.blend(p, w)[r] for p, r in zip(self.prepared, rows, strict=True)])
                    / t
                )
                for w, t in ((base, 1.0), (best.weights, best.temperature))
            )
            out[name] = {
                "rows": len(y), "ece_before": evaluate.classwise_ece(np.exp(before), y),
                "ece_after": evaluate.classwise_ece(np.exp(after), y),
                "log_loss_before": evaluate.log_loss(before, y),
                "log_loss_after": evaluate.log_loss(after, y),
                "reliability": {
                    c: evaluate.reliability(np.exp(after), y, i) for i, c in enumerate(("down", "flat", "up"))
                },
            }  # fmt: skip
        return out


def _span(block: Mask) -> Mask:
    """The block from its first row to its last. A position is held over rows that no model may see."""
    at = np.flatnonzero(block)
    span = np.zeros(len(block), bool)
    if len(at):
        span[at[0] : at[-1] + 1] = True
    return span


def _stretches(day: I64, block: Mask) -> list[slice]:
    """Runs of neighbouring rows of one day inside a block, in order."""
    edge = np.ones(len(day), bool)
    edge[1:] = (day[1:] != day[:-1]) | (block[1:] != block[:-1])
    starts = np.flatnonzero(edge)
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(day)], strict=True) if block[a]]


def _run_trials(
    search: _Search, temperature: float, trials: int, seed: int, progress: Progress
) -> tuple[Choice, list[dict[str, Any]]]:
    """Optuna in one worker, in memory; the first trial is the plain choice. Returns the best and every
    trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [m for m, w in search.base.items() if w > 0]
    c = search.median_cost

    def choice(ask: Callable[[str, float, float], float]) -> Choice:
        tilts = {m: ask(f"tilt_{m}", -TILT, TILT) for m in names[1:]}
        raw = {m: w * math.exp(tilts.get(m, 0.0)) for m, w in search.base.items()}
        total = sum(raw.values())
        kept = {m: raw[m] / total for m in names}
        capped = ensemble.temper(kept, 0.0, search.cap) if max(kept.values()) > search.cap else kept
        return Choice(
            ensemble.normalised({m: capped.get(m, 0.0) for m in search.base}),
            temperature * math.exp(ask("temperature_tilt", -TILT / 2, TILT / 2)),
            ask("threshold_cost_share", 0.0, 1.0), ask("exit_move_share", -0.5, 1.0) * c,
            ask("stop_multiplier", 0.5, 3.0),
        )  # fmt: skip

    log: list[dict[str, Any]] = []
    choices: list[Choice] = []

    def objective(trial: optuna.Trial) -> float:
        picked = choice(trial.suggest_float)
        played = [search.play(p, picked) for p in search.prepared]
        value = search.objective(played)
        bins = np.concatenate([o.bins_bps for o in played])
        log.append(
            {
                "number": trial.number, "objective": value, "trades": sum(len(o.net_bps) for o in played),
                "net_bps": float(sum(o.net_bps.sum() for o in played)), "sharpe": evaluate.sharpe(bins),
                **trial.params,
            }
        )  # fmt: skip
        choices.append(picked)
        if (trial.number + 1) % 20 == 0:
            top = max(t["objective"] for t in log)
            said = (
                f"best lower bound {top:.2f} bps an hour" if top > NO_EVIDENCE else "none traded enough yet"
            )
            progress(f"calibrate: trial {trial.number + 1}/{trials}, {said}")
        return value

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
    )
    plain = {f"tilt_{m}": 0.0 for m in names[1:]} | {
        "temperature_tilt": 0.0, "threshold_cost_share": 0.25, "exit_move_share": 0.0, "stop_multiplier": 1.0,
    }  # fmt: skip
    study.enqueue_trial(plain)
    study.optimize(objective, n_trials=trials, n_jobs=1)
    best = max(range(len(log)), key=lambda i: (log[i]["objective"], -i))
    return choices[best], log


def _verdict(o: _Played, min_trades: int, trial_sharpes: Sequence[float]) -> dict[str, Any]:
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


def _csv(log: Sequence[Mapping[str, Any]]) -> str:
    columns = list(log[0])
    lines = [",".join(columns)]
    for t in log:
        lines.append(",".join(str(v) if isinstance(v := t[c], int) else f"{v:.6g}" for c in columns))
    return "\n".join(lines) + "\n"
