"""A two-layer Transformer encoder over the last T usable rows, mean-pooled: pre-LN, relu, learnt positions.

In front of it stands the bilinear normalisation of ``models.bilinear``; beside its head, in training only,
stand heads for the neighbouring horizons. LayerNorm is spelled out as mean and rsqrt because that form
survives quantisation to integers; nothing else here is unusual, and a forward pass in twenty lines of NumPy
gives the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import bilinear, ctabl, evaluate, learner, windows
from models.learner import F32, F64, I64, Mask, Progress, Series
from models.resume import Epochs, Resume

NAME = "transformer"
LN_EPS = 1e-5
BATCH_FORWARD = 256


def train(
    dataset: Any, out_dir: Path, *, seed: int, threads: int, progress: Progress = print,
    window: int = 32, width: int = 32, layers: int = 2, heads: int = 4, ff: int = 64, epochs: int = 6,
    windows_per_epoch: int = 16_000, batch: int = 256, learning_rate: float = 1e-3, weight_decay: float = 0.1,
    dropout: float = 0.15, clip: float = 1.0, patience: int = 2, early_windows: int = 3_000,
    early_share: float = 0.15, normalise: str = "both", neighbour_weight: float = 0.3,
    yardstick_epochs: int = 5, yardstick_rows: int = 8_000, scaler: Any = None, resume: Resume | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fit on block ``fit``, stop on its last ``early_share``; writes ``weights.npz``, report and
    ``logits.npz``.

    ``window`` is T. Neighbouring windows share all but one row, so each epoch draws ``windows_per_epoch``
    of them. ``normalise``: one of ``bilinear.KINDS``. ``neighbour_weight``: of the heads on the other
    horizons in the loss, 0 leaves them out. ``yardstick_*``: the budget of BiN-CTABL, whose scores the report
    sets beside these; 0 epochs: none. ``resume``: where an epoch that is done is kept.
    """
    import torch

    if width % heads:
        raise learner.TrainingError(f"transformer width {width} is not a multiple of {heads} heads")
    if normalise not in bilinear.KINDS:
        raise learner.TrainingError(
            f"transformer.normalise is {normalise!r}; known: {', '.join(bilinear.KINDS)}"
        )
    series = learner.series_of(dataset, scaled=True, scaler=scaler)
    rows = learner.fit_rows(series, early_share)
    X, ends, y = windows.pooled(series, rows.train, window)
    _, ends_e, y_e = windows.pooled(series, rows.early, window)
    neighbours = y.shape[1] - 1 if neighbour_weight > 0 else 0
    few = learner.thin(len(ends_e), early_windows)
    if len(ends) < 50 or len(ends_e) == 0:
        raise learner.TrainingError(
            f"block 'fit' holds {len(ends)} windows of {window} rows to teach and {len(ends_e)} to stop:"
            " record more hours or shorten transformer.window"
        )
    rng = np.random.default_rng(seed)
    progress(
        f"transformer: {len(ends):,} windows of {window} rows, {min(len(ends), windows_per_epoch):,} an epoch"
    )
    with learner.fixed_threads(threads, torch=True):
        prior = evaluate.shares(y[:, 0])
        p = _start(rng, X.shape[1], window, width, layers, ff, prior, normalise, neighbours)
        decay = [v for k, v in p.items() if k.endswith(("_w", "_wq", "_wk", "_wv", "_wo"))]
        plain = [v for k, v in p.items() if not k.endswith(("_w", "_wq", "_wk", "_wv", "_wo"))]
        optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=learning_rate,
        )
        steps = epochs * -(-min(len(ends), windows_per_epoch) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, learning_rate, total_steps=steps, pct_start=0.2
        )
        Xt, yt = torch.from_numpy(X), torch.from_numpy(y)
        reach = torch.arange(1 - window, 1)
        drop = _Dropout(seed, dropout)
        parts = {
            "p": p, "optimiser": optimiser, "schedule": schedule, "windows": rng, "dropout": drop.generator,
        }  # fmt: skip
        taught = Epochs(epochs, patience, _arrays(p), resume, parts)
        for epoch in taught:
            chosen = rng.permutation(len(ends))[:windows_per_epoch]
            for first in range(0, len(chosen), batch):
                at = torch.from_numpy(chosen[first : first + batch])
                x = Xt[torch.from_numpy(ends[chosen[first : first + batch]])[:, None] + reach]
                loss = _loss(p, pooled(p, x, heads, drop), yt[at], neighbours, neighbour_weight)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(decay + plain, clip)
                optimiser.step()
                schedule.step()
            early_loss = evaluate.log_loss(_run(p, Xt, ends_e[few], window, heads), y_e[few, 0])
            taught.take(early_loss, _arrays(p))
            progress(
                f"transformer: epoch {epoch + 1}/{epochs}, log-loss {early_loss:.4f} on the stopping rows"
            )
        best, history = taught.best, taught.history
        p = {k: torch.from_numpy(v) for k, v in best.items()}
        logp = {s.ticker: forward(s, p, window, heads, only=s.judged) for s in series}
        facts = {
            "epochs": len(history), "history": history, "seed": seed, "threads": threads,
            "hyper": {
                "window": window, "width": width, "layers": layers, "heads": heads, "ff": ff, "batch": batch,
                "windows_per_epoch": windows_per_epoch, "learning_rate": learning_rate,
                "weight_decay": weight_decay, "dropout": dropout, "clip": clip, "normalise": normalise,
                "neighbour_weight": neighbour_weight, "neighbours": neighbours,
            },
            "yardstick": ctabl.yardstick(
                series, rows, logp, seed=seed, threads=threads, epochs=yardstick_epochs,
                rows_per_epoch=yardstick_rows, progress=progress,
            ),
        }  # fmt: skip
        weights = {**best, "n_heads": np.array([heads]), "T": np.array([window])}
        return learner.finish(
            NAME, Path(out_dir), series, rows, logp, weights=weights, facts=facts, progress=progress
        )


