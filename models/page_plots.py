"""Small charts as inline SVG: the page's own colours, so one drawing serves light, dark and paper.

Every series has a colour and a dash of its own, since paper and some eyes know no colour. Text is at least
eleven units on a 420 wide drawing: about ten pixels on a phone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 52, 18, 26, 40
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3")
COLOURS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A named series of (x, y) in order of x. ``weights``: sizes of the dots, one a point (none: no dots).
    ``band``: (x, low, high) drawn as a shade behind it."""

    name: str
    points: Sequence[tuple[float, float]]
    weights: Sequence[float] | None = None
    step: bool = False
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Axes:
    """What is on the axes. Ranges are taken from the data where None; ``log_x`` for decades."""

    x: str
    y: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    log_x: bool = False
    percent_x: bool = False
    percent_y: bool = False
    diagonal: bool = False
    zero: bool = False


def chart(
    title: str, lines: Sequence[Line], axes: Axes, *, watermark: str = "", broad: bool = False, note: str = ""
) -> str:
    """A figure with its caption. Says so where no series has two points to draw."""
    lines = [line for line in lines if len(line.points) > 0]
    if not lines:
        return f"<figure><figcaption>{html.escape(title)}: nothing to draw.</figcaption></figure>"
    width, height = (860, 260) if broad else (420, 300)
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    ys += [v for line in lines for _, low, high in line.band for v in (low, high)]
    if axes.zero:
        ys.append(0.0)
    x0, x1 = axes.x_range or _range(xs, pad=0.0, log=axes.log_x)
    y0, y1 = axes.y_range or _range(ys, pad=0.06)
    plot_w, plot_h = width - LEFT - RIGHT, height - TOP - BOTTOM

    def px(x: float) -> float:
        share = (math.log(x / x0) / math.log(x1 / x0)) if axes.log_x else (x - x0) / (x1 - x0)
        return LEFT + plot_w * min(max(share, 0.0), 1.0)

    def py(y: float) -> float:
        return TOP + plot_h * (1 - min(max((y - y0) / (y1 - y0), 0.0), 1.0))

    out = [
        f'<svg class="{"broad" if broad else "chart"}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title)}">'
    ]
    for x in _decades(x0, x1) if axes.log_x else _ticks(x0, x1, 8 if broad else 5):
        out.append(
            f'<line class="grid-line" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{TOP + plot_h}"/>'
        )
        out.append(
            f'<text x="{px(x):.1f}" y="{TOP + plot_h + 14}" text-anchor="middle">'
            f"{_number(x, axes.percent_x)}</text>"
        )
    for y in _ticks(y0, y1, 5):
        out.append(
            f'<line class="grid-line" x1="{LEFT}" x2="{LEFT + plot_w}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>'
        )
        out.append(
            f'<text x="{LEFT - 5}" y="{py(y) + 4:.1f}" text-anchor="end">{_number(y, axes.percent_y)}</text>'
        )
    if axes.diagonal:
        out.append(
            f'<line class="axis" x1="{px(max(x0, y0)):.1f}" y1="{py(max(x0, y0)):.1f}" '
            f'x2="{px(min(x1, y1)):.1f}" y2="{py(min(x1, y1)):.1f}"/>'
        )
    if axes.zero and y0 <= 0 <= y1:
        out.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + plot_w}" y1="{py(0):.1f}" y2="{py(0):.1f}"/>')
    if watermark == "SIMULATED":
        middle = f"{LEFT + plot_w / 2} {TOP + plot_h / 2}"
        out.append(
            f'<text x="{LEFT + plot_w / 2}" y="{TOP + plot_h / 2}" text-anchor="middle" font-size="34" '
            f'font-weight="bold" opacity=".1" transform="rotate(-14 {middle})">SIMULATED</text>'
        )
    legend_x = float(LEFT)
    for k, line in enumerate(lines):
        colour, dash = f"var(--c{k % COLOURS})", DASHES[k % len(DASHES)]
        if line.band:
            edge = [f"{px(x):.1f},{py(high):.1f}" for x, _, high in line.band]
            edge += [f"{px(x):.1f},{py(low):.1f}" for x, low, _ in reversed(line.band)]
            out.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" opacity=".15"/>')
        out.append(
            f'<polyline points="{_path(line, px, py)}" fill="none" stroke="{colour}" stroke-width="1.8" '
            f'stroke-dasharray="{dash}"/>'
        )
        if line.weights is not None:
            top = max(line.weights) or 1.0
            for (x, y), weight in zip(line.points, line.weights, strict=True):
                radius = 1.6 + 3.4 * math.sqrt(weight / top)
                out.append(
                    f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="{radius:.1f}" fill="{colour}" '
                    'fill-opacity=".75"/>'
                )
        if len(lines) > 1 or line.name:
            out.append(
                f'<line x1="{legend_x:.0f}" x2="{legend_x + 18:.0f}" y1="12" y2="12" stroke="{colour}" '
                f'stroke-width="2.4" stroke-dasharray="{dash}"/>'
                f'<text x="{legend_x + 22:.0f}" y="16">{html.escape(line.name)}</text>'
            )
            legend_x += 34 + 6.2 * len(line.name)
    out.append(
        f'<line class="axis" x1="{LEFT}" x2="{LEFT + plot_w}" y1="{TOP + plot_h}" y2="{TOP + plot_h}"/>'
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{TOP + plot_h}"/>'
        f'<text x="{LEFT + plot_w / 2}" y="{height - 8}" text-anchor="middle">{html.escape(axes.x)}</text>'
        f'<text x="12" y="{TOP + plot_h / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {TOP + plot_h / 2})">{html.escape(axes.y)}</text></svg>'
    )
    caption = f"<b>{html.escape(title)}</b>" + (f" {html.escape(note)}" if note else "")
    return f"<figure>{''.join(out)}<figcaption>{caption}</figcaption></figure>"


