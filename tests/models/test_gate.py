"""The gate says no by default, names what is missing, and never lets a fact pass that was not measured."""

from __future__ import annotations

import copy
import json
from typing import Any

import bundle_parts
import pytest

from models.gate import ALIASES, DEFAULT_LIMITS, GateResult, evaluate, facts_of

PARITY = {"passed": True, "members": {"lstm": {"passed": True, "accuracy_lost_points": 0.1, "gates": []}}}
GOOD: dict[str, Any] = {
    "watermark": "REAL",
    "signed": True,
    "golden_ok": True,
    "schema": "a",
    "schema_now": "a",
    "quantisation": PARITY,
    "calibration": {"ece": 0.03, "log_loss": 1.0, "climatology_log_loss": 1.05},
    "edge": {"block": "score", "trades": 250, "net_bps_ci": [0.2, 0.9], "net_bps": 130.0},
    "statistics": {"dsr": {"probability": 0.97}, "pbo": {"pbo": 0.1}, "searched": True, "choices": 180},
    "latency_p99_us": 800.0,
}


def with_(path: str, value: Any) -> dict[str, Any]:
    facts = copy.deepcopy(GOOD)
    node = facts
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    return facts


@pytest.mark.parametrize(
    ("statistics", "check"),
    [
        ({}, "deflated_sharpe"),
        ({"dsr": {"missing": "no instrument is traded"}, "searched": False}, "deflated_sharpe"),
        ({"dsr": {"probability": 0.94}, "pbo": {"pbo": 0.0}, "searched": True}, "deflated_sharpe"),
        ({"dsr": {"probability": 0.99}, "pbo": {"pbo": 0.3}, "searched": True}, "overfitting"),
        ({"dsr": {"probability": 0.99}, "pbo": {"missing": "few bins"}, "searched": True}, "overfitting"),
        ({"dsr": {"probability": 0.99}}, "overfitting"),
    ],
)
def test_luck_is_refused_where_money_is_at_stake(statistics: dict[str, Any], check: str) -> None:
    facts = with_("statistics", statistics)
    for alias in ("canary", "prod"):
        assert check in failed(evaluate(facts, alias))
    assert evaluate(facts, "shadow").passed


def test_a_policy_that_was_not_chosen_has_no_overfitting() -> None:
    facts = with_("statistics", {**GOOD["statistics"], "pbo": {"pbo": 0.7}, "searched": False})
    assert evaluate(facts, "prod").passed


def failed(result: GateResult) -> list[str]:
    return [check.name for check in result.checks if not check.passed]


@pytest.mark.parametrize("alias", ALIASES)
def test_all_good_passes_everywhere(alias: str) -> None:
    result = evaluate(GOOD, alias)
    assert result.passed and result.refusals == () and result.notes == ()
    json.dumps(result.to_dict())


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        ("signed", False, "signature"),
        ("golden_ok", None, "golden_rows"),
        ("schema_now", "b", "feature_schema"),
        ("schema_now", None, "feature_schema"),
        ("watermark", None, "watermark"),
        ("quantisation", {}, "quantisation_parity"),
        ("quantisation.passed", False, "quantisation_parity"),
        ("calibration.ece", 0.2, "calibration_error"),
        ("calibration.ece", float("nan"), "calibration_error"),
        ("calibration.log_loss", 1.08, "log_loss_over_climatology"),
        ("calibration", {}, "calibration_error"),
        ("latency_p99_us", None, "latency_p99_us"),
        ("latency_p99_us", 5000.1, "latency_p99_us"),
    ],
)
def test_what_refuses_even_the_shadow(path: str, value: Any, check: str) -> None:
    result = evaluate(with_(path, value), "shadow")
    assert check in failed(result) and not result.passed
    assert all(reason.endswith(".") for reason in result.refusals)


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        ("edge.net_bps_ci", [0.0, 1.0], "edge_lower95_bps"),
        ("edge.net_bps_ci", [float("nan"), 1.0], "edge_lower95_bps"),
        ("edge.trades", 99, "edge_trades"),
        ("edge.net_bps", 0.0, "beats_doing_nothing"),
        ("edge.block", "threshold", "edge_block"),
        ("edge.trades", True, "edge_trades"),
        ("calibration.ece", 0.06, "calibration_error"),
    ],
)
def test_what_refuses_money_but_not_the_shadow(path: str, value: Any, check: str) -> None:
    facts = with_(path, value)
    assert evaluate(facts, "shadow").passed
    for alias in ("canary", "prod"):
        assert failed(evaluate(facts, alias)) == [check]


def test_no_trades_at_all_is_refused_with_reasons() -> None:
    result = evaluate(with_("edge", {"block": "score", "trades": 0}), "prod")
    assert failed(result) == ["edge_trades", "edge_lower95_bps", "beats_doing_nothing"]
    assert "0 trades" in result.refusals[0]


def test_nothing_known_passes_nothing() -> None:
    result = evaluate({}, "prod")
    assert len(failed(result)) == len(result.checks)


def test_limits_by_name_and_unknown_ones_refuse() -> None:
    assert evaluate(GOOD, "prod", {"min_trades": 251}).refusals
    assert evaluate(with_("edge.trades", 10), "prod", {"min_trades": 10}).passed
    for result in (evaluate(GOOD, "prod", {"min_tradse": 1}), evaluate(GOOD, "production")):
        assert not result.passed and len(result.refusals) == 1
    assert "min_tradse" in evaluate(GOOD, "prod", {"min_tradse": 1}).refusals[0]
    assert DEFAULT_LIMITS["min_trades"] == 100, "evaluate left the defaults alone"


def test_a_failed_parity_gate_is_quoted() -> None:
    gates = [{"name": "fp16_agreement", "passed": False, "reason": "fp16_agreement of svm is 0.9"}]
    members = {"svm": {"passed": False, "accuracy_lost_points": 0.7, "gates": gates}}
    result = evaluate(with_("quantisation", {"passed": False, "members": members}), "challenger")
    assert failed(result) == ["quantisation_parity", "quantisation_accuracy_lost_points"]
    assert "fp16_agreement of svm is 0.9" in result.refusals[0]


def test_a_simulated_bundle_carries_its_note() -> None:
    result = evaluate(with_("watermark", "SIMULATED"), "prod")
    assert result.passed and "paper" in result.notes[0] and any("paper" in line for line in result.lines())


def test_facts_come_from_the_manifest() -> None:
    manifest = bundle_parts.manifest(
        metrics={name: GOOD[name] for name in ("calibration", "edge", "statistics")},
        quantisation=PARITY,
        watermark="REAL",
    )
    measured = {"signed": True, "golden_ok": True, "schema_now": bundle_parts.SCHEMA, "latency_p99_us": 900.0}
    assert evaluate(facts_of(manifest, **measured), "prod").passed
    other = facts_of(manifest, **measured, edge={"block": "score", "trades": 0})
    assert not evaluate(other, "prod").passed
