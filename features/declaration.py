"""The list of the features. ``schema`` gives it numbers; what the windows are is said here and nowhere else.

Order matters to the kernel: what is told as asinh comes first, then what is told as log(1 + x), so that one
loop takes all their logarithms.

Sources are given as in the literature: CKS = Cont, Kukanov, Stoikov 2014; CCZ = Cont, Cucuringu, Zhang 2023;
XGH = Xu, Gould, Howison 2018; GB = Gould, Bonart 2016; St = Stoikov 2018; CdL = Cont, de Larrard 2013; NS =
Naes, Skjeltorp 2006; ELO = Easley, Lopez de Prado, O'Hara 2012; BNS = Barndorff-Nielsen, Shephard 2004; BMM =
Bacry, Mastromatteo, Muzy 2015; ASFXZ = Ait-Sahalia, Fan, Xue, Zhou 2022; HA = Huth, Abergel 2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

OFI_LEVELS: Final = 5
FLOW_WINDOWS_S: Final[tuple[float, ...]] = (1, 5, 20)
TAPE_WINDOWS_S: Final[tuple[float, ...]] = (0.25, 1, 5, 20, 60, 300)
VWAP_WINDOWS_S: Final[tuple[float, ...]] = (5, 20, 60, 300)
INTENSITY_WINDOWS_S: Final[tuple[float, ...]] = (0.1, 1, 10)
QUOTE_WINDOWS_S: Final[tuple[float, ...]] = (1, 10)
VOL_WINDOWS_S: Final[tuple[float, ...]] = (10, 60, 300)
RETURN_WINDOWS_S: Final[tuple[float, ...]] = (1, 5, 20, 60)
MOMENTUM_WINDOWS_S: Final[tuple[float, ...]] = (0.25, 1, 5, 20, 60, 300)
ACTIVITY_WINDOWS_S: Final[tuple[float, ...]] = (2, 20)
EMA_WINDOWS_S: Final[tuple[float, ...]] = (2, 10, 60, 300)
LEADER_WINDOWS_S: Final[tuple[float, ...]] = (1, 5, 20)
STEPS: Final = (1, 2, 3, 5, 10)
LEVEL_DECAYS: Final = (0.1, 0.3, 1.0)
DISTANCES_TICKS: Final = (2, 6, 20)
GAPS: Final = (1, 2, 3)

ODD: Final = "odd"
EVEN: Final = "even"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One column. ``window_s`` is the time constant of an exponential window, or the length of a return.

    ``mask`` says when the value is NaN. ``seasonal`` marks clock features: they move by construction, so
    drift watchers leave them out, and a model may only use them when it was fitted on several days.
    ``feed`` marks what measures the pace at which books are delivered: a recording cannot say how a live feed
    will pace them, so scaled learners do not see it (milliseconds of jitter would be five of its sigmas).
    ``aligned``: two snapshots are compared price by price; without it level m is compared with level m, so
    that a move of the touch shifts every level. ``mirror`` says what the column does where buyers and sellers
    change places (bids become asks, prices are negated): ``odd`` changes its sign, ``even`` stays, a column's
    name means that the two change places.
    """

    name: str
    source: str
    window_s: float
    unit: str
    mask: str
    mirror: str
    seasonal: bool = False
    aligned: bool = False
    feed: bool = False


_NEVER = "never on a valid book"
_LEVEL = "the level is absent on either side"
_CLOSED = "outside the usual sessions of its kind, or the kind is not known"
_LEADER = "no leader, none heard for 10 s, or for under 20 s in all"
_FLOW = "asinh of lots per mean level size"


def declared() -> tuple[FeatureSpec, ...]:
    """Every feature, in the order of the columns."""
    return tuple(
        spec for part in (_flows, _logs, _levels, _shapes, _tape, _moves, _states) for spec in part()
    )  # fmt: skip


def _flows() -> Iterator[FeatureSpec]:
    """asinh of a flow."""
    spec = FeatureSpec
    for w in FLOW_WINDOWS_S:
        for m in range(1, OFI_LEVELS + 1):
            yield spec(
                f"ofi_l{m}_{w}s", "CKS and XGH: order flow imbalance of one level", w, _FLOW, _LEVEL, ODD
            )
    for w in FLOW_WINDOWS_S:
        yield spec(
            f"aligned_flow_{w}s",
            "CKS on prices seen in both snapshots, weight exp(-d/5)",
            w, _FLOW, _NEVER, ODD, aligned=True,
        )  # fmt: skip
    for w in FLOW_WINDOWS_S:
        yield spec(
            f"integrated_ofi_{w}s",
            "CCZ: OFI of five levels by their first principal component, estimated as it goes (300 s)",
            w, _FLOW, "fewer than 5 levels on either side", ODD,
        )  # fmt: skip
    for w in TAPE_WINDOWS_S:
        yield spec(
            f"trade_pressure_{w:g}s", "lots bought less lots sold by aggressors", w, _FLOW, _NEVER, ODD
        )  # fmt: skip


