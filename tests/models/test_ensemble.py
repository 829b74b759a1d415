"""Stacking finds the better member, drops the useless one, shrinks and caps; the plan follows the weights."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import ensemble, evaluate, learner


def forecasts(n: int = 3000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two members that see different halves of the truth, one that knows nothing and is sure of it."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n))
    y = np.where(
        a + b + rng.standard_normal(n) > 0.8, 2, np.where(a + b + rng.standard_normal(n) < -0.8, 0, 1)
    )
    z = {"lstm": a, "transformer": b, "svm": 3 * rng.standard_normal(n)}
    logp = {m: learner.log_softmax(np.stack([-v, np.full(n, 0.5), v], axis=1)) for m, v in z.items()}
    return logp, y


def test_the_useless_member_is_dropped_and_the_blend_beats_the_best() -> None:
    logp, y = forecasts()
    weights, notes = ensemble.fit(logp, y, evaluate.shares(y))
    assert weights["svm"] == 0.0 and not notes["svm"]["kept"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
    blend = learner.log_softmax(sum(w * logp[m].astype(float) for m, w in weights.items()))
    assert evaluate.log_loss(blend, y) < min(notes[m]["log_loss"] for m in ("lstm", "transformer"))


def test_stacking_finds_the_minimum_on_a_grid() -> None:
    logp, y = forecasts()
    members = [logp["lstm"], logp["svm"]]
    w = ensemble.stack(members, y)
    grid = np.linspace(0, 1, 201)
    losses = [
        evaluate.log_loss(learner.log_softmax(g * members[0].astype(float) + (1 - g) * members[1]), y)
        for g in grid
    ]
    assert w[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.01)


def test_without_evidence_all_stay_equal() -> None:
    logp, y = forecasts()
    useless = {m: logp["svm"] for m in ("gbdt", "svm")}
    weights, notes = ensemble.fit(useless, y, evaluate.shares(y))
    assert weights == {"gbdt": 0.5, "svm": 0.5}
    assert not any(n["beats_climatology"] for n in notes.values())


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda w: sum(w) > 1e-3), st.floats(0, 1),
    st.floats(0.25, 1),
)  # fmt: skip
@settings(deadline=None)
def test_shrink_and_cap_hold(raw: list[float], shrink: float, cap: float) -> None:
    start = {f"m{i}": w / sum(raw) for i, w in enumerate(raw)}
    w = ensemble.temper(start, shrink, cap)
    k = len(raw)
    assert sum(w.values()) == pytest.approx(1)
    assert all(-1e-12 <= v <= max(cap, 1 / k) + 1e-9 for v in w.values())
    if max((1 - shrink) * v + shrink / k for v in start.values()) <= cap:
        for m, v in start.items():
            assert w[m] == pytest.approx((1 - shrink) * v + shrink / k)
    order = sorted(start, key=lambda m: start[m])
    assert all(w[a] <= w[b] + 1e-9 for a, b in pairwise(order))


def test_what_the_cap_takes_from_the_only_weight_goes_to_the_others() -> None:
    assert ensemble.temper({"a": 1.0, "b": 0.0, "c": 0.0}, 0.0, 0.5) == {"a": 0.5, "b": 0.25, "c": 0.25}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=5))
@settings(deadline=None)
def test_rounded_weights_still_sum_to_one(raw: list[float]) -> None:
    w = ensemble.normalised({f"m{i}": v / sum(raw) for i, v in enumerate(raw)})
    assert sum(w.values()) == pytest.approx(1, abs=1e-12) and min(w.values()) >= 0


def test_plan() -> None:
    weights = {"gbdt": 0.5, "lstm": 0.3, "svm": 0.2, "transformer": 0.0}
    plan = ensemble.quantization_plan(weights, 0.2)
    assert plan["members"] == {"gbdt": "TEXT", "lstm": "INT8", "svm": "FLOAT16", "transformer": "FLOAT16"}
    asked = ensemble.quantization_plan(weights, 0.2, full_integer=True)
    assert asked["members"] == {**plan["members"], "lstm": "INT8_FULL"}


def test_build_reads_only_block_calibrate_and_writes_twice_the_same(tmp_path: Path) -> None:
    m = planted.market(3000, seed=1)
    members = {"lstm": 1.0, "svm": 0.3}
    results = []
    for poison in (False, True):
        for name, skill in members.items():
            logp = planted.member_logp(m, skill, seed=len(name))
            if poison:
                logp[m.blocks["score"] | m.blocks["threshold"] | m.blocks["live"]] = np.nan
            (tmp_path / name).mkdir(exist_ok=True)
            learner.save_npz(tmp_path / name / "logits.npz", {m.ticker: logp})
        out = tmp_path / str(poison)
        ensemble.build([planted.series(m)], tmp_path, out, members=list(members), progress=str)
        results.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert results[0] == results[1]
    weights = json.loads(results[0]["ensemble_weights.json"])["weights"]
    assert set(weights) == set(members) and sum(weights.values()) == pytest.approx(1)
    assert json.loads(results[0]["quantization_plan.json"])["members"]


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(learner.TrainingError, match="lstm"):
        ensemble.build([planted.series(planted.market(3000))], tmp_path, tmp_path, members=["lstm"])
