"""Figures of the backtest: the edge with its interval, calibration on the held-out block, and two rivals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.stages.exported import blended, load_logp
from live.backtest_result import BacktestResult
from models import evaluate
from models.dataset import Dataset, Series
from models.labels import VOID
from models.report import verdict

F64 = NDArray[np.float64]
RIVAL_DRAWS = 200


def trips_bps(result: BacktestResult, dataset: Dataset) -> tuple[F64, F64]:
    """Per round trip, in order of exit: net bps of the entry's value, and the mid's move in our direction."""
    trips = sorted(result.trips, key=lambda trip: (trip["exit_ns"], trip["ticker"]))
    net = np.array([trip["net_bps"] for trip in trips], np.float64)
    moved = np.array(
        [
            trip["side"] * _mid_move(dataset.series[trip["ticker"]], trip["entry_ns"], trip["exit_ns"])
            for trip in trips
        ],
        np.float64,
    )
    return net, moved


def edge(result: BacktestResult, dataset: Dataset, seed: int) -> dict[str, Any]:
    """What the gate asks about the held-out block: ``evaluate.trade_summary`` of its round trips, and the
    verdict."""
    net, moved = trips_bps(result, dataset)
    summary = evaluate.rounded(evaluate.trade_summary(net, moved, seed=seed))
    return {"block": "score", "verdict": verdict(summary), "net_nano": result.net_nano, **summary}


def calibration(dataset: Dataset) -> dict[str, float]:
    """Scores of the calibrated ensemble on block ``score``, which the gate asks about."""
    stored = load_logp()
    logp, y = [], []
    for ticker, series in dataset.series.items():
        mixed = blended(stored[ticker])
        rows = dataset.rows(ticker, "score") & np.isfinite(mixed).all(axis=1)
        logp.append(mixed[rows])
        y.append(series.y[rows])
    prior = evaluate.shares(
        np.concatenate([s.y[dataset.rows(t, "fit") & (s.y != VOID)] for t, s in dataset.series.items()])
    )
    return evaluate.rounded(evaluate.classification(np.concatenate(logp), np.concatenate(y), prior))


def rivals(
    result: BacktestResult, dataset: Dataset, fee_bps: dict[str, float], seed: int
) -> list[dict[str, Any]]:
    """Never trading, and as many round trips of the same lengths at random moments and sides."""
    rows: list[dict[str, Any]] = [{"rival": "never trade", "net bp per trade": 0.0, "net bp in all": 0.0}]
    if not result.trips:
        return rows
    rng = np.random.default_rng(seed)
    means = np.array([_random_trips(result, dataset, fee_bps, rng) for _ in range(RIVAL_DRAWS)])
    rows.append(
        {
            "rival": f"random, same turnover (mean of {RIVAL_DRAWS})",
            "net bp per trade": float(means.mean()),
            "net bp in all": float(means.mean() * len(result.trips)),
        }
    )
    net = np.array([trip["net_bps"] for trip in result.trips])
    better = float(np.mean(means >= net.mean()))
    ours = {"rival": f"ours (random was as good in {better:.0%} of draws)"}
    rows.append({**ours, "net bp per trade": float(net.mean()), "net bp in all": float(net.sum())})
    return rows


def _random_trips(
    result: BacktestResult, dataset: Dataset, fee_bps: dict[str, float], rng: np.random.Generator
) -> float:
    """Mean net bps of one draw: the touch is paid on both ends."""
    total = 0.0
    for trip in result.trips:
        series = dataset.series[trip["ticker"]]
        held = trip["exit_ns"] - trip["entry_ns"]
        start = int(rng.integers(result.from_ns, max(result.from_ns + 1, result.to_ns - held)))
        i, j = _rows_at(series, start, start + held)
        side = 1.0 if rng.random() < 0.5 else -1.0
        mid = max(series.mid2[i] / 2.0, 1.0)
        paid = (series.spread[i] + series.spread[j]) / 2.0
        move = (series.mid2[j] - series.mid2[i]) / 2.0
        total += 1e4 * (side * move - paid) / mid - 2.0 * fee_bps[trip["ticker"]]
    return total / len(result.trips)


def _mid_move(series: Series, from_ns: int, to_ns: int) -> float:
    """The mid's move between two moments, bps; 0 where either book is one-sided."""
    i, j = _rows_at(series, from_ns, to_ns)
    if series.mid2[i] <= 0 or series.mid2[j] <= 0:
        return 0.0
    return float(1e4 * (series.mid2[j] - series.mid2[i]) / series.mid2[i])


def _rows_at(series: Series, *moments_ns: int) -> tuple[int, ...]:
    """The rows in force at the moments: the last one received at or before each."""
    found = np.searchsorted(series.recv_ns, moments_ns, side="right") - 1
    return tuple(int(row) for row in np.maximum(found, 0))