def bars(title: str, rows: Sequence[tuple[str, float]], *, unit: str = "", note: str = "") -> str:
    """Horizontal bars, scaled to the largest magnitude; the bar of a negative value is paler."""
    if not rows:
        return ""
    step, left, width = 17, 175, 420
    top = max(abs(value) for _, value in rows) or 1.0
    height = step * len(rows) + 6
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">']
    for k, (name, value) in enumerate(rows):
        y = 3 + k * step
        long = (width - left - 62) * abs(value) / top
        out.append(
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{html.escape(name[:27])}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{max(long, 0.5):.1f}" height="{step - 5}" fill="var(--c2)" '
            f'opacity="{".35" if value < 0 else ".85"}"/>'
            f'<text x="{left + long + 4:.1f}" y="{y + 12}">{value:.3g}{html.escape(unit)}</text>'
        )
    out.append("</svg>")
    caption = f"<b>{html.escape(title)}</b>" + (f" {html.escape(note)}" if note else "")
    return f"<figure>{''.join(out)}<figcaption>{caption}</figcaption></figure>"


def _path(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    out: list[str] = []
    last_y: float | None = None
    for x, y in line.points:
        if line.step and last_y is not None:
            out.append(f"{px(x):.1f},{last_y:.1f}")
        last_y = py(y)
        out.append(f"{px(x):.1f},{last_y:.1f}")
    return " ".join(out)


def _range(values: Sequence[float], pad: float, log: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high <= low:
        return (low / 2, low * 2) if log and low > 0 else (low - 0.5, high + 0.5)
    margin = pad * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers inside [low, high]: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    marks = [10.0**k for k in range(first, last + 1)]
    return marks if len(marks) > 1 else [low, math.sqrt(low * high), high]


def _number(value: float, percent: bool) -> str:
    if abs(value) < 1e-12:
        value = 0.0
    return f"{100 * value:.4g}%" if percent else f"{value:,.4g}"
