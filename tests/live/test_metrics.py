"""The Prometheus endpoint, and that the dashboard and the alert rules use only what it serves."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import promql_parser
import pytest
import yaml
from board_state import HOLD, status
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from live.core.holds import Severity
from live.latency import Latencies
from live.metrics import COUNTERS, FAMILIES, GAUGES, HISTOGRAM, serve
from live.verdict import LEVELS
from market.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "docs" / "grafana"
VALUES = {
    ("scalper_verdict", "level"): set(LEVELS),
    ("scalper_holds", "severity"): {severity.name for severity in Severity},
    ("scalper_result_rub", "part"): {"gross", "fees", "net", "unrealised"},
    ("up", "job"): {"scalper"},
}
"""Label values that are a closed list."""


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
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules():
    groups = yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def parsed(expr: str) -> list[promql_parser.Expr]:
    """Every part of an expression. Prometheus' own grammar and types: a rate of an instant vector fails."""
    label_values = re.fullmatch(r"label_values\((.*), *\w+\)", expr)  # Grafana's, not PromQL
    found: list[promql_parser.Expr] = []
    tree = promql_parser.parse(label_values[1] if label_values else expr)
    promql_parser.walk(tree, lambda node: found.append(node) or True)
    return found


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_every_expression_uses_names_labels_and_values_that_exist(where, expr):
    nodes = parsed(expr)
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors
    known = {"job"}
    for one in selectors:
        assert one.name in FAMILIES or one.name == "up"
        labels = {"job", *FAMILIES.get(one.name, ())}
        known |= labels
        for matcher in one.matchers.matchers:
            assert matcher.name in labels, (where, one.name, matcher.name)
            allowed = VALUES.get((one.name, matcher.name), {matcher.value})
            assert matcher.value in allowed, (where, matcher.value)
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known, where
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            assert set(node.modifier.matching.labels) <= known, where


def test_a_rate_is_taken_of_counters_only_and_over_several_scrapes():
    counters = {f"{name}_total" for name in COUNTERS}
    counters |= {f"{HISTOGRAM[0]}_{part}" for part in ("bucket", "sum", "count")}
    interval = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())["global"]["scrape_interval"]
    ranged = [
        (where, node)
        for where, expr in expressions()
        for node in parsed(expr)
        if isinstance(node, promql_parser.MatrixSelector)
    ]
    assert ranged
    for where, node in ranged:
        assert node.vector_selector.name in counters, where
        assert node.range >= 4 * promql_parser.parse_duration(interval), where


def test_what_an_alert_says_uses_labels_that_it_has():
    for rule in rules():
        assert promql_parser.parse_duration(rule.get("for", "1s")).total_seconds() <= 600, rule["alert"]
        have = {
            label
            for node in parsed(rule["expr"])
            if isinstance(node, promql_parser.VectorSelector)
            for label in FAMILIES.get(node.name, ())
        }
        said = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= have, rule["alert"]


def test_promtool_agrees():
    """Prometheus' own tool, where it is installed: the rules are sound, and fire when and only when."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (it comes with Prometheus)")
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=GRAFANA, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


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
    found = rules()
    assert len({r["alert"] for r in found}) == len(found)
    for rule in found:
        assert rule["labels"]["severity"] in ("page", "look"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "what_to_do"}, rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_documentation_lists_every_metric():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for name in [*GAUGES, *(f"{n}_total" for n in COUNTERS), HISTOGRAM[0]]:
        assert f"`{name}`" in text, name
