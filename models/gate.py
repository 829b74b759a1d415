"""May this bundle take this alias? A pure function of facts; the only judge of promotions.

Facts come from the manifest plus what the caller has measured here (``facts_of``). A fact that is missing
refuses: silence is no evidence. Limits have defaults and are overridden by name from the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

ALIASES = ("challenger", "shadow", "canary", "prod")
"""The ladder, lowest first. ``previous`` is kept by the registry and is not asked for."""

DEFAULT_LIMITS: dict[str, float] = {
    "min_trades": 100,
    "min_edge_lower_bps": 0.0,
    "max_ece": 0.05,
    "max_ece_shadow": 0.15,
    "max_log_loss_over_climatology": 0.02,
    "max_accuracy_lost_points": 0.5,
    "max_latency_p99_us": 5000.0,
    "min_deflated_sharpe": 0.95,
    "max_overfitting": 0.2,
}
"""``max_log_loss_over_climatology`` in nats: a model far worse than base rates is broken, not just weak."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question with its answer. ``reason`` is empty when passed, one sentence when not."""

    name: str
    value: Any
    limit: Any
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict: ``passed`` only if every check did. ``notes`` travel with the alias."""

    alias: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def refusals(self) -> tuple[str, ...]:
        return tuple(check.reason for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        checks = [asdict(check) for check in self.checks]
        return {"alias": self.alias, "passed": self.passed, "checks": checks, "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """For people: one line a check."""
        return [
            f"{'pass' if c.passed else 'FAIL'}  {c.name}: {_shown(c.value)} (limit {_shown(c.limit)})"
            + (f": {c.reason}" if c.reason else "")
            for c in self.checks
        ] + [f"note  {note}" for note in self.notes]


def facts_of(
    manifest: Mapping[str, Any], *, signed: bool, golden_ok: bool | None = None,
    schema_now: str | None = None, latency_p99_us: float | None = None,
    calibration: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What ``evaluate`` looks at, from a manifest and what was measured on this machine.

    ``signed``: the signature and every hash were verified. ``golden_ok``: ``check_golden`` passed (None: not
    run). ``schema_now``: ``features.schema.schema_hash()``. ``latency_p99_us``: one ensemble step here.
    ``calibration`` and ``edge`` default to the manifest's ``metrics`` of those names.
    """
    metrics = manifest.get("metrics", {})
    return {
        "watermark": manifest.get("watermark"),
        "signed": signed,
        "golden_ok": golden_ok,
        "schema": manifest.get("feature_schema_hash"),
        "schema_now": schema_now,
        "quantisation": manifest.get("quantisation", {}),
        "calibration": calibration if calibration is not None else metrics.get("calibration", {}),
        "edge": edge if edge is not None else metrics.get("edge", {}),
        "statistics": metrics.get("statistics", {}),
        "latency_p99_us": latency_p99_us,
    }


def evaluate(
    facts: Mapping[str, Any], target_alias: str, limits: Mapping[str, float] | None = None
) -> GateResult:
    """Judge ``facts`` for ``target_alias``; for ``canary`` and ``prod`` the edge must be proven as well.

    ``facts``: as ``facts_of``. ``quantisation`` is the parity report of ``models.quantise``; ``calibration``
    has ``ece``, ``log_loss``, ``climatology_log_loss`` (``evaluate.classification``); ``edge`` has ``block``,
    ``trades``, ``net_bps_ci`` = [low, high] per trade, ``net_bps`` in all (``evaluate.trade_summary``).
    ``statistics`` is what ``models.evidence`` found about the trials.
    """
    merged = {**DEFAULT_LIMITS, **(limits or {})}
    unknown = sorted(set(merged) - set(DEFAULT_LIMITS))
    if target_alias not in ALIASES or unknown:
        wrong = f"limits {unknown}" if unknown else f"alias {target_alias!r}"
        text = f"{wrong} is unknown; aliases: {', '.join(ALIASES)}; limits: {', '.join(DEFAULT_LIMITS)}."
        return GateResult(target_alias, (Check("request", wrong, "a known name", False, text),))
    checks = [*_integrity(facts), *_quantisation(facts, merged)]
    checks += _calibration(facts, merged, strict=target_alias in ("canary", "prod"))
    checks.append(_latency(facts, merged))
    notes = []
    if target_alias in ("canary", "prod"):
        checks += [*_edge(facts, merged), *_luck(facts, merged)]
    if facts.get("watermark") == "SIMULATED":
        notes.append("SIMULATED: for paper trading only; the runner refuses this bundle in production mode")
    return GateResult(target_alias, tuple(checks), tuple(notes))


def _integrity(facts: Mapping[str, Any]) -> list[Check]:
    watermark, golden = facts.get("watermark"), facts.get("golden_ok")
    same = facts.get("schema") is not None and facts.get("schema") == facts.get("schema_now")
    known = watermark in ("SIMULATED", "REAL")
    return [
        _flag("signature", facts.get("signed") is True, "the signature of the bundle was not verified"),
        _flag("golden_rows", golden is True, "the golden rows were not reproduced on this machine"),
        _flag("feature_schema", same, "the bundle was made for another feature schema than this one"),
        _flag("watermark", known, f"watermark {watermark!r} does not say where the data is from"),
    ]


