"""Charts as hand-written SVG: no library, no script, readable in the dark (``currentColor``)."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from market.types import SECOND_NS

WIDTH, HEIGHT = 900, 240
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 14, 26
COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)")
MAX_POINTS = 900

Point = tuple[float, float]


def lines(
    curves: Mapping[str, Sequence[Point]], *, zone: tzinfo = UTC, unit: str = "", height: int = HEIGHT
) -> str:
    """Curves over time (x in ns), thinned so that each pixel keeps its extremes."""
    points = [p for curve in curves.values() for p in curve]
    if len(points) < 2:
        return '<p class="none">nothing to draw</p>'
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = min(0.0, *(y for _, y in points)), max(0.0, *(y for _, y in points))
    pad = (y1 - y0 or 1.0) * 0.06
    y0, y1 = y0 - pad, y1 + pad
    sx = _scale(x0, x1, LEFT, WIDTH - RIGHT)
    sy = _scale(y0, y1, height - BOTTOM, TOP)
    parts = [_grid(y0, y1, sy, unit), _time_axis(x0, x1, sx, zone, height)]
    for n, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{sx(x):.1f},{sy(y):.1f}" for x, y in _thin(curve))
        colour = COLOURS[n % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
        if len(curves) == 1:
            continue
        parts.append(
            f'<text x="{LEFT + 6 + n * 130}" y="{TOP + 4}" style="fill:{colour}">{html.escape(name)}</text>'
        )
    return _svg("".join(parts), height)


def bars(values: Mapping[str, float | None], *, unit: str = "", height: int = 180) -> str:
    """One bar a name, above or below zero, its value written on it."""
    known = [v for v in values.values() if v is not None]
    if not known:
        return '<p class="none">nothing to draw</p>'
    low, high = min(0.0, *known), max(0.0, *known)
    pad = (high - low or 1.0) * 0.18
    sy = _scale(low - pad, high + pad, height - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(values)
    parts = [_grid(low - pad, high + pad, sy, unit)]
    for n, (name, value) in enumerate(values.items()):
        x = LEFT + step * n + step * 0.25
        middle = x + step * 0.25
        parts.append(
            f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{html.escape(name)}</text>'
        )
        if value is None:
            continue
        top, bottom = sorted((sy(value), sy(0.0)))
        colour = COLOURS[0] if value >= 0 else COLOURS[2]
        parts.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.5:.1f}" height="{max(1.0, bottom - top):.1f}" '
            f'fill="{colour}"/>'
        )
        at = top - 4 if value >= 0 else bottom + 13
        parts.append(f'<text x="{middle:.1f}" y="{at:.1f}" text-anchor="middle">{value:+.2f}</text>')
    return _svg("".join(parts), height)


def spans(
    rows: Mapping[str, Sequence[tuple[float, float, str]]], x0: float, x1: float, *, zone: tzinfo = UTC
) -> str:
    """Bars over time, one row a name: (from, to, words that a pointer over it shows), x in ns."""
    if not rows or x1 <= x0:
        return '<p class="none">none</p>'
    height, left = TOP + BOTTOM + 22 * len(rows), 190
    sx = _scale(x0, x1, left, WIDTH - RIGHT)
    parts = [_time_axis(x0, x1, sx, zone, height)]
    for n, (name, found) in enumerate(rows.items()):
        y = TOP + 22 * n
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<line x1="{left}" x2="{WIDTH - RIGHT}" y1="{y + 19}" y2="{y + 19}" class="grid"/>')
        for start, end, words in found:
            a, b = sx(max(start, x0)), sx(min(end, x1))
            parts.append(
                f'<rect x="{a:.1f}" y="{y + 3}" width="{max(2.0, b - a):.1f}" height="13" '
                f'fill="{COLOURS[2]}"><title>{html.escape(words)}</title></rect>'
            )
    return _svg("".join(parts), height)


def _svg(inner: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" preserveAspectRatio="xMidYMid meet">{inner}</svg>'


def _scale(low: float, high: float, a: float, b: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: a + (value - low) * (b - a) / span


def _grid(y0: float, y1: float, sy: Callable[[float], float], unit: str) -> str:
    step = _nice((y1 - y0) / 5)
    parts, value = [], step * int(y0 / step - 1)
    while value <= y1:
        if value >= y0:
            y, zero = sy(value), abs(value) < step / 1000
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'class="{"zero" if zero else "grid"}"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{0 if zero else value:,.10g}{unit}</text>"
            )
        value += step
    return "".join(parts)


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least ``step``."""
    power = 1.0
    while power > step:
        power /= 10
    while power * 10 <= step:
        power *= 10
    return next(power * k for k in (1, 2, 5, 10) if power * k >= step)


_STEPS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400)


def _time_axis(x0: float, x1: float, sx: Callable[[float], float], zone: tzinfo, height: int) -> str:
    seconds = (x1 - x0) / SECOND_NS
    step = next((s for s in _STEPS_S if seconds / s <= 9), 86_400)
    form = "%H:%M:%S" if step < 60 else "%H:%M" if seconds < 172_800 else "%d %b"
    parts, at = [], (int(x0 / SECOND_NS) // step + 1) * step
    while at * SECOND_NS <= x1:
        x = sx(at * SECOND_NS)
        label = datetime.fromtimestamp(at, zone).strftime(form)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" class="grid"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{label}</text>'
        )
        at += step
    return "".join(parts)


def _thin(curve: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS, the lowest and the highest of every stretch among them."""
    if len(curve) <= MAX_POINTS:
        return list(curve)
    size = len(curve) * 2 // MAX_POINTS + 1
    kept: list[Point] = []
    for n in range(0, len(curve), size):
        stretch = curve[n : n + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return [curve[0], *kept, curve[-1]]
