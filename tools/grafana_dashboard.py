"""Writes docs/grafana/scalper.json: `python tools/grafana_dashboard.py`. A test holds the file against this.

Panels are declared in rows below; Grafana 10 or newer reads the result (Dashboards, New, Import).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "docs" / "grafana" / "scalper.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
PICK = '{job="$job"}'
GREEN, AMBER, RED, BLUE = "green", "orange", "red", "blue"


def target(expr: str, legend: str, n: int) -> dict[str, Any]:
    return {"datasource": SOURCE, "expr": expr, "legendFormat": legend, "refId": chr(ord("A") + n)}


def panel(
    kind: str, title: str, queries: list[tuple[str, str]], *, width: int, height: int = 7,
    unit: str = "short", steps: tuple[tuple[str, float | None], ...] = ((GREEN, None),),
    mappings: list[dict[str, Any]] | None = None, options: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}
    return {
        "type": kind, "title": title, "datasource": SOURCE,
        "targets": [target(expr, legend, n) for n, (expr, legend) in enumerate(queries)],
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": thresholds, "mappings": mappings or []}, "overrides": []
        },
        "options": options or {}, "gridPos": {"w": width, "h": height, "x": 0, "y": 0},
    }  # fmt: skip


def words(**texts: tuple[str, str]) -> list[dict[str, Any]]:
    """Numbers to words: ``words(_1=("UP", "green"))``."""
    shown = {name[1:]: {"text": text, "color": color} for name, (text, color) in texts.items()}
    return [{"type": "value", "options": shown}]


VERDICT = words(_0=("OK", GREEN), _1=("IDLE", BLUE), _2=("LOOK", AMBER), _3=("BAD", RED))
UP = words(_0=("DOWN", RED), _1=("UP", GREEN))
COLOURED = {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
PLAIN = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}

ROWS: list[list[dict[str, Any]]] = [
    [
        panel("stat", "Verdict", [(
            'scalper_verdict{job="$job",level="idle"} * 1 + ignoring(level) scalper_verdict{job="$job",'
            'level="watch"} * 2 + ignoring(level) scalper_verdict{job="$job",level="bad"} * 3', "")],
            width=4, height=5, mappings=VERDICT, options=COLOURED),
        panel("stat", "Connection", [(f"scalper_connection_up{PICK}", "{{channel}}")], width=3, height=5,
              mappings=UP, options=COLOURED),
        panel("stat", "Net of the session", [('scalper_result_rub{job="$job",part="net"}', "")], width=4,
              height=5, unit="currencyRUB", steps=((RED, None), (GREEN, 0.0)), options=PLAIN),
        panel("stat", "Oldest data", [(f"max(scalper_book_age_seconds{PICK})", "")], width=3, height=5,
              unit="s", steps=((GREEN, None), (AMBER, 2.0), (RED, 5.0)), options=COLOURED),
        panel("stat", "Holds in force", [(f"sum(scalper_holds{PICK})", "")], width=3, height=5,
              steps=((GREEN, None), (AMBER, 1.0)), options=COLOURED),
        panel("table", "Who is trading what", [(f"scalper_info{PICK}", "")], width=7, height=5,
              options={"showHeader": True}),
    ],
    [
        panel("timeseries", "Result, RUB", [(f"scalper_result_rub{PICK}", "{{part}}")], width=12,
              unit="currencyRUB"),
        panel("timeseries", "Realised today against the limit, RUB",
              [(f"scalper_day_realised_rub{PICK}", "realised"),
               (f"-scalper_day_loss_limit_rub{PICK}", "limit")],
              width=12, unit="currencyRUB"),
    ],
    [
        panel("timeseries", "Positions, lots", [(f"scalper_position_lots{PICK}", "{{ticker}}")], width=8),
        panel("timeseries", "Working orders", [(f"scalper_working_orders{PICK}", "{{ticker}}")], width=8),
        panel("state-timeline", "Holds", [(f"max by (name) (scalper_hold{PICK}) == 1", "{{name}}")], width=8),
    ],
    [
        panel("timeseries", "Per minute", [
            (f"60 * rate(scalper_{name}_total{PICK}[1m])", name) for name in ("signals", "orders", "fills")
        ], width=8),
        panel("timeseries", "Refusals per minute", [
            (f"60 * rate(scalper_refusals_total{PICK}[1m])", "{{reason}}")], width=8),
        panel("timeseries", "Books per second", [(f"rate(scalper_books_total{PICK}[1m])", "books"),
              (f"rate(scalper_events_conflated_total{PICK}[1m])", "conflated"),
              (f"rate(scalper_events_dropped_total{PICK}[1m])", "dropped")], width=8),
    ],
    [
        panel("timeseries", "99 % of a stage under", [(
            f"histogram_quantile(0.99, sum by (stage, le) (rate(scalper_stage_seconds_bucket{PICK}[1m])))",
            "{{stage}}")], width=8, unit="s"),
        panel("timeseries", "Mean time of a stage", [(
            f"rate(scalper_stage_seconds_sum{PICK}[1m]) / rate(scalper_stage_seconds_count{PICK}[1m])",
            "{{stage}}")], width=8, unit="s"),
        panel("timeseries", "Age of the data", [(f"scalper_book_age_seconds{PICK}", "{{ticker}}")], width=8,
              unit="s"),
    ],
    [
        panel("timeseries", "Spread, bps", [(f"scalper_spread_bps{PICK}", "{{ticker}}")], width=8),
        panel("timeseries", "Machine, %", [(f"scalper_resource_percent{PICK}", "{{resource}}"),
              (f"100 * scalper_simplified_mode{PICK}", "simplified mode")], width=8, unit="percent"),
        panel("timeseries", "Drift", [(f"scalper_drift{PICK}", "{{metric}}")], width=8),
    ],
    [
        panel("timeseries", "Queue", [(f"scalper_queue_length{PICK}", "waiting")], width=6),
        panel("timeseries", "Reconnects in an hour", [
            (f"increase(scalper_reconnects_total{PICK}[1h])", "")], width=6),
        panel("timeseries", "Notices", [
            (f"scalper_notifications_waiting{PICK}", "waiting"),
            (f"increase(scalper_notifications_sent_total{PICK}[1h])", "sent in an hour"),
            (f"increase(scalper_notifications_dropped_total{PICK}[1h])", "lost in an hour")], width=6),
        panel("stat", "Storage and model", [
            (f"scalper_storage_degraded{PICK}", "database degraded"),
            (f"scalper_storage_lost_total{PICK}", "records lost"),
            (f"(scalper_model_valid_until_seconds{PICK} - scalper_market_time_seconds{PICK}) / 86400",
             "days until the model ends")], width=6, options=PLAIN),
    ],
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    panels, y = [], 0
    for row in ROWS:
        x = 0
        for one in row:
            place = {**one["gridPos"], "x": x, "y": y}
            panels.append({"id": len(panels) + 1, **one, "gridPos": place})
            x += place["w"]
        y += max(one["gridPos"]["h"] for one in row)
    return {
        "title": "Scalper", "uid": "scalper", "schemaVersion": 39, "editable": True, "refresh": "5s",
        "tags": ["trading"], "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "panels": panels,
        "templating": {"list": [
            {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
            {"name": "job", "label": "Job", "type": "query", "datasource": SOURCE,
             "query": "label_values(scalper_info, job)", "refresh": 1},
        ]},
    }  # fmt: skip


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET.name}")
