"""The features, declared once: what each column is, over which window, and when it is masked.

The order of ``FEATURES`` is the order of columns everywhere: the kernel derives its column numbers from it,
the learners train on it, and ``schema_hash`` travels in the model bundle so that a runner with another list
refuses to load. A masked feature is NaN in its row, never zero: a missing level is unknown, not empty.

Sources are given as in the literature: CKS = Cont, Kukanov, Stoikov 2014; XGH = Xu, Gould, Howison 2018; GB =
Gould, Bonart 2016; CdL = Cont, de Larrard 2013; NS = Naes, Skjeltorp 2006; BMM = Bacry, Mastromatteo, Muzy
2015; ASFXZ = Ait-Sahalia, Fan, Xue, Zhou 2022.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

FORMULA_VERSION: Final = 1
"""Raise it whenever the kernel computes another number under an unchanged name."""

WARMUP_NS: Final = 120_000_000_000
"""After a start, a reset or a gap, rows carry the WARMUP bit for this long."""
GAP_NS: Final = 10_000_000_000
"""Without a valid book for longer than this, the state is thrown away."""

# Bits of a row's status. A row may be fed to a model when nothing but DUPLICATE is set (``usable``).
WARMUP: Final = 1
CROSSED: Final = 2
ONE_SIDED: Final = 4
GAP: Final = 8
INCONSISTENT: Final = 16
DUPLICATE: Final = 32
STATUS_NAMES: Final[dict[int, str]] = {
    WARMUP: "WARMUP",
    CROSSED: "CROSSED",
    ONE_SIDED: "ONE_SIDED",
    GAP: "GAP",
    INCONSISTENT: "INCONSISTENT",
    DUPLICATE: "DUPLICATE",
}

OFI_LEVELS: Final = 5
FLOW_WINDOWS_S: Final = (1, 5, 20)
TRADE_WINDOWS_S: Final = (1, 5, 20, 60)
INTENSITY_WINDOWS_S: Final = (1, 10)
VOL_WINDOWS_S: Final = (10, 60, 300)
RETURN_WINDOWS_S: Final = (1, 5, 20, 60)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One column. ``window_s`` is the time constant of an exponential window, or the length of a return.

    ``mask`` says when the value is NaN. ``seasonal`` marks clock features: they move by construction, so
    drift watchers leave them out, and a model may only use them when it was fitted on several days.
    ``aligned``: two snapshots are compared price by price; without it level m is compared with level m, so
    that a move of the touch shifts every level.
    """

    name: str
    source: str
    window_s: float
    unit: str
    mask: str
    seasonal: bool = False
    aligned: bool = False


_NEVER = "never on a valid book"
_LEVEL = "the level is absent on either side"


def _declare() -> tuple[FeatureSpec, ...]:
    spec = FeatureSpec
    flow = "asinh of lots per mean level size"
    return (
        *(
            spec(f"ofi_l{m}_{w}s", "CKS and XGH: order flow imbalance of one level", w, flow, _LEVEL)
            for w in FLOW_WINDOWS_S
            for m in range(1, OFI_LEVELS + 1)
        ),
        *(
            spec(
                f"aligned_flow_{w}s",
                "CKS on prices seen in both snapshots, weight exp(-d/5)",
                w,
                flow,
                _NEVER,
                aligned=True,
            )
            for w in FLOW_WINDOWS_S
        ),
        spec("imbalance_l1", "GB: (qb-qa)/(qb+qa)", 0, "-1..1", _NEVER),
        spec(
            "imbalance_d5", "GB over five levels, weight exp(-m/2)", 0, "-1..1", "fewer than 5 levels a side"
        ),
        spec("weighted_mid_dev", "(a qb + b qa)/(qb+qa) - mid", 0, "ticks", _NEVER),
        spec("queue_race_up", "CdL: chance that the ask queue empties first, rho = -0.5", 0, "0..1", _NEVER),
        spec(
            "slope_bid",
            "NS: OLS of log(1+cumulative lots) on ticks from mid",
            0,
            "1/tick",
            "under 10 bid levels",
        ),
        spec("slope_ask", "NS, ask side", 0, "1/tick", "under 10 ask levels"),
        spec("slope_diff", "NS: slope_bid - slope_ask", 0, "1/tick", "under 10 levels on either side"),
        spec(
            "cost_diff",
            "cost of buying less cost of selling three mean level sizes, against mid",
            60,
            "ticks",
            "the visible book is thinner than that",
        ),
        *(
            spec(f"trade_flow_{w}s", "ASFXZ: (V+ - V-)/(V+ + V- + 1)", w, "-1..1", _NEVER)
            for w in TRADE_WINDOWS_S
        ),
        *(
            spec(f"intensity_{side}_{w}s", "BMM: log(1+R), R of trades by aggressor", w, "log count", _NEVER)
            for w in INTENSITY_WINDOWS_S
            for side in ("buy", "sell")
        ),
        *(
            spec(
                f"vol_{w}s",
                "realised volatility of mid on a 1 s grid",
                w,
                "bps per sqrt(s)",
                "first 2 seconds",
            )
            for w in VOL_WINDOWS_S
        ),
        spec("vol_ratio", "realised volatility, 10 s over 300 s", 10, "ratio", "first 2 seconds"),
        *(
            spec(
                f"return_{w}s",
                "ASFXZ: mid change over max(1 tick, sigma_60s sqrt(w))",
                w,
                "sigmas",
                "less history than the window",
            )
            for w in RETURN_WINDOWS_S
        ),
        spec("last_trade_dev", "last trade - mid", 0, "ticks", "no trade since the reset"),
        spec("spread_ticks", "spread, capped at 8", 0, "ticks", _NEVER),
        spec("spread_bps", "spread over mid", 0, "bps", _NEVER),
        spec("since_spread_change", "log(1 + seconds since the spread changed)", 0, "log s", _NEVER),
        spec("since_mid_change", "log(1 + seconds since mid changed)", 0, "log s", _NEVER),
        spec("day_sin", "sin of the Moscow time of day", 0, "-1..1", _NEVER, seasonal=True),
        spec("day_cos", "cos of the Moscow time of day", 0, "-1..1", _NEVER, seasonal=True),
    )


FEATURES: Final[tuple[FeatureSpec, ...]] = _declare()
NAMES: Final[tuple[str, ...]] = tuple(f.name for f in FEATURES)
F: Final = len(FEATURES)
SEASONAL: Final[tuple[int, ...]] = tuple(k for k, f in enumerate(FEATURES) if f.seasonal)
"""Columns of the clock features."""


def schema_hash() -> str:
    """SHA-256 hex over names, windows and formula version: equal when rows mean the same."""
    said = [FORMULA_VERSION, [[f.name, float(f.window_s)] for f in FEATURES]]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


def usable(status: int) -> bool:
    """May a row with this status be fed to a model?"""
    return status & ~DUPLICATE == 0


def reasons(status: int) -> tuple[str, ...]:
    """The names of the bits set in ``status``."""
    return tuple(name for bit, name in STATUS_NAMES.items() if status & bit)