class _Dropout:
    """Inverted dropout from its own generator, so that nobody else's random numbers change the weights."""

    def __init__(self, seed: int, share: float) -> None:
        import torch

        self.share, self.generator = share, torch.Generator().manual_seed(seed)

    def __call__(self, v: Any) -> Any:
        import torch

        if self.share <= 0:
            return v
        # One draw per window and channel, the same at each of its rows: as strong, and 32 times fewer draws.
        draw = torch.rand(v.shape[0], 1, v.shape[2], generator=self.generator)
        return v * ((draw >= self.share) / (1.0 - self.share))


def logits(p: dict[str, Any], x: Any, heads: int) -> Any:
    """Class scores [B, 3] of scaled windows [B, T, F]; torch tensors in and out."""
    return pooled(p, x, heads) @ p["head_w"] + p["head_b"]


def _loss(p: dict[str, Any], h: Any, targets: Any, neighbours: int, weight: float) -> Any:
    """Cross-entropy of the asked horizon, and of its neighbours by their own heads."""
    from torch.nn.functional import cross_entropy

    loss = cross_entropy(h @ p["head_w"] + p["head_b"], targets[:, 0])
    if not neighbours:
        return loss
    others = (h @ p["aux_w"] + p["aux_b"]).reshape(len(h), neighbours, 3)
    for k in range(neighbours):
        if bool((targets[:, k + 1] >= 0).any()):
            loss = loss + weight / neighbours * cross_entropy(
                others[:, k], targets[:, k + 1], ignore_index=-1
            )
    return loss


