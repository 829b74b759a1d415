"""The Transformer as it is served is the Transformer that was trained: the algebra, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import transformer
from models.bilinear import EPS
from models.folding import folded, largest_score
from models.transformer import LN_EPS

F64 = NDArray[np.float64]
FEATURES, ROWS = 7, 5


def trained(
    seed: int, *, heads: int = 2, width: int = 8, layers: int = 2, kind: str = "both"
) -> dict[str, Any]:
    """Weights in the layout of ``weights.npz`` with every gain, shift and bias away from its start."""
    rng = np.random.default_rng(seed)
    fresh = transformer._start(rng, FEATURES, ROWS, width, layers, 12, np.array([0.2, 0.6, 0.2]), kind, 0)
    w = {
        k: v.detach().numpy() + 0.3 * rng.standard_normal(v.shape).astype(np.float32)
        for k, v in fresh.items()
    }
    return w | {"n_heads": np.array([heads]), "T": np.array([ROWS])}


def standard(x: F64, axis: int) -> F64:
    x = x - x.mean(axis, keepdims=True)
    return x / np.sqrt((x * x).mean(axis, keepdims=True) + EPS)


def served(w: dict[str, NDArray[np.float32]], x: F64, heads: int) -> tuple[F64, float]:
    """Logits [3] of one window by the served form, and the largest score that its attention saw."""

    def norm(v: F64) -> F64:
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + LN_EPS)

    if "bin_now" in w:
        x = x * w["bin_now"] + standard(x, 0) * w["bin_past"] + standard(x, 1) * w["bin_others"]
    h, largest, layer = x @ w["in_w"] + w["in_b"], 0.0, 0
    rows, width = h.shape
    while f"l{layer}_ask_w" in w:
        n = f"l{layer}_"
        assert np.abs(h.mean(axis=1)).max() < 1e-5, "no row has a mean"
        u = norm(h)
        score = (u @ w[f"{n}ask_w"] + w[f"{n}ask_b"]).reshape(rows * heads, width) @ u.T
        share = np.exp(score - score.max(axis=1, keepdims=True))
        mixed = (share / share.sum(axis=1, keepdims=True)) @ u
        h = h + mixed.reshape(rows, heads * width) @ w[f"{n}tell_w"] + w[f"{n}tell_b"]
        u = np.maximum(norm(h) @ w[f"{n}ff1_w"] + w[f"{n}ff1_b"], 0.0)
        h = h + u @ w[f"{n}ff2_w"] + w[f"{n}ff2_b"]
        largest, layer = max(largest, float(np.abs(score).max())), layer + 1
    return norm(h).mean(axis=0) @ w["head_w"] + w["head_b"], largest


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), heads=st.sampled_from([1, 2, 4]), layers=st.integers(1, 3),
    kind=st.sampled_from(["none", "feature", "both"]), scale=st.sampled_from([0.01, 1.0, 5.0]),
)  # fmt: skip
def test_the_served_form_is_the_trained_one(
    seed: int, heads: int, layers: int, kind: str, scale: float
) -> None:
    w = trained(seed, heads=heads, layers=layers, kind=kind)
    x = scale * np.random.default_rng(seed + 1).standard_normal((ROWS, FEATURES))
    tensors = {k: torch.from_numpy(v).double() for k, v in w.items() if v.dtype.kind == "f"}
    with torch.no_grad():
        want = transformer.logits(tensors, torch.from_numpy(x)[None], heads)[0].numpy()
    form = folded(w)
    got, largest = served(form, x, heads)
    np.testing.assert_allclose(got, want, atol=2e-4 * max(1.0, np.abs(want).max()))
    assert largest <= largest_score(form), "the bound holds for this window, too"


def test_the_bound_is_reached_by_the_worst_rows() -> None:
    form = folded(trained(3, heads=1, layers=1, kind="none"))
    ask, shift = form["l0_ask_w"].astype(np.float64), form["l0_ask_b"].astype(np.float64)
    left, size, right = np.linalg.svd(ask)
    worst = np.sqrt(8.0) * left[:, 0] @ ask @ right[0] * np.sqrt(8.0)
    assert worst == pytest.approx(8.0 * size[0])
    assert largest_score(form) == pytest.approx(worst + np.sqrt(8.0) * np.linalg.norm(shift), rel=1e-6)


def test_another_layout_is_refused() -> None:
    w = trained(1)
    del w["l1_wo"]
    with pytest.raises(KeyError, match="l1_wo"):
        folded(w)
