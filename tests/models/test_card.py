"""The model card: its figures are those of the plain formulas, its page is whole, honest and the same each
time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import card, card_figures, evaluate, page, page_plots, report
from models.card_figures import Scored

RNG = np.random.default_rng(5)


def _forecast(n: int = 3_000, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logp, y, recv_ns): outcomes that follow the forecast, ten rows a second."""
    z = RNG.normal(size=(n, 3)) * skill
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    y = np.array([RNG.choice(3, p=p) for p in np.exp(logp)])
    return logp.astype(np.float32), y, np.arange(n, dtype=np.int64) * 100_000_000


# --- figures


def test_scores_are_those_of_the_plain_formulas() -> None:
    logp, y, recv_ns = _forecast()
    prior = evaluate.shares(y)
    got = card_figures.scores(Scored(logp, y, card_figures.blocks_of(recv_ns, 20.0)), prior)
    plain = evaluate.rounded(evaluate.classification(logp, y, prior))
    for name in ("log_loss", "brier_skill", "macro_f1", "mcc", "ece"):
        assert got[name] == pytest.approx(plain[name], abs=2e-6), name
        low, high = got[f"{name}_ci"]
        # The error of a calibrated forecast is a sum of magnitudes: a draw of fewer blocks only adds to it.
        assert low < got[name] < high or name == "ece"
    assert got["skill"] == pytest.approx(1 - plain["log_loss"] / plain["climatology_log_loss"], abs=2e-6)
    assert got["blocks"] == 15


def test_the_constant_forecast_has_no_skill_and_few_blocks_have_no_interval() -> None:
    _, y, recv_ns = _forecast(600)
    prior = evaluate.shares(y)
    constant = np.broadcast_to(np.log(prior), (len(y), 3))
    got = card_figures.scores(Scored(constant, y, card_figures.blocks_of(recv_ns, 20.0)), prior)
    assert (got["skill"], got["brier_skill"], got["mcc"]) == (0.0, 0.0, 0.0)
    assert got["blocks"] < card_figures.FEWEST_BLOCKS and got["mcc_ci"] == [None, None]


def test_autocorrelated_rows_give_a_wider_interval_than_rows_drawn_alone() -> None:
    # Each outcome and its forecast thirty times over: as many rows, a thirtieth of the evidence.
    logp, y, _ = _forecast(60)
    logp, y = np.repeat(logp, 30, axis=0), np.repeat(y, 30)
    prior, rows = evaluate.shares(y), np.arange(len(y))
    together = card_figures.scores(Scored(logp, y, rows // 30), prior)["log_loss_ci"]
    alone = card_figures.scores(Scored(logp, y, rows), prior)["log_loss_ci"]
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_the_curves_end_at_the_whole() -> None:
    logp, y, _ = _forecast()
    long_bps = np.where(y == 2, 5.0, -5.0) - 1.0
    got = card_figures.coverage(logp, y, long_bps, -long_bps - 2.0)
    (x, wrong), (_, earned) = got["wrong"][-1], got["net_bps"][-1]
    assert x == 1.0
    assert wrong == pytest.approx(np.mean(logp.argmax(1) != y), abs=1e-6)
    lean = logp[:, 2] > logp[:, 0]
    assert earned == pytest.approx(np.where(lean, long_bps, -long_bps - 2.0).mean(), abs=1e-6)
    # A forecast with skill is right more often where it is surer.
    assert got["wrong"][0][1] < wrong and got["net_bps"][0][1] > earned
    assert len(got["wrong"]) <= card_figures.CURVE_POINTS


def test_importance_finds_the_planted_feature_and_gives_nothing_to_the_rest() -> None:
    import lightgbm as lgb

    X = RNG.normal(size=(2_000, 4)).astype(np.float32)
    y = np.where(X[:, 2] > 0.5, 2, np.where(X[:, 2] < -0.5, 0, 1))
    X[:, 3] = 0.0
    booster = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1, "seed": 1},
        lgb.Dataset(X, y), 20,
    )  # fmt: skip
    rows = card_figures.importance(booster.model_to_string(), ["a", "b", "planted", "constant"], X, y)
    assert rows[0]["feature"] == "planted" and rows[0]["gain_share"] > 0.9
    assert rows[0]["log_loss_rise_e3"] > 100
    last = next(row for row in rows if row["feature"] == "constant")
    assert (last["gain_share"], last["log_loss_rise_e3"]) == (0.0, 0.0)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=40), st.floats(0, 10))
