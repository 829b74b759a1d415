"""The Prometheus endpoint, and that the dashboard and the alert rules use only what it serves."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from board_state import HOLD, status
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from live.latency import Latencies
from live.metrics import COUNTERS, FAMILIES, GAUGES, HISTOGRAM, serve
from live.verdict import LEVELS
from market.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "docs" / "grafana"
EXPRESSION_WORDS = {
    "abs", "and", "by", "histogram_quantile", "ignoring", "increase", "job", "label_values", "le", "max",
    "on", "or", "rate", "sum", "time", "up",
}  # fmt: skip


@pytest.fixture
def scrape():
    """Serves a status and reads it back as a scraper does: {name: {labels: value}}."""
    servers = []

    def run(found, latencies=None):
        servers.append(serve(0, lambda: found, latencies or Latencies()))
        with urllib.request.urlopen(servers[-1].url, timeout=10) as answer:
            text = answer.read().decode()
        samples = {}
        for family in text_string_to_metric_families(text):
            assert family.documentation, family.name
            for sample in family.samples:
                samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return samples

    yield run
    for server in servers:
        server.close()


def measured():
    latencies = Latencies()
    for micros in (50, 300, 900, 61_000, 20_000_000):
        latencies.add("ml", micros)
    return latencies


def test_everything_declared_is_served_with_its_labels(scrape):
    found = scrape(status(holds=[HOLD], drift={"psi": 0.2, "worst": {"ofi": 0.4}, "ok": True}), measured())
    ours = {name: rows for name, rows in found.items() if name.startswith("scalper_")}
    assert set(ours) == set(FAMILIES)
    for name, rows in ours.items():
        for labels in rows:
            assert {key for key, _ in labels} == set(FAMILIES[name]), name
    assert "process_resident_memory_bytes" in found


def test_the_values_are_those_of_the_status(scrape):
    found = scrape(status(holds=[HOLD]), measured())
    assert found["scalper_result_rub"][(("part", "net"),)] == 12.0
    assert found["scalper_position_lots"][(("ticker", "SBER"),)] == 3
    assert found["scalper_position_without_stop"][(("ticker", "SBER"),)] == 0
    assert found["scalper_working_orders"] == {(("ticker", "SBER"),): 1, (("ticker", "GAZP"),): 0}
    assert found["scalper_books_total"][()] == 5_000
    assert found["scalper_refusals_total"][(("reason", "COOLDOWN"),)] == 2
    holds = {dict(labels)["name"]: value for labels, value in found["scalper_hold"].items()}
    assert holds["VOLATILITY"] == 1
    assert holds["CONNECTION"] == 0  # "no", not "no data"
    levels = {dict(labels)["level"]: value for labels, value in found["scalper_verdict"].items()}
    assert levels == {level: float(level == "bad") for level in LEVELS}


def test_a_position_without_a_stop_is_told(scrape):
    position = {**status()["positions"]["SBER"], "stop_ticks": None}
    found = scrape(status(positions={"SBER": position}))
    assert found["scalper_position_without_stop"][(("ticker", "SBER"),)] == 1


def test_before_the_first_status_there_is_nothing_to_say(scrape):
    found = scrape({})
    assert not [name for name in found if name in GAUGES]


@given(st.lists(st.integers(0, 40_000_000), max_size=200))
def test_the_histogram_counts_what_was_added(micros):
    from live.metrics import StatusCollector

    latencies = Latencies()
    for value in micros:
        latencies.add("ml", value)
    [family] = StatusCollector(dict, latencies).collect()
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert list(buckets.values()) == sorted(buckets.values())
    for edge, count in buckets.items():
        # Histograms of an eighth of a doubling: whole doublings are exact, except at the very edge.
        low = sum(1 for v in micros if v < float(edge) * 1e6 * 0.99)
        high = sum(1 for v in micros if v <= float(edge) * 1e6 * 1.01)
        assert low <= count <= high
    if micros:
        assert buckets["+Inf"] == len(micros)


def test_a_port_in_use_is_one_clear_error():
    server = serve(0, dict, Latencies())
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(ConfigError, match=rf"metrics_port {port}"):
        serve(port, dict, Latencies())
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url, timeout=5)


# ---- what is ready for Grafana and Prometheus


def expressions():
    board = json.loads((GRAFANA / "scalper.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$job", "scalper")
    yield "variable", board["templating"]["list"][1]["query"]
    for group in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_every_expression_uses_names_and_labels_that_exist(where, expr):
    bare = re.sub(r'"[^"]*"', '""', expr)
    names = set(re.findall(r"\bscalper_\w+", bare))
    assert names or "up" in bare, where
    assert names <= set(FAMILIES), where
    labels = {label for name in names for label in FAMILIES[name]} | {"job"}
    for block in re.findall(r"\{([^}]*)\}", bare):
        assert {pair.split("=")[0].strip("!~ ") for pair in block.split(",")} <= labels, where
    for block in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", bare):
        assert {name.strip() for name in block.split(",")} <= labels, where
    words = set(re.findall(r"[a-z_]+", re.sub(r"\b\d+[a-z]+\b", "", re.sub(r"scalper_\w+", "", bare))))
    assert words <= EXPRESSION_WORDS | labels, where
    assert bare.count("(") == bare.count(")")
    values = re.findall(r'level="(\w+)"', expr) + re.findall(r'"level", *"(\w+)"', expr)
    assert set(values) <= set(LEVELS)


def test_a_rate_is_taken_of_counters_only():
    counters = {f"{name}_total" for name in COUNTERS}
    counters |= {f"{HISTOGRAM[0]}_{part}" for part in ("bucket", "sum", "count")}
    for where, expr in expressions():
        assert set(re.findall(r"(?:rate|increase)\((\w+)", expr)) <= counters, where


def test_the_dashboard_file_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("made", ROOT / "tools" / "grafana_dashboard.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (GRAFANA / "scalper.json").read_text() == made.text(), "run python tools/grafana_dashboard.py"
    panels = made.dashboard()["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x, place["y"]) for x in range(place["x"], place["x"] + place["w"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_how_urgent_it_is_and_what_to_do():
    rules = [r for g in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"] for r in g["rules"]]
    assert len({r["alert"] for r in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "look"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "what_to_do"}, rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_documentation_lists_every_metric():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for name in [*GAUGES, *(f"{n}_total" for n in COUNTERS), HISTOGRAM[0]]:
        assert f"`{name}`" in text, name
