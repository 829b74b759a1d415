"""A simulated market with realistic books and, if asked for, one planted signal.

It exists so that everything can be built and tested without a third party's data, and so that the line from
recording to orders can be proven: a planted signal must be found (SIMP), an absent one must not be (SIMA,
SIMF). Profit on it is never evidence of an edge: recordings carry the watermark ``SIMULATED``.

The planted state, the oracle, is returned beside the data, for tests. It is never part of ``Books`` or of a
recording, and the reader of recordings refuses a file with a column that it does not know.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError
from market.recording import Recording, write_recording
from market.simulator_factor import Common
from market.simulator_kernel import GRID, simulate
from market.simulator_presets import PLANT, PRESETS, Preset
from market.simulator_session import Clock, Session
from market.types import BOOK_CONSISTENT, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

MID_TICKS = 30_000
OPEN_NS = 10 * 3600 * SECOND_NS
"""Without a session the market opens at 10:00 Moscow and has no breaks."""
MOSCOW = timezone(timedelta(hours=3))
HOURS = 3.0
MAX_HOURS = 16.0
MAX_ROWS = 2_000_000
"""Most snapshots of one instrument and session (640 MB of books)."""
MAX_DAYS = 260
OVERNIGHT_TICKS = 100.0
"""Standard deviation of the opening against the close of the day before."""
LATENCY_NS = (1_000_000, 3_000_000)
"""Receive time minus exchange time: drawn evenly from this range."""
USUAL_TRADES = 1 << 22
MAX_TRADES = 1 << 25
"""Most trades of one session: beyond it there is an error rather than a full memory."""

_NAMESPACE = uuid.UUID("5b0c6f3c-6b1e-5a53-9e0b-6a1f2f1f5d10")


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
    session: Session | None = None
    """When it trades; without one, the asked hours from 10:00 on."""
    lag_s: float | None = None
    """How long after the others the common fair value reaches it; None: it has none."""

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

    def to_dict(self) -> dict[str, Any]:
        """For a recording's provenance. What is not used is left out."""
        out = {
            "ticker": self.ticker,
            "preset": self.preset,
            "seed": self.seed,
            "planted": self.planted,
            "parameters": asdict(self.parameters()),
        }
        if self.session is not None:
            out["session"] = self.session.to_dict()
        if self.lag_s is not None:
            out["lag_s"] = self.lag_s
        return out


DEFAULT_SPECS: tuple[SimSpec, ...] = (
    SimSpec("SIMP", "SMALL_STEADY", planted=True),
    SimSpec("SIMA", "SMALL_STEADY"),
    SimSpec("SIMF", "LARGE", kind="future"),
)
LEAD_LAG_SPECS: tuple[SimSpec, ...] = (
    SimSpec("SIML", "SMALL_STEADY", lag_s=0.0),
    SimSpec("SIMG", "SMALL_STEADY", lag_s=1.0),
)
"""A share that leads, and one that follows it by a second."""


def simulate_market(
    specs: Sequence[SimSpec] = DEFAULT_SPECS,
    *,
    hours: float | None = None,
    dt_s: float = 0.25,
    seed: int = 1,
    day: str | Sequence[str] = "2026-01-15",
    common: Common | None = None,
) -> tuple[list[InstrumentDay], dict[str, NDArray[np.float32]]]:
    """Simulate every instrument of ``specs`` on one day or several.

    ``hours`` of trading (default: 3, or the whole session of an instrument that has one). ``common`` is the
    fair value of the instruments that have a lag (default: ``Common()``). Returns the days in the order of
    ``specs``, each instrument's days together, and, by ticker, the oracle: the planted state at each
    snapshot of all its days, float32 [n], for tests only. The same arguments give the same arrays, whatever
    else is simulated.
    """
    days: list[InstrumentDay] = []
    oracle: dict[str, NDArray[np.float32]] = {}
    for simulated in _simulated(specs, hours, dt_s, seed, day, common, oracle):
        days.append(simulated)
    return days, oracle