def _quantisation(facts: Mapping[str, Any], limits: Mapping[str, float]) -> list[Check]:
    report = facts.get("quantisation") or {}
    members = report.get("members") or {}
    failed = [name for name, entry in sorted(members.items()) if not entry.get("passed")]
    said = [g["reason"] for n in failed for g in members[n].get("gates", []) if not g.get("passed")]
    why = (
        "there is no parity report"
        if not members
        else f"parity failed for {', '.join(failed)}: {'; '.join(said)}"
    )
    losses = [entry.get("accuracy_lost_points") for entry in members.values()]
    lost = max(losses) if losses and all(_is_number(x) for x in losses) else None
    limit = limits["max_accuracy_lost_points"]
    return [
        _flag("quantisation_parity", bool(members) and not failed and report.get("passed") is True, why),
        _number("quantisation_accuracy_lost_points", lost, limit, lambda v: v <= limit,
                "quantisation costs {value} points of accuracy, {limit} are allowed"),
    ]  # fmt: skip


def _calibration(facts: Mapping[str, Any], limits: Mapping[str, float], *, strict: bool) -> list[Check]:
    figures = facts.get("calibration") or {}
    ece_limit = limits["max_ece" if strict else "max_ece_shadow"]
    loss, base = figures.get("log_loss"), figures.get("climatology_log_loss")
    excess = float(loss) - float(base) if _is_number(loss) and _is_number(base) else None
    loss_limit = limits["max_log_loss_over_climatology"]
    return [
        _number("calibration_error", figures.get("ece"), ece_limit, lambda v: v <= ece_limit,
                "the calibration error is {value}, {limit} is allowed"),
        _number("log_loss_over_climatology", excess, loss_limit, lambda v: v <= loss_limit,
                "the log-loss exceeds that of base rates by {value} nats, {limit} is allowed"),
    ]  # fmt: skip


def _latency(facts: Mapping[str, Any], limits: Mapping[str, float]) -> Check:
    limit = limits["max_latency_p99_us"]
    return _number("latency_p99_us", facts.get("latency_p99_us"), limit, lambda v: v <= limit,
                   "one step takes {value} us at p99, {limit} is the budget")  # fmt: skip


def _edge(facts: Mapping[str, Any], limits: Mapping[str, float]) -> list[Check]:
    """Out of sample and net of costs, on the block that nothing was fitted or chosen on."""
    edge = facts.get("edge") or {}
    trades, floor = limits["min_trades"], limits["min_edge_lower_bps"]
    held_out = edge.get("block") == "score"
    return [
        _flag("edge_block", held_out, "the edge was not measured on the held-out block 'score'"),
        _number(
            "edge_trades", edge.get("trades"), trades, lambda v: v >= trades,
            "there are {value} trades out of sample, {limit} are needed",
        ),
        _number(
            "edge_lower95_bps", (edge.get("net_bps_ci") or [None])[0], floor, lambda v: v > floor,
            "the 95% lower bound of the net edge per trade is {value} bps, it must exceed {limit}",
        ),
        _number(
            "beats_doing_nothing", edge.get("net_bps"), 0, lambda v: v > 0,
            "net of costs the block ends at {value} bps: doing nothing is no worse",
        ),
    ]  # fmt: skip


def _luck(facts: Mapping[str, Any], limits: Mapping[str, float]) -> list[Check]:
    """Is anything left when the number of tries is taken into account, and was the choice among them
    overfitted?

    A policy that was fixed before the block was looked at is no choice: it has no overfitting to measure, and
    its value is 0.
    """
    found = facts.get("statistics") or {}
    dsr, floor = (found.get("dsr") or {}).get("probability"), limits["min_deflated_sharpe"]
    share, most = (found.get("pbo") or {}).get("pbo"), limits["max_overfitting"]
    return [
        _number(
            "deflated_sharpe", dsr, floor, lambda v: v >= floor,
            f"after {found.get('choices', 'all')} tries the probability of any skill is {{value}}, "
            "{limit} is needed",
        ),
        _number(
            "overfitting", 0.0 if found.get("searched") is False else share, most, lambda v: v <= most,
            "the best of the tries was no better than the median out of sample in a share {value} of cases, "
            "{limit} is allowed",
        ),
    ]  # fmt: skip


def _flag(name: str, passed: bool, reason: str) -> Check:
    return Check(name, passed, True, passed, "" if passed else f"{reason}.")


def _number(name: str, value: Any, limit: float, holds: Callable[[float], bool], reason: str) -> Check:
    if not _is_number(value):
        return Check(name, None, limit, False, f"{name} was not measured.")
    passed = bool(holds(value))
    said = "" if passed else reason.format(value=_shown(value), limit=_shown(limit)) + "."
    return Check(name, value, limit, passed, said)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