def _logs() -> Iterator[FeatureSpec]:
    """log(1 + x)."""
    spec = FeatureSpec
    for w in TAPE_WINDOWS_S:
        yield spec(
            f"trade_volume_{w:g}s", "log(1+lots traded)", w, "log of lots per mean level size", _NEVER, EVEN
        )
    for w in INTENSITY_WINDOWS_S:
        for side, other in (("buy", "sell"), ("sell", "buy")):
            yield spec(
                f"intensity_{side}_{w:g}s", "BMM: log(1+R), R of trades by aggressor", w, "log count",
                _NEVER, f"intensity_{other}_{w:g}s",
            )  # fmt: skip
    mirrors = {"bid_up": "ask_down", "bid_down": "ask_up", "ask_up": "bid_down", "ask_down": "bid_up"}
    for w in QUOTE_WINDOWS_S:
        for move, other in mirrors.items():
            yield spec(
                f"intensity_{move}_{w}s", "BMM: log(1+R), R of moves of the best price", w, "log count",
                _NEVER, f"intensity_{other}_{w}s",
            )  # fmt: skip
    for w in ACTIVITY_WINDOWS_S:
        yield spec(
            f"activity_{w}s", "log(1+path of mid in a second, thousandths of a tick)", w, "log", _NEVER, EVEN
        )
    yield spec("since_spread_change", "log(1 + seconds since the spread changed)", 0, "log s", _NEVER, EVEN)
    yield spec("since_mid_change", "log(1 + seconds since mid changed)", 0, "log s", _NEVER, EVEN)


def _levels() -> Iterator[FeatureSpec]:
    """Imbalances of the book and their exponential means; ``signals`` of the kernel, in its order."""
    spec = FeatureSpec
    said = {f"levels_{d:g}": f"GB over all levels, weight exp(-{d:g} m)" for d in LEVEL_DECAYS}
    said |= {f"near_{d}": f"GB by distance, weight exp(-d/{d}), d ticks from mid" for d in DISTANCES_TICKS}
    said |= {"imbalance_l1": "GB: (qb-qa)/(qb+qa)"}
    for name, source in said.items():
        yield spec(name, source, 0, "-1..1", _NEVER, ODD)
    for w in EMA_WINDOWS_S:
        for name, source in said.items():
            yield spec(f"{name}_{w}s", f"{source}; mean before this book", w, "-1..1", _NEVER, ODD)
    for d in DISTANCES_TICKS:
        yield spec(
            f"depth_{d}", f"log(1+lots), weight exp(-d/{d}), less its mean", 300, "log lots", _NEVER, EVEN
        )


def _shapes() -> Iterator[FeatureSpec]:
    """The present book."""
    spec = FeatureSpec
    yield spec("imbalance_d5", "GB over five levels, weight exp(-m/2)", 0, "-1..1",
               "fewer than 5 levels a side", ODD)  # fmt: skip
    yield spec("weighted_mid_dev", "(a qb + b qa)/(qb+qa) - mid", 0, "ticks", _NEVER, ODD)
    yield spec("micro_price_dev", "St: fixed point of next mid moves by imbalance and spread, learnt here",
               600, "ticks", "fewer than 20 books seen in that state", ODD)  # fmt: skip
    yield spec("queue_race", "CdL: chance that the ask queue empties first, rho = -0.5, less one half", 0,
               "-0.5..0.5", _NEVER, ODD)  # fmt: skip
    yield spec("touch_log", "log of the best bid's lots less log of the best ask's", 0, "log", _NEVER, ODD)
    yield spec("touch_size", "log of the best bid's lots and log of the best ask's", 0, "log", _NEVER, EVEN)
    yield spec("slope_bid", "NS: OLS of log(1+cumulative lots) on ticks from mid", 0, "1/tick",
               "under 10 bid levels", "slope_ask")  # fmt: skip
    yield spec("slope_ask", "NS, ask side", 0, "1/tick", "under 10 ask levels", "slope_bid")
    for name, sign, mirror in (("diff", "-", ODD), ("sum", "+", EVEN)):
        yield spec(f"slope_{name}", f"NS: slope_bid {sign} slope_ask", 0, "1/tick",
                   "under 10 levels on either side", mirror)  # fmt: skip
    thin = "the visible book is thinner than that"
    yield spec("cost_buy", "cost of buying three mean level sizes, against mid", 60, "bps", thin, "cost_sell")
    yield spec(
        "cost_sell", "cost of selling three mean level sizes, against mid", 60, "bps", thin, "cost_buy"
    )
    yield spec("cost_diff", "cost of buying less cost of selling three mean level sizes, against mid", 60,
               "ticks", thin, ODD)  # fmt: skip
    for j in GAPS:
        yield spec(f"gap_{j}", f"ticks from ask {j} to {j + 1} less the bids' ones, each up to 20",
                   0, "ticks", _LEVEL, ODD)  # fmt: skip
    for j in GAPS:
        yield spec(f"gaps_{j}", f"ticks from ask {j} to {j + 1} and the bids' ones, each up to 20",
                   0, "ticks", _LEVEL, EVEN)  # fmt: skip
    yield spec("spread_ticks", "spread, capped at 8", 0, "ticks", _NEVER, EVEN)
    yield spec("spread_bps", "spread over mid", 0, "bps", _NEVER, EVEN)
    yield spec("spread_is_1", "1 where the spread is one tick, else 0", 0, "0 or 1", _NEVER, EVEN)
    yield spec("spread_is_2", "1 where the spread is two ticks, else 0", 0, "0 or 1", _NEVER, EVEN)