def simulate_recording(
    path: Path,
    specs: Sequence[SimSpec] = DEFAULT_SPECS,
    *,
    hours: float | None = None,
    dt_s: float = 0.25,
    seed: int = 1,
    day: str | Sequence[str] = "2026-01-15",
    common: Common | None = None,
) -> tuple[Recording, dict[str, NDArray[np.float32]]]:
    """``simulate_market`` written to ``path`` as a recording with its parameters as provenance, one day in
    memory at a time."""
    provenance: dict[str, Any] = {
        "hours": hours if hours is not None or any(spec.session for spec in specs) else HOURS,
        "dt_s": dt_s,
        "seed": seed,
        "specs": [spec.to_dict() for spec in specs],
    }
    if any(spec.lag_s is not None for spec in specs):
        provenance["common"] = (common or Common()).to_dict()
    oracle: dict[str, NDArray[np.float32]] = {}
    recording = write_recording(
        path, _simulated(specs, hours, dt_s, seed, day, common, oracle),
        source="simulator", watermark="SIMULATED", tariff="simulated", provenance=provenance,
    )  # fmt: skip
    return recording, oracle


def _simulated(
    specs: Sequence[SimSpec], hours: float | None, dt_s: float, seed: int, day: str | Sequence[str],
    common: Common | None, oracle: dict[str, NDArray[np.float32]],
) -> Iterator[InstrumentDay]:  # fmt: skip
    """The days one by one; ``oracle`` is filled on the way."""
    tickers = [spec.ticker for spec in specs]
    if len(set(tickers)) != len(tickers) or not tickers:
        raise ConfigError(f"the simulator needs instruments with different tickers, not {tickers}")
    days = [day] if isinstance(day, str) else list(day)
    if not 0 < len(days) <= MAX_DAYS or sorted(set(days)) != days:
        raise ConfigError(f"simulated days must be 1 to {MAX_DAYS}, different and in order, not {days}")
    midnights = [_midnight_ns(each) for each in days]
    dt_ns = _step_ns(dt_s)
    lengths = [_rows(spec, hours, dt_ns) for spec in specs]
    for spec, n in zip(specs, lengths, strict=True):
        mid_ticks = MID_TICKS
        latent: list[NDArray[np.float32]] = []
        for each, midnight_ns in zip(days, midnights, strict=True):
            books, trades, state = _play_day(spec, n, dt_ns, seed, each, mid_ticks, common or Common())
            for table in (books, trades):
                table.exch_ns += midnight_ns
                table.recv_ns += midnight_ns
            latent.append(state)
            mid_ticks = _next_opening(books, _seed(seed, f"{spec.ticker}|night", spec.seed, each))
            yield InstrumentDay(spec.instrument(), each, books, trades)
        oracle[spec.ticker] = latent[0] if len(latent) == 1 else np.concatenate(latent)


def _step_ns(dt_s: float) -> int:
    dt_ns = round(dt_s * SECOND_NS)
    if dt_ns <= 0:
        raise ConfigError(f"the time between simulated snapshots must be above 0 s, not {dt_s!r}")
    return dt_ns


def _rows(spec: SimSpec, hours: float | None, dt_ns: int) -> int:
    whole = HOURS if spec.session is None else spec.session.trading_s() / 3600
    hours = whole if hours is None else hours
    if not 0 < hours <= MAX_HOURS:
        raise ConfigError(f"simulated hours must be above 0 and at most {MAX_HOURS:g}, not {hours!r}")
    if spec.session is not None:
        hours = min(hours, whole)
    n = round(hours * 3600 * SECOND_NS) // dt_ns
    if not 0 < n <= MAX_ROWS:
        raise ConfigError(
            f"{hours:g} h at {dt_ns / SECOND_NS:g} s would be {n:,} snapshots; it must be between 1 and "
            f"{MAX_ROWS:,}"
        )
    return n


