"""Every setting of the runner: one dataclass per section, one line per key.

The annotation is the type that is checked, the default is what a missing key means, and the rest (`about`,
bounds, choices) is used three times: to refuse impossible values, to word the refusal, and to write the
commented file of ``live-runner init-config``. Operators' units (minutes, per cent, roubles) live here;
``live.config.engine_config`` turns them into the whole numbers of the core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TIME_OF_DAY = ("HH:MM or HH:MM:SS", r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
TICKER = ("TICKER or TICKER_CLASSCODE", r"[A-Za-z0-9@.-]+(_[A-Z0-9]+)?")


def key(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    one_of: tuple[str, ...] | None = None,
    pattern: tuple[str, str] | None = None,
    secret: bool = False,
) -> Any:
    """A setting: its default and what is allowed.

    ``low`` and ``high`` are inclusive, ``above`` is exclusive; ``pattern`` is how people write the expected
    form and the regular expression for it.
    """
    allowed = {
        "about": about, "low": low, "high": high, "above": above, "one_of": one_of, "pattern": pattern,
        "secret": secret,
    }  # fmt: skip
    if isinstance(default, list):
        frozen = tuple(default)
        return field(default_factory=lambda: frozen, metadata=allowed)
    return field(default=default, metadata=allowed)


@dataclass(frozen=True, slots=True)
class LatencyThresholds:
    """Per stage, milliseconds."""

    features: float = key(5.0, "ms from a received book to its feature row", above=0)
    ml: float = key(50.0, "ms of inference", above=0)
    risk: float = key(5.0, "ms of one engine decision", above=0)


@dataclass(frozen=True, slots=True)
class System:
    """The process itself."""

    mode: str = key(
        "paper", "paper = embedded exchange; sandbox, production = the broker",
        one_of=("paper", "sandbox", "production"),
    )  # fmt: skip
    startup_time: str | None = key(
        None, "HH:MM[:SS] in session.timezone: wait until then before connecting", pattern=TIME_OF_DAY
    )
    checkpoint_interval_seconds: float = key(
        5.0, "how often runtime/checkpoint.json is written", low=0.1, high=600
    )
    reconcile_interval_seconds: float = key(
        60.0, "how often orders, positions and cash are read from the broker; 0 = only when needed",
        low=0, high=86_400,
    )  # fmt: skip
    latency_thresholds: LatencyThresholds = field(default_factory=LatencyThresholds)
    latency_violation_limit: int = key(20, "violations in a row that stop trading", low=1, high=100_000)
    flatten_on_stop: bool = key(False, "close positions by market order when the runner is asked to stop")
    runtime_dir: str = key("runtime", "folder of everything the runner writes")
    language: str = key("en", "of notices and of answers in the chat", one_of=("en", "ru"))


@dataclass(frozen=True, slots=True)
class Session:
    """The trading window. Outside it trading is suspended (market data goes on)."""

    enabled: bool = key(True, "false: trade at any time the exchange does")
    start_time: str = key("10:00", "first minute of trading", pattern=TIME_OF_DAY)
    end_time: str = key("18:40", "end of trading", pattern=TIME_OF_DAY)
    pre_open_minutes: int = key(0, "open this many minutes before start_time", low=0, high=720)
    post_close_minutes: int = key(0, "stay open this many minutes after end_time", low=0, high=720)
    allowed_weekdays: tuple[int, ...] = key([0, 1, 2, 3, 4], "0 = Monday ... 6 = Sunday", low=0, high=6)
    timezone: str = key("Europe/Moscow", "IANA name of the exchange's time zone")


@dataclass(frozen=True, slots=True)
class ManualOverride:
    """While the flag file exists no order is sent (`live-runner halt` and `resume`)."""

    flag_path: str = key("runtime/manual_override.flag", "its content is the reason")
    poll_interval_seconds: float = key(1.0, "how often it is looked for", low=0.05, high=60)
    auto_resume_minutes: float = key(
        0.0, "remove the flag by itself after so long; 0 = never", low=0, high=10_080
    )


@dataclass(frozen=True, slots=True)
class Risk:
    """Limits. Money in roubles, shares of the capital as fractions."""

    capital_base: float = key(1_000_000.0, "roubles that the limits are measured against", low=1)
    max_risk_per_instrument: float = key(
        0.002, "share of the capital lost if one stop is hit", above=0, high=1
    )
    daily_loss_limit_pct: float = key(
        2.0, "per cent of the capital lost in a day that stops trading", above=0, high=100
    )
    max_exposure_pct: float = key(
        50.0, "per cent of the capital in all positions together", above=0, high=1000
    )
    max_daily_loss: float = key(20_000.0, "roubles lost in a day that stop trading", low=1)
    max_gross_exposure: float = key(500_000.0, "roubles of all positions together", low=1)
    max_position_lots: int = key(50, "lots per instrument", low=1, high=1_000_000)
    max_orders_per_minute: int = key(60, "over all instruments", low=1, high=300)
    loss_cooldown_minutes: float = key(10.0, "pause after a run of losses", low=0, high=1440)
    max_consecutive_losses: int = key(5, "losing round trips in a row that start the pause", low=1, high=1000)
    vix_threshold: float = key(40.0, "volatility index above this is an emergency stop", above=0)
    vix_instrument: str = key(
        "", "uid of the volatility index at the broker (RVI), polled for its last price; empty = not watched"
    )
    vix_poll_seconds: float = key(15.0, "between two looks at the index", low=1, high=3600)
    atr_min_bars: int = key(
        5, "one-minute bars before the first entry; fewer measure the stop from fewer", low=1, high=5
    )
    price_collar_bps: int = key(
        50, "no order further than this from the middle of the book", low=1, high=10_000
    )


@dataclass(frozen=True, slots=True)
class Execution:
    """How a plan becomes orders."""

    vwap_threshold_lots: int = key(5, "more lots than this are split", low=0, high=1_000_000)
    vwap_market_share: float = key(0.8, "share of a split order sent at market", above=0, high=1)
    limit_improvement_ticks: int = key(1, "price improvement of the limit part", low=0, high=1000)
    order_timeout_ms: int = key(1500, "cancel a resting order after so long", low=50, high=600_000)
    timeout_action: str = key(
        "cancel", "then: cancel = leave it at that, market = take the rest at market",
        one_of=("cancel", "market"),
    )  # fmt: skip
    slippage_ticks: int = key(
        0, "expected slippage of a round trip that an edge must also clear", low=0, high=1000
    )
    exchange_stop: bool = key(False, "also keep one stop order per position at the broker")


@dataclass(frozen=True, slots=True)
class Fallback:
    """The heuristic that stands in when inference fails."""

    enabled: bool = key(True, "false: no signal without the model")
    imbalance_threshold: float = key(0.35, "absolute volume imbalance of the last window", low=0, high=1)
    volatility_threshold: float = key(
        0.0002, "volatility of the last window, as a fraction of the price", low=0
    )
    confidence: float = key(0.55, "probability given to its signals", low=0.5, high=1)
    max_signals_per_hour: int = key(6, "quota; then FALLBACK_UNAVAILABLE", low=0, high=3600)


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to the broker. Empty fields mean the operating system's default."""

    target: str = key("", "host:port; empty = broker.target")
    bind: str = key("", "local address to connect from")
    interface: str = key("", "network interface, e.g. wwan0")


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Failover between two channels."""

    failure_threshold: int = key(3, "errors in a row that switch to the backup", low=1, high=1000)
    failover_latency_ms: int = key(150, "time allowed for the switch", low=1, high=60_000)
    recovery_message_count: int = key(
        20, "good messages on the primary that bring it back", low=1, high=100_000
    )
    silence_seconds: float = key(
        10.0, "an instrument without a book for so long is asked for by a call: quiet, or a dead stream",
        low=1, high=600,
    )  # fmt: skip
    primary: Channel = field(default_factory=Channel)
    backup: Channel = field(default_factory=Channel)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Resources, heartbeat, drift."""

    max_cpu_pct: float = key(90.0, "of all cores; above: simplified mode", above=0, high=100)
    max_memory_pct: float = key(90.0, "of the machine's memory", above=0, high=100)
    max_gpu_pct: float = key(95.0, "of the GPU, where there is one", above=0, high=100)
    max_gpu_memory_pct: float = key(95.0, "of the GPU's memory", above=0, high=100)
    resource_interval_seconds: float = key(
        5.0, "between two looks at the machine; 0 = never", low=0, high=3600
    )
    resource_samples: int = key(3, "looks in a row that change the mode", low=1, high=1000)
    resource_hysteresis_pct: float = key(
        10.0, "so far under every limit before the mode is left", low=0, high=100
    )
    simplified_instruments: int = key(
        2, "simplified mode: the most tradable that stay; 0 = all of them", low=0, high=300
    )
    simplified_members: tuple[str, ...] = key(["gbdt"], "simplified mode: models that go on")
    simplified_rate_hz: float = key(
        2.0, "simplified mode: inferences a second and instrument", above=0, high=1000
    )
    heartbeat_enabled: bool = key(True, "stop trading when books stop coming")
    heartbeat_interval_seconds: float = key(5.0, "a book is expected at least this often", above=0, high=3600)
    heartbeat_miss_threshold: int = key(
        3, "intervals in a row without a book that stop trading", low=1, high=1000
    )
    drift_psi_warning: float = key(
        0.2, "population stability index that a column must pass to count as drifted", above=0
    )
    drift_psi_critical: float = key(
        0.25, "index of the score, or of a fifth of what the models look at, that stops trading until the "
        "model is reloaded", above=0,
    )  # fmt: skip
    metrics_port: int = key(0, "loopback port of /metrics; 0 = off", low=0, high=65_535)