def pooled(p: dict[str, Any], x: Any, heads: int, drop: Any = lambda v: v) -> Any:
    """What the heads read of scaled windows [B, T, F]: [B, width]. ``drop`` acts in training only."""
    import torch

    def norm(v: Any, name: str) -> Any:
        v = v - v.mean(-1, keepdim=True)
        return v * torch.rsqrt((v * v).mean(-1, keepdim=True) + LN_EPS) * p[f"{name}_g"] + p[f"{name}_b"]

    h = drop(bilinear.of_windows(p, x) @ p["in_w"] + p["in_b"] + p["pos"])
    B, T, d = h.shape
    layer = 0
    while f"l{layer}_wq" in p:
        n = f"l{layer}_"
        u = norm(h, n + "ln1")
        q, k, v = (
            (u @ p[f"{n}w{c}"] + p[f"{n}b{c}"]).view(B, T, heads, d // heads).transpose(1, 2) for c in "qkv"
        )
        a = torch.softmax((q * (d // heads) ** -0.5) @ k.transpose(2, 3), dim=-1) @ v
        h = h + drop(a.transpose(1, 2).reshape(B, T, d) @ p[n + "wo"] + p[n + "bo"])
        u = torch.relu(norm(h, n + "ln2") @ p[n + "ff1_w"] + p[n + "ff1_b"])
        h = h + drop(u @ p[n + "ff2_w"] + p[n + "ff2_b"])
        layer += 1
    return norm(h, "lnf").mean(1)


def forward(s: Series, p: dict[str, Any], window: int, heads: int, *, only: Mask | None = None) -> F32:
    """Log-probabilities float32 [n, 3] on rows that end a whole window, NaN elsewhere; p holds torch
    tensors.
    """
    import torch

    out = np.full((len(s), 3), np.nan, np.float32)
    X, ends, rows = windows.ends_of(s, s.usable if only is None else only, window)
    if len(ends):
        out[rows] = _run(p, torch.from_numpy(X), ends, window, heads)
    return out


def _run(p: dict[str, Any], X: Any, ends: I64, window: int, heads: int) -> F32:
    import torch

    reach = torch.arange(1 - window, 1)
    parts = []
    with torch.no_grad():
        for first in range(0, len(ends), BATCH_FORWARD):
            at = torch.from_numpy(ends[first : first + BATCH_FORWARD])
            parts.append(logits(p, X[at[:, None] + reach], heads).numpy())
    return learner.log_softmax(np.concatenate(parts))


def _start(
    rng: np.random.Generator, features: int, window: int, width: int, layers: int, ff: int, prior: F64,
    normalise: str, neighbours: int,
) -> dict[str, Any]:  # fmt: skip
    """Fresh parameters by name, in the order and shapes of ``weights.npz`` (matrices are in x out)."""
    import torch

    def matrix(a: int, b: int) -> NDArray[Any]:
        return rng.standard_normal((a, b)) / np.sqrt(a)

    p: dict[str, NDArray[Any]] = {
        "in_w": matrix(features, width), "in_b": np.zeros(width),
        "pos": 0.1 * rng.standard_normal((window, width)),
    }  # fmt: skip
    for layer in range(layers):
        n = f"l{layer}_"
        p[n + "ln1_g"], p[n + "ln1_b"] = np.ones(width), np.zeros(width)
        for c in "qkvo":
            p[f"{n}w{c}"], p[f"{n}b{c}"] = matrix(width, width), np.zeros(width)
        p[n + "ln2_g"], p[n + "ln2_b"] = np.ones(width), np.zeros(width)
        p[n + "ff1_w"], p[n + "ff1_b"] = matrix(width, ff) * np.sqrt(2.0), np.zeros(ff)
        p[n + "ff2_w"], p[n + "ff2_b"] = matrix(ff, width), np.zeros(width)
    p["lnf_g"], p["lnf_b"] = np.ones(width), np.zeros(width)
    p["head_w"], p["head_b"] = 0.1 * matrix(width, 3), np.log(prior)
    p |= bilinear.start(features, normalise)
    if neighbours:
        p["aux_w"], p["aux_b"] = 0.1 * matrix(width, 3 * neighbours), np.zeros(3 * neighbours)
    return {k: torch.tensor(v.astype(np.float32), requires_grad=True) for k, v in p.items()}


def _arrays(p: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """What is served: without the heads of the neighbouring horizons."""
    return {k: v.detach().numpy().copy() for k, v in p.items() if not k.startswith("aux_")}
