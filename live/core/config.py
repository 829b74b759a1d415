"""What the engine is configured with, in whole numbers. ``live.config`` builds it from the YAML.

Units in the names: ``_nano`` nano-roubles, ``_ppm`` millionths of a whole, ``_e6`` millionths, ``_e2``
hundredths, ``_s`` seconds of the exchange's day. ``EngineConfig.from_dict(config.to_dict()) == config``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from market.errors import ConfigError
from market.types import MILLISECOND_NS, NANO, SECOND_NS

TIMER_NS = 250 * MILLISECOND_NS
"""How often every driver sends ``Timer``: the grain of order time-outs and of exits without books."""

MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 3600 * SECOND_NS
DAY_S = 86_400


class _Section:
    """Dictionaries in and out, and one way to refuse an impossible value."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{cls.__name__}: unknown key {key!r}; known keys: {', '.join(sorted(known))}"
                )
        return cls(**values)

    def _require(self, holds: bool, name: str, allowed: str) -> None:
        if not holds:
            raise ConfigError(
                f"{type(self).__name__}.{name} = {getattr(self, name)!r} is impossible; allowed: {allowed}"
            )

    def _whole(self, *, at_least: int, names: tuple[str, ...]) -> None:
        for name in names:
            value = getattr(self, name)
            self._require(type(value) is int and value >= at_least, name, f"a whole number >= {at_least}")


