"""The backtest as one HTML page that opens anywhere: no scripts, no outside files, pictures inline.

The order is what a person should know first: is there an edge, net of everything, and how sure is that. A
page about simulated data says so on every screen of it.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EDGE, INCONCLUSIVE, NO_EDGE = "edge", "inconclusive", "no edge"


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page. Money in roubles, times in nanoseconds UTC.

    ``summary``: ``evaluate.trade_summary``. ``equity``: (time, net profit so far) after each trade.
    ``reliability``: class name to the points of ``evaluate.reliability``. ``members``, ``quantisation``,
    ``instruments``, ``fill_models``, ``assumptions``, ``rivals``: rows of tables, all with the same keys.
    ``sensitivity``: rows ``{"fee, bp a side", ...}``.
    """

    watermark: str
    title: str
    period: tuple[int, int]
    summary: dict[str, Any]
    gross_rub: float
    fees_rub: float
    net_rub: float
    equity: Sequence[tuple[int, float]]
    fee_bps: float
    horizon_s: float
    latency_ms: float
    reliability: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    members: list[dict[str, Any]] = field(default_factory=list)
    quantisation: list[dict[str, Any]] = field(default_factory=list)
    instruments: list[dict[str, Any]] = field(default_factory=list)
    fill_models: list[dict[str, Any]] = field(default_factory=list)
    assumptions: list[dict[str, Any]] = field(default_factory=list)
    sensitivity: list[dict[str, Any]] = field(default_factory=list)
    rivals: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict(summary: dict[str, Any]) -> str:
    """``edge`` when the whole interval of net bps per trade is above zero, ``no edge`` when none of it is or
    nothing was traded, else ``inconclusive``."""
    if not summary.get("trades"):
        return NO_EDGE
    low, high = summary["net_bps_ci"]
    return EDGE if low > 0 else NO_EDGE if high <= 0 else INCONCLUSIVE


