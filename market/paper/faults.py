"""Faults that the paper exchange commits on purpose: what they are called, when they strike, who asks.

The exchange asks at its hook points: ``fault = faults.strikes("duplicate_30057", method=..., ticker=...)``;
``None`` means behave. Nothing strikes unless it was set, so ``Faults()`` is the well-behaved exchange. Which
of several chances strikes depends on the seed and on the order of the questions alone, never on the clock,
except where ``after_s`` or ``seconds`` is given.

Who asks: the order side (``exchange.faults``) for duplicate_30057, partial_fill and internal_id_first;
``calls.Guard`` for what concerns any request (lost_reply_70002, resource_exhausted, unavailable, slow_ack);
the streams and the server for the rest.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from market.errors import ConfigError

MAX_FAULTS = 64
"""Faults that may be set at once."""
MILLISECONDS_PER_SECOND = 1000


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does to a client, which of ``ms``, ``percent`` and ``levels`` it reads, and the methods
    it concerns when ``method`` is not given.
    """

    text: str
    reads: frozenset[str] = frozenset()
    method: str = ""
    ms: int = 0
    percent: int = 0


def _kind(text: str, *reads: str, method: str = "", ms: int = 0, percent: int = 0) -> FaultKind:
    return FaultKind(text, frozenset(reads), method, ms, percent)


_MARKET = "MarketDataStreamService"

KINDS: Final[Mapping[str, FaultKind]] = {
    # ---- streams
    "mute_stream": _kind(
        "a stream stays open and says nothing any more, pings included, for `ms` (0: to its end)",
        "ms",
        method=_MARKET,
    ),
    "delay": _kind("stream messages leave late by `ms`", "ms", method=_MARKET, ms=500),
    "duplicate": _kind("a stream message is sent twice", method=_MARKET),
    "reorder": _kind("a stream message leaves after the one that follows it", method=_MARKET),
    "cancelled": _kind("a stream is broken off with CANCELLED, as by RST_STREAM", method=_MARKET),
    "crossed_book": _kind("a book's best bid is one tick above its best ask", method=_MARKET),
    "inconsistent_book": _kind("the two best levels of a book's bids change places", method=_MARKET),
    "not_consistent_flag": _kind("a book arrives with is_consistent=false", method=_MARKET),
    # ---- the connection
    "half_open": _kind("the TCP connections stay up, nothing is read and nothing answered"),
    "goaway": _kind("the connections end with GOAWAY, calls get `ms` to finish, then all is new", "ms", ms=0),
    # ---- requests
    "lost_reply_70002": _kind(
        "the request is carried out, its answer is INTERNAL 70002", method="OrdersService/PostOrder"
    ),
    "duplicate_30057": _kind(
        "a repeated idempotency key is refused with 30057 instead of answered with the first order",
        method="OrdersService/PostOrder",
    ),
    "resource_exhausted": _kind("the request is refused with 80002 and the rate-limit headers"),
    "unavailable": _kind("UNAVAILABLE without any metadata; an open stream breaks off likewise"),
    "slow_ack": _kind(
        "the request is carried out at once, answered `ms` later", "ms", method="OrdersService", ms=2_000
    ),
    # ---- orders
    "partial_fill": _kind(
        "an arriving order trades at most `percent` of its lots, at least one; the rest goes on or is "
        "cancelled as its type says",
        "percent",
        method="OrdersService/PostOrder",
        percent=50,
    ),
    "internal_id_first": _kind(
        "the exchange id is known `ms` of market time late: streams and answers carry the internal one "
        "until then",
        "ms",
        method="OrdersService/PostOrder",
        ms=90,
    ),
}  # fmt: skip
"""Every fault by name."""

NAMES: Final = tuple(KINDS)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that is set.

    ``probability`` of striking at each chance; ``count``: strikes at most, None for no end; ``instrument``:
    ticker, FIGI or uid, empty for all; ``method``: "Service" or "Service/Method", empty for the kind's
    own; ``payload``: for stream faults one of orderbook, trade, candle, last_price, trading_status, ping
    (empty for all that the fault can touch); ``after_s``, ``seconds``: wall time from being set until it
    begins, and that it lasts (None: for ever). ``ms`` and ``percent``: None for the kind's default.
    """

    name: str
    probability: float = 1.0
    count: int | None = None
    instrument: str = ""
    method: str = ""
    payload: str = ""
    after_s: float = 0.0
    seconds: float | None = None
    ms: int | None = None
    percent: int | None = None

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ConfigError(f"fault {self.name!r} is unknown; known are {', '.join(NAMES)}")
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"fault {self.name}: probability {self.probability} is not between 0 and 1")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"fault {self.name}: count {self.count} is below 1; leave it out for no end")
        for name in ("after_s", "seconds", "ms"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"fault {self.name}: {name} {value} is negative")
        if self.percent is not None and not 1 <= self.percent <= 100:
            raise ConfigError(f"fault {self.name}: percent {self.percent} is not between 1 and 100")
        for name in ("ms", "percent"):
            if getattr(self, name) is not None and name not in KINDS[self.name].reads:
                raise ConfigError(f"fault {self.name} does not read {name}")

    @property
    def delay_ms(self) -> int:
        return KINDS[self.name].ms if self.ms is None else self.ms

    @property
    def share_percent(self) -> int:
        return KINDS[self.name].percent if self.percent is None else self.percent

    @classmethod
    def from_dict(cls, entry: Any) -> Self:
        """Raises ConfigError naming a key that no fault has, or a value of the wrong kind."""
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ConfigError(f"a fault is an object with a name, not {entry!r}")
        unknown = set(entry) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigError(f"fault {entry['name']}: unknown key {sorted(unknown)[0]!r}")
        try:
            return cls(**entry)
        except TypeError as error:
            raise ConfigError(f"fault {entry['name']}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Without what was left at its default."""
        given = asdict(self)
        plain = {f.name: f.default for f in fields(self)}
        return {key: value for key, value in given.items() if key == "name" or value != plain[key]}

    def concerns(self, method: str, names: tuple[str, ...], payload: str) -> bool:
        wanted = self.method or KINDS[self.name].method
        return (
            (not wanted or method == wanted or method.split("/")[0] == wanted)
            and (not self.instrument or self.instrument in names)
            and (not self.payload or self.payload == payload)
        )