def test_other_commissions_move_the_card_and_the_report_alike(net: list[float], paid: float) -> None:
    trips = [{"net_bps": value, "fee_bps": paid} for value in net]
    ours = card_figures.at_fees(trips, (0.0, 2.0, 5.0))
    theirs = report.fee_sensitivity(net, net, paid, (0.0, 2.0, 5.0))
    for a, b in zip(ours, theirs, strict=True):
        assert a["net_bps"] == pytest.approx(b["net bp per trade"], abs=1e-5)
        assert a["net_bps_ci"][0] <= a["net_bps"] + 1e-5 and a["net_bps_ci"][1] >= a["net_bps"] - 1e-5
    assert card_figures.at_fees([], (0.0,)) == []


def test_a_cost_above_the_move_cannot_be_earned() -> None:
    found = card_figures.economics([1.0, -1.0], [2, 2], [20_000, 20_000], 5.0)
    assert found == {"cost_bps": 12.0, "move_bps": 1.0, "break_even": 6.5}
    assert card_figures.economics([np.nan], [1], [0], 5.0)["cost_bps"] is None


# --- charts


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=30),
    st.booleans(),
)
def test_a_chart_of_any_points_stays_inside_its_frame(points: list[Any], step: bool) -> None:
    drawn = page_plots.chart(
        "t", [page_plots.Line("a", sorted(points), step=step)], page_plots.Axes("x", "y")
    )
    for pair in re.search(r'<polyline points="([^"]*)"', drawn)[1].split():  # type: ignore[index]
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 420 and 0 <= y <= 300


def test_a_chart_of_nothing_says_so() -> None:
    assert "nothing to draw" in page_plots.chart(
        "empty", [page_plots.Line("a", [])], page_plots.Axes("x", "y")
    )


# --- the page


def test_cells_tell_figures_from_words() -> None:
    drawn = page.table(
        [{"n": 1234, "share": "5.0%", "why": "<too> few", "sure": page.Figure("1.0", "[0, 2]")}]
    )
    assert "<td>1,234</td>" in drawn and "<td>5.0%</td>" in drawn
    assert "<td class=t>&lt;too&gt; few</td>" in drawn and "<small>[0, 2]</small>" in drawn
    assert page.table([]) == "" and page.section("Nothing", "") == ""


def sample(watermark: str = "SIMULATED", **changed: Any) -> dict[str, Any]:
    """A card as stage ``card`` writes it, of few rows."""
    logp, y, recv_ns = _forecast()
    rows = Scored(logp, y, card_figures.blocks_of(recv_ns, 20.0))
    scores = card_figures.scores(rows, evaluate.shares(y))
    net = np.array([3.0, -1.0, 2.0, 4.0] * 10)
    edge = evaluate.rounded(evaluate.trade_summary(net, net + 1))
    instrument = {"ticker": "S<1>", "days": 1, "books": 10, "trades": 5, "dropped": 0, "gaps": 0,
                  "fee_bps": 0.5, "verdict": "ok"}  # fmt: skip
    member = {"planned": "INT8", "mode": "FLOAT16", "agreement": 0.999, "max_abs_dp": 1e-3, "kib": 12.5,
              "accuracy_lost_points": 0.1, "passed": True, "fallback": "INT8 failed: why"}  # fmt: skip
    return {
        "watermark": watermark, "manifest_sha256": "ab" * 32,
        "manifest": {
            "horizon_ns": 10**10, "latency_ns": 10**8, "tariff": "t", "instruments": [{"ticker": "S<1>"}],
            "data_hash": "d", "code_hash": "c", "feature_schema_hash": "f", "params": {"labels": {"h": 1}},
            "seeds": {"seed": 7}, "versions": {"numpy": "2"}, "valid_until_ns": 1_770_000_000 * 10**9,
        },
        "data": {"source": "test", "from_ns": 0, "to_ns": 10**13, "days": 1, "instruments": [instrument]},
        "purge_s": 10.1, "block_s": 20.0, "climatology_log_loss": 1.0, "mean_fee_bps": 0.5,
        "splits": [{"block": "fit", "from_ns": 0, "to_ns": 1, "rows": 9, "down": 0.1, "flat": 0.8,
                    "up": 0.1}],
        "scores": [{"name": "ensemble", "weight": None, **scores}, {"name": "svm", "weight": 0.0, **scores}],
        "by_instrument": [], "reliability": card_figures.reliability(rows),
        "coverage": card_figures.coverage(logp, y, y - 1.0, 1.0 - y),
        "economics": [{"ticker": "S<1>", "cost_bps": 2.0, "move_bps": 1.0, "break_even": 1.5,
                       "decided": "do not trade: why"}],
        "edge": {"block": "score", "verdict": report.verdict(edge), **edge}, "fees": [], "variants": [],
        "statistics": {"trials": 60, "instruments": []},
        "conformal": [{"ticker": "S<1>", "alpha": 0.2, "rows": 9, "acted": 0.3, "downs_bought": 0.1,
                       "ups_sold": None}],
        "importance": [{"feature": "a", "gain_share": 1.0, "log_loss_rise_e3": 2.0}],
        "quantisation": {"members": {"svm": member}}, **changed,
    }  # fmt: skip