def _midnight_ns(day: str) -> int:
    try:
        midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), MOSCOW)
    except ValueError:
        raise ConfigError(f"a simulated day is written YYYY-MM-DD, not {day!r}") from None
    return int(midnight.timestamp()) * SECOND_NS


def _seed(seed: int, name: str, own: int, day: str) -> int:
    digest = hashlib.sha256(f"{seed}|{name}|{own}|{day}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _next_opening(books: Books, seed: int) -> int:
    close = (int(books.bid_px[-1, 0]) + int(books.ask_px[-1, 0])) // 2
    jump = round(OVERNIGHT_TICKS * float(np.random.default_rng(seed).standard_normal()))
    return max(close + jump, GRID)


class Played(NamedTuple):
    """What the kernel returns; see ``simulator_kernel.simulate``. Times are trading time."""

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
    events: int


def play(
    parameters: Preset,
    n: int,
    dt_ns: int,
    seed: int,
    *,
    mid_ticks: int = MID_TICKS,
    profile: NDArray[np.float64] | None = None,
    value: NDArray[np.float64] | None = None,
    common: Common | None = None,
    clock: Clock | None = None,
) -> Played:
    """Run the kernel with a preset. For studies of the simulator itself; the product uses simulate_market."""
    pull = common or Common()
    pulls = (pull.flow, pull.book) if value is not None else (0.0, 0.0)
    clock = clock or Clock(OPEN_NS)
    levels, *rates = astuple(parameters)
    arguments: tuple[Any, ...] = (
        np.ones(n) if profile is None else profile, np.zeros(n) if value is None else value,
        float(pulls[0]), float(pulls[1]), float(pull.cap_ticks),
        clock.pause_at_ns // dt_ns, clock.pause_ns / SECOND_NS,
        int(levels), *(float(x) for x in rates),
    )  # fmt: skip
    for room in (USUAL_TRADES, MAX_TRADES):
        played = Played(*simulate(n, dt_ns, seed, mid_ticks, room, *arguments))
        if played.trades >= 0:
            return played
    raise ConfigError(f"more than {MAX_TRADES:,} simulated trades; lower the rates (mu, ha) or the hours")


def _play_day(
    spec: SimSpec, n: int, dt_ns: int, seed: int, day: str, mid_ticks: int, common: Common
) -> tuple[Books, Trades, NDArray[np.float32]]:
    """One instrument and day; times count from midnight."""
    own_seed = _seed(seed, spec.ticker, spec.seed, day)
    parameters, clock, profile = spec.parameters(), Clock(OPEN_NS), None
    if spec.session is not None:
        clock = spec.session.clock()
        profile = spec.session.activity(n, dt_ns, parameters.ushape)
        parameters = replace(parameters, ushape=0.0)  # the session has drawn the U
    value = None
    if spec.lag_s is not None:
        starts_ns = clock.of_day_ns(np.arange(1, n + 1, dtype=np.int64) * dt_ns) - dt_ns
        value = common.value(
            starts_ns, spec.lag_s, _seed(seed, "common", 0, day), _seed(seed, f"{spec.ticker}|own", 0, day)
        )
    played = play(
        parameters, n, dt_ns, own_seed,
        mid_ticks=mid_ticks, profile=profile, value=value, common=common, clock=clock,
    )  # fmt: skip
    book_ns = clock.of_day_ns(np.arange(1, n + 1, dtype=np.int64) * dt_ns)
    trade_ns = clock.of_day_ns(played.trade_ns)
    book_recv, trade_recv = _receive_times(book_ns, trade_ns, own_seed)
    flags = np.full(n, BOOK_CONSISTENT, np.uint8)
    books = Books(book_ns, book_recv, played.bid_px, played.bid_qty, played.ask_px, played.ask_qty, flags)
    trades = Trades(trade_ns, trade_recv, played.trade_px, played.trade_qty, played.trade_side)
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
