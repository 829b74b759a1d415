"""A simulated market with realistic books and, if asked for, one planted signal.

It exists so that everything can be built and tested without a third party's data, and so that the line from
recording to orders can be proven: a planted signal must be found (SIMP), an absent one must not be (SIMA,
SIMF). Profit on it is never evidence of an edge: recordings carry the watermark ``SIMULATED``.

The planted state is returned beside the data, for tests. It is never part of ``Books`` or of a recording.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError
from market.recording import Recording, write_recording
from market.simulator_kernel import simulate
from market.types import BOOK_CONSISTENT, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

MID_TICKS = 30_000
OPEN = timedelta(hours=10)
"""The session opens at 10:00 Moscow."""
MOSCOW = timezone(timedelta(hours=3))
MAX_HOURS = 14.0
MAX_ROWS = 2_000_000
"""Most snapshots of one instrument and session (640 MB of books)."""
LATENCY_NS = (1_000_000, 3_000_000)
"""Receive time minus exchange time: drawn evenly from this range."""

_NAMESPACE = uuid.UUID("5b0c6f3c-6b1e-5a53-9e0b-6a1f2f1f5d10")


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
"""SMALL with six times the events: about a liquid share's volatility. For demonstrations of economics."""
SMALL_STEADY = replace(SMALL, vv=0.5, ushape=1.0, pin=0.1)
"""SMALL with a calmer activity and a spread of about three ticks: a planted edge is then there in most
minutes, not only in wild spells."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {"SMALL": SMALL, "LARGE": LARGE, "SMALL_ACTIVE": SMALL_ACTIVE, "SMALL_STEADY": SMALL_STEADY}
)

PLANT: Mapping[str, float] = MappingProxyType({"gflow": 0.4, "gbook": 0.6, "tau": 24.0})
"""Unrealistically strong on purpose: the whole line must find it and trade it."""


@dataclass(frozen=True, slots=True)
class SimSpec:
    """One simulated instrument. ``seed`` is mixed with the market's seed, the ticker and the day."""

    ticker: str
    preset: str = "SMALL"
    seed: int = 0
    planted: bool = False
    kind: Literal["share", "future"] = "share"
    overrides: Mapping[str, float] = field(default_factory=dict)
    """Fields of ``Preset`` to change, after the plant."""

    def parameters(self) -> Preset:
        """The preset with the plant and the overrides applied; ConfigError names what is unknown."""
        if self.preset not in PRESETS:
            raise ConfigError(
                f"unknown simulator preset {self.preset!r} of {self.ticker}; known: {', '.join(PRESETS)}"
            )
        unknown = set(self.overrides) - {f.name for f in fields(Preset)}
        if unknown:
            raise ConfigError(
                f"{self.ticker}: a simulator preset has no parameter {', '.join(sorted(unknown))}"
            )
        changes: dict[str, Any] = {**(PLANT if self.planted else {}), **self.overrides}
        return replace(PRESETS[self.preset], **changes)

    def instrument(self) -> Instrument:
        """Shares: step 0.01 RUB, lot 10. Futures: step 1 point worth 1 RUB, lot 1."""
        uid = uuid.uuid5(_NAMESPACE, self.ticker)
        share = self.kind == "share"
        return Instrument(
            uid=str(uid),
            ticker=self.ticker,
            class_code="TQBR" if share else "SPBFUT",
            figi=f"SIM{uid.hex[:9].upper()}",
            kind=self.kind,
            lot=10 if share else 1,
            tick_nano=NANO // 100 if share else NANO,
            tick_value_nano=NANO // 10 if share else NANO,
            name=f"Simulated {self.kind} {self.ticker}",
        )


DEFAULT_SPECS: tuple[SimSpec, ...] = (
    SimSpec("SIMP", "SMALL_STEADY", planted=True),
    SimSpec("SIMA", "SMALL_STEADY"),
    SimSpec("SIMF", "LARGE", kind="future"),
)


def simulate_market(
    specs: Sequence[SimSpec] = DEFAULT_SPECS,
    *,
    hours: float = 3.0,
    dt_s: float = 0.25,
    seed: int = 1,
    day: str = "2026-01-15",
) -> tuple[list[InstrumentDay], dict[str, NDArray[np.float32]]]:
    """Simulate one session of every instrument of ``specs``.

    Returns the days in the order of ``specs`` and, by ticker, the oracle: the planted state at each snapshot,
    float32 [n], for tests only. The same arguments give the same arrays, whatever else is simulated.
    """
    tickers = [spec.ticker for spec in specs]
    if len(set(tickers)) != len(tickers) or not tickers:
        raise ConfigError(f"the simulator needs instruments with different tickers, not {tickers}")
    n, dt_ns = _grid(hours, dt_s)
    start_ns = _open_ns(day)
    days: list[InstrumentDay] = []
    oracle: dict[str, NDArray[np.float32]] = {}
    for spec in specs:
        books, trades, latent = _session(spec, n, dt_ns, _seed(seed, spec, day))
        for table in (books, trades):
            table.exch_ns += start_ns
            table.recv_ns += start_ns
        days.append(InstrumentDay(spec.instrument(), day, books, trades))
        oracle[spec.ticker] = latent
    return days, oracle


