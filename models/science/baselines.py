"""The rivals that a forecast has to beat before it is worth a word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models import evaluate
from models.science.factorised import calls, choose_bias
from models.science.protocol import DOWN, FLAT, UP, Frames

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SHIFTS = 20
"""How often the random rival is drawn; its figures are means over the draws."""


def climatology(y: U8, rows: Mask, n: int) -> F64:
    """The class shares of the training rows at every row, float64 [n, 3]: never trade, never surprised."""
    return np.broadcast_to(evaluate.shares(y[rows]), (n, 3)).copy()


def imbalance(frames_l1: F64, y: U8, fit_rows: Mask, choose_rows: Mask) -> tuple[F64, U8]:
    """Multinomial logistic regression on one number, (qb - qa) / (qb + qa); probabilities and calls.

    Which class is called is chosen on the choosing span as for the ensemble, so that the rivalry is even.
    """
    from sklearn.linear_model import LogisticRegression

    x = np.nan_to_num(frames_l1).reshape(-1, 1)
    present = np.unique(y[fit_rows])
    p = np.full((len(x), 3), 1e-6)
    if len(present) > 1:
        model = LogisticRegression(max_iter=300).fit(x[fit_rows], y[fit_rows])
        p[:, model.classes_] = np.maximum(model.predict_proba(x), 1e-6)
    elif len(present):
        p[:, present[0]] = 1.0
    p /= p.sum(1, keepdims=True)
    return p, calls(p, choose_bias(p[choose_rows], y[choose_rows]))


def persistence(frames: Frames, y: U8, fit_rows: Mask, choose_rows: Mask, horizon_ns: int) -> tuple[F64, U8]:
    """What the mid did over the last horizon goes on, or turns: the sign is what the choosing span says.

    Probabilities are the shares of what followed each of the three pasts in the fit span.
    """
    before = np.searchsorted(frames.recv_ns, frames.recv_ns - horizon_ns, side="right") - 1
    moved = np.sign(frames.mid2 - frames.mid2[np.maximum(before, 0)])
    past = np.where((before >= 0) & frames.two_sided[np.maximum(before, 0)], moved, 0).astype(np.int64) + FLAT
    table = np.stack([evaluate.shares(np.append(y[fit_rows & (past == c)], [0, 1, 2])) for c in range(3)])
    goes_on, turns = past.astype(np.uint8), (UP + DOWN - past).astype(np.uint8)
    keeps = evaluate.mcc(y[choose_rows], goes_on[choose_rows]) >= evaluate.mcc(
        y[choose_rows], turns[choose_rows]
    )
    return table[past], goes_on if keeps else turns


def shifted(called: U8, seed: int) -> list[U8]:
    """The same calls at other times: ``SHIFTS`` circular shifts, so as often and as long in a row, and
    blind."""
    n = len(called)
    near = min(n // 4, 2_000)
    shifts = np.random.default_rng(seed).integers(near, max(near + 1, n - near), SHIFTS)
    return [np.roll(called, int(k)) for k in shifts]


def touch_imbalance(bid_qty: NDArray[np.int32], ask_qty: NDArray[np.int32]) -> F64:
    """(qb - qa) / (qb + qa) of the best levels, float64 [n]; 0 on an empty touch."""
    bids, asks = bid_qty[:, 0].astype(np.float64), ask_qty[:, 0].astype(np.float64)
    total = bids + asks
    return np.where(total > 0, (bids - asks) / np.where(total > 0, total, 1), 0.0)
