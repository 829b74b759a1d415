"""From operators' units (minutes, per cent, roubles) to the whole numbers of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from live.config_schema import Backtest, RunnerConfig
from live.core.config import (
    MINUTE_NS,
    BookCheckConfig,
    EngineConfig,
    ExecutionConfig,
    FallbackConfig,
    LatencyConfig,
    MonitoringConfig,
    RiskConfig,
    SessionConfig,
)
from market.latency import Latency
from market.types import MILLISECOND_NS, NANO, SECOND_NS

LATE_START_S = 3600
"""A start so much later than planned is still that start."""


def engine_config(config: RunnerConfig, fee_ppm: Mapping[str, int] | None = None) -> EngineConfig:
    """What ``live.core`` needs, converted from operators' units. ``fee_ppm`` per ticker overrides the
    bundle's.
    """
    risk, execution, fallback, watch = config.risk, config.execution, config.fallback, config.monitoring
    limits = config.system.latency_thresholds
    return EngineConfig(
        risk=RiskConfig(
            capital_base_nano=_whole(risk.capital_base, NANO),
            max_risk_per_instrument_ppm=max(1, _whole(risk.max_risk_per_instrument, 1_000_000)),
            daily_loss_limit_ppm=max(1, _whole(risk.daily_loss_limit_pct, 10_000)),
            max_exposure_ppm=max(1, _whole(risk.max_exposure_pct, 10_000)),
            max_daily_loss_nano=_whole(risk.max_daily_loss, NANO),
            max_gross_exposure_nano=_whole(risk.max_gross_exposure, NANO),
            max_position_lots=risk.max_position_lots,
            max_orders_per_minute=risk.max_orders_per_minute,
            loss_cooldown_ns=_whole(risk.loss_cooldown_minutes, MINUTE_NS),
            max_consecutive_losses=risk.max_consecutive_losses,
            vix_threshold_e2=max(1, _whole(risk.vix_threshold, 100)),
            price_collar_bps=risk.price_collar_bps,
            atr_min_bars=risk.atr_min_bars,
        ),
        execution=ExecutionConfig(
            vwap_threshold_lots=execution.vwap_threshold_lots,
            vwap_market_share_ppm=max(1, _whole(execution.vwap_market_share, 1_000_000)),
            limit_improvement_ticks=execution.limit_improvement_ticks,
            order_timeout_ns=execution.order_timeout_ms * MILLISECOND_NS,
            timeout_action=execution.timeout_action,
            slippage_ticks=execution.slippage_ticks,
            exchange_stop=execution.exchange_stop,
        ),
        fallback=FallbackConfig(
            enabled=fallback.enabled,
            imbalance_threshold_e6=_whole(fallback.imbalance_threshold, 1_000_000),
            volatility_threshold_millibps=_whole(fallback.volatility_threshold, 10_000_000),
            confidence_e6=_whole(fallback.confidence, 1_000_000),
            max_signals_per_hour=fallback.max_signals_per_hour,
        ),
        session=_session(config),
        monitoring=MonitoringConfig(
            heartbeat_enabled=watch.heartbeat_enabled,
            heartbeat_interval_ns=max(1, _whole(watch.heartbeat_interval_seconds, SECOND_NS)),
            heartbeat_miss_threshold=watch.heartbeat_miss_threshold,
            spread_alert_millibps=_whole(config.notifications.spread_alert_bps, 1_000),
        ),
        latency=LatencyConfig(
            thresholds_us={
                name: max(1, _whole(getattr(limits, name), 1_000)) for name in ("features", "ml", "risk")
            },
            violation_limit=config.system.latency_violation_limit,
        ),
        books=BookCheckConfig(max_age_ns=max(1, _whole(config.data.ttl_seconds, SECOND_NS))),
        fee_ppm=dict(fee_ppm or {}),
    )


def capped(config: EngineConfig, max_lots: int) -> EngineConfig:
    """The same with positions of at most ``max_lots``: what a canary may do."""
    lots = min(config.risk.max_position_lots, max_lots)
    return replace(config, risk=replace(config.risk, max_position_lots=lots))


def backtest_latency(settings: Backtest) -> Latency:
    """The delays of the backtest and of shadow trading."""
    return Latency.of_ms(
        settings.latency_ms, feed=settings.feed_latency_ms, response=settings.response_latency_ms,
        cancel=settings.cancel_latency_ms, jitter=settings.latency_jitter_ms,
    )  # fmt: skip


def _session(config: RunnerConfig) -> SessionConfig:
    session = config.session
    # The core keeps one offset: Moscow has none but +3 all the year. Other zones take today's offset.
    offset = datetime.now(ZoneInfo(session.timezone)).utcoffset()
    return SessionConfig(
        enabled=session.enabled,
        start_s=seconds_of_day(session.start_time),
        end_s=seconds_of_day(session.end_time),
        pre_open_s=session.pre_open_minutes * 60,
        post_close_s=session.post_close_minutes * 60,
        allowed_weekdays=session.allowed_weekdays or tuple(range(7)),
        utc_offset_s=int(offset.total_seconds()) if offset else 0,
    )


def seconds_of_day(text: str) -> int:
    hours, minutes, *seconds = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + (seconds[0] if seconds else 0)


def _whole(value: float, factor: int) -> int:
    """``value * factor`` as a whole number, through the decimal that the operator wrote (0.1 is 0.1)."""
    return int((Decimal(str(value)) * factor).to_integral_value())


def seconds_until(time_of_day: str, timezone: str, now: datetime | None = None) -> float:
    """Seconds until the next such time of day there; 0 when it was reached less than an hour ago, be it
    before midnight.
    """
    now = now or datetime.now(ZoneInfo(timezone))
    of_day = now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
    late = (of_day - seconds_of_day(time_of_day)) % 86_400
    return 0.0 if late < LATE_START_S else 86_400 - late