@dataclass(frozen=True, slots=True)
class RiskConfig(_Section):
    """Limits. ``max_exposure_ppm`` (of the capital) bounds the value held in one instrument,
    ``max_gross_exposure_nano`` the sum over all of them, working entries included; the smaller of the two
    loss limits ends the day.
    """

    capital_base_nano: int = 1_000_000 * NANO
    max_risk_per_instrument_ppm: int = 2_000
    daily_loss_limit_ppm: int = 20_000
    max_exposure_ppm: int = 500_000
    max_daily_loss_nano: int = 20_000 * NANO
    max_gross_exposure_nano: int = 500_000 * NANO
    max_position_lots: int = 50
    max_orders_per_minute: int = 60
    loss_cooldown_ns: int = 10 * MINUTE_NS
    max_consecutive_losses: int = 5
    vix_threshold_e2: int = 4_000
    price_collar_bps: int = 50
    liquidity_share_pct: int = 50
    """No entry takes more than this share of the size shown at the touch."""
    atr_min_bars: int = 5
    """One-minute bars needed before the first entry, at most 5."""
    reject_streak_limit: int = 5
    reject_pause_ns: int = 5 * MINUTE_NS
    max_holding_horizons: int = 6
    """A position older than this many model horizons is closed whatever the model says."""

    def __post_init__(self) -> None:
        self._whole(
            at_least=1,
            names=(
                "capital_base_nano",
                "max_risk_per_instrument_ppm",
                "daily_loss_limit_ppm",
                "max_exposure_ppm",
                "max_daily_loss_nano",
                "max_gross_exposure_nano",
                "max_position_lots",
                "max_orders_per_minute",
                "max_consecutive_losses",
                "vix_threshold_e2",
                "price_collar_bps",
                "liquidity_share_pct",
                "atr_min_bars",
                "reject_streak_limit",
                "max_holding_horizons",
            ),
        )
        self._whole(at_least=0, names=("loss_cooldown_ns", "reject_pause_ns"))
        self._require(
            self.max_risk_per_instrument_ppm <= 1_000_000, "max_risk_per_instrument_ppm", "1..1000000"
        )
        self._require(self.daily_loss_limit_ppm <= 1_000_000, "daily_loss_limit_ppm", "1..1000000")
        self._require(self.liquidity_share_pct <= 100, "liquidity_share_pct", "1..100")
        self._require(self.atr_min_bars <= 5, "atr_min_bars", "1..5")
        self._require(self.max_orders_per_minute <= 10_000, "max_orders_per_minute", "1..10000")

    @property
    def day_loss_nano(self) -> int:
        """The loss that ends the day: the smaller of the absolute and the relative limit."""
        return min(self.max_daily_loss_nano, self.capital_base_nano * self.daily_loss_limit_ppm // 1_000_000)

    @property
    def exposure_nano(self) -> int:
        return self.capital_base_nano * self.max_exposure_ppm // 1_000_000

    @property
    def risk_budget_nano(self) -> int:
        return self.capital_base_nano * self.max_risk_per_instrument_ppm // 1_000_000


@dataclass(frozen=True, slots=True)
class ExecutionConfig(_Section):
    vwap_threshold_lots: int = 5
    vwap_market_share_ppm: int = 800_000
    limit_improvement_ticks: int = 1
    order_timeout_ns: int = 1_500 * MILLISECOND_NS
    timeout_action: str = "cancel"
    """What becomes of a limit rest past its time: ``cancel``, or ``market`` (the rest is taken at market)."""
    exchange_stop: bool = False
    slippage_ticks: int = 0
    """Expected slippage of each side, part of the cost that an edge must clear."""
    ack_timeout_ns: int = 5 * SECOND_NS
    """An order that the broker has not answered for so long is UNKNOWN."""
    query_interval_ns: int = 1 * SECOND_NS
    """First pause between two queries of an UNKNOWN order; doubles each time."""
    max_queries: int = 6
    exit_retry_ns: int = 500 * MILLISECOND_NS
    """First pause before an exit that did not fill is tried again; doubles up to 32-fold."""
    position_settle_ns: int = 5 * SECOND_NS
    """Positions read from the broker so soon after a fill are not compared yet."""

    def __post_init__(self) -> None:
        self._whole(
            at_least=1,
            names=("order_timeout_ns", "ack_timeout_ns", "query_interval_ns", "max_queries", "exit_retry_ns"),
        )
        self._whole(
            at_least=0,
            names=(
                "vwap_threshold_lots", "vwap_market_share_ppm", "limit_improvement_ticks", "slippage_ticks",
                "position_settle_ns",
            ),
        )  # fmt: skip
        self._require(self.vwap_market_share_ppm <= 1_000_000, "vwap_market_share_ppm", "0..1000000")
        self._require(self.timeout_action in ("cancel", "market"), "timeout_action", "cancel, market")


@dataclass(frozen=True, slots=True)
class FallbackConfig(_Section):
    """The heuristic for failed inference. ``volatility`` is the root of the summed squared mid moves of the
    window, in thousandths of a basis point; ``imbalance`` the mean of (bid - ask) / (bid + ask) sizes."""

    enabled: bool = True
    imbalance_threshold_e6: int = 350_000
    volatility_threshold_millibps: int = 2_000
    confidence_e6: int = 550_000
    max_signals_per_hour: int = 6
    window_ns: int = 30 * SECOND_NS
    min_books: int = 20

    def __post_init__(self) -> None:
        self._whole(
            at_least=0,
            names=("imbalance_threshold_e6", "volatility_threshold_millibps", "max_signals_per_hour"),
        )
        self._whole(at_least=1, names=("window_ns", "min_books", "confidence_e6"))
        self._require(self.imbalance_threshold_e6 <= 1_000_000, "imbalance_threshold_e6", "0..1000000")
        self._require(self.max_signals_per_hour <= 10_000, "max_signals_per_hour", "0..10000")
        self._require(self.confidence_e6 <= 1_000_000, "confidence_e6", "1..1000000")


@dataclass(frozen=True, slots=True)
class SessionConfig(_Section):
    """The trading window in the exchange's time: [start - pre_open, end + post_close) on allowed weekdays.

    ``allowed_weekdays``: 0 Monday .. 6 Sunday. ``utc_offset_s`` also fixes the exchange's midnight; Moscow
    keeps one offset all year.
    """

    enabled: bool = True
    start_s: int = 10 * 3600
    end_s: int = 18 * 3600 + 40 * 60
    pre_open_s: int = 0
    post_close_s: int = 0
    allowed_weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)
    utc_offset_s: int = 3 * 3600

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_weekdays", tuple(sorted(set(self.allowed_weekdays))))
        self._whole(at_least=0, names=("start_s", "end_s", "pre_open_s", "post_close_s"))
        self._require(self.start_s < DAY_S, "start_s", "before midnight")
        self._require(self.start_s < self.end_s <= DAY_S, "end_s", "after start_s, at most 86400")
        self._require(self.pre_open_s <= self.start_s, "pre_open_s", "not before the day's midnight")
        self._require(self.end_s + self.post_close_s <= DAY_S, "post_close_s", "not after the day's midnight")
        self._require(bool(self.allowed_weekdays), "allowed_weekdays", "at least one of 0..6")
        self._require(
            all(type(d) is int and 0 <= d <= 6 for d in self.allowed_weekdays), "allowed_weekdays", "0..6"
        )
        self._require(
            type(self.utc_offset_s) is int and abs(self.utc_offset_s) < DAY_S, "utc_offset_s", "-86399..86399"
        )


