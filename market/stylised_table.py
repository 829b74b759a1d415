"""The table of stylised facts: what was measured, the gate, and whether it is passed.

Gates and anchors: Briola, Bartolucci, Aste 2025 (spread classes); Cont, Kukanov, Stoikov 2014 (OFI, trade
imbalance); Gould, Bonart 2016 (queue imbalance); Cont 2001 (returns); Lillo, Farmer 2004 (trade signs). A
fact that fails is shown as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from market.stylised import F64, IMBALANCE_BINS, SLICES, Measures, ratio


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the table. ``value`` is the mean over days (or seeds), ``low`` and ``high`` the range of
    them; ``passed`` is None where there is no gate."""

    name: str
    value: float
    gate: str
    passed: bool | None
    anchor: str
    low: float
    high: float


def facts(
    measured: list[Measures], *, tick_class: Literal["small", "large"] | None = None,
    speed_s: float | None = None,
) -> list[Fact]:  # fmt: skip
    """The table: each fact's mean over ``measured``, its gate and whether the mean passes it.

    ``tick_class`` is what the instrument is said to be; without it the spread is only reported. ``speed_s``:
    seconds of one core for eight simulated hours, where there was a simulation.
    """
    rows = [
        _spread_fact(measured, tick_class),
        _fact("spread, 95th percentile, ticks", [m.spread_p95 for m in measured]),
        _fact("1 s volatility, ticks", [m.volatility_1s for m in measured]),
        _between("OFI to mid move, 10 s, R2", [m.ofi_r2 for m in measured], 0.5, 0.9, "0.65 (CKS)"),
        _trade_fact(measured),
        *_imbalance_facts(measured),
        _above("excess kurtosis, 1 s", [m.kurtosis_1s for m in measured], 2, "heavy tails", equal=True),
        _above("excess kurtosis, 10 s", [m.kurtosis_10s for m in measured], 2, "heavy tails", equal=True),
        _between("ACF of returns, 1 s, lag 1", [m.acf_1s for m in measured], -0.25, 0, "slightly negative"),
        _above("ACF of abs(r), 10 s, lag 1", [m.acf_abs_10s[0] for m in measured], 0.1, "positive, slow"),
        _above("ACF of abs(r), 10 s, lag 10", [m.acf_abs_10s[9] for m in measured], 0.05, "positive, slow"),
        _between("variance ratio, 60 s / 1 s", [m.variance_ratio for m in measured], 0.7, 1.3, "about 1"),
        *_sign_facts(measured),
        _fact("deepest level (hump)", [float(np.argmax(m.depth) + 1) for m in measured], anchor="hump"),
        _fact(
            "lots there over lots at level 1",
            [ratio(float(m.depth.max()), float(m.depth[0])) for m in measured],
        ),
        *_intraday_facts(measured),
    ]
    if speed_s is not None:
        rows.append(_row("speed: seconds for 8 h, one core", speed_s, [speed_s], "< 5", speed_s < 5, ""))
    return rows


def _row(name: str, value: float, values: list[float], gate: str, passed: bool | None, anchor: str) -> Fact:
    known = [v for v in values if np.isfinite(v)] or [float("nan")]
    if not np.isfinite(value):
        passed = None
    return Fact(name, float(value), gate, passed, anchor, float(min(known)), float(max(known)))


