"""The Transformer's weights as they are served: the same function of its window, in fewer and larger steps.

A window is 32 small rows, so an operation costs its call more than its arithmetic, and in INT8 every matrix
costs a conversion of what it is multiplied with. Four things are therefore worked out once, when it is
exported:

- The rows that run through the layers are read through LayerNorms only, and those take no notice of a row's
  mean. What is written to the rows is written without its mean, so no LayerNorm has to subtract one.
- Gain and shift of a LayerNorm, and the scale of the queries, are part of the matrix behind them.
- A head's queries meet its keys in one bilinear form: (u Wq + bq)(v Wk + bk)' is (u Wq Wk' + bq Wk') v' and
  what is the same for every v, which softmax does not see. Rows are asked about rows, keys are never made.
- A head's values and its part of the output matrix are one: sum_j a_j (v_j Wv) Wo = (sum_j a_j v_j) (Wv Wo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def folded(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Weights of ``models.transformer`` (d wide, H heads, F features, T rows) for the served form, float32.

    ``in_w`` [F, d], ``in_b`` [T, d]; ``bin_now``, ``bin_past``, ``bin_others`` [F] where it normalises; for
    each layer n ``n_ask_w`` [d, H d], ``n_ask_b`` [H d], ``n_tell_w`` [H d, d], ``n_tell_b`` [d], and
    ``n_ff1_*``, ``n_ff2_*``; ``head_w`` [d, 3], ``head_b`` [3]. KeyError or ValueError for another layout.
    """
    w: dict[str, F64] = {k: v.astype(np.float64) for k, v in weights.items() if v.dtype.kind == "f"}
    heads = int(weights["n_heads"].reshape(-1)[0])
    width = w["in_w"].shape[1]
    centred = np.eye(width) - 1.0 / width
    out: dict[str, F64] = {"in_w": w["in_w"] @ centred}
    start = w["in_b"] + w["pos"]
    if "bin_g" in w:
        out |= dict(zip(("bin_now", "bin_past", "bin_others"), w["bin_g"], strict=True))
        start = start + w["bin_b"] @ w["in_w"]
    out["in_b"] = start @ centred
    layer = 0
    while f"l{layer}_wq" in w:
        n = f"l{layer}_"
        out |= {f"{n}{k}": v for k, v in _attention(w, n, heads).items()}
        out[f"{n}tell_w"], out[f"{n}tell_b"] = out[f"{n}tell_w"] @ centred, out[f"{n}tell_b"] @ centred
        out[f"{n}ff1_w"], out[f"{n}ff1_b"] = _behind(w, f"{n}ln2", w[f"{n}ff1_w"], w[f"{n}ff1_b"])
        out[f"{n}ff2_w"], out[f"{n}ff2_b"] = w[f"{n}ff2_w"] @ centred, w[f"{n}ff2_b"] @ centred
        layer += 1
    out["head_w"], out["head_b"] = _behind(w, "lnf", w["head_w"], w["head_b"])
    return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}


def largest_score(served: Mapping[str, NDArray[Any]]) -> float:
    """What no score of any layer's attention exceeds, either way, whatever the window.

    A row after a LayerNorm is no longer than sqrt(d), so |u A v' + b v'| is at most d times the largest
    singular value of A, and sqrt(d) |b|.
    """
    found, layer = 0.0, 0
    while f"l{layer}_ask_w" in served:
        form, shift = (served[f"l{layer}_ask_{k}"].astype(np.float64) for k in "wb")
        width = len(form)
        for h in range(form.shape[1] // width):
            s = slice(h * width, (h + 1) * width)
            size = np.linalg.norm(form[:, s], 2) * width + np.linalg.norm(shift[s]) * width**0.5
            found = max(found, float(size))
        layer += 1
    return found


def _behind(w: Mapping[str, F64], norm: str, matrix: F64, bias: F64) -> tuple[F64, F64]:
    """Matrix and bias that take over the gain and the shift of the LayerNorm before them."""
    return w[f"{norm}_g"][:, None] * matrix, w[f"{norm}_b"] @ matrix + bias


def _attention(w: Mapping[str, F64], n: str, heads: int) -> dict[str, F64]:
    (wq, bq), (wk, _), (wv, bv) = (_behind(w, f"{n}ln1", w[f"{n}w{c}"], w[f"{n}b{c}"]) for c in "qkv")
    depth = wq.shape[1] // heads
    parts = [slice(h * depth, (h + 1) * depth) for h in range(heads)]
    scale = depth**-0.5
    return {
        "ask_w": np.concatenate([wq[:, s] @ wk[:, s].T * scale for s in parts], axis=1),
        "ask_b": np.concatenate([wk[:, s] @ bq[s] * scale for s in parts]),
        "tell_w": np.concatenate([wv[:, s] @ w[f"{n}wo"][s] for s in parts]),
        "tell_b": bv @ w[f"{n}wo"] + w[f"{n}bo"],
    }
