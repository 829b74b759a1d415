"""One policy played on the blocks ``calibrate`` and ``threshold``: slope, abstention, round trips, bins of
time.

Later blocks are cut off before anything is computed. What a policy is: weights of the members and a
temperature (the probabilities), basis points per score, a conformal quantile below which it abstains, and the
thresholds of ``models.trade_sim``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import conformal, evaluate, learner, trade_sim
from models.learner import F32, F64, I64, Mask

HOUR_NS = 3_600_000_000_000
NO_EVIDENCE = -1e6
"""Objective of a trial with too few trades everywhere, below every real one."""
CONFIDENCE_Z = 1.645
COVERAGES = (0.05, 0.1, 0.25, 0.5, 1.0)


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


def fit_slope(score: F64, move_bps: F64) -> float:
    """Basis points per unit of ``p_up - p_down``: least squares through the origin, never negative."""
    power = float(score @ score)
    return max(0.0, float(score @ move_bps) / power) if power > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A market cut to its two blocks, with what does not change from trial to trial."""

    market: Market
    logp: F64  # [members, n, 3]
    scored: Mask
    atr_bps: F64

    @classmethod
    def of(cls, m: Market, weights: Mapping[str, float]) -> Prepared:
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
                for d in stretches(cut.day, np.ones(len(cut.day), bool))
            ]
        )
        return cls(cut, np.nan_to_num(logp), scored, atr)


@dataclass(frozen=True, slots=True)
class Played:
    """One instrument played by one choice on block ``threshold`` (and ``calibrate`` as a witness)."""

    ticker: str
    slope: float
    slope_t: float
    quantile: tuple[float, float] | None
    threshold_bps: float
    usual_cost_bps: float
    net_bps: F64
    gross_bps: F64
    bins_bps: F64  # net per bin of time, equal bins over the block
    per_hour: float  # bins an hour
    returns: F64  # the same on the bins of all instruments, 0 where this one has none
    witness_net_bps: float
    witness_trades: int

    @property
    def lower_bps_per_hour(self) -> float:
        return evaluate.lower_bound(self.bins_bps, CONFIDENCE_Z) * self.per_hour if len(self.net_bps) else 0.0


