"""What the networks add to the common rules of learners: normalisation, neighbouring horizons, the yardstick,
early stopping, and weights that do not depend on the process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import bilinear, ctabl, learner, lstm, transformer, windows

ROOT = Path(__file__).resolve().parents[2]
NETWORKS: dict[str, Any] = {"lstm": lstm, "transformer": transformer}
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 6, "epochs": 2, "streams": 8, "yardstick_epochs": 0},
    "transformer": {
        "window": 6, "width": 8, "heads": 2, "ff": 8, "epochs": 2, "batch": 64, "yardstick_epochs": 0,
    },
}  # fmt: skip


def quiet(line: str) -> None:
    pass


def series(n: int = 1600, seed: int = 1) -> learner.Series:
    """A plant with labels of three horizons: its own, half of it, twice it."""
    m = planted.market(n, seed=seed)
    others = []
    for steps in (planted.STEPS // 2, 2 * planted.STEPS):
        move = np.full(n, np.nan)
        move[:-steps] = 1e4 * (m.mid2[steps:] - m.mid2[:-steps]) / m.mid2[:-steps]
        others.append(np.where(np.isnan(move), -1, np.where(move > 1.5, 2, np.where(move < -1.5, 0, 1))))
    y_multi = np.stack([m.y, *others], axis=1).astype(np.int64)
    exit_ns = m.recv_ns + 2 * planted.HORIZON_NS + planted.LATENCY_NS
    return replace(planted.series(m), y_multi=y_multi, exit_ns=exit_ns)


def train(name: str, s: learner.Series, folder: Path, **changes: Any) -> tuple[dict[str, Any], Any]:
    hyper = {**SMALL[name], **changes}
    report = NETWORKS[name].train([s], folder, seed=3, threads=1, progress=quiet, **hyper)
    with np.load(folder / "weights.npz") as w:
        return report, dict(w)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()


# --- bilinear normalisation


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 4), shift=st.floats(-3, 3), n=st.integers(4, 40))
def test_the_window_half_forgets_level_and_scale(seed: int, scale: float, shift: float, n: int) -> None:
    """What moves in the window is what counts: a feature twice as wide and higher up looks the same."""
    x = torch.from_numpy(3 * np.random.default_rng(seed).standard_normal((1, n, 5)))
    assert torch.allclose(
        bilinear.standard(scale * x + shift, 1), bilinear.standard(x, 1), atol=0.05
    )  # EPS is the difference


def test_the_running_half_sees_the_past_alone_and_starts_afresh() -> None:
    rng = np.random.default_rng(0)
    X, fresh = rng.standard_normal((200, 4)).astype(np.float32), np.zeros(200, bool)
    fresh[[0, 120]] = True
    whole = bilinear.running(X, fresh, np.float32(0.05))
    future = X.copy()
    future[90:] = 7.0
    assert (bilinear.running(future, fresh, np.float32(0.05))[:90] == whole[:90]).all()
    again = bilinear.running(X[120:], fresh[120:], np.float32(0.05))
    assert (again == whole[120:]).all(), "nothing reaches over a reset"
    mean, variance = np.zeros(4), np.ones(4)
    for t in range(120):
        off = X[t] - mean
        mean += 0.05 * off
        variance = 0.95 * (variance + 0.05 * off**2)
        assert np.allclose(whole[t], (X[t] - mean) / np.sqrt(variance + bilinear.EPS), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_kind_of_normalisation_leaves_its_own_parameters(name: str, tmp_path: Path) -> None:
    s = series(900)
    kept = {kind: train(name, s, tmp_path / kind, normalise=kind, epochs=1)[1] for kind in bilinear.KINDS}
    assert "bin_g" not in kept["none"]
    assert not kept["feature"]["bin_g"][bilinear.PAST].any() or name == "transformer"
    assert kept["both"]["bin_g"].shape == (3, planted.FEATURES) and kept["both"]["bin_g"].all()
    assert ("bin_rate" in kept["both"]) == (name == "lstm") and "bin_rate" not in kept["feature"]
    with pytest.raises(learner.TrainingError, match=f"{name}.normalise is 'batch'; known: none, feature"):
        train(name, s, tmp_path / "x", normalise="batch")


# --- neighbouring horizons


@pytest.mark.parametrize("name", NETWORKS)
def test_neighbours_teach_and_are_not_served(name: str, tmp_path: Path) -> None:
    s = series()
    with_them, kept = train(name, s, tmp_path / "with")
    without, alone = train(name, s, tmp_path / "without", neighbour_weight=0.0)
    train(name, replace(s, y_multi=None), tmp_path / "single")
    assert with_them["hyper"]["neighbours"] == 2 and without["hyper"]["neighbours"] == 0
    assert set(kept) == set(alone) and not [k for k in kept if k.startswith("aux")]
    assert digest(tmp_path / "with") != digest(tmp_path / "without") == digest(tmp_path / "single")
    assert kept["head_w"].shape[1] == 3, "three classes of the asked horizon"


@pytest.mark.parametrize("name", NETWORKS)
def test_no_label_of_a_neighbour_reaches_over_the_cut(name: str, tmp_path: Path) -> None:
    """Neighbours' labels that look beyond the stopping rows' beginning must not have been learnt."""
    s = series()
    train(name, s, tmp_path / "a")
    cut_ns = learner.fit_rows([s]).cut_ns
    lying = s.targets.copy()
    lying[s.exit_ns >= cut_ns, 1:] = 0
    train(name, replace(s, y_multi=lying), tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


# --- early stopping and determinism


@pytest.mark.parametrize("name", NETWORKS)
def test_it_stops_early_and_keeps_the_best_epoch(name: str, tmp_path: Path) -> None:
    """Labels without sense: every epoch makes it worse, so the run ends after its patience."""
    s = series()
    noise = np.random.default_rng(5).permutation(s.y[s.y >= 0])
    y = s.y.copy()
    y[y >= 0] = noise
    s = replace(s, y=y, y_multi=None)
    eager = {"epochs": 12, "patience": 2, "learning_rate": 0.05}
    report, kept = train(name, s, tmp_path / "long", **eager)
    assert report["epochs"] < 12
    best = int(np.argmin(report["history"]))
    assert report["epochs"] == best + 1 + 2
    assert all(np.isfinite(v).all() for v in kept.values())


@pytest.mark.slow
def test_another_process_trains_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "import torch; torch.manual_seed(99); torch.rand(7)\n"
        "import numpy; numpy.random.seed(99)\n"
        "import test_networks as t\n"
        "for name in reversed(list(t.NETWORKS)):\n"
        "    t.train(name, t.series(900), Path(sys.argv[3]) / name, yardstick_epochs=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), str(Path(__file__).parent), str(tmp_path / "there")],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in NETWORKS:
        here, there = tmp_path / "here" / name, tmp_path / "there" / name
        train(name, series(900), here, yardstick_epochs=1)
        for file in ("weights.npz", "logits.npz", f"{name}.training.json"):
            assert (there / file).read_bytes() == (here / file).read_bytes()


# --- the yardstick


def test_the_yardstick_stands_in_the_report_beside_the_member(tmp_path: Path) -> None:
    s = series(3000)
    report, _ = train("lstm", s, tmp_path, yardstick_epochs=6, yardstick_rows=2000)
    found = report["yardstick"]
    assert found["name"] == "BiN-CTABL" and found["epochs"] == 6 == len(found["history"])
    own, member = found["scores"], found["member_on_the_same_rows"]
    assert own["log_loss"] < own["climatology_log_loss"], "it has learnt the plant"
    assert own["climatology_log_loss"] == member["climatology_log_loss"], "on the same rows"
    assert 0 < found["rows"] <= report["rows"]["calibrate"]
    assert json.loads((tmp_path / "lstm.training.json").read_text())["yardstick"] == found
    none, _ = train("lstm", s, tmp_path, yardstick_epochs=0)
    assert none["yardstick"] is None


def test_the_yardstick_is_ctabl_of_the_published_size() -> None:
    rng = np.random.default_rng(0)
    p = ctabl._start(rng, 40, np.full(3, 1 / 3))
    size = sum(int(v.numel()) for k, v in p.items() if not k.startswith("bin_"))
    assert 10_000 < size < 12_500, "the papers say some 11,000 for forty inputs and ten moments"
    x = torch.from_numpy(rng.standard_normal((5, ctabl.WINDOW, 40)).astype(np.float32))
    assert ctabl.logits(p, x).shape == (5, 3)
    swapped = x.clone()
    swapped[:, [2, 7]] = swapped[:, [7, 2]]
    assert not torch.allclose(ctabl.logits(p, x), ctabl.logits(p, swapped)), "the order of moments counts"


def test_windows_never_reach_over_a_reset() -> None:
    s = series(400)
    X, ends, rows = windows.ends_of(s, s.usable, 10)
    at, fresh = learner.usable_rows(s)
    assert len(ends) and (np.diff(ends) > 0).all() and (at[ends] == rows).all()
    for end in ends:
        assert not fresh[end - 8 : end + 1].any() and (X[end] == s.X[at[end]]).all() | np.isnan(X[end]).any()
    missed = set(np.flatnonzero(s.usable)) - set(rows.tolist())
    assert len(missed) == 9 * int(fresh.sum())
