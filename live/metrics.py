"""Prometheus: everything the status says, as numbers, on a port of the loopback.

A scrape reads the status that was made last (once a second) and the latency histograms; the hot path knows
nothing of it. ``FAMILIES`` is the closed list of names: the Grafana dashboard and the alert rules in
``docs/grafana`` may use no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from live.core.holds import KINDS, Severity
from live.latency import Latencies
from live.verdict import LEVELS, judge
from market.errors import ConfigError
from market.types import NANO, SECOND_NS

HOST = "127.0.0.1"
MICROS = 1_000_000
FIRST_EDGE_US, LAST_EDGE_US = 8, 8_388_608
"""Edges of the stage histogram: every doubling from 8 us to 8.4 s."""

WHO = ("session", "mode", "alias", "version", "manifest", "watermark")
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "scalper_info": ("1; who is trading what", WHO),
    "scalper_verdict": ("1 for the level in force: ok, idle, watch or bad", ("level",)),
    "scalper_status_time_seconds": ("when the status was made, Unix time", ()),
    "scalper_result_rub": ("result of the session; part: gross, fees, net, unrealised", ("part",)),
    "scalper_day_realised_rub": ("realised today, net of fees", ()),
    "scalper_day_loss_limit_rub": ("loss that stops trading for the day", ()),
    "scalper_position_lots": ("signed position", ("ticker",)),
    "scalper_position_without_stop": ("1 where an open position has no stop", ("ticker",)),
    "scalper_working_orders": ("orders that work at the broker", ("ticker",)),
    "scalper_hold": ("1 while a hold is in force", ("name", "scope", "severity")),
    "scalper_holds": ("holds in force by severity", ("severity",)),
    "scalper_connection_up": ("1 while both streams live", ("channel",)),
    "scalper_book_age_seconds": ("age of the newest book, wall time", ("ticker",)),
    "scalper_book_trusted": ("1 where the book is believed", ("ticker",)),
    "scalper_spread_bps": ("spread of the newest book", ("ticker",)),
    "scalper_clock_skew_seconds": ("the broker's clock against ours", ()),
    "scalper_queue_length": ("events waiting for the engine", ()),
    "scalper_storage_degraded": ("1 while records go to the fallback file", ()),
    "scalper_notifications_waiting": ("notices that wait for Telegram", ()),
    "scalper_model_valid_until_seconds": ("end of the bundle's validity, market time as Unix time", ()),
    "scalper_market_time_seconds": ("market time as Unix time", ()),
    "scalper_simplified_mode": ("1 while resources are short", ()),
    "scalper_resource_percent": ("use of the machine", ("resource",)),
    "scalper_drift": ("the last value of each drift metric", ("metric",)),
}  # fmt: skip
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "scalper_books": ("books handled", ()),
    "scalper_trades": ("anonymous trades handled", ()),
    "scalper_signals": ("signals", ()),
    "scalper_orders": ("orders sent", ()),
    "scalper_fills": ("deals of ours", ()),
    "scalper_refusals": ("signals that became no order", ("reason",)),
    "scalper_reconnects": ("streams made again", ()),
    "scalper_events_conflated": ("books skipped because a newer one waited", ()),
    "scalper_events_dropped": ("market events that found the queue full", ()),
    "scalper_storage_lost": ("records that SQLite or its merge refused, or that no file took", ()),
    "scalper_notifications_sent": ("notices that Telegram took", ()),
    "scalper_notifications_dropped": ("notices that were lost", ()),
}
HISTOGRAM = ("scalper_stage_seconds", "time per stage", ("stage",))
FAMILIES: dict[str, tuple[str, ...]] = {
    **{name: labels for name, (_, labels) in GAUGES.items()},
    **{f"{name}_total": labels for name, (_, labels) in COUNTERS.items()},
    **{f"{HISTOGRAM[0]}_{part}": HISTOGRAM[2] for part in ("sum", "count")},
    f"{HISTOGRAM[0]}_bucket": (*HISTOGRAM[2], "le"),
}
"""Every name that a scrape may show, with its labels (and those of ``prometheus_client``'s process
collector)."""

Point = tuple[str, tuple[str, ...], float]


class StatusCollector(Collector):
    """Turns the status into metrics at each scrape."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], latencies: Latencies) -> None:
        self._status, self._latencies = status, latencies

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the runner when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        if status:
            yield from _families(GaugeMetricFamily, GAUGES, _gauges(status))
            yield from _families(CounterMetricFamily, COUNTERS, _counters(status))
        yield self._histogram()

    def _histogram(self) -> HistogramMetricFamily:
        name, about, labels = HISTOGRAM
        family = HistogramMetricFamily(name, about, labels=labels)
        for stage, histogram in sorted(self._latencies.stages().items()):
            edges = histogram.below()
            inside = [(us, n) for us, n in edges if FIRST_EDGE_US <= us <= LAST_EDGE_US]
            total = edges[-1][1]  # not ``n``: the two could differ if a book comes in between
            buckets = [(str(us / MICROS), n) for us, n in inside]
            family.add_metric([stage], [*buckets, ("+Inf", total)], histogram.sum_us / MICROS)
        return family


def _families(
    kind: Any, known: Mapping[str, tuple[str, tuple[str, ...]]], points: Iterable[Point]
) -> Iterator[Metric]:
    made: dict[str, Any] = {}
    for name, labels, value in points:
        if name not in made:
            about, names = known[name]
            made[name] = kind(name, about, labels=names)
        made[name].add_metric(labels, value)
    yield from made.values()


