"""The day on one page: HTML with hand-written SVG, no script, no network, for the phone and for paper."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from live import svg
from market.types import NANO, SECOND_NS

_STYLE = """
:root { color-scheme: light dark; --a:#0a7d4f; --b:#2f62c9; --c:#c2461d; --d:#777; }
@media (prefers-color-scheme: dark) { :root { --a:#3ddc97; --b:#7aa2ff; --c:#ff8a5c; --d:#aaa; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.4rem auto; max-width: 960px; padding: 0 1rem;
  position: relative; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .18rem .7rem; text-align: right; } th:first-child, td:first-child { text-align: left; }
tr + tr { border-top: 1px solid #8884; } .scroll { overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem;
  margin: 1rem 0; }
.tile { border: 1px solid #8885; border-radius: 8px; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tile span, .note, .none { opacity: .75; font-size: .88rem; }
.good { color: var(--a); } .bad { color: var(--c); }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui; fill: currentColor; }
@media (max-width: 600px) { svg text { font-size: 19px; } }
.grid { stroke: currentColor; opacity: .14; } .zero { stroke: currentColor; opacity: .55; }
.warn { border-left: 4px solid var(--c); padding: .4rem .8rem; background: #c6331a18; }
.mark { position: fixed; inset: 0; display: grid; place-items: center; pointer-events: none; z-index: 9;
  font: 800 clamp(3rem, 15vw, 9rem) system-ui; letter-spacing: .1em; color: #c2461d; opacity: .07;
  transform: rotate(-24deg); }
code { overflow-wrap: anywhere; }
"""


def render(sheet: Mapping[str, Any]) -> str:
    """The page of ``live.tearsheet.collect``'s figures."""
    zone = ZoneInfo(sheet["timezone"])
    simulated = sheet["watermark"] == "SIMULATED"
    title = f"Trading day {sheet['day']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        '<div class="mark" aria-hidden="true">SIMULATED</div>' if simulated else "",
        f"<h1>{html.escape(title)}</h1>",
        '<p class="warn"><b>SIMULATED</b> data: not evidence of an edge.</p>' if simulated else "",
        *(f'<p class="warn">{html.escape(note)}</p>' for note in sheet["notes"]),
        _tiles(sheet),
        "<h2>Equity, roubles: gross and net of fees</h2>",
        _equity(sheet, zone),
        "<h2>Drawdown of the net result, roubles</h2>",
        _drawdown(sheet, zone),
        "<h2>Fills against the mid</h2>",
        _markouts(sheet),
        "<h2>Slippage against the plan</h2>",
        _slippage(sheet),
        "<h2>Round trips against break-even</h2>",
        _trips(sheet),
        "<h2>Holds</h2>",
        _holds(sheet, zone),
        "<h2>Refusals</h2>",
        _table(("reason", "signals"), [(k, f"{v:,}") for k, v in sheet["refusals"].items()]),
        "<h2>Latency</h2>",
        _latency(sheet),
        "<h2>Drift</h2>",
        drift_part(sheet["drift"], zone),
        "<h2>Where it comes from</h2>",
        _sessions(sheet, zone),
        "</body></html>\n",
    ]
    return "".join(parts)


def _rub(nano: float, *, signed: bool = True) -> str:
    return f"{nano / NANO:+,.2f}" if signed else f"{nano / NANO:,.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _tone(value: float) -> str:
    return "good" if value > 0 else "bad" if value < 0 else ""


def _tiles(sheet: Mapping[str, Any]) -> str:
    last = sheet["equity"][-1] if sheet["equity"] else {"gross_nano": 0, "fees_nano": 0, "net_nano": 0}
    trips, counts = sheet["trips"], sheet["counts"]
    net_pct = 100 * last["net_nano"] / NANO / sheet["capital"]
    tiles = [
        ("net, RUB", _rub(last["net_nano"]), f"{net_pct:+.3f} % of the capital", last["net_nano"]),
        ("gross, RUB", _rub(last["gross_nano"]), "open positions marked at the touch", last["gross_nano"]),
        ("fees, RUB", _rub(last["fees_nano"], signed=False), f"{sheet['result']['lots']:,} lots", 0),
        ("against the mid, RUB", _rub(-sheet["spread_paid_nano"]), "spread and impact of the fills",
         -sheet["spread_paid_nano"]),
        ("round trips won", f"{trips['won']} of {trips['count']}",
         f"{_percent(trips['hit_ratio'])}, break-even {_percent(trips['break_even'])}",
         (trips["hit_ratio"] or 0) - (trips["break_even"] or 0) if trips["break_even"] is not None else 0),
        ("orders / fills", f"{counts['orders']:,} / {counts['fills']:,}",
         f"{counts['signals']:,} signals, a repeated refusal once", 0),
    ]  # fmt: skip
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><span>{name}</span><b class="{_tone(good)}">{value}</b><span>{about}</span></div>'
        for name, value, about, good in tiles
    ) + "</div>"  # fmt: skip


def _equity(sheet: Mapping[str, Any], zone: ZoneInfo) -> str:
    rows = sheet["equity"]
    curves = {
        "net": [(r["now_ns"], r["net_nano"] / NANO) for r in rows],
        "gross": [(r["now_ns"], r["gross_nano"] / NANO) for r in rows],
    }
    return svg.lines(curves, zone=zone)


def _drawdown(sheet: Mapping[str, Any], zone: ZoneInfo) -> str:
    top, curve = 0, []
    for row in sheet["equity"]:
        top = max(top, row["net_nano"])
        curve.append((row["now_ns"], (row["net_nano"] - top) / NANO))
    worst = min((value for _, value in curve), default=0.0)
    return svg.lines({"drawdown": curve}, zone=zone, height=150) + (
        f'<p class="note">Largest: {worst:,.2f} RUB.</p>'
    )


def _markouts(sheet: Mapping[str, Any]) -> str:
    found = sheet["markouts"]
    rows = []
    for kind, marks in found.items():
        cells = [
            "–" if m["bps"] is None else f"{m['bps']:+.2f} <small>({m['fills']})</small>"
            for m in marks.values()
        ]
        rows.append((kind, *cells))
    names = ("at the fill", "after 1 s", "after 5 s", "after 30 s")
    chart = svg.bars(
        {name: m["bps"] for name, m in zip(names, found["entries"].values(), strict=True)}, unit=""
    )
    return (
        '<p class="note">Basis points of the price paid, mean over lots, positive in our favour; in brackets '
        "how many fills. An entry that is right gets better with time; one that is picked off gets worse.</p>"
        + _table(("mid against the price", *names), rows, raw=True)
        + f'<p class="note">Entries</p>{chart}'
    )


def _slippage(sheet: Mapping[str, Any]) -> str:
    found = sheet["slippage"]
    if not found["lots"]:
        return '<p class="none">no entry of this day has a plan</p>'
    rows = [("all entries", f"{found['lots']:,}", f"{found['ticks_per_lot']:+.3f}", _rub(found["nano"]))]
    rows += [(name, "", f"{ticks:+.3f}", "") for name, ticks in sorted(found["by_order_type"].items())]
    return _table(("positive is against us", "lots", "ticks a lot", "RUB"), rows)


def _trips(sheet: Mapping[str, Any]) -> str:
    trips = sheet["trips"]
    if not trips["count"]:
        return '<p class="none">none</p>'
    held = trips["mean_holding_s"]
    rows = [
        ("won", f"{trips['won']} of {trips['count']}"),
        ("hit ratio", _percent(trips["hit_ratio"])),
        ("break-even hit ratio at these means", _percent(trips["break_even"])),
        ("mean win, net RUB", _rub(trips["mean_win_nano"])),
        ("mean loss, net RUB", _rub(-trips["mean_loss_nano"])),
        ("mean holding time", f"{held:.1f} s"),
        *((f"left by {name}", f"{n}") for name, n in sorted(trips["exits"].items())),
    ]
    return _table(("", ""), rows)


def _holds(sheet: Mapping[str, Any], zone: ZoneInfo) -> str:
    if not sheet["equity"]:
        return '<p class="none">none</p>'
    x0, x1 = sheet["equity"][0]["now_ns"], sheet["equity"][-1]["now_ns"]
    rows: dict[str, list[tuple[float, float, str]]] = {}
    for hold in sheet["holds"]:
        name = hold["name"] + ("" if hold["scope"] == "*" else f" {hold['scope']}")
        end = hold["lifted_ns"] or x1
        words = f"{hold['severity']}: {hold['reason']} ({(end - hold['raised_ns']) / SECOND_NS:.0f} s)"
        rows.setdefault(name, []).append((hold["raised_ns"], end, words))
    return svg.spans(rows, x0, x1, zone=zone)


def _latency(sheet: Mapping[str, Any]) -> str:
    rows = [
        (stage, f"{h['n']:,}", *(f"{h[name] / 1000:,.2f}" for name in ("p50_us", "p99_us", "max_us")))
        for stage, h in sorted(sheet["latency"].items())
    ]
    return _table(("stage, ms", "n", "p50", "p99", "worst"), rows)


def drift_part(looks: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> str:
    """How many columns drifted, look by look, and each instrument's last look."""
    rows = [row for row in looks if "ticker" in row]
    if not rows:
        return (
            '<p class="none">the drift monitor said nothing (no reference in the bundle, or a short day)</p>'
        )
    by_ticker: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_ticker.setdefault(str(row["ticker"]), []).append(row)
    curves = {
        ticker: [(float(r["now_ns"]), float(r.get("drifted", 0))) for r in of_ticker]
        for ticker, of_ticker in by_ticker.items()
    }
    head = ("instrument", "looks", "warned", "critical", "columns drifted", "farthest", "PSI", "limit",
            "W1/sd", "limit", "PSI of the score", "trades on", "in training")  # fmt: skip
    cells = [(ticker, *_last_looks(of_ticker)) for ticker, of_ticker in sorted(by_ticker.items())]
    return svg.lines(curves, zone=zone, height=150) + _table(head, cells)


def _last_looks(looks: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    last = looks[-1]
    figures = [last.get(name) for name in ("psi", "psi_limit", "w1", "w1_limit", "psi_score")]
    rates = [last.get(name) for name in ("trade_rate", "trade_rate_trained")]
    return (
        str(len(looks)), str(sum(bool(r.get("warning")) for r in looks)),
        str(sum(bool(r.get("critical")) for r in looks)),
        f"{last.get('drifted', 0)} of {last.get('columns', 0)}", str(last.get("column", "")),
        *("" if v is None else f"{v:.3f}" for v in figures),
        *("" if v is None else f"{v:.1%}" for v in rates),
    )  # fmt: skip


def _sessions(sheet: Mapping[str, Any], zone: ZoneInfo) -> str:
    rows = []
    for s in sheet["sessions"]:
        started = datetime.fromtimestamp(s["started_wall_ns"] / SECOND_NS, zone).strftime("%Y-%m-%d %H:%M:%S")
        rows.append(
            (
                s["session_id"], started, s["mode"], f"{s['alias']} v{s['model_version']}",
                (s["manifest_sha256"] or "")[:12], (s["code_commit"] or "unknown")[:12],
            )
        )  # fmt: skip
    return _table(("session", "started", "mode", "model", "bundle", "code"), rows)


def _table(head: tuple[str, ...], rows: list[Any], *, raw: bool = False) -> str:
    if not rows:
        return '<p class="none">none</p>'
    plain = (lambda cell: cell) if raw else html.escape
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{plain(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{f"<tr>{top}</tr>" if top else ""}{body}</table></div>'