@dataclass(frozen=True, slots=True)
class MonitoringConfig(_Section):
    heartbeat_enabled: bool = True
    heartbeat_interval_ns: int = 5 * SECOND_NS
    heartbeat_miss_threshold: int = 3
    spread_alert_millibps: int = 20_000
    """``notifications.spread_alert_bps``; a wider spread is a liquidity warning. 0: never."""

    def __post_init__(self) -> None:
        self._whole(at_least=1, names=("heartbeat_interval_ns", "heartbeat_miss_threshold"))
        self._whole(at_least=0, names=("spread_alert_millibps",))


@dataclass(frozen=True, slots=True)
class LatencyConfig(_Section):
    """``thresholds_us`` per stage in microseconds; ``violation_limit`` violations in a row are an emergency
    stop.
    """

    thresholds_us: dict[str, int] = field(
        default_factory=lambda: {"features": 5_000, "ml": 50_000, "risk": 5_000}
    )
    violation_limit: int = 20

    def __post_init__(self) -> None:
        self._whole(at_least=1, names=("violation_limit",))
        self._require(
            all(type(v) is int and v > 0 for v in self.thresholds_us.values()), "thresholds_us", "> 0"
        )


@dataclass(frozen=True, slots=True)
class BookCheckConfig(_Section):
    """When a book is believed. ``max_age_ns``: older books are not traded on and end no quarantine."""

    max_age_ns: int = 5 * SECOND_NS
    max_move_bps: int = 300
    confirm_books: int = 10
    """So many books in a row that agree with each other make a large move plausible."""

    def __post_init__(self) -> None:
        self._whole(at_least=1, names=("max_age_ns", "max_move_bps", "confirm_books"))


@dataclass(frozen=True, slots=True)
class EngineConfig(_Section):
    """Everything the engine is configured with. ``fee_ppm`` per ticker overrides what the model was trained
    for.
    """

    risk: RiskConfig = field(default_factory=RiskConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    fallback: FallbackConfig = field(default_factory=FallbackConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    books: BookCheckConfig = field(default_factory=BookCheckConfig)
    fee_ppm: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists."""
        out = asdict(self)
        out["session"]["allowed_weekdays"] = list(self.session.allowed_weekdays)
        return out

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        sections: dict[str, type[_Section]] = {
            "risk": RiskConfig, "execution": ExecutionConfig, "fallback": FallbackConfig,
            "session": SessionConfig, "monitoring": MonitoringConfig, "latency": LatencyConfig,
            "books": BookCheckConfig,
        }  # fmt: skip
        for key in values:
            if key not in sections and key != "fee_ppm":
                known = ", ".join([*sections, "fee_ppm"])
                raise ConfigError(f"EngineConfig: unknown section {key!r}; known sections: {known}")
        built: dict[str, Any] = {k: sections[k].from_dict(v) for k, v in values.items() if k in sections}
        return cls(**built, fee_ppm=dict(values.get("fee_ppm", {})))


@dataclass(frozen=True, slots=True)
class ModelParams(_Section):
    """What the core needs to know about a bundle (``live.pipeline.model_params`` makes it).

    ``threshold_millibps`` per ticker: the edge that an entry must exceed; None, or absent: never trade it.
    """

    manifest_sha256: str
    horizon_ns: int
    valid_until_ns: int
    fee_ppm: dict[str, int] = field(default_factory=dict)
    threshold_millibps: dict[str, int | None] = field(default_factory=dict)
    exit_move_millibps: int = 0
    stop_multiplier_e3: int = 1_000
    watermark: str = "SIMULATED"

    def __post_init__(self) -> None:
        self._whole(at_least=1, names=("horizon_ns",))
        self._whole(at_least=0, names=("valid_until_ns",))
        self._whole(at_least=1, names=("stop_multiplier_e3",))
        self._require(type(self.exit_move_millibps) is int, "exit_move_millibps", "a whole number")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
