"""A tiny market with a plant: a slow hidden drift moves the mid, and features show it only through noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from models.learner import Series

SECOND_NS = 1_000_000_000
STEP_NS = SECOND_NS // 4
HORIZON_NS = 4 * SECOND_NS
LATENCY_NS = SECOND_NS // 10
START_NS = 1_768_460_400 * SECOND_NS
FEATURES = 8
BLOCKS = {"fit": 0.5, "calibrate": 0.125, "threshold": 0.125, "score": 0.125, "live": 0.125}
STEPS = HORIZON_NS // STEP_NS
MID_TICKS = 30_000


def market(n: int = 6000, *, seed: int = 0, plant: float = 1.0, ticker: str = "SIMP", spread: int = 2) -> Any:
    """One instrument: a Series' arrays and the market's, in one namespace.

    The drift is an AR(1) with a memory of some 20 rows; single rows see it under more than its own noise,
    so that a learner with memory does better than one without. Labels: mid's move over the horizon beyond
    +-1.5 bps.
    """
    rng = np.random.default_rng(seed)
    drift = np.zeros(n)
    shock = rng.standard_normal(n)
    for t in range(1, n):
        drift[t] = 0.95 * drift[t - 1] + 0.3122 * shock[t]
    X = rng.standard_normal((n, FEATURES)).astype(np.float32)
    X[:, 0] += (0.6 * drift).astype(np.float32)
    X[:, 1] += (0.4 * drift).astype(np.float32)
    X[rng.random((n, FEATURES)) < 0.01] = np.nan
    mid = MID_TICKS + np.cumsum(0.6 * plant * drift + 0.5 * rng.standard_normal(n))
    mid2 = 2 * np.round(mid).astype(np.int64)
    recv_ns = START_NS + STEP_NS * np.arange(n, dtype=np.int64)
    move = np.full(n, np.nan, np.float32)
    move[:-STEPS] = 1e4 * (mid2[STEPS:] - mid2[:-STEPS]) / mid2[:-STEPS]
    block = np.full(n, -1)
    blocks, start = {}, 0
    for i, (name, share) in enumerate(BLOCKS.items()):
        stop = start + round(share * n)
        block[start : stop - STEPS - 1] = i  # the purge
        blocks[name] = block == i
        start = stop
    y = np.where(np.isnan(move), -1, np.where(move > 1.5, 2, np.where(move < -1.5, 0, 1))).astype(np.int64)
    usable = rng.random(n) > 0.01
    reset = np.zeros(n, bool)
    reset[[0, n // 3, 2 * n // 3]] = True
    usable[n // 3] = False  # a gap row resets the state and is itself unusable
    return SimpleNamespace(
        ticker=ticker, X=X, y=y, usable=usable, reset=reset, blocks=blocks, recv_ns=recv_ns,
        exit_ns=recv_ns + HORIZON_NS + LATENCY_NS, mid2=mid2, spread=np.full(n, spread, np.int32),
        move_bps=move, drift=drift,
    )  # fmt: skip


def series(m: Any) -> Series:
    return Series(m.ticker, m.X, m.y, m.usable, m.reset, m.blocks, m.recv_ns, m.exit_ns)


def member_logp(m: Any, skill: float, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Log-probabilities float32 [n, 3] of a made-up member that sees the drift with ``skill``; NaN where
    unusable.
    """
    rng = np.random.default_rng(seed)
    lean = skill * m.drift + noise * rng.standard_normal(len(m.drift))
    z = np.stack([-lean, np.full(len(lean), -0.2), lean], axis=1)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    logp[~m.usable] = np.nan
    return logp.astype(np.float32)