def test_the_page_is_whole_marked_and_escaped(tmp_path: Path) -> None:
    card.write(sample(), tmp_path / "model_card.html")
    assert [p.name for p in tmp_path.iterdir()] == ["model_card.html"]
    text = (tmp_path / "model_card.html").read_text()
    assert not re.search(r"(src|href)=", text) and "<script" not in text and "url(" not in text
    assert "S&lt;1&gt;" in text and "S<1>" not in text
    assert text.count("SIMULATED") > 50 and "prefers-color-scheme:dark" in text and "@media print" in text
    assert "impossible" in text and "INT8 failed: why" in text and "No weight: svm" in text
    assert '<p class="verdict edge">edge</p>' in text


def test_a_real_recording_is_not_called_simulated() -> None:
    text = "\n".join(card.parts(sample("REAL")))
    assert "SIMULATED" not in text and "not a forecast" in text


def test_what_was_not_measured_is_said_and_what_was_is_shown() -> None:
    text = "\n".join(card.parts(sample()))
    assert text.count("not measured") == 4 and "a time belongs to a machine" in text
    found = {
        "trials": 60, "instruments": [],
        "dsr": {"probability": 0.971, "sharpe": 0.2, "periods": 50, "benchmark": 0.1, "trials": 60.0},
        "pbo": {"pbo": 0.13, "splits": 70, "periods": 64, "trials": 60},
        "cpcv": {"missing": "two days are too few"}, "why": "believed because",
        "walk_forward": {"folds": [{}, {}, {}], "positive": 2},
    }  # fmt: skip
    check = {"name": "edge_trades", "value": 3, "limit": 100, "passed": False, "reason": "few"}
    gate = {"alias": "prod", "passed": False, "notes": [], "checks": [check]}
    here = {"latency": [{"forecast": "ensemble", "p50, us": 200.0, "p99, us": 300.0}], "gate": gate}
    told = "\n".join(card.parts(sample(statistics=found), here))
    assert "0.971" in told and "0.13 of 70 half-splits" in told and "two days are too few" in told
    assert "believed because" in told and "in 2 of 3 folds" in told
    assert "the 40 of this version can show one of 0.7 bp" in told and "trades scatter by 1.9 bp" in told
    assert "<td>60</td>" in told, "what luck shows after as many tries"
    untraded = "\n".join(card.parts(sample(edge={"block": "score", "verdict": "no trades", "trades": 0})))
    assert "Trades usually scatter by 8.0 bp" in untraded and "<td>1,583</td>" in untraded
    assert '<p class="verdict refused">refused</p>' in told and "edge trades" in told and "p99, us" in told


def test_the_same_value_gives_the_same_page() -> None:
    one = sample()
    assert list(card.parts(one)) == list(card.parts(one))
