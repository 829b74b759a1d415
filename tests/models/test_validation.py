"""Walk-forward and combinatorial paths of the line: a plant shows on every path, a null on none."""

from __future__ import annotations

import numpy as np
import planted
import pytest

from features.schema import F
from models import validation
from models.dataset import Dataset, Series
from models.labels import VOID
from models.policy import Costs
from models.splits import by_sessions
from models.validation import Settings, sessions_of, study

COSTS = Costs(planted.HORIZON_NS, planted.LATENCY_NS)
DAY_NS = 86_400 * planted.SECOND_NS
FRACTIONS = planted.BLOCKS


def days_of(n_days: int, plant: float, rows: int = 3600) -> Dataset:
    """One instrument, a planted or null market of a quarter of an hour on each of several days."""
    made = [planted.market(rows, seed=7 + d, plant=plant) for d in range(n_days)]
    shift = [d * DAY_NS for d in range(n_days)]
    joined = {name: np.concatenate([getattr(m, name) for m in made])
              for name in ("X", "y", "usable", "mid2", "spread", "move_bps")}  # fmt: skip
    recv_ns = np.concatenate([m.recv_ns + k for m, k in zip(made, shift, strict=True)])
    sessions = [(int(m.recv_ns[0]) + k, int(m.recv_ns[-1]) + 1 + k) for m, k in zip(made, shift, strict=True)]
    y = np.where(joined["y"] < 0, VOID, joined["y"]).astype(np.uint8)
    n, nothing = len(y), np.zeros(len(y), np.float32)
    start = np.arange(n_days) * rows
    reset = np.zeros(n, bool)
    reset[start] = True
    purge_ns = planted.HORIZON_NS + planted.LATENCY_NS
    blocks = by_sessions(sessions, FRACTIONS, purge_ns, 0)
    X = np.full((n, F), np.nan, np.float32)
    X[:, : planted.FEATURES] = joined["X"]
    series = Series(
        "SIMP", tuple(f"2026-01-{15 + d}" for d in range(n_days)), start, recv_ns, X, np.zeros(n, np.uint8),
        joined["mid2"], joined["spread"], y, y[:, None], nothing, nothing, joined["move_bps"],
        recv_ns + planted.LATENCY_NS, recv_ns + purge_ns, blocks.code(recv_ns), joined["usable"], reset,
    )  # fmt: skip
    return Dataset({"SIMP": series}, blocks, 2, (4.0,))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions need not be longer than the product's feature windows."""
    monkeypatch.setattr(validation, "FEATURE_WINDOW_NS", 0)


def asked(dataset: Dataset) -> dict:
    return study(dataset, Settings(COSTS, {"SIMP": 0.1}, seed=1, rounds=8), lambda _: None)


def test_what_is_not_enough_says_so() -> None:
    short = asked(days_of(5, 1.0, rows=600))
    assert "block 'fit' is no longer than what is purged" in short["walk_forward"]["missing"]
    few = days_of(5, 1.0, rows=600)
    few.blocks = type(few.blocks)((*few.blocks.blocks[:1], ("live", *few.blocks.blocks[1][1:])), 0)
    assert "1 whole sessions" in asked(few)["cpcv"]["missing"]


@pytest.mark.slow
def test_a_plant_shows_on_every_path_and_nothing_looks_at_the_live_block(small: None) -> None:
    dataset = days_of(6, 3.0)
    found = asked(dataset)
    assert found["sessions"] == 5
    assert found["cpcv"]["paths"] == 4 and found["cpcv"]["splits"] == 10
    assert len(found["cpcv"]["sharpes"]) == 4
    assert found["cpcv"]["worst"] > 0 and found["walk_forward"]["positive"] == len(
        found["walk_forward"]["folds"]
    )
    assert [f["days"] for f in found["walk_forward"]["folds"]] == [
        ["2026-01-18"], ["2026-01-19"]
    ]  # fmt: skip
    live = dataset.series["SIMP"].recv_ns >= dataset.blocks.span("live")[0]
    dataset.series["SIMP"].mid2[live] = 1
    dataset.series["SIMP"].X[live] = 9.0
    assert asked(dataset) == found


@pytest.mark.slow
def test_a_null_earns_on_no_path(small: None) -> None:
    found = asked(days_of(5, 0.0))
    assert found["cpcv"]["high95"] <= 0


def test_a_day_is_known_once_however_many_instruments_trade_it() -> None:
    dataset = days_of(5, 0.0, rows=600)
    s = dataset.series["SIMP"]
    assert [x.day for x in sessions_of(Dataset({"A": s, "B": s}, dataset.blocks, 2))] == list(s.days)