@dataclass(frozen=True, slots=True)
class Notifications:
    """Telegram and sounds. Neither ever blocks trading."""

    token: str = key("", "Telegram bot token, may be enc:...", secret=True)
    chat_id: str = key("", "Telegram chat")
    min_severity: str = key("info", "less than this is not sent", one_of=("info", "warning", "alert"))
    quiet_hours: str = key(
        "", "HH:MM-HH:MM in session.timezone: info waits, warnings come silently; empty = never",
        pattern=("HH:MM-HH:MM or empty", r"|([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d"),
    )  # fmt: skip
    dedupe_seconds: float = key(60.0, "alike notices within so long are joined; 0 = never", low=0, high=3600)
    commands: bool = key(False, "take /status /pnl /halt /resume from the chat")
    allowed_chats: tuple[str, ...] = key([], "chats that may command; empty = chat_id only")
    api_url: str = key(
        "https://api.telegram.org", "Bot API server", pattern=("https://...", r"https?://[^\s?#]+")
    )
    sound: bool = key(False, "tones on this machine: 1.5 kHz liquidity, 2.5 kHz high risk")
    spread_alert_bps: float = key(
        20.0, "spread that counts as thin liquidity; over again under 80 % of it", above=0
    )


@dataclass(frozen=True, slots=True)
class Reporting:
    """Periodic summary."""

    enabled: bool = key(True, "write it")
    interval_minutes: float = key(60.0, "between two reports", above=0, high=1440)
    report_path: str = key("runtime/reports/performance.jsonl", "JSON lines")
    max_history_days: int = key(30, "older lines are dropped", low=1, high=3650)