@dataclass(slots=True)
class _Set:
    """A fault with its dice and what it has done so far."""

    fault: Fault
    dice: random.Random
    since_s: float
    struck: int = 0


@dataclass(slots=True)
class FaultPlan:
    """What a fault file holds: ``{"seed": 7, "faults": [{"name": "delay", "ms": 300}, ...]}``."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """A bare list is a plan with seed 0. Raises ConfigError saying what is wrong."""
        if isinstance(content, list):
            content = {"faults": content}
        if not isinstance(content, Mapping) or not isinstance(content.get("faults", []), list):
            raise ConfigError('a fault plan is {"seed": N, "faults": [{"name": ...}, ...]}')
        seed = content.get("seed", 0)
        if not isinstance(seed, int):
            raise ConfigError(f"a fault plan's seed is a whole number, not {seed!r}")
        unknown = set(content) - {"seed", "faults"}
        if unknown:
            raise ConfigError(f"a fault plan has no key {sorted(unknown)[0]!r}")
        return cls(tuple(Fault.from_dict(entry) for entry in content.get("faults", [])), seed)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigError naming the file."""
        try:
            return cls.from_dict(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise ConfigError(f"fault file {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"fault file {path} is not JSON: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"fault file {path}: {error}") from error


@dataclass(slots=True)
class Faults:
    """The faults in force. ``on_change`` is called after every change of the list."""

    plan: FaultPlan = field(default_factory=FaultPlan)
    now_s: Callable[[], float] = time.monotonic
    on_change: Callable[[], None] = lambda: None
    _set: list[_Set] = field(default_factory=list)
    _struck: dict[str, int] = field(default_factory=dict)
    _cleared: dict[str, int] = field(default_factory=dict)
    _made: int = 0

    def __post_init__(self) -> None:
        self.replace(self.plan.faults)

    @property
    def quiet(self) -> bool:
        """Nothing is set: nothing will strike. The one question that a hot path asks."""
        return not self._set

    # ------------------------------------------------------------------ asking

    def strikes(
        self, name: str, *, method: str = "", names: Iterable[str] = (), payload: str = ""
    ) -> Fault | None:
        """A chance for fault ``name``: the fault when it strikes now (it is counted), else None.

        ``method``: "Service/Method" of the call; ``names``: every name of the instrument concerned (ticker,
        FIGI, uid); ``payload``: the kind of a stream message.
        """
        if not self._set:
            return None
        known = tuple(names)
        for entry in list(self._set):
            fault = entry.fault
            if fault.name != name or not self._in_time(entry) or not fault.concerns(method, known, payload):
                continue
            if fault.probability < 1 and entry.dice.random() >= fault.probability:
                continue
            entry.struck += 1
            if entry.struck == fault.count:
                self._set.remove(entry)  # so that the exchange is quiet again
            self._struck[name] = self._struck.get(name, 0) + 1
            return fault
        return None

    def may(self, *names: str) -> bool:
        """Whether one of ``names`` is set at all, in force or not."""
        return any(entry.fault.name in names for entry in self._set)

    def cleared(self, name: str) -> int:
        """How often fault ``name`` was taken back: a lasting effect ends when this changes."""
        return self._cleared.get(name, 0)

    def struck(self) -> dict[str, int]:
        """Strikes by name since the start."""
        return dict(self._struck)

    def active(self) -> list[Fault]:
        """What is set and not yet over, in the order in which it was set."""
        return [entry.fault for entry in self._set if not self._over(entry)]

    # ------------------------------------------------------------------ setting

    def add(self, fault: Fault) -> None:
        """Raises ConfigError when too many are set."""
        self._set = [entry for entry in self._set if not self._over(entry)]
        if len(self._set) >= MAX_FAULTS:
            raise ConfigError(f"{MAX_FAULTS} faults are set already; clear some first")
        # Each has its own dice, so that one fault's chances do not depend on what else is set.
        dice = random.Random(f"{self.plan.seed}/{fault.name}/{self._made}")
        self._made += 1
        self._set.append(_Set(fault, dice, self.now_s()))
        self.on_change()

    def replace(self, faults: Iterable[Fault]) -> None:
        """Exactly these from now on."""
        self._set = []
        for fault in faults:
            self.add(fault)
        self.on_change()

    def clear(self, name: str = "") -> None:
        """Takes back fault ``name``, or every fault."""
        self._set = [entry for entry in self._set if name and entry.fault.name != name]
        for taken in (name,) if name else NAMES:
            self._cleared[taken] = self.cleared(taken) + 1
        self.on_change()

    # ------------------------------------------------------------------ inside

    def _in_time(self, entry: _Set) -> bool:
        waited = self.now_s() - entry.since_s - entry.fault.after_s
        return waited >= 0 and (entry.fault.seconds is None or waited < entry.fault.seconds)

    def _over(self, entry: _Set) -> bool:
        fault = entry.fault
        lasted = self.now_s() - entry.since_s - fault.after_s
        return fault.seconds is not None and lasted >= fault.seconds
