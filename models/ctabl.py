"""BiN-CTABL, the field's yardstick for order-book networks: bilinear layers and temporal attention behind a
bilinear normalisation (Tran, Iosifidis, Kanniainen, Gabbouj 2018 and 2021; some 11,000 parameters).

It is trained beside the LSTM and the Transformer, on the same rows and with a small budget, and judged on the
rows that they are judged on. It is never exported: a member that does not beat it has to say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import bilinear, evaluate, learner, windows
from models.learner import F32, F64, I64, Progress, Series

NAME = "BiN-CTABL"
WINDOW = 10
LAYERS = ((60, 10), (120, 5))
"""Features and moments after each of the two bilinear layers; attention then leaves three classes."""
MAX_NORM = 10.0
BATCH = 256
BATCH_FORWARD = 2048

Params = dict[str, Any]


def yardstick(
    series: Sequence[Series], rows: learner.FitRows, member: Mapping[str, F32], *, seed: int, threads: int,
    epochs: int, rows_per_epoch: int, progress: Progress,
) -> dict[str, Any] | None:  # fmt: skip
    """Its scores on block ``calibrate`` beside those of ``member`` (log-probabilities by ticker) on the same
    rows; None without a budget or without whole windows."""
    X, ends, y = windows.pooled(series, rows.train, WINDOW)
    X_early, early, y_early = windows.pooled(series, rows.early, WINDOW)
    if epochs < 1 or len(ends) < BATCH or not len(early):
        return None
    few = learner.thin(len(early), 3_000)
    with learner.fixed_threads(threads, torch=True):
        p, history = fit(
            X, ends, y[:, 0], early[few], y_early[few, 0], X_early, seed=seed, epochs=epochs,
            rows_per_epoch=rows_per_epoch,
        )  # fmt: skip
        own, theirs, told = [], [], []
        for s in series:
            judged = s.labelled & s.blocks["calibrate"] & np.isfinite(member[s.ticker]).all(axis=1)
            packed, at, found = windows.ends_of(s, judged, WINDOW)
            own.append(predict(p, packed, at))
            theirs.append(member[s.ticker][found])
            told.append(s.y[found])
    outcome = np.concatenate(told)
    if not len(outcome):
        return None
    prior = evaluate.shares(y[:, 0])
    scores = {
        name: evaluate.classification(np.concatenate(logp), outcome, prior)
        for name, logp in (("scores", own), ("member_on_the_same_rows", theirs))
    }
    mine = scores["scores"]
    progress(
        f"{NAME}, the yardstick: log-loss {mine['log_loss']:.4f}, macro-F1 {mine['macro_f1']:.3f}, "
        f"MCC {mine['mcc']:.3f} on {len(outcome):,} rows of block calibrate"
    )
    weights = sum(int(v.numel()) for v in p.values())
    return {
        "name": NAME, "rows": len(outcome), **scores, "parameters": weights, "window": WINDOW,
        "epochs": len(history), "rows_per_epoch": min(rows_per_epoch, len(ends)), "history": history,
    }  # fmt: skip


def fit(
    X: F32, ends: I64, y: I64, early: I64, y_early: I64, X_early: F32 | None = None, *, seed: int,
    epochs: int = 8, rows_per_epoch: int = 8_000, learning_rate: float = 1e-3, dropout: float = 0.1,
) -> tuple[Params, list[float]]:  # fmt: skip
    """Parameters of the epoch with the least log-loss on the stopping windows, and every epoch's log-loss.

    ``X`` float32 [n, F] scaled rows; ``ends`` positions that end a window of ``WINDOW`` rows, ``y`` their
    classes; the same for the stopping windows, in ``X_early`` where those are other rows.
    """
    import torch

    rng = np.random.default_rng(seed)
    p = _start(rng, X.shape[1], evaluate.shares(y))
    optimiser = torch.optim.Adam(list(p.values()), lr=learning_rate)
    table, target = torch.from_numpy(X), torch.from_numpy(y)
    reach = torch.arange(1 - WINDOW, 1)
    draws = torch.Generator().manual_seed(seed)
    best, best_loss, history = _copied(p), np.inf, []
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        chosen = rng.permutation(len(ends))[:rows_per_epoch]
        for first in range(0, len(chosen), BATCH):
            at = chosen[first : first + BATCH]
            z = logits(p, table[torch.from_numpy(ends[at])[:, None] + reach], draws, dropout)
            loss = torch.nn.functional.cross_entropy(z, target[torch.from_numpy(at)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            _renorm(p)
        found = evaluate.log_loss(predict(p, X if X_early is None else X_early, early), y_early)
        history.append(found)
        if found < best_loss:
            best, best_loss = _copied(p), found
    return best, history


def predict(p: Params, X: F32, ends: I64) -> F32:
    """Log-probabilities float32 [len(ends), 3] of the windows of scaled rows ``X`` that end there."""
    import torch

    if not len(ends):
        return np.zeros((0, 3), np.float32)
    table, reach, found = torch.from_numpy(X), torch.arange(1 - WINDOW, 1), []
    with torch.no_grad():
        for first in range(0, len(ends), BATCH_FORWARD):
            at = torch.from_numpy(ends[first : first + BATCH_FORWARD])
            found.append(logits(p, table[at[:, None] + reach]).numpy())
    return learner.log_softmax(np.concatenate(found))


def logits(p: Params, x: Any, draws: Any = None, dropout: float = 0.0) -> Any:
    """Class scores [B, 3] of scaled windows [B, T, F]; ``draws``: generator of dropout, in training only."""
    import torch

    def dropped(v: Any) -> Any:
        if draws is None or dropout <= 0:
            return v
        return v * ((torch.rand(v.shape, generator=draws) >= dropout) / (1.0 - dropout))

    h = bilinear.of_windows(p, x).transpose(1, 2)  # features by moments
    for layer in range(len(LAYERS)):
        h = torch.relu(p[f"bl{layer}_f"] @ h @ p[f"bl{layer}_t"] + p[f"bl{layer}_b"])
        h = dropped(h)
    h = p["tabl_f"] @ h
    moments = h.shape[-1]
    eye = torch.eye(moments)
    attention = torch.softmax(h @ (p["tabl_w"] * (1 - eye) + eye / moments), dim=-1)
    share = torch.clamp(p["tabl_share"], 0.0, 1.0)
    h = share * (h * attention) + (1.0 - share) * h
    return (h @ p["tabl_t"] + p["tabl_b"]).squeeze(-1)


def _start(rng: np.random.Generator, features: int, prior: F64) -> Params:
    import torch

    def matrix(rows: int, columns: int, fan: int) -> NDArray[Any]:
        return rng.standard_normal((rows, columns)) / np.sqrt(fan)

    p: dict[str, NDArray[Any]] = {**bilinear.start(features, "both")}
    depth, moments = features, WINDOW
    for layer, (wide, long) in enumerate(LAYERS):
        p[f"bl{layer}_f"] = matrix(wide, depth, depth) * np.sqrt(2.0)
        p[f"bl{layer}_t"] = matrix(moments, long, moments)
        p[f"bl{layer}_b"] = np.zeros((wide, long))
        depth, moments = wide, long
    p["tabl_f"] = matrix(3, depth, depth)
    p["tabl_w"] = np.full((moments, moments), 1.0 / moments)
    p["tabl_t"] = matrix(moments, 1, moments)
    p["tabl_b"] = np.log(prior)[:, None]
    p["tabl_share"] = np.array([0.5])
    return {k: torch.tensor(v.astype(np.float32), requires_grad=True) for k, v in p.items()}


def _renorm(p: Params) -> None:
    """No column of a matrix grows over MAX_NORM (the authors' constraint in the place of weight decay)."""
    import torch

    with torch.no_grad():
        for name, value in p.items():
            if name.endswith(("_f", "_t", "_w")):
                norm = value.norm(dim=0, keepdim=True).clamp_min(1e-12)
                value.mul_(torch.clamp(MAX_NORM / norm, max=1.0))


def _copied(p: Params) -> Params:
    return {k: v.detach().clone() for k, v in p.items()}
