"""What a forecast and a list of trades are worth: scores, intervals and the odds that it was luck. NumPy
only.

Classes everywhere: 0 = down, 1 = flat, 2 = up. ``p`` is float [n, 3] probabilities, ``logp`` their
logarithms, ``y`` int [n] without void labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
CLASSES = 3
LOG_FLOOR = math.log(1e-7)
"""Lower end of every log-probability of the product; a certain wrong answer costs 16 nats, not infinity."""
EULER_GAMMA = 0.5772156649015329
_NORMAL = NormalDist()


# --- classification


def confusion(y: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Counts, int64 [true, predicted]."""
    pair = np.asarray(y, np.int64) * CLASSES + np.asarray(predicted, np.int64)
    return np.bincount(pair, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)


def macro_f1(y: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the classes that occur in ``y`` or in ``predicted`` (what scikit-learn averages)."""
    c = confusion(y, predicted)
    total = c.sum(0) + c.sum(1)
    seen = total > 0
    return float(np.mean(2.0 * np.diag(c)[seen] / total[seen])) if seen.any() else 0.0


def mcc(y: ArrayLike, predicted: ArrayLike) -> float:
    """Multi-class Matthews correlation (Gorodkin 2004); 0 where either side is constant."""
    return mcc_of(confusion(y, predicted).astype(np.float64))


def mcc_of(c: F64) -> float:
    """``mcc`` of counts, float64 [true, predicted]."""
    n, right, true, said = c.sum(), np.trace(c), c.sum(1), c.sum(0)
    spread = (n * n - said @ said) * (n * n - true @ true)
    return float((right * n - true @ said) / math.sqrt(spread)) if spread > 0 else 0.0


def log_loss(logp: ArrayLike, y: ArrayLike) -> float:
    """Mean negative log-probability of what happened, nats; floored at ``LOG_FLOOR``."""
    logp = np.asarray(logp, np.float64)
    y = np.asarray(y, np.int64)
    return float(-np.mean(np.maximum(logp[np.arange(len(y)), y], LOG_FLOOR))) if len(y) else math.nan


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared distance of the forecast from the outcome, summed over classes (0 best, 2 worst)."""
    p = np.asarray(p, np.float64)
    return float(np.mean(np.sum((p - np.eye(CLASSES)[np.asarray(y, np.int64)]) ** 2, axis=1)))


def brier_skill(p: ArrayLike, y: ArrayLike, prior: ArrayLike) -> float:
    """``1 - Brier / Brier of the constant forecast prior``: above 0 is better than climatology."""
    climate = brier(np.broadcast_to(np.asarray(prior, np.float64), np.shape(p)), y)
    return 1.0 - brier(p, y) / climate if climate > 0 else 0.0


def reliability(p: ArrayLike, y: ArrayLike, cls: int, bins: int = 15) -> list[dict[str, float]]:
    """Points of the reliability curve of one class: equal-width bins that hold rows, lowest first.

    Each is ``{"forecast": mean p, "observed": share that happened, "rows": count}``.
    """
    q = np.asarray(p, np.float64)[:, cls]
    hit = np.asarray(y) == cls
    slot = np.minimum((q * bins).astype(np.int64), bins - 1)
    rows = np.bincount(slot, minlength=bins)
    forecast, observed = np.bincount(slot, q, bins), np.bincount(slot, hit, bins)
    return [
        {
            "forecast": float(forecast[b] / rows[b]),
            "observed": float(observed[b] / rows[b]),
            "rows": int(rows[b]),
        }
        for b in np.flatnonzero(rows)
    ]


def classwise_ece(p: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error averaged over the classes (Kull et al. 2019), equal-width bins."""
    return float(np.mean([class_ece(p, y, c, bins) for c in range(CLASSES)]))


def class_ece(p: ArrayLike, y: ArrayLike, c: int, bins: int = 15) -> float:
    """Of one class: |forecast - observed| of each bin, weighted by its rows."""
    gaps = [b["rows"] * abs(b["forecast"] - b["observed"]) for b in reliability(p, y, c, bins)]
    return float(sum(gaps) / len(np.asarray(y)))


def classification(logp: ArrayLike, y: ArrayLike, prior: ArrayLike) -> dict[str, float]:
    """All scores of a forecast beside the constant forecast ``prior`` (class shares of the training rows)."""
    logp, prior = np.asarray(logp, np.float64), np.asarray(prior, np.float64)
    y = np.asarray(y, np.int64)
    p, predicted = np.exp(logp), np.argmax(logp, axis=1)
    climate = np.broadcast_to(np.log(np.maximum(prior, 1e-7)), logp.shape)
    return {
        "log_loss": log_loss(logp, y), "climatology_log_loss": log_loss(climate, y),
        "brier_skill": brier_skill(p, y, prior), "macro_f1": macro_f1(y, predicted), "mcc": mcc(y, predicted),
        "ece": classwise_ece(p, y),
    }  # fmt: skip


# --- intervals


def wilson(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion; ``n`` may be an effective (fractional) count. (0, 1) for n =
    0.
    """
    if n <= 0:
        return 0.0, 1.0
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share, z2 = hits / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # The interval holds the share; at 0 and n the rounding of the root may say otherwise by a last bit.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def block_bootstrap(
    values: ArrayLike, *, block: int, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean of an autocorrelated series by the circular block bootstrap (Politis, Romano
    1992).

    ``block`` is the number of neighbours drawn together; choose it no shorter than the label horizon.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    block = max(1, min(block, n))
    draws = -(-n // block)
    starts = np.random.default_rng(seed).integers(0, n, (resamples, draws))
    # Sums of every circular block from prefix sums: memory is draws x resamples, not n x resamples.
    prefix = np.concatenate(([0.0], np.cumsum(np.concatenate((values, values[:block])))))
    means = (prefix[starts + block] - prefix[starts]).sum(1) / (draws * block)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def lower_bound(values: ArrayLike, z: float = 1.645) -> float:
    """``mean - z * sd / sqrt(n)`` of independent values; minus infinity below two of them."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return -math.inf
    return float(values.mean() - z * values.std(ddof=1) / math.sqrt(len(values)))


# --- luck


def sharpe(returns: ArrayLike) -> float:
    """Mean over standard deviation per period, not annualised; 0 for a constant series."""
    returns = np.asarray(returns, np.float64)
    sd = returns.std(ddof=1) if len(returns) > 1 else 0.0
    return float(returns.mean() / sd) if sd > 0 else 0.0


def probabilistic_sharpe(returns: ArrayLike, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio exceeds ``benchmark`` (Bailey, Lopez de Prado 2012), per
    period.
    """
    returns = np.asarray(returns, np.float64)
    if len(returns) < 3 or returns.std() == 0:
        return 0.0
    skew, kurtosis = shape(returns)
    return psr(sharpe(returns), len(returns), skew=skew, kurtosis=kurtosis, benchmark=benchmark)


def shape(returns: F64) -> tuple[float, float]:
    """Skewness and kurtosis (3 = normal) of returns that are not constant."""
    d = (returns - returns.mean()) / returns.std()
    return float(np.mean(d**3)), float(np.mean(d**4))


def psr(
    sharpe_ratio: float, periods: int, *, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """Probability that the true Sharpe ratio exceeds ``benchmark``, from the observed one and the shape of
    the returns (``kurtosis`` 3 = normal). 0 below three periods."""
    if periods < 3:
        return 0.0
    deviation = math.sqrt(sharpe_variance(sharpe_ratio, skew, kurtosis))
    return _NORMAL.cdf((sharpe_ratio - benchmark) * math.sqrt(periods - 1) / deviation)


def sharpe_variance(sharpe_ratio: float, skew: float, kurtosis: float) -> float:
    """Of the Sharpe ratio's estimate, times (periods - 1)."""
    return max(1 - skew * sharpe_ratio + (kurtosis - 1) / 4 * sharpe_ratio * sharpe_ratio, 1e-12)


def luckiest_sharpe(trial_sharpes: ArrayLike) -> float:
    """Expected best Sharpe ratio of as many trials without skill (Bailey, Lopez de Prado 2014)."""
    trial_sharpes = np.asarray(trial_sharpes, np.float64)
    n = len(trial_sharpes)
    return best_of_unskilled(n, float(trial_sharpes.std(ddof=1))) if n > 1 else 0.0


def best_of_unskilled(trials: float, sd: float) -> float:
    """Expected best Sharpe ratio of ``trials`` independent ones without skill whose estimates scatter by
    ``sd``: ``sd * ((1-g) F(1 - 1/N) + g F(1 - 1/(N e)))``, g Euler's constant, F the normal quantile."""
    if trials <= 1:
        return 0.0
    upper = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return sd * ((1 - EULER_GAMMA) * upper[0] + EULER_GAMMA * upper[1])


def deflated_sharpe(returns: ArrayLike, trial_sharpes: ArrayLike) -> float:
    """Probabilistic Sharpe ratio against the luckiest of all trials tried; 0.95 is the usual bar."""
    return probabilistic_sharpe(returns, luckiest_sharpe(trial_sharpes))


# --- economics


def break_even_precision(cost_bps: float, win_bps: float, loss_bps: float | None = None) -> float:
    """Share of winning trades at which nothing is earned: ``(SL + C) / (TP + SL)``; above 1 is impossible."""
    loss_bps = win_bps if loss_bps is None else loss_bps
    return (loss_bps + cost_bps) / (win_bps + loss_bps) if win_bps + loss_bps > 0 else math.inf


def trade_summary(net_bps: ArrayLike, gross_bps: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """What a list of round trips says, in the order a person should read it.

    ``gross_bps`` is the move caught from mid to mid, ``net_bps`` what is left after spread, slippage and
    fees.
    """
    net, gross = np.asarray(net_bps, np.float64), np.asarray(gross_bps, np.float64)
    if len(net) == 0:
        return {"trades": 0}
    won, right = net[net > 0], gross > 0
    cost = float(np.mean(gross - net))
    caught = float(np.mean(np.abs(gross)))
    equity = np.concatenate(([0.0], np.cumsum(net)))
    low, high = block_bootstrap(net, block=max(1, round(len(net) ** (1 / 3))), seed=seed)
    return {
        "trades": len(net), "net_bps_per_trade": float(net.mean()), "net_bps_ci": [low, high],
        "net_bps_sd": float(net.std(ddof=1)) if len(net) > 1 else None,
        "net_bps": float(net.sum()), "gross_bps": float(gross.sum()), "cost_bps_per_trade": cost,
        "precision": float(right.mean()), "precision_ci": list(wilson(int(right.sum()), len(net))),
        "break_even_precision": break_even_precision(cost, caught) if caught > 0 else None,
        "profit_factor": float(won.sum() / -net[net < 0].sum()) if (net < 0).any() else None,
        "max_drawdown_bps": float(np.max(np.maximum.accumulate(equity) - equity)),
        "probabilistic_sharpe": probabilistic_sharpe(net),
    }  # fmt: skip


def shares(y: ArrayLike, floor: float = 1e-4) -> F64:
    """Class shares float64 [3], none below ``floor`` so that a class unseen so far is not impossible."""
    counts = np.maximum(np.bincount(np.asarray(y, np.int64), minlength=CLASSES).astype(np.float64), 1e-12)
    p = np.maximum(counts / counts.sum(), floor)
    return p / p.sum()


def rounded(value: Any, digits: int = 6) -> Any:
    """The same structure with floats rounded and NaN or infinity as None: stable text in JSON reports."""
    if isinstance(value, dict):
        return {str(k): rounded(v, digits) for k, v in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [rounded(v, digits) for v in value]
    if isinstance(value, float | np.floating):
        return round(float(value), digits) + 0.0 if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