def _tape() -> Iterator[FeatureSpec]:
    """Trades."""
    spec = FeatureSpec
    for w in TAPE_WINDOWS_S:
        yield spec(f"trade_flow_{w:g}s", "ASFXZ: (V+ - V-)/(V+ + V- + 1)", w, "-1..1", _NEVER, ODD)
    for w in TAPE_WINDOWS_S:
        yield spec(f"trade_balance_{w:g}s", "(N+ - N-)/(N+ + N- + 2), N trades by aggressor", w, "-1..1",
                   _NEVER, ODD)  # fmt: skip
    for w in VWAP_WINDOWS_S:
        yield spec(f"vwap_{w}s", "mid less the mean price of the lots traded", w, "ticks",
                   "under a thousandth of a lot is left in the window", ODD)  # fmt: skip
    yield spec("last_trade_dev", "last trade - mid", 0, "ticks", "no trade since the reset", ODD)
    yield spec("vpin", "ELO: sum |V+ - V-| over sum V of 50 buckets of 20 mean trades each", 0, "0..1",
               "under 10 full buckets", EVEN)  # fmt: skip


def _moves() -> Iterator[FeatureSpec]:
    """What mid has done, and a leader's."""
    spec = FeatureSpec
    for w in VOL_WINDOWS_S:
        yield spec(f"vol_{w}s", "realised volatility of mid on a 1 s grid", w, "bps per sqrt(s)",
                   "first 2 seconds", EVEN)  # fmt: skip
    for w in VOL_WINDOWS_S:
        yield spec(f"bipower_{w}s", "BNS: root of pi/2 mean |r||r before|, 1 s grid: no jumps",
                   w, "bps per sqrt(s)", "first 3 seconds", EVEN)  # fmt: skip
    yield spec("vol_ratio", "realised volatility, 10 s over 300 s", 10, "ratio", "first 2 seconds", EVEN)
    for w in RETURN_WINDOWS_S:
        yield spec(f"return_{w}s", "ASFXZ: mid change over max(1 tick, sigma_60s sqrt(w))", w, "sigmas",
                   "less history than the window", ODD)  # fmt: skip
    for w in MOMENTUM_WINDOWS_S:
        yield spec(f"momentum_{w:g}s", "mid less its mean before, over max(1 tick, sigma_60s sqrt(w))",
                   w, "sigmas", _NEVER, ODD)  # fmt: skip
    for k in STEPS:
        yield spec(f"step_{k}", f"mid less mid {k} books before, repeated books not counted", 0, "ticks",
                   f"fewer than {k} books before", ODD)  # fmt: skip
    for w in LEADER_WINDOWS_S:
        yield spec(f"leader_move_{w}s", "HA: its mid less its mean, over max(1 tick, its sigma sqrt(w))",
                   w, "sigmas", _LEADER, ODD)  # fmt: skip
    for w in LEADER_WINDOWS_S:
        yield spec(f"leader_gap_{w}s", f"HA: leader_move_{w}s less momentum_{w}s", w, "sigmas", _LEADER, ODD)


def _states() -> Iterator[FeatureSpec]:
    """The rest."""
    spec = FeatureSpec
    refill = "share of the lots lost from the best price that are back 1 s after half of them went"
    none = "no such loss in the last minutes"
    yield spec("resilience_bid", refill, 60, "0..1", none, "resilience_ask")
    yield spec("resilience_ask", f"{refill}, ask side", 60, "0..1", none, "resilience_bid")
    yield spec("since_book", "seconds since the book before, up to 3", 0, "s", "the first book", EVEN,
               feed=True)  # fmt: skip
    yield spec("day_sin", "sin of the Moscow time of day", 0, "-1..1", _NEVER, EVEN, seasonal=True)
    yield spec("day_cos", "cos of the Moscow time of day", 0, "-1..1", _NEVER, EVEN, seasonal=True)
    for name, source in (
        ("since_open", "minutes since continuous trading began, up to 30"),
        ("to_break", "minutes to the next clearing, auction or close, up to 30"),
    ):
        yield spec(name, f"{source}; the venue's usual day", 0, "minutes", _CLOSED, EVEN, seasonal=True)
