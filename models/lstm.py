"""A small LSTM that runs live one step at a time, trained the way it runs: on streams, by truncated
backpropagation.

A label at each step makes an epoch one pass over the rows instead of one pass over overlapping windows, and
the state that the runner carries is the state that training saw. The cell is clamped to +-2 so that int8
can hold it. In front of it stands the bilinear normalisation of ``models.bilinear``; beside its head, in
training only, stand heads for the neighbouring horizons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models import bilinear, ctabl, evaluate, learner
from models.learner import F32, F64, I64, Mask, Progress, Series
from models.resume import Epochs, Resume

NAME = "lstm"
CELL_CLAMP = 2.0
DECAYED = ("w", "head_w", "aux_w")


def train(
    dataset: Any, out_dir: Path, *, seed: int, threads: int, progress: Progress = print,
    hidden: int = 32, epochs: int = 12, streams: int = 24, chunk: int = 32, learning_rate: float = 3e-3,
    weight_decay: float = 1e-2, clip: float = 1.0, patience: int = 3, balance: bool = False,
    early_share: float = 0.15, normalise: str = "both", memory_rows: int = 200,
    neighbour_weight: float = 0.3, yardstick_epochs: int = 5, yardstick_rows: int = 8_000, scaler: Any = None,
    resume: Resume | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fit on block ``fit``, stop on its last ``early_share``; writes ``weights.npz``, report and
    ``logits.npz``.

    The rows are cut into ``streams`` parallel stretches; gradients reach back at most ``chunk`` steps. With
    ``balance`` the loss weighs classes by inverse frequency and the head's bias undoes it afterwards.
    ``normalise``: one of ``bilinear.KINDS``; ``memory_rows`` is the memory of its running half.
    ``neighbour_weight``: of the heads on the other horizons in the loss, 0 leaves them out.
    ``yardstick_*``: the budget of BiN-CTABL, whose scores the report sets beside these; 0 epochs: none.
    ``resume``: where an epoch that is done is kept.
    """
    if normalise not in bilinear.KINDS:
        raise learner.TrainingError(f"lstm.normalise is {normalise!r}; known: {', '.join(bilinear.KINDS)}")
    series = learner.series_of(dataset, scaled=True, scaler=scaler)
    rows = learner.fit_rows(series, early_share)
    rate = 1.0 / memory_rows
    x, y, fresh = _streams(series, rows, streams, normalise, rate)
    if neighbour_weight <= 0:
        y = y[..., :1]
    taught = y[..., 0][y[..., 0] >= 0]
    prior = evaluate.shares(taught)
    class_weights = (1.0 / (3.0 * prior) if balance else np.ones(3)).astype(np.float32)
    progress(f"lstm: {len(taught):,} labels on {x.shape[1]} streams of {x.shape[0]:,} steps")
    with learner.fixed_threads(1, torch=True):  # its steps are too small to share
        fit = _Fit(
            x.shape[-1], hidden, seed, learning_rate, weight_decay, clip, class_weights, prior, normalise,
            rate, y.shape[-1] - 1, neighbour_weight,
        )  # fmt: skip
        parts = {"p": fit.p, "optimiser": fit.optimiser}
        passes = Epochs(epochs, patience, fit.weights(), resume, parts)
        for epoch in passes:
            fit.epoch(x, y, fresh, chunk, anneal=0.5 * (1 + np.cos(np.pi * epoch / epochs)))
            weights = fit.weights()
            loss = _early_loss(series, rows, weights)
            passes.take(loss, weights)
            progress(f"lstm: epoch {epoch + 1}/{epochs}, log-loss {loss:.4f} on the stopping rows")
        best, history = passes.best, passes.history
        if balance:
            best["head_b"] = (best["head_b"] + np.log(prior)).astype(np.float32)
        logp = {}
        for s in series:
            logp[s.ticker] = np.where(s.judged[:, None], forward(s, best, until=s.judged), np.nan)
        facts = {
            "epochs": len(history), "history": history, "seed": seed, "threads": threads,
            "hyper": {
                "hidden": hidden, "streams": streams, "chunk": chunk, "learning_rate": learning_rate,
                "weight_decay": weight_decay, "clip": clip, "balance": balance, "cell_clamp": CELL_CLAMP,
                "normalise": normalise, "memory_rows": memory_rows, "neighbour_weight": neighbour_weight,
                "neighbours": y.shape[-1] - 1,
            },
            "yardstick": ctabl.yardstick(
                series, rows, logp, seed=seed, threads=1, epochs=yardstick_epochs,
                rows_per_epoch=yardstick_rows, progress=progress,
            ),
        }  # fmt: skip
        return learner.finish(
            NAME, Path(out_dir), series, rows, logp, weights=best, facts=facts, progress=progress
        )


