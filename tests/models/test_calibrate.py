"""The trade simulator by hand, the fits by formula, the search by what it must find and what it must not
see.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import calibrate, learner, trade_sim
from models.policy_search import PLAIN_TRIED
from models.trade_sim import EXIT_END, EXIT_HORIZON, EXIT_REVERSAL, EXIT_STOP, Policy

S = planted.SECOND_NS


# --- trade simulator: one row a second, mid 10,000 ticks, so that a tick is a basis point; latency 1 s


def play(
    mid: list[float], expected: list[float], policy: Policy, *, spread: int = 2, fee_bps: float = 0.5,
    horizon_s: int = 3, latency_s: float = 1.0, slippage_ticks: float = 0.0, atr: float = 1000.0,
) -> trade_sim.RoundTrips:  # fmt: skip
    n = len(mid)
    return trade_sim.simulate(
        S * np.arange(n), np.array([2 * m for m in mid], np.int64), np.full(n, spread, np.int32),
        np.array(expected, float), np.full(n, atr), policy, horizon_ns=horizon_s * S,
        latency_ns=int(latency_s * S), fee_bps=fee_bps, slippage_ticks=slippage_ticks,
    )  # fmt: skip


def test_a_long_held_to_the_horizon_pays_spread_and_fees() -> None:
    mid = [10_000, 10_000, 10_001, 10_003, 10_005, 10_006, 10_006, 10_006]
    trips = play(mid, [9, 0, 0, 0, 0, 0, 0, 0], Policy(threshold_bps=1.0, exit_move_bps=0.5))
    # Decided at 0 s, bought at 1 s for 10,001; three seconds old at 4 s, sold at 5 s for 10,005.
    assert list(trips.entry_row) == [1] and list(trips.exit_row) == [5] and list(trips.side) == [1]
    assert list(trips.entry_ns) == [S] and list(trips.exit_ns) == [5 * S]
    assert trips.reason[0] == EXIT_HORIZON and trips.gross_bps[0] == pytest.approx(6.0)
    assert trips.net_bps[0] == pytest.approx(4.0 - 0.5 * (10_001 + 10_005) / 10_000)


def test_a_short_is_the_mirror_and_slippage_is_paid_twice() -> None:
    mid = [10_000, 10_000, 9_999, 9_997, 9_995, 9_994, 9_994, 9_994]
    plain = play(mid, [-9, 0, 0, 0, 0, 0, 0, 0], Policy(1.0, 0.5), fee_bps=0.0)
    slipped = play(mid, [-9, 0, 0, 0, 0, 0, 0, 0], Policy(1.0, 0.5), fee_bps=0.0, slippage_ticks=1.0)
    assert list(plain.side) == [-1] and plain.net_bps[0] == pytest.approx(4.0)
    assert slipped.net_bps[0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("expected", "trades"), [(4.0, 0), (4.001, 1), (-4.0, 0), (-4.001, 1), (math.nan, 0)]
)
def test_entry_needs_more_than_cost_and_threshold(expected: float, trades: int) -> None:
    """Cost is 2 (spread) + 2 x 0.5 (fees) = 3 bps, the threshold 1."""
    assert len(play([10_000] * 6, [expected, 0, 0, 0, 0, 0], Policy(1.0))) == trades


def test_a_position_stays_while_the_forecast_pays_for_it() -> None:
    trips = play([10_000] * 12, [9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0], Policy(1.0, exit_move_bps=0.5))
    assert list(trips.exit_row) == [9]  # the forecast dies at 8 s


def test_reversal_leaves_before_the_horizon() -> None:
    trips = play([10_000] * 8, [9, 0, -5, 0, 0, 0, 0, 0], Policy(1.0), horizon_s=60)
    assert list(trips.reason) == [EXIT_REVERSAL] and list(trips.exit_row) == [3]
    assert list(play([10_000] * 8, [9, 0, -4, 0, 0, 0, 0, 0], Policy(1.0), horizon_s=60).reason) == [EXIT_END]


def test_stop_by_the_engines_distance() -> None:
    mid = [10_000, 10_000, 9_995, 9_990, 9_985, 9_980, 9_980]
    # Bought at 10,001; 1.8 x 5 + 0.5 x 2 = 10 bps below is 9,991: the bid is there at 3 s, sold at 4 s.
    trips = play(mid, [9, 0, 0, 0, 0, 0, 0], Policy(1.0), horizon_s=60, atr=5.0, fee_bps=0.0)
    assert list(trips.reason) == [EXIT_STOP] and list(trips.exit_row) == [4]
    assert trips.net_bps[0] == pytest.approx(9_984 - 10_001)
    wide = play(mid, [9, 0, 0, 0, 0, 0, 0], Policy(1.0, stop_multiplier=3.0), horizon_s=60, atr=5.0)
    assert list(wide.reason) == [EXIT_END]


def test_touch_is_as_of_the_arrival() -> None:
    trips = play([10_000, 10_004, 10_008, 10_008], [9, 0, 0, 0], Policy(1.0), latency_s=0.5, fee_bps=0.0)
    assert list(trips.entry_row) == [0] and trips.entry_ns[0] == S // 2
    assert (
        list(play([10_000] * 3, [0, 0, 9], Policy(1.0), latency_s=0.5).side) == []
    )  # arrives after the data


def test_a_one_sided_book_loses_an_entry_and_delays_an_exit() -> None:
    assert len(play([10_000, 0, 10_000, 10_000], [9, 0, 0, 0], Policy(1.0))) == 0
    mid = [10_000, 10_000, 10_000, 10_000, 10_000, 0, 0, 10_007, 10_009]
    trips = play(mid, [9] + [0] * 8, Policy(1.0, 0.5), fee_bps=0.0)
    assert list(trips.exit_row) == [7] and trips.net_bps[0] == pytest.approx(5.0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.floats(-12, 12), st.booleans()), min_size=2, max_size=60),
    st.floats(0, 5), st.floats(-3, 3),
)  # fmt: skip
def test_trades_are_ordered_apart_and_cost_what_they_cost(
    steps: list[tuple[int, float, bool]], threshold: float, exit_move: float
) -> None:
    mid = 10_000 + np.cumsum([s for s, _, _ in steps])
    two_sided = [not gone for _, _, gone in steps]
    trips = play(
        [m if ok else 0 for m, ok in zip(mid.tolist(), two_sided, strict=True)], [e for _, e, _ in steps],
        Policy(threshold, exit_move), spread=2, fee_bps=0.5,
    )  # fmt: skip
    assert (trips.exit_ns >= trips.entry_ns).all()
    assert (trips.entry_ns[1:] > trips.exit_ns[:-1]).all()
    for t in range(len(trips)):
        a, b = int(trips.entry_row[t]), int(trips.exit_row[t])
        assert two_sided[a] and two_sided[b]
        assert trips.gross_bps[t] == pytest.approx(1e4 * trips.side[t] * (mid[b] - mid[a]) / mid[a])
        assert trips.gross_bps[t] - trips.net_bps[t] == pytest.approx(3.0, abs=0.05)  # spread and two fees


def test_average_true_range_of_whole_minutes() -> None:
    recv_ns = 20 * S * np.arange(12)
    mid2 = 2 * np.array([100, 104, 102, 103, 103, 101, 110, 110, 111, 111, 111, 111])
    atr = trade_sim.average_true_range(recv_ns, mid2)
    assert atr[2] == pytest.approx(1e4 * 4 / 102)  # no whole bar yet: the running one, 100..104
    assert atr[3] == pytest.approx(1e4 * 4 / 103)  # minute 0: 4
    assert atr[6] == pytest.approx(1e4 * (4 + 2) / 2 / 110)  # minute 1: 103..101, close before it 102
    assert atr[9] == pytest.approx(1e4 * (4 + 2 + 10) / 3 / 111)  # minute 2: from the close 101 up to 111


# --- fits


def test_temperature_is_recovered() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (20_000, 3))
    p = np.exp(learner.log_softmax(z))
    y = (rng.random((len(z), 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 2)
    assert calibrate.fit_temperature(2.5 * z, y) == pytest.approx(2.5, rel=0.03)
    assert calibrate.fit_temperature(0.5 * z, y) == pytest.approx(0.5, rel=0.03)
    assert calibrate.fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


def test_slope_is_least_squares_and_never_negative() -> None:
    score = np.array([-0.5, 0.0, 0.5])
    assert calibrate.fit_slope(score, np.array([-2.0, 1.0, 3.0])) == pytest.approx(5.0)
    assert calibrate.fit_slope(score, np.array([2.0, 0.0, -2.0])) == 0.0
    assert calibrate.fit_slope(np.zeros(3), score) == 0.0


# --- search

COSTS = calibrate.Costs(planted.HORIZON_NS, planted.LATENCY_NS)
WEIGHTS = {"gbdt": 0.3, "lstm": 0.5, "svm": 0.2}


def market_of(m: Any, *, skill: float = 1.0) -> calibrate.Market:
    logp = {name: planted.member_logp(m, skill * (0.5 + i / 4), seed=i) for i, name in enumerate(WEIGHTS)}
    return calibrate.Market(
        m.ticker, m.recv_ns, m.mid2, m.spread, m.y, m.move_bps, m.blocks["calibrate"], m.blocks["threshold"],
        np.zeros(len(m.y), np.int64), 0.1, logp,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two() -> list[calibrate.Market]:
    planted_one = planted.market(16_000, seed=1, plant=3.0)
    null_one = planted.market(16_000, seed=2, plant=0.0, ticker="SIMA")
    return [market_of(planted_one), market_of(null_one)]


def search(markets: list[calibrate.Market], out: Path, **more: Any) -> dict[str, Any]:
    return calibrate.calibrate(
        markets, WEIGHTS, COSTS, out, seed=5, trials=12, progress=lambda _: None, **more
    )


def test_the_planted_instrument_is_traded_and_the_null_one_is_not(
    two: list[calibrate.Market], tmp_path: Path
) -> None:
    result = search(two, tmp_path)
    assert set(result) == {"members", "temperature", "instruments", "exit_move_bps", "stop_multiplier"}
    assert result["instruments"]["SIMP"]["threshold_bps"] is not None
    assert result["instruments"]["SIMP"]["move_bps_per_score"] > 0
    assert result["instruments"]["SIMA"]["threshold_bps"] is None
    assert sum(result["members"].values()) == pytest.approx(1) and max(result["members"].values()) <= 0.6
    assert json.loads((tmp_path / "ensemble.json").read_text()) == result
    report = json.loads((tmp_path / "calibration.json").read_text())
    row = report["instruments"]["SIMP"]
    assert row["trade"] and row["threshold"]["trades"] >= 10 and row["lower_bps_per_hour"] > 0
    assert report["instruments"]["SIMA"]["verdict"].startswith("do not trade: ")
    in_fit = report["probabilities"]["calibrate"]
    assert in_fit["ece_after"] < in_fit["ece_before"] or in_fit["log_loss_after"] < in_fit["log_loss_before"]
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 1 + 12 == 1 + report["trials"]
    with np.load(tmp_path / "trials.npz") as stored:
        assert stored["net_bps"].shape == (len(stored["bins"]), 12)
    luck = report["statistics"]
    assert luck["choices"] == 24 + PLAIN_TRIED and luck["dsr"]["probability"] > 0.95
    assert report["kept_trial"] == (report["best_trial"] if luck["searched"] else 0)
    for ticker, blocks in report["abstention"].items():
        # Exchangeable up to the purge: at most alpha of either side is acted against where it was fitted.
        assert blocks["calibrate"]["downs_bought"] <= 0.2 and blocks["calibrate"]["ups_sold"] <= 0.2, ticker


def test_later_blocks_are_never_looked_at(two: list[calibrate.Market], tmp_path: Path) -> None:
    """Everything outside the two blocks is replaced by nonsense that would show; not one byte may change."""
    search(two, tmp_path / "clean")
    poisoned = []
    for m in two:
        other = ~(m.calibrate | m.threshold)
        mid2, spread, y, move = m.mid2_ticks.copy(), m.spread_ticks.copy(), m.y.copy(), m.move_bps.copy()
        mid2[other], spread[other], y[other], move[other] = 10**9, -7, 2, 1e9
        logp = {k: np.where(other[:, None], np.float32(np.nan), v) for k, v in m.logp.items()}
        logp["lstm"][other] = [-50.0, -50.0, 0.0]
        poisoned.append(replace(m, mid2_ticks=mid2, spread_ticks=spread, y=y, move_bps=move, logp=logp))
    search(poisoned, tmp_path / "poisoned")
    for name in ("ensemble.json", "calibration.json", "trials.csv"):
        assert (tmp_path / "clean" / name).read_bytes() == (tmp_path / "poisoned" / name).read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_traded_where_nothing_is_planted(seed: int, tmp_path: Path) -> None:
    nulls = [
        market_of(planted.market(12_000, seed=10 * seed + i, plant=0.0, ticker=f"N{i}")) for i in range(2)
    ]
    result = search(nulls, tmp_path)
    assert [i["threshold_bps"] for i in result["instruments"].values()] == [None, None]


def test_costs_above_every_edge_mean_no_trade(two: list[calibrate.Market], tmp_path: Path) -> None:
    result = search([replace(m, fee_bps=30.0) for m in two], tmp_path)
    assert all(i["threshold_bps"] is None for i in result["instruments"].values())


def test_few_trades_are_no_evidence(two: list[calibrate.Market], tmp_path: Path) -> None:
    result = search(two[:1], tmp_path, min_trades=10**6)
    assert result["instruments"]["SIMP"]["threshold_bps"] is None
    verdict = json.loads((tmp_path / "calibration.json").read_text())["instruments"]["SIMP"]["verdict"]
    assert "at least 1000000 are needed" in verdict


def test_positions_do_not_bridge_days(two: list[calibrate.Market]) -> None:
    m = two[0]
    day = (np.arange(len(m.day)) > np.flatnonzero(m.threshold)[500]).astype(np.int64)
    stretches = calibrate.stretches(day, m.threshold)
    assert len(stretches) == 2 and stretches[0].stop == stretches[1].start


def test_rows_without_scores_do_not_cut_a_position(two: list[calibrate.Market], tmp_path: Path) -> None:
    """Whether the masks name all rows of a block or only those with scores, the answer is the same."""
    search(two, tmp_path / "all")
    scored = [np.isfinite(m.logp["lstm"]).all(axis=1) for m in two]
    for m, rows in zip(two, scored, strict=True):  # ends belong to the span in either form
        rows |= np.isin(
            np.arange(len(rows)), [np.flatnonzero(b)[i] for b in (m.calibrate, m.threshold) for i in (0, -1)]
        )
    only = [
        replace(m, calibrate=m.calibrate & r, threshold=m.threshold & r)
        for m, r in zip(two, scored, strict=True)
    ]
    assert search(only, tmp_path / "only") == search(two, tmp_path / "again")
    assert (tmp_path / "only" / "calibration.json").read_bytes() == (
        tmp_path / "all" / "calibration.json"
    ).read_bytes()


def test_a_member_without_scores_is_named(two: list[calibrate.Market], tmp_path: Path) -> None:
    lame = replace(two[0], logp={"gbdt": two[0].logp["gbdt"]})
    with pytest.raises(learner.TrainingError, match="lstm, svm"):
        search([lame], tmp_path)
