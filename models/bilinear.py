"""Bilinear normalisation: the network weighs, per feature, the plain value, the value against its own recent
past, and the value against the other features of the same moment.

After Tran, Kanniainen, Gabbouj, Iosifidis 2021, with two changes. The plain value stays in the blend, because
our features are scaled on block ``fit`` already and their level says something. And on a stream there is no
window to take a mean over: the past is a running mean and variance with a fixed memory, carried like the
cell's state and forgotten with it, so the layer never sees a row that the runner would not have.

    y = x * g[0] + past(x) * g[1] + others(x) * g[2] + b
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.learner import F32, Mask

EPS: Final = 1e-2
"""Added to variances of features in robust sigmas: what moves less than a tenth of one stands still."""
KINDS: Final = ("none", "feature", "both")
"""Without the layer; with the half across features only; with both halves."""
RAW, PAST, OTHERS = 0, 1, 2


def start(features: int, kind: str) -> dict[str, NDArray[Any]]:
    """Parameters of a fresh layer; empty for ``none``. The halves come in with a small share."""
    if kind == "none":
        return {}
    g = np.zeros((3, features))
    g[RAW] = 1.0
    g[OTHERS] = 0.1
    if kind == "both":
        g[PAST] = 0.1
    return {"bin_g": g, "bin_b": np.zeros(features)}


def parts(X: F32, fresh: Mask, kind: str, rate: float) -> F32:
    """The inputs of the blend for one stream of rows, float32 [n, parts, F] in the order of ``used``.

    They do not depend on anything that is learnt, so that a stream computes them once.
    """
    X = np.ascontiguousarray(X, np.float32)
    columns = [X]
    if kind == "both":
        columns.append(running(X, fresh, np.float32(rate)))
    if kind != "none":
        columns.append(across(X))
    return np.stack(columns, axis=1)


def used(kind: str) -> list[int]:
    """Rows of ``bin_g`` that belong to ``parts``."""
    return {"none": [RAW], "feature": [RAW, OTHERS], "both": [RAW, PAST, OTHERS]}[kind]


def across(X: F32) -> F32:
    """Each row less its mean over the features, over its deviation."""
    off = X - X.mean(axis=-1, keepdims=True, dtype=np.float32)
    spread = (off * off).mean(axis=-1, keepdims=True, dtype=np.float32)
    return np.asarray(off / np.sqrt(spread + np.float32(EPS)), np.float32)


@njit(cache=True)
def running(X: F32, fresh: Mask, rate: np.float32) -> F32:
    """Each value against the running mean and variance of its column; both start at 0 and 1 where ``fresh``.

    The variance is kept less one, as the exported graph keeps it: all states start from zeros.
    """
    n, features = X.shape
    out = np.empty((n, features), np.float32)
    mean, over = np.zeros(features, np.float32), np.zeros(features, np.float32)
    one, eps = np.float32(1.0), np.float32(EPS)
    for t in range(n):
        if fresh[t]:
            mean[:] = 0.0
            over[:] = 0.0
        for k in range(features):
            off = X[t, k] - mean[k]
            mean[k] += rate * off
            spread = (one - rate) * ((over[k] + one) + rate * (off * off))
            over[k] = spread - one
            out[t, k] = (X[t, k] - mean[k]) / np.sqrt(spread + eps)
    return out


def standard(x: Any, axis: int) -> Any:
    """Mean 0 and variance 1 of a torch tensor along ``axis``."""
    import torch

    x = x - x.mean(axis, keepdim=True)
    return x * torch.rsqrt((x * x).mean(axis, keepdim=True) + EPS)


def of_windows(p: dict[str, Any], x: Any) -> Any:
    """The layer on whole windows [B, T, F], whose past is the window; as they are without its parameters."""
    if "bin_g" not in p:
        return x
    g = p["bin_g"]
    y = x * g[RAW] + standard(x, 2) * g[OTHERS] + p["bin_b"]
    return y + standard(x, 1) * g[PAST]