@dataclass(frozen=True, slots=True)
class DisasterRecovery:
    """Time-stamped copies of the runtime folder."""

    enabled: bool = key(False, "copy")
    replication_path: str = key("", "target folder, best on another disk")
    include_patterns: tuple[str, ...] = key(["*.db", "*.json", "*.jsonl"], "file masks")
    interval_minutes: float = key(60.0, "between two copies", above=0, high=10_080)
    max_snapshots: int = key(24, "older copies are removed", low=1, high=10_000)


@dataclass(frozen=True, slots=True)
class Security:
    """Secrets in this file."""

    key_path: str = key("keys/fernet.key", "Fernet key for enc:... values (`live-runner keygen`)")


@dataclass(frozen=True, slots=True)
class Data:
    """What is watched."""

    instruments: tuple[str, ...] = key([], "what to trade; empty = by the rule in universe", pattern=TICKER)
    depth: int = key(20, "levels per side: the exchange's sizes; features use 20", low=20, high=50)
    ttl_seconds: float = key(5.0, "a book older than this is not traded on", above=0, high=600)
    universe: str = key(
        "model", "where instruments is empty: all of the model's, or only its shares or futures",
        one_of=("model", "shares", "futures"),
    )  # fmt: skip
    ring_length: int = key(1024, "books kept in memory per instrument", low=16, high=1_000_000)
    rotation_interval_seconds: float = key(
        0.0, "re-rank the instruments this often; 0 = never", low=0, high=86_400
    )
    keep_instruments: int = key(0, "how many stay after a rotation; 0 = all", low=0, high=300)
    queue_length: int = key(
        20_000, "events waiting for the engine before books are conflated", low=100, high=10_000_000
    )


@dataclass(frozen=True, slots=True)
class Model:
    """Where the bundle comes from and what it must prove."""

    registry: str = key(
        "sqlite:///runtime/mlflow/mlflow.db",
        "sqlite:///path, http(s)://server, or file:// of a bundle folder",
    )
    name: str = key("scalper", "registered model")
    alias: str = key("prod", "alias to follow (--model)")
    poll_interval_seconds: float = key(
        15.0, "how often the alias is looked at; 0 = never", low=0, high=86_400
    )
    shadow_alias: str = key("", "score this alias beside the live one, orders imagined; empty = none")
    canary_max_lots: int = key(1, "largest position while the alias canary trades", low=1, high=1_000_000)
    verification_key: str = key("keys/signing.pub", "Ed25519 public key; empty is refused outside paper mode")
    backend: str = key(
        "cpu", "where the networks run; a GPU that fails is left for the CPU", one_of=("cpu", "gpu")
    )
    threads: int = key(1, "inference threads of a network; 1 is fastest at this size", low=1, high=64)