class Player:
    """Everything a trial needs. Holds no row outside blocks ``calibrate`` and ``threshold``."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        weights: Mapping[str, float],
        costs: Costs,
        cap: float,
        min_trades: int,
        alpha: float,
    ) -> None:
        self.prepared, self.base, self.costs, self.cap = prepared, dict(weights), costs, cap
        self.min_trades, self.alpha = min_trades, alpha
        self.bin_ns = max(30_000_000_000, 3 * (costs.horizon_ns + costs.latency_ns))
        self.usual_cost = {p.market.ticker: self._usual_cost(p) for p in prepared}
        self.median_cost = float(np.median(list(self.usual_cost.values())))
        seen = [np.unique(p.market.recv_ns[p.market.threshold] // self.bin_ns) for p in prepared]
        self.bins = np.unique(np.concatenate(seen))

    def _usual_cost(self, p: Prepared) -> float:
        m = p.market
        cost = trade_sim.cost_bps(
            m.mid2_ticks, m.spread_ticks, fee_bps=m.fee_bps, slippage_ticks=self.costs.slippage_ticks
        )[m.calibrate & (m.mid2_ticks > 0)]
        return float(np.median(cost)) if len(cost) else 0.0

    def _fitted(self, p: Prepared) -> Mask:
        return p.market.calibrate & p.scored & (p.market.y >= 0)

    def stacked(self, weights: Mapping[str, float]) -> F64:
        return np.concatenate([self.blend(p, weights)[self._fitted(p)] for p in self.prepared])

    def outcomes(self) -> I64:
        return np.concatenate([p.market.y[self._fitted(p)] for p in self.prepared])

    def blend(self, p: Prepared, weights: Mapping[str, float]) -> F64:
        return np.tensordot(np.array([weights[k] for k in self.base]), p.logp, 1)

    def probability(self, p: Prepared, choice: Choice) -> F64:
        """Calibrated probabilities of every row, float64 [n, 3]."""
        blended = self.blend(p, choice.weights) / choice.temperature
        return np.exp(learner.log_softmax(blended).astype(np.float64))

    def abstention(self, p: Prepared, prob: F64) -> tuple[float, float] | None:
        """Conformal quantiles of down and up from block ``calibrate``, as the bundle stores them; None where
        nothing is asked of them (alpha 0)."""
        if self.alpha <= 0:
            return None
        rows = self._fitted(p)
        found = conformal.SplitConformal.fit(
            prob[rows], p.market.y[rows], alpha=self.alpha, by_class=True
        ).quantile
        # A class with too few rows is in every set: nothing is ever done against it.
        down, up = (round(min(1.0, float(q)), 6) for q in (found[0], found[2]))
        return down, up

    def abstaining(self, p: Prepared, choice: Choice, quantile: tuple[float, float] | None) -> dict[str, Any]:
        """What abstention does on both blocks: share of rows acted on, share of each side's outcomes that
        were acted against (at most alpha on exchangeable rows), and the risk-coverage curve of the calls."""
        prob, out = self.probability(p, choice), {}
        for name in ("calibrate", "threshold"):
            rows = getattr(p.market, name) & p.scored & (p.market.y >= 0)
            y, q = p.market.y[rows], prob[rows]
            side = allowed_sides(q, quantile)
            score = q[:, 2] - q[:, 0]
            wrong = y != np.where(score > 0, 2, 0)
            curve = conformal.risk_coverage(np.abs(score), wrong.astype(np.float64))
            out[name] = {
                "rows": int(rows.sum()), "acted": float(np.mean(side != 0)) if len(y) else None,
                "downs_bought": _share(side[y == 0] > 0), "ups_sold": _share(side[y == 2] < 0),
                "aurc": curve.aurc, "excess_aurc": curve.excess,
                "risk_at": {f"{c:g}": curve.at(c) for c in COVERAGES},
            }  # fmt: skip
        return out

    def play(self, p: Prepared, choice: Choice) -> Played:
        """Refit the slope on block ``calibrate``, then trade both blocks."""
        m = p.market
        prob = self.probability(p, choice)
        score = prob[:, 2] - prob[:, 0]
        rows = m.calibrate & p.scored & np.isfinite(m.move_bps)
        slope = round(fit_slope(score[rows], m.move_bps[rows].astype(np.float64)), 6)
        quantile = self.abstention(p, prob)
        expected = np.where(p.scored, expected_bps(prob, slope, quantile), np.nan)
        threshold_bps = round(choice.threshold_cost_share * self.usual_cost[m.ticker], 6)
        policy = trade_sim.Policy(threshold_bps, choice.exit_move_bps, choice.stop_multiplier)
        net, gross, at = self._trade(p, expected, policy, m.threshold)
        witness, _, _ = self._trade(p, expected, policy, m.calibrate)
        bins = self._bins(m.recv_ns[m.threshold], at, net)
        seen = np.unique(m.recv_ns[m.threshold] // self.bin_ns)
        returns = np.zeros(len(self.bins))
        returns[np.searchsorted(self.bins, seen)] = bins
        return Played(
            m.ticker, slope, self._slope_t(p, score, rows, slope), quantile, threshold_bps,
            self.usual_cost[m.ticker], net, gross, bins, HOUR_NS / self.bin_ns, returns,
            float(witness.sum()), len(witness),
        )  # fmt: skip

    def _trade(
        self, p: Prepared, expected: F64, policy: trade_sim.Policy, block: Mask
    ) -> tuple[F64, F64, I64]:
        m, parts = p.market, []
        for s in stretches(m.day, block):
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

    def _slope_t(self, p: Prepared, score: F64, rows: Mask, slope: float) -> float:
        """t value of the slope with errors clustered in bins of time, as labels of neighbours overlap."""
        m = p.market
        power = float(score[rows] @ score[rows])
        if power == 0:
            return 0.0
        bins = np.unique(m.recv_ns[rows] // self.bin_ns, return_inverse=True)[1]
        moment = np.bincount(bins, score[rows] * (m.move_bps[rows] - slope * score[rows]))
        error = math.sqrt(float(moment @ moment)) / power
        return slope / error if error > 0 else 0.0

    def objective(self, played: Sequence[Played]) -> float:
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


def allowed_sides(p: F64, quantile: tuple[float, float] | None) -> NDArray[np.int8]:
    """What may be done with each row, int8 [n]: 1 buy, -1 sell, 0 nothing; by the sign of the score where
    nothing is asked of a quantile."""
    # A row without a score has no side.
    score = np.nan_to_num(np.sign(p[:, 2] - p[:, 0])).astype(np.int8)
    if quantile is None:
        return score
    return np.where(conformal.one_sided(p[:, 0], p[:, 2], *quantile) == score, score, 0).astype(np.int8)


def expected_bps(p: F64, slope: float, quantile: tuple[float, float] | None) -> F64:
    """Expected move of each row in whole thousandths of a basis point, as the engine sees it; 0 where the
    policy abstains. float64 [n] from float64 [n, 3]."""
    score = p[:, 2] - p[:, 0]
    return np.where(allowed_sides(p, quantile) != 0, np.rint(1000.0 * slope * score) / 1000.0, 0.0)


def _share(hits: Mask) -> float | None:
    return float(np.mean(hits)) if len(hits) else None


def _span(block: Mask) -> Mask:
    """The block from its first row to its last. A position is held over rows that no model may see."""
    at = np.flatnonzero(block)
    span = np.zeros(len(block), bool)
    if len(at):
        span[at[0] : at[-1] + 1] = True
    return span


def stretches(day: I64, block: Mask) -> list[slice]:
    """Runs of neighbouring rows of one day inside a block, in order."""
    edge = np.ones(len(day), bool)
    edge[1:] = (day[1:] != day[:-1]) | (block[1:] != block[:-1])
    starts = np.flatnonzero(edge)
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(day)], strict=True) if block[a]]
