"""The backtest's HTML page: figures of the fill models side by side, and the curves. One file, no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from live.backtest_result import BacktestResult
from market.types import NANO, SECOND_NS

WIDTH, HEIGHT, PAD = 860, 260, 56
COLOURS = ("#1a6", "#36c", "#c63", "#888")
BINS = 41

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 960px; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr + tr { border-top: 1px solid #8884; }
.warn { border-left: 4px solid #c63; padding: .4rem .8rem; background: #c6331a14; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui; fill: currentColor; }
"""


def render(result: BacktestResult, *, title: str, initial_capital: float, notes: Sequence[str] = ()) -> str:
    """The page. ``notes`` are shown in front: what the reader must know before the figures."""
    models = result.by_fill_model
    warnings = "".join(f'<p class="warn">{html.escape(note)}</p>' for note in notes)
    curves = {
        name: [(at, value / NANO) for at, value in one.equity] for name, one in models.items() if one.equity
    }
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>{warnings}"
        f"<h2>Three fill models over the same scores</h2>{_table(models, initial_capital)}"
        f"<h2>Result so far, roubles after fees</h2>{_lines(curves)}"
        f"<h2>Drawdown, roubles</h2>{_lines({n: _drawdown(c) for n, c in curves.items()})}"
        f"<h2>Round trips: net result, bps of the entry value</h2>{_bars(result)}</html>\n"
    )


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def profitable_share(result: BacktestResult) -> float | None:
    """Share of round trips that won after fees; None without any."""
    return round(result.wins / len(result.trips), 4) if result.trips else None


def _table(models: dict[str, BacktestResult], capital: float) -> str:
    rows: list[tuple[str, list[str]]] = [
        ("orders", [f"{r.orders:,}" for r in models.values()]),
        ("deals", [f"{r.fills:,}" for r in models.values()]),
        ("round trips", [f"{len(r.trips):,}" for r in models.values()]),
        ("profitable", [_percent(profitable_share(r)) for r in models.values()]),
        ("gross, RUB", [f"{r.gross_nano / NANO:,.2f}" for r in models.values()]),
        ("fees, RUB", [f"{r.fees_nano / NANO:,.2f}" for r in models.values()]),
        ("net, RUB", [f"{r.net_nano / NANO:,.2f}" for r in models.values()]),
        ("net, % of capital", [f"{100 * r.net_nano / NANO / capital:.4f}" for r in models.values()]),
        ("largest drawdown, RUB", [f"{r.max_drawdown_nano / NANO:,.2f}" for r in models.values()]),
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in models)
    body = "".join(
        f"<tr><td>{name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, cells in rows
    )
    return f"<table><tr><th>fills</th>{head}</tr>{body}</table>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _drawdown(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    high, out = 0.0, []
    for at, value in curve:
        high = max(high, value)
        out.append((at, value - high))
    return out


def _lines(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    points = [point for curve in curves.values() for point in curve]
    if len(points) < 2:
        return "<p>Too short for a curve.</p>"
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    low, high = min(0.0, *(p[1] for p in points)), max(0.0, *(p[1] for p in points))

    def x(at: int) -> float:
        return PAD + (WIDTH - PAD - 8) * (at - left) / max(1, right - left)

    def y(value: float) -> float:
        return 8 + (HEIGHT - 30) * (high - value) / max(1e-9, high - low)

    drawn = []
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        drawn.append(
            f'<text x="{PAD + 8 + 130 * number}" y="{HEIGHT - 4}" fill="{colour}">{html.escape(name)}</text>'
        )
    for value in {low, 0.0, high}:
        drawn.append(f'<text x="0" y="{y(value) + 4:.1f}">{value:,.0f}</text>')
        drawn.append(
            f'<line x1="{PAD}" x2="{WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#8885"/>'
        )
    span = f"{_time(left)} to {_time(right)} UTC"
    drawn.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">{span}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'


def _bars(result: BacktestResult) -> str:
    values = sorted(trip["net_bps"] for trip in result.trips)
    if not values:
        return "<p>No round trip.</p>"
    edge = max(1e-9, abs(values[len(values) // 50]), abs(values[-1 - len(values) // 50]))
    counts = [0] * BINS
    for value in values:
        place = int((min(edge, max(-edge, value)) + edge) / (2 * edge) * (BINS - 1) + 0.5)
        counts[place] += 1
    step, top, tall = (WIDTH - PAD) / BINS, max(counts), HEIGHT - 34
    bars = "".join(
        f'<rect x="{PAD + step * i:.1f}" width="{step - 1:.1f}" y="{10 + tall * (1 - n / top):.1f}" '
        f'height="{tall * n / top:.1f}" fill="{"#1a6" if i > BINS // 2 else "#c63"}"/>'
        for i, n in enumerate(counts)
    )
    labels = (
        f'<text x="{PAD}" y="{HEIGHT - 6}">{-edge:.1f}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{edge:.1f}</text>'
        f'<text x="0" y="16">{top}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{bars}{labels}</svg>'


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M")