def forward(s: Series, weights: dict[str, NDArray[Any]], *, until: Mask | None = None) -> F32:
    """Log-probabilities float32 [n, 3] by carried state over every usable row, NaN elsewhere.

    ``until``: rows after its last set one are not run (NaN), so that a held-out block stays unseen.
    """
    out = np.full((len(s), 3), np.nan, np.float32)
    rows, fresh = learner.usable_rows(s)
    if until is not None:
        rows = rows[: np.searchsorted(rows, np.flatnonzero(until)[-1], "right")] if until.any() else rows[:0]
        fresh = fresh[: len(rows)]
    if len(rows):
        features = s.X.shape[1]
        x = _normalised(s.X[rows], fresh, weights)
        gates = x @ weights["w"][:features] + weights["b"]
        h = _carry(np.ascontiguousarray(gates), np.ascontiguousarray(weights["w"][features:]), fresh)
        out[rows] = learner.log_softmax(h @ weights["head_w"] + weights["head_b"])
    return out


def _normalised(X: F32, fresh: Mask, weights: dict[str, NDArray[Any]]) -> F32:
    """Rows of one stream as the cell takes them."""
    if "bin_g" not in weights:
        return X
    kind = "both" if "bin_rate" in weights else "feature"
    parts = bilinear.parts(X, fresh, kind, float(weights.get("bin_rate", np.ones(1))[0]))
    blend = np.einsum("npf,pf->nf", parts, weights["bin_g"][bilinear.used(kind)])
    return np.asarray(blend + weights["bin_b"], np.float32)


def _early_loss(series: Sequence[Series], rows: learner.FitRows, weights: dict[str, NDArray[Any]]) -> float:
    logp, y = [], []
    for s, early in zip(series, rows.early, strict=True):
        logp.append(forward(s, weights, until=early)[early])
        y.append(s.y[early])
    return evaluate.log_loss(np.concatenate(logp), np.concatenate(y))


@njit(cache=True)
def _carry(gates: F32, recurrent: F32, fresh: Mask) -> F32:
    """Hidden states float32 [n, H] of one stream; ``gates`` [n, 4H] already holds x @ W + b, order i, f, g,
    o.
    """
    n, wide = gates.shape
    hidden = wide // 4
    out = np.empty((n, hidden), np.float32)
    h, c = np.zeros(hidden, np.float32), np.zeros(hidden, np.float32)
    one = np.float32(1.0)
    clamp = np.float32(CELL_CLAMP)
    for t in range(n):
        if fresh[t]:
            h[:] = 0.0
            c[:] = 0.0
        z = gates[t].copy()
        for k in range(hidden):
            hk = h[k]
            for j in range(wide):
                z[j] += hk * recurrent[k, j]
        for k in range(hidden):
            i = one / (one + np.exp(-z[k]))
            f = one / (one + np.exp(-z[hidden + k]))
            o = one / (one + np.exp(-z[3 * hidden + k]))
            c[k] = min(max(f * c[k] + i * np.tanh(z[2 * hidden + k]), -clamp), clamp)
            h[k] = o * np.tanh(c[k])
        out[t] = h
    return out


