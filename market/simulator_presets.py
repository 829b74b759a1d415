"""What a simulated market is made of, and the named mixtures.

The numbers of the base presets and of their variants are those under which the stylised facts were measured;
``docs/simulator.md`` shows what each of them gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

TickClass = Literal["small", "large"]
"""Small-tick: a spread of three ticks and more. Large-tick: at most one and a half (Briola and others)."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What the market is made of. Rates are per second, times in seconds, sizes in lots.

    The order of the fields is the order of the kernel's arguments.
    """

    levels: int = 30
    """Active levels per side."""
    k: float = 1.2
    """Rate of limit orders one tick from the opposite best; ``k / i**alpha`` at ``i`` ticks."""
    alpha: float = 0.4
    mu: float = 1.2
    """Rate of market orders per side, before Hawkes excitation."""
    theta: float = 0.25
    """Rate of cancels per ``q0`` lots of resting size."""
    pin: float = 0.03
    """Chance that a limit order inside the spread improves the quote: it sets the spread."""
    resil: float = 0.5
    """Chance that the other side follows when a level is used up."""
    pmeta: float = 0.4
    """Share of market orders that are children of a metaorder: it sets the memory of trade signs."""
    gmeta: float = 1.5
    """Pareto exponent of the metaorders' length."""
    ha: float = 0.6
    hb: float = 1.2
    """Hawkes jump and decay of market orders."""
    cimb: float = 0.5
    """How strongly the level-1 imbalance tilts market orders."""
    kappa: float = 0.15
    """How strongly limit orders lean against the recent flow: it sets the variance ratio."""
    vv: float = 0.9
    vtau: float = 300.0
    """Standard deviation and relaxation time of the log-activity: fat tails, memory of absolute returns."""
    ushape: float = 2.0
    """Activity at the edges of the session over its middle, minus one."""
    q0: float = 100.0
    """Typical size of a level."""
    tau: float = 12.0
    """Relaxation time of the latent state."""
    gflow: float = 0.0
    """Tilt of market orders by the latent state."""
    gbook: float = 0.0
    """Tilt of limit orders by the latent state."""


SMALL = Preset()
"""A share whose spread is several ticks wide (tick about 0.33 bp): cheap to run."""
LARGE = replace(SMALL, k=2.5, alpha=0.5, mu=1.6, theta=0.2, pin=1.0, resil=0.85, pmeta=0.2, kappa=0.05)
"""An instrument whose spread is nearly always one tick."""
SMALL_ACTIVE = replace(SMALL, k=7.2, mu=7.2, theta=1.5, ha=3.6, hb=7.2, pmeta=0.3, kappa=0.3)
"""SMALL with six times the events: about a liquid share's volatility (the SBER-volatility variant). For
demonstrations of economics."""
SMALL_LEANING = replace(SMALL, kappa=0.25)
"""SMALL whose liquidity leans harder against the flow: trade imbalance explains less, prices revert more."""
SMALL_STEADY = replace(SMALL, vv=0.5, ushape=1.0, pin=0.1)
"""SMALL with a calmer activity and a spread of about three ticks: a planted edge is then there in most
minutes, not only in wild spells."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "SMALL": SMALL,
        "LARGE": LARGE,
        "SMALL_ACTIVE": SMALL_ACTIVE,
        "SMALL_LEANING": SMALL_LEANING,
        "SMALL_STEADY": SMALL_STEADY,
    }
)

TICK_CLASS: Mapping[str, TickClass] = MappingProxyType(
    {"SMALL": "small", "LARGE": "large", "SMALL_ACTIVE": "small", "SMALL_LEANING": "small"}
)
"""The spread that a preset promises; SMALL_STEADY lies between the classes and promises none."""

PLANT: Mapping[str, float] = MappingProxyType({"gflow": 0.4, "gbook": 0.6, "tau": 24.0})
"""Unrealistically strong on purpose: the whole line must find it and trade it."""
