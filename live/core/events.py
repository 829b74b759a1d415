"""What the engine can be told. Every event carries ``now_ns``: engine time in nanoseconds UTC.

The driver (runner, backtest, replay) stamps ``now_ns`` when it hands the event over, so that it never runs
backwards; the core has no other clock. Prices are ticks, sizes lots, money nano-roubles, probabilities
millionths (``_e6``), moves thousandths of a basis point (``_millibps``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

OrderStatus = Literal["NEW", "PARTIAL", "FILLED", "CANCELLED", "REJECTED", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class Book:
    """An order-book snapshot; only present levels, best first. ``consistent``: the source vouches for it.

    ``now_ns`` is also the ``recv_ns`` that the features see.
    """

    now_ns: int
    ticker: str
    exch_ns: int
    bid_px: tuple[int, ...]
    bid_qty: tuple[int, ...]
    ask_px: tuple[int, ...]
    ask_qty: tuple[int, ...]
    consistent: bool = True


@dataclass(frozen=True, slots=True)
class Trade:
    """An anonymous trade; ``side`` is the aggressor: 1 buy, -1 sell, 0 unknown."""

    now_ns: int
    ticker: str
    exch_ns: int
    price_ticks: int
    lots: int
    side: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The ensemble's answer to the latest ``Book`` of ``ticker``. ``p_e6``: down, flat, up."""

    now_ns: int
    ticker: str
    trace_id: str
    p_e6: tuple[int, int, int]
    expected_move_millibps: int
    source: str = "ensemble"


@dataclass(frozen=True, slots=True)
class InferenceFailed:
    """Inference raised or returned nothing for the latest ``Book`` of ``ticker``."""

    now_ns: int
    ticker: str
    trace_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Timer:
    """Time passes. Drivers send one at least every second (``live.core.config.TIMER_NS``)."""

    now_ns: int


@dataclass(frozen=True, slots=True)
class FillInfo:
    """One deal of ours. ``trade_id`` is the broker's and makes booking idempotent."""

    trade_id: str
    price_ticks: int
    lots: int
    fee_nano: int


@dataclass(frozen=True, slots=True)
class OrderUpdate:
    """What the broker says about one order of ours.

    ``lots_executed`` is cumulative; ``fills`` may repeat deals already reported. UNKNOWN means that the
    broker did not answer: it is not a refusal.
    """

    now_ns: int
    client_order_id: str
    exchange_order_id: str
    status: OrderStatus
    lots_executed: int = 0
    fills: tuple[FillInfo, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """A working order as the broker lists it (``Reconciled.open_orders``)."""

    client_order_id: str
    exchange_order_id: str
    ticker: str
    side: int
    lots: int
    lots_executed: int


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order that the driver's database holds and the checkpoint does not (a crash between the two).

    Sent after ``restore`` and before the order's ``OrderUpdate`` and ``Reconciled``; fields as in
    ``orders.Order``.
    """

    now_ns: int
    client_order_id: str
    trace_id: str
    ticker: str
    side: int
    lots: int
    order_type: Literal["market", "limit", "stop"]
    price_ticks: int | None
    role: Literal["ENTRY", "EXIT", "STOP"]
    reason: str
    placed_ns: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The broker's own view: positions (lots, signed), working orders, money.

    The driver first sends an ``OrderUpdate`` for every order of ours that moved, then this. ``asked_ns`` is
    the engine time at which the driver began to read (0: now); tickers that moved since are compared next
    time.
    """

    now_ns: int
    positions: dict[str, int]
    open_orders: tuple[OpenOrder, ...] = ()
    cash_nano: int = 0
    asked_ns: int = 0


@dataclass(frozen=True, slots=True)
class DayCompared:
    """Our deals of exchange day ``day`` were compared with the broker's operations: ``differences`` of them,
    ``reason`` the first in words.
    """

    now_ns: int
    day: str
    deals: int
    differences: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TradingStatus:
    """The exchange opened or closed trading in one instrument."""

    now_ns: int
    ticker: str
    tradable: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """The channel to the broker went down or came up (``up`` on another ``channel`` is a fail-over)."""

    now_ns: int
    up: bool
    channel: str = "primary"
    error: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The driver itself distrusts (or trusts again) an instrument's data. The core also checks every book."""

    now_ns: int
    ticker: str
    active: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """The manual override flag appeared (its content is ``reason``) or is gone."""

    now_ns: int
    active: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """A person lifts holds that only a person may lift. ``names`` empty: every such hold.

    Over ``POSITION_MISMATCH`` it means: "the broker's extra lots are mine, leave them alone".
    """

    now_ns: int
    names: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelSwapped:
    """The driver verified and swapped the bundle (``notify_model_reload``). ``params``:
    ``ModelParams.to_dict()``.
    """

    now_ns: int
    manifest_sha256: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineMode:
    """The driver restricted the pipeline: only ``members`` (empty: all), at most one inference a ticker per
    ``min_interval_ns``. The engine only audits it; replay applies it to its own pipeline."""

    now_ns: int
    members: tuple[str, ...] = ()
    min_interval_ns: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ActiveInstruments:
    """The driver keeps ``tickers`` and rotates the others out. One with a position or a working order stays,
    whatever the list says; the engine answers with holds, and the pipeline follows ``Engine.rotated_out``.
    """

    now_ns: int
    tickers: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PipelineReset:
    """The driver cleared feature and model state of ``ticker`` ("*": all of them)."""

    now_ns: int
    ticker: str = "*"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift monitor fired. Only ``critical`` stops trading."""

    now_ns: int
    metric: str
    value_e6: int
    critical: bool


@dataclass(frozen=True, slots=True)
class StageLatency:
    """How long one stage (``features``, ``ml``, ``risk``) took for one book, microseconds."""

    now_ns: int
    stage: str
    micros: int


@dataclass(frozen=True, slots=True)
class VolatilityIndex:
    """The volatility index (VIXMOEX/RVI) in hundredths of a point."""

    now_ns: int
    value_e2: int


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The process is asked to stop; ``flatten`` closes positions first."""

    now_ns: int
    reason: str = ""
    flatten: bool = False


Event = (
    Book
    | Trade
    | Scores
    | InferenceFailed
    | Timer
    | OrderUpdate
    | KnownOrder
    | Reconciled
    | DayCompared
    | TradingStatus
    | Connection
    | Quarantine
    | Override
    | Resume
    | ModelSwapped
    | PipelineMode
    | ActiveInstruments
    | PipelineReset
    | Drift
    | StageLatency
    | VolatilityIndex
    | StopRequested
)