def render(data: ReportData) -> str:
    """The page as text."""
    s = data.summary
    said = verdict(s)
    parts = [
        _head(data),
        f'<p class="verdict {said.replace(" ", "-")}">{said}</p>',
        f"<p>{html.escape(_sentence(data, said))}</p>",
        _facts(data),
        _figure("Profit net of fees, roubles", _equity_png(data)) if data.equity else "",
        _table("By instrument", data.instruments),
        _table("Three ways in which resting orders may fill", data.fill_models),
        _table("What other assumptions would leave", data.assumptions),
        _table("What other commissions would leave (the same trades)", data.sensitivity),
        _table("Trivial rivals", data.rivals),
        _table("Members on block calibrate", data.members),
        _figure("Calibration: forecast and what happened", _reliability_png(data))
        if data.reliability
        else "",
        _table("Exported against trained models", data.quantisation),
        "<h2>Read with care</h2><ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in data.notes) + "</ul>",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def write(data: ReportData, path: Path) -> None:
    """The page to ``path`` by way of a temporary name."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(render(data), encoding="utf-8")
    draft.replace(path)


def fee_sensitivity(
    gross_bps: Any, net_bps: Any, fee_bps: float, fees_bps: Iterable[float]
) -> list[dict[str, Any]]:
    """The same round trips at other commissions: ``net + 2 * (fee paid - other fee)`` per trade."""
    net = np.asarray(net_bps, np.float64)
    rows = []
    for other in fees_bps:
        at = net + 2.0 * (fee_bps - other)
        rows.append(
            {
                "fee, bp a side": other,
                "net bp per trade": float(at.mean()) if len(at) else None,
                "net bp in all": float(at.sum()) if len(at) else 0.0,
                "winning trades": float((at > 0).mean()) if len(at) else None,
            }
        )
    return rows


def _sentence(data: ReportData, said: str) -> str:
    s = data.summary
    if not s.get("trades"):
        return (
            "No trade: on the blocks before this one no threshold had a lower bound above zero after "
            "spread and commission. Not to trade is then the right decision, and what the runner would do."
        )
    low, high = s["net_bps_ci"]
    text = (
        f"{s['trades']} round trips, {s['net_bps_per_trade']:+.2f} bp each after spread and commission, "
        f"95 % interval [{low:+.2f}, {high:+.2f}]."
    )
    return (
        text
        + {
            EDGE: " The whole interval is above zero.",
            INCONCLUSIVE: " The interval holds zero: more data is needed before this may be called an edge.",
            NO_EDGE: " The interval lies at or below zero.",
        }[said]
    )


def _head(data: ReportData) -> str:
    simulated = data.watermark == "SIMULATED"
    banner = (
        '<div class="mark">SIMULATED: this market was made by a program. A profit on it proves that the '
        "machinery works, and nothing about any real market.</div>"
        if simulated
        else '<div class="mark real">REAL recording, historical; not a forecast.</div>'
    )
    tiles = (
        '<div class="tiles" aria-hidden="true">' + "<span>SIMULATED</span>" * 60 + "</div>"
        if simulated
        else ""
    )
    start, end = (np.datetime64(ns, "ns").astype("datetime64[s]") for ns in data.period)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(data.title)}</title><style>{_STYLE}</style></head><body>{tiles}{banner}<main>"
        f"<h1>{html.escape(data.title)}</h1><p>Block <em>score</em>, {start} to {end} UTC, "
        f"which no learner, weight or threshold has seen. Net of {data.fee_bps:g} bp a side and the spread; "
        f"{data.latency_ms:g} ms from decision to exchange; horizon {data.horizon_s:g} s.</p>"
    )


def _facts(data: ReportData) -> str:
    s = data.summary
    share = (
        f"{data.fees_rub / data.gross_rub:.0%} of gross" if data.gross_rub > 0 else "gross is not positive"
    )
    rows: list[tuple[str, str]] = [
        ("Net result", f"{data.net_rub:+,.2f} RUB"),
        ("Gross result (before commission)", f"{data.gross_rub:+,.2f} RUB"),
        ("Commission paid", f"{data.fees_rub:,.2f} RUB ({share})"),
    ]
    if s.get("trades"):
        low, high = s["precision_ci"]
        need = s["break_even_precision"]
        rows += [
            ("Right direction", f"{s['precision']:.1%}, 95 % interval [{low:.1%}, {high:.1%}]"),
            (
                "... needed to break even",
                "-" if need is None else f"{need:.1%}" if need <= 1 else "impossible (over 100 %)",
            ),
            ("Cost of a round trip", f"{s['cost_bps_per_trade']:.2f} bp"),
            ("Profit factor", "-" if s["profit_factor"] is None else f"{s['profit_factor']:.2f}"),
            ("Largest drawdown", f"{s['max_drawdown_bps']:.1f} bp"),
        ]
    return (
        "<table class='facts'>"
        + "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
        + "</table>"
    )


def _table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    keys = list(rows[0])
    head = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(key))}</td>" for key in keys) + "</tr>" for row in rows
    )
    return f"<h2>{html.escape(title)}</h2><div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def _figure(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def _png(draw: Any, watermark: str, size: tuple[float, float]) -> bytes:
    # The object interface with the Agg canvas: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    if watermark == "SIMULATED":
        axes.text(
            0.5,
            0.5,
            "SIMULATED",
            transform=axes.transAxes,
            ha="center",
            va="center",
            rotation=20,
            fontsize=36,
            alpha=0.12,
        )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _equity_png(data: ReportData) -> bytes:
    def draw(axes: Any) -> None:
        start = data.period[0]
        minutes = [0.0, *((ns - start) / 6e10 for ns, _ in data.equity)]
        axes.step(minutes, [0.0, *(value for _, value in data.equity)], where="post", lw=1.5)
        axes.axhline(0.0, color="black", lw=0.8)
        axes.set_xlabel("minutes of market time")
        axes.set_ylabel("RUB, net")

    return _png(draw, data.watermark, (8.5, 3.2))


def _reliability_png(data: ReportData) -> bytes:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="black", lw=0.8)
        for name, points in data.reliability.items():
            axes.plot(
                [p["forecast"] for p in points],
                [p["observed"] for p in points],
                marker="o",
                ms=3,
                lw=1,
                label=name,
            )
        axes.set_xlabel("forecast probability")
        axes.set_ylabel("share that happened")
        axes.legend()

    return _png(draw, data.watermark, (5.0, 4.2))


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#1b1f24;background:#fff}
main{max-width:60rem;margin:0 auto;padding:1rem;position:relative}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #d8dee4}
th:first-child,td:first-child{text-align:left}
.facts th{text-align:left;font-weight:normal;color:#57606a}img{max-width:100%}
.verdict{font-size:1.6rem;font-weight:bold;margin:.5rem 0}
.edge{color:#116329}.inconclusive{color:#7d4e00}.no-edge{color:#a40e26}
.mark{position:sticky;top:0;z-index:2;background:#a40e26;color:#fff;padding:.4rem 1rem;font-weight:bold}
.mark.real{background:#57606a;font-weight:normal}
.tiles{position:fixed;inset:0;display:flex;flex-wrap:wrap;gap:4rem;overflow:hidden}
.tiles{pointer-events:none;opacity:.06;z-index:1}
.tiles span{font-size:2rem;font-weight:bold;transform:rotate(-20deg)}
"""