def _mean(values: list[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def _fact(name: str, values: list[float], *, anchor: str = "") -> Fact:
    return _row(name, _mean(values), values, "report", None, anchor)


def _between(name: str, values: list[float], low: float, high: float, anchor: str) -> Fact:
    mean = _mean(values)
    return _row(name, mean, values, f"{low:g} .. {high:g}", low <= mean <= high, anchor)


def _above(name: str, values: list[float], least: float, anchor: str, *, equal: bool = False) -> Fact:
    mean = _mean(values)
    passed = mean >= least if equal else mean > least
    return _row(name, mean, values, f"{'>=' if equal else '>'} {least:g}", passed, anchor)


def _spread_fact(measured: list[Measures], tick_class: Literal["small", "large"] | None) -> Fact:
    values = [m.spread for m in measured]
    mean, name, anchor = _mean(values), "mean spread, ticks", "small tick >= 3, large <= 1.5"
    if tick_class == "small":
        return _row(name, mean, values, ">= 3 (small tick)", mean >= 3, anchor)
    if tick_class == "large":
        return _row(name, mean, values, "<= 1.5 (large tick)", mean <= 1.5, anchor)
    found = "small tick" if mean >= 3 else "large tick" if mean <= 1.5 else "between the classes"
    return _row(name, mean, values, f"report: {found}", None, anchor)


def _trade_fact(measured: list[Measures]) -> Fact:
    values = [m.trade_r2 for m in measured]
    mean, ofi = _mean(values), _mean([m.ofi_r2 for m in measured])
    return _row(
        "trade imbalance to mid move, 10 s, R2",
        mean,
        values,
        "< the one of OFI",
        mean < ofi,
        "0.32 (CKS)",
    )


def _imbalance_facts(measured: list[Measures]) -> list[Fact]:
    chance = np.array([m.up_by_imbalance for m in measured])
    steps = np.diff(chance.reshape(len(measured), IMBALANCE_BINS // 2, 2).mean(axis=2), axis=1)
    worst = float(np.nanmean(steps, axis=0).min()) if np.isfinite(steps).any() else float("nan")
    return [
        _fact("P(next move up) at imbalance < -0.8", list(chance[:, 0]), anchor="near 0"),
        _fact("P(next move up) at imbalance > 0.8", list(chance[:, -1]), anchor="near 1"),
        _row(
            "P(next move up): least step between fifths", worst, [float(s.min()) for s in steps], "> 0",
            worst > 0, "monotone (Gould, Bonart)",
        ),
    ]  # fmt: skip


def _sign_facts(measured: list[Measures]) -> list[Fact]:
    """Slow decay: at lag 20 more is left than the exponential through lags 1 and 5 would leave."""
    values = {lag: [float(m.sign_acf[lag - 1]) for m in measured] for lag in (1, 5, 20)}
    one, five, twenty = (_mean(values[lag]) for lag in (1, 5, 20))
    anchor = "power law, exponent 0.6"
    falling = one > five > twenty > 0
    exponential = one * (five / one) ** (19 / 4) if one > 0 and five > 0 else 0.0
    return [
        _fact("ACF of trade signs, lag 1", values[1], anchor=anchor),
        _fact("ACF of trade signs, lag 5", values[5], anchor=anchor),
        _row(
            "ACF of trade signs, lag 20", twenty, values[20], "falling, slower than exponential",
            falling and twenty > exponential, anchor,
        ),
    ]  # fmt: skip


def _intraday_facts(measured: list[Measures]) -> list[Fact]:
    """Edges: the first and last eighth of the trading time. Middle: the quarter around its centre."""

    def edge_over_middle(values: F64) -> float:
        eighth = SLICES // 8
        edges = np.concatenate([values[:eighth], values[-eighth:]])
        return ratio(float(np.nanmean(edges)), float(np.nanmean(values[3 * eighth : 5 * eighth])))

    volume = edge_over_middle(np.mean([m.volume for m in measured], axis=0))
    variance = edge_over_middle(np.mean([m.variance for m in measured], axis=0))
    anchor = "edges > middle"
    return [
        _row(
            "intraday U of volume, edges / middle", volume, [edge_over_middle(m.volume) for m in measured],
            "> 1.3", volume > 1.3, anchor,
        ),
        _row(
            "intraday U of 1 s volatility, edges / middle", variance**0.5,
            [edge_over_middle(m.variance) ** 0.5 for m in measured], "> 1.3", variance**0.5 > 1.3, anchor,
        ),
    ]  # fmt: skip