def simulate_recording(
    path: Path,
    specs: Sequence[SimSpec] = DEFAULT_SPECS,
    *,
    hours: float = 3.0,
    dt_s: float = 0.25,
    seed: int = 1,
    day: str = "2026-01-15",
) -> tuple[Recording, dict[str, NDArray[np.float32]]]:
    """``simulate_market`` written to ``path`` as a recording with its parameters as provenance."""
    days, oracle = simulate_market(specs, hours=hours, dt_s=dt_s, seed=seed, day=day)
    provenance = {
        "hours": hours,
        "dt_s": dt_s,
        "seed": seed,
        "specs": [
            {
                "ticker": spec.ticker,
                "preset": spec.preset,
                "seed": spec.seed,
                "planted": spec.planted,
                "parameters": asdict(spec.parameters()),
            }
            for spec in specs
        ],
    }
    recording = write_recording(
        path, days, source="simulator", watermark="SIMULATED", tariff="simulated", provenance=provenance
    )
    return recording, oracle


def _grid(hours: float, dt_s: float) -> tuple[int, int]:
    if not 0 < hours <= MAX_HOURS:
        raise ConfigError(f"simulated hours must be above 0 and at most {MAX_HOURS:g}, not {hours!r}")
    dt_ns = round(dt_s * SECOND_NS)
    if dt_ns <= 0:
        raise ConfigError(f"the time between simulated snapshots must be above 0 s, not {dt_s!r}")
    n = round(hours * 3600 * SECOND_NS) // dt_ns
    if not 0 < n <= MAX_ROWS:
        raise ConfigError(
            f"{hours:g} h at {dt_s:g} s would be {n:,} snapshots; it must be between 1 and {MAX_ROWS:,}"
        )
    return n, dt_ns


def _open_ns(day: str) -> int:
    try:
        midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), MOSCOW)
    except ValueError:
        raise ConfigError(f"a simulated day is written YYYY-MM-DD, not {day!r}") from None
    return int((midnight + OPEN).timestamp()) * SECOND_NS


def _seed(seed: int, spec: SimSpec, day: str) -> int:
    digest = hashlib.sha256(f"{seed}|{spec.ticker}|{spec.seed}|{day}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


class Played(NamedTuple):
    """What the kernel returns; see ``simulator_kernel.simulate``. Times count from the opening."""

    bid_px: NDArray[np.int32]
    bid_qty: NDArray[np.int32]
    ask_px: NDArray[np.int32]
    ask_qty: NDArray[np.int32]
    latent: NDArray[np.float32]
    event_ofi: NDArray[np.float32]
    trade_ns: NDArray[np.int64]
    trade_px: NDArray[np.int32]
    trade_qty: NDArray[np.int32]
    trade_side: NDArray[np.int8]
    trades: int


def play(parameters: Preset, n: int, dt_ns: int, seed: int) -> Played:
    """Run the kernel with a preset. For studies of the simulator itself; the product uses simulate_market."""
    rates = (float(x) for x in astuple(parameters)[1:])
    return Played(*simulate(n, dt_ns, seed, MID_TICKS, int(parameters.levels), *rates))


def _session(spec: SimSpec, n: int, dt_ns: int, seed: int) -> tuple[Books, Trades, NDArray[np.float32]]:
    """One instrument; times count from the opening."""
    played = play(spec.parameters(), n, dt_ns, seed)
    if played.trades < 0:
        raise ConfigError(f"{spec.ticker}: too many simulated trades; lower its rates (mu, ha) or the hours")
    book_ns = np.arange(1, n + 1, dtype=np.int64) * dt_ns
    book_recv, trade_recv = _receive_times(book_ns, played.trade_ns, seed)
    flags = np.full(n, BOOK_CONSISTENT, np.uint8)
    books = Books(book_ns, book_recv, played.bid_px, played.bid_qty, played.ask_px, played.ask_qty, flags)
    trades = Trades(played.trade_ns, trade_recv, played.trade_px, played.trade_qty, played.trade_side)
    return books, trades, played.latent


def _receive_times(
    book_ns: NDArray[np.int64], trade_ns: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Receive stamps of one ordered stream: nothing overtakes, no two messages share a nanosecond."""
    exch = np.concatenate([trade_ns, book_ns])  # trades first, so that they also come first at equal times
    order = np.argsort(exch, kind="stable")
    place = np.arange(len(exch), dtype=np.int64)
    latency = np.random.default_rng(seed).integers(*LATENCY_NS, size=len(exch))
    recv = np.empty_like(exch)
    recv[order] = np.maximum.accumulate(exch[order] + latency - place) + place
    return recv[len(trade_ns) :], recv[: len(trade_ns)]
