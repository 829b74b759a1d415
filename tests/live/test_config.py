"""The configuration file: what loads, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live import config, config_template
from live.config_schema import RunnerConfig
from live.core.config import EngineConfig
from live.secrets import KeyManager
from market.errors import ConfigError

# What the user named for each section; the schema may hold more, never less.
WANTED = {
    "system": "mode startup_time checkpoint_interval_seconds latency_thresholds latency_violation_limit",
    "session": "enabled start_time end_time pre_open_minutes post_close_minutes allowed_weekdays timezone",
    "manual_override": "flag_path poll_interval_seconds auto_resume_minutes",
    "risk": "capital_base max_risk_per_instrument daily_loss_limit_pct max_exposure_pct max_daily_loss "
    "max_gross_exposure max_position_lots max_orders_per_minute loss_cooldown_minutes max_consecutive_losses "
    "vix_threshold price_collar_bps",
    "execution": "vwap_threshold_lots vwap_market_share limit_improvement_ticks order_timeout_ms "
    "exchange_stop",
    "fallback": "enabled imbalance_threshold volatility_threshold confidence max_signals_per_hour",
    "connectivity": "failure_threshold failover_latency_ms recovery_message_count primary backup",
    "monitoring": "max_cpu_pct max_memory_pct max_gpu_pct max_gpu_memory_pct heartbeat_enabled "
    "heartbeat_interval_seconds heartbeat_miss_threshold metrics_port",
    "notifications": "token chat_id sound spread_alert_bps",
    "reporting": "enabled interval_minutes report_path max_history_days",
    "disaster_recovery": "enabled replication_path include_patterns interval_minutes max_snapshots",
    "security": "key_path",
    "data": "instruments depth ttl_seconds ring_length rotation_interval_seconds keep_instruments",
    "model": "registry name alias poll_interval_seconds verification_key backend threads",
    "backtest": "dataset_path initial_capital commission_bps slippage_ticks latency_ms max_orders",
    "storage": "path retention_days",
    "dashboard": "enabled host port token",
    "broker": "token account_id target ca_path app_name",
    "paper": "endpoint recording speed from_ns to_ns exit_at_end",
}


def load(tmp_path: Path, text: str, name: str = "live.yaml") -> RunnerConfig:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def refusal(tmp_path: Path, text: str, name: str = "live.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, name)
    return str(caught.value)


def test_every_key_of_the_specification_exists():
    sections = {f.name: getattr(RunnerConfig(), f.name) for f in dataclasses.fields(RunnerConfig)}
    for name, keys in WANTED.items():
        have = {f.name for f in dataclasses.fields(sections[name])}
        assert set(keys.split()) <= have, name


@pytest.mark.parametrize("environment", config_template.ENVIRONMENTS)
def test_the_written_file_loads_back_to_what_it_shows(tmp_path, environment):
    path = tmp_path / "live.yaml"
    config_template.write(environment, path)
    loaded = config.load(path, decrypt=False)
    assert loaded.system.mode == environment
    assert config.load(path, ["risk.max_position_lots=7"], decrypt=False).risk.max_position_lots == 7
    text = path.read_text()
    for f in dataclasses.fields(RunnerConfig):
        assert f"\n{f.name}:" in text
        for key in dataclasses.fields(getattr(loaded, f.name)):
            assert f"  {key.name}:" in text


def test_init_config_does_not_replace_a_file_unless_forced(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        config_template.write("paper", path)
    assert path.read_text() == "mine"
    config_template.write("paper", path, force=True)
    assert config.load(path).system.mode == "paper"


def test_empty_file_and_no_file_are_the_defaults(tmp_path):
    assert load(tmp_path, "") == load(tmp_path, "# nothing\n") == config.load(None) == RunnerConfig()


def test_the_defaults_are_those_of_the_core():
    assert config.engine_config(RunnerConfig()) == EngineConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("risk:\n  max_dayly_loss: 3\n", ["line 2", "max_dayly_loss", "did you mean risk.max_daily_loss?"]),
        ("sesion: {}\n", ["line 1", "unknown section sesion", "did you mean session?"]),
        ("system:\n  latency_thresholds:\n    gpu: 3\n", ["line 3", "latency_thresholds.gpu", "features"]),
        ("risk:\n\n  max_daily_loss: -3\n", ["line 3", "risk.max_daily_loss", "'-3'", "at least 1"]),
        ("risk: {max_position_lots: 1.5}", ["risk.max_position_lots", "'1.5'", "a whole number"]),
        ("risk: {max_position_lots: yes}", ["risk.max_position_lots", "'yes'"]),
        ("risk: {capital_base: .inf}", ["risk.capital_base", "'.inf'"]),
        ("risk: {capital_base: 1e999}", ["risk.capital_base", "1e999"]),
        ("risk: 3", ["line 1", "risk is a section", "'3'"]),
        ("risk: {capital_base: {a: 1}}", ["risk.capital_base is one value"]),
        ("system: {mode: live}", ["system.mode", "'live'", "paper, sandbox, production"]),
        ("session: {enabled: 1}", ["session.enabled", "true or false"]),
        ("session: {start_time: 25:00}", ["session.start_time", "'25:00'", "HH:MM"]),
        ("session: {start_time: '18:00', end_time: '10:00'}", ["session.end_time", "later than start_time"]),
        ("session: {allowed_weekdays: [1, 7]}", ["session.allowed_weekdays", "at most 6"]),
        ("session: {allowed_weekdays: [1, 1]}", ["session.allowed_weekdays", "without repeats"]),
        ("session: {timezone: Europe/Moskva}", ["session.timezone", "IANA"]),
        ("session: {post_close_minutes: 700}", ["session.post_close_minutes", "must not leave the day"]),
        ("data: {instruments: SBER}", ["data.instruments", "a list"]),
        ("data: {keep_instruments: 3}", ["data.keep_instruments", "rotation_interval_seconds"]),
        ("model: {shadow_alias: prod}", ["model.shadow_alias", "'prod'"]),
        ("model: {backend: tpu}", ["model.backend", "cpu, gpu"]),
        ("data: {universe: bonds}", ["data.universe", "model, shares, futures"]),
        ("data: {depth: 25}", ["data.depth", "20, 30, 40 or 50"]),
        ("dashboard: {enabled: true, host: 0.0.0.0}", ["dashboard.token", "0.0.0.0"]),
        ("connectivity: {backup: {bind: wwan0}}", ["connectivity.backup.bind", "wwan0", "IP address"]),
        (
            "connectivity: {backup: {interface: wwan0}}\nbroker: {transport: sdk}",
            ["connectivity.backup", "wwan0", "native"],
        ),
        ("system: {mode: production}", ["broker.token"]),
        ("notifications: {chat_id: '5'}", ["notifications.chat_id", "both"]),
        ("paper: {from_ns: 5, to_ns: 4}", ["paper.to_ns"]),
        ("a: [", ["line 1", "not valid YAML"]),
        ("risk: {}\nrisk: {}\n", ["line 2", "risk is given twice", "line 1"]),
        ("- 1\n", ["sections with keys"]),
    ],
)  # fmt: skip
def test_a_refusal_names_key_value_line_and_what_is_allowed(tmp_path, text, words):
    message = refusal(tmp_path, text)
    for word in words:
        assert word in message
    assert "\n" not in message


def test_times_and_ids_may_be_written_without_quotes(tmp_path):
    loaded = load(
        tmp_path, "session: {start_time: 09:50, end_time: 18:39:30}\nbroker: {account_id: 2000000001}\n"
    )
    assert loaded.session.start_time == "09:50"
    assert loaded.broker.account_id == "2000000001"
    core = config.engine_config(loaded).session
    assert (core.start_s, core.end_s) == (9 * 3600 + 50 * 60, 18 * 3600 + 39 * 60 + 30)


def test_json_with_tabs_is_accepted(tmp_path):
    text = json.dumps({"paper": {"speed": 20}, "risk": {"max_position_lots": 3}}, indent="\t")
    loaded = load(tmp_path, text, "live.json")
    assert (loaded.paper.speed, loaded.risk.max_position_lots) == (20.0, 3)
    assert "line 3" in refusal(tmp_path, '{\n"risk": {\n"max_position_lots": 0}}', "live.json")


def test_overrides_win_and_say_where_they_came_from(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text("paper: {speed: 2}\n")
    loaded = config.load(path, ["paper.speed=30", "data.instruments=[SBER, GAZP_TQBR]"])
    assert loaded.paper.speed == 30.0
    assert loaded.data.instruments == ("SBER", "GAZP_TQBR")
    with pytest.raises(
        ConfigError, match=r"command line: unknown key paper\.spede; did you mean paper\.speed"
    ):
        config.load(path, ["paper.spede=30"])
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        config.load(path, ["speed"])


def test_secrets_are_decrypted_masked_and_never_shown(tmp_path):
    keys = KeyManager.generate(tmp_path / "fernet.key")
    hidden = keys.encrypt("t.secret")
    text = f"broker: {{token: '{hidden}'}}\nsecurity: {{key_path: '{tmp_path / 'fernet.key'}'}}\n"
    loaded = load(tmp_path, text)
    assert loaded.broker.token == "t.secret"
    assert "t.secret" not in json.dumps(config.to_dict(loaded))
    message = refusal(tmp_path, "broker: {token: [t.secret]}")
    assert "broker.token" in message
    assert "t.secret" not in message


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="init-config"):
        config.load(tmp_path / "none.yaml")


def test_conversion_is_exact_where_floats_are_not():
    core = config.engine_config(
        config.load(None, ["risk.max_risk_per_instrument=0.1", "risk.capital_base=1.1"])
    )
    assert core.risk.max_risk_per_instrument_ppm == 100_000
    assert core.risk.capital_base_nano == 1_100_000_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    (f.name, key.name)
    for f in dataclasses.fields(RunnerConfig)
    for key in dataclasses.fields(getattr(RunnerConfig(), f.name))
]


def test_a_capital_below_a_rouble_is_refused_when_it_is_loaded(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text("risk: {capital_base: 0.0000000001}")
    with pytest.raises(ConfigError, match=r"risk\.capital_base.*1"):
        config.load(path)


@settings(max_examples=150, deadline=None)
@given(where=st.sampled_from(KEYS), value=JSON)
def test_any_value_loads_or_is_one_config_error(tmp_path_factory, where: tuple[str, str], value: Any):
    section, key = where
    path = tmp_path_factory.mktemp("any") / "live.json"
    path.write_text(json.dumps({section: {key: value}}))
    try:
        loaded = config.load(path, decrypt=False)
    except ConfigError as error:
        assert section in str(error)
    else:
        config.engine_config(loaded)
