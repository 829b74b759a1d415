"""What a forecast is worth: skill first, then what trading its calls would have cost.

Money is a taker's: a call enters at the touch it was made on and leaves at the touch ``horizon`` later,
no latency, one position at a time, both commissions of the recording's tariff. That flatters the
forecast; where it loses even so, nothing is left to discuss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import evaluate
from models.science.protocol import FLAT, UP, Frames

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

BLOCK_NS = 60 * 1_000_000_000
"""Rows within a minute are drawn together in the interval of MCC."""
RESAMPLES = 400


def skill(p: F64 | None, called: U8, y: U8, prior: F64) -> dict[str, float | None]:
    """MCC and macro-F1 of the calls; calibration and log-loss skill of the probabilities, if any."""
    out: dict[str, float | None] = {
        "mcc": evaluate.mcc(y, called), "macro_f1": evaluate.macro_f1(y, called),
        "ece": None, "ece_down": None, "ece_flat": None, "ece_up": None, "log_loss_skill": None,
    }  # fmt: skip
    if p is not None:
        out["ece"] = evaluate.classwise_ece(p, y)
        for c, name in enumerate(("ece_down", "ece_flat", "ece_up")):
            out[name] = evaluate.class_ece(p, y, c)
        climate = evaluate.log_loss(np.log(np.broadcast_to(prior, p.shape)), y)
        out["log_loss_skill"] = 1 - evaluate.log_loss(np.log(np.maximum(p, 1e-7)), y) / climate
    return out


def mcc_interval(called: U8, y: U8, recv_ns: I64, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of MCC: whole minutes are drawn with replacement, for neighbouring rows say the same."""
    scores = _drawn(called, y, recv_ns, seed)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def mcc_difference(called: U8, rival: U8, y: U8, recv_ns: I64, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of MCC(called) - MCC(rival), both scored on the same drawn minutes."""
    ours, theirs = _drawn(called, y, recv_ns, seed), _drawn(rival, y, recv_ns, seed)
    low, high = np.quantile(ours - theirs, [0.025, 0.975])
    return float(low), float(high)


def _drawn(called: U8, y: U8, recv_ns: I64, seed: int) -> F64:
    """MCC of each bootstrap draw of whole minutes, float64 [RESAMPLES]."""
    _, block = np.unique((recv_ns - recv_ns[0]) // BLOCK_NS, return_inverse=True)
    blocks = int(block.max()) + 1
    cell = block * 9 + y.astype(np.int64) * 3 + called
    counts = np.bincount(cell, minlength=9 * blocks).reshape(blocks, 9).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(0, blocks, (RESAMPLES, blocks))
    return np.array([evaluate.mcc_of(counts[rows].sum(0).reshape(3, 3)) for rows in drawn])


def entries(called: U8, recv_ns: I64, rows: I64, horizon_ns: int) -> I64:
    """Rows (out of ``rows``) at which a trade begins: the next call to move after the last trade ended."""
    out, free_from = [], 0
    when, wants = recv_ns[rows], called != FLAT
    candidates = np.flatnonzero(wants)
    at = 0
    while at < len(candidates):
        k = candidates[at]
        if when[k] >= free_from:
            out.append(k)
            free_from = int(when[k]) + horizon_ns
        at = int(np.searchsorted(when[candidates], free_from, side="left")) if free_from > when[k] else at + 1
    return np.array(out, np.int64)


def trading(frames: Frames, called: U8, rows: I64, horizon_ns: int, fee_ppm: int) -> dict[str, Any]:
    """Round trips on the calls at ``rows`` (increasing, labelled): net bps, precision against break-even."""
    begun = entries(called, frames.recv_ns, rows, horizon_ns)
    if len(begun) == 0:
        return {"trades": 0}
    enter = rows[begun]
    leave = np.searchsorted(frames.recv_ns, frames.recv_ns[enter] + horizon_ns, side="right") - 1
    side = np.where(called[begun] == UP, 1, -1)
    mid = frames.mid2[enter] / 2
    gross = side * (frames.mid2[leave] - frames.mid2[enter]) / 2 / mid * 1e4
    paid = np.where(side > 0, frames.ask[enter], frames.bid[enter])
    got = np.where(side > 0, frames.bid[leave], frames.ask[leave])
    net = side * (got - paid) / mid * 1e4 - 2 * fee_ppm / 100
    moved = gross != 0
    right, cost, move = int((gross > 0).sum()), float(np.mean(gross - net)), float(np.mean(np.abs(gross)))
    block = max(1, round(len(net) ** (1 / 3)))
    return {
        "trades": len(net), "net_bps": float(net.mean()),
        "net_bps_ci": evaluate.block_bootstrap(net, block=block),
        "gross_bps": float(gross.mean()), "cost_bps": cost, "mean_move_bps": move,
        "precision": right / int(moved.sum()) if moved.any() else None,
        "precision_ci": evaluate.wilson(right, int(moved.sum())),
        "break_even_precision": (1 + cost / move) / 2 if move > 0 else None,
    }  # fmt: skip