@dataclass(frozen=True, slots=True)
class Backtest:
    """Defaults of `live-runner backtest`."""

    dataset_path: str = key("data/recording", "a recording, or anything that can be imported")
    initial_capital: float = key(1_000_000.0, "roubles", above=0)
    commission_bps: float | None = key(None, "per side; empty = the bundle's tariff", low=0, high=1000)
    slippage_ticks: int = key(0, "added against us to every market order", low=0, high=1000)
    latency_ms: float = key(100.0, "from the decision to the exchange", low=0, high=60_000)
    feed_latency_ms: float = key(0.0, "from the recorded moment of a book or print to us", low=0, high=60_000)
    response_latency_ms: float = key(0.0, "from the exchange's answer to us", low=0, high=60_000)
    cancel_latency_ms: float | None = key(
        None, "from the request to the exchange, for cancels; empty = latency_ms", low=0, high=60_000
    )
    latency_jitter_ms: float = key(0.0, "at most so much is added to each delay", low=0, high=60_000)
    queue_model: str = key(
        "risk_averse", "where cancellations stood in a queue with our order (docs/matching.md)",
        one_of=("risk_averse", "probabilistic"),
    )  # fmt: skip
    max_orders: int = key(100_000, "stop after so many", low=1)


@dataclass(frozen=True, slots=True)
class Storage:
    """SQLite."""

    path: str = key("runtime/scalper.db", "signals, orders, fills, positions")
    retention_days: int = key(90, "older rows are removed at start", low=1, high=36_500)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`live-runner dashboard`, or inside the runner when enabled."""

    enabled: bool = key(False, "serve it from the runner")
    host: str = key("127.0.0.1", "any address but loopback needs a token")
    port: int = key(8000, "0 = any free port", low=0, high=65_535)
    token: str = key("", "to sign in with, and to halt and resume from the page; may be enc:...", secret=True)


@dataclass(frozen=True, slots=True)
class Broker:
    """The account. In paper mode only the transport is used."""

    token: str = key("", "Invest API token, may be enc:...", secret=True)
    account_id: str = key("", "account to trade; empty = the only one the token can see")
    target: str = key("", "host:port; empty = the official address of the mode")
    ca_path: str = key(
        "", "PEM with extra root certificates (the tbank.ru domain needs the Russian Trusted CA)"
    )
    app_name: str = key("scalper.live-runner", "sent as x-app-name")
    transport: str = key(
        "native", "unary calls: native = bundled contract; sdk = the broker's SDK, installed apart",
        one_of=("native", "sdk"),
    )  # fmt: skip
    confirm_margin_trade: bool = key(
        False, "consent that orders may open uncovered positions: shorts are refused (30240) without it"
    )
    tariff: str = key("trader", "commission tariff used by backtests and sizing (market/fees.py)")


@dataclass(frozen=True, slots=True)
class Paper:
    """The embedded exchange."""

    endpoint: str = key(
        "runtime/paper/endpoint.json", "use the exchange described here if it runs, else start one"
    )
    recording: str = key("data/recording", "recording it plays")
    speed: float = key(1.0, "market seconds per second", above=0, high=10_000)
    from_ns: int | None = key(
        None, "start of the part to play, ns UTC; empty = what the model never saw", low=0
    )
    to_ns: int | None = key(None, "end of the part to play, ns UTC", low=0)
    exit_at_end: bool = key(True, "flatten and stop when the recording ends")
    cash_rub: int = key(1_000_000, "cash on the paper account", low=0)
    entry_latency_ms: int = key(20, "from the request to the matching", low=0, high=10_000)


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """The whole file. ``source`` is the path it came from, for messages."""

    system: System = field(default_factory=System)
    session: Session = field(default_factory=Session)
    manual_override: ManualOverride = field(default_factory=ManualOverride)
    risk: Risk = field(default_factory=Risk)
    execution: Execution = field(default_factory=Execution)
    fallback: Fallback = field(default_factory=Fallback)
    connectivity: Connectivity = field(default_factory=Connectivity)
    monitoring: Monitoring = field(default_factory=Monitoring)
    notifications: Notifications = field(default_factory=Notifications)
    reporting: Reporting = field(default_factory=Reporting)
    disaster_recovery: DisasterRecovery = field(default_factory=DisasterRecovery)
    security: Security = field(default_factory=Security)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    backtest: Backtest = field(default_factory=Backtest)
    storage: Storage = field(default_factory=Storage)
    dashboard: Dashboard = field(default_factory=Dashboard)
    broker: Broker = field(default_factory=Broker)
    paper: Paper = field(default_factory=Paper)