def _streams(
    series: Sequence[Series], rows: learner.FitRows, count: int, normalise: str, rate: float
) -> tuple[F32, I64, Mask]:
    """All rows before the cut: the parts of their normalisation [steps, streams, parts, F], labels of every
    horizon (-1 = none) [steps, streams, H], and state resets [steps, streams].

    Rows without a label stay in: they move the state, as they will live.
    """
    xs, ys, resets = [], [], []
    for s, train in zip(series, rows.train, strict=True):
        at, fresh = learner.usable_rows(s)
        mine = s.blocks["fit"][at] & (s.recv_ns[at] < rows.cut_ns)
        at, fresh = at[mine], fresh[mine]
        fresh[:1] = True
        xs.append(bilinear.parts(s.X[at], fresh, normalise, rate))
        ys.append(np.where(train[at, None], s.targets[at], -1))
        resets.append(fresh)
    x, y, fresh = np.concatenate(xs), np.concatenate(ys), np.concatenate(resets)
    steps = -(-len(x) // count)
    spare = steps * count - len(x)
    x = np.concatenate((x, np.zeros((spare, *x.shape[1:]), np.float32)))
    y = np.concatenate((y, np.full((spare, y.shape[1]), -1)))
    fresh = np.concatenate((fresh, np.zeros(spare, bool)))

    def lanes(a: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(a.reshape(count, steps, *a.shape[1:]).swapaxes(0, 1))

    return lanes(x), lanes(y), lanes(fresh)


class _Fit:
    """Parameters and optimiser; the forward pass is spelled out because the library's cell has no clamp."""

    def __init__(
        self, features: int, hidden: int, seed: int, learning_rate: float, weight_decay: float, clip: float,
        class_weights: F32, prior: F64, normalise: str, rate: float, neighbours: int, neighbour_weight: float,
    ) -> None:  # fmt: skip
        import torch

        rng = np.random.default_rng(seed)
        b = np.zeros(4 * hidden)
        b[hidden : 2 * hidden] = 1.0  # forget gates start open: memory first, forgetting is learnt
        start: dict[str, F64] = {
            "w": rng.uniform(-1, 1, (features + hidden, 4 * hidden)) / np.sqrt(hidden), "b": b,
            "head_w": rng.uniform(-1, 1, (hidden, 3)) / np.sqrt(hidden),
            "head_b": np.log(prior * class_weights),
            **bilinear.start(features, normalise),
        }  # fmt: skip
        if neighbours:
            start["aux_w"] = rng.uniform(-1, 1, (hidden, 3 * neighbours)) / np.sqrt(hidden)
            start["aux_b"] = np.zeros(3 * neighbours)
        self.p = {k: torch.tensor(v.astype(np.float32), requires_grad=True) for k, v in start.items()}
        self.neighbours, self.neighbour_weight = neighbours, neighbour_weight
        self.used = bilinear.used(normalise)
        self.constants = {"bin_rate": np.array([rate], np.float32)} if normalise == "both" else {}
        self.features, self.hidden, self.rate, self.clip = features, hidden, learning_rate, clip
        self.class_weights = torch.tensor(class_weights)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [v for k, v in self.p.items() if k in DECAYED], "weight_decay": weight_decay},
                {"params": [v for k, v in self.p.items() if k not in DECAYED], "weight_decay": 0.0},
            ],
            lr=learning_rate,
        )

    def weights(self) -> dict[str, NDArray[Any]]:
        """What is served: without the heads of the neighbouring horizons."""
        served = {k: v.detach().numpy().copy() for k, v in self.p.items() if not k.startswith("aux_")}
        return served | self.constants

    def epoch(self, x: F32, y: I64, fresh: Mask, chunk: int, anneal: float) -> None:
        """One pass over the streams; the state is carried from chunk to chunk, the gradient is not."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * max(anneal, 0.05)
        xs, ys = torch.from_numpy(x), torch.from_numpy(y)
        keep = torch.from_numpy((~fresh).astype(np.float32))[..., None]
        any_fresh: Mask = np.asarray(fresh.any(axis=1))
        h = torch.zeros(x.shape[1], self.hidden)
        c = torch.zeros(x.shape[1], self.hidden)
        for start in range(0, len(x), chunk):
            stop = min(start + chunk, len(x))
            h, c = h.detach(), c.detach()
            gates = self._normalised(xs[start:stop]) @ self.p["w"][: self.features] + self.p["b"]
            recurrent = self.p["w"][self.features :]
            hs = []
            for t in range(start, stop):
                if any_fresh[t]:
                    h, c = h * keep[t], c * keep[t]
                z = torch.addmm(gates[t - start], h, recurrent)
                i, f, g, o = z.chunk(4, dim=1)
                c = torch.clamp(
                    torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g), -CELL_CLAMP, CELL_CLAMP
                )
                h = torch.sigmoid(o) * torch.tanh(c)
                hs.append(h)
            targets = ys[start:stop].reshape(-1, ys.shape[-1])
            if not bool((targets[:, 0] >= 0).any()):
                continue
            loss = self._loss(torch.stack(hs).reshape(-1, self.hidden), targets)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(self.p.values()), self.clip)
            self.optimiser.step()

    def _normalised(self, x: Any) -> Any:
        if "bin_g" not in self.p:
            return x[..., 0, :]
        return (x * self.p["bin_g"][self.used]).sum(-2) + self.p["bin_b"]

    def _loss(self, h: Any, targets: Any) -> Any:
        from torch.nn.functional import cross_entropy

        logits = h @ self.p["head_w"] + self.p["head_b"]
        loss = cross_entropy(logits, targets[:, 0], weight=self.class_weights, ignore_index=-1)
        if not self.neighbours:
            return loss
        others = (h @ self.p["aux_w"] + self.p["aux_b"]).reshape(len(h), self.neighbours, 3)
        for k in range(self.neighbours):
            if bool((targets[:, k + 1] >= 0).any()):
                aside = cross_entropy(others[:, k], targets[:, k + 1], ignore_index=-1)
                loss = loss + self.neighbour_weight / self.neighbours * aside
        return loss