def _gauges(s: Mapping[str, Any]) -> Iterator[Point]:
    model = s["model"]
    who = (s["session_id"], s["mode"], model["alias"], str(model["version"]), model["manifest_sha256"][:12],
           s["watermark"])  # fmt: skip
    yield "scalper_info", who, 1
    level = judge({"alive": True, "halt_flag": None, "age_s": 0.0, **s}).level
    for grade in LEVELS:
        yield "scalper_verdict", (grade,), float(grade == level)
    yield "scalper_status_time_seconds", (), s["wall_ns"] / SECOND_NS
    yield "scalper_market_time_seconds", (), s["market_ns"] / SECOND_NS
    yield "scalper_model_valid_until_seconds", (), s["valid_until_ns"] / SECOND_NS
    open_nano = sum(p["unrealised_nano"] for p in s["positions"].values())
    parts = {"gross": s["gross_nano"], "fees": s["fees_nano"], "net": s["net_nano"], "unrealised": open_nano}
    for part, nano in parts.items():
        yield "scalper_result_rub", (part,), nano / NANO
    yield "scalper_day_realised_rub", (), s["day"]["realised_nano"] / NANO
    yield "scalper_day_loss_limit_rub", (), s["day"]["loss_limit_nano"] / NANO
    yield from _market(s)
    yield from _holds(s)
    link = s["connection"]
    yield "scalper_connection_up", (link["channel"],), float(link["up"])
    if link["clock_skew_ns"] is not None:
        yield "scalper_clock_skew_seconds", (), link["clock_skew_ns"] / SECOND_NS
    yield "scalper_queue_length", (), s["queue"]["length"]
    yield "scalper_storage_degraded", (), float(bool(s["storage"]["degraded"]))
    yield "scalper_notifications_waiting", (), s["notifier"]["waiting"]
    resources = s.get("resources") or {}
    yield "scalper_simplified_mode", (), float(bool(resources.get("simplified")))
    for name, value in resources.items():
        if name.endswith("_pct") and value is not None:
            yield "scalper_resource_percent", (name.removesuffix("_pct"),), float(value)
    for name, value in _numbers(s.get("drift") or {}):
        yield "scalper_drift", (name,), value


def _market(s: Mapping[str, Any]) -> Iterator[Point]:
    working: dict[str, int] = {}
    for order in s["working"]:
        working[order["ticker"]] = working.get(order["ticker"], 0) + 1
    for ticker, facts in s["instruments"].items():
        position = s["positions"].get(ticker)
        yield "scalper_position_lots", (ticker,), position["lots"] if position else 0
        naked = bool(position) and position["stop_ticks"] is None
        yield "scalper_position_without_stop", (ticker,), float(naked)
        yield "scalper_working_orders", (ticker,), working.get(ticker, 0)
        yield "scalper_book_trusted", (ticker,), float(facts["trusted"])
        if facts["book_age_s"] is not None:
            yield "scalper_book_age_seconds", (ticker,), facts["book_age_s"]
        if facts["spread_millibps"] is not None:
            yield "scalper_spread_bps", (ticker,), facts["spread_millibps"] / 1000


def _holds(s: Mapping[str, Any]) -> Iterator[Point]:
    by_severity = dict.fromkeys((severity.name for severity in Severity), 0)
    for hold in s["holds"]:
        by_severity[hold["severity"]] += 1
        yield "scalper_hold", (hold["name"], hold["scope"], hold["severity"]), 1
    # Names that are not in force are told too: an alert must be able to tell "no" from "no data".
    present = {hold["name"] for hold in s["holds"]}
    for name, kind in KINDS.items():
        if name not in present:
            yield "scalper_hold", (name, "*", kind.severity.name), 0
    for name, n in by_severity.items():
        yield "scalper_holds", (name,), n


def _numbers(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
        elif isinstance(value, Mapping):
            yield from _numbers(value)


def _counters(s: Mapping[str, Any]) -> Iterator[Point]:
    for name in ("books", "trades", "signals", "orders", "fills"):
        yield f"scalper_{name}", (), s["counts"].get(name, 0)
    for reason, n in s["refusals"].items():
        yield "scalper_refusals", (reason,), n
    yield "scalper_reconnects", (), s["connection"]["reconnects"]
    yield "scalper_events_conflated", (), s["queue"]["conflated"]
    yield "scalper_events_dropped", (), s["queue"]["dropped"]
    yield "scalper_storage_lost", (), s["storage"]["lost"]
    yield "scalper_notifications_sent", (), s["notifier"]["sent"]
    yield "scalper_notifications_dropped", (), s["notifier"]["dropped"]


class MetricsServer:
    """``/metrics`` on the loopback; ``close`` ends it."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server, self._thread = server, thread
        self.url = f"http://{HOST}:{server.server_port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(port: int, status: Callable[[], Mapping[str, Any]], latencies: Latencies) -> MetricsServer:
    """Starts the endpoint; ``port`` 0 takes a free one. Raises ConfigError where it cannot listen."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status, latencies))
    ProcessCollector(registry=registry)
    try:
        return MetricsServer(*start_http_server(port, addr=HOST, registry=registry))
    except OSError as error:
        raise ConfigError(
            f"monitoring.metrics_port {port} cannot be used: {error.strerror}; choose another, or 0 for none"
        ) from None
